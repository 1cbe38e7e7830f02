"""Attacks that only the experiments use: snapshots of one run, ablations of a gradient, shared transfers."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from models import random_images, small_defense
from neuroae.attacks import Perturbed, PGDSettings
from neuroae.evaluation import Attack, Scoring, attacks_from
from neuroae.evaluation.scoring import Block
from neuroae.nn.encoder import SELECTION
from results.attacks import FixedCut, StraightThrough, ablate, share_transfers, snapshots

SETTINGS = PGDSettings(steps=5, realizations=2, momentum=0.75)


def attack(model: nn.Module) -> Attack:
    return Attack("some, N_S", model, SETTINGS, surrogate="smooth")


def test_a_snapshot_is_the_attack_of_so_many_steps() -> None:
    """The draws, which depend on the attack's name, are the same to the bit."""
    model, block, scoring = small_defense(), Block(*random_images(4)), Scoring(2)
    full_run = attack(model)
    shots = snapshots(full_run, (1, 3, 5))
    assert [each.name for each in shots] == ["some, N_S 1", "some, N_S 3", "some, N_S 5"]
    for snapshot in shots:
        alone = replace(full_run, settings=replace(SETTINGS, steps=snapshot.steps))
        expected, actual = (each.craft(model, block, scoring) for each in (alone, snapshot))
        assert torch.equal(actual.images, expected.images)
        assert (
            (actual.gradients, actual.forwards) == (expected.gradients, expected.forwards) == (2 * snapshot.steps, 0)
        )
        assert snapshot.identity() == alone.identity()
        assert snapshot.passes == full_run.passes


def test_all_snapshots_of_a_block_share_one_run(monkeypatch: pytest.MonkeyPatch) -> None:
    model, scoring = small_defense(), Scoring(2)
    images, labels, ids = random_images(4)
    blocks = [Block(images[part], labels[part], ids[part]) for part in (slice(2), slice(2, 4))]
    runs: list[int] = []
    craft = Attack.craft

    def counted(self: Attack, attacked: nn.Module, block: Block, *more: object, **named: object) -> Perturbed:
        runs.append(int(block.ids[0]))
        return craft(self, attacked, block, *more, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(Attack, "craft", counted)
    for snapshot in snapshots(attack(model), (2, 5)):
        for block in blocks:
            snapshot.craft(model, block, scoring)
    assert runs == [int(ids[0]), int(ids[2])]


def test_only_pgd_of_one_restart_has_snapshots() -> None:
    with pytest.raises(ValueError, match="expected PGDSettings with 1 restart"):
        snapshots(replace(attack(small_defense()), settings=replace(SETTINGS, restarts=2)), (1,))


@pytest.mark.parametrize("kind", [FixedCut, StraightThrough])
def test_an_ablated_defense_answers_alike_and_sends_another_gradient(kind: type) -> None:
    model = small_defense()
    images, labels, ids = random_images(4)
    other, full_run = ablate(model, kind), model.with_surrogate(SELECTION)
    gradients = []
    for each in (full_run, other):
        leaf = images.clone().requires_grad_()
        logits = each(leaf, seed=3, image_ids=ids)
        torch.testing.assert_close(logits, model(images, seed=3, image_ids=ids))
        gradients += torch.autograd.grad(nn.functional.cross_entropy(logits, labels), leaf)
    assert gradients[1].abs().max() > 0
    assert not torch.allclose(gradients[0], gradients[1])


def test_a_shared_transfer_is_crafted_once_for_all_models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source, block, scoring = small_defense(), Block(*random_images(4)), Scoring(2)
    transfers = attacks_from(source, SETTINGS, transfer="somewhere", modes=["w-nfga-smooth", "w-aiga"])
    white_box = attacks_from(source, SETTINGS, ["w-nfga-smooth"])
    shared = share_transfers([*transfers, *white_box], tmp_path)
    assert [type(each).__name__ for each in shared] == ["SharedTransfer", "SharedTransfer", "Attack"]
    expected = [each.craft(small_defense(), block, scoring) for each in transfers]
    assert [each.identity() for each in shared[:2]] == [each.identity() for each in transfers]
    first = [each.craft(small_defense(), block, scoring) for each in shared[:2]]
    calls: list[object] = []
    monkeypatch.setattr(Attack, "craft", lambda *arguments: calls.append(arguments))
    passes: list[int] = []
    for target in (small_defense(), small_defense(dropout_p=0.0)):
        again = [each.craft(target, block, Scoring(1), passes.append) for each in shared[:2]]
        for one, other, original in zip(again, first, expected, strict=True):
            assert torch.equal(one.images, original.images)
            assert torch.equal(other.images, original.images)
            assert one[1:3] == original[1:3]
            assert torch.equal(one.zero, original.zero)
    assert passes == [4 * 5 * 2] * 4
    assert not calls
    changed = block._replace(images=block.images.flip(-1))
    with pytest.raises(ValueError, match="holds other images than expected"):
        shared[0].craft(source, changed, scoring)


def test_what_depends_on_the_attacked_model_is_not_shared(tmp_path: Path) -> None:
    source = small_defense()
    (several,) = attacks_from(source, replace(SETTINGS, restarts=2), ["w-aiga"], transfer="somewhere")
    (plain,) = attacks_from(source, SETTINGS, ["w-aiga"], transfer="somewhere")
    attacks = [several, replace(plain, targeted=True)]
    assert share_transfers(attacks, tmp_path) == attacks


def test_seed_and_images_have_files_of_their_own(tmp_path: Path) -> None:
    (attack,) = share_transfers(attacks_from(small_defense(), SETTINGS, ["w-aiga"], transfer="somewhere"), tmp_path)
    block = Block(*random_images(4))
    paths = {
        attack.path(part, Scoring(2, seed))  # type: ignore[attr-defined]
        for part in (block, Block(block.images[:2], block.labels[:2], block.ids[:2]))
        for seed in (0, 1)
    }
    assert len(paths) == 4
