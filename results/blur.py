"""The Gaussian blur that is closest to the unsupervised autoencoder (paper, section 8.6; Table 5).

The distance is the mean squared difference between blurred images and images behind one realization of the
autoencoder. The paper finds a standard deviation of 0.625.
"""

from collections.abc import Callable
from typing import Annotated

import torch
import typer
from matplotlib.figure import Figure
from scipy.optimize import minimize_scalar
from torch import Tensor

from neuroae import Defense, GaussianBlur, derive_seed
from neuroae.data import load_dataset
from neuroae.nn.front_ends import PAPERS_SIGMA
from neuroae.utils.markdown import table
from results.options import OUTPUT, DataDir, Model, Output
from results.outputs import provenance, provenance_line, save_figure, write_results

LOW, HIGH, STEP = 0.4, 1.6, 0.1
BLOCK = 64
SEED = 0
NOTE = """\
Mean squared differences, of pixels in [0, 1], between training images behind a Gaussian blur (5 x 5, reflected
borders) and the same images behind the autoencoder, one realization each. The least difference is at sigma =
{best:.3f}; the paper finds {paper} for its autoencoder.

![The difference against sigma](blur.png)

Made by `python -m results blur --data-dir DIR`; `results.json` holds the numbers in full."""


def blur(
    data_dir: DataDir,
    model: Model = "cifar10-unsupervised",
    images: Annotated[int, typer.Option(min=1, help="Number of training images, the first ones.")] = 2000,
    output: Output = OUTPUT,
) -> None:
    """Table 5: the blur closest to the autoencoder."""
    defense = Defense.from_pretrained(model)
    data = load_dataset("cifar10", "train", data_dir).take(slice(images))
    clean = data.pixels()
    difference = distance(clean, decode(defense, clean, data.ids))
    sigmas = sorted([PAPERS_SIGMA, *(LOW + STEP * number for number in range(round((HIGH - LOW) / STEP) + 1))])
    differences = [difference(sigma) for sigma in sigmas]
    best = float(minimize_scalar(difference, bounds=(LOW, HIGH), method="bounded").x)
    origin = provenance(model, defense, data)
    folder = output / "blur"
    save_figure(folder / "blur.png", picture(sigmas, differences, best))
    rows = [(f"{sigma:.3f}", f"{value:.6f}") for sigma, value in zip(sigmas, differences, strict=True)]
    write_results(
        folder,
        "The Gaussian blur closest to the autoencoder",
        [
            table(("sigma", "mean squared difference"), rows),
            NOTE.format(best=best, paper=PAPERS_SIGMA),
            provenance_line(origin),
        ],
        origin | {"seed": SEED, "best": best, "paper": PAPERS_SIGMA, "sigmas": sigmas, "differences": differences},
    )


@torch.no_grad()
def decode(model: Defense, images: Tensor, ids: Tensor) -> Tensor:
    """Returns the images behind one realization of the autoencoder."""
    seed = derive_seed(SEED, "blur")
    parts = zip(images.split(BLOCK), ids.split(BLOCK), strict=True)
    return torch.cat([model.autoencode(part, seed, part_ids) for part, part_ids in parts])


def distance(clean: Tensor, decoded: Tensor) -> Callable[[float], float]:
    """Returns the mean squared difference between blurred and decoded images as a function of sigma."""
    return lambda sigma: float((GaussianBlur(float(sigma))(clean) - decoded).double().square().mean())


def picture(sigmas: list[float], differences: list[float], best: float) -> Figure:
    figure = Figure(figsize=(5, 3.2), layout="constrained")
    axis = figure.subplots()
    axis.plot(sigmas, differences, marker="o")
    axis.axvline(best, linestyle="--", color="gray", label=f"least, {best:.3f}")
    axis.axvline(PAPERS_SIGMA, linestyle=":", color="black", label=f"paper, {PAPERS_SIGMA}")
    axis.set_xlabel("sigma of the blur in pixels")
    axis.set_ylabel("mean squared difference")
    axis.legend()
    return figure
