"""Refusals of a training before it learns or writes anything."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from killed_run import SETTINGS, NoisyClassifier, untrained
from models import Linear, small_defense
from neuroae.data import ImageSet, load_dataset
from neuroae.training import Run, train_plain, train_supervised, train_unsupervised


class Chatty(Linear):
    """Returns a tuple of logits and more."""

    def forward(self, images: Tensor) -> Tensor:
        return super().forward(images), 3  # type: ignore[return-value]


@pytest.fixture(scope="module")
def digits() -> ImageSet:
    return load_dataset("digits", "train").take(slice(40))


class Flat(nn.Module):
    """Returns the pixels of all images in one row, times a weight."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(()))

    def forward(self, images: Tensor) -> Tensor:
        return images.flatten() * self.weight


@pytest.mark.parametrize(
    ("classifier", "error", "message"),
    [
        (Linear(1, 8, 3), ValueError, "model answers with 3 classes, expected the 10 of digits train"),
        (Linear(1, 8, 11), ValueError, "model answers with 11 classes, expected the 10"),
        (Chatty(1, 8, 10), TypeError, "model answers with a tuple, expected a tensor of logits"),
        (Flat(), ValueError, r"model answers with shape \(128,\), expected logits \(2, classes\)"),
    ],
    ids=["too few classes", "too many classes", "a tuple", "no logits"],
)
@pytest.mark.parametrize("method", [train_plain, train_supervised])
def test_a_model_that_does_not_fit_the_images(  # type: ignore[no-untyped-def]
    digits: ImageSet, tmp_path: Path, method, classifier: nn.Module, error: type[Exception], message: str
) -> None:
    model = small_defense()
    model.classifier = classifier
    with pytest.raises(error, match=message):
        method(classifier if method is train_plain else model, digits, SETTINGS, Run(tmp_path / "run"))
    assert not (tmp_path / "run").exists()


def test_the_check_leaves_statistics_alone_and_the_training_torchs_draws(
    digits: ImageSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    batches: list[Tensor] = []
    forward = NoisyClassifier.forward

    def recorded(self: NoisyClassifier, images: Tensor) -> Tensor:
        if self.training:
            batches.append(self.layers[1].running_mean.clone())
        return forward(self, images)

    monkeypatch.setattr(NoisyClassifier, "forward", recorded)
    model = untrained()
    before = torch.get_rng_state()
    train_plain(model, digits, SETTINGS)
    assert not batches[0].any()
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("part", ["data", "validation"])
def test_no_images(digits: ImageSet, part: str) -> None:
    sets = {"data": digits, "validation": digits} | {part: digits.take(slice(0))}
    with pytest.raises(ValueError, match=f"{part} holds no images, expected at least one"):
        train_plain(untrained(), sets["data"], SETTINGS, validation=sets["validation"])


def test_validation_images_that_do_not_fit_the_model(digits: ImageSet, tmp_path: Path) -> None:
    """The error comes before the first epoch, not at its end."""
    validation = replace(digits, name="others", classes=(*digits.classes, "eleventh"))
    with pytest.raises(ValueError, match="model answers with 10 classes, expected the 11 of others"):
        train_plain(untrained(), digits, SETTINGS, Run(tmp_path / "run"), validation)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("model", [nn.Flatten(), untrained().requires_grad_(False)], ids=["no weights", "frozen"])
def test_a_model_with_nothing_to_learn(digits: ImageSet, model: nn.Module) -> None:
    with pytest.raises(ValueError, match="no parameter that requires a gradient"):
        train_plain(model, digits, SETTINGS)


def test_no_epochs_of_the_decoder(digits: ImageSet) -> None:
    with pytest.raises(ValueError, match=r"^decoder_epochs is 0, expected at least 1"):
        train_unsupervised(small_defense(), digits, SETTINGS, decoder_epochs=0)


@pytest.mark.parametrize("value", [object(), float("nan"), {3j: 1}], ids=["object", "not a number", "complex key"])
def test_an_identity_that_json_does_not_hold(digits: ImageSet, tmp_path: Path, value: object) -> None:
    run = Run(tmp_path / "run", identity={"some": value})
    with pytest.raises(TypeError, match=r"run\.identity holds a value that JSON cannot hold"):
        train_plain(untrained(), digits, SETTINGS, run)
    assert not (tmp_path / "run").exists()


def test_an_identity_is_compared_as_json_gives_it_back(digits: ImageSet, tmp_path: Path) -> None:
    run = Run(tmp_path, identity={"size": (8, 8), "names": {1: "one"}})
    expected = train_plain(untrained(), digits, SETTINGS, run)
    assert train_plain(untrained(), digits, SETTINGS, run) == expected
    with pytest.raises(ValueError, match=r"size is \[8, 8\] there and \[8, 9\] here"):
        train_plain(untrained(), digits, SETTINGS, replace(run, identity={"size": (8, 9), "names": {1: "one"}}))
