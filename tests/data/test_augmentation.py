"""Random crops and flips."""

import torch
from hypothesis import example, given
from hypothesis import strategies as st
from scipy.stats import chisquare

from neuroae.data import crop_and_flip
from strategies import generators


@given(
    seed=st.integers(0, 2**63 - 1),
    epoch=st.integers(0, 1000),
    padding=st.integers(0, 4),
    height=st.integers(1, 9),
    width=st.integers(1, 9),
    generator=generators(),
)
@example(seed=0, epoch=0, padding=4, height=160, width=160, generator=torch.Generator())
def test_augmentation_follows_seed_epoch_and_id_alone(
    seed: int, epoch: int, padding: int, height: int, width: int, generator: torch.Generator
) -> None:
    images = torch.randint(256, (5, 2, height, width), dtype=torch.uint8, generator=generator)
    ids = torch.tensor([4, 9, 0, 2**32 - 1, 7])
    batch = crop_and_flip(images, seed, epoch, ids, padding)
    assert batch.shape == images.shape
    assert batch.dtype == torch.uint8
    for position in range(5):
        alone = crop_and_flip(images[position : position + 1], seed, epoch, ids[position : position + 1], padding)
        assert torch.equal(alone[0], batch[position])


def test_augmentation_gives_every_crop_and_both_mirror_images() -> None:
    """Pixels numbered from 1 show which crop it was; zeros are the padding."""
    image = torch.arange(1.0, 17).reshape(1, 1, 4, 4)
    padded = torch.nn.functional.pad(image, [1] * 4)
    crops = {
        tuple(view[0, 0, row : row + 4, column : column + 4].flatten().tolist())
        for view in (padded, padded.flip(3))
        for row in range(3)
        for column in range(3)
    }
    ids = torch.arange(500)
    actual = crop_and_flip(image.expand(500, 1, 4, 4), 0, 0, ids, padding=1)
    assert {tuple(one.flatten().tolist()) for one in actual} == crops
    assert not torch.equal(actual, crop_and_flip(image.expand(500, 1, 4, 4), 0, 1, ids, padding=1))


def test_every_crop_and_both_mirror_images_are_as_frequent() -> None:
    """Of four pixels of padding, the default. The two channels are the coordinates of pixels, counted from 1.

    The pixel at 4, 4 and its neighbour lie inside of every crop, so that they tell which one it was.
    """
    side, count = 10, 20_000
    coordinates = torch.stack(torch.meshgrid(*[torch.arange(side) + 1] * 2, indexing="ij")).to(torch.uint8)
    actual = crop_and_flip(coordinates.expand(count, 2, side, side), 0, 0, torch.arange(count)).long()
    down, left, right = actual[:, 0, 4, 4] - 1, actual[:, 1, 4, 4] - 1, actual[:, 1, 4, 5] - 1
    index = (down * 9 + left.minimum(right)) * 2 + (left > right)
    assert chisquare(index.bincount(minlength=9 * 9 * 2)).pvalue > 0.01


def test_augmentation_keeps_bytes() -> None:
    images = torch.randint(256, (3, 3, 8, 8), dtype=torch.uint8)
    actual = crop_and_flip(images, 0, 0, torch.arange(3), padding=0)
    assert actual.dtype == torch.uint8
    for before, after in zip(images, actual, strict=True):
        assert torch.equal(after, before) or torch.equal(after, before.flip(2))
