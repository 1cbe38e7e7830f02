"""What many restarts leave of an adversarially trained classifier: ``python -m results.worst_case --help``.

The paper's worst case for it (Table 3). It may be stopped at any moment, and goes on when it is started again.
"""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from torch import nn

from neuroae.cli.options import Limit
from neuroae.data import ImageSet, load_dataset
from neuroae.utils.files import replacing, save_json
from neuroae.utils.markdown import table
from results.command import run
from results.crosscheck import Row, largest, perturbed, verdicts
from results.kept import Kept
from results.libraries import EPSILON, OURS, SEED, STEP_SIZE, with_ours
from results.provenance import in_words, provenance, unchanging
from results.weights import classifier_of, described

STEPS = 100
BLOCK = 50
ROWS_AT_ONCE = 256
PAPER = 0.4205
COLUMNS = ("from", "accuracy", "95% interval", "l-infinity x 255", "seconds")
PAGE = """# The worst case of an adversarially trained ResNet-32

{table}

PGD with the margin loss and {steps} steps on {model} and the first {images:,} images of {name}, epsilon 8/255, step
1/225. The first start is at the image; the images that it does not fool get the others, from random points. The
paper reports {paper:.2%} with 50 restarts on all 10,000 images (Table 3).

Made by `python -m results.worst_case --data-dir DIR --weights FILE`; `results.json` holds the numbers in full and the
versions.

{made}
"""


def rows(kept: Kept, model: nn.Module, data: ImageSet, restarts: int) -> list[Row]:
    """What one start at the image leaves, and what all restarts do."""
    images, seconds = perturbed(kept, "the first start", model, data, with_ours("margin", STEPS), BLOCK)
    right = verdicts(model, images, data.labels)
    found = [Row.of("1 start", OURS, right, None, largest(images, data), seconds)]
    standing = right.nonzero().flatten()
    if restarts > 1:
        if len(standing):
            others = with_ours("margin", STEPS, restarts - 1, random_start=True)
            block = max(ROWS_AT_ONCE // (restarts - 1), 1)
            images[standing], more = perturbed(kept, "the others", model, data.take(standing), others, block)
            seconds += more
        right = verdicts(model, images, data.labels)
        found.append(Row.of(f"{restarts} starts", OURS, right, None, largest(images, data), seconds))
    return found


def cells(row: Row) -> tuple[str, ...]:
    attack, _, accuracy, interval, _, size, seconds = row.cells()
    return attack, accuracy, interval, size, seconds


def main(
    data_dir: Annotated[Path, typer.Option(help="Where CIFAR-10 lies.")],
    weights: Annotated[Path, typer.Option(help="State of an adversarially trained ResNet-32, as safetensors.")],
    limit: Limit = None,
    restarts: Annotated[int, typer.Option(min=1, help="Starts of each image, the one at the image among them.")] = 50,
    work: Annotated[Path, typer.Option(help="Folder for what is kept while it runs.")] = Path("runs/worst_case"),
    output: Annotated[Path, typer.Option(help="Folder for the numbers.")] = Path("results/worst_case"),
) -> None:
    """Attack an adversarially trained ResNet-32 on CIFAR-10 test images from many starting points."""
    data = load_dataset("cifar10", "test", data_dir).take(slice(limit))
    model = classifier_of(weights).requires_grad_(False)
    asked = {
        "weights": described(weights),
        "attack": {"epsilon": EPSILON, "step_size": STEP_SIZE, "steps": STEPS, "restarts": restarts, "seed": SEED},
    }
    made = provenance(weights.stem, model, data)
    found = rows(Kept(work, asked | unchanging(made)), model, data, restarts)
    save_json(output / "results.json", made | asked | {"rows": [asdict(row) for row in found]})
    shown = table(COLUMNS, map(cells, found), text_columns=1)
    told = {"model": weights.stem, "images": len(data), "name": data.name, "made": in_words(made)}
    page = PAGE.format(table=shown, steps=STEPS, paper=PAPER, **told)
    with replacing(output / "README.md") as temporary:
        temporary.write_text(page, encoding="utf-8")
    print(shown)


if __name__ == "__main__":
    run(main)
