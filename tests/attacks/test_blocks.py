"""Models that draw from torch's generator: in each block of images, and for each purpose, they draw anew.

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
    """The draws of the model in the course of a call, each told by its first number."""
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
def test_no_draw_of_an_attack_comes_again_in_another_block(
    method: Callable[..., Perturbed], settings: AttackSettings, draws: int
) -> None:
    """Those of steps, of both checkpoints and of the selection, or those of queries."""
    model, (images, labels, ids) = Noisy().eval(), random_images()
    first, second = (
        drawn(model, partial(method, model, images[half], labels[half], settings, seed=0, image_ids=ids[half]))
        for half in HALVES
    )
    assert len(first) == len(second) == draws
    assert not first & second


def test_no_draw_of_an_evaluation_comes_again_in_another_block_or_for_another_purpose() -> None:
    model, data, scoring = Noisy().eval(), random_data(6), Scoring(draws=3, seed=5)
    attack = Attack("some", model, PGDSettings(steps=2, restarts=2, realizations=2))
    found = []
    for half in HALVES:
        block = Block.of(data.take(half), torch.device("cpu"))
        found += [
            drawn(model, partial(craft, attack, model, block, scoring)),
            drawn(model, partial(selection_margins, model, *block, scoring)),
            drawn(model, partial(answers, model, block.images, block.ids, scoring)),
        ]
    assert [len(each) for each in found] == [2 * 2 + 2, 3, 3] * 2
    assert len(set.union(*found)) == sum(map(len, found))
