"""Models to evaluate: those of this package, and any user's."""

import importlib
import inspect
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import nn

from ..attacks.checks import check_logits, is_training, no_training_normalization
from ..attacks.protocol import realizer
from ..data import ImageSet
from ..models import load_pretrained
from ..nn.classifiers import ResNet32
from ..nn.defense import Defense
from ..nn.variants import FixedBatch
from ..utils.contexts import repeatable
from ..utils.modules import takes_seeds
from .plan import device_of
from .scoring import Block

PROBED = 8
DRAWN = 8


def load_model(name: str) -> nn.Module:
    """A model in evaluation mode.

    Args:
        name: a folder that ``neuroae train`` wrote, a model that ships with the package, or "module:function", a
            function without arguments that returns a module from images in [0, 1] to logits. Modules are looked for
            in the current folder too.

    Raises:
        FileNotFoundError: no folder and no shipped model has this name.
        ImportError: there is no such module.
        ValueError: the function is not there, takes arguments, or returns something else.
    """
    if not is_function(name):
        return load_pretrained(name)[0]
    module, _, function = name.partition(":")
    with current_folder_first():
        model = find_function(module, function)()
    if not isinstance(model, nn.Module):
        raise ValueError(f"{name} returned a {type(model).__name__}, expected a torch.nn.Module")
    if is_training(model):
        raise ValueError(f"{name} returned a model in training mode, expected evaluation mode; call model.eval()")
    return model


def is_function(name: str) -> bool:
    """Whether a model's name is "module:function"; folders may have colons too."""
    return ":" in name and not Path(name).exists()


def find_function(module: str, function: str) -> Callable[[], object]:
    try:
        found = getattr(importlib.import_module(module), function, None)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module}.".startswith(f"{error.name}."):
            raise
        raise ImportError(f"there is no module {module!r} in {os.getcwd()} or among those installed") from error
    if not callable(found):
        raise ValueError(f"module {module} has no function {function!r}")
    needed = [
        parameter.name
        for parameter in inspect.signature(found).parameters.values()
        if parameter.default is parameter.empty
        and parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
    ]
    if needed:
        raise ValueError(f"{module}:{function} takes {', '.join(needed)}, expected a function without arguments")
    return found


@contextmanager
def current_folder_first() -> Iterator[None]:
    folder = os.getcwd()
    sys.path.insert(0, folder)
    try:
        yield
    finally:
        sys.path.remove(folder)


def for_any_batch(name: str, model: nn.Module, data: ImageSet, block: int) -> nn.Module:
    """The model itself, or behind ``FixedBatch`` where it takes batches of ``block`` images and not any number.

    Args:
        name: of the model, for errors.
        model: in evaluation mode.
        data: images to try it on.
        block: images that it is to take.

    Raises:
        ValueError: it takes neither.
    """
    if isinstance(model, Defense | ResNet32):
        return model
    refusals = (refusal(model, data, count) for count in (1, 2, PROBED))
    refused = next((error for error in refusals if error is not None), None)
    if refused is None:
        return model
    if refusal(model, data, block) is None:
        return FixedBatch(model, block)
    if isinstance(refused, ValueError | TypeError):
        raise refused
    said = str(refused).partition("\n")[0] or type(refused).__name__
    raise ValueError(
        f"{name} takes neither any number of images nor batches of {block} ({said}); a model that takes batches of "
        "one size needs that as --block"
    ) from refused


def refusal(model: nn.Module, data: ImageSet, count: int) -> Exception | None:
    """The error with which a model refuses a batch of so many images."""
    images, _, ids = Block.of(data.take(torch.arange(count) % len(data)), device_of(model))
    try:
        with repeatable(), torch.no_grad():
            realizer(model, images, 0, ids)(0, 1, images.clone())
    except Exception as error:  # models have ways of their own to refuse
        return error
    return None


def is_random(model: nn.Module, data: ImageSet) -> bool:
    """Whether some of 8 draws of the model answer differently to some of the first images.

    Raises:
        ValueError: the model does not give logits of the images' classes, or runs a normalization in training mode.
    """
    images, _, ids = Block.of(data.take(slice(PROBED)), device_of(model))
    with repeatable(), torch.no_grad(), no_training_normalization():
        realize = realizer(model, images, 0, ids)
        # A call each: rows of one batch may differ in their last bits without any draw.
        first, *others = (realize(number, 1, images.clone()).float() for number in range(DRAWN))
    check_logits(first, len(images), int(data.labels.max()))
    return any(not torch.equal(first, other) for other in others)


def require_fixable(name: str, model: nn.Module) -> None:
    """Refuses a random model whose masks cannot be fixed."""
    if not takes_seeds(model):
        raise ValueError(f"{name} draws, but not by seed and image id, so its masks cannot be fixed")
