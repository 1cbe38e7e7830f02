"""A part of the gallery under the quick suite; ``python -m gallery`` judges all of it under both suites."""

import pytest
import torch

from gallery.defenses import GALLERY
from gallery.judge import first_images, judge
from neuroae.data import ImageSet

# Quick to judge, and each broken by another stage. Those on digits need no data from elsewhere.
PART = {"one-hot quantization": 30, "winners-take-all": 30, "stochastic activation pruning": 30}
ON_CIFAR10 = {"bit depth": 12, "JPEG": 12, "saturated softmax": 12, "detached front end": 12}
MOST_LEFT = 15


@pytest.mark.parametrize(("name", "images"), PART.items(), ids=PART)
def test_a_broken_defense_of_digits_falls(name: str, images: int) -> None:
    judged = judge(GALLERY[name], first_images("digits", images, None), "quick")
    assert judged.falling > images // 2
    assert judged.share <= MOST_LEFT


@pytest.fixture(scope="session")
def cifar10_set(cifar10_test):  # type: ignore[no-untyped-def]
    """The first test images as a set."""
    images, labels = cifar10_test
    return ImageSet("cifar10 test", images, labels, torch.arange(len(images)), tuple("0123456789"))


@pytest.mark.parametrize(("name", "images"), ON_CIFAR10.items(), ids=ON_CIFAR10)
def test_a_broken_front_end_falls(name: str, images: int, cifar10_set) -> None:  # type: ignore[no-untyped-def]
    judged = judge(GALLERY[name], cifar10_set.take(slice(images)), "quick")
    assert judged.falling > images // 2
    assert judged.share <= MOST_LEFT
