"""Options of ``neuroae train`` and ``neuroae dictionary``: which splits they need, and which would change nothing."""

import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner

from neuroae.cli import app
from neuroae.data import load_dataset
from neuroae.pretrained import load_pretrained
from neuroae.storage import load_tensors
from photos import load, write_photos


@pytest.fixture
def photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of training images, without any to test on."""
    monkeypatch.setenv("NEUROAE_CACHE", str(tmp_path / "cache"))
    write_photos(tmp_path / "photos")
    shutil.rmtree(tmp_path / "photos" / "val")
    return tmp_path / "photos"


def neuroae(*words: object) -> None:
    CliRunner().invoke(app, [str(word) for word in words], catch_exceptions=False)


def test_held_out_images_are_scored_where_there_are_no_test_images(photos: Path, tmp_path: Path) -> None:
    common = ["train", "--dataset", "image-folder", "--data-dir", photos, "--image-size", 12, "--method", "plain"]
    common += ["--epochs", 1, "--output", tmp_path / "model"]
    with pytest.raises(FileNotFoundError, match="holds no folder named test or val"):
        neuroae(*common)
    neuroae(*common, "--hold-out", 2)
    _, notes = load_pretrained(tmp_path / "model")
    assert notes["scores"][0]["images"] == 2
    assert notes["run"]["fingerprint"] == load(photos, image_size=12).hold_out(2, 0)[0].fingerprint()


def test_atoms_are_learned_from_images_of_the_size_asked_for(photos: Path, tmp_path: Path) -> None:
    few = ["--atoms", 8, "--patch", 3, "--iterations", 2, "--output", tmp_path / "atoms.safetensors"]
    neuroae("dictionary", "--dataset", "image-folder", "--data-dir", photos, "--image-size", 12, *few)
    assert load_tensors(tmp_path / "atoms.safetensors")[1]["fingerprint"] == load(photos, image_size=12).fingerprint()


@pytest.mark.parametrize("name", ["digits", "cifar10"])
def test_images_of_one_size_are_not_resized(name: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=f"image_size is 8, but images of {name} keep their own"):
        load_dataset(name, "train", tmp_path, image_size=8)


UNUSED = {
    "dictionary": ("plain", ["--dictionary", "atoms.safetensors"]),
    "atoms": ("plain", ["--atoms", 500]),
    "stride": ("plain", ["--stride", 2]),
    "top-t": ("plain", ["--top-t", 50]),
    "dropout-p": ("plain", ["--dropout-p", 0.95]),
    "epsilon": ("plain", ["--epsilon", 0]),
    "beta": ("plain", ["--beta", 3]),
    "quantize": ("plain", ["--no-quantize"]),
    "decoder-epochs": ("supervised", ["--decoder-epochs", 3]),
}


@pytest.mark.parametrize(("option", "method", "words"), [(option, *case) for option, case in UNUSED.items()])
def test_options_that_would_change_nothing_are_refused(
    tmp_path: Path, option: str, method: str, words: list[object]
) -> None:
    with pytest.raises(ValueError, match=rf"^--{option} is of an? .*, and --method is {method}"):
        neuroae("train", "--dataset", "digits", "--method", method, *words, "--output", tmp_path / "model")
    assert not (tmp_path / "model").exists()


def test_what_killed_writes_left_of_a_dictionary_is_removed(tmp_path: Path) -> None:
    left = [tmp_path / ".atoms-abcd1234.safetensors", tmp_path / ".atoms-abcd1234.png"]
    for path in left:
        path.touch()
    few = ["--atoms", 8, "--iterations", 2, "--limit", 40, "--output", tmp_path / "atoms.safetensors"]
    neuroae("dictionary", "--dataset", "digits", *few)
    assert {path.name for path in tmp_path.iterdir()} == {"atoms.safetensors", "atoms.png"}
