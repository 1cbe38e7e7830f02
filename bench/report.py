"""The tables printed after a benchmark run."""

from dataclasses import dataclass, field

from bench.measure import Ratio


@dataclass
class Comparison:
    """One line of the first table. ``bound`` and ``aim`` are minimum ratios, maximum ones if ``lower_is_better``."""

    title: str
    milliseconds: float
    ratios: dict[str, Ratio]
    bound: float | None = None
    aim: float | None = None
    lower_is_better: bool = False
    unit: str = "ms/image"

    @property
    def verdict(self) -> str:
        if self.bound is None or self.aim is None:
            return ""
        actual = next(iter(self.ratios.values())).median
        if self.lower_is_better:
            return "aim" if actual <= self.aim else "met" if actual <= self.bound else "MISSED"
        return "aim" if actual >= self.aim else "met" if actual >= self.bound else "MISSED"


@dataclass
class Stage:
    """One line of the second table: operations and bytes for one image, and their time at the machine's rates."""

    name: str
    operations: float
    bytes: float
    rate: str
    milliseconds: float
    floor: float


@dataclass
class Report:
    comparisons: list[Comparison] = field(default_factory=list)
    stages: list[Stage] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def note(self, line: str) -> None:
        """Adds a line below the tables, once."""
        if line not in self.notes:
            self.notes.append(line)

    def lines(self) -> list[str]:
        return [*self.comparison_lines(), *self.stage_lines(), *(["", *self.notes] if self.notes else [])]

    def rows(self) -> list[str]:
        """The lines of the tables without their heads."""
        return [comparison_line(row) for row in self.comparisons] + [stage_line(row) for row in self.stages]

    def comparison_lines(self) -> list[str]:
        if not self.comparisons:
            return []
        head = f"{'comparison':58} {'ours':>16}  {'ratio: median (min-max)':44} {'bound':>6} {'aim':>6}"
        return [head, *map(comparison_line, self.comparisons)]

    def stage_lines(self) -> list[str]:
        if not self.stages:
            return []
        head = f"{'stage (CIFAR-10, batch 64)':40} {'Mop/image':>10} {'MB/image':>9} {'rate':>9}"
        return ["", head + f" {'floor ms':>9} {'ours ms':>9} {'ours/floor':>10}", *map(stage_line, self.stages)]


def comparison_line(row: Comparison) -> str:
    ratios = ", ".join(f"{name} {ratio}" for name, ratio in row.ratios.items())
    sign = "<" if row.lower_is_better else ">"
    bound = f"{sign}{row.bound:g}" if row.bound is not None else ""
    aim = f"{sign}{row.aim:g}" if row.aim is not None else ""
    return f"{row.title:58} {row.milliseconds:7.3f} {row.unit:8}  {ratios:44} {bound:>6} {aim:>6} {row.verdict}"


def stage_line(row: Stage) -> str:
    return (
        f"{row.name:40} {row.operations / 1e6:10.2f} {row.bytes / 1e6:9.3f} {row.rate:>9} {row.floor:9.4f} "
        f"{row.milliseconds:9.4f} {row.milliseconds / row.floor:10.1f}"
    )
