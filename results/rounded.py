"""Attacked images as files of 8 bits hold them: ``python -m results.rounded EVALUATION --data-dir DIR``.

Attacks work on float32 pixels, and saving their images rounds each to one of 256 levels. Here the images of a finished
evaluation are rounded and scored again on the draws that scored them, so that what changes is the rounding's doing.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer
from torch import Tensor, nn

from neuroae.attacks import round_to_8_bits
from neuroae.data import ImageSet, load_dataset
from neuroae.evaluation import CLEAN, Accuracy, Results, Scoring, load_evaluation
from neuroae.evaluation.block import sizes
from neuroae.evaluation.scoring import Block, answers
from neuroae.evaluation.statistics import vote_accuracy
from neuroae.markdown import table
from neuroae.pretrained import load_pretrained
from neuroae.progress import progress_bar
from neuroae.storage import replacing, save_json
from results.command import run
from results.evaluated import evaluated
from results.provenance import provenance

COLUMNS = ("attack", "float32", "8 bits", "95% interval", "images", "fooled no more", "newly fooled", "largest linf")


@dataclass(frozen=True)
class Rounded:
    """One attack's images before and after rounding.

    Attributes:
        before, after: votes of E draws, the same draws.
        recovered, lost: images that only the float32 pixels fool, and those that only the rounded ones do.
        linf: the largest difference of a rounded pixel to the clean one.
    """

    before: Accuracy
    after: Accuracy
    recovered: int
    lost: int
    linf: float

    def row(self, name: str) -> tuple[str, ...]:
        low, high = self.after.interval()
        accuracies = (f"{self.before.value:.1%}", f"{self.after.value:.1%}", f"{low:.1%} to {high:.1%}")
        return name, *accuracies, f"{self.after.images:,}", str(self.recovered), str(self.lost), f"{self.linf:.5f}"


def score_rounded(model: nn.Module, data: ImageSet, found: Results, name: str) -> Rounded:
    """An attack's images, rounded, in the blocks and on the draws of the evaluation.

    Args:
        model: that the evaluation attacked, in evaluation mode.
        data: its images, in the order of the records (see ``evaluated``).
        found: the evaluation.
        name: of the attack.
    """
    identity = found.manifest["identity"]
    scoring = Scoring(**{key: identity["scoring"][key] for key in ("draws", "seed", "deterministic")})
    images, right, largest = round_to_8_bits(found.images(name)), [], 0.0
    with progress_bar(total=len(data), desc=name, unit="img") as progress:
        for start in range(0, len(data), identity["block"]):
            part = slice(start, start + identity["block"])
            largest = max(largest, largest_difference(data.take(part), images[part]))
            block = Block(images[part], data.labels[part], data.ids[part])
            right += (answers(model, block.images, block.ids, scoring).vote == block.labels).tolist()
            progress.update(len(block.ids))
    before = [record.vote == record.label for record in found.records[name]]
    pairs = list(zip(before, right, strict=True))
    return Rounded(
        vote_accuracy(found.records[name]),
        Accuracy(sum(right), len(right)),
        pairs.count((False, True)),
        pairs.count((True, False)),
        largest,
    )


def largest_difference(clean: ImageSet, images: Tensor) -> float:
    return float(sizes(clean.pixels(), images)["linf"].max())


def main(
    evaluation: Annotated[Path, typer.Argument(help="Folder of a finished evaluation.")],
    data_dir: Annotated[Path, typer.Option(help="Where CIFAR-10 lies.")],
    model: Annotated[str, typer.Option(help="That it attacked: a shipped name or a folder.")] = "cifar10",
    output: Annotated[Path, typer.Option(help="Folder for the numbers.")] = Path("results/rounded"),
) -> None:
    """Score the attacked images of an evaluation again, rounded to 8 bits."""
    found = load_evaluation(evaluation)
    attacked, _ = load_pretrained(model)
    data = evaluated(found, attacked, load_dataset("cifar10", "test", data_dir))
    measured = {name: score_rounded(attacked, data, found, name) for name in found.records if name != CLEAN}
    rows = [one.row(name) for name, one in measured.items()]
    text = table(COLUMNS, rows)
    attacks = [dict(zip(COLUMNS, row, strict=True)) for row in rows]
    save_json(output / "results.json", provenance(model, data) | {"attacks": attacks})
    with replacing(output / "README.md") as temporary:
        temporary.write_text(
            f"# Attacked images rounded to 8 bits\n\n{text}\n\n{len(data):,} images of {data.name}.\n"
        )
    print(text)


if __name__ == "__main__":
    run(main)
