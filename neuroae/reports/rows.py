"""What an evaluation found, a row an attack, and what the attacks come to together."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean

from ..evaluation import CLEAN, Record, Results
from ..evaluation.sanity import Budget, Threat
from ..evaluation.statistics import (
    Estimate,
    draw_accuracy,
    papers_minimum,
    persistent_accuracy,
    vote_accuracy,
    worst_case,
)

TRANSFER_FAMILIES = ("PW-T", "B-T")


@dataclass(frozen=True)
class AttackRow:
    """One attack, or several together. Accuracies are in [0, 1].

    Attributes:
        attack: its name.
        images: that were scored.
        draws: E, of each image.
        vote: accuracy of the E draws as one vote, with its Clopper-Pearson interval.
        draw: of one draw, E = 1: the mean over draws, with a bootstrap over images.
        persistent: against an attacker who asks E times and needs one wrong answer, with a bootstrap over images.
        gradients, forwards: passes an image.
        unusable: share of the gradient passes that gave none; None where there were none.
        linf, l2: mean norms of the perturbations.
        seconds: that it took, over all processes.
        budget: the paper's C = K N_S N_R N_E; None where there are no gradients.
    """

    attack: str
    images: int
    draws: int
    vote: Estimate
    draw: Estimate
    persistent: Estimate
    gradients: int
    forwards: int
    unusable: float | None
    linf: float
    l2: float
    seconds: float
    budget: float | None

    @classmethod
    def of(cls, attack: str, records: Sequence[Record], seconds: float, budget: float | None = None) -> "AttackRow":
        """From at least one record."""
        vote, draws = vote_accuracy(records), len(records[0].draws)
        passes = sum(record.gradients for record in records)
        lost = sum(record.zero + record.invalid for record in records)
        return cls(
            attack=attack,
            images=len(records),
            draws=draws,
            vote=Estimate(vote.value, *vote.interval()),
            draw=draw_accuracy(records),
            persistent=persistent_accuracy(records, draws),
            gradients=records[0].gradients,
            forwards=records[0].forwards,
            unusable=lost / passes if passes else None,
            linf=fmean(record.linf for record in records),
            l2=fmean(record.l2 for record in records),
            seconds=seconds,
            budget=budget,
        )


def attack_rows(results: Results) -> list[AttackRow]:
    """One for each attack that has records, in their order."""
    return [
        AttackRow.of(name, records, results.seconds[name], results.budget(name))
        for name, records in results.records.items()
        if records
    ]


def joint_rows(results: Results) -> list[AttackRow]:
    """What the attacks of one budget come to together, wherever there are several, on the images that all have.

    Of all attacks, and of the transfers of one family. The lowest accuracy is the paper's rule; it is chosen on the
    draws that it is scored on. The worst of each image is that of the attacks and of none, which is in every ball; it
    is chosen on selection draws, and scored on scoring draws. Passes and seconds are those of all attacks that are
    chosen from.
    """
    joint = []
    for budget, names in budgets(results).items():
        for group, members in groups(results, names).items():
            records = on_common_images({name: results.records[name] for name in members})
            if not all(records.values()):
                continue
            lowest, _ = papers_minimum(records)
            joint.append(joint_row(results, f"{budget}, lowest of {group}: {lowest}", members, records[lowest]))
            every = on_common_images({CLEAN: results.records[CLEAN]} | records)
            if every[CLEAN]:
                title = f"{budget}, worst of each image" + ("" if members == names else f" of {group}")
                joint.append(joint_row(results, title, members, worst_case(every)))
    return joint


def joint_row(results: Results, title: str, members: Sequence[str], chosen: Sequence[Record]) -> AttackRow:
    costs = [results.budget(name) for name in members]
    row = AttackRow.of(title, chosen, sum(results.seconds[name] for name in members), sum(filter(None, costs)) or None)
    passes = [results.records[name][0] for name in members]
    gradients, forwards = (sum(getattr(record, kind) for record in passes) for kind in ("gradients", "forwards"))
    return replace(row, gradients=gradients, forwards=forwards)


def budgets(results: Results) -> dict[Budget, list[str]]:
    """Attacks by what they may do, those without a budget left out."""
    found: dict[Budget, list[str]] = {}
    for name in results.records:
        budget = Threat.of(name, results.attack(name)).budget
        if budget is not None:
            found.setdefault(budget, []).append(name)
    return found


def groups(results: Results, names: Sequence[str]) -> dict[str, Sequence[str]]:
    """The attacks of one budget that are reported together: all, and the transfers of a family; two at least."""
    families = {
        family: [name for name in names if results.attack(name)["family"] == family] for family in TRANSFER_FAMILIES
    }
    found = {family: members for family, members in families.items() if 1 < len(members) < len(names)}
    return found | ({"all": names} if len(names) > 1 else {})


def on_common_images(records: Mapping[str, Sequence[Record]]) -> dict[str, list[Record]]:
    """The records of the images that all attacks have; of an evaluation that is done, all of them."""
    common = set.intersection(*({record.image for record in own} for own in records.values()))
    return {name: [record for record in own if record.image in common] for name, own in records.items()}
