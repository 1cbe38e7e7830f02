"""The worst case of adversarially trained classifiers (paper, Table 3): the same attack from many starting points.

The first start is at the image. Only images that it does not fool get the other starts, at random points. The command
may be stopped at any moment, and continues when it is started again.
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Annotated, Literal

import torch
import typer
from torch import Tensor, nn

from neuroae.attacks import PGDSettings, pgd
from neuroae.data import ImageSet
from neuroae.evaluation import Accuracy
from neuroae.training.adversarial import AdversarialMethod
from neuroae.utils.markdown import table
from results.inputs import cifar10_test, file_digest, load_classifier
from results.options import OUTPUT, WORK, DataDir, Limit, Output, Weights, Work
from results.outputs import SavedImages, drop_commit, interval_cell, provenance, provenance_line, write_results

STEPS = 100
SEED = 0
BLOCK = 50
ROWS_AT_ONCE = 256  # images times restarts in a batch
# The paper's worst cases by the training of the classifier.
PAPER = {"pgd-at": 0.4205, "r-fgsm-at": 0.4242, "trades": 0.4579}
Loss = Literal["margin", "cross-entropy"]
COLUMNS = ("from", "accuracy", "95% interval", "l-infinity x 255", "seconds")
NOTE = """\
PGD with the {loss} loss and {steps} steps on {model} and the first {images:,} images of {data}, epsilon 8/255, step
1/225. The first start is at the image; the images that it does not fool get the others, from random points. The
paper reports {paper:.2%} as the worst case with 50 restarts on all 10,000 images (Table 3).

Made by `python -m results worst_case --data-dir DIR --weights FILE{options}`; `results.json` holds the numbers in
full and the versions."""


def worst_case(
    data_dir: DataDir,
    weights: Weights,
    limit: Limit = None,
    restarts: Annotated[int, typer.Option(min=1, help="Starts of each image, the one at the image included.")] = 50,
    method: Annotated[AdversarialMethod, typer.Option(help="How the classifier was trained.")] = "pgd-at",
    loss: Annotated[Loss, typer.Option(help="The loss that the attack raises.")] = "margin",
    work: Work = WORK,
    output: Output = OUTPUT,
) -> None:
    """Table 3: the worst case of 50 starting points."""
    data = cifar10_test(data_dir, limit)
    model = load_classifier(weights).requires_grad_(False)
    settings = pgd_settings(restarts, loss)
    name, options = "worst_case", ""
    if (method, loss) != ("pgd-at", "margin"):
        name, options = f"worst_case-{method}-{loss}", f" --method {method} --loss {loss}"
    attack = {
        "weights": file_digest(weights),
        "attack": {name: getattr(settings, name) for name in ("epsilon", "step_size", "steps", "restarts")}
        | {"seed": SEED},
    }
    origin = provenance(weights.stem, model, data)
    saved = SavedImages(work / name, attack | drop_commit(origin))
    rows = attack_from_starts(saved, model, data, restarts, loss)
    note = NOTE.format(
        loss=loss,
        steps=STEPS,
        model=weights.stem,
        images=len(data),
        data=data.name,
        paper=PAPER[method],
        options=options,
    )
    write_results(
        output / name,
        "The worst case of an adversarially trained ResNet-32",
        [table(COLUMNS, [row.cells() for row in rows]), note, provenance_line(origin)],
        origin | attack | {"rows": [asdict(row) for row in rows]},
    )


@dataclass(frozen=True)
class Row:
    """The accuracy that a number of starts leaves.

    Attributes:
        attack: The number of starts, as text for tables.
        correct, images: The number of images still classified correctly, and of all images.
        accuracy, low, high: In [0, 1]; the ends are of the Clopper-Pearson 95% interval.
        largest: The l-infinity norm of the largest perturbation.
        seconds: The time that crafting took.
    """

    attack: str
    correct: int
    images: int
    accuracy: float
    low: float
    high: float
    largest: float
    seconds: float

    def cells(self) -> tuple[str, ...]:
        interval = interval_cell(self.low, self.high)
        return self.attack, f"{self.accuracy:.1%}", interval, f"{255 * self.largest:.5f}", f"{self.seconds:.0f}"


def attack_from_starts(
    saved: SavedImages, model: nn.Module, data: ImageSet, restarts: int, loss: Loss = "margin"
) -> list[Row]:
    """Returns a row for one start at the image, and one for all of them.

    Args:
        saved: The folder of the attacked images.
        model: The attacked classifier, in evaluation mode.
        data: The clean images.
        restarts: The number of starts.
        loss: The loss that the attack raises.
    """
    images = saved.images("the first start", data, crafting(model, pgd_settings(1, loss)), BLOCK)
    is_right = verdicts(model, images, data.labels)
    rows = [make_row("1 start", is_right, images, data, saved.seconds)]
    if restarts > 1:
        unfooled = is_right.nonzero().flatten()
        if len(unfooled):
            others = crafting(model, pgd_settings(restarts - 1, loss, random_start=True))
            block = max(ROWS_AT_ONCE // (restarts - 1), 1)
            images[unfooled] = saved.images("the others", data.take(unfooled), others, block)
        is_right = verdicts(model, images, data.labels)
        rows.append(make_row(f"{restarts} starts", is_right, images, data, saved.seconds))
    return rows


def pgd_settings(restarts: int, loss: Loss, random_start: bool = False) -> PGDSettings:
    return PGDSettings(steps=STEPS, restarts=restarts, realizations=1, loss=loss, random_start=random_start)


def crafting(model: nn.Module, settings: PGDSettings) -> Callable[[ImageSet], Tensor]:
    """Returns a function from clean images to attacked ones."""
    return lambda part: pgd(model, part.pixels(), part.labels, settings, seed=SEED, image_ids=part.ids).images


@torch.no_grad()
def verdicts(model: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
    """Returns whether each image is classified correctly, (N,) bool."""
    return torch.cat([model(part) for part in images.split(BLOCK)]).argmax(-1) == labels


def make_row(attack: str, is_right: Tensor, images: Tensor, data: ImageSet, seconds: float) -> Row:
    accuracy = Accuracy(int(is_right.sum()), len(is_right))
    largest = float((images.double() - data.pixels().double()).abs().max())
    return Row(attack, accuracy.correct, accuracy.images, accuracy.value, *accuracy.interval(), largest, seconds)
