"""How wide the gradient through the selection should look, on dictionaries alone: no decoder or classifier is needed.

A step of epsilon along the sign of the gradient of a random linear function of the code raises that function. How much
says how well the gradient of a width foresees which atoms enter and leave the top T.
"""

from pathlib import Path
from typing import Annotated

import torch
import typer
from torch import Tensor

from neuroae import Defense, SparseEncoder
from neuroae.data import ImageSet, load_dataset
from neuroae.dictionary import load_dictionary
from neuroae.models.presets import PRESETS, Preset, make_dictionary
from neuroae.utils.markdown import table
from neuroae.utils.randomness import derive_seed
from results.options import OUTPUT, DataDir, Output
from results.outputs import write_results

# Widths in units of epsilon times the mean l1 norm of the atoms; the default is 0.1.
WIDTHS = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0)
FUNCTIONS = 4
NOTE = """\
For each image and each of {functions} random linear functions of the code (normal weights, no dropout), the image
moves by epsilon along the sign of the gradient through the selection. The numbers are the mean rise of the function,
as a share of the rise under the best width of the row, on {images} test images. W-NFGA's gradient, through the
survivors alone, stands beside them. Widths are in units of epsilon times the mean l1 norm of the atoms; the default is
0.1.

Made by `python -m results widths --data-dir DIR --imagenette-dir DIR --dictionary FILE`."""


def widths(
    data_dir: DataDir,
    imagenette_dir: Annotated[Path, typer.Option(help="Folder with imagenette2-160.")],
    dictionary: Annotated[Path, typer.Option(help="Dictionary of Imagenette.")],
    images: Annotated[int, typer.Option(min=1, help="Test images of each data set.")] = 20,
    output: Output = OUTPUT,
) -> None:
    """The selection's width, on three dictionaries."""
    digits = PRESETS["digits"]
    learned = make_dictionary(digits, load_dataset("digits", "train"), 0)
    cifar10 = Defense.from_pretrained("cifar10").encoder.atoms
    cases: dict[str, tuple[Preset, Tensor, ImageSet]] = {
        "digits": (digits, learned, load_dataset("digits", "test")),
        "CIFAR-10": (PRESETS["cifar10"], cifar10, load_dataset("cifar10", "test", data_dir)),
        "Imagenette": (
            PRESETS["imagenette"],
            load_dictionary(dictionary),
            load_dataset("imagenette", "test", imagenette_dir),
        ),
    }
    rows, numbers = [], {}
    for name, (preset, atoms, data) in cases.items():
        rises = mean_rises(preset, atoms, data.limited(images).pixels())
        best = max(rises[f"{width:g}"] for width in WIDTHS)
        rows.append((name, *(f"{rise / best:.1%}" for rise in rises.values())))
        numbers[name] = rises | {"images": images, "epsilon": preset.epsilon, "top_t": preset.top_t}
    columns = ("dictionary", *(f"w {width:g}" for width in WIDTHS), "W-NFGA")
    note = NOTE.format(functions=FUNCTIONS, images=images)
    write_results(output / "widths", "The width of the gradient", [table(columns, rows), note], numbers)


def mean_rises(preset: Preset, atoms: Tensor, images: Tensor) -> dict[str, float]:
    """Returns the mean rise of random functions of the code after a step along the gradient, by the gradient.

    Args:
        preset: Stride, T and epsilon.
        atoms: (L, C, n, n) float32.
        images: (N, C, H, W) float32 in [0, 1].
    """
    scale = preset.epsilon * float(atoms.abs().sum((1, 2, 3)).mean())
    encoders = {f"{width:g}": encoder_of(preset, atoms, "selection", width * scale) for width in WIDTHS}
    encoders["W-NFGA"] = encoder_of(preset, atoms, "identity", None)
    return {name: rise(encoder, images, preset.epsilon) for name, encoder in encoders.items()}


def encoder_of(preset: Preset, atoms: Tensor, surrogate: str, width: float | None) -> SparseEncoder:
    return SparseEncoder(
        atoms,
        stride=preset.stride,
        top_t=preset.top_t,
        dropout_p=0.0,
        epsilon=preset.epsilon,
        surrogate=surrogate,
        selection_width=width,
    )


def rise(encoder: SparseEncoder, images: Tensor, epsilon: float) -> float:
    """Returns the mean rise over images and functions."""
    rises: list[Tensor] = []
    for number, image in enumerate(images.split(1)):
        for function in range(FUNCTIONS):
            leaf = image.clone().requires_grad_()
            code = encoder(leaf)
            generator = torch.Generator().manual_seed(derive_seed(0, "function", number, function))
            weights = torch.randn(code.shape, generator=generator)
            before = (code * weights).sum()
            (gradient,) = torch.autograd.grad(before, leaf)
            with torch.no_grad():
                moved = (image + epsilon * gradient.sign()).clamp(0, 1)
                rises.append((encoder(moved) * weights).sum() - before)
    return float(torch.stack(rises).mean())
