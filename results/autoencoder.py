"""Images before and after the autoencoder (paper, Figure 9): ``python -m results.autoencoder --help``."""

import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import torch
import typer
from torch import Tensor

from neuroae import Defense, derive_seed
from neuroae.data import ImageSet, load_dataset
from neuroae.markdown import table
from neuroae.progress import progress_bar
from neuroae.reports import Strip, draw_picture
from neuroae.storage import replacing, save_json
from results.command import run
from results.provenance import provenance

REALIZATIONS = 10
SHOWN = 10
SEED = 0
BLOCK = 64
ONE = "one realization"
MEAN = f"mean of {REALIZATIONS}"


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


def measure(decoded: dict[str, Tensor], data: ImageSet) -> tuple[dict[str, Distortion], list[Example]]:
    """What is lost over all images, by kind of decoded image, and of each of the first."""
    pixels = data.pixels().double()
    errors = {name: (images.double() - pixels).square().mean((1, 2, 3)) for name, images in decoded.items()}
    overall = {name: Distortion.of(float(error.mean())) for name, error in errors.items()}
    examples = [
        Example(
            int(data.ids[number]),
            data.classes[int(data.labels[number])],
            {name: Distortion.of(float(error[number])) for name, error in errors.items()},
        )
        for number in range(min(SHOWN, len(data)))
    ]
    return overall, examples


def markdown(overall: dict[str, Distortion], examples: list[Example], images: int) -> str:
    """A line for all images, with the PSNR of their mean squared error, and one for each example."""
    lines = {f"all {images:,}": overall} | {f"{one.image}, {one.label}": one.distortions for one in examples}
    columns = ("image", *(f"{quantity}, {name}" for name in overall for quantity in ("MSE", "PSNR")))
    rows = [
        (image, *(cell for distortion in distortions.values() for cell in distortion.cells()))
        for image, distortions in lines.items()
    ]
    return table(columns, rows)


def draw(
    path: Path, data: ImageSet, decoded: dict[str, Tensor], overall: dict[str, Distortion], examples: list[Example]
) -> None:
    """The first images above what the autoencoder makes of them; green where that is closer than over all images."""
    strips = [Strip("image", data.pixels()[: len(examples)])]
    for name, images in decoded.items():
        captions = [one.distortions[name].cells()[1] for one in examples]
        closer = [one.distortions[name].mse <= overall[name].mse for one in examples]
        over_all = f"{name},\n{overall[name].cells()[1]} over all"
        strips.append(Strip(over_all, images[: len(examples)], captions, closer))
    draw_picture(path, strips)


def main(
    model: Annotated[str, typer.Argument(help="A shipped defense, or the folder of one; unsupervised in the paper.")],
    data_dir: Annotated[Path, typer.Option(help="Where CIFAR-10 lies.")],
    output: Annotated[Path, typer.Option(help="Folder for the numbers and the picture.")] = Path(
        "results/autoencoder"
    ),
) -> None:
    """Draw CIFAR-10 test images before and after the autoencoder of a defense, and measure what is lost."""
    data = load_dataset("cifar10", "test", data_dir)
    decoded = decode(Defense.from_pretrained(model), data.pixels(), data.ids)
    overall, examples = measure(decoded, data)
    found = {
        "seed": SEED,
        "block": BLOCK,
        "test": {name: asdict(distortion) for name, distortion in overall.items()},
        "examples": [asdict(one) for one in examples],
    }
    save_json(output / "autoencoder.json", provenance(model, data) | found)
    text = markdown(overall, examples, len(data))
    with replacing(output / "autoencoder.md") as temporary:
        temporary.write_text(text + "\n", encoding="utf-8")
    draw(output / "autoencoder.png", data, decoded, overall, examples)
    print(text)


if __name__ == "__main__":
    run(main)
