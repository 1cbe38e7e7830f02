"""Accuracy against epsilon, steps and realizations: the selection beside the paper's attacks, in one picture.

    python -m results.curves

reads the evaluations ``curve-epsilon``, ``curve-steps`` and ``curve-realizations``, and for 40 realizations
``selection-more`` and ``table1``, all on the images that the curves have.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from matplotlib.figure import Figure

from neuroae.evaluation import CLEAN, Record, load_evaluation
from neuroae.evaluation.statistics import vote_accuracy
from neuroae.utils.files import replacing, save_json
from neuroae.utils.markdown import table
from results.command import run
from results.page import write_page

LINES = {
    "selection": "selection (white-box)",
    "W-NFGA smooth": "W-NFGA smooth (white-box)",
    "W-AIGA from unquantized": "W-AIGA from unquantized (PW-T)",
}
AXES = {"epsilon": "epsilon / 255", "steps": "steps N_S", "realizations": "realizations N_E"}
MARKS = {"epsilon": ", epsilon ", "steps": ", N_S ", "realizations": ", N_E "}
# With 40 realizations the attacks were evaluated on more images: the names there, by line.
AT_40 = {
    "selection": ("selection-more", "selection, N_E 40"),
    "W-NFGA smooth": ("table1", "W-NFGA smooth"),
    "W-AIGA from unquantized": ("table1", "W-AIGA from unquantized"),
}
NOTE = """\
![Accuracy against epsilon, steps and realizations](curves.png)

Votes of 10 draws that no attack saw, on the first {images} test images; bars and intervals are Clopper-Pearson's. The
selection takes 20 steps of 2 realizations unless the axis says otherwise, with the margin loss and momentum; the
paper's attacks take 20 steps of 10, with cross-entropy. Steps are those of one run each, of 200 steps of 2
realizations, seen along the way. Step sizes grow and shrink with epsilon.

Made by `python -m results.curves` of `results.robustness curve-epsilon`, `curve-steps` and `curve-realizations`."""

Points = dict[float, list[Record]]


def points(folder: Path, axis: str) -> dict[str, Points]:
    """Records by line and value of an evaluation whose attacks are named LINE, MARK VALUE; clean images under ""."""
    curves: dict[str, Points] = {line: {} for line in LINES}
    for name, records in load_evaluation(folder).records.items():
        line, _, value = name.partition(MARKS[axis])
        if name != CLEAN:
            curves[line][float(value.removesuffix("/255"))] = records
    return curves


def all_points(work: Path) -> dict[str, dict[str, Points]]:
    """By axis and line, all on the images of the curves."""
    curves = {axis: points(work / f"curve-{axis}", axis) for axis in AXES}
    clean = load_evaluation(work / "curve-epsilon").records[CLEAN]
    images = {record.image for record in clean}
    for line, (folder, name) in AT_40.items():
        curves["epsilon"][line][0.0] = clean
        curves["steps"][line][0.0] = clean
        records = load_evaluation(work / folder).records[name]
        curves["realizations"][line][40.0] = [record for record in records if record.image in images]
    return {axis: {line: dict(sorted(own.items())) for line, own in lines.items()} for axis, lines in curves.items()}


def row(axis: str, line: str, value: float, records: Sequence[Record]) -> dict[str, Any]:
    accuracy = vote_accuracy(records)
    low, high = accuracy.interval()
    measured = {"accuracy": accuracy.value, "low": low, "high": high, "images": accuracy.images}
    return {"axis": axis, "attack": line, "value": value} | measured


def cells(row: Mapping[str, Any]) -> tuple[str, ...]:
    interval = f"{row['low']:.1%} to {row['high']:.1%}"
    return row["axis"], f"{row['value']:g}", row["attack"], f"{row['accuracy']:.1%}", interval


def draw(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    figure = Figure(figsize=(11, 3.6), layout="constrained")
    for axes, (axis, label) in zip(figure.subplots(1, 3, sharey=True), AXES.items(), strict=True):
        for line, title in LINES.items():
            mine = [one for one in rows if (one["axis"], one["attack"]) == (axis, line)]
            values = [one["value"] for one in mine]
            middle = [one["accuracy"] for one in mine]
            ends = [[one["accuracy"] - one["low"] for one in mine], [one["high"] - one["accuracy"] for one in mine]]
            axes.errorbar(values, middle, yerr=ends, marker="o", markersize=3, capsize=2, label=title)
        axes.set_xlabel(label)
        axes.set_xscale("symlog" if axis == "steps" else "linear")
        axes.set_ylim(0, 1)
        axes.grid(alpha=0.3)
    figure.axes[0].set_ylabel("accuracy")
    figure.axes[0].legend(fontsize="small")
    with replacing(path) as temporary:
        figure.savefig(temporary, dpi=130)


def main(
    work: Annotated[Path, typer.Option(help="Folder with the evaluations' folders.")] = Path("results"),
    output: Annotated[Path, typer.Option(help="Folder for the numbers and the picture.")] = Path("results/curves"),
) -> None:
    """Draw the curves of the finished evaluations."""
    rows = [
        row(axis, line, value, records)
        for axis, lines in all_points(work).items()
        for line, values in lines.items()
        for value, records in values.items()
    ]
    save_json(output / "results.json", {"rows": rows})
    text = table(("against", "value", "attack", "accuracy", "95% interval"), map(cells, rows), text_columns=3)
    draw(output / "curves.png", rows)
    note = NOTE.format(images=rows[0]["images"])
    write_page(output, "Accuracy against epsilon, steps and realizations", [note, text])
    print(text)


if __name__ == "__main__":
    run(main)
