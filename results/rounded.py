"""Attacked images rounded to 8 bits, as image files hold them.

Attacks work on float32 pixels, and saving an image rounds each pixel to one of 256 levels. The images of a finished
evaluation are scored again as they are and rounded, by one backend and on the draws that scored them, so that any
change is due to the rounding.
"""

from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from neuroae.attacks import round_to_8_bits
from neuroae.data import ImageSet
from neuroae.evaluation import Accuracy, Results, Scoring, load_evaluation
from neuroae.evaluation.scoring import answers, perturbation_norms
from neuroae.models import load_pretrained
from neuroae.utils.markdown import table
from neuroae.utils.progress import progress_bar
from results.inputs import attack_names, cifar10_test, evaluated_images, identity, require_evaluated_model
from results.options import OUTPUT, DataDir, Evaluation, Model, Output
from results.outputs import accuracy_numbers, interval_cell, provenance, provenance_line, write_results

COLUMNS = ("attack", "float32", "8 bits", "95% interval", "images", "fooled no more", "newly fooled", "largest linf")
NOTE = """\
Accuracies are of the vote of E draws, by the same backend and on the same draws before and after each image is rounded
to 256 levels; the interval is Clopper and Pearson's, of the rounded images. "Fooled no more" counts images of which
only the float32 pixels fool the model, and "newly fooled" those of which only the rounded pixels do. The last column
is the largest difference of a rounded pixel to the clean one.

Made by `python -m results rounded --data-dir DIR --evaluation FOLDER`; `results.json` holds the numbers in full."""


def rounded(evaluation: Evaluation, data_dir: DataDir, model: Model = "cifar10", output: Output = OUTPUT) -> None:
    """Attacked images, rounded to 8 bits."""
    results = load_evaluation(evaluation)
    attacked, _ = load_pretrained(model)
    require_evaluated_model(results, attacked)
    data = evaluated_images(results, cifar10_test(data_dir))
    measured = {name: score_rounded(attacked, data, results, name) for name in attack_names(results)}
    text = table(COLUMNS, [(name, *row.cells()) for name, row in measured.items()])
    origin = provenance(model, attacked, data)
    rows = [{"attack": name} | row.numbers() for name, row in measured.items()]
    write_results(
        output / "rounded",
        "Attacked images rounded to 8 bits",
        [text, NOTE, provenance_line(origin)],
        origin | {"rows": rows},
    )


@dataclass(frozen=True)
class Rounded:
    """One attack's images before and after rounding.

    Attributes:
        before, after: Accuracies of the vote of E draws, on the same draws.
        recovered, lost: The numbers of images that fool only in float32, and only rounded.
        linf: The largest difference of a rounded pixel to the clean one.
    """

    before: Accuracy
    after: Accuracy
    recovered: int
    lost: int
    linf: float

    def cells(self) -> tuple[str, ...]:
        interval = interval_cell(*self.after.interval())
        accuracies = (f"{self.before.value:.1%}", f"{self.after.value:.1%}", interval)
        return *accuracies, f"{self.after.images:,}", str(self.recovered), str(self.lost), f"{self.linf:.5f}"

    def numbers(self) -> dict[str, Any]:
        """Returns counts, and accuracies in [0, 1], for JSON; accuracy and interval are those after rounding."""
        counts = {"images": self.after.images, "correct": self.after.correct, "float32_correct": self.before.correct}
        accuracies = accuracy_numbers(self.after) | {"float32_accuracy": self.before.value}
        return counts | accuracies | {"recovered": self.recovered, "lost": self.lost, "linf": self.linf}


def score_rounded(model: nn.Module, data: ImageSet, results: Results, name: str) -> Rounded:
    """Scores an attack's images as they are and rounded, in the blocks and on the draws of the evaluation.

    Args:
        model: The model that the evaluation attacked, in evaluation mode.
        data: The evaluation's clean images, in the order of its records (see ``inputs.evaluated_images``).
        results: The evaluation.
        name: The attack's name.
    """
    decisive = identity(results)
    scoring = Scoring(**{key: decisive["scoring"][key] for key in ("draws", "seed", "deterministic")})
    images = results.images(name)
    rounded_images = round_to_8_bits(images)
    before: list[bool] = []
    after: list[bool] = []
    largest = 0.0
    with progress_bar(total=len(data), desc=name, unit="img") as progress:
        for start in range(0, len(data), decisive["block"]):
            part = slice(start, start + decisive["block"])
            clean = data.take(part)
            largest = max(largest, largest_difference(clean, rounded_images[part]))
            for pixels, is_right in ((images, before), (rounded_images, after)):
                is_right += (answers(model, pixels[part], clean.ids, scoring).vote == clean.labels).tolist()
            progress.update(len(clean))
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
