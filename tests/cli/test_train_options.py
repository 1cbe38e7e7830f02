"""Options of ``neuroae train`` and ``neuroae dictionary``: their effects and requirements, and refusals."""

import importlib
import json
import shutil
from dataclasses import asdict, replace
from math import prod
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

from neuroae import Defense
from neuroae.cli import app
from neuroae.data import ImageSet, load_dataset
from neuroae.dictionary import save_dictionary
from neuroae.models import load_pretrained
from neuroae.models.presets import PRESETS
from neuroae.training import Run, TrainingSettings
from neuroae.utils.files import load_tensors
from photos import load, write_photos


@pytest.fixture
def photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Returns a folder of training images, without test images."""
    monkeypatch.setenv("NEUROAE_CACHE", str(tmp_path / "cache"))
    write_photos(tmp_path / "photos")
    shutil.rmtree(tmp_path / "photos" / "val")
    return tmp_path / "photos"


def neuroae(*words: object) -> None:
    CliRunner().invoke(app, [str(word) for word in words], catch_exceptions=False)


def test_every_option_reaches_the_model_and_what_is_noted_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    preset = replace(PRESETS["digits"], iterations=3)
    monkeypatch.setitem(PRESETS, "digits", preset)
    encoder: dict[str, Any] = {"stride": 1, "top_t": 5, "dropout_p": 0.375, "epsilon": 0.0625, "beta": 2.25}
    encoder["quantize"] = False
    words: list[object] = ["--limit", 14, "--hold-out", 5, "--atoms", 9, "--decoder-epochs", 2, "--epochs", 1]
    words += ["--method", "unsupervised", "--batch-size", 6, "--learning-rate", 0.015, "--schedule", "constant"]
    words += ["--precision", "bfloat16", "--seed", 4, "--stride", 1, "--top-t", 5, "--dropout-p", 0.375]
    words += ["--epsilon", 0.0625, "--beta", 2.25, "--no-quantize"]
    neuroae("train", "--dataset", "digits", *words, "--output", tmp_path)
    model, notes = load_pretrained(tmp_path)
    assert isinstance(model, Defense)
    assert {name: getattr(model.encoder, name) for name in encoder} == encoder
    expected = replace(preset, atoms=9, decoder_epochs=2, epochs=1, learning_rate=0.015, **encoder)
    settings = TrainingSettings(1, 6, 0.015, "constant", precision="bfloat16", seed=4)
    run = notes["run"]
    assert run["preset"] == json.loads(json.dumps(expected.identity()))
    assert run["training"] == asdict(settings)
    assert (run["method"], run["dataset"], run["images"]) == ("unsupervised", "digits", 9)
    assert [epoch["stage"] for epoch in notes["epochs"]] == ["decoder", "decoder", "classifier"]
    assert {epoch["learning_rate"] for epoch in notes["epochs"]} == {0.015}


class Stopped(Exception):
    pass


def about_to_learn(*words: object) -> tuple[TrainingSettings, Run]:
    """Returns the settings and the run with which a command would train; it stops before training."""
    recorded: list[Any] = []

    def stopped(*arguments: object) -> None:
        recorded.extend(arguments)
        raise Stopped

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(importlib.import_module("neuroae.cli.training_plan"), "learn", stopped)
        with pytest.raises(Stopped):
            neuroae("train", "--method", "plain", *words)
    plan, _model, run = recorded
    return plan.settings, run


@pytest.mark.parametrize(
    ("dataset", "augment"), [("digits", False), ("cifar10", True), ("imagenette", True), ("image-folder", True)]
)
def test_photographs_are_augmented(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dataset: str, augment: bool
) -> None:
    images = torch.zeros(4, len(PRESETS[dataset].mean), 8, 8, dtype=torch.uint8)
    data = ImageSet(dataset, images, torch.arange(4), torch.arange(4), tuple("abcd"))
    monkeypatch.setattr(importlib.import_module("neuroae.cli.train"), "load_dataset", lambda *_: data)
    settings, _ = about_to_learn("--dataset", dataset, "--output", tmp_path)
    assert settings.augment == augment


@pytest.mark.parametrize(
    ("dataset", "words", "expected"),
    [
        ("cifar10", ["--method", "pgd-at"], (100, 0.05, "triangular")),
        ("cifar10", ["--method", "trades"], (76, 0.01, "stepwise")),
        ("cifar10", ["--method", "trades", "--epochs", 3, "--schedule", "constant"], (3, 0.01, "constant")),
        ("digits", ["--method", "r-fgsm-at"], (8, 0.01, "triangular")),
        ("cifar10", ["--front-end", "k-sparse-autoencoder"], (70, 0.05, "triangular")),
    ],
    ids=["pgd-at", "trades", "shorter", "digits", "clean images"],
)
def test_each_method_has_its_published_schedule(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dataset: str, words: list[object], expected: tuple[object, ...]
) -> None:
    channels = len(PRESETS[dataset].mean)
    data = ImageSet(
        dataset, torch.zeros(4, channels, 16, 16, dtype=torch.uint8), torch.arange(4), torch.arange(4), tuple("abcd")
    )
    monkeypatch.setattr(importlib.import_module("neuroae.cli.train"), "load_dataset", lambda *_: data)
    settings, _ = about_to_learn("--dataset", dataset, *words, "--output", tmp_path)
    assert (settings.epochs, settings.learning_rate, settings.schedule) == expected


@pytest.mark.parametrize(
    ("words", "kind"),
    [
        (["--method", "r-fgsm-at", "--epsilon", 0.1], "ResNet32"),
        (["--method", "trades", "--front-end", "gaussian-blur"], "FrontEndClassifier"),
        (["--method", "plain", "--classifier", "dropout-resnet32"], "DropoutResNet32"),
        (["--method", "supervised", "--atoms", 9, "--top-t", 9, "--resize"], "Defense"),
    ],
    ids=["adversarial", "behind a blur", "dropout", "published decoder"],
)
def test_every_kind_of_model_is_trained_scored_and_saved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: list[object], kind: str
) -> None:
    monkeypatch.setitem(PRESETS, "digits", replace(PRESETS["digits"], iterations=3))
    common = ["train", "--dataset", "digits", "--limit", 12, "--hold-out", 4, "--epochs", 1, "--output", tmp_path]
    neuroae(*common, *words)
    model, notes = load_pretrained(tmp_path)
    assert type(model).__name__ == kind
    assert notes["run"]["method"] == words[1]
    assert notes["scores"][0]["ensemble"] == (10 if kind in ("Defense", "DropoutResNet32") else 1)
    if isinstance(model, Defense):
        assert (model.decoder.resize, model.decoder.conv1.kernel_size) == (True, (3, 3))
    neuroae(*common, *words)  # the finished folder is the same training's


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--classifier", "dropout-resnet32"], "--classifier is dropout-resnet32, which has no defense"),
        (["--front-end", "gaussian-blur"], "--front-end is gaussian-blur, which replaces the defense"),
        (
            ["--method", "plain", "--front-end", "gaussian-blur", "--classifier", "dropout-resnet32"],
            "expected none with --classifier dropout-resnet32",
        ),
        (["--method", "plain", "--classifier", "efficientnet-b0"], "in_channels is 1, expected 3"),
    ],
    ids=["dropout", "front end", "both", "gray images"],
)
def test_parts_that_do_not_go_together_are_refused(tmp_path: Path, words: list[object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        neuroae("train", "--dataset", "digits", "--epochs", 1, *words, "--output", tmp_path / "model")
    assert not (tmp_path / "model").exists()


def test_checkpoints_are_as_far_apart_as_asked(tmp_path: Path) -> None:
    _, run = about_to_learn("--dataset", "digits", "--checkpoint-seconds", 7.5, "--output", tmp_path)
    assert run.seconds == 7.5


def test_held_out_images_are_scored_where_there_are_no_test_images(photos: Path, tmp_path: Path) -> None:
    common = ["train", "--dataset", "image-folder", "--data-dir", photos, "--image-size", 12, "--method", "plain"]
    common += ["--epochs", 1, "--output", tmp_path / "model"]
    with pytest.raises(FileNotFoundError, match="holds no folder named test or val"):
        neuroae(*common)
    neuroae(*common, "--hold-out", 2)
    _, notes = load_pretrained(tmp_path / "model")
    assert notes["scores"][0]["images"] == 2
    assert notes["run"]["fingerprint"] == load(photos, image_size=12).hold_out(2, 0)[0].fingerprint()


def test_sizes_that_the_classifier_cannot_take_leave_nothing_behind(photos: Path, tmp_path: Path) -> None:
    words = ["train", "--dataset", "image-folder", "--data-dir", photos, "--hold-out", 2, "--image-size", 18]
    with pytest.raises(ValueError, match="images are 18 x 18, expected sides that are multiples of 4"):
        neuroae(*words, "--output", tmp_path / "model")
    assert not (tmp_path / "model").exists()


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((8, 3, 4, 4), "expected \\(B, 3, H, W\\)"),
        ((8, 1, 9, 9), "images are 8 x 8, expected at least one patch, 9 x 9"),
    ],
    ids=["of color", "larger than the images"],
)
def test_atoms_that_do_not_fit_the_images_leave_nothing_behind(
    tmp_path: Path, shape: tuple[int, ...], message: str
) -> None:
    path = tmp_path / "atoms.safetensors"
    save_dictionary(path, torch.full(shape, prod(shape[1:]) ** -0.5))
    with pytest.raises(ValueError, match=message):
        neuroae("train", "--dataset", "digits", "--dictionary", path, "--top-t", 4, "--output", tmp_path / "model")
    assert not (tmp_path / "model").exists()


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
    "resize": ("plain", ["--resize"]),
    "top-t ": ("trades", ["--top-t", 50]),
}


@pytest.mark.parametrize(("option", "method", "words"), [(option, *case) for option, case in UNUSED.items()])
def test_options_that_would_change_nothing_are_refused(
    tmp_path: Path, option: str, method: str, words: list[object]
) -> None:
    with pytest.raises(
        ValueError, match=rf"^--{option.strip()} needs (a defense|--method unsupervised), but --method is {method}"
    ):
        neuroae("train", "--dataset", "digits", "--method", method, *words, "--output", tmp_path / "model")
    assert not (tmp_path / "model").exists()


def test_what_killed_writes_left_of_a_dictionary_is_removed(tmp_path: Path) -> None:
    left = [tmp_path / ".atoms-abcd1234.safetensors", tmp_path / ".atoms-abcd1234.png"]
    for path in left:
        path.touch()
    few = ["--atoms", 8, "--iterations", 2, "--limit", 40, "--output", tmp_path / "atoms.safetensors"]
    neuroae("dictionary", "--dataset", "digits", *few)
    assert {path.name for path in tmp_path.iterdir()} == {"atoms.safetensors", "atoms.png"}
