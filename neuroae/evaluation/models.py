"""The models that evaluations attack: those of this package, and a user's own."""

import torch
from torch import nn

from ..attacks.checks import check_logits, is_training, no_training_normalization
from ..attacks.protocol import realizer
from ..data import ImageSet
from ..models import load_pretrained
from ..nn.defense import Defense
from ..nn.normalization import NormalizingClassifier
from ..nn.variants import FixedBatch
from ..utils.contexts import repeatable
from ..utils.functions import current_folder_first, is_function, load_function
from ..utils.modules import takes_seeds
from .plan import device_of
from .scoring import Block

# Images that a model is tried on, and draws of each.
PROBED = 8
DRAWS = 8


def load_model(name: str) -> nn.Module:
    """Returns a model in evaluation mode.

    Args:
        name: A folder that ``neuroae train`` wrote, a model that ships with the package, or "module:function": a
            function without arguments that returns a module from (B, C, H, W) images in [0, 1] to (B, classes)
            logits. Modules in the current folder can be imported too.

    Raises:
        FileNotFoundError: There is no folder and no shipped model of this name.
        ImportError: There is no such module.
        ValueError: The module has no such function, it takes arguments, or it returns something else.
    """
    if not is_function(name):
        return load_pretrained(name)[0]
    function = load_function(name)
    with current_folder_first():
        model = function()
    if not isinstance(model, nn.Module):
        raise ValueError(f"{name} returned a {type(model).__name__}, expected a torch.nn.Module")
    if is_training(model):
        raise ValueError(f"{name} returned a model in training mode, expected evaluation mode; call model.eval()")
    return model


def for_any_batch(name: str, model: nn.Module, data: ImageSet, block: int) -> nn.Module:
    """Returns a model that takes any number of images: the model itself, or else the model behind ``FixedBatch``.

    Args:
        name: The model's name, for errors.
        model: The model, in evaluation mode.
        data: Images to try it on.
        block: The number of images that a model of a fixed batch size should take.

    Raises:
        ValueError: The model takes neither any number of images nor ``block`` images.
    """
    if isinstance(model, Defense | NormalizingClassifier):
        return model
    errors = (refusal(model, data, count) for count in (1, 2, PROBED))
    error = next((error for error in errors if error is not None), None)
    if error is None:
        return model
    if refusal(model, data, block) is None:
        return FixedBatch(model, block)
    if isinstance(error, ValueError | TypeError):
        raise error
    reason = str(error).partition("\n")[0] or type(error).__name__
    raise ValueError(
        f"{name} takes neither any number of images nor batches of {block} ({reason}); a model that takes batches of "
        "one size needs that as --block"
    ) from error


def refusal(model: nn.Module, data: ImageSet, count: int) -> Exception | None:
    """Returns the error that a model raises for a batch of so many images, None where it answers."""
    images, _, ids = Block.of(data.take(torch.arange(count) % len(data)), device_of(model))
    try:
        with repeatable(), torch.no_grad():
            realizer(model, images, 0, ids)(0, 1, images.clone())
    except Exception as error:  # models refuse batches by errors of any type
        return error
    return None


def is_random(model: nn.Module, data: ImageSet) -> bool:
    """Returns whether 8 draws of the model differ in their answers to the first 8 images.

    Raises:
        ValueError: The model's answers are no logits of the images' classes, or it runs a normalization in training
            mode.
    """
    images, _, ids = Block.of(data.take(slice(PROBED)), device_of(model))
    with repeatable(), torch.no_grad(), no_training_normalization():
        realize = realizer(model, images, 0, ids)
        # A call each: rows of one batch may differ in their last bits without any draw.
        first, *others = (realize(number, 1, images.clone()).float() for number in range(DRAWS))
    check_logits(first, len(images), int(data.labels.max()))
    return any(not torch.equal(first, other) for other in others)


def require_fixable(name: str, model: nn.Module) -> None:
    """Raises a ValueError for a random model whose masks cannot be fixed."""
    if not takes_seeds(model):
        raise ValueError(f"{name} draws, but not by seed and image id, so its masks cannot be fixed")
