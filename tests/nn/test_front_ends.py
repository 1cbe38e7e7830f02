"""The front ends of Table 5 beside plain arithmetic, the published weights behind them, and refusals."""

import math
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file
from torch import Tensor, nn

from neuroae import DropoutResNet32, FrontEndClassifier, GaussianBlur, KSparseAutoencoder, resnet32


def count_correct(model: nn.Module, images: Tensor, labels: Tensor) -> int:
    with torch.no_grad():
        batches = zip(images.split(100), labels.split(100), strict=True)
        return sum(int((model(batch).argmax(1) == answers).sum()) for batch, answers in batches)


def test_the_published_blur_classifies_as_published(
    shared_reference: Path, cifar10_test: tuple[Tensor, Tensor]
) -> None:
    classifier = resnet32().eval()
    classifier.load_state_dict(load_file(shared_reference / "cifar10_resnet32_blur.safetensors"))
    images, labels = (part[:500] for part in cifar10_test)
    blurred = count_correct(FrontEndClassifier(GaussianBlur(), classifier).eval(), images, labels)
    assert blurred / 500 == pytest.approx(0.926, abs=0.02)


def test_the_published_dropout_classifies_as_published(
    shared_reference: Path, cifar10_test: tuple[Tensor, Tensor]
) -> None:
    """Some 89% of 1,000 images with one draw; rescaled outputs, as in usual dropout, would be another model."""
    model = DropoutResNet32().eval()
    model.load_state_dict(load_file(shared_reference / "cifar10_resnet32_dropout.safetensors"))
    images, labels = (part[:500] for part in cifar10_test)
    torch.manual_seed(0)
    assert count_correct(model, images, labels) / 500 == pytest.approx(0.89, abs=0.03)


@given(sigma=st.floats(0.2, 3), size=st.sampled_from([1, 3, 5, 7]), seed=st.integers(0, 99))
def test_blur_is_the_gaussian_mean_of_reflected_neighbours(sigma: float, size: int, seed: int) -> None:
    images = torch.rand(2, 3, 6, 5, generator=torch.Generator().manual_seed(seed)).double()
    half = size // 2
    weights = torch.tensor([math.exp(-(d**2) / (2 * sigma**2)) for d in range(-half, half + 1)]).double()
    rows = F.pad(images, [half] * 4, mode="reflect").unfold(2, size, 1).unfold(3, size, 1)
    expected = torch.einsum("bchwij,i,j->bchw", rows, weights, weights) / weights.sum() ** 2
    torch.testing.assert_close(GaussianBlur(sigma, size)(images.float()), expected.float(), rtol=1e-5, atol=1e-6)


def dense_autoencoder(model: KSparseAutoencoder, images: Tensor) -> Tensor:
    """Returns the autoencoder's output by dense layers: all but the k largest channels of each place are zeroed."""
    x = images
    for layer in (model.conv1, model.conv2, model.conv3):
        x = F.relu(F.conv2d(x, layer.weight, layer.bias, layer.stride, layer.padding))
    lowest = x.topk(model.k, dim=1).values[:, -1:]
    x = x * (x >= lowest)
    for layer in (model.deconv1, model.deconv2, model.deconv3):
        x = F.relu(F.conv_transpose2d(x, layer.weight, layer.bias, layer.stride, layer.padding))
    return x.clamp(0, 1)


@pytest.mark.parametrize(("size", "channels", "k"), [(12, 30, 4), ((14, 18), 17, 17), (32, 500, 50)], ids=str)
def test_the_k_sparse_autoencoder_and_its_gradients_are_those_of_dense_layers(
    size: int | tuple[int, int], channels: int, k: int
) -> None:
    torch.manual_seed(0)
    model = KSparseAutoencoder(2, size, channels, k)
    with torch.no_grad():
        model.deconv3.weight.mul_(30)
        model.deconv3.bias.fill_(0.3)
    images = torch.rand(2, 2, *model.image_size, requires_grad=True)
    towards = torch.randn_like(images)
    inputs = [images, *model.parameters()]
    outputs = [model(images), dense_autoencoder(model, images)]
    assert 0 < (outputs[0] > 0).float().mean() <= 1
    torch.testing.assert_close(*outputs, rtol=1e-4, atol=1e-5)
    ours, dense = (torch.autograd.grad(output, inputs, towards) for output in outputs)
    for one, other in zip(ours, dense, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=2e-4 * float(other.abs().max()))


def test_the_code_of_the_k_sparse_autoencoder_has_k_ascending_channels() -> None:
    code = KSparseAutoencoder(1, 12, 30, 4).encode(torch.rand(2, 1, 12, 12))
    assert code.shape == (2, 30, 2, 2)
    assert bool((code.index[..., 1:] > code.index[..., :-1]).all())
    assert bool((code.count == 4).all())


def test_what_does_not_fit_is_named() -> None:
    with pytest.raises(ValueError, match="k is 31"):
        KSparseAutoencoder(1, 12, 30, 31)
    with pytest.raises(ValueError, match="image_size is \\(13, 12\\), expected even sides"):
        KSparseAutoencoder(1, (13, 12))
    with pytest.raises(ValueError, match="expected \\(B, C"):
        KSparseAutoencoder(1, 12, 30, 3)(torch.rand(1, 1, 14, 14))
    with pytest.raises(ValueError, match="kernel_size is 4, expected an odd number"):
        GaussianBlur(1.0, 4)
    with pytest.raises(ValueError, match="sigma is 0"):
        GaussianBlur(0)


def test_dropout_depends_on_seed_and_image_alone_and_is_not_rescaled() -> None:
    model = DropoutResNet32(10, 1, (0.3,), (0.4,), filters=40, dropout_p=0.75).eval()
    images, ids = torch.rand(4, 1, 8, 8), torch.tensor([3, 9, 4, 1])
    logits = model(images, seed=5, image_ids=ids)
    order = torch.tensor([2, 0, 3, 1])
    torch.testing.assert_close(model(images[order], seed=5, image_ids=ids[order]), logits[order])
    assert not torch.equal(model(images, seed=6, image_ids=ids), logits)
    assert not torch.equal(model(images), model(images))
    masks = torch.stack([model.survivors(5, image, (40, 8, 8)) for image in ids.tolist()])
    assert masks.float().mean().item() == pytest.approx(0.25, abs=0.02)
    torch.testing.assert_close(model.classify(model.first_layer(images) * masks), logits)
    for p in (1, -0.1):
        with pytest.raises(ValueError, match="dropout_p is"):
            DropoutResNet32(dropout_p=p)
