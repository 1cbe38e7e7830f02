"""Attacks crafted on another model are judged by the attacked one, with fixed masks if all masks are fixed."""

from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import Tensor, nn

from models import Linear, small_defense
from neuroae.attacks import APGDSettings, Perturbed, PGDSettings, apgd, pgd
from neuroae.evaluation import Attack, Scoring
from neuroae.evaluation.attack import AttackSettings, craft
from neuroae.evaluation.scoring import Block
from neuroae.nn.variants import FixedMasks
from neuroae.utils.randomness import derive_seed
from small_evaluation import random_data

METHODS = pytest.mark.parametrize(
    ("method", "settings"),
    [(pgd, PGDSettings(0.2, 0.05, 1, 8, 1)), (apgd, APGDSettings(0.2, 1, 8, 1))],
    ids=["pgd", "apgd"],
)


@METHODS
def test_the_attacked_model_chooses_among_attempts_on_another(
    method: Callable[..., Perturbed], settings: AttackSettings
) -> None:
    source, attacked = Linear(1, 8, 10).eval(), Linear(1, 8, 10).eval()
    perturbed, block = crafted(source, attacked, settings, Scoring(seed=5))
    choose = partial(without_evaluation, method, source, block, settings)
    assert torch.equal(perturbed, choose(attacked))
    assert not torch.equal(perturbed, choose(None))


@METHODS
def test_where_masks_are_fixed_the_judges_are_too(method: Callable[..., Perturbed], settings: AttackSettings) -> None:
    models = small_defense(), small_defense()
    perturbed, block = crafted(*models, settings, Scoring(1, 5, deterministic=True))
    source, attacked = (FixedMasks(model, derive_seed(5, "fixed masks"), block.ids).eval() for model in models)
    choose = partial(without_evaluation, method, source, block, settings)
    assert torch.equal(perturbed, choose(attacked))
    assert not torch.equal(perturbed, choose(models[1]))
    assert not torch.equal(perturbed, choose(None))


def crafted(
    source: nn.Module, attacked: nn.Module, settings: AttackSettings, scoring: Scoring
) -> tuple[Tensor, Block]:
    """Returns the images that an evaluation of the attacked model crafts on the source, and their block."""
    block = Block.of(random_data(6), torch.device("cpu"))
    return craft(Attack("some", source, settings, transfer="other"), attacked, block, scoring).images, block


def without_evaluation(
    method: Callable[..., Perturbed],
    source: nn.Module,
    block: Block,
    settings: AttackSettings,
    judge: nn.Module | None,
) -> Tensor:
    """Runs the same attack without an evaluation, with its seed written out."""
    seed = derive_seed(5, "craft some")
    return method(source, block.images, block.labels, settings, seed=seed, image_ids=block.ids, judge=judge).images
