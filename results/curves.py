"""Accuracy against epsilon, steps and realizations: the selection beside the paper's attacks, in one picture.

It reads the evaluations ``curve-epsilon``, ``curve-steps`` and ``curve-realizations``, all on the same images.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from neuroae.evaluation import CLEAN, Record, load_evaluation
from neuroae.evaluation.statistics import vote_accuracy
from neuroae.utils.markdown import table
from results.inputs import attack_names
from results.options import OUTPUT, Output
from results.outputs import accuracy_numbers, interval_cell, save_figure, write_results

LINES = {
    "selection": "selection (white-box)",
    "W-NFGA smooth": "W-NFGA smooth (white-box)",
    "W-AIGA from unquantized": "W-AIGA from unquantized (PW-T)",
}
AXES = {"epsilon": "epsilon / 255", "steps": "steps N_S", "realizations": "realizations N_E"}
# The attacks of a curve are named LINE, MARK, VALUE.
MARKS = {"epsilon": ", epsilon ", "steps": ", N_S ", "realizations": ", N_E "}
NOTE = """\
![Accuracy against epsilon, steps and realizations](curves.png)

Votes of 10 draws that no attack saw, on the first {images} test images; bars and intervals are Clopper-Pearson's. The
selection is a white-box attack through the encoder's top T. W-NFGA smooth is the paper's white-box attack, with
gradients through the surviving coefficients; PW-T is its transfer from a defense with an unsupervised decoder, here by
W-AIGA, which takes the autoencoder for the identity. The selection takes 20 steps of 2 realizations unless the axis
says otherwise, with the margin loss and momentum; the paper's attacks take 20 steps of 10, with cross-entropy. The
curve over steps is one run of each attack, with 200 steps of 2 realizations, seen along the way. Step sizes grow and
shrink with epsilon.

Made by `python -m results curves` from the evaluations `curve-epsilon`, `curve-steps` and `curve-realizations`."""

Points = dict[float, list[Record]]


def curves(output: Output = OUTPUT) -> None:
    """Accuracy against epsilon, steps and realizations."""
    rows = [
        row(axis, line, value, records)
        for axis, lines in all_points(output).items()
        for line, values in lines.items()
        for value, records in values.items()
    ]
    text = table(("against", "value", "attack", "accuracy", "95% interval"), map(cells, rows), text_columns=3)
    folder = output / "curves"
    save_figure(folder / "curves.png", picture(rows))
    note = NOTE.format(images=rows[0]["images"])
    write_results(folder, "Accuracy against epsilon, steps and realizations", [text, note], {"rows": rows})


def points(folder: Path, axis: str) -> dict[str, Points]:
    """Returns an evaluation's records by line and value."""
    lines: dict[str, Points] = {line: {} for line in LINES}
    results = load_evaluation(folder)
    for name in attack_names(results):
        line, _, value = name.partition(MARKS[axis])
        lines[line][float(value.removesuffix("/255"))] = results.records[name]
    return lines


def all_points(folder: Path) -> dict[str, dict[str, Points]]:
    """Returns records by axis, line and value, with the clean images at 0 steps and at epsilon 0."""
    axes = {axis: points(folder / f"curve-{axis}", axis) for axis in AXES}
    clean = load_evaluation(folder / "curve-epsilon").records[CLEAN]
    for line in LINES:
        axes["epsilon"][line][0.0] = axes["steps"][line][0.0] = clean
    return {axis: {line: dict(sorted(each.items())) for line, each in lines.items()} for axis, lines in axes.items()}


def row(axis: str, line: str, value: float, records: Sequence[Record]) -> dict[str, Any]:
    """Returns the numbers of one point for JSON."""
    accuracy = vote_accuracy(records)
    return {"axis": axis, "attack": line, "value": value} | accuracy_numbers(accuracy) | {"images": accuracy.images}


def cells(row: Mapping[str, Any]) -> tuple[str, ...]:
    interval = interval_cell(row["low"], row["high"])
    return row["axis"], f"{row['value']:g}", row["attack"], f"{row['accuracy']:.1%}", interval


def picture(rows: Sequence[Mapping[str, Any]]) -> Figure:
    """Draws an axis for each setting, with a line for each attack."""
    figure = Figure(figsize=(11, 3.6), layout="constrained")
    for axes, (axis, label) in zip(figure.subplots(1, 3, sharey=True), AXES.items(), strict=True):
        for line, title in LINES.items():
            points = [row for row in rows if (row["axis"], row["attack"]) == (axis, line)]
            values, middle = ([row[key] for row in points] for key in ("value", "accuracy"))
            lower_bars = [row["accuracy"] - row["low"] for row in points]
            upper_bars = [row["high"] - row["accuracy"] for row in points]
            axes.errorbar(
                values, middle, yerr=[lower_bars, upper_bars], marker="o", markersize=3, capsize=2, label=title
            )
        axes.set_xlabel(label)
        axes.set_xscale("symlog" if axis == "steps" else "linear")
        axes.set_ylim(0, 1)
        axes.grid(alpha=0.3)
    figure.axes[0].set_ylabel("accuracy")
    figure.axes[0].legend(fontsize="small")
    return figure
