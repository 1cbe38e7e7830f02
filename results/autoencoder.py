"""Images before and after the autoencoder (paper, Figure 9): ``python -m results.autoencoder --help``.

The images are clean, and as the attacks of an evaluation left them.
"""

import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from torch import Tensor

from neuroae import Defense, derive_seed
from neuroae.data import ImageSet, load_dataset
from neuroae.evaluation import CLEAN, load_evaluation
from neuroae.reports import Strip, draw_picture
from neuroae.utils.files import save_json
from neuroae.utils.markdown import table
from neuroae.utils.progress import progress_bar
from results.command import run
from results.evaluated import evaluated, pictured
from results.page import write_page
from results.provenance import in_words, provenance

REALIZATIONS = 10
SHOWN = 10
SEED = 0
BLOCK = 64
ONE = "one realization"
MEAN = f"mean of {REALIZATIONS}"
NOTE = f"""\
Mean squared errors of pixels in [0, 1], and their PSNR, of decoded images to those that were encoded, be these clean
or attacked: of one realization, and of the mean of {REALIZATIONS}. Below the pictures, PSNRs above
the mean are green, those below it red.

![Images above what the autoencoder makes of them](autoencoder.png)

Made by `python -m results.autoencoder MODEL --data-dir DIR [--evaluation EVALUATION]`; `autoencoder.json` holds the
numbers in full."""


@dataclass(frozen=True)
class Distortion:
    """How far decoded images are from the images.

    Attributes:
        mse: mean squared error of pixels in [0, 1].
        psnr: peak signal-to-noise ratio of this error in dB; None where the error is 0.
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
    """One image: its number, its class, and what is lost of it in each kind of decoded image."""

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
    """The first realization of each image, and the mean of several, both (N, C, H, W) in [0, 1].

    Args:
        model: its encoder and decoder are used.
        images: (N, C, H, W) float32 in [0, 1], clean or as an attack left them.
        ids: (N,) int64, the images' numbers.
        realizations: in the mean.
        seed: of the masks.
        block: images in a batch.
    """
    masks = derive_seed(seed, "autoencoder")
    first, mean = [], []
    with progress_bar(total=realizations * len(images), desc="autoencoder", unit="realization") as progress:
        for part, numbers in zip(images.split(block), ids.split(block), strict=True):
            selection = model.encoder.select(part)
            total = torch.zeros_like(part)
            for realization in range(realizations):
                decoded = model.decoder(selection.draw(masks, numbers, realization))
                total += decoded
                if realization == 0:
                    first.append(decoded)
                progress.update(len(part))
            mean.append(total / realizations)
    return {ONE: torch.cat(first), MEAN: torch.cat(mean)}


@dataclass(frozen=True, eq=False)
class Decoded:
    """Images of one kind, clean or of an attack, and what the autoencoder makes of them.

    Attributes:
        images: how many there are.
        before: (K, C, H, W) in [0, 1], the first ones as they were encoded.
        after: the same after the autoencoder, by the kind of decoded image.
        overall: what is lost over all images, likewise.
        examples: what is lost of each of the first ones.
    """

    images: int
    before: Tensor
    after: dict[str, Tensor]
    overall: dict[str, Distortion]
    examples: list[Example]

    @classmethod
    def of(cls, data: ImageSet, before: Tensor, after: dict[str, Tensor]) -> "Decoded":
        """Measured on images of the data, which an attack may have changed: all before, and all after."""
        errors = {name: (each.double() - before.double()).square().mean((1, 2, 3)) for name, each in after.items()}
        examples = [
            Example(
                int(data.ids[number]),
                data.classes[int(data.labels[number])],
                {name: Distortion.of(float(error[number])) for name, error in errors.items()},
            )
            for number in range(min(SHOWN, len(data)))
        ]
        return cls(
            len(data),
            before[:SHOWN],
            {name: each[:SHOWN] for name, each in after.items()},
            {name: Distortion.of(float(error.mean())) for name, error in errors.items()},
            examples,
        )

    def rows(self, kind: str) -> list[tuple[str, ...]]:
        """A line for all images, with the PSNR of their mean squared error, and one for each example."""
        lines = {f"all {self.images:,}": self.overall}
        lines |= {f"{one.image}, {one.label}": one.distortions for one in self.examples}
        return [
            (kind, image, *(cell for distortion in distortions.values() for cell in distortion.cells()))
            for image, distortions in lines.items()
        ]

    def strips(self, kind: str) -> list[Strip]:
        """The first images, and what becomes of them; green where that is closer than over all images."""
        found = [Strip(kind, self.before)]
        for name, images in self.after.items():
            captions = [one.distortions[name].cells()[1] for one in self.examples]
            closer = [one.distortions[name].mse <= self.overall[name].mse for one in self.examples]
            over_all = f"{name},\n{self.overall[name].cells()[1]} over all"
            found.append(Strip(over_all, images, captions, closer))
        return found

    def numbers(self) -> dict[str, Any]:
        """As JSON holds them."""
        return {
            "images": self.images,
            "all": {name: asdict(distortion) for name, distortion in self.overall.items()},
            "examples": [asdict(one) for one in self.examples],
        }


def clean_and_attacked(data: ImageSet, evaluation: Path | None) -> dict[str, tuple[ImageSet, Tensor]]:
    """Images by their kind: those of the data, and the pictured attacks' of an evaluation, which had some of them."""
    kinds = {CLEAN: (data, data.pixels())}
    if evaluation is not None:
        found = load_evaluation(evaluation)
        part = evaluated(found, data)
        kinds |= {name: (part, found.images(name)) for name in pictured(found)}
    return kinds


def markdown(kinds: dict[str, Decoded]) -> str:
    names = (ONE, MEAN)
    columns = ("images are", "image", *(f"{quantity}, {name}" for name in names for quantity in ("MSE", "PSNR")))
    return table(columns, [row for kind, decoded in kinds.items() for row in decoded.rows(kind)], text_columns=2)


def main(
    model: Annotated[str, typer.Argument(help="A shipped defense, or the folder of one; unsupervised in the paper.")],
    data_dir: Annotated[Path, typer.Option(help="Where CIFAR-10 lies.")],
    evaluation: Annotated[
        Path | None, typer.Option(help="Folder of a finished evaluation, whose attacked images are drawn as well.")
    ] = None,
    output: Annotated[Path, typer.Option(help="Folder for the numbers and the picture.")] = Path(
        "results/autoencoder"
    ),
) -> None:
    """Draw CIFAR-10 test images, clean and attacked, before and after the autoencoder, and measure what is lost."""
    data = load_dataset("cifar10", "test", data_dir)
    defense = Defense.from_pretrained(model)
    kinds = {
        kind: Decoded.of(part, images, decode(defense, images, part.ids))
        for kind, (part, images) in clean_and_attacked(data, evaluation).items()
    }
    made = provenance(model, defense, data)
    numbers = {kind: decoded.numbers() for kind, decoded in kinds.items()}
    save_json(output / "autoencoder.json", made | {"seed": SEED, "block": BLOCK, "kinds": numbers})
    strips = [strip for kind, decoded in kinds.items() for strip in decoded.strips(kind)]
    draw_picture(output / "autoencoder.png", strips)
    text = markdown(kinds)
    write_page(output, "Figure 9: images before and after the autoencoder", [text, NOTE, in_words(made)])
    print(text)


if __name__ == "__main__":
    run(main)
