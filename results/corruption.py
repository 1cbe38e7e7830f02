"""Figure 4: how many patches of an attacked image have coefficients that the clean image would not have given.

    python -m results.corruption EVALUATION --data-dir DIR

reads the images that an evaluation saved (``python -m results.robustness table1``) and follows section 8.5.
"""

from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from matplotlib.figure import Figure
from torch import Tensor

from neuroae import Defense, SparseEncoder
from neuroae.data import ImageSet, load_dataset
from neuroae.evaluation import CLEAN, load_evaluation
from neuroae.utils.files import replacing, save_json
from neuroae.utils.markdown import table
from neuroae.utils.progress import progress_bar
from results.command import run
from results.evaluated import evaluated, pictured, require_evaluated
from results.page import write_page
from results.provenance import in_words, provenance

BLOCK = 64
BINS = 40
NOTE = """\
A patch is corrupted where dropout leaves a coefficient whose atom is not among the top T of the clean patch (section
8.5); the share is the expectation over dropout, its mean and standard error are over images.

![Histograms of the share over images](figure4.png)

Made by `python -m results.corruption EVALUATION --data-dir DIR`; `results.json` holds the numbers in full."""


@torch.no_grad()
def corrupted_patches(encoder: SparseEncoder, clean: Tensor, attacked: Tensor) -> Tensor:
    """(B,) float64, z = 1 - sum over j of q(j) p^j (section 8.5).

    q(j) is the share of an image's patches whose top T hold j atoms that are not among the clean patch's. It takes
    all of them to be dropped for a patch to stay uncorrupted.

    Args:
        encoder: whose dictionary, T and p count.
        clean, attacked: (B, C, H, W) float32 in [0, 1].
    """
    before, after = encoder.select(clean).atom.long(), encoder.select(attacked).atom.long()
    rows = before.flatten(0, 2)
    chosen = torch.zeros(len(rows), encoder.atoms.shape[0], dtype=torch.bool, device=rows.device)
    chosen.scatter_(1, rows, True)
    toppled = (~chosen.gather(1, after.flatten(0, 2))).sum(1).unflatten(0, before.shape[:3])
    return 1 - (encoder.dropout_p ** toppled.double()).mean((1, 2))


def shares(encoder: SparseEncoder, data: ImageSet, attacked: Tensor, name: str) -> Tensor:
    """(N,) float64 over all images."""
    found = []
    with progress_bar(total=len(data), desc=name, unit="img") as progress:
        for start in range(0, len(data), BLOCK):
            part = slice(start, start + BLOCK)
            found.append(corrupted_patches(encoder, data.take(part).pixels(), attacked[part]))
            progress.update(len(found[-1]))
    return torch.cat(found)


def draw(path: Path, found: dict[str, Tensor]) -> None:
    """A histogram an attack, as outlines that do not hide each other."""
    figure = Figure(figsize=(6.4, 3.6), layout="constrained")
    axis = figure.subplots()
    for name, values in found.items():
        axis.hist(values.numpy(), bins=BINS, range=(0, 1), histtype="step", linewidth=1.5, label=name)
    axis.set_xlabel("expected share of corrupted patches")
    axis.set_ylabel("images")
    axis.legend()
    with replacing(path) as temporary:
        figure.savefig(temporary, dpi=130)


def main(
    evaluation: Annotated[Path, typer.Argument(help="Folder of a finished evaluation of the defense.")],
    data_dir: Annotated[Path, typer.Option(help="Folder with CIFAR-10.")],
    model: Annotated[str, typer.Option(help="Whose encoder counts: a shipped name or a folder.")] = "cifar10",
    output: Annotated[Path, typer.Option(help="Folder for the numbers and the picture.")] = Path("results/corruption"),
) -> None:
    """Measure corrupted patches under every attack of an evaluation, and draw those of Figure 4."""
    defense = Defense.from_pretrained(model)
    found = load_evaluation(evaluation)
    names = [name for name in found.records if name != CLEAN]
    require_evaluated(found, defense)
    data = evaluated(found, load_dataset("cifar10", "test", data_dir))
    measured = {name: shares(defense.encoder, data, found.images(name), name) for name in names}
    summary: dict[str, Any] = {
        name: {"mean": float(values.mean()), "standard_error": float(values.std() / len(values) ** 0.5)}
        for name, values in measured.items()
    }
    made = provenance(model, defense, data)
    save_json(output / "results.json", made | {"attacks": summary})
    rows = [(name, f"{one['mean']:.1%}", f"{one['standard_error']:.1%}") for name, one in summary.items()]
    text = table(("attack", "expected share of corrupted patches", "standard error"), rows)
    draw(output / "figure4.png", {name: measured[name] for name in pictured(found)})
    write_page(output, "Figure 4: corrupted patches", [text, NOTE, in_words(made)])
    print(text)


if __name__ == "__main__":
    run(main)
