"""Random crops and flips, a whole batch at once."""

import hashlib
from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from ..utils.devices import without_waiting
from ..utils.randomness import derive_seed, random_words
from ..utils.validation import check_integer

IMAGES_AT_ONCE = 256


@dataclass(frozen=True, eq=False)
class ImageSet:
    """Images with their labels and numbers.

    Attributes:
        name: of the data set and split, "cifar10 test".
        images: (N, C, H, W) uint8.
        labels: (N,) int64, positions in ``classes``.
        ids: (N,) int64 in [0, 2^32), each image's number in its split; draws and augmentation follow it, so that
            images of one number would share theirs.
        classes: names of the labels.
        white: the byte that stands for 1.0, 1 to 255.
    """

    name: str
    images: Tensor
    labels: Tensor
    ids: Tensor
    classes: tuple[str, ...]
    white: int = 255

    def __post_init__(self) -> None:
        require_tensor("images", self.images, torch.uint8, "N", "C", "H", "W")
        require_tensor("labels", self.labels, torch.int64, "N")
        require_tensor("ids", self.ids, torch.int64, "N")
        if not len(self.images) == len(self.labels) == len(self.ids):
            raise ValueError(
                f"images, labels and ids hold {len(self.images)}, {len(self.labels)} and {len(self.ids)}, "
                "expected one number"
            )
        require_below("labels", self.labels, len(self.classes), f"positions in the {len(self.classes)} classes")
        require_below("ids", self.ids, 2**32, "numbers of 32 bits")
        check_integer("white", self.white, 1, 255)

    def __len__(self) -> int:
        return len(self.images)

    def take(self, indices: Tensor | slice) -> "ImageSet":
        """Some of the images; they keep their ids. A slice shares memory with this set, a tensor copies."""
        # A copy is not checked again: every training step takes one.
        part = copy(self)
        vars(part).update(images=self.images[indices], labels=self.labels[indices], ids=self.ids[indices])
        return part

    def limited(self, count: int | None) -> "ImageSet":
        """So many images from the front; of a set sorted by class, as folders are, from the front of every class.

        All of them for None. They keep their ids and this set's order.
        """
        if count is None:
            return self
        check_integer("count", count, 1)
        if count >= len(self):
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

    def in_classes(self, classes: Sequence[str]) -> "ImageSet":
        """The same images, their labels positions in these classes, which may be more and in another order.

        Raises:
            ValueError: an image is of another class.
        """
        unknown = sorted(set(self.classes) - set(classes))
        if unknown:
            raise ValueError(
                f"{self.name} has the classes {', '.join(unknown)}, expected some of {', '.join(classes)}"
            )
        if tuple(classes) == self.classes:
            return self
        places = torch.tensor([list(classes).index(name) for name in self.classes])
        return replace(self, labels=places[self.labels], classes=tuple(classes))

    def pixels(self) -> Tensor:
        """(N, C, H, W) float32 in [0, 1]."""
        return self.images.float() / self.white

    def fingerprint(self) -> str:
        """Hexadecimal digest of images, labels and ids."""
        digest = hashlib.sha256(f"{tuple(self.images.shape)} {self.white}".encode())
        for tensor in (self.images, self.labels, self.ids):
            for part in tensor.split(IMAGES_AT_ONCE):
                digest.update(part.cpu().contiguous().flatten().numpy())
        return digest.hexdigest()


def require_tensor(name: str, value: Tensor, dtype: torch.dtype, *shape: str) -> None:
    expected = f"{str(dtype).removeprefix('torch.')} ({', '.join(shape)})"
    if not isinstance(value, Tensor):
        raise TypeError(f"{name} is a {type(value).__name__}, expected a tensor, {expected}")
    if value.dtype != dtype or value.dim() != len(shape):
        raise TypeError(f"{name} is {value.dtype} of shape {tuple(value.shape)}, expected {expected}")


def require_below(name: str, values: Tensor, limit: int, meaning: str) -> None:
    if not len(values):
        return
    low, high = (int(value) for value in values.aminmax())
    if low < 0 or high >= limit:
        raise ValueError(f"{name} holds {low if low < 0 else high}, expected {meaning}, 0 to {limit - 1}")


def crop_and_flip(images: Tensor, seed: int, epoch: int, image_ids: Tensor, padding: int = 4) -> Tensor:
    """A crop of each image, padded with black and cut at random, mirrored half of the time.

    What happens to an image follows from the seed, the epoch and its id alone.

    Args:
        images: (B, C, H, W), any dtype.
        seed: the user's seed.
        epoch: the pass over the data.
        image_ids: (B,) int64; best on the CPU, which draws so few numbers faster than a GPU.
        padding: pixels added on each side.

    Returns:
        (B, C, H, W) of the same dtype.
    """
    height, width = images.shape[2:]
    words = random_words(derive_seed(seed, "augmentation", epoch), image_ids, 3)
    down, right, mirrored = without_waiting(words, images.device).unbind(1)
    rows = (down % (2 * padding + 1))[:, None] + torch.arange(height, device=images.device)
    columns = (right % (2 * padding + 1))[:, None] + torch.arange(width, device=images.device)
    columns = columns.where((mirrored % 2 == 0)[:, None], columns.flip(1))
    padded = F.pad(images, [padding] * 4)
    batch = torch.arange(len(images), device=images.device)
    return padded[batch[:, None, None], :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2).contiguous()
