"""The classifier behind the decoder."""

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

    The first unit of the network (``first``) is wired as in the published code, for which published weights were
    trained: the activated input takes the shortcut, and the raw input goes to the first convolution.
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
        """Matches the branch's shape: average pooling for its stride, zero channels on both sides for its width."""
        if self.stride > 1:
            x = F.avg_pool2d(x, self.stride)
        if self.new_channels:
            front = self.new_channels // 2
            x = F.pad(x, (0, 0, 0, 0, front, self.new_channels - front))
        return x


@dataclass(frozen=True)
class Normalization:
    """The mean and std that a classifier was built with. Its buffers may hold no values, as on the meta device.

    Attributes:
        mean, std: One number for each channel, of pixels in [0, 1].
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]


class ResNet32(PretrainedModel):
    """The ResNet-32 of Madry et al. (2018): 16-16-32-64 filters, 5 units a block. See ``resnet32``.

    The state_dict has the published names only, without ``mean`` and ``std``. These are in its metadata, which
    ``torch.save`` keeps, so that weights bring along the constants that they were trained with.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, num_classes: int, in_channels: int, mean: tuple[float, ...], std: tuple[float, ...]) -> None:
        super().__init__()
        if len(mean) != in_channels or len(std) != in_channels:
            raise ValueError(f"mean and std hold {len(mean)} and {len(std)} numbers, expected {in_channels} channels")
        self.constants = Normalization(mean, std)
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
        """Classifies images (B, C, H, W) in [0, 1]: returns logits (B, num_classes).

        Raises:
            ValueError: ``images`` is not (B, C, H, W) with the channels of ``mean``, or height or width is not a
                multiple of 4. Two blocks halve the sides, and the shortcuts would not fit otherwise.
        """
        if images.dim() != 4 or images.shape[1] != self.mean.shape[1]:
            raise ValueError(f"images has shape {tuple(images.shape)}, expected (B, {self.mean.shape[1]}, H, W)")
        check_sides(*images.shape[2:])
        x = self.conv1(((images - self.mean) / self.std).contiguous(memory_format=torch.channels_last))
        x = self.block3(self.block2(self.block1(x)))
        x = F.leaky_relu(self.bn1(x), SLOPE)
        return self.linear(x.mean((2, 3)))

    def config(self) -> dict[str, Any]:
        """Returns the architecture's name and the arguments, as values that JSON can hold."""
        return {
            "name": "resnet32",
            "num_classes": self.linear.out_features,
            "in_channels": self.conv1.in_channels,
            "mean": self.mean.flatten().tolist(),
            "std": self.std.flatten().tolist(),
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Self:
        """Returns an untrained classifier with the arguments that ``config`` returned."""
        return cls(config["num_classes"], config["in_channels"], tuple(config["mean"]), tuple(config["std"]))

    def normalization(self) -> dict[str, Tensor]:
        """Returns ``mean`` and ``std``: the buffers, or the arguments if the buffers are on the meta device."""
        if not self.mean.is_meta:
            return {"mean": self.mean, "std": self.std}
        with torch.device("cpu"):
            return {
                name: torch.tensor(values).reshape(self.mean.shape) for name, values in asdict(self.constants).items()
            }

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        # The values are copied, since ``to_empty`` leaves the buffers without values and no file restores them.
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
    """Raises ``ValueError`` for images whose sides cannot be halved twice."""
    if height % 4 or width % 4:
        raise ValueError(f"images are {height} x {width}, expected sides that are multiples of 4")


def block(in_channels: int, out_channels: int, stride: int, first: bool = False) -> nn.Sequential:
    """Returns five units. The first one has the stride and changes the number of channels."""
    head = PreActivationUnit(in_channels, out_channels, stride, first)
    return nn.Sequential(head, *(PreActivationUnit(out_channels, out_channels, 1) for _ in range(4)))


def resnet32(
    num_classes: int = 10,
    in_channels: int = 3,
    mean: tuple[float, ...] = CIFAR10_MEAN,
    std: tuple[float, ...] = CIFAR10_STD,
) -> ResNet32:
    """Returns the paper's CIFAR-10 classifier, untrained. It normalizes its input itself.

    Args:
        num_classes: The number of classes, the length of the logits.
        in_channels: The number of the images' channels.
        mean, std: Mean and standard deviation of the pixels in [0, 1], one number for each channel. They are in the
            metadata of the state_dict, not among its entries.

    Raises:
        ValueError: ``mean`` or ``std`` does not have ``in_channels`` numbers.
    """
    return ResNet32(num_classes, in_channels, mean, std)
