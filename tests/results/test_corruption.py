"""Corrupted patches: the closed form compared with drawn dropout."""

from pathlib import Path

import torch

from evaluation_folder import CLEAN_IDENTITY, AttackCase, identity, share, write_evaluation
from models import random_images, small_defense
from neuroae.evaluation import load_evaluation
from results.corruption import corrupted_patches, histograms
from results.inputs import attacks_to_draw


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
    survives = torch.rand(4000, *newcomer.shape, generator=torch.Generator().manual_seed(1)) >= 0.7
    drawn = (survives & newcomer).any(-1).double().mean((0, 2, 3))
    torch.testing.assert_close(expected, drawn, rtol=0, atol=0.01)
    assert (expected > 0.1).all()
    assert (expected < 1).all()


def test_every_newcomer_counts_where_nothing_is_dropped() -> None:
    encoder = small_defense(dropout_p=0.0).encoder
    images = torch.rand(2, 1, 8, 8)
    assert (corrupted_patches(encoder, images, 1 - images) > 0.5).all()


def test_histograms_are_outlines() -> None:
    (axis,) = histograms({"one": torch.rand(50), "other": torch.rand(50)}).axes
    assert [patch.get_fill() for patch in axis.patches] == [False, False]


def test_pictures_show_the_papers_two_attacks(tmp_path: Path) -> None:
    attacks = {
        "clean": AttackCase(share(12, 12), CLEAN_IDENTITY),
        "W-NFGA identity": AttackCase(share(3, 12)),
        "W-NFGA smooth": AttackCase(share(8, 12)),
        "first": AttackCase(share(7, 12), identity("transfer")),
        "second": AttackCase(share(4, 12), identity("transfer")),
        "third": AttackCase(share(5, 12), identity("transfer")),
    }
    assert attacks_to_draw(load_evaluation(write_evaluation(tmp_path / "both", attacks))) == [
        "W-NFGA smooth",
        "second",
    ]
    attacks |= {"selection": AttackCase(share(9, 12))}
    assert attacks_to_draw(load_evaluation(write_evaluation(tmp_path / "three", attacks))) == [
        "W-NFGA smooth",
        "second",
        "selection",
    ]
    others = {name: attacks[name] for name in ("clean", "W-NFGA identity")}
    assert attacks_to_draw(load_evaluation(write_evaluation(tmp_path / "none", others))) == ["W-NFGA identity"]
