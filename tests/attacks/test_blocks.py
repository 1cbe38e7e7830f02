"""Models that draw from torch's generator have fresh draws in each block of images, and for each purpose.

With one stream for all blocks, the same few draws would decide a whole data set.
"""

from collections.abc import Callable
from functools import partial

import pytest
import torch

from attacked_models import Noisy
from models import random_images
from neuroae.attacks import APGDSettings, Perturbed, PGDSettings, SquareSettings, apgd, pgd, square
from neuroae.evaluation import Attack, Scoring
from neuroae.evaluation.attack import AttackSettings
from neuroae.evaluation.run import craft
from neuroae.evaluation.scoring import Block, answers, selection_margins
from small_evaluation import random_data

HALVES = slice(3), slice(3, 6)


def drawn(model: Noisy, call: Callable[[], object]) -> set[float]:
    """Returns the draws of the model during a call, each by its first number."""
    model.drawn.clear()
    call()
    return set(model.drawn)


@pytest.mark.parametrize(
    ("method", "settings", "draws"),
    [
        (pgd, PGDSettings(steps=3, restarts=2, realizations=2), 3 * 2 + 2),
        (apgd, APGDSettings(steps=2, restarts=2, realizations=2), 3 * 2 + 2 * 2 + 2),
        (square, SquareSettings(queries=3, draws=2), 3 * 2),
    ],
    ids=["pgd", "apgd", "square"],
)
def test_blocks_share_no_draws_of_an_attack(
    method: Callable[..., Perturbed], settings: AttackSettings, draws: int
) -> None:
    """Draws of steps, of both checkpoints and of the selection, or of queries."""
    model, (images, labels, ids) = Noisy().eval(), random_images()
    first, second = (
        drawn(model, partial(method, model, images[half], labels[half], settings, seed=0, image_ids=ids[half]))
        for half in HALVES
    )
    assert len(first) == len(second) == draws
    assert not first & second


def test_blocks_and_purposes_share_no_draws_of_an_evaluation() -> None:
    model, data, scoring = Noisy().eval(), random_data(6), Scoring(draws=3, seed=5)
    attack = Attack("some", model, PGDSettings(steps=2, restarts=2, realizations=2))
    draws = []
    for half in HALVES:
        block = Block.of(data.take(half), torch.device("cpu"))
        draws += [
            drawn(model, partial(craft, attack, model, block, scoring)),
            drawn(model, partial(selection_margins, model, *block, scoring)),
            drawn(model, partial(answers, model, block.images, block.ids, scoring)),
        ]
    assert [len(each) for each in draws] == [2 * 2 + 2, 3, 3] * 2
    assert len(set.union(*draws)) == sum(map(len, draws))
