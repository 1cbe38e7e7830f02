"""The picture of docs/broken.md: one patch's coefficients around the cut, and the gradient that each surrogate sends.

The cut lies between the T-th and the next magnitude of a patch's projections. W-NFGA sends gradients through the
surviving coefficients alone.
"""

from pathlib import Path
from typing import Annotated

import torch
import typer
from matplotlib.figure import Figure
from torch import Tensor

from neuroae import Defense
from neuroae.attacks.losses import margin
from neuroae.kernels.reference import membership_gradient, project, surrogate_derivative
from results.inputs import cifar10_test
from results.options import DataDir, Model
from results.outputs import save_figure

PATCH = (7, 7)
RANKS = 150


def cut(
    data_dir: DataDir,
    model: Model = "cifar10",
    picture: Annotated[Path, typer.Option(help="The file to write.")] = Path("docs/cut.png"),
) -> None:
    """The picture of docs/broken.md: one patch's cut."""
    data = cifar10_test(data_dir, limit=1)
    defense = Defense.from_pretrained(model).with_surrogate("selection")
    save_figure(picture, draw(defense, data.pixels(), data.labels, seed=0))


def code_gradient(
    model: Defense, image: Tensor, label: Tensor, seed: int, patch: tuple[int, int] = PATCH
) -> tuple[Tensor, Tensor]:
    """Returns the margin loss's gradient to one patch's code and which atoms survived dropout.

    Args:
        model: A defense with the surrogate "selection".
        image: (1, C, H, W) float32 in [0, 1].
        label: (1,) int64.
        seed: The seed of the mask.
        patch: The patch's row and column.

    Returns:
        (L,) float32 and (L,) bool.
    """
    leaf = image.clone().requires_grad_()
    code = model.encoder.encode(leaf, seed=seed)
    loss = margin(model.classifier(model.decoder(code)), label).sum()
    assert code.membership is not None
    (gradient,) = torch.autograd.grad(loss, code.membership)
    index = code.index[(0, *patch)].long()
    survives = torch.zeros(gradient.shape[1], dtype=torch.bool)
    survives[index[index >= 0]] = True
    return gradient[(0, slice(None), *patch)], survives


def draw(model: Defense, image: Tensor, label: Tensor, seed: int) -> Figure:
    """Draws magnitudes above gradients, over the atoms of one patch by rank (see ``code_gradient``)."""
    encoder = model.encoder
    projections = project(image, encoder.atoms, encoder.stride)[(0, *PATCH)]
    gradient, survives = code_gradient(model, image, label, seed)
    width = encoder.resolved_selection_width()
    through_selection = membership_gradient(
        projections, gradient, encoder.norms, encoder.dead_zone, encoder.top_t, width, True, True
    )
    derivative = surrogate_derivative(projections, encoder.norms, encoder.dead_zone, "identity", encoder.sigma)
    w_nfga = torch.where(survives, gradient * derivative, 0)
    order = projections.abs().argsort(descending=True)[:RANKS]
    rank = torch.arange(1, RANKS + 1)
    reach = encoder.epsilon * encoder.norms[order]
    magnitudes = projections.abs()[order]
    survivors = survives[order]
    cut = float(magnitudes[encoder.top_t - 1 : encoder.top_t + 1].mean())
    figure = Figure(figsize=(8, 5.2), layout="constrained")
    upper, lower = figure.subplots(2, 1, sharex=True)
    upper.fill_between(
        rank, magnitudes - reach, magnitudes + reach, alpha=0.25, label="what an attack of 8/255 can make of it"
    )
    upper.plot(rank, magnitudes, ".", markersize=3, label="magnitude of the projection")
    upper.plot(rank[survivors], magnitudes[survivors], "o", markersize=7, fillstyle="none", label="survives dropout")
    upper.axvline(encoder.top_t + 0.5, color="black", linewidth=1)
    upper.axhline(cut, color="black", linewidth=1)
    upper.set_ylabel("|projection|")
    upper.legend(fontsize="small")
    for values, name in ((w_nfga, "W-NFGA identity"), (through_selection, "selection")):
        lower.plot(rank, values[order].abs() / values.abs().max(), ".-", markersize=4, linewidth=0.8, label=name)
    lower.axvline(encoder.top_t + 0.5, color="black", linewidth=1)
    lower.set_ylabel("|gradient|, largest = 1")
    lower.set_xlabel(f"atoms of one patch by rank; the first {encoder.top_t} are selected")
    lower.legend(fontsize="small")
    return figure
