"""What is measured: the paper's two settings, on photographs that come with scikit-learn.

The cost of the sparse operations depends on the number of survivors, T (1 - p) a patch, and hardly on the pictures;
atoms are patches of the photographs, mean removed and normalized.
"""

import copy
import functools
from dataclasses import dataclass
from typing import TypeVar

import torch
from sklearn.datasets import load_sample_images
from torch import Tensor, nn

from bench.eager import EagerDefense
from neuroae import Decoder, Defense, SparseEncoder, resnet32


@dataclass(frozen=True)
class Setting:
    name: str
    image_size: int
    patch: int
    stride: int
    atoms: int
    batch: int
    kernel_size: int  # of the decoder's first layer
    kernel_stride: int
    resize: bool


Module = TypeVar("Module", bound=nn.Module)

CIFAR10 = Setting("CIFAR-10", 32, 4, 2, 500, 64, 4, 2, False)
IMAGENETTE = Setting("Imagenette", 160, 8, 4, 1000, 8, 3, 1, True)


def crops(size: int, count: int, generator: torch.Generator) -> Tensor:
    """(count, 3, size, size) in [0, 1], cut at random places."""
    photographs = [torch.tensor(image).permute(2, 0, 1).float() / 255 for image in load_sample_images().images]
    cut = []
    for number in range(count):
        photograph = photographs[number % len(photographs)]
        top, left = (int(torch.randint(side - size + 1, (), generator=generator)) for side in photograph.shape[1:])
        cut.append(photograph[:, top : top + size, left : left + size])
    return torch.stack(cut)


def images(setting: Setting) -> Tensor:
    return crops(setting.image_size, setting.batch, torch.Generator().manual_seed(0))


def encoder(setting: Setting) -> SparseEncoder:
    atoms = crops(setting.patch, setting.atoms, torch.Generator().manual_seed(1))
    atoms = atoms - atoms.mean((1, 2, 3), keepdim=True) + 1e-3
    atoms = atoms / atoms.square().sum((1, 2, 3), keepdim=True).sqrt()
    return SparseEncoder(atoms, stride=setting.stride)


@functools.cache
def ours(setting: Setting, device: str = "cpu") -> Defense:
    """Frozen and in evaluation mode, as an attack sees it. The classifier is ResNet-32 in both settings."""
    torch.manual_seed(0)
    decoder = Decoder(
        setting.atoms, setting.kernel_size, setting.kernel_stride, setting.image_size, resize=setting.resize
    )
    return frozen(Defense(encoder(setting), decoder, resnet32())).to(device)


@functools.cache
def eager(setting: Setting, channels_last: bool = False, device: str = "cpu") -> EagerDefense:
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
