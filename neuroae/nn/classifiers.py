"""ResNet-32, the classifier behind the decoder for CIFAR-10, and its twin with dropout (paper, sections 5.1, 8.6)."""

from collections.abc import Sequence
from typing import Any, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..utils.contexts import CPU
from ..utils.randomness import derive_seed, image_id_tensor, seed_tensor
from ..utils.validation import check_integer, check_number
from .normalization import NormalizingClassifier

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


class ResNet32(NormalizingClassifier):
    """The ResNet-32 of Madry et al. (2018): 16-16-32-64 filters, 5 units a block. See ``resnet32``."""

    NAME = "resnet32"
    FIRST_WEIGHT = "conv1.weight"

    def __init__(
        self,
        num_classes: int,
        in_channels: int,
        mean: tuple[float, ...],
        std: tuple[float, ...],
        first_filters: int = 16,
    ) -> None:
        super().__init__(in_channels, mean, std)
        self.conv1 = nn.Conv2d(in_channels, first_filters, 3, 1, 1, bias=False)
        self.block1 = block(first_filters, 16, 1, first=True)
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
        return self.classify(self.first_layer(images))

    def first_layer(self, images: Tensor) -> Tensor:
        """Returns the first convolution's output, (B, 16, H, W)."""
        normalized = self.normalize(images)
        check_sides(*images.shape[2:])
        output: Tensor = self.conv1(normalized)
        return output

    def classify(self, features: Tensor) -> Tensor:
        """Returns the logits (B, num_classes) of the first convolution's output."""
        x = self.block3(self.block2(self.block1(features)))
        x = F.leaky_relu(self.bn1(x), SLOPE)
        logits: Tensor = self.linear(x.mean((2, 3)))
        return logits

    @property
    def num_classes(self) -> int:
        """The number of classes."""
        return self.linear.out_features


class DropoutResNet32(ResNet32):
    """A ResNet-32 whose first layer has more filters and dropout, at test time too (paper, section 8.6, Table 5).

    Outputs of the first layer are dropped with probability ``dropout_p`` and not rescaled. The draws depend on the
    seed and the image's id alone.

    Args:
        num_classes, in_channels, mean, std: As in ``resnet32``.
        filters: The number of filters of the first layer.
        dropout_p: The probability that dropout removes an output of the first layer.

    Raises:
        TypeError, ValueError: ``filters`` is not an integer above 0, or ``dropout_p`` is not in [0, 1).
    """

    NAME = "dropout-resnet32"

    def __init__(
        self,
        num_classes: int = 10,
        in_channels: int = 3,
        mean: tuple[float, ...] = CIFAR10_MEAN,
        std: tuple[float, ...] = CIFAR10_STD,
        filters: int = 50,
        dropout_p: float = 0.95,
    ) -> None:
        check_integer("filters", filters, 1)
        check_number("dropout_p", dropout_p, lambda p: 0 <= p < 1, "in [0, 1)")
        super().__init__(num_classes, in_channels, mean, std, filters)
        self.dropout_p = dropout_p

    def extra_repr(self) -> str:
        return f"dropout_p={self.dropout_p:.5g}"

    def forward(self, images: Tensor, seed: int | Tensor | None = None, image_ids: Tensor | None = None) -> Tensor:
        """Classifies images (B, C, H, W) in [0, 1] with one draw of the dropout: returns logits (B, num_classes).

        Args:
            images: (B, C, H, W), as in ``ResNet32.forward``.
            seed: 64-bit seed of the draw; None takes one from torch's generator.
            image_ids: (B,) int64, the images' numbers in the draw; None numbers the batch from 0.

        Raises:
            TypeError, ValueError: An argument does not fit; the message names it.
        """
        features = self.first_layer(images)
        number = int(seed_tensor(seed, CPU))
        ids = image_id_tensor(image_ids, len(images), CPU).tolist()
        masks = torch.stack([self.survivors(number, image, features.shape[1:]) for image in ids])
        return self.classify(features * masks.to(features.device))

    def survivors(self, seed: int, image: int, shape: Sequence[int]) -> Tensor:
        """Returns which outputs of the first layer survive in an image, as booleans.

        A generator of the CPU for each image is some ten times as fast here as the encoder's numbers in PyTorch.
        """
        generator = torch.Generator().manual_seed(derive_seed(seed, "dropout", image))
        return torch.rand(tuple(shape), generator=generator) >= self.dropout_p

    def config(self) -> dict[str, Any]:
        return super().config() | {"filters": self.conv1.out_channels, "dropout_p": self.dropout_p}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Self:
        """Returns an untrained classifier with the arguments that ``config`` returned."""
        arguments = config | {"mean": tuple(config["mean"]), "std": tuple(config["std"])}
        return cls(**{name: value for name, value in arguments.items() if name != "name"})


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
