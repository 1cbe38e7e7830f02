"""Pictures of images: examples of an evaluation, strips of images with answers, and dictionaries of atoms."""

import base64
import io
import math
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from matplotlib.figure import Figure, SubFigure
from PIL import Image
from torch import Tensor

from ..evaluation import CLEAN, Results
from ..evaluation.results import image_pairs
from ..kernels.reference import to_dense
from ..nn.encoder import SparseEncoder
from ..utils.files import replacing
from .charts import default_style


@dataclass(frozen=True, eq=False)
class Strip:
    """A row of images.

    Attributes:
        name: The text at the left.
        images: (K, C, H, W) in [0, 1].
        captions: The text below each image, or none at all.
        right: Whether each caption is a right answer, which is green; others are red.
    """

    name: str
    images: Tensor
    captions: Sequence[str] = ()
    right: Sequence[bool] = ()

    @classmethod
    def of(cls, name: str, images: Tensor, predictions: Tensor, labels: Tensor, classes: Sequence[str]) -> "Strip":
        """Returns images captioned with the model's answers.

        Args:
            name: The text at the left.
            images: (K, C, H, W) in [0, 1].
            predictions: (N,) int64, N at least K; the first K are used.
            labels: (N,) int64, likewise.
            classes: The names of the classes.
        """
        answers, truth = predictions[: len(images)].tolist(), labels[: len(images)].tolist()
        right = [answer == true for answer, true in zip(answers, truth, strict=True)]
        return cls(name, images, [classes[answer] for answer in answers], right)


def stages(encoder: SparseEncoder, image: Tensor, seed: int) -> dict[str, Tensor]:
    """Returns an image's coefficients after each operation of the encoder (paper, Figure 3), (L, m_h, m_w) by title.

    Args:
        encoder: The encoder, whose dictionary and settings are used.
        image: (C, H, W) in [0, 1].
        seed: The seed of the dropout.
    """
    selection = encoder.select(image[None])
    code = selection.draw(seed)
    index, value, projection, count = code.parts
    num_atoms = encoder.atoms.shape[0]
    all_slots = torch.full_like(count, encoder.top_t)
    return {
        "projections": F.conv2d(image[None], encoder.atoms, stride=encoder.stride)[0],
        f"top {encoder.top_t}": to_dense(selection.projection, selection.atom, all_slots, num_atoms)[0],
        f"after dropout, p = {encoder.dropout_p:g}": to_dense(projection, index, count, num_atoms)[0],
        "activated and quantized": to_dense(value, index, count, num_atoms)[0],
    }


@default_style()
def draw_picture(path: str | Path, strips: Sequence[Strip], coefficients: dict[str, Tensor] | None = None) -> None:
    """Writes a PNG with rows of images, and below them each stage of the coefficients: atoms against patches.

    Args:
        path: The file.
        strips: The rows.
        coefficients: ``stages`` of an image; None draws none.
    """
    columns = max(len(strip.images) for strip in strips)
    heights = [1.25 * len(strips)] + ([3.6] if coefficients else [])
    figure = Figure(figsize=(1.6 + 1.1 * columns, sum(heights)), layout="constrained")
    parts = figure.subfigures(len(heights), 1, height_ratios=heights, squeeze=False)[:, 0]
    draw_strips(parts[0], strips, columns)
    if coefficients:
        draw_coefficients(parts[1], coefficients)
    with replacing(Path(path)) as temporary:
        figure.savefig(temporary, dpi=130)


def draw_strips(figure: SubFigure, strips: Sequence[Strip], columns: int) -> None:
    axes = figure.subplots(len(strips), columns, squeeze=False)
    for row, strip in zip(axes, strips, strict=True):
        for axis in row:
            axis.set_xticks([])
            axis.set_yticks([])
            axis.set_frame_on(False)
        row[0].set_ylabel(strip.name, rotation=0, horizontalalignment="right", verticalalignment="center", fontsize=8)
        for axis, image in zip(row, strip.images, strict=False):
            grey = image.shape[0] == 1
            shown = (image[0] if grey else image.permute(1, 2, 0)).cpu().numpy()
            axis.imshow(shown, cmap="gray" if grey else None, vmin=0, vmax=1)
        for axis, caption, right in zip(row, strip.captions, strip.right, strict=False):
            axis.set_xlabel(caption, fontsize=8, color="tab:green" if right else "tab:red", labelpad=2)


def draw_coefficients(figure: SubFigure, coefficients: dict[str, Tensor]) -> None:
    axes = figure.subplots(1, len(coefficients), sharey=True)
    largest = max(float(stage.abs().max()) for stage in coefficients.values())
    for axis, (name, stage) in zip(axes, coefficients.items(), strict=True):
        shown = axis.imshow(
            stage.flatten(1).numpy(),
            cmap="RdBu_r",
            vmin=-largest,
            vmax=largest,
            aspect="auto",
            interpolation="nearest",
        )
        share = float(torch.count_nonzero(stage)) / stage.numel()
        axis.set_title(f"{name}\n{share:.1%} not zero", fontsize=8)
        axis.set_xlabel("patch", fontsize=8)
        axis.tick_params(labelsize=7)
    axes[0].set_ylabel("atom", fontsize=8)
    figure.colorbar(shown, ax=axes).ax.tick_params(labelsize=7)


ZERO = 0.5
INCHES_AN_ATOM = 0.32
BINS = 41


@default_style()
def draw_atoms(path: Path, atoms: Tensor) -> None:
    """Writes a PNG with the atoms in a grid, from the largest l1 norm (even patches) to the smallest (single spots).

    Each atom is scaled by its largest magnitude; gray is zero. Copies have equal norms, so they stand side by side.

    Args:
        path: The file.
        atoms: (L, C, n, n), with C 1 (gray) or 3 (RGB).
    """
    norms = atoms.abs().sum((1, 2, 3))
    columns = math.ceil(math.sqrt(len(atoms)))
    mosaic = tiled(atoms[norms.argsort(descending=True, stable=True)], columns)
    side = INCHES_AN_ATOM * columns
    figure = Figure(figsize=(side, side * mosaic.shape[0] / mosaic.shape[1] + 0.4), layout="constrained")
    axis = figure.subplots()
    axis.imshow(mosaic.numpy(), interpolation="nearest")
    axis.set_axis_off()
    size = " x ".join(map(str, atoms.shape[1:]))
    axis.set_title(f"{len(atoms)} atoms of {size}, by l1 norm from {norms.max():.2f} to {norms.min():.2f}", fontsize=8)
    with replacing(path) as temporary:
        figure.savefig(temporary, dpi=150)


def tiled(atoms: Tensor, columns: int) -> Tensor:
    """Returns the atoms in order on gray, (rows (n + 1) + 1, columns (n + 1) + 1, 3) in [0, 1]."""
    rows = math.ceil(len(atoms) / columns)
    shown = (ZERO + 0.5 * atoms / atoms.abs().amax((1, 2, 3), keepdim=True)).expand(-1, 3, -1, -1)
    framed = F.pad(shown, (0, 1, 0, 1), value=ZERO)
    empty = torch.full((rows * columns - len(atoms), *framed.shape[1:]), ZERO)
    grid = torch.cat([framed, empty]).unflatten(0, (rows, columns))
    mosaic = grid.permute(0, 3, 1, 4, 2).flatten(2, 3).flatten(0, 1)
    return F.pad(mosaic, (0, 0, 1, 0, 1, 0), value=ZERO)


@default_style()
def draw_histograms(path: Path, patches: Tensor, panels: Mapping[str, Mapping[str, np.ndarray]]) -> None:
    """Writes a PNG with each patch beside histograms of its numbers (paper, Figures 2 and 5).

    Args:
        path: The file.
        patches: (K, C, n, n) in [0, 1].
        panels: For each title of a panel, its histograms: name to (K, numbers). All panels of a patch share one axis
            of values, and a histogram counts shares of its own numbers.
    """
    columns = 1 if len(patches) == 1 else 2
    rows = math.ceil(len(patches) / columns)
    figure = Figure(figsize=((1 + 3 * len(panels)) * columns, 0.4 + 1.9 * rows), layout="constrained")
    parts = figure.subfigures(rows, columns, squeeze=False).flatten()
    for number, (part, patch) in enumerate(zip(parts, patches, strict=False)):
        patch_panels = {
            title: {name: values[number] for name, values in histograms.items()}
            for title, histograms in panels.items()
        }
        draw_patch(part, patch, patch_panels)
    with replacing(path) as temporary:
        figure.savefig(temporary, dpi=110)


def draw_patch(figure: SubFigure, patch: Tensor, panels: Mapping[str, Mapping[str, np.ndarray]]) -> None:
    shown, *axes = figure.subplots(1, 1 + len(panels), width_ratios=[1] + [3] * len(panels))
    shown.imshow(patch.expand(3, -1, -1).permute(1, 2, 0).numpy(), vmin=0, vmax=1, interpolation="nearest")
    shown.set_axis_off()
    every = np.concatenate([values for histograms in panels.values() for values in histograms.values()])
    edges = np.linspace(min(every.min(), 0), max(every.max(), 0), BINS)
    for axis, (title, histograms) in zip(axes, panels.items(), strict=True):
        for name, values in histograms.items():
            axis.hist(
                values,
                edges,
                weights=np.full(len(values), 1 / len(values)),
                histtype="stepfilled",
                alpha=0.6,
                label=name,
            )
        axis.axvline(0, color="black", linewidth=0.6)
        axis.set_title(title, fontsize=8)
        axis.tick_params(labelsize=7)
        axis.legend(fontsize=6)
    axes[0].set_ylabel("share", fontsize=7)


SHOWN = 6
GRAY = 0.5


class Pair(NamedTuple):
    """One image, clean and under an attack, (C, H, W) each."""

    clean: Tensor
    perturbed: Tensor

    @property
    def offset(self) -> Tensor:
        return self.perturbed - self.clean


@dataclass(frozen=True)
class Example:
    """One image under one attack.

    Attributes:
        id: The image's id.
        image: The image as a PNG in a data URI.
        perturbation: The perturbation likewise, amplified around gray; None for a clean image.
        label: The name of the true class.
        answer: The name of the class of the vote. Two classes may have one name.
        right: Whether the vote is for the true class.
    """

    id: int
    image: str
    perturbation: str | None
    label: str
    answer: str
    right: bool


@dataclass(frozen=True)
class Examples:
    """A few images under one attack.

    Attributes:
        attack: The attack's name.
        amplified: The factor by which perturbations are amplified; 0 for clean images.
        side: The width of the images in pixels.
        images: The images, in the same order under every attack.
    """

    attack: str
    amplified: float
    side: int
    images: Sequence[Example]


def examples(results: Results) -> list[Examples]:
    """Returns a few images that are classified correctly when clean, under each attack that has them."""
    ids = choose(results)
    every = (examples_of(results, attack, ids) for attack in results.records)
    return [each for each in every if each.images]


def choose(results: Results) -> list[int]:
    """Returns ids, evenly spaced from images that few attacks fool to images that many attacks fool."""
    right = [record.image for record in results.records[CLEAN] if record.vote == record.label]
    fooled = Counter(
        record.image for group in results.records.values() for record in group if record.vote != record.label
    )
    ordered = sorted(right, key=lambda image: fooled[image])
    places = np.linspace(0, len(ordered) - 1, min(SHOWN, len(ordered))).round().astype(int)
    return [ordered[place] for place in places]


def examples_of(results: Results, attack: str, ids: Sequence[int]) -> Examples:
    records = {record.image: record for record in results.records[attack] if record.image in ids}
    images = find_images(results, attack, records)
    largest = max((float(pair.offset.abs().max()) for pair in images.values()), default=0.0)
    amplified = GRAY / largest if largest else 0.0
    classes = results.manifest["classes"]
    return Examples(
        attack,
        amplified,
        max((pair.clean.shape[-1] for pair in images.values()), default=0),
        [
            Example(
                image,
                png(images[image].perturbed),
                png(GRAY + amplified * images[image].offset) if amplified else None,
                class_name(classes, records[image].label),
                class_name(classes, records[image].vote),
                records[image].label == records[image].vote,
            )
            for image in ids
            if image in images
        ],
    )


def class_name(classes: Sequence[str], number: int) -> str:
    """Returns the name of a class. Models may have outputs beyond the classes of the data."""
    return classes[number] if number < len(classes) else f"class {number}"


def find_images(results: Results, attack: str, ids: Collection[int]) -> dict[int, Pair]:
    """Returns the saved images of an attack with these ids, by id."""
    assert results.folder is not None
    images: dict[int, Pair] = {}
    for pairs in image_pairs(results.folder, attack):
        for image, clean, perturbed in zip(pairs.ids.tolist(), pairs.clean, pairs.perturbed, strict=True):
            if image in ids:
                images[image] = Pair(clean, perturbed)
        if len(images) == len(ids):
            break
    return images


def png(image: Tensor) -> str:
    """Returns a (C, H, W) image in [0, 1] as a PNG in a data URI: its first three channels, or its first of fewer."""
    levels = (image.clamp(0, 1) * 255).round().to(torch.uint8)
    pixels = levels[0] if len(levels) < 3 else levels[:3].permute(1, 2, 0)
    buffer = io.BytesIO()
    Image.fromarray(pixels.contiguous().numpy()).save(buffer, "PNG", optimize=True)
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"
