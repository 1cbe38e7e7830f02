"""The models that ship with the package: whole, scored, and small."""

from pathlib import Path

import pytest

from dictionaries import unit_atoms
from neuroae import Decoder, Defense, SparseEncoder, resnet32
from neuroae.models import load_pretrained
from neuroae.models.folders import SHIPPED
from neuroae.utils.files import has_digests
from saved_models import small_model

FILES = ("README.md", "config.json", "model.safetensors")


def scores(*ensembles: int) -> dict[str, object]:
    """Notes of a model that was scored with so many draws."""
    shown = {"data": "some test", "attack": "clean", "accuracy": 0.5, "low": 0.4, "high": 0.6, "images": 100}
    return {"scores": [shown | {"ensemble": ensemble} for ensemble in ensembles]}


@pytest.fixture
def shelf(tmp_path: Path) -> Path:
    """A package's models: the defense "one" and the classifier "two"."""
    small_model("defense").save_pretrained(tmp_path / "one", scores(1, 10))
    small_model("classifier").save_pretrained(tmp_path / "two", scores(1))
    return tmp_path


def require_whole_and_small(shelf: Path, limit: float = 24e6) -> None:
    """Every folder of a shelf holds one model, scored as it is shipped; all of them have at most ``limit`` bytes."""
    size = 0
    for folder in shelf.glob("*"):
        found = sorted(path.name for path in folder.iterdir())
        assert found == list(FILES), f"{folder.name} holds {', '.join(found)}"
        model, notes = load_pretrained(folder)
        scored = sorted(score["ensemble"] for score in notes["scores"])
        assert scored == ([1, 10] if isinstance(model, Defense) else [1]), f"{folder.name} is scored with {scored}"
        size += sum(path.stat().st_size for path in folder.iterdir())
    assert size <= limit, f"{size} bytes, expected at most {limit:g}"


def test_models_that_ship_have_digests() -> None:
    for folder in SHIPPED.iterdir():
        assert has_digests(folder / "model.safetensors")


def test_models_that_ship_are_whole_and_small() -> None:
    names = {folder.name for folder in SHIPPED.iterdir()}
    assert names == {"cifar10", "cifar10-undefended", "cifar10-unquantized", "cifar10-unsupervised"}
    require_whole_and_small(SHIPPED)


def spoil(shelf: Path, how: str) -> None:
    match how.split():
        case ["no", name]:
            (shelf / "one" / name).unlink()
        case ["half", name]:
            path = shelf / "one" / name
            path.write_bytes(path.read_bytes()[:1000])
        case ["stray", name]:
            (shelf / "two" / name).touch()
        case ["one", "draw"]:
            small_model("defense").save_pretrained(shelf / "one", scores(1))
        case ["ensemble", "of", "classifiers"]:
            small_model("classifier").save_pretrained(shelf / "two", scores(1, 10))


@pytest.mark.parametrize(
    ("how", "message"),
    [
        pytest.param("no model.safetensors", r"one holds README\.md, config\.json\n", id="no weights"),
        pytest.param("no config.json", r"one holds README\.md, model\.safetensors\n", id="no configuration"),
        pytest.param("no README.md", r"one holds config\.json, model\.safetensors\n", id="no card"),
        pytest.param("half model.safetensors", r"one/model\.safetensors is not a whole", id="half of the weights"),
        pytest.param("stray .lock", r"two holds \.lock, ", id="a stray file"),
        pytest.param("one draw", r"one is scored with \[1\]", id="no ensemble"),
        pytest.param("ensemble of classifiers", r"two is scored with \[1, 10\]", id="an ensemble of classifiers"),
    ],
)
def test_what_must_not_ship_is_noticed(shelf: Path, how: str, message: str) -> None:
    require_whole_and_small(shelf)
    spoil(shelf, how)
    with pytest.raises((AssertionError, ValueError), match=message):
        require_whole_and_small(shelf)


def test_models_too_large_to_ship_are_noticed(shelf: Path) -> None:
    size = sum(path.stat().st_size for path in shelf.glob("*/*"))
    require_whole_and_small(shelf, size)
    with pytest.raises(AssertionError, match=f"{size} bytes, expected at most"):
        require_whole_and_small(shelf, size - 1)


def test_four_models_of_the_papers_size_fit_into_24_megabytes(tmp_path: Path) -> None:
    encoder = SparseEncoder(unit_atoms(500, 3, 4))
    Defense(encoder, Decoder(), resnet32()).save_pretrained(tmp_path / "defense", half=True)
    resnet32().save_pretrained(tmp_path / "classifier", half=True)
    defense, classifier = (
        (tmp_path / name / "model.safetensors").stat().st_size for name in ("defense", "classifier")
    )
    assert 3 * defense + classifier < 21e6
