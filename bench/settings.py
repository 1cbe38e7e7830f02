"""The models, images and precisions of the benchmarks: the paper's two settings, on scikit-learn's sample photographs.

The cost of the sparse operations depends on the number of survivors, T (1 - p) in each patch, and hardly on the
pictures. Atoms are patches of the photographs, with mean 0 and norm 1.
"""

import copy
import functools
from dataclasses import dataclass
from typing import TypeVar

import pytest
import torch
from sklearn.datasets import load_sample_images
from torch import Tensor, nn

from bench.eager import EagerDefense
from neuroae import Decoder, Defense, SparseEncoder, resnet32
from neuroae.utils.devices import has_fast_bfloat16


@dataclass(frozen=True)
class Setting:
    """An encoder, the first layer of its decoder, and a batch of images.

    Attributes:
        kernel_size: Of the decoder's first layer.
        kernel_stride: Of the decoder's first layer.
        resize: Whether the decoder resizes bicubically to the size of the image.
    """

    name: str
    image_size: int
    patch: int
    stride: int
    num_atoms: int
    batch: int
    kernel_size: int
    kernel_stride: int
    resize: bool


Module = TypeVar("Module", bound=nn.Module)

CIFAR10 = Setting("CIFAR-10", 32, 4, 2, 500, 64, 4, 2, False)
IMAGENETTE = Setting("Imagenette", 160, 8, 4, 1000, 8, 3, 1, True)

# Without instructions for it, bfloat16 is far slower than float32, and not worth timing.
FAST_BFLOAT16 = has_fast_bfloat16(torch.device("cpu"))
FASTEST = "bfloat16" if FAST_BFLOAT16 else "float32"
NEEDS_BFLOAT16 = pytest.mark.skipif(not FAST_BFLOAT16, reason="this processor has no instructions for bfloat16")
PRECISIONS = pytest.mark.parametrize("precision", ["float32", pytest.param("bfloat16", marks=NEEDS_BFLOAT16)])


def crops(size: int, count: int, generator: torch.Generator) -> Tensor:
    """Returns square crops at random places, (count, 3, size, size) in [0, 1]."""
    photographs = [torch.tensor(image).permute(2, 0, 1).float() / 255 for image in load_sample_images().images]
    images = []
    for number in range(count):
        photograph = photographs[number % len(photographs)]
        top, left = (int(torch.randint(side - size + 1, (), generator=generator)) for side in photograph.shape[1:])
        images.append(photograph[:, top : top + size, left : left + size])
    return torch.stack(images)


def images(setting: Setting) -> Tensor:
    return crops(setting.image_size, setting.batch, torch.Generator().manual_seed(0))


def encoder(setting: Setting) -> SparseEncoder:
    atoms = crops(setting.patch, setting.num_atoms, torch.Generator().manual_seed(1))
    atoms = atoms - atoms.mean((1, 2, 3), keepdim=True) + 1e-3
    atoms = atoms / atoms.square().sum((1, 2, 3), keepdim=True).sqrt()
    return SparseEncoder(atoms, stride=setting.stride)


@functools.cache
def ours(setting: Setting, device: str = "cpu") -> Defense:
    """Returns our defense, frozen and in evaluation mode, as an attack sees it. The classifier is always ResNet-32."""
    torch.manual_seed(0)
    decoder = Decoder(
        setting.num_atoms, setting.kernel_size, setting.kernel_stride, setting.image_size, resize=setting.resize
    )
    return frozen(Defense(encoder(setting), decoder, resnet32())).to(device)


@functools.cache
def eager(setting: Setting, channels_last: bool = False, device: str = "cpu") -> EagerDefense:
    """Returns the same defense in eager dense PyTorch, by default in the contiguous layout."""
    model = ours(setting)
    twin = resnet32().to(memory_format=torch.contiguous_format)
    twin.load_state_dict(model.classifier.state_dict())
    layout = torch.channels_last if channels_last else torch.contiguous_format
    defense = frozen(EagerDefense(model.encoder, model.decoder, twin))
    for layer in (defense.conv1, defense.conv2, defense.conv3, defense.classifier):
        layer.to(memory_format=layout)
    return copy.deepcopy(defense).to(device)


def frozen(module: Module) -> Module:
    return module.eval().requires_grad_(False)
