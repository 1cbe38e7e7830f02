"""The verdict: what attacks leave of a model's accuracy, of one evaluation with a suite or of several evaluations."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from ..attacks import Probe
from ..utils.markdown import table
from .checks.outcomes import Budget, Threat
from .checks.stages import STANDS, larger_budgets, stage_counts, suite_names, what_larger_budgets_took
from .records import CLEAN, Record
from .results import Results, load_evaluation
from .statistics import Accuracy, vote_accuracy, worst_case

WRONG = 0
COLUMNS = ("stage", "images taken", "left", "gradient passes an image", "forward passes an image", "")
PART_COLUMNS = ("evaluation", "attack", "accuracy alone", "images that fell to it", "gradient passes an image")


@dataclass(frozen=True)
class StageResult:
    """What a stage did.

    Attributes:
        name: The stage's name.
        images: Images that it attacked.
        fooled: Images that left the cascade in it.
        left: Images that stood after it.
        gradients, forwards: Mean passes on an image that it attacked.
        skipped: Why it did not run, or "".
    """

    name: str
    images: int
    fooled: int
    left: int
    gradients: float
    forwards: float
    skipped: str


@dataclass(frozen=True, eq=False)
class Verdict:
    """What is left of a model's accuracy, and which stages took the rest.

    Attributes:
        model, data: Their names.
        suite: "standard" or "quick".
        epsilon, norm: The budget.
        images: The number of images.
        clean: Accuracy on clean images.
        accuracy: Accuracy under the suite, by a vote on draws that no attack saw.
        stages: What each stage did.
        probe: What was measured of the model.
        results: Records and images.
        attack: The suite's name in the results.
    """

    model: str
    data: str
    suite: str
    epsilon: float
    norm: str
    images: int
    clean: Accuracy
    accuracy: Accuracy
    stages: Sequence[StageResult]
    probe: Probe
    results: Results
    attack: str

    @classmethod
    def of(cls, results: Results, name: str | None = None) -> "Verdict":
        """Returns the verdict of an evaluation with a suite.

        Args:
            results: The evaluation.
            name: The suite's name there; None is the last one, where several budgets were evaluated.

        Raises:
            ValueError: The evaluation has no suite.
        """
        names = suite_names(results)
        if not names:
            raise ValueError(f"{results.folder} holds no suite, but {', '.join(results.records)}")
        name = names[-1] if name is None else name
        identity = results.attack(name)
        settings = identity["settings"]
        return cls(
            results.model,
            results.manifest["identity"]["data"]["name"],
            settings["suite"],
            settings["epsilon"],
            settings["norm"],
            len(results.records[name]),
            results.accuracy("clean"),
            results.accuracy(name),
            stage_results(results, name),
            Probe.from_json(identity["probe"]),
            results,
            name,
        )

    @property
    def interval(self) -> tuple[float, float]:
        """The 95% interval of the accuracy (Clopper and Pearson)."""
        return self.accuracy.interval()

    @property
    def sentence(self) -> str:
        """The verdict in one sentence."""
        low, high = self.interval
        return (
            f"{self.model} keeps {self.accuracy.value:.1%} (95% interval {low:.1%} to {high:.1%}) of {self.images:,} "
            f"images under {self.norm} perturbations of {shown_epsilon(self.epsilon)}; clean it has "
            f"{self.clean.value:.1%}."
        )

    @property
    def larger_budgets(self) -> str:
        """What the stages with larger budgets changed, in one sentence; "" where the suite has none or none ran."""
        ran = larger_budgets(stage_counts(self.results.attack(self.attack), self.results.records[self.attack]))
        return f"{what_larger_budgets_took(ran).capitalize()}." if ran else ""

    @property
    def decisive(self) -> str:
        """The stage that took most images, "" where none took any."""
        best = max(self.stages, key=lambda stage: stage.fooled, default=None)
        return best.name if best is not None and best.fooled else ""

    def losses(self) -> dict[str, Tensor]:
        """Returns the losses over the steps of each gradient stage that ran, (N, steps) by its name."""
        details = self.results.details(self.attack)
        named = {stage.name: details.get(f"loss {number}") for number, stage in enumerate(self.stages)}
        return {name: values for name, values in named.items() if values is not None}

    def images_left(self) -> list[tuple[int, str, float]]:
        """Returns for each image its id, the stage in which it left, and the margin that its best attack reached."""
        names = {STANDS: "stands", WRONG: "wrong when clean"}
        names |= {number: stage.name for number, stage in enumerate(self.stages, 1)}
        return [
            (record.image, names.get(STANDS if record.stage is None else record.stage, ""), record.selection)
            for record in self.results.records[self.attack]
        ]

    def table(self) -> str:
        """Returns the stages that ran as a Markdown table, and below it those that did not, with the reason."""
        ran = table(COLUMNS[:-1], [cells[:-1] for cells in self.ran()])
        idle = "\n".join(f"- {'; '.join(names)}: {reason}" for reason, names in self.idle().items())
        return f"{ran}\n\nDid not run:\n\n{idle}" if idle else ran

    def cells(self) -> list[tuple[str, ...]]:
        """Returns the stages as cells under ``COLUMNS``; those that did not run for the same reason share a row."""
        idle = [("; ".join(names), "", "", "", "", reason) for reason, names in self.idle().items()]
        return [*self.ran(), *idle]

    def ran(self) -> list[tuple[str, ...]]:
        """Returns the stages that attacked an image as cells under ``COLUMNS``."""
        return [
            (
                stage.name,
                f"{stage.fooled:,}",
                f"{stage.left:,}",
                f"{stage.gradients:,.0f}" if stage.gradients else "",
                f"{stage.forwards:,.0f}" if stage.forwards else "",
                "",
            )
            for stage in self.stages
            if stage.images
        ]

    def idle(self) -> dict[str, list[str]]:
        """Returns the names of the stages that attacked no image, by the reason."""
        names: dict[str, list[str]] = {}
        for stage in self.stages:
            if not stage.images:
                names.setdefault(stage.skipped or "no image stood", []).append(stage.name)
        return names

    def as_json(self) -> dict[str, Any]:
        """Returns the verdict in a form that JSON holds."""
        low, high = self.interval
        return {
            "suite": self.suite,
            "epsilon": self.epsilon,
            "norm": self.norm,
            "images": self.images,
            "clean": self.clean.value,
            "accuracy": self.accuracy.value,
            "interval": [low, high],
            "stages": [asdict(stage) for stage in self.stages],
            "probe": self.probe.as_json(),
        }

    def __str__(self) -> str:
        return "\n\n".join(filter(None, (self.sentence, self.larger_budgets, self.table())))


def shown_epsilon(epsilon: float) -> str:
    """Returns a budget as people write it: 8/255 where it is so many steps of 8 bits."""
    steps = epsilon * 255
    return f"{steps:.0f}/255" if abs(steps - round(steps)) < 1e-6 and 0 < epsilon < 1 else f"{epsilon:g}"


def stage_results(results: Results, name: str) -> list[StageResult]:
    """Counts what each stage did, from records and from what is kept beside the images where it is still there."""
    details = results.details(name)
    rows = []
    for number, count in enumerate(stage_counts(results.attack(name), results.records[name])):
        worked = 0 if count.skipped else count.entered
        gradients, forwards = (
            float(details[kind][:, number].sum()) / max(worked, 1) if kind in details else 0.0
            for kind in ("gradients", "forwards")
        )
        left = count.entered - count.fooled
        rows.append(StageResult(count.name, worked, count.fooled, left, gradients, forwards, count.skipped))
    return rows


@dataclass(frozen=True, eq=False)
class Part:
    """One attack of several evaluations.

    Attributes:
        evaluation: The name of the evaluation's folder.
        attack: The attack's name.
        accuracy: The accuracy under this attack alone.
        fooled: Images that the attacks together fool, and of which this attack is the worst.
        gradients: The most gradient passes that an image took.
    """

    evaluation: str
    attack: str
    accuracy: Accuracy
    fooled: int
    gradients: int


@dataclass(frozen=True, eq=False)
class MergedVerdict:
    """What the attacks of several evaluations with one budget leave together: the worst of each image.

    Attributes:
        model, data: Their names.
        budget: The budget of the attacks.
        clean: Accuracy on clean images.
        accuracy: Accuracy under the worst attack on each image, which selection draws choose.
        parts: The attacks.
    """

    model: str
    data: str
    budget: Budget
    clean: Accuracy
    accuracy: Accuracy
    parts: Sequence[Part]

    @property
    def sentence(self) -> str:
        """The verdict in one sentence."""
        low, high = self.accuracy.interval()
        return (
            f"{self.model} keeps {self.accuracy.value:.1%} (95% interval {low:.1%} to {high:.1%}) of "
            f"{self.accuracy.images:,} images under the worst of {len(self.parts)} attacks, {self.budget.norm} "
            f"perturbations of {shown_epsilon(self.budget.epsilon)}; clean it has {self.clean.value:.1%}."
        )

    def table(self) -> str:
        """Returns the attacks as a Markdown table."""
        rows = [
            (
                part.evaluation,
                part.attack,
                f"{part.accuracy.value:.1%}",
                f"{part.fooled:,}",
                f"{part.gradients:,}" if part.gradients else "",
            )
            for part in self.parts
        ]
        return table(PART_COLUMNS, rows, text_columns=2)

    def as_json(self) -> dict[str, Any]:
        """Returns the verdict in a form that JSON holds."""
        parts = [
            asdict(part) | {"accuracy": part.accuracy.value, "images": part.accuracy.images} for part in self.parts
        ]
        return {
            "model": self.model,
            "data": self.data,
            "norm": self.budget.norm,
            "epsilon": self.budget.epsilon,
            "images": self.accuracy.images,
            "clean": self.clean.value,
            "accuracy": self.accuracy.value,
            "interval": list(self.accuracy.interval()),
            "parts": parts,
        }

    def __str__(self) -> str:
        return f"{self.sentence}\n\n{self.table()}"


# What must be equal in evaluations that are merged: on equal draws their margins can be compared.
SHARED = {"model": "model", "data": "set of images", "scoring": "set of scoring draws"}


def merge_evaluations(folders: Iterable[str | Path]) -> list[MergedVerdict]:
    """Returns the verdict of all attacks of several evaluations of one model, one verdict for each budget.

    Args:
        folders: The folders of finished evaluations.

    Raises:
        FileNotFoundError: A folder holds no finished evaluation.
        ValueError: Two evaluations differ in the model, the images or the scoring draws, there is no folder, or no
            attack has a budget.
    """
    paths = [Path(folder) for folder in folders]
    if not paths:
        raise ValueError("folders is empty, expected at least one evaluation")
    evaluations = {str(path): load_evaluation(path) for path in paths}
    require_equal(evaluations)
    groups: dict[Budget, dict[tuple[str, str], list[Record]]] = {}
    for folder, results in evaluations.items():
        for name, records in results.records.items():
            budget = Threat.of(name, results.attack(name)).budget
            if budget is not None:
                groups.setdefault(budget, {})[folder, name] = records
    if not groups:
        raise ValueError(f"{', '.join(evaluations)}: no attack has a budget, expected at least one attack")
    first = next(iter(evaluations.values()))
    return [merged_verdict(first, budget, attacks) for budget, attacks in groups.items()]


def require_equal(evaluations: Mapping[str, Results]) -> None:
    """Raises ValueError where two evaluations are of other models, images or scoring draws."""
    (first, expected), *others = ((folder, results.manifest["identity"]) for folder, results in evaluations.items())
    for folder, identity in others:
        for key, title in SHARED.items():
            if identity[key] != expected[key]:
                raise ValueError(
                    f"{folder} has another {title} than {first}, expected one {title} in evaluations that are merged"
                )


def merged_verdict(first: Results, budget: Budget, attacks: Mapping[tuple[str, str], list[Record]]) -> MergedVerdict:
    """Returns the verdict of these attacks, by folder and name; the clean image lies in every ball and counts too."""
    clean = first.records[CLEAN]
    named = {"/".join(key): records for key, records in attacks.items()}
    worst = worst_case({CLEAN: clean} | named)
    fooled = {id(record) for record in worst if record.vote != record.label}
    parts = [
        Part(
            Path(folder).name,
            attack,
            vote_accuracy(records),
            sum(id(record) in fooled for record in records),
            max(record.gradients for record in records),
        )
        for (folder, attack), records in attacks.items()
    ]
    data = first.manifest["identity"]["data"]["name"]
    return MergedVerdict(first.model, data, budget, vote_accuracy(clean), vote_accuracy(worst), parts)
