"""Attacked images as files of 8 bits hold them: ``python -m results.rounded EVALUATION --data-dir DIR``.

Attacks work on float32 pixels, and saving their images rounds each to one of 256 levels. Here the images of a finished
evaluation are scored again as they are and rounded, by one engine and on the draws that scored them, so that what
changes is the rounding's doing.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer
from torch import Tensor, nn

from neuroae.attacks import round_to_8_bits
from neuroae.data import ImageSet, load_dataset
from neuroae.evaluation import CLEAN, Accuracy, Results, Scoring, load_evaluation
from neuroae.evaluation.scoring import answers, perturbation_norms
from neuroae.models import load_pretrained
from neuroae.utils.files import save_json
from neuroae.utils.markdown import table
from neuroae.utils.progress import progress_bar
from results.command import run
from results.evaluated import evaluated, require_evaluated
from results.page import write_page
from results.provenance import in_words, provenance

COLUMNS = ("attack", "float32", "8 bits", "95% interval", "images", "fooled no more", "newly fooled", "largest linf")
NOTE = """\
Accuracies are of the vote of E draws, by the same engine and on the same draws before and after each image is rounded
to 256 levels; the interval is Clopper and Pearson's, of the rounded images. Images are fooled no more where only the
float32 pixels fool the model, and newly where only the rounded ones do. The last column is the largest difference of a
rounded pixel to the clean one.

Made by `python -m results.rounded EVALUATION --data-dir DIR`; `results.json` holds the numbers in full."""


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

    def cells(self) -> tuple[str, ...]:
        low, high = self.after.interval()
        accuracies = (f"{self.before.value:.1%}", f"{self.after.value:.1%}", f"{low:.1%} to {high:.1%}")
        return *accuracies, f"{self.after.images:,}", str(self.recovered), str(self.lost), f"{self.linf:.5f}"

    def numbers(self) -> dict[str, Any]:
        """Counts, and fractions in [0, 1], as JSON holds them; accuracy and interval are those after rounding."""
        low, high = self.after.interval()
        counts = {"images": self.after.images, "correct": self.after.correct, "float32_correct": self.before.correct}
        accuracies = {"accuracy": self.after.value, "low": low, "high": high, "float32_accuracy": self.before.value}
        return counts | accuracies | {"recovered": self.recovered, "lost": self.lost, "linf": self.linf}


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
    images = found.images(name)
    rounded = round_to_8_bits(images)
    before: list[bool] = []
    after: list[bool] = []
    largest = 0.0
    with progress_bar(total=len(data), desc=name, unit="img") as progress:
        for start in range(0, len(data), identity["block"]):
            part = slice(start, start + identity["block"])
            own = data.take(part)
            largest = max(largest, largest_difference(own, rounded[part]))
            for pixels, right in ((images, before), (rounded, after)):
                right += (answers(model, pixels[part], own.ids, scoring).vote == own.labels).tolist()
            progress.update(len(own.ids))
    pairs = list(zip(before, after, strict=True))
    return Rounded(
        Accuracy(sum(before), len(before)),
        Accuracy(sum(after), len(after)),
        pairs.count((False, True)),
        pairs.count((True, False)),
        largest,
    )


def largest_difference(clean: ImageSet, images: Tensor) -> float:
    return float(perturbation_norms(clean.pixels(), images)["linf"].max())


def main(
    evaluation: Annotated[Path, typer.Argument(help="Folder of a finished evaluation.")],
    data_dir: Annotated[Path, typer.Option(help="Where CIFAR-10 lies.")],
    model: Annotated[str, typer.Option(help="That it attacked: a shipped name or a folder.")] = "cifar10",
    output: Annotated[Path, typer.Option(help="Folder for the numbers.")] = Path("results/rounded"),
) -> None:
    """Score the attacked images of an evaluation again, rounded to 8 bits."""
    found = load_evaluation(evaluation)
    attacked, _ = load_pretrained(model)
    require_evaluated(found, attacked)
    data = evaluated(found, load_dataset("cifar10", "test", data_dir))
    measured = {name: score_rounded(attacked, data, found, name) for name in found.records if name != CLEAN}
    text = table(COLUMNS, [(name, *one.cells()) for name, one in measured.items()])
    made = provenance(model, attacked, data)
    rows = [{"attack": name} | one.numbers() for name, one in measured.items()]
    save_json(output / "results.json", made | {"rows": rows})
    write_page(output, "Attacked images rounded to 8 bits", [text, NOTE, in_words(made)])
    print(text)


if __name__ == "__main__":
    run(main)
