"""ResNet-32: the published weights and their accuracy, normalization, shapes, refusals."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from neuroae import resnet32
from neuroae.classifiers import CIFAR10_MEAN, CIFAR10_STD


@pytest.fixture(scope="module")
def published_state(shared_reference: Path) -> dict[str, Tensor]:
    return load_file(shared_reference / "cifar10_resnet32_pgd_at.safetensors")


def test_published_weights_classify_as_published(
    published_state: dict[str, Tensor], cifar10_test: tuple[Tensor, Tensor]
) -> None:
    images, labels = cifar10_test
    model = resnet32(num_classes=10).eval()
    model.load_state_dict(published_state, strict=True)
    with torch.no_grad():
        correct = sum(
            int((model(some).argmax(1) == answers).sum())
            for some, answers in zip(images.split(100), labels.split(100), strict=True)
        )
    assert len(images) == 1000
    assert correct == pytest.approx(811, abs=1)


def test_state_dict_is_trained_numbers_alone(published_state: dict[str, Tensor]) -> None:
    state = resnet32().state_dict()
    assert state.keys() == published_state.keys()
    assert {name: tensor.shape for name, tensor in state.items()} == {
        name: tensor.shape for name, tensor in published_state.items()
    }


def test_depth() -> None:
    """32 layers with weights: the first convolution, 15 units of two, and the linear one."""
    weights = [module for module in resnet32().modules() if isinstance(module, nn.Conv2d | nn.Linear)]
    assert len(weights) == 32


def test_images_are_normalized_inside() -> None:
    model = resnet32().eval()
    bare = resnet32(mean=(0.0,) * 3, std=(1.0,) * 3).eval()
    bare.load_state_dict(model.state_dict())
    images = torch.rand(2, 3, 32, 32)
    mean, std = (torch.tensor(numbers).reshape(1, 3, 1, 1) for numbers in (CIFAR10_MEAN, CIFAR10_STD))
    torch.testing.assert_close(model(images), bare((images - mean) / std))


@pytest.mark.parametrize(("channels", "side", "classes"), [(3, 32, 10), (1, 8, 10), (4, 20, 7)], ids=str)
def test_shapes(channels: int, side: int, classes: int) -> None:
    numbers = (0.5,) * channels
    model = resnet32(classes, in_channels=channels, mean=numbers, std=numbers)
    assert model(torch.rand(2, channels, side, side)).shape == (2, classes)


def test_gradients_reach_the_image_and_every_parameter() -> None:
    model = resnet32()
    images = torch.rand(4, 3, 16, 16, requires_grad=True)
    model(images).square().sum().backward()
    for name, tensor in (("images", images), *model.named_parameters()):
        assert tensor.grad is not None, name
        assert tensor.grad.abs().max() > 0, name


def test_numbers_for_other_channels_are_refused() -> None:
    with pytest.raises(ValueError, match="mean and std hold 3 and 3 numbers, expected 1 channels"):
        resnet32(in_channels=1)


@pytest.mark.parametrize(("height", "width"), [(14, 16), (16, 18), (17, 17)])
def test_sides_that_cannot_be_halved_twice_are_refused(height: int, width: int) -> None:
    with pytest.raises(ValueError, match=f"images are {height} x {width}, expected sides that are multiples of 4"):
        resnet32().eval()(torch.rand(1, 3, height, width))


@pytest.mark.parametrize("shape", [(2, 1, 32, 32), (3, 32, 32), (2, 4, 32, 32)], ids=str)
def test_images_of_other_channels_are_refused(shape: tuple[int, ...]) -> None:
    """Normalization would broadcast a gray image to three channels, without a word."""
    with pytest.raises(ValueError, match=r"images has shape .*, expected \(B, 3, H, W\)"):
        resnet32()(torch.rand(shape))
