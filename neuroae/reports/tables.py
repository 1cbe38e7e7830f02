"""Tables: rows of accuracies as Markdown, which reads well in a terminal too, and as CSV."""

import csv
import io
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from statistics import fmean
from typing import Any, NamedTuple

from ..evaluation import CLEAN, Record, Results
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
    """The accuracy of one model under one attack, for tables of several models.

    Attributes:
        model: The model's name.
        attack: The attack's name, or "clean".
        accuracy: The accuracy of the E scoring draws as one vote, in [0, 1].
        low: The lower end of its 95% interval.
        high: The upper end of its 95% interval.
        images: The number of images.
        seconds: The seconds of crafting and scoring.
        passes: Gradient passes: images times realizations.
        unusable: Gradient passes that gave no gradient (zero, NaN or infinite).
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
    def of(cls, model: str, results: Results, attack: str = CLEAN) -> "Row":
        """Returns the row of an attack in the results of an evaluation."""
        accuracy = results.accuracy(attack)
        return cls(
            model,
            attack,
            accuracy.value,
            *accuracy.interval(),
            accuracy.images,
            results.seconds[attack],
            results.passes(attack),
            results.zero(attack) + results.invalid(attack),
        )

    def cells(self) -> tuple[str, ...]:
        """Returns the row's text under ``COLUMNS``."""
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
    """Returns the rows as a Markdown table, one line each."""
    return table(COLUMNS, (row.cells() for row in rows), TEXT_COLUMNS)


# Partial white-box and black-box transfer (paper, section 4).
TRANSFER_FAMILIES = ("PW-T", "B-T")


@dataclass(frozen=True)
class AttackRow:
    """One attack of an evaluation, or several together. Accuracies are in [0, 1].

    Attributes:
        attack: The attack's name.
        images: The number of images.
        draws: E, the number of scoring draws of each image.
        vote: The accuracy of the E draws as one vote, with its Clopper-Pearson interval.
        draw: The accuracy of one draw, E = 1: the mean over draws, with a bootstrap over images.
        persistent: The accuracy against an attacker who asks E times and needs one wrong answer, with a bootstrap
            over images.
        gradients: Gradient passes per image.
        forwards: Forward passes per image.
        unusable: Share of the gradient passes that gave no gradient; None without gradient passes.
        linf: The mean l-infinity norm of the perturbations.
        l2: Their mean l2 norm.
        seconds: The seconds of crafting and scoring, over all processes.
        budget: The paper's C = K N_S N_R N_E; None without gradients.
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
        """Returns the row of at least one record."""
        vote, draws = vote_accuracy(records), len(records[0].draws)
        passes = sum(record.gradients for record in records)
        unusable = sum(record.zero + record.invalid for record in records)
        return cls(
            attack=attack,
            images=len(records),
            draws=draws,
            vote=Estimate(vote.value, *vote.interval()),
            draw=draw_accuracy(records),
            persistent=persistent_accuracy(records, draws),
            gradients=records[0].gradients,
            forwards=records[0].forwards,
            unusable=unusable / passes if passes else None,
            linf=fmean(record.linf for record in records),
            l2=fmean(record.l2 for record in records),
            seconds=seconds,
            budget=budget,
        )


def attack_rows(results: Results) -> list[AttackRow]:
    """Returns a row of each attack that has records, in their order."""
    return [
        AttackRow.of(name, records, results.seconds[name], results.budget(name))
        for name, records in results.records.items()
        if records
    ]


def joint_rows(results: Results) -> list[AttackRow]:
    """Returns what several attacks of one budget leave together, on the images that all of them have.

    There are two rows for all attacks of a budget, and for its transfers of each family. The lowest accuracy is the
    paper's rule; it is chosen on the scoring draws. The worst of each image is chosen among the attacks and the clean
    image, which lies in every ball: on the selection draws, and then scored on the scoring draws. Passes and seconds
    are the sums over all attacks of the group.
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
    """Returns a row of these records, with the passes and seconds of all members."""
    costs = [results.budget(name) for name in members]
    row = AttackRow.of(title, chosen, sum(results.seconds[name] for name in members), sum(filter(None, costs)) or None)
    passes = [results.records[name][0] for name in members]
    gradients, forwards = (sum(getattr(record, kind) for record in passes) for kind in ("gradients", "forwards"))
    return replace(row, gradients=gradients, forwards=forwards)


def budgets(results: Results) -> dict[Budget, list[str]]:
    """Returns the names of the attacks by their budget; attacks without a budget are left out."""
    names: dict[Budget, list[str]] = {}
    for name in results.records:
        budget = Threat.of(name, results.attack(name)).budget
        if budget is not None:
            names.setdefault(budget, []).append(name)
    return names


def groups(results: Results, names: Sequence[str]) -> dict[str, Sequence[str]]:
    """Returns which attacks of one budget are reported together: all, and the transfers of a family; at least two."""
    families = {
        family: [name for name in names if results.attack(name)["family"] == family] for family in TRANSFER_FAMILIES
    }
    several = {family: members for family, members in families.items() if 1 < len(members) < len(names)}
    return several | ({"all": names} if len(names) > 1 else {})


def on_common_images(records: Mapping[str, Sequence[Record]]) -> dict[str, list[Record]]:
    """Returns the records of the images that all attacks have; in a finished evaluation, all records."""
    common = set.intersection(*({record.image for record in group} for group in records.values()))
    return {name: [record for record in group if record.image in common] for name, group in records.items()}


PAIR_COLUMNS = ("attack", "images", "fooled only by it", "fooled only by the first", "p")
PAIR_TITLE = "Against the first attack"


@dataclass(frozen=True)
class Pairing:
    """The attacks of an evaluation beside its first one.

    Attributes:
        first: The name of the first attack.
        others: The pairs of each other attack, by its name, with the first attack as the second of the pair.
    """

    first: str
    others: Mapping[str, Pairs]

    @property
    def note(self) -> str:
        return (
            f"Each attack is compared with {self.first} by the images that only one of the two fools on the scoring "
            "draws. p is that of McNemar's exact two-sided test, not corrected for the number of rows."
        )

    def rows(self) -> list[tuple[str, ...]]:
        """Returns the text of each row under ``PAIR_COLUMNS``."""
        return [
            (name, f"{pairs.images:,}", f"{pairs.first:,}", f"{pairs.second:,}", f"{pairs.p:.2g}")
            for name, pairs in self.others.items()
        ]

    def markdown(self) -> str:
        return table(PAIR_COLUMNS, self.rows())

    def as_json(self) -> dict[str, Any]:
        return {"first": self.first, "others": {name: pairs._asdict() for name, pairs in self.others.items()}}


def pairing(results: Results) -> Pairing | None:
    """Returns the attacks beside the first one; None where no two have images in common."""
    attacks = [Verdicts(name, records) for name, records in results.records.items() if records and name != CLEAN]
    every = {attack.attack: Pairs.of(attack.right, attacks[0].right) for attack in attacks[1:]}
    others = {name: pairs for name, pairs in every.items() if pairs is not None}
    return Pairing(attacks[0].attack, others) if others else None


NOTES = """\
Accuracies are upper bounds: other attacks, or larger budgets, may leave less. Intervals are at 95%. With E draws, E
realizations vote on each image (Clopper-Pearson interval over images). E = 1 is the accuracy of a single draw, as the
mean over these draws (bootstrap over images). "All draws right" counts images that every draw classifies correctly:
only these hold against an attacker who may ask again until an answer is wrong. No attack and no selection saw the
scoring draws. For several attacks at one budget, the worst of each image is chosen on other draws, and the lowest
accuracy, which is the paper's rule, on the scoring draws themselves. For an attack on the ensemble as deployed, one
gradient is that of all members together."""


class Column(NamedTuple):
    """A column of the table of attacks.

    Attributes:
        title: The column's title.
        cell: The function from a row to its text.
    """

    title: str
    cell: Callable[[AttackRow], str]


def columns(rows: Sequence[AttackRow]) -> list[Column]:
    """Returns the columns of these rows; with one draw per image, the vote is the draw and shown once."""
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
        Column("gradients per image", lambda row: f"{row.gradients:,}" if row.gradients else ""),
        Column("no gradient", lambda row: "" if row.unusable is None else f"{row.unusable:.2%}"),
        Column("mean linf", lambda row: f"{row.linf:.4f}" if row.linf else ""),
        Column("mean l2", lambda row: f"{row.l2:.3f}" if row.l2 else ""),
        Column("seconds", lambda row: f"{row.seconds:,.1f}"),
    ]


def interval(estimate: Estimate) -> str:
    return f"{estimate.low:.1%} to {estimate.high:.1%}"


def markdown(rows: Sequence[AttackRow]) -> str:
    """Returns the rows as a Markdown table."""
    shown = columns(rows)
    return table([column.title for column in shown], [[column.cell(row) for column in shown] for row in rows])


def to_csv(rows: Sequence[AttackRow], deterministic: bool, finished: bool) -> str:
    """Returns the rows as CSV, with all digits and with the ends of intervals in columns of their own.

    Every line says whether masks were fixed and whether the evaluation is finished.
    """
    buffer = io.StringIO()
    lines = [flat(row) | {"deterministic": deterministic, "finished": finished} for row in rows]
    writer = csv.DictWriter(buffer, lines[0], lineterminator="\n")
    writer.writeheader()
    writer.writerows(lines)
    return buffer.getvalue()


def flat(row: AttackRow) -> dict[str, Any]:
    """Returns a row's values by name, without nesting: "vote", "vote_low", "vote_high" and so on."""
    fields: dict[str, Any] = {}
    for name, value in asdict(row).items():
        if isinstance(value, dict):
            fields |= {name: value["value"], f"{name}_low": value["low"], f"{name}_high": value["high"]}
        else:
            fields[name] = value
    return fields
