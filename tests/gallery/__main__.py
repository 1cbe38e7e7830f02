"""Judges the whole gallery, and writes the table: ``PYTHONPATH=tests python -m gallery --data-dir DIR``."""

from pathlib import Path
from typing import Annotated

import typer

from gallery.defenses import GALLERY, Broken
from gallery.judge import EPSILONS, Judged, first_images, judge
from neuroae.attacks.stages import EFFORTS
from neuroae.data import ImageSet
from neuroae.evaluation.folder import slug
from neuroae.evaluation.statistics import clopper_pearson
from neuroae.utils.files import load_json, replacing, save_json
from neuroae.utils.markdown import table
from neuroae.utils.versions import versions

COLUMNS = (
    "defense",
    "clean",
    "falls without it",
    "left by quick",
    "left by standard",
    "allowed",
    "fell to",
    "seconds",
)
TITLE = """\
# Broken defenses, judged by the suite

Front ends before the CIFAR-10 classifier that ships (epsilon 8/255), and classifiers of handwritten digits (0.2), all
known to be worth nothing; their parameters stand in `tests/gallery/defenses.py`. "Falls without it" counts the images
that a plain attack, the quick suite, breaks without the defense; what the suites leave is the share of these images
that the defense still classifies correctly, by a vote of 10 draws where it is random. "Fell to" is the stage of
`standard` that took most.
"""


def main(
    data_dir: Annotated[Path, typer.Option(help="Folder with CIFAR-10.")],
    images: Annotated[int, typer.Option(min=1, help="Test images, from the front.")] = 40,
    output: Annotated[Path, typer.Option(help="Folder for the table.")] = Path("results/gallery"),
    work: Annotated[Path, typer.Option(help="Folder for unfinished work.")] = Path("runs/gallery"),
) -> None:
    """Judge every defense of the gallery by both suites."""
    rows, numbers = [], {}
    for name, broken in GALLERY.items():
        data = first_images(broken.dataset, images, data_dir)
        files = (work / f"{slug(name)}-{suite}-{images}.json" for suite in EFFORTS)
        standard, quick = (resumed(file, broken, data, suite) for file, suite in zip(files, EFFORTS, strict=True))
        numbers[name] = {"quick": vars(quick), "standard": vars(standard), "allowed": broken.allowed}
        rows.append(
            (
                name,
                f"{standard.clean:.1%}",
                f"{standard.falling} of {images}",
                f"{quick.share:.1f}%",
                f"{standard.share:.1f}%",
                f"{broken.allowed}%",
                standard.stage,
                f"{standard.seconds:.0f}",
            )
        )
        print(table(COLUMNS, rows[-1:]))
    settings = {"epsilons": EPSILONS, "images": images, "suites": list(EFFORTS), "versions": versions()}
    save_json(output / "results.json", settings | {"defenses": numbers})
    none, one = (" to ".join(f"{end:.1%}" for end in clopper_pearson(left, images)) for left in (0, 1))
    intervals = f"Of {images} images, none left has the 95% interval {none}, and one left {one}."
    command = f"Made by `PYTHONPATH=tests python -m gallery --data-dir DIR --images {images}`."
    with replacing(output / "README.md") as temporary:
        temporary.write_text("\n".join((TITLE, table(COLUMNS, rows), "", intervals, command, "")), encoding="utf-8")


def resumed(path: Path, broken: Broken, data: ImageSet, suite: str) -> Judged:
    """Returns what a run that was stopped found already, or judges the defense and keeps that in the file."""
    if not path.exists():
        save_json(path, vars(judge(broken, data, suite)))
    return Judged(**load_json(path))


if __name__ == "__main__":
    typer.run(main)
