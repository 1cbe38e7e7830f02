"""The decoder: its layers and shapes with the paper's settings, the crop, and the size of the image."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import oracle
from dictionaries import unit_atoms
from neuroae import Decoder, SparseConvTranspose2d, SparseEncoder
from neuroae.nn.decoder import crop

SETTINGS: dict[str, tuple[dict[str, Any], int, int, tuple[int, int]]] = {
    "CIFAR-10": ({"kernel_size": 4, "stride": 2, "image_size": 32}, 4, 2, (32, 32)),
    "Imagenette": ({"kernel_size": 3, "stride": 1, "image_size": 160, "resize": True}, 8, 4, (160, 160)),
    "digits": ({"kernel_size": 4, "stride": 2, "image_size": (8, 10), "out_channels": 1}, 4, 2, (8, 10)),
}


@pytest.mark.parametrize(("settings", "patch", "stride", "size"), SETTINGS.values(), ids=list(SETTINGS))
def test_decoded_images_have_the_size_of_the_images(
    settings: dict[str, Any], patch: int, stride: int, size: tuple[int, int]
) -> None:
    channels = settings.get("out_channels", 3)
    encoder = SparseEncoder(unit_atoms(12, channels, patch), stride, top_t=6, dropout_p=0.5)
    decoder = Decoder(in_channels=12, **settings)
    decoded = decoder(encoder.encode(torch.rand(1, channels, *size)))
    assert decoded.shape == (1, channels, *size)
    assert decoded.min() >= 0
    assert decoded.max() <= 1
    assert decoded.requires_grad


def test_layers_are_those_of_the_paper() -> None:
    state = {name: tuple(tensor.shape) for name, tensor in Decoder().state_dict().items()}
    assert state == {
        "conv1.weight": (500, 300, 4, 4),
        "conv1.bias": (300,),
        "conv2.weight": (300, 100, 3, 3),
        "conv2.bias": (100,),
        "conv3.weight": (100, 3, 3, 3),
        "conv3.bias": (3,),
    }


@pytest.mark.parametrize("resize", [False, True], ids=["not resized", "resized"])
def test_output_is_that_of_plain_layers(resize: bool) -> None:
    """Three transposed convolutions with ReLU, the enlargement after the first, the crop and the clamp."""
    encoder = SparseEncoder(unit_atoms(12, 3, 4), 2, top_t=6, dropout_p=0.5)
    code = encoder.encode(torch.rand(2, 3, 12, 12))
    decoder = Decoder(12, kernel_size=4, stride=2, image_size=14, resize=resize)
    assert decoder.conv3.bias is not None
    with torch.no_grad():
        decoder.conv3.bias.copy_(torch.tensor([-0.2, 0.4, 0.95]))
    layers = [nn.ConvTranspose2d(12, 300, 4, 2), nn.ConvTranspose2d(300, 100, 3), nn.ConvTranspose2d(100, 3, 3)]
    for layer, name in zip(layers, ("conv1", "conv2", "conv3"), strict=True):
        layer.load_state_dict(getattr(decoder, name).state_dict(), strict=True)
    hidden = layers[0](code.to_dense()).relu()
    if resize:
        hidden = F.interpolate(hidden, (16, 16), mode="bicubic", align_corners=False)
    full = layers[2](layers[1](hidden).relu()).relu()
    top = (full.shape[2] - 14) // 2
    expected = full[:, :, top : top + 14, top : top + 14].clamp(0, 1)
    assert (expected == 1).any()
    assert (expected == 0).any()
    oracle.assert_close(decoder(code), expected, "decoded image")
    oracle.assert_close(decoder(code.to_dense()), expected, "decoded image of the dense tensor")


def test_first_layer_is_sparse() -> None:
    assert isinstance(Decoder(12).conv1, SparseConvTranspose2d)


@pytest.mark.parametrize(
    ("size", "first"),
    [((4, 4), (1, 1)), ((5, 3), (0, 1)), ((6, 6), (0, 0))],
    ids=["even margin", "odd margin", "no margin"],
)
def test_crop_takes_the_centre(size: tuple[int, int], first: tuple[int, int]) -> None:
    images = torch.arange(36.0).reshape(1, 1, 6, 6)
    cropped = crop(images, size)
    assert cropped.shape[2:] == size
    assert cropped[0, 0, 0, 0] == images[0, 0, first[0], first[1]]


def test_an_image_larger_than_the_decoder_makes_is_refused() -> None:
    encoder = SparseEncoder(unit_atoms(12, 3, 4), 2, top_t=6)
    decoder = Decoder(12, kernel_size=4, stride=2, image_size=40)
    with pytest.raises(ValueError, match=r"the decoder makes 36 x 36, less than image_size \(40, 40\)"):
        decoder(encoder.encode(torch.rand(1, 3, 32, 32)))
