"""A set of labelled images, decoded once and kept as bytes."""

import hashlib
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ..randomness import derive_seed

IMAGES_AT_ONCE = 256


@dataclass(frozen=True, eq=False)
class ImageSet:
    """Images with their labels and numbers.

    Attributes:
        name: of the data set and split, "cifar10 test".
        images: (N, C, H, W) uint8.
        labels: (N,) int64, positions in ``classes``.
        ids: (N,) int64, each image's number in its split; draws and augmentation follow it.
        classes: names of the labels.
        white: the byte that stands for 1.0.
    """

    name: str
    images: Tensor
    labels: Tensor
    ids: Tensor
    classes: tuple[str, ...]
    white: int = 255

    def __post_init__(self) -> None:
        if self.images.dtype != torch.uint8 or self.images.dim() != 4:
            raise TypeError(
                f"images is {self.images.dtype} of shape {tuple(self.images.shape)}, expected uint8 (N, C, H, W)"
            )
        if not len(self.images) == len(self.labels) == len(self.ids):
            raise ValueError(
                f"images, labels and ids hold {len(self.images)}, {len(self.labels)} and {len(self.ids)}, "
                "expected one number"
            )

    def __len__(self) -> int:
        return len(self.images)

    def take(self, indices: Tensor | slice) -> "ImageSet":
        """Some of the images; they keep their ids. A slice shares memory with this set, a tensor copies."""
        return replace(self, images=self.images[indices], labels=self.labels[indices], ids=self.ids[indices])

    def limited(self, count: int | None) -> "ImageSet":
        """So many images from the front; of a set sorted by class, as folders are, from the front of every class.

        All of them for None. They keep their ids and this set's order.
        """
        if count is None or count >= len(self):
            return self
        if not bool((self.labels.diff() >= 0).all()):
            return self.take(slice(count))
        starts = torch.searchsorted(self.labels, self.labels)
        places_in_class = torch.arange(len(self)) - starts
        return self.take(places_in_class.argsort(stable=True)[:count].sort().values)

    def hold_out(self, count: int, seed: int) -> tuple["ImageSet", "ImageSet"]:
        """The rest and ``count`` images held out, drawn by the seed; both keep their ids and this set's order."""
        if not 1 <= count < len(self):
            raise ValueError(f"count is {count}, expected 1 to {len(self) - 1} of the {len(self):,} of {self.name}")
        generator = torch.Generator().manual_seed(derive_seed(seed, "hold out"))
        held, rest = (
            part.sort().values for part in torch.randperm(len(self), generator=generator).tensor_split([count])
        )
        return (
            replace(self.take(rest), name=f"{self.name} without {count:,} held out"),
            replace(self.take(held), name=f"{count:,} held out of {self.name}"),
        )

    def pixels(self) -> Tensor:
        """(N, C, H, W) float32 in [0, 1]."""
        return self.images.float() / self.white

    def fingerprint(self) -> str:
        """Hexadecimal digest of images, labels and ids."""
        digest = hashlib.sha256(f"{tuple(self.images.shape)} {self.white}".encode())
        for tensor in (self.images, self.labels, self.ids):
            for part in tensor.split(IMAGES_AT_ONCE):
                digest.update(part.contiguous().flatten().numpy())
        return digest.hexdigest()
