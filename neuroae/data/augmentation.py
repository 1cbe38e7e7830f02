"""Random crops and flips, a whole batch at once."""

import torch
import torch.nn.functional as F
from torch import Tensor

from ..devices import without_waiting
from ..draws import random_words
from ..randomness import derive_seed


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
