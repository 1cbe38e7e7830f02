"""What `neuroae attack` is given: the models, their classes, the sources of transfers, and the images."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import nn

from ..data import ImageSet, load_dataset, own_dataset
from ..evaluation.models import is_random, load_model, require_fixable
from ..models import pretrained_classes, shipped_names
from ..models.presets import PRESETS, Preset
from ..utils.functions import is_function


def preset_of(dataset: str) -> Preset:
    """Returns the settings that suit a data set; those of CIFAR-10 for a user's function, which has none of its own.

    Raises:
        ValueError: There is no such data set.
    """
    if is_function(dataset):
        return PRESETS["cifar10"]
    if dataset not in PRESETS:
        raise ValueError(f"dataset is {dataset!r}, expected one of {', '.join(PRESETS)}, or MODULE:FUNCTION")
    return PRESETS[dataset]


def shipped_sources(dataset: str, model: str, device: torch.device) -> dict[str, nn.Module]:
    """Returns the classifier that ships for a data set, from which suites transfer attacks, unless it is the model."""
    name = f"{dataset}-undefended"
    return {name: load_model(name).to(device)} if name in shipped_names() and model != name else {}


def load_images(
    dataset: str,
    hold_out: int,
    data_dir: Path | None,
    download: bool,
    image_size: int | None,
    limit: int | None,
    seed: int,
) -> ImageSet:
    """Returns the test images, or the training images that a training held out.

    Raises:
        ValueError: The data set is a user's function, and an option is given that it does not have.
    """
    if is_function(dataset):
        unfit = {"data-dir": data_dir, "download": download, "image-size": image_size, "hold-out": hold_out}
        option = next((name for name, value in unfit.items() if value), None)
        if option is not None:
            raise ValueError(f"dataset is {dataset!r}, which takes no --{option}")
        return own_dataset(dataset).limited(limit)
    data = load_dataset(dataset, "train" if hold_out else "test", data_dir, download, image_size).limited(limit)
    return data.hold_out(hold_out, seed)[1] if hold_out else data


def unique_names(paths: Sequence[str]) -> dict[str, str]:
    """Returns the paths by their last parts, or by themselves where these repeat."""
    names = [Path(path).absolute().name for path in paths]
    return dict(zip(names if len(set(names)) == len(names) else paths, paths, strict=True))


def load_class_names(models: Mapping[str, str]) -> dict[str, tuple[str, ...]]:
    """Returns the class names of those saved models that have them, by the model's path."""
    paths = {path for path in models.values() if not is_function(path)}
    classes = {path: pretrained_classes(path) for path in sorted(paths)}
    return {path: names for path, names in classes.items() if names}


def relabel(data: ImageSet, classes: Mapping[str, tuple[str, ...]]) -> ImageSet:
    """Returns the images with labels that are positions in the models' class names.

    Raises:
        ValueError: Two models have different classes, or a model does not know a class of the images.
    """
    if not classes:
        return data
    first, *remaining = classes
    for path in remaining:
        if classes[path] != classes[first]:
            names, expected = ", ".join(classes[path]), ", ".join(classes[first])
            raise ValueError(f"{path} has the classes {names}, expected {expected} as {first} has")
    try:
        return data.in_classes(classes[first])
    except ValueError as error:
        raise ValueError(f"{error}, which {first} was trained on") from error


def draws_freely(name: str, model: nn.Module, data: ImageSet, deterministic: bool) -> bool:
    """Returns whether a model is random and its masks are not to be fixed. It runs the model on images."""
    random = is_random(model, data)
    if deterministic and random:
        require_fixable(name, model)
    return random and not deterministic
