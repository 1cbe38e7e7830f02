"""Example images of an evaluation, with what the attacks did to them and what the model made of it."""

import base64
import io
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ..evaluation import CLEAN, Results
from .loading import image_pairs

SHOWN = 6
GRAY = 0.5


class Pair(NamedTuple):
    """One image, (C, H, W), clean and under an attack."""

    clean: Tensor
    perturbed: Tensor

    @property
    def offset(self) -> Tensor:
        return self.perturbed - self.clean


@dataclass(frozen=True)
class Example:
    """One image under one attack.

    Attributes:
        id: the image's.
        image: as a PNG in a data URI.
        perturbation: likewise, amplified around gray; None for a clean image.
        label, answer: names of the true class and of the vote's; two classes may have one name.
        right: whether the vote is for the true class.
    """

    id: int
    image: str
    perturbation: str | None
    label: str
    answer: str
    right: bool


@dataclass(frozen=True)
class Examples:
    """The same images under one attack.

    Attributes:
        attack: its name.
        amplified: so many times perturbations are enlarged; 0 where there are none.
        side: width of the images in pixels.
        images: the same order under every attack.
    """

    attack: str
    amplified: float
    side: int
    images: Sequence[Example]


def examples(results: Results) -> list[Examples]:
    """A few images that are answered rightly when clean, under each attack that has them."""
    chosen = choose(results)
    shown = (examples_of(results, attack, chosen) for attack in results.records)
    return [each for each in shown if each.images]


def choose(results: Results) -> list[int]:
    """Ids, evenly from the images that the fewest attacks fool to those that the most do."""
    right = [record.image for record in results.records[CLEAN] if record.vote == record.label]
    fooled = Counter(record.image for own in results.records.values() for record in own if record.vote != record.label)
    ordered = sorted(right, key=lambda image: fooled[image])
    places = np.linspace(0, len(ordered) - 1, min(SHOWN, len(ordered))).round().astype(int)
    return [ordered[place] for place in places]


def examples_of(results: Results, attack: str, chosen: Sequence[int]) -> Examples:
    records = {record.image: record for record in results.records[attack] if record.image in chosen}
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
            for image in chosen
            if image in images
        ],
    )


def class_name(classes: Sequence[str], number: int) -> str:
    """Models may have outputs beyond the classes of the data."""
    return classes[number] if number < len(classes) else f"class {number}"


def find_images(results: Results, attack: str, wanted: Collection[int]) -> dict[int, Pair]:
    """By their ids."""
    found: dict[int, Pair] = {}
    for pairs in image_pairs(results.folder, attack):
        for image, clean, perturbed in zip(pairs.ids.tolist(), pairs.clean, pairs.perturbed, strict=True):
            if image in wanted:
                found[image] = Pair(clean, perturbed)
        if len(found) == len(wanted):
            break
    return found


def png(image: Tensor) -> str:
    """A (C, H, W) image in [0, 1] as a data URI: the first three channels, or the first where there are fewer."""
    levels = (image.clamp(0, 1) * 255).round().to(torch.uint8)
    pixels = levels[0] if len(levels) < 3 else levels[:3].permute(1, 2, 0)
    buffer = io.BytesIO()
    Image.fromarray(pixels.contiguous().numpy()).save(buffer, "PNG", optimize=True)
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"
