"""Accuracy against the number of realizations that vote (paper, Figure 6)."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, astuple, dataclass
from typing import NamedTuple

import torch
from matplotlib.figure import Figure
from torch import Tensor

from neuroae import Defense, derive_seed
from neuroae.data import ImageSet
from neuroae.evaluation import CLEAN, Accuracy, Results, load_evaluation
from neuroae.evaluation.statistics import mean_over_draws
from neuroae.utils.markdown import table
from neuroae.utils.progress import progress_bar
from results.inputs import attack_names, attacks_to_draw, cifar10_test, evaluated_images, require_evaluated_model
from results.options import OUTPUT, DataDir, Model, OptionalEvaluations, Output
from results.outputs import interval_cell, provenance, provenance_line, save_figure, write_results

LARGEST = 10
SEED = 0
BLOCK = 64
COLUMNS = ("images are", "E", "accuracy", "95% interval", "images", "gained on E = 1", "lost on E = 1")
NOTE = f"""\
E = 1 is the mean over {LARGEST} draws, with a bootstrap over images. With a larger E, the mean of the softmax outputs
of the first E draws votes, and the interval is Clopper and Pearson's. Gained are images that are right with E and
wrong with one draw, and lost are the reverse, both in the mean over the draws.

![Accuracy against E](ensemble.png)

Made by `python -m results ensemble --data-dir DIR [--evaluation FOLDER ...]`; `ensemble.json` holds the numbers in
full."""


def ensemble(
    data_dir: DataDir, model: Model = "cifar10", evaluations: OptionalEvaluations = None, output: Output = OUTPUT
) -> None:
    """Figure 6: accuracy against the ensemble's size."""
    data = cifar10_test(data_dir)
    defense = Defense.from_pretrained(model)
    curves, pictured = {CLEAN: score(defense, data, data.pixels())}, [CLEAN]
    for path in evaluations or []:
        results = load_evaluation(path)
        curves |= attacked_curves(defense, data, results)
        pictured += attacks_to_draw(results)
    points = {name: [asdict(point) for point in curve] for name, curve in curves.items()}
    origin = provenance(model, defense, data)
    folder = output / "ensemble"
    save_figure(folder / "ensemble.png", picture({name: curves[name] for name in dict.fromkeys(pictured)}))
    write_results(
        folder,
        "Figure 6: accuracy against E",
        [markdown(curves), NOTE, provenance_line(origin)],
        origin | {"seed": SEED, "block": BLOCK, "curves": points},
        "ensemble.json",
    )


@dataclass(frozen=True)
class Point:
    """One E of a curve.

    Attributes:
        ensemble: E; 1 is the mean over all draws.
        images: The number of scored images.
        accuracy, low, high: In [0, 1]; the ends are of the 95% interval.
        gained, lost: The numbers of images that are right with E and wrong with one draw, and the reverse; means over
            the draws.
    """

    ensemble: int
    images: int
    accuracy: float
    low: float
    high: float
    gained: float
    lost: float


class Predictions(NamedTuple):
    """The predictions of every ensemble size.

    Attributes:
        draws: (largest, N) int64, the class that each single realization predicts.
        votes: (largest, N) int64; row E - 1 is the class that the first E realizations predict together.
    """

    draws: Tensor
    votes: Tensor


@torch.no_grad()
def ensemble_predictions(
    model: Defense, images: Tensor, ids: Tensor, largest: int = LARGEST, seed: int = SEED, block: int = BLOCK
) -> Predictions:
    """Returns the predictions of every ensemble size up to the largest, from one pass over the realizations.

    With the same seed and block, row E - 1 of the votes is what an evaluation with E scoring draws predicts.

    Args:
        model: The defense, in evaluation mode.
        images: (N, C, H, W) float32 in [0, 1], clean or attacked.
        ids: (N,) int64, the images' ids.
        largest: E of the last row.
        seed: The seed of the masks.
        block: Images in a batch.
    """
    masks = derive_seed(seed, "scoring")
    blocks = []
    with progress_bar(total=largest * len(images), desc="ensemble", unit="realization") as progress:
        for part, part_ids in zip(images.split(block), ids.split(block), strict=True):
            selection = model.encoder.select(part)
            total, draws, votes = torch.zeros(()), [], []
            for realization in range(largest):
                probabilities = model.realize(selection, masks, part_ids, realization, 1).float().softmax(-1)
                total = total + probabilities
                draws.append(probabilities.argmax(-1))
                votes.append((total / (realization + 1)).argmax(-1))
                progress.update(len(part))
            blocks.append(torch.stack([torch.stack(draws), torch.stack(votes)]))
    return Predictions(*torch.cat(blocks, -1))


def curve(predictions: Predictions, labels: Tensor) -> list[Point]:
    """Returns a point for each ensemble size of ``ensemble_predictions``."""
    alone = mean_over_draws(predictions.draws, labels)
    points = [Point(1, len(labels), alone.value, alone.low, alone.high, 0.0, 0.0)]
    share = (predictions.draws == labels).double().mean(0)
    for size, is_right in enumerate(predictions.votes[1:] == labels, 2):
        accuracy = Accuracy(int(is_right.sum()), len(labels))
        gained, lost = float((1 - share)[is_right].sum()), float(share[~is_right].sum())
        points.append(Point(size, accuracy.images, accuracy.value, *accuracy.interval(), gained, lost))
    return points


def score(model: Defense, data: ImageSet, images: Tensor) -> list[Point]:
    """Returns the curve of the data's images, clean or perturbed."""
    return curve(ensemble_predictions(model, images, data.ids), data.labels)


def attacked_curves(model: Defense, data: ImageSet, results: Results) -> dict[str, list[Point]]:
    """Returns the curve of each attack of an evaluation."""
    require_evaluated_model(results, model)
    data = evaluated_images(results, data)
    return {name: score(model, data, results.images(name)) for name in attack_names(results)}


def markdown(curves: Mapping[str, Sequence[Point]]) -> str:
    rows = []
    for name, points in curves.items():
        for point in points:
            size, images, accuracy, low, high, gained, lost = astuple(point)
            changes = (f"{gained:.1f}", f"{lost:.1f}") if size > 1 else ("", "")
            rows.append((name, f"{size}", f"{accuracy:.1%}", interval_cell(low, high), f"{images:,}", *changes))
    return table(COLUMNS, rows)


def picture(curves: Mapping[str, Sequence[Point]]) -> Figure:
    """Draws accuracy against E, a line for each curve, with the 95% intervals as bands."""
    figure = Figure(figsize=(5.5, 4.6), layout="constrained")
    axis = figure.subplots()
    for name, points in curves.items():
        sizes = [point.ensemble for point in points]
        (line,) = axis.plot(sizes, [100 * point.accuracy for point in points], marker="o", label=name)
        low, high = ([100 * value for value in ends] for ends in zip(*((p.low, p.high) for p in points), strict=True))
        axis.fill_between(sizes, low, high, color=line.get_color(), alpha=0.2, linewidth=0)
    axis.set_xticks(sizes)
    axis.set_xlabel("E, realizations averaged")
    axis.set_ylabel("accuracy in %, with its 95% interval")
    axis.grid(alpha=0.3)
    figure.legend(loc="outside upper left")
    return figure
