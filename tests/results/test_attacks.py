"""Attacks that only the experiments use: snapshots of one run, and ablations of the selection gradient."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from models import random_images, small_defense
from neuroae.attacks import Perturbed, PGDSettings
from neuroae.evaluation import Attack, Scoring
from neuroae.evaluation.scoring import Block
from neuroae.nn.encoder import SELECTION
from results.attacks import FixedCut, StraightThrough, ablate, snapshots

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
