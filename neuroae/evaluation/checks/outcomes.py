"""Whether attacks that ought to be the stronger ones are. Noise is judged by pairs of verdicts on the same images."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import NamedTuple

from scipy.stats import binomtest

from ..records import CLEAN, Record
from ..statistics import Accuracy
from .check import Budget, Check, Threat, Verdict, worst

SIGNIFICANT = 0.05


class Verdicts:
    """The images under one attack, by their ids.

    Attributes:
        attack: its name.
        right: image id to whether the vote on the scoring draws is right.
        held: share of the images that the attack does not fool on the selection draws, in [0, 1].
    """

    def __init__(self, attack: str, records: Iterable[Record]) -> None:
        found = list(records)
        self.attack = attack
        self.right = {record.image: record.vote == record.label for record in found}
        self.held = sum(record.selection <= 0 for record in found) / len(found)

    @property
    def accuracy(self) -> Accuracy:
        return Accuracy(sum(self.right.values()), len(self.right))


class Pairs(NamedTuple):
    """Two attacks on the same images.

    Attributes:
        images: that both have.
        first_accuracy, second_accuracy: on these, in [0, 1].
        first, second: images that only the first, or only the second, fools.
        p: of the exact two-sided McNemar test: as uneven a split, were both equally strong.
    """

    images: int
    first_accuracy: float
    second_accuracy: float
    first: int
    second: int
    p: float

    @classmethod
    def of(cls, first: Mapping[int, bool], second: Mapping[int, bool]) -> "Pairs | None":
        """From image ids to whether the answer is right; None where they have no image in common."""
        common = first.keys() & second.keys()
        if not common:
            return None
        by_first = sum(second[image] and not first[image] for image in common)
        by_second = sum(first[image] and not second[image] for image in common)
        apart = by_first + by_second
        return cls(
            len(common),
            sum(first[image] for image in common) / len(common),
            sum(second[image] for image in common) / len(common),
            by_first,
            by_second,
            float(binomtest(by_first, apart).pvalue) if apart else 1.0,
        )

    @property
    def significant(self) -> bool:
        """Whether they differ by more than noise."""
        return self.p < SIGNIFICANT

    @property
    def verdict(self) -> Verdict:
        """Whether the first fools no less: "warn" where it fools less within noise, and "fail" where beyond."""
        if self.first >= self.second:
            return "pass"
        return "fail" if self.significant else "warn"


def records_of(records: Iterable[Record]) -> dict[str, list[Record]]:
    """Those of each attack, by its name, in their order."""
    found: dict[str, list[Record]] = {}
    for record in records:
        found.setdefault(record.attack, []).append(record)
    return found


def strongest(attacks: Iterable[Verdicts]) -> Verdicts:
    """That which fools most on the selection draws, so that scoring draws choose nothing; of equals the first."""
    return min(attacks, key=lambda attack: attack.held)


Kind = Callable[[Threat], bool]


class Comparison(NamedTuple):
    """
    Attributes:
        name: of the check.
        stronger, weaker: which attacks ought to be no weaker than which.
        missing: what an evaluation lacks that cannot be compared.
        meaning, advice: of the check.
    """

    name: str
    stronger: Kind
    weaker: Kind
    missing: str
    meaning: str
    advice: str


def is_white_box(threat: Threat) -> bool:
    return threat.access == "white-box"


def is_iterative(threat: Threat) -> bool:
    return is_white_box(threat) and threat.settings.get("steps", 1) > 1


def is_single_step(threat: Threat) -> bool:
    """A step that reaches the edge of the ball; a shorter one has no chance beside several."""
    settings = threat.settings
    reaches = settings.get("step_size", settings.get("epsilon", 0)) >= settings.get("epsilon", 0)
    return is_white_box(threat) and settings.get("steps") == 1 and reaches


ITERATIVE = Comparison(
    "an iterative attack is no weaker than a single step",
    is_iterative,
    is_single_step,
    "a white-box attack of one step as long as the budget and one of several steps, at the same budget",
    "More steps reach what one step reaches. Where they do worse, the gradient is only good at the image itself.",
    "Try smaller steps, more realizations a gradient and random starts before the accuracy is believed.",
)
TRANSFER = Comparison(
    "a white-box attack is no weaker than transfer",
    is_white_box,
    lambda threat: threat.access == "transfer",
    "a white-box attack and a transfer attack at the same budget",
    "The model's own gradient knows more than another model's. Where it does worse, the model hides its gradient.",
    "Report the transfer attack's accuracy, not the white-box one's, and look for a better surrogate gradient.",
)
GRADIENT_FREE = Comparison(
    "a white-box attack is no weaker than a gradient-free one",
    is_white_box,
    lambda threat: threat.access == "gradient-free",
    "a white-box attack and a gradient-free attack at the same budget",
    "Gradients know more than a search that only asks for answers. Where they do worse, they lead nowhere.",
    "Report the gradient-free attack's accuracy, and look for a better surrogate gradient.",
)
COMPARISONS = (ITERATIVE, TRANSFER, GRADIENT_FREE)
NOTHING_FOOLED = "Compare attacks that fool some of the images: with more images, more steps or a larger epsilon."


class Meeting(NamedTuple):
    """The strongest attacks of two kinds at one budget, on the images that both have.

    Attributes:
        fooled: images that one of them or both fool, of those that are right when clean.
    """

    budget: Budget
    stronger: Verdicts
    weaker: Verdicts
    pairs: Pairs
    fooled: int

    @property
    def verdict(self) -> Verdict:
        """Attacks that fool nothing are equals, and say nothing of each other."""
        return self.pairs.verdict if self.fooled else "warn"

    def __str__(self) -> str:
        first, second, pairs = self.stronger.attack, self.weaker.attack, self.pairs
        told = f"{pairs.first} against {pairs.second} fooled by one alone, p = {pairs.p:.2g}"
        return (
            f"{self.budget}: {first} leaves {pairs.first_accuracy:.1%} and {second} {pairs.second_accuracy:.1%} of "
            f"{pairs.images:,} images ({told if self.fooled else 'neither fools one'})"
        )


def compare(comparison: Comparison, threats: Iterable[Threat], verdicts: Mapping[str, Verdicts]) -> Check:
    """At every budget, the strongest attack of either kind; each is chosen on selection draws."""
    met = list(meetings(comparison, threats, verdicts))
    if not met:
        found = f"not measured: needs {comparison.missing}"
        return Check(comparison.name, "warn", found, comparison.meaning, f"Evaluate {comparison.missing}.")
    verdict = worst(meeting.verdict for meeting in met)
    judged = [meeting.pairs.verdict for meeting in met if meeting.fooled]
    advice = [comparison.advice] if worst(judged) != "pass" else []
    advice += [NOTHING_FOOLED] if len(judged) < len(met) else []
    return Check(
        comparison.name,
        verdict,
        "; ".join(map(str, met)),
        comparison.meaning,
        " ".join(advice),
        {f"{one.budget}: {name}": value for one in met for name, value in one.pairs._asdict().items()},
    )


def meetings(comparison: Comparison, threats: Iterable[Threat], verdicts: Mapping[str, Verdicts]) -> Iterator[Meeting]:
    for budget, found in by_budget(threats, verdicts).items():
        stronger = [verdicts[threat.name] for threat in found if comparison.stronger(threat)]
        weaker = [verdicts[threat.name] for threat in found if comparison.weaker(threat)]
        if stronger and weaker:
            first, second = strongest(stronger), strongest(weaker)
            pairs = Pairs.of(first.right, second.right)
            if pairs is not None:
                yield Meeting(budget, first, second, pairs, fooled(first, second, verdicts.get(CLEAN)))


def fooled(first: Verdicts, second: Verdicts, clean: Verdicts | None) -> int:
    """Images that either fools, of those that are right when clean, or of all where that is not known."""
    common = first.right.keys() & second.right.keys()
    wrong = {image for image in common if not (first.right[image] and second.right[image])}
    return len(wrong if clean is None else {image for image in wrong if clean.right.get(image, True)})


def by_budget(threats: Iterable[Threat], verdicts: Mapping[str, Verdicts]) -> dict[Budget, list[Threat]]:
    """The attacks that have verdicts, by their budget."""
    found: dict[Budget, list[Threat]] = {}
    for threat in threats:
        if threat.budget is not None and threat.name in verdicts:
            found.setdefault(threat.budget, []).append(threat)
    return found
