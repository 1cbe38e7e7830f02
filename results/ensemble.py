"""Accuracy against the number of realizations that vote (paper, Figure 6): ``python -m results.ensemble --help``."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, astuple, dataclass
from pathlib import Path
from typing import Annotated, NamedTuple

import torch
import typer
from matplotlib.figure import Figure
from torch import Tensor

from neuroae import Defense, derive_seed
from neuroae.data import ImageSet, load_dataset
from neuroae.evaluation import CLEAN, Accuracy, Results, load_evaluation
from neuroae.evaluation.statistics import mean_over_draws
from neuroae.utils.files import replacing, save_json
from neuroae.utils.markdown import table
from neuroae.utils.progress import progress_bar
from results.command import run
from results.evaluated import evaluated, pictured, require_evaluated
from results.page import write_page
from results.provenance import in_words, provenance

LARGEST = 10
SEED = 0
BLOCK = 64
COLUMNS = ("images are", "E", "accuracy", "95% interval", "images", "gained on E = 1", "lost on E = 1")
NOTE = f"""\
E = 1 is the mean over {LARGEST} draws, with a bootstrap over images; with more, the mean of the softmax outputs of the
first E draws votes, and the interval is Clopper and Pearson's. Gained are images that are right with E and wrong with
one draw, lost the other way round, both in the mean over the draws.

![Accuracy against E](ensemble.png)

Made by `python -m results.ensemble MODEL --data-dir DIR [--evaluation EVALUATION]`; `ensemble.json` holds the numbers
in full."""


@dataclass(frozen=True)
class Point:
    """One E of a curve.

    Attributes:
        ensemble: E; 1 is the mean over all draws.
        images: that were scored.
        accuracy, low, high: in [0, 1]; the ends are of the 95% interval.
        gained, lost: images that are right here and wrong with one draw, and the other way round: means over draws.
    """

    ensemble: int
    images: int
    accuracy: float
    low: float
    high: float
    gained: float
    lost: float


class Predictions(NamedTuple):
    """
    Attributes:
        draws: (largest, N) int64, what each realization says by itself.
        votes: (largest, N) int64; row E - 1 is what the first E realizations say together.
    """

    draws: Tensor
    votes: Tensor


@torch.no_grad()
def ensemble_predictions(
    model: Defense, images: Tensor, ids: Tensor, largest: int = LARGEST, seed: int = SEED, block: int = BLOCK
) -> Predictions:
    """The answers of every ensemble size up to the largest, in one pass over the realizations.

    Args:
        model: in evaluation mode.
        images: (N, C, H, W) float32 in [0, 1], clean or as an attack left them.
        ids: (N,) int64, the images' numbers.
        largest: E of the last row.
        seed: of the masks, which are those that ``neuroae.evaluation.run`` scores with.
        block: images in a batch.

    Returns:
        Row E - 1 of the votes is what an evaluation with ``Scoring(draws=E)`` votes with this seed and block.
    """
    masks = derive_seed(seed, "scoring")
    found = []
    with progress_bar(total=largest * len(images), desc="ensemble", unit="realization") as progress:
        for part, numbers in zip(images.split(block), ids.split(block), strict=True):
            selection = model.encoder.select(part)
            total, draws, votes = torch.zeros(()), [], []
            for realization in range(largest):
                probabilities = model.realize(selection, masks, numbers, realization, 1).float().softmax(-1)
                total = total + probabilities
                draws.append(probabilities.argmax(-1))
                votes.append((total / (realization + 1)).argmax(-1))
                progress.update(len(part))
            found.append(torch.stack([torch.stack(draws), torch.stack(votes)]))
    return Predictions(*torch.cat(found, -1))


def curve(predictions: Predictions, labels: Tensor) -> list[Point]:
    """A point for each ensemble size of ``ensemble_predictions``."""
    alone = mean_over_draws(predictions.draws, labels)
    points = [Point(1, len(labels), alone.value, alone.low, alone.high, 0.0, 0.0)]
    share = (predictions.draws == labels).double().mean(0)
    for ensemble, right in enumerate(predictions.votes[1:] == labels, 2):
        accuracy = Accuracy(int(right.sum()), len(labels))
        gained, lost = float((1 - share)[right].sum()), float(share[~right].sum())
        points.append(Point(ensemble, accuracy.images, accuracy.value, *accuracy.interval(), gained, lost))
    return points


def score(model: Defense, data: ImageSet, images: Tensor) -> list[Point]:
    """The curve of images that are the data's, as they are or perturbed."""
    return curve(ensemble_predictions(model, images, data.ids), data.labels)


def attacked_curves(model: Defense, data: ImageSet, found: Results) -> dict[str, list[Point]]:
    """The curves of the images that each attack of an evaluation left."""
    require_evaluated(found, model)
    data = evaluated(found, data)
    return {name: score(model, data, found.images(name)) for name in found.records if name != CLEAN}


def markdown(curves: Mapping[str, Sequence[Point]]) -> str:
    rows = []
    for name, points in curves.items():
        for point in points:
            ensemble, images, accuracy, low, high, gained, lost = astuple(point)
            changes = (f"{gained:.1f}", f"{lost:.1f}") if ensemble > 1 else ("", "")
            interval = f"{low:.1%} to {high:.1%}"
            rows.append((name, f"{ensemble}", f"{accuracy:.1%}", interval, f"{images:,}", *changes))
    return table(COLUMNS, rows)


def picture(curves: Mapping[str, Sequence[Point]]) -> Figure:
    """Accuracy against E, a line a curve, with the 95% intervals as bands."""
    figure = Figure(figsize=(5.5, 4.6), layout="constrained")
    axis = figure.subplots()
    for name, points in curves.items():
        sizes = [point.ensemble for point in points]
        (drawn,) = axis.plot(sizes, [100 * point.accuracy for point in points], marker="o", label=name)
        low, high = ([100 * value for value in ends] for ends in zip(*((p.low, p.high) for p in points), strict=True))
        axis.fill_between(sizes, low, high, color=drawn.get_color(), alpha=0.2, linewidth=0)
    axis.set_xticks(sizes)
    axis.set_xlabel("E, realizations averaged")
    axis.set_ylabel("accuracy in %, with its 95% interval")
    axis.grid(alpha=0.3)
    figure.legend(loc="outside upper left")
    return figure


def main(
    model: Annotated[str, typer.Argument(help="A shipped defense, or the folder of one.")],
    data_dir: Annotated[Path, typer.Option(help="Where CIFAR-10 lies.")],
    evaluation: Annotated[
        Path | None, typer.Option(help="Folder of a finished evaluation, whose attacked images are scored as well.")
    ] = None,
    output: Annotated[Path, typer.Option(help="Folder for the numbers and the picture.")] = Path("results/ensemble"),
) -> None:
    """Score a defense on CIFAR-10 test images, clean and attacked, for every ensemble size up to 10."""
    data = load_dataset("cifar10", "test", data_dir)
    defense = Defense.from_pretrained(model)
    curves, shown = {CLEAN: score(defense, data, data.pixels())}, [CLEAN]
    if evaluation is not None:
        found = load_evaluation(evaluation)
        curves |= attacked_curves(defense, data, found)
        shown += pictured(found)
    points = {name: [asdict(point) for point in own] for name, own in curves.items()}
    made = provenance(model, defense, data)
    save_json(output / "ensemble.json", made | {"seed": SEED, "block": BLOCK, "curves": points})
    with replacing(output / "ensemble.png") as temporary:
        picture({name: curves[name] for name in shown}).savefig(temporary, dpi=130)
    write_page(output, "Figure 6: accuracy against E", [markdown(curves), NOTE, in_words(made)])
    print(markdown(curves))


if __name__ == "__main__":
    run(main)
