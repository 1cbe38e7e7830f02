"""How many gradient passes of the attacks gave a gradient."""

from collections.abc import Mapping, Sequence

from ..records import Record
from .check import Check, graded, worst

ZERO = "gradients are not zero"
FINITE = "gradients are finite"
# A realization without a gradient counts for nothing in the average: one in a hundred is no loss, one in ten is.
FEW, MANY = 0.01, 0.1


def zero_gradients(records: Mapping[str, Sequence[Record]]) -> Check:
    """Of each attack's records; the attack with the largest rate is told."""
    return rated(
        ZERO,
        "zero",
        {attack: [record.zero for record in own] for attack, own in records.items()},
        records,
        (FEW, MANY),
        "A realization whose gradient is zero throughout tells an attack nothing. Many of them mean a saturated loss "
        "or a gradient that is cut off, not a model that is robust.",
        "Attack with the margin loss, a smoother surrogate gradient, or more realizations.",
    )


def invalid_gradients(records: Mapping[str, Sequence[Record]]) -> Check:
    """NaN or infinite, of each attack's records; the attack with the largest rate is told."""
    return rated(
        FINITE,
        "NaN or infinite",
        {attack: [record.invalid for record in own] for attack, own in records.items()},
        records,
        (0.0, FEW),
        "A gradient with NaN or infinity in it is left out; where all are, the attack does not move.",
        "Find the operation whose derivative is not finite, or craft in float32.",
    )


def rated(
    name: str,
    fault: str,
    unusable: Mapping[str, Sequence[int]],
    records: Mapping[str, Sequence[Record]],
    limits: tuple[float, float],
    meaning: str,
    advice: str,
) -> Check:
    passes = {attack: sum(record.gradients for record in own) for attack, own in records.items()}
    rates = {attack: sum(counts) / passes[attack] for attack, counts in unusable.items() if passes[attack]}
    if not rates:
        found = "not measured: no attack took gradients"
        return Check(name, "warn", found, meaning, "Evaluate an attack that follows gradients.")
    attack, rate = max(rates.items(), key=lambda item: item[1])
    blind = max(
        sum(count == record.gradients > 0 for count, record in zip(unusable[other], records[other], strict=True))
        for other in rates
    )
    verdict = worst([graded(rate, *limits), "warn" if blind else "pass"])
    return Check(
        name,
        verdict,
        f"at most {rate:.2%} are {fault}, of {passes[attack]:,} under {attack}; images with no others: {blind:,}",
        meaning,
        "" if verdict == "pass" else advice,
        {"rate": rate, "passes": passes[attack], "blind": blind},
    )
