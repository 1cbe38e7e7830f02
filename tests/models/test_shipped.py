"""The models that ship with the package are complete, scored and small."""

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
    """Returns the notes of a model that was scored with these ensembles."""
    fields = {"data": "some test", "attack": "clean", "accuracy": 0.5, "low": 0.4, "high": 0.6, "images": 100}
    return {"scores": [fields | {"ensemble": ensemble} for ensemble in ensembles]}


@pytest.fixture
def shelf(tmp_path: Path) -> Path:
    """Returns a folder of models: the defense "one" and the classifier "two"."""
    small_model("defense").save_pretrained(tmp_path / "one", scores(1, 10))
    small_model("classifier").save_pretrained(tmp_path / "two", scores(1))
    return tmp_path


def check_models(shelf: Path, limit: float = 24e6) -> None:
    """Checks that each folder holds one complete and scored model, and that all have at most ``limit`` bytes."""
    size = 0
    for folder in shelf.glob("*"):
        names = sorted(path.name for path in folder.iterdir())
        assert names == list(FILES), f"{folder.name} holds {', '.join(names)}"
        model, notes = load_pretrained(folder)
        ensembles = sorted(score["ensemble"] for score in notes["scores"])
        expected = [1, 10] if isinstance(model, Defense) else [1]
        assert ensembles == expected, f"{folder.name} is scored with {ensembles}"
        size += sum(path.stat().st_size for path in folder.iterdir())
    assert size <= limit, f"{size} bytes, expected at most {limit:g}"


def test_models_that_ship_have_digests() -> None:
    for folder in SHIPPED.iterdir():
        assert has_digests(folder / "model.safetensors")


def test_models_that_ship_are_complete_and_small() -> None:
    names = {folder.name for folder in SHIPPED.iterdir()}
    assert names == {"cifar10", "cifar10-undefended", "cifar10-unquantized", "cifar10-unsupervised"}
    check_models(SHIPPED)


def spoil(shelf: Path, kind: str) -> None:
    match kind.split():
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
    ("kind", "message"),
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
def test_models_that_must_not_ship_are_detected(shelf: Path, kind: str, message: str) -> None:
    check_models(shelf)
    spoil(shelf, kind)
    with pytest.raises((AssertionError, ValueError), match=message):
        check_models(shelf)


def test_models_too_large_to_ship_are_detected(shelf: Path) -> None:
    size = sum(path.stat().st_size for path in shelf.glob("*/*"))
    check_models(shelf, size)
    with pytest.raises(AssertionError, match=f"{size} bytes, expected at most"):
        check_models(shelf, size - 1)


def test_four_models_of_the_papers_size_fit_into_24_megabytes(tmp_path: Path) -> None:
    encoder = SparseEncoder(unit_atoms(500, 3, 4))
    Defense(encoder, Decoder(), resnet32()).save_pretrained(tmp_path / "defense", half=True)
    resnet32().save_pretrained(tmp_path / "classifier", half=True)
    defense, classifier = (
        (tmp_path / name / "model.safetensors").stat().st_size for name in ("defense", "classifier")
    )
    assert 3 * defense + classifier < 21e6
