"""Checks of a suite: the probe's word on gradients, and whether later stages took what gradients should have."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from ...attacks import Probe
from ...attacks.stages import LARGER
from ..records import Record
from ..results import Results
from .check import Check, graded, unmeasured
from .outcomes import GRADIENT_FREE, TRANSFER, Comparison

STANDS = -1
DIFFERENCES = "gradients agree with differences of the loss"
DIFFERENCES_MEANING = (
    "A gradient says how the loss changes with the image. Where it is dead or says something else, attacks along it "
    "find nothing, and the accuracy that they leave is not robustness."
)
CONVERGED = "a larger budget changes nothing"
CONVERGED_MEANING = (
    "An accuracy under attack is an upper bound. Where more steps, more realizations or another start still fool "
    "images, the bound is not tight."
)
SEARCH_NAMES = ("Square", "evolution strategy")
# Shares of all images that a larger budget may take before the check warns and fails.
LITTLE, MUCH = 0.01, 0.05


class StageCount(NamedTuple):
    """What a stage of a suite did.

    Attributes:
        name: The stage's name.
        entered: Images that stood before it.
        fooled: Images that left the cascade in it.
        skipped: Why it did not run, or "".
    """

    name: str
    entered: int
    fooled: int
    skipped: str


def suite_names(results: Results) -> list[str]:
    """Returns the names of the evaluation's suites, one a budget."""
    return [name for name in results.records if results.attack(name)["method"] == "suite"]


def stage_counts(identity: Mapping[str, Any], records: Sequence[Record]) -> list[StageCount]:
    """Returns what each stage of a suite did, from the suite's identity and its records."""
    left_in = [STANDS if record.stage is None else record.stage for record in records]
    return [
        StageCount(
            stage["name"],
            sum(left == STANDS or left > number for left in left_in),
            sum(left == number + 1 for left in left_in),
            stage["skipped"],
        )
        for number, stage in enumerate(identity["stages"])
    ]


def suite_checks(identity: Mapping[str, Any], records: Sequence[Record]) -> list[Check]:
    """Returns the checks that a suite's identity and records decide."""
    counts = stage_counts(identity, records)
    return [
        probed_gradient(Probe.from_json(identity["probe"]), counts),
        stages_take_little(TRANSFER, counts, lambda name: name.startswith("transfer")),
        stages_take_little(GRADIENT_FREE, counts, lambda name: name in SEARCH_NAMES),
        converged(counts, len(records)),
    ]


def probed_gradient(probe: Probe, counts: Sequence[StageCount]) -> Check:
    """Judges the probe of the model's gradient: passes where it is usable, and warns where it had to be repaired."""
    numbers = {"cosine": probe.cosine, "spread": probe.cosine_spread, "zero": probe.zero, "invalid": probe.not_finite}
    cosine = f"cosine {probe.cosine:.2f}, standard deviation {probe.cosine_spread:.2f} over images"
    if probe.gradient == "usable":
        return Check(DIFFERENCES, "pass", cosine, DIFFERENCES_MEANING, numbers=numbers)
    best = max(counts, key=lambda count: count.fooled, default=None)
    led = f"; most images fell to {best.name}" if best is not None and best.fooled else ""
    finding = f"gradients are {probe.gradient} ({cosine}){led}"
    advice = "Say that the model's own gradients are useless, and which stage led to the accuracy."
    return Check(DIFFERENCES, "warn", finding, DIFFERENCES_MEANING, advice, numbers)


def stages_take_little(
    comparison: Comparison, counts: Sequence[StageCount], is_weaker: Callable[[str], bool]
) -> Check:
    """Warns where stages of a weaker kind took images that the stages before them had left."""
    ran = [count for count in counts if is_weaker(count.name) and not count.skipped and count.entered]
    if not ran:
        reason = "no such stage ran on an image that still stood"
        return unmeasured(comparison.name, reason, comparison.meaning, "")
    fooled, stood = sum(count.fooled for count in ran), ran[0].entered
    names = ", ".join(count.name for count in ran)
    finding = f"of {stood:,} images that stood after the stages before, {names} took {fooled:,}"
    numbers = {"stood": stood, "taken": fooled}
    advice = "The suite's accuracy counts these images as fooled; look for a better gradient." if fooled else ""
    return Check(comparison.name, "warn" if fooled else "pass", finding, comparison.meaning, advice, numbers)


def larger_budgets(counts: Sequence[StageCount]) -> list[StageCount]:
    """Returns the stages with larger budgets that ran on an image."""
    return [count for count in counts if count.name.startswith(LARGER) and not count.skipped and count.entered]


def what_larger_budgets_took(ran: Sequence[StageCount]) -> str:
    """Returns what these stages took, in words."""
    changes = ", ".join(f"{count.name.removeprefix(LARGER)} took {count.fooled:,}" for count in ran)
    return f"of {ran[0].entered:,} images that stood in the end, {changes}"


def converged(counts: Sequence[StageCount], images: int) -> Check:
    """Judges what the stages with larger budgets took: passes up to 1% of all images, fails above 5%."""
    ran = larger_budgets(counts)
    if not ran:
        reason = "no image stood, or the suite has no stage with a larger budget"
        return unmeasured(CONVERGED, reason, CONVERGED_MEANING, "The suite `standard` has such stages.")
    fooled = sum(count.fooled for count in ran)
    verdict = graded(fooled / images, LITTLE, MUCH)
    numbers = {"stood": ran[0].entered, "taken": fooled, "images": images}
    advice = "" if verdict == "pass" else "Attack with single attacks of larger budgets, too."
    return Check(CONVERGED, verdict, what_larger_budgets_took(ran), CONVERGED_MEANING, advice, numbers)
