"""Whether the model takes images in [0, 1] and normalizes them itself."""

from torch import Tensor, nn

from ..scoring import Block, Scoring, answers
from ..statistics import Accuracy
from .check import Check, Verdict, worst
from .epsilons import ONE_CLASS, chance_of
from .verdicts import Pairs

INPUT_RANGE = "the model takes images in [0, 1]"
MEANING = (
    "Attacks move pixels in [0, 1]. A model made for another scale, or for pixels that were normalized before, "
    "answers them badly without any attack."
)


def input_range(model: nn.Module, block: Block, scoring: Scoring) -> Check:
    """Clean accuracy in [0, 1], and that of the same images on other scales that models are made for.

    [0, 1] ought to be above chance and no worse than another scale; a model may refuse the others.
    """
    chance = chance_of(block.labels.tolist())
    if chance == 1:
        return Check(INPUT_RANGE, "warn", ONE_CLASS, MEANING, "Evaluate images of several classes.")
    right = answered(model, block.images, block, scoring)
    own = Accuracy(sum(right.values()), len(right))
    told, numbers = [f"{own.value:.1%} right in [0, 1]"], {"[0, 1]": own.value, "chance": chance, "images": own.images}
    verdicts = [above(own, chance)]
    for name, images in other_scales(block.images).items():
        try:
            other = answered(model, images, block, scoring)
        except Exception:  # models have ways of their own to refuse
            told.append(f"refused {name}")
            continue
        pairs = Pairs.of(other, right)
        assert pairs is not None
        verdicts.append(pairs.verdict)
        told.append(f"{pairs.first_accuracy:.1%} {name}")
        numbers[name] = pairs.first_accuracy
    verdict = worst(verdicts)
    found = f"{', '.join(told)}; {own.images} clean images, chance {chance:.1%}"
    advice = "" if verdict == "pass" else "Put the normalization into the model, behind an input in [0, 1]."
    return Check(INPUT_RANGE, verdict, found, MEANING, advice, numbers)


def other_scales(images: Tensor) -> dict[str, Tensor]:
    """Bytes, [-1, 1], and each channel with mean 0 and standard deviation 1."""
    mean, deviation = (moment((0, 2, 3), keepdim=True) for moment in (images.mean, images.std))
    return {
        "in 0 to 255": 255 * images,
        "in [-1, 1]": 2 * images - 1,
        "with mean 0 and deviation 1": (images - mean) / deviation.clamp(min=1e-6),
    }


def answered(model: nn.Module, images: Tensor, block: Block, scoring: Scoring) -> dict[int, bool]:
    """Image id to whether the vote is right."""
    votes = answers(model, images, block.ids, scoring).vote
    return dict(zip(block.ids.tolist(), (votes == block.labels).tolist(), strict=True))


def above(accuracy: Accuracy, chance: float) -> Verdict:
    if accuracy.value <= chance:
        return "fail"
    return "pass" if accuracy.interval()[0] > chance else "warn"
