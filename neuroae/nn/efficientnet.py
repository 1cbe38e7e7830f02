"""EfficientNet-B0, the paper's classifier for Imagenette (section 5.1), as torchvision implements it."""

from typing import ClassVar

import torch
from torch import Tensor, nn

from .normalization import NormalizingClassifier

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
CHANNELS = 3


class EfficientNetB0(NormalizingClassifier):
    """The EfficientNet-B0 of Tan and Le (2019) without pretrained weights. It normalizes its input itself.

    In training mode it has dropout before the last layer and stochastic depth, which draw from torch's generators.

    Args:
        num_classes: The number of classes, the length of the logits.
        in_channels: The number of the images' channels, 3.
        mean, std: Mean and standard deviation of the pixels in [0, 1], one number for each channel.

    Raises:
        ImportError: torchvision is not installed.
        ValueError: ``in_channels`` is not 3, or ``mean`` or ``std`` does not have 3 numbers.
    """

    NAME: ClassVar[str] = "efficientnet-b0"
    FIRST_WEIGHT: ClassVar[str] = "network.features.0.0.weight"

    def __init__(
        self,
        num_classes: int = 10,
        in_channels: int = CHANNELS,
        mean: tuple[float, ...] = IMAGENET_MEAN,
        std: tuple[float, ...] = IMAGENET_STD,
    ) -> None:
        super().__init__(in_channels, mean, std)
        if in_channels != CHANNELS:
            raise ValueError(f"in_channels is {in_channels}, expected {CHANNELS} for EfficientNet-B0")
        self.network = torchvision_network(num_classes)
        self.to(memory_format=torch.channels_last)

    def forward(self, images: Tensor) -> Tensor:
        """Classifies images (B, 3, H, W) in [0, 1]: returns logits (B, num_classes).

        Raises:
            ValueError: ``images`` is not (B, 3, H, W).
        """
        logits: Tensor = self.network(self.normalize(images))
        return logits

    @property
    def num_classes(self) -> int:
        """The number of classes."""
        features: int = self.network.classifier[-1].out_features  # type: ignore[index, union-attr]
        return features


def torchvision_network(num_classes: int) -> nn.Module:
    """Returns torchvision's EfficientNet-B0 with weights drawn from torch's generator.

    Raises:
        ImportError: torchvision is not installed.
    """
    try:
        from torchvision.models import efficientnet_b0
    except ImportError as error:
        raise ImportError(
            "EfficientNet-B0 needs torchvision, which is not installed: pip install torchvision"
        ) from error
    network: nn.Module = efficientnet_b0(weights=None, num_classes=num_classes)
    return network
