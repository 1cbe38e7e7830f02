"""The picture of docs/broken.md: coefficients around the cut of one patch, and what each surrogate sends to them.

python -m results.cut --data-dir DIR
"""

from pathlib import Path
from typing import Annotated

import torch
import typer
from matplotlib.figure import Figure
from torch import Tensor

from neuroae import Defense
from neuroae.attacks.losses import margin
from neuroae.data import load_dataset
from neuroae.kernels.reference import membership_gradient, project, surrogate_derivative
from neuroae.utils.files import replacing
from results.command import run

IMAGE, PATCH = 0, (7, 7)
RANKS = 150


def code_gradient(
    model: Defense, image: Tensor, label: Tensor, seed: int, patch: tuple[int, int] = PATCH
) -> tuple[Tensor, Tensor]:
    """Of the margin loss, to every entry of the patch's code, (L,), and which atoms survived, (L,) bool."""
    leaf = image.clone().requires_grad_()
    code = model.encoder.encode(leaf, seed=seed)
    loss = margin(model.classifier(model.decoder(code)), label).sum()
    assert code.membership is not None
    (gradient,) = torch.autograd.grad(loss, code.membership)
    index = code.index[(0, *patch)].long()
    survivors = torch.zeros(gradient.shape[1], dtype=torch.bool)
    survivors[index[index >= 0]] = True
    return gradient[(0, slice(None), *patch)], survivors


def draw(path: Path, model: Defense, image: Tensor, label: Tensor, seed: int) -> None:
    encoder = model.encoder
    projections = project(image, encoder.atoms, encoder.stride)[(0, *PATCH)]
    gradient, survivors = code_gradient(model, image, label, seed)
    width = encoder.resolved_selection_width()
    through = membership_gradient(
        projections, gradient, encoder.norms, encoder.dead_zone, encoder.top_t, width, True, True
    )
    derivative = surrogate_derivative(projections, encoder.norms, encoder.dead_zone, "identity", encoder.sigma)
    w_nfga = torch.where(survivors, gradient * derivative, 0)
    order = projections.abs().argsort(descending=True)[:RANKS]
    rank = torch.arange(1, RANKS + 1)
    reach = encoder.epsilon * encoder.norms[order]
    magnitudes = projections.abs()[order]
    figure = Figure(figsize=(8, 5.2), layout="constrained")
    upper, lower = figure.subplots(2, 1, sharex=True)
    upper.fill_between(
        rank, magnitudes - reach, magnitudes + reach, alpha=0.25, label="what an attack of 8/255 can make of it"
    )
    upper.plot(rank, magnitudes, ".", markersize=3, label="magnitude of the projection")
    kept = survivors[order]
    upper.plot(rank[kept], magnitudes[kept], "o", markersize=7, fillstyle="none", label="survives dropout")
    upper.axvline(encoder.top_t + 0.5, color="black", linewidth=1)
    upper.axhline(float(magnitudes[encoder.top_t - 1 : encoder.top_t + 1].mean()), color="black", linewidth=1)
    upper.set_ylabel("|projection|")
    upper.legend(fontsize="small")
    for values, name in ((w_nfga, "W-NFGA identity"), (through, "selection")):
        lower.plot(rank, values[order].abs() / values.abs().max(), ".-", markersize=4, linewidth=0.8, label=name)
    lower.axvline(encoder.top_t + 0.5, color="black", linewidth=1)
    lower.set_ylabel("|gradient|, largest = 1")
    lower.set_xlabel(f"atoms of one patch by rank; the first {encoder.top_t} are selected")
    lower.legend(fontsize="small")
    with replacing(path) as temporary:
        figure.savefig(temporary, dpi=130)


def main(
    data_dir: Annotated[Path, typer.Option(help="Folder with CIFAR-10.")],
    model: Annotated[str, typer.Option(help="A shipped name or a folder.")] = "cifar10",
    output: Annotated[Path, typer.Option(help="The picture.")] = Path("docs/cut.png"),
) -> None:
    """Draw the middle patch of the first test image."""
    data = load_dataset("cifar10", "test", data_dir).take(slice(IMAGE, IMAGE + 1))
    defense = Defense.from_pretrained(model).with_surrogate("selection")
    draw(output, defense, data.pixels(), data.labels, seed=0)


if __name__ == "__main__":
    run(main)
