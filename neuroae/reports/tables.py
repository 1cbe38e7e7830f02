"""Rows of an evaluation as Markdown, which reads well in a terminal too, and as CSV."""

import csv
import io
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from statistics import fmean
from typing import Any, NamedTuple

from ..evaluation import CLEAN, Outcome, Record, Results
from ..evaluation.checks import Budget, Threat
from ..evaluation.checks.outcomes import Pairs, Verdicts
from ..evaluation.statistics import (
    Estimate,
    draw_accuracy,
    papers_minimum,
    persistent_accuracy,
    vote_accuracy,
    worst_case,
)
from ..utils.markdown import table

COLUMNS = ("model", "attack", "accuracy", "95% interval", "images", "seconds", "gradient passes", "no gradient")
TEXT_COLUMNS = 2


@dataclass(frozen=True)
class Row:
    """One accuracy.

    Attributes:
        model, attack: names.
        accuracy, low, high: in [0, 1]; the ends are of the 95% confidence interval.
        images: how many were scored.
        seconds: wall time of crafting and scoring.
        passes: gradient passes, in images times realizations.
        unusable: of them those that gave no gradient (zero, NaN or infinite).
    """

    model: str
    attack: str
    accuracy: float
    low: float
    high: float
    images: int
    seconds: float
    passes: int
    unusable: int

    @classmethod
    def of(cls, model: str, outcome: Outcome) -> "Row":
        accuracy = outcome.accuracy
        return cls(
            model,
            outcome.name,
            accuracy.value,
            *accuracy.interval(),
            accuracy.images,
            outcome.seconds,
            outcome.passes,
            outcome.zero + outcome.invalid,
        )

    def cells(self) -> tuple[str, ...]:
        return (
            self.model,
            self.attack,
            f"{self.accuracy:.1%}",
            f"{self.low:.1%} to {self.high:.1%}",
            f"{self.images:,}",
            f"{self.seconds:.1f}",
            f"{self.passes:,}" if self.passes else "",
            f"{self.unusable / self.passes:.1%}" if self.passes else "",
        )


def markdown_table(rows: Iterable[Row]) -> str:
    """A line a row under the names of the columns."""
    return table(COLUMNS, (row.cells() for row in rows), TEXT_COLUMNS)


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


PAIR_COLUMNS = ("attack", "images", "fooled by it alone", "fooled by the first alone", "p")
PAIR_TITLE = "Against the first attack"


@dataclass(frozen=True)
class Pairing:
    """
    Attributes:
        first: the attack that the others are compared with.
        others: what each of them and the first do to the images that both have, by its name; the first in a pair is
            the other attack.
    """

    first: str
    others: Mapping[str, Pairs]

    @property
    def note(self) -> str:
        return (
            f"Each attack beside {self.first}: images that one of the two fools and the other does not, on the "
            "scoring draws, and p of McNemar's exact two-sided test, not corrected for the number of rows."
        )

    def rows(self) -> list[tuple[str, ...]]:
        """Cells under ``PAIR_COLUMNS``."""
        return [
            (name, f"{pairs.images:,}", f"{pairs.first:,}", f"{pairs.second:,}", f"{pairs.p:.2g}")
            for name, pairs in self.others.items()
        ]

    def markdown(self) -> str:
        return table(PAIR_COLUMNS, self.rows())

    def as_json(self) -> dict[str, Any]:
        return {"first": self.first, "others": {name: pairs._asdict() for name, pairs in self.others.items()}}


def pairing(results: Results) -> Pairing | None:
    """None where there are no two attacks on common images."""
    attacks = [Verdicts(name, own) for name, own in results.records.items() if own and name != CLEAN]
    found = {attack.attack: Pairs.of(attack.right, attacks[0].right) for attack in attacks[1:]}
    others = {name: pairs for name, pairs in found.items() if pairs is not None}
    return Pairing(attacks[0].attack, others) if others else None


NOTES = """\
Accuracies are upper bounds: of the attacks that were tried, at the budgets that were tried. Intervals are of 95%.
E draws answer as one vote (Clopper-Pearson over images); E = 1 is the mean over these draws (bootstrap over images).
Who may ask again is stopped only by images that all draws answer rightly. The draws that score were seen by no attack
and by no selection. Of several attacks of one budget, the worst of each image is chosen on other draws, and the lowest
accuracy, which is the paper's rule, on the scoring draws themselves. Of the ensemble as deployed, a gradient is that
of all its members."""


class Column(NamedTuple):
    """
    Attributes:
        title: of the column.
        cell: a row's text.
    """

    title: str
    cell: Callable[[AttackRow], str]


def columns(rows: Sequence[AttackRow]) -> list[Column]:
    """Those that say something: one draw an image has no vote, and attacks without passes no rates."""
    draws = rows[0].draws
    shown = [
        Column("attack", lambda row: row.attack),
        Column(f"accuracy, E = {draws}", lambda row: f"{row.vote.value:.1%}"),
        Column("95% interval", lambda row: interval(row.vote)),
    ]
    if draws > 1:
        shown += [
            Column("E = 1", lambda row: f"{row.draw.value:.1%}"),
            Column("95% interval, E = 1", lambda row: interval(row.draw)),
            Column(f"all {draws} draws right", lambda row: f"{row.persistent.value:.1%}"),
        ]
    return [
        *shown,
        Column("images", lambda row: f"{row.images:,}"),
        Column("gradients an image", lambda row: f"{row.gradients:,}" if row.gradients else ""),
        Column("no gradient", lambda row: "" if row.unusable is None else f"{row.unusable:.2%}"),
        Column("mean linf", lambda row: f"{row.linf:.4f}" if row.linf else ""),
        Column("mean l2", lambda row: f"{row.l2:.3f}" if row.l2 else ""),
        Column("seconds", lambda row: f"{row.seconds:,.1f}"),
    ]


def interval(estimate: Estimate) -> str:
    return f"{estimate.low:.1%} to {estimate.high:.1%}"


def markdown(rows: Sequence[AttackRow]) -> str:
    shown = columns(rows)
    return table([column.title for column in shown], [[column.cell(row) for column in shown] for row in rows])


def to_csv(rows: Sequence[AttackRow], deterministic: bool, finished: bool) -> str:
    """A line a row, all digits, accuracies with the ends of their intervals in columns of their own.

    Whether masks were fixed, and whether the evaluation is done, stands in every line.
    """
    buffer = io.StringIO()
    lines = [flat(row) | {"deterministic": deterministic, "finished": finished} for row in rows]
    writer = csv.DictWriter(buffer, lines[0], lineterminator="\n")
    writer.writeheader()
    writer.writerows(lines)
    return buffer.getvalue()


def flat(row: AttackRow) -> dict[str, Any]:
    fields: dict[str, Any] = {}
    for name, value in asdict(row).items():
        if isinstance(value, dict):
            fields |= {name: value["value"], f"{name}_low": value["low"], f"{name}_high": value["high"]}
        else:
            fields[name] = value
    return fields
