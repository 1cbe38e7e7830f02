"""How much the model's answers to clean images depend on the draw."""

from collections import Counter
from collections.abc import Sequence

from ..records import Record
from .check import Check

SINGLE_DRAWS = "scores are not of single draws"
MEANING = (
    "A random model gives one image several answers. Scores of single draws are noise then, and so are gradients of "
    "single draws; and who may ask again gets what it wants."
)


def randomness(clean: Sequence[Record], fixed_masks: bool = False) -> Check:
    """Flip rate: how often two scoring draws of one clean image give two classes.

    Args:
        clean: records of the clean images.
        fixed_masks: the evaluation drew the same masks in every call.
    """
    if fixed_masks:
        found, advice = "masks were fixed", "Evaluate the random model; this evaluation says nothing about it."
        return Check(SINGLE_DRAWS, "fail", found, MEANING, advice, {"draws": 1})
    draws = min((len(record.draws) for record in clean), default=0)
    if draws < 2:
        found = f"not measured: {draws} scoring draw an image"
        advice = "Right for a deterministic model; score a random one by several draws."
        return Check(SINGLE_DRAWS, "warn", found, MEANING, advice)
    rate = sum(flips(record.draws) for record in clean) / len(clean)
    found = f"two draws of a clean image differ in {rate:.2%} of cases; {draws} draws an image were scored"
    return Check(SINGLE_DRAWS, "pass", found, MEANING, numbers={"flip rate": rate, "draws": draws})


def one_draw(random: bool) -> Check:
    """Of an evaluation that scored one draw an image: right for a model that draws nothing."""
    if random:
        found, advice = "one draw an image of a model that draws", "Score by several draws."
        return Check(SINGLE_DRAWS, "fail", found, MEANING, advice, {"draws": 1, "random": 1})
    found = "two answers to the same images are the same: the model draws nothing"
    return Check(SINGLE_DRAWS, "pass", found, MEANING, numbers={"draws": 1, "random": 0})


def flips(draws: Sequence[int]) -> float:
    """Probability that two different draws, taken at random, give different classes."""
    count = len(draws)
    same = sum(number * (number - 1) for number in Counter(draws).values())
    return 1 - same / (count * (count - 1))
