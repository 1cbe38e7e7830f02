"""``neuroae attack``: attack a saved model."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from ..attacks import Average, PGDSettings
from ..contexts import Precision
from ..data import DatasetName, load_dataset
from ..defense import Defense
from ..evaluation import MODES, attacks_from, evaluate
from ..pretrained import load_pretrained
from ..reports import markdown_table, save_results
from .options import DataDir, Epsilon, Seed, overridden, preset_option


def attack(
    model: Annotated[Path, typer.Argument(help="Folder that `neuroae train` wrote.")],
    dataset: Annotated[DatasetName, typer.Option(help="Whose test images to attack.")],
    output: Annotated[Path, typer.Option(help="Folder for results and adversarial images.")],
    data_dir: DataDir = None,
    limit: Annotated[int, typer.Option(min=1, help="Attack so many images, from the front.")] = 100,
    mode: Annotated[
        list[str] | None,
        typer.Option(
            help=f"How gradients get through a defense: {', '.join(MODES)}; repeat for several.", show_default="all"
        ),
    ] = None,
    source: Annotated[
        list[Path] | None,
        typer.Option(help="Folder of another model to transfer attacks from; repeat for several."),
    ] = None,
    epsilon: Epsilon = None,
    step_size: Annotated[float | None, preset_option("step_size", "Of each step.", min=0)] = None,
    steps: Annotated[int, typer.Option(min=1, help="N_S, gradient steps.")] = 20,
    restarts: Annotated[int, typer.Option(min=1, help="N_R; the first starts at the image.")] = 1,
    realizations: Annotated[int, typer.Option(min=1, help="N_E, draws averaged in a gradient.")] = 40,
    average: Annotated[
        Average, typer.Option(help="Of gradients divided by their l2 norms, or as they are.")
    ] = "normalized",
    ensemble: Annotated[int, typer.Option(min=1, help="E, realizations that vote on an image.")] = 10,
    precision: Annotated[
        Precision, typer.Option(help="Of decoder and classifier while crafting; scoring is in float32.")
    ] = "float32",
    block: Annotated[int, typer.Option(min=1, help="Images in a batch.")] = 64,
    seed: Seed = 0,
) -> None:
    """Attack test images by PGD with EOT, white-box and by transfer; print and save what is left of the accuracy."""
    attacked, _ = load_pretrained(model)
    data = load_dataset(dataset, "test", data_dir).take(slice(limit))
    preset = overridden(dataset, epsilon=epsilon, step_size=step_size)
    settings = PGDSettings(preset.epsilon, preset.step_size, steps, restarts, realizations, average)
    modes = mode or list(MODES)
    attacks = attacks_from(attacked, settings, modes, precision)
    for folder in source or ():
        attacks += attacks_from(load_pretrained(folder)[0], settings, modes, precision, transfer=folder.name)
    scoring = {"ensemble": ensemble if isinstance(attacked, Defense) else 1, "seed": seed, "block": block}
    outcomes = [evaluate(attacked, data, one, title=model.name, **scoring) for one in (None, *attacks)]
    notes = {"attack": asdict(settings), "precision": precision, "scoring": scoring}
    print(markdown_table(save_results(output, model.name, data, outcomes, notes)))
