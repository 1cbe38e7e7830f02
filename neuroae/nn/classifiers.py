"""Classifiers that follow the decoder."""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .pretrained_model import PretrainedModel

CIFAR10_MEAN = (0.4914, 0.4822, 0.4465)
CIFAR10_STD = (0.2471, 0.2435, 0.2616)
SLOPE = 0.1


class PreActivationUnit(nn.Module):
    """Two 3 x 3 convolutions, each after batch normalization and leaky ReLU, around a parameter-free shortcut.

    The network's very first unit (``first``) is wired as in the published code, which its weights expect: there the
    activated input takes the shortcut and the raw input goes to the first convolution.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int, first: bool = False) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(in_channels)
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, stride, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(out_channels)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, 1, 1, bias=False)
        self.first = first
        self.stride = stride
        self.new_channels = out_channels - in_channels

    def forward(self, x: Tensor) -> Tensor:
        activated = F.leaky_relu(self.bn1(x), SLOPE)
        branch, shortcut = (x, activated) if self.first else (activated, x)
        branch = self.conv2(F.leaky_relu(self.bn2(self.conv1(branch)), SLOPE))
        return self.shortcut(shortcut) + branch

    def shortcut(self, x: Tensor) -> Tensor:
        """Average pooling for the stride and zero channels on both sides for the width."""
        if self.stride > 1:
            x = F.avg_pool2d(x, self.stride)
        if self.new_channels:
            before = self.new_channels // 2
            x = F.pad(x, (0, 0, 0, 0, before, self.new_channels - before))
        return x


@dataclass(frozen=True)
class Normalization:
    """The constants that a classifier was made with, for when its buffers hold nothing, as on the meta device."""

    mean: tuple[float, ...]
    std: tuple[float, ...]


class ResNet32(PretrainedModel):
    """The ResNet-32 of Madry et al. (2018): 16-16-32-64 filters, 5 units a block. See ``resnet32``.

    ``mean`` and ``std`` are no entries of the state_dict, whose names are the published ones. They travel in its
    metadata, which ``torch.save`` keeps: weights that are loaded come with the constants that they were trained with.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, num_classes: int, in_channels: int, mean: tuple[float, ...], std: tuple[float, ...]) -> None:
        super().__init__()
        self.made_with = Normalization(mean, std)
        self.register_buffer("mean", torch.tensor(mean).reshape(1, in_channels, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).reshape(1, in_channels, 1, 1), persistent=False)
        self.conv1 = nn.Conv2d(in_channels, 16, 3, 1, 1, bias=False)
        self.block1 = block(16, 16, 1, first=True)
        self.block2 = block(16, 32, 2)
        self.block3 = block(32, 64, 2)
        self.bn1 = nn.BatchNorm2d(64)
        self.linear = nn.Linear(64, num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, a=SLOPE, mode="fan_out", nonlinearity="leaky_relu")
        self.to(memory_format=torch.channels_last)

    def forward(self, images: Tensor) -> Tensor:
        """(B, C, H, W) in [0, 1] to logits (B, num_classes).

        Raises:
            ValueError: images are not (B, C, H, W) with the channels of ``mean``, or height or width is no multiple of
                4: blocks that halve them would not fit their shortcuts.
        """
        if images.dim() != 4 or images.shape[1] != self.mean.shape[1]:
            raise ValueError(f"images has shape {tuple(images.shape)}, expected (B, {self.mean.shape[1]}, H, W)")
        check_sides(*images.shape[2:])
        x = self.conv1(((images - self.mean) / self.std).contiguous(memory_format=torch.channels_last))
        x = self.block3(self.block2(self.block1(x)))
        x = F.leaky_relu(self.bn1(x), SLOPE)
        return self.linear(x.mean((2, 3)))

    def normalization(self) -> dict[str, Tensor]:
        """``mean`` and ``std``, from the arguments where the buffers are on the meta device."""
        if not self.mean.is_meta:
            return {"mean": self.mean, "std": self.std}
        constants = asdict(self.made_with).items()
        with torch.device("cpu"):
            return {name: torch.tensor(values).reshape(self.mean.shape) for name, values in constants}

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        # By value, since ``to_empty`` copies nothing, and no file would bring the constants back.
        constants = self.normalization()
        super()._apply(fn, recurse)
        if not self.mean.is_meta:
            with torch.no_grad():
                for name, value in constants.items():
                    self.get_buffer(name).copy_(value)
        return self

    def _save_to_state_dict(self, destination: dict[str, Any], prefix: str, keep_vars: bool) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)
        if hasattr(destination, "_metadata"):
            constants = {name: value.flatten().tolist() for name, value in self.normalization().items()}
            destination._metadata[prefix[:-1]].update(constants)

    def _load_from_state_dict(
        self,
        state_dict: Mapping[str, Any],
        prefix: str,
        local_metadata: dict[str, Any],
        strict: bool,
        missing_keys: list[str],
        unexpected_keys: list[str],
        error_msgs: list[str],
    ) -> None:
        super()._load_from_state_dict(
            state_dict, prefix, local_metadata, strict, missing_keys, unexpected_keys, error_msgs
        )
        weight = f"{prefix}conv1.weight"
        constants = self.normalization()
        if self.mean.is_meta and local_metadata.get("assign_to_params_buffers") and weight in state_dict:
            for name, value in constants.items():
                self.register_buffer(name, value.to(state_dict[weight].device), persistent=False)
        for name in constants:
            values = local_metadata.get(name)
            if values is not None and len(values) != self.mean.shape[1]:
                error_msgs.append(f"{prefix}{name} has {len(values)} channels, expected {self.mean.shape[1]}")
            elif values is not None and not self.mean.is_meta:
                buffer = self.get_buffer(name)
                with torch.no_grad():
                    buffer.copy_(torch.tensor(values, device=buffer.device).reshape(buffer.shape))


def check_sides(height: int, width: int) -> None:
    """Refuses images that two halvings do not divide."""
    if height % 4 or width % 4:
        raise ValueError(f"images are {height} x {width}, expected sides that are multiples of 4")


def block(in_channels: int, out_channels: int, stride: int, first: bool = False) -> nn.Sequential:
    head = PreActivationUnit(in_channels, out_channels, stride, first)
    return nn.Sequential(head, *(PreActivationUnit(out_channels, out_channels, 1) for _ in range(4)))


def resnet32(
    num_classes: int = 10,
    in_channels: int = 3,
    mean: tuple[float, ...] = CIFAR10_MEAN,
    std: tuple[float, ...] = CIFAR10_STD,
) -> ResNet32:
    """The paper's CIFAR-10 classifier; it normalizes its input itself.

    Args:
        num_classes: length of the logits.
        in_channels: channels of the images, as many as ``mean`` and ``std`` have numbers.
        mean, std: of the pixels in [0, 1], per channel; not among the state_dict's entries, but in its metadata.
    """
    if len(mean) != in_channels or len(std) != in_channels:
        raise ValueError(f"mean and std hold {len(mean)} and {len(std)} numbers, expected {in_channels} channels")
    return ResNet32(num_classes, in_channels, mean, std)
