"""Our attacks beside those of foolbox and torchattacks: ``python -m results.crosscheck --help``.

It may be stopped at any moment, and goes on when it is started again.
"""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import foolbox
import torch
import torchattacks
import typer
from torch import Tensor, nn

from neuroae.cli.options import Limit
from neuroae.data import ImageSet, load_dataset
from neuroae.evaluation import Accuracy
from neuroae.utils.files import replacing, save_json
from neuroae.utils.markdown import table
from results.command import run
from results.kept import Kept
from results.libraries import EPSILON, SEED, STEP_SIZE, Craft, comparisons
from results.provenance import in_words, provenance, unchanging
from results.weights import classifier_of, described

BLOCK = 50
COLUMNS = ("attack", "library", "accuracy", "95% interval", "verdicts equal to ours", "l-infinity x 255", "seconds")
PAGE = """# Our attacks beside foolbox and torchattacks

{table}

The model is {model}, a ResNet-32 adversarially trained with PGD; the images are the first {images:,} of {name}.
Epsilon is 8/255 and the step 1/225. PGD starts at the image. APGD starts at a random point, each library at its own,
since that of torchattacks always does. A verdict is whether the model, in float32, still answers rightly; the column
beside the seconds is the largest perturbation, measured in double precision. The seconds say what to expect, and are
no comparison: other work may have run beside some of the rows.

foolbox has no margin loss, and that of torchattacks is cut off at 0. Both were given one: foolbox's `LinfPGD` by
overriding `get_loss_fn`, which its source invites to; torchattacks' `UPGD` by its argument `loss`, which takes a
function, with `decay=0`, which makes it PGD.

Made by `python -m results.crosscheck --data-dir DIR --weights FILE`; `results.json` holds the numbers in full and the
versions.

{made}
"""


@dataclass(frozen=True)
class Row:
    """One attack of one library.

    Attributes:
        attack, library: names.
        correct, images: verdicts.
        accuracy, low, high: in [0, 1]; the ends are of the Clopper-Pearson 95% interval.
        equal: share of the verdicts that are the same as ours; None for ours.
        largest: l-infinity norm of the largest perturbation.
        seconds: wall time.
    """

    attack: str
    library: str
    correct: int
    images: int
    accuracy: float
    low: float
    high: float
    equal: float | None
    largest: float
    seconds: float

    @classmethod
    def of(cls, attack: str, library: str, right: Tensor, equal: float | None, size: float, seconds: float) -> "Row":
        """``right`` are the verdicts, (N,) bool."""
        accuracy = Accuracy(int(right.sum()), len(right))
        interval = accuracy.interval()
        return cls(attack, library, accuracy.correct, len(right), accuracy.value, *interval, equal, size, seconds)

    def cells(self) -> tuple[str, ...]:
        return (
            self.attack,
            self.library,
            f"{self.accuracy:.1%}",
            f"{self.low:.1%} to {self.high:.1%}",
            "" if self.equal is None else f"{self.equal:.1%}",
            f"{255 * self.largest:.5f}",
            f"{self.seconds:.0f}",
        )


def perturbed(
    kept: Kept, title: str, model: nn.Module, data: ImageSet, craft: Craft, block: int = BLOCK
) -> tuple[Tensor, float]:
    """The images as the attack leaves them, and the seconds that it took."""
    before = kept.seconds
    images = kept.images(title, data, lambda part: craft(model, part.pixels(), part.labels, part.ids), block)
    return images, kept.seconds - before


@torch.no_grad()
def verdicts(model: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
    """(N,) bool: which images are still answered rightly."""
    return torch.cat([model(part) for part in images.split(BLOCK)]).argmax(-1) == labels


def compare(kept: Kept, model: nn.Module, data: ImageSet) -> Iterator[Row]:
    """A row for each attack of each library."""
    for attack, libraries in comparisons().items():
        ours: Tensor | None = None
        for library, craft in libraries.items():
            images, seconds = perturbed(kept, f"{attack}, {library}", model, data, craft)
            right = verdicts(model, images, data.labels)
            equal = None if ours is None else float((right == ours).double().mean())
            ours = right if ours is None else ours
            yield Row.of(attack, library, right, equal, largest(images, data), seconds)


def largest(images: Tensor, data: ImageSet) -> float:
    return float((images.double() - data.pixels().double()).abs().max())


def main(
    data_dir: Annotated[Path, typer.Option(help="Where CIFAR-10 lies.")],
    weights: Annotated[Path, typer.Option(help="State of an adversarially trained ResNet-32, as safetensors.")],
    limit: Limit = None,
    work: Annotated[Path, typer.Option(help="Folder for what is kept while it runs.")] = Path("runs/crosscheck"),
    output: Annotated[Path, typer.Option(help="Folder for the numbers.")] = Path("results/crosscheck"),
) -> None:
    """Attack an adversarially trained ResNet-32 on CIFAR-10 test images with three libraries."""
    data = load_dataset("cifar10", "test", data_dir).take(slice(limit))
    model = classifier_of(weights).requires_grad_(False)
    asked = {
        "weights": described(weights),
        "libraries": {"foolbox": foolbox.__version__, "torchattacks": torchattacks.__version__},
        "attack": {"epsilon": EPSILON, "step_size": STEP_SIZE, "seed": SEED},
    }
    made = provenance(weights.stem, model, data)
    kept = Kept(work, asked | unchanging(made))
    rows = []
    for each in compare(kept, model, data):
        rows.append(each)
        typer.echo("; ".join(filter(None, each.cells())), err=True)
    save_json(output / "results.json", made | asked | {"rows": [asdict(each) for each in rows]})
    shown = table(COLUMNS, (each.cells() for each in rows), text_columns=2)
    page = PAGE.format(table=shown, model=weights.stem, images=len(data), name=data.name, made=in_words(made))
    with replacing(output / "README.md") as temporary:
        temporary.write_text(page, encoding="utf-8")
    print(shown)


if __name__ == "__main__":
    run(main)
