"""Sets of labeled images, and their augmentation by random crops and flips."""

import hashlib
from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from ..utils.devices import to_device
from ..utils.randomness import derive_seed, random_words
from ..utils.validation import check_integer

# Images that a fingerprint reads at a time, so that mapped files stay on disk.
FINGERPRINT_CHUNK = 256
ID_LIMIT = 2**32


@dataclass(frozen=True, eq=False)
class ImageSet:
    """Images with their labels and ids.

    Attributes:
        name: The name of the data set and split, such as "cifar10 test".
        images: (N, C, H, W) uint8, or float32 in [0, 1] where pixels are not bytes.
        labels: (N,) int64, positions in ``classes``.
        ids: (N,) int64 in [0, 2^32), each image's number in its split. Random draws and augmentation depend on it, so
            two images with the same id would share theirs.
        classes: The names of the classes.
        white: The byte that stands for the pixel value 1.0, from 1 to 255.

    Raises:
        TypeError: A tensor has another dtype or number of dimensions.
        ValueError: The tensors differ in length, or hold values out of range.
    """

    name: str
    images: Tensor
    labels: Tensor
    ids: Tensor
    classes: tuple[str, ...]
    white: int = 255

    def __post_init__(self) -> None:
        if isinstance(self.images, Tensor) and self.images.dtype == torch.float32:
            check_tensor("images", self.images, torch.float32, "N", "C", "H", "W")
            check_unit_range(self.images)
        else:
            check_tensor("images", self.images, torch.uint8, "N", "C", "H", "W")
        check_tensor("labels", self.labels, torch.int64, "N")
        check_tensor("ids", self.ids, torch.int64, "N")
        if not len(self.images) == len(self.labels) == len(self.ids):
            raise ValueError(
                f"images, labels and ids hold {len(self.images)}, {len(self.labels)} and {len(self.ids)}, "
                "expected the same number"
            )
        check_range("labels", self.labels, len(self.classes), f"positions in the {len(self.classes)} classes")
        check_range("ids", self.ids, ID_LIMIT, "numbers of 32 bits")
        check_integer("white", self.white, 1, 255)

    def __len__(self) -> int:
        return len(self.images)

    def take(self, indices: Tensor | slice) -> "ImageSet":
        """Returns some of the images, with their ids. A slice shares memory with this set; a tensor copies."""
        # copy() skips the checks of __post_init__: every training step calls this method.
        part = copy(self)
        vars(part).update(images=self.images[indices], labels=self.labels[indices], ids=self.ids[indices])
        return part

    def limited(self, count: int | None) -> "ImageSet":
        """Returns ``count`` images in this set's order, with their ids.

        They are the first images; in a set that is sorted by class, as folders are, the first images of every class.

        Args:
            count: The number of images, at least 1. None, or a number above the set's size, returns this set.

        Raises:
            ValueError: ``count`` is below 1.
        """
        if count is None:
            return self
        check_integer("count", count, 1)
        if count >= len(self):
            return self
        is_sorted = bool((self.labels.diff() >= 0).all())
        if not is_sorted:
            return self.take(slice(count))
        starts = torch.searchsorted(self.labels, self.labels)
        positions_in_class = torch.arange(len(self)) - starts
        return self.take(positions_in_class.argsort(stable=True)[:count].sort().values)

    def hold_out(self, count: int, seed: int) -> tuple["ImageSet", "ImageSet"]:
        """Splits the set at random; both parts keep their ids and this set's order.

        Args:
            count: The number of images held out, at least 1 and less than all.
            seed: Decides which images are held out.

        Returns:
            The remaining images, and those held out.

        Raises:
            ValueError: ``count`` is out of range.
        """
        if not 1 <= count < len(self):
            raise ValueError(f"count is {count}, expected 1 to {len(self) - 1} of the {len(self):,} of {self.name}")
        generator = torch.Generator().manual_seed(derive_seed(seed, "hold out"))
        held_out, remaining = (
            part.sort().values for part in torch.randperm(len(self), generator=generator).tensor_split([count])
        )
        return (
            replace(self.take(remaining), name=f"{self.name} without {count:,} held out"),
            replace(self.take(held_out), name=f"{count:,} held out of {self.name}"),
        )

    def in_classes(self, classes: Sequence[str]) -> "ImageSet":
        """Returns the same images with labels that are positions in ``classes``.

        Args:
            classes: Names of classes, in any order. They include this set's classes.

        Raises:
            ValueError: ``classes`` lacks one of this set's.
        """
        unknown = sorted(set(self.classes) - set(classes))
        if unknown:
            raise ValueError(
                f"{self.name} has the classes {', '.join(unknown)}, expected some of {', '.join(classes)}"
            )
        if tuple(classes) == self.classes:
            return self
        positions = torch.tensor([list(classes).index(name) for name in self.classes])
        return replace(self, labels=positions[self.labels], classes=tuple(classes))

    def pixels(self) -> Tensor:
        """Returns the images as (N, C, H, W) float32 in [0, 1]."""
        return self.images if self.images.dtype == torch.float32 else self.images.float() / self.white

    def fingerprint(self) -> str:
        """Returns the SHA-256 digest of images, labels and ids, in hexadecimal."""
        digest = hashlib.sha256(f"{tuple(self.images.shape)} {self.white}".encode())
        for tensor in (self.images, self.labels, self.ids):
            for part in tensor.split(FINGERPRINT_CHUNK):
                digest.update(part.cpu().contiguous().flatten().numpy())
        return digest.hexdigest()


def image_set(images: Tensor, labels: Tensor | None, name: str = "images") -> ImageSet:
    """Returns images as a set, with their positions as ids and the numbers of the classes as their names.

    Args:
        images: (N, C, H, W) float32 in [0, 1], or uint8.
        labels: (N,) int64.
        name: The name of the set.

    Raises:
        TypeError, ValueError: An argument does not fit (see ``ImageSet``).
    """
    if labels is None:
        raise TypeError("labels is None, expected (N,) int64 with images in a tensor")
    check_tensor("labels", labels, torch.int64, "N")
    classes = tuple(str(number) for number in range(int(labels.max()) + 1)) if len(labels) else ()
    return ImageSet(name, images, labels.cpu(), torch.arange(len(images)), classes)


def check_tensor(name: str, value: Tensor, dtype: torch.dtype, *shape: str) -> None:
    """Refuses a value that is not a tensor with this dtype and as many dimensions as ``shape`` has names.

    Raises:
        TypeError: The type, the dtype or the number of dimensions is another.
    """
    expected = f"{str(dtype).removeprefix('torch.')} ({', '.join(shape)})"
    if not isinstance(value, Tensor):
        raise TypeError(f"{name} is a {type(value).__name__}, expected a tensor, {expected}")
    if value.dtype != dtype or value.dim() != len(shape):
        raise TypeError(f"{name} is {value.dtype} of shape {tuple(value.shape)}, expected {expected}")


def check_unit_range(images: Tensor) -> None:
    """Refuses float32 images with values outside of [0, 1] or NaN.

    Raises:
        ValueError: A pixel is out of range.
    """
    if not images.numel():
        return
    low, high = (float(value) for value in images.aminmax())
    if not (low >= 0 and high <= 1):
        hint = "; divide by 255" if high > 1.5 else ""
        raise ValueError(f"images holds values from {low:g} to {high:g}, expected pixels in [0, 1]{hint}")


def check_range(name: str, values: Tensor, limit: int, meaning: str) -> None:
    """Refuses values that are not in [0, limit).

    Raises:
        ValueError: A value is out of range.
    """
    if not len(values):
        return
    low, high = (int(value) for value in values.aminmax())
    if low < 0 or high >= limit:
        raise ValueError(f"{name} holds {low if low < 0 else high}, expected {meaning}, 0 to {limit - 1}")


def crop_and_flip(images: Tensor, seed: int, epoch: int, image_ids: Tensor, padding: int = 4) -> Tensor:
    """Returns a random crop of each image, padded with black, and mirrored half of the time.

    An image's crop depends only on the seed, the epoch and the image's id.

    Args:
        images: (B, C, H, W), any dtype.
        seed: The user's seed.
        epoch: The number of the pass over the data.
        image_ids: (B,) int64, best on the CPU, which is faster than a GPU at drawing so few numbers.
        padding: The pixels added on each side.

    Returns:
        (B, C, H, W) of the same dtype.
    """
    height, width = images.shape[2:]
    words = random_words(derive_seed(seed, "augmentation", epoch), image_ids, 3)
    down, right, mirrored = to_device(words, images.device).unbind(1)
    rows = (down % (2 * padding + 1))[:, None] + torch.arange(height, device=images.device)
    columns = (right % (2 * padding + 1))[:, None] + torch.arange(width, device=images.device)
    columns = columns.where((mirrored % 2 == 0)[:, None], columns.flip(1))
    padded = F.pad(images, [padding] * 4)
    batch = torch.arange(len(images), device=images.device)
    return padded[batch[:, None, None], :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2).contiguous()
