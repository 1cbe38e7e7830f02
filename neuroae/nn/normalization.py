"""The base class of classifiers that normalize their input themselves."""

from abc import abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, ClassVar, Self

import torch
from torch import Tensor

from .pretrained_model import PretrainedModel


@dataclass(frozen=True)
class Normalization:
    """The mean and std that a classifier was built with. Its buffers may hold no values, as on the meta device.

    Attributes:
        mean, std: One number for each channel, of pixels in [0, 1].
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]


class NormalizingClassifier(PretrainedModel):
    """A classifier of images in [0, 1] that subtracts a mean and divides by a std for each channel.

    The state_dict has the names of the layers only, without ``mean`` and ``std``. These are in its metadata, which
    ``torch.save`` keeps, so that weights bring along the constants that they were trained with.

    Attributes:
        NAME: The architecture's name in configurations.
        FIRST_WEIGHT: The name of the first layer's weight in the state_dict.

    Args:
        in_channels: The number of the images' channels.
        mean, std: One number for each channel.

    Raises:
        ValueError: ``mean`` or ``std`` does not have ``in_channels`` numbers.
    """

    NAME: ClassVar[str]
    FIRST_WEIGHT: ClassVar[str]
    mean: Tensor
    std: Tensor

    def __init__(self, in_channels: int, mean: tuple[float, ...], std: tuple[float, ...]) -> None:
        super().__init__()
        if len(mean) != in_channels or len(std) != in_channels:
            raise ValueError(f"mean and std hold {len(mean)} and {len(std)} numbers, expected {in_channels} channels")
        self.constants = Normalization(mean, std)
        self.register_buffer("mean", torch.tensor(mean).reshape(1, in_channels, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).reshape(1, in_channels, 1, 1), persistent=False)

    @property
    @abstractmethod
    def num_classes(self) -> int:
        """The number of classes, the length of the logits."""

    def normalize(self, images: Tensor) -> Tensor:
        """Returns normalized images in channels_last memory.

        Raises:
            ValueError: ``images`` is not (B, C, H, W) with the channels of ``mean``.
        """
        if images.dim() != 4 or images.shape[1] != self.mean.shape[1]:
            raise ValueError(f"images has shape {tuple(images.shape)}, expected (B, {self.mean.shape[1]}, H, W)")
        return ((images - self.mean) / self.std).contiguous(memory_format=torch.channels_last)

    def config(self) -> dict[str, Any]:
        """Returns the architecture's name and the arguments, as values that JSON can hold."""
        return {
            "name": self.NAME,
            "num_classes": self.num_classes,
            "in_channels": self.mean.shape[1],
            "mean": self.mean.flatten().tolist(),
            "std": self.std.flatten().tolist(),
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Self:
        """Returns an untrained classifier with the arguments that ``config`` returned."""
        # Subclasses take the number of classes first.
        arguments = config["num_classes"], config["in_channels"], tuple(config["mean"]), tuple(config["std"])
        return cls(*arguments)  # type: ignore[call-arg]

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
        weight = prefix + self.FIRST_WEIGHT
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
