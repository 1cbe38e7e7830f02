"""ResNet-32: the published weights and their accuracy, normalization, shapes, refusals."""

import copy
import io
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from models import small_defense
from neuroae import resnet32
from neuroae.nn.classifiers import CIFAR10_MEAN, CIFAR10_STD


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
            int((model(batch).argmax(1) == answers).sum())
            for batch, answers in zip(images.split(100), labels.split(100), strict=True)
        )
    assert len(images) == 1000
    assert correct == pytest.approx(811, abs=1)


def test_state_dict_holds_trained_numbers_alone(published_state: dict[str, Tensor]) -> None:
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
    bare.load_state_dict(dict(model.state_dict()))  # weights without the metadata, which has the constants
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
    """Normalization would broadcast a gray image to three channels without an error."""
    with pytest.raises(ValueError, match=r"images has shape .*, expected \(B, 3, H, W\)"):
        resnet32()(torch.rand(shape))


OTHERS = {"mean": (0.1, 0.2, 0.3), "std": (0.4, 0.5, 0.6)}
IMAGES = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))


def saved_and_loaded(model: nn.Module) -> dict[str, Tensor]:
    """Returns the state_dict after ``torch.save`` and ``torch.load``."""
    file = io.BytesIO()
    torch.save(model.state_dict(), file)
    file.seek(0)
    state: dict[str, Tensor] = torch.load(file, weights_only=True)
    return state


@pytest.mark.parametrize("reload", [saved_and_loaded, nn.Module.state_dict], ids=["file", "memory"])
def test_loaded_weights_bring_their_constants(reload) -> None:  # type: ignore[no-untyped-def]
    trained, model = resnet32(**OTHERS).eval(), resnet32().eval()
    model.load_state_dict(reload(trained))
    assert torch.equal(model(IMAGES), trained(IMAGES))


def test_loaded_weights_bring_constants_changed_in_place() -> None:
    trained, model = resnet32().eval(), resnet32().eval()
    trained.mean += 0.1
    model.load_state_dict(saved_and_loaded(trained))
    assert torch.equal(model(IMAGES), trained(IMAGES))


def test_loaded_weights_of_a_part_bring_its_constants() -> None:
    def defense(**constants: tuple[float, ...]) -> nn.Module:
        model = small_defense(channels=3)
        model.classifier = resnet32(**constants)
        return model.eval()

    trained, model = defense(**OTHERS), defense()
    model.load_state_dict(saved_and_loaded(trained))
    assert model.classifier.mean.flatten().tolist() == pytest.approx(OTHERS["mean"])
    assert model.classifier.std.flatten().tolist() == pytest.approx(OTHERS["std"])


def test_weights_without_constants_leave_those_of_the_model() -> None:
    trained, model = resnet32(), resnet32(**OTHERS)
    model.load_state_dict(dict(trained.state_dict()))
    assert model.mean.flatten().tolist() == pytest.approx(OTHERS["mean"])


def test_constants_of_other_channels_are_refused() -> None:
    state = resnet32().state_dict()
    state._metadata[""]["mean"] = [0.5]  # type: ignore[attr-defined]
    with pytest.raises(RuntimeError, match="mean has 1 channels, expected 3"):
        resnet32().load_state_dict(state)


@pytest.mark.parametrize("nested", [False, True], ids=["alone", "part"])
@pytest.mark.parametrize("meta", [False, True], ids=["from memory", "from meta"])
def test_emptied_models_keep_their_constants(meta: bool, nested: bool) -> None:
    trained = resnet32(**OTHERS).eval()
    with torch.device("meta" if meta else "cpu"):
        model = resnet32(**OTHERS).eval()
    (nn.Sequential(model) if nested else model).to_empty(device="cpu")
    model.load_state_dict(dict(trained.state_dict()))
    assert torch.equal(model(IMAGES), trained(IMAGES))


def test_weights_may_be_assigned_to_a_model_on_the_meta_device() -> None:
    trained = resnet32(**OTHERS).eval()
    for state in (trained.state_dict(), dict(trained.state_dict())):
        with torch.device("meta"):
            model = resnet32(**OTHERS).eval()
        model.load_state_dict(state, assign=True)
        assert torch.equal(model(IMAGES), trained(IMAGES))


def test_copies_and_precisions_keep_the_constants() -> None:
    model = resnet32(**OTHERS)
    assert copy.deepcopy(model).half().mean.flatten().tolist() == pytest.approx(OTHERS["mean"], abs=1e-3)
    assert model.double().std.flatten().tolist() == pytest.approx(OTHERS["std"])
