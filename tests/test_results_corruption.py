"""Corrupted patches: the closed form against drawn dropout."""

import torch

from models import random_images, small_defense
from results.corruption import corrupted_patches


def test_untouched_images_have_no_corrupted_patch() -> None:
    images, _, _ = random_images(4)
    assert torch.equal(corrupted_patches(small_defense().encoder, images, images), torch.zeros(4).double())


def test_share_is_what_dropout_leaves_on_average() -> None:
    """A patch is corrupted where a coefficient survives whose atom is not among the clean patch's top T."""
    encoder = small_defense(dropout_p=0.7).encoder
    images, _, _ = random_images(5)
    attacked = (images + 0.2 * torch.randn_like(images)).clamp(0, 1)
    expected = corrupted_patches(encoder, images, attacked)
    before, after = encoder.select(images).atom, encoder.select(attacked).atom
    newcomer = (after[..., :, None] != before[..., None, :]).all(-1)
    kept = torch.rand(4000, *newcomer.shape, generator=torch.Generator().manual_seed(1)) >= 0.7
    drawn = (kept & newcomer).any(-1).double().mean((0, 2, 3))
    torch.testing.assert_close(expected, drawn, rtol=0, atol=0.01)
    assert (expected > 0.1).all()
    assert (expected < 1).all()


def test_every_newcomer_counts_where_nothing_is_dropped() -> None:
    encoder = small_defense(dropout_p=0.0).encoder
    images = torch.rand(2, 1, 8, 8)
    assert (corrupted_patches(encoder, images, 1 - images) > 0.5).all()
