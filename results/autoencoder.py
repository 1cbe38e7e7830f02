"""Images before and after the autoencoder (paper, Figure 9), clean ones and those that an evaluation attacked."""

import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from neuroae import Defense, derive_seed
from neuroae.data import ImageSet
from neuroae.evaluation import CLEAN, load_evaluation
from neuroae.reports import Strip, draw_picture
from neuroae.utils.markdown import table
from neuroae.utils.progress import progress_bar
from results.inputs import attacks_to_draw, cifar10_test, evaluated_images
from results.options import OUTPUT, DataDir, Model, OptionalEvaluation, Output
from results.outputs import provenance, provenance_line, write_results

REALIZATIONS = 10
NUM_EXAMPLES = 10
SEED = 0
BLOCK = 64
ONE = "one realization"
MEAN = f"mean of {REALIZATIONS}"
NOTE = f"""\
Mean squared errors of pixels in [0, 1], and their PSNR, between the decoded image and the image that was encoded,
clean or attacked. The decoded image is one realization, or the mean of {REALIZATIONS}. Below the pictures, PSNRs above
the mean are green, those below it red.

![Images, and below them the same after the autoencoder](autoencoder.png)

Made by `python -m results autoencoder --data-dir DIR [--evaluation FOLDER]`; `autoencoder.json` holds the numbers in
full."""


def autoencoder(
    data_dir: DataDir,
    model: Model = "cifar10-unsupervised",
    evaluation: OptionalEvaluation = None,
    output: Output = OUTPUT,
) -> None:
    """Figure 9: images before and after autoencoding."""
    data = cifar10_test(data_dir)
    defense = Defense.from_pretrained(model)
    kinds = {
        kind: Decoded.of(part, images, decode(defense, images, part.ids))
        for kind, (part, images) in clean_and_attacked(data, evaluation).items()
    }
    origin = provenance(model, defense, data)
    numbers = {kind: decoded.numbers() for kind, decoded in kinds.items()}
    folder = output / "autoencoder"
    draw_picture(
        folder / "autoencoder.png", [strip for kind, decoded in kinds.items() for strip in decoded.strips(kind)]
    )
    write_results(
        folder,
        "Figure 9: images before and after the autoencoder",
        [markdown(kinds), NOTE, provenance_line(origin)],
        origin | {"seed": SEED, "block": BLOCK, "kinds": numbers},
        "autoencoder.json",
    )


@dataclass(frozen=True)
class Distortion:
    """How far decoded images are from the encoded ones.

    Attributes:
        mse: The mean squared error of pixels in [0, 1].
        psnr: The peak signal-to-noise ratio of this error in dB; None where the error is 0.
    """

    mse: float
    psnr: float | None

    @classmethod
    def of(cls, mse: float) -> "Distortion":
        return cls(mse, -10 * math.log10(mse) if mse else None)

    def cells(self) -> tuple[str, str]:
        return f"{self.mse:.5f}", "exact" if self.psnr is None else f"{self.psnr:.1f} dB"


@dataclass(frozen=True)
class Example:
    """One image: its id, its class, and the distortion by the kind of decoded image (``ONE``, ``MEAN``)."""

    image: int
    label: str
    distortions: dict[str, Distortion]


@torch.no_grad()
def decode(
    model: Defense,
    images: Tensor,
    ids: Tensor,
    realizations: int = REALIZATIONS,
    seed: int = SEED,
    block: int = BLOCK,
) -> dict[str, Tensor]:
    """Returns the first realization of each image (``ONE``) and the mean of several (``MEAN``), (N, C, H, W) each.

    Args:
        model: The defense, whose encoder and decoder are used.
        images: (N, C, H, W) float32 in [0, 1].
        ids: (N,) int64, the images' ids.
        realizations: How many the mean is of.
        seed: The seed of the masks.
        block: Images in a batch.
    """
    masks = derive_seed(seed, "autoencoder")
    first, mean = [], []
    with progress_bar(total=realizations * len(images), desc="autoencoder", unit="realization") as progress:
        for part, part_ids in zip(images.split(block), ids.split(block), strict=True):
            selection = model.encoder.select(part)
            total = torch.zeros_like(part)
            for realization in range(realizations):
                decoded = model.decoder(selection.draw(masks, part_ids, realization))
                total += decoded
                if realization == 0:
                    first.append(decoded)
                progress.update(len(part))
            mean.append(total / realizations)
    return {ONE: torch.cat(first), MEAN: torch.cat(mean)}


@dataclass(frozen=True, eq=False)
class Decoded:
    """Images of one kind, clean or of one attack, and the same after the autoencoder.

    Attributes:
        images: The number of images.
        before: (K, C, H, W) in [0, 1], the first images as they were encoded.
        after: The same decoded, by the kind of decoded image.
        overall: The distortion over all images, by the kind of decoded image.
        examples: The distortion of each of the first images.
    """

    images: int
    before: Tensor
    after: dict[str, Tensor]
    overall: dict[str, Distortion]
    examples: list[Example]

    @classmethod
    def of(cls, data: ImageSet, before: Tensor, after: dict[str, Tensor]) -> "Decoded":
        """Measures all images of the data.

        Args:
            data: The N clean images.
            before: (N, C, H, W), as they were encoded, clean or attacked.
            after: (N, C, H, W) each, decoded.
        """
        errors = {
            name: (decoded.double() - before.double()).square().mean((1, 2, 3)) for name, decoded in after.items()
        }
        examples = [
            Example(
                int(data.ids[number]),
                data.classes[int(data.labels[number])],
                {name: Distortion.of(float(error[number])) for name, error in errors.items()},
            )
            for number in range(min(NUM_EXAMPLES, len(data)))
        ]
        return cls(
            len(data),
            before[:NUM_EXAMPLES],
            {name: decoded[:NUM_EXAMPLES] for name, decoded in after.items()},
            {name: Distortion.of(float(error.mean())) for name, error in errors.items()},
            examples,
        )

    def rows(self, kind: str) -> list[tuple[str, ...]]:
        """Returns a row for all images, with the PSNR of their mean squared error, and one for each example."""
        lines = {f"all {self.images:,}": self.overall}
        lines |= {f"{example.image}, {example.label}": example.distortions for example in self.examples}
        return [
            (kind, image, *(cell for distortion in distortions.values() for cell in distortion.cells()))
            for image, distortions in lines.items()
        ]

    def strips(self, kind: str) -> list[Strip]:
        """Returns the first images before and after, with green captions where they are closer than the mean."""
        strips = [Strip(kind, self.before)]
        for name, images in self.after.items():
            captions = [example.distortions[name].cells()[1] for example in self.examples]
            closer = [example.distortions[name].mse <= self.overall[name].mse for example in self.examples]
            title = f"{name},\n{self.overall[name].cells()[1]} over all"
            strips.append(Strip(title, images, captions, closer))
        return strips

    def numbers(self) -> dict[str, Any]:
        """Returns the numbers for JSON."""
        return {
            "images": self.images,
            "all": {name: asdict(distortion) for name, distortion in self.overall.items()},
            "examples": [asdict(example) for example in self.examples],
        }


def clean_and_attacked(data: ImageSet, evaluation: Path | None) -> dict[str, tuple[ImageSet, Tensor]]:
    """Returns data and images by their kind: all clean ones, and of an evaluation those of the attacks to draw."""
    kinds = {CLEAN: (data, data.pixels())}
    if evaluation is not None:
        results = load_evaluation(evaluation)
        part = evaluated_images(results, data)
        kinds |= {name: (part, results.images(name)) for name in attacks_to_draw(results)}
    return kinds


def markdown(kinds: dict[str, Decoded]) -> str:
    names = (ONE, MEAN)
    columns = ("images are", "image", *(f"{quantity}, {name}" for name in names for quantity in ("MSE", "PSNR")))
    return table(columns, [row for kind, decoded in kinds.items() for row in decoded.rows(kind)], text_columns=2)
