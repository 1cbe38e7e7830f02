"""Checks of the arguments of attacks, and of the logits of attacked models."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.fx import GraphModule, Node
from torch.nn.modules.batchnorm import _BatchNorm, _NormBase
from torch.nn.modules.module import register_module_forward_pre_hook

from ..utils.modules import every_module

BOX_TOLERANCE = 1e-6
ID_LIMIT = 2**32


def check_inputs(
    model: nn.Module, images: Tensor, labels: Tensor, image_ids: Tensor, targets: Tensor | None = None
) -> None:
    """Checks the arguments of an attack; the error names the argument.

    Raises:
        TypeError: ``images`` is not float32, or ``labels``, ``image_ids`` or ``targets`` are not int64.
        ValueError: The model is in training mode. ``images`` is not (B, C, H, W), is empty, or leaves [0, 1]
            (tolerance 1e-6). One of the others is not (B,), is on another device or holds numbers out of range.
    """
    check_mode("model", model)
    check_images(images)
    check_numbers("labels", labels, images, torch.iinfo(torch.int64).max)
    check_numbers("image_ids", image_ids, images, ID_LIMIT)
    if targets is not None:
        check_numbers("targets", targets, images, torch.iinfo(torch.int64).max)


def check_mode(name: str, model: nn.Module) -> None:
    """Checks that a model and all its normalizations are in evaluation mode, so that it learns nothing from an attack.

    Other modules may be in training mode, such as the dropout of a defense.

    Raises:
        ValueError: The model or one of its normalizations is in training mode.
    """
    if is_training(model):
        raise ValueError(f"{name} is in training mode, expected evaluation mode; call {name}.eval()")
    for path, module in every_module(model):
        if has_fixed_mode(module) and is_training_normalization(module):
            raise ValueError(
                f"{'.'.join(filter(None, (name, path)))} was exported in training mode, expected evaluation mode; "
                "export it again after eval()"
            )
        if is_training_normalization(module):
            raise ValueError(
                f"{name}.{path} is in training mode, expected evaluation mode; call {name}.eval()"
                + ("" if is_registered(model, module) else f", and {name}.{path}.eval(), which it does not reach")
            )


@contextmanager
def no_training_normalization() -> Iterator[None]:
    """Raises an error where the block runs a normalization in training mode, even one that ``check_mode`` misses.

    Raises:
        ValueError: A model runs such a normalization.
    """

    def refuse(module: nn.Module, _: object) -> None:
        if is_training_normalization(module):
            raise ValueError(
                f"model runs a {type(module).__name__} in training mode, expected evaluation mode; "
                "call eval() of that module, which model.eval() does not reach"
            )

    handle = register_module_forward_pre_hook(refuse)
    try:
        yield
    finally:
        handle.remove()


def is_training(model: nn.Module) -> bool:
    """Returns whether a model's flag says training mode.

    A model with a fixed mode, such as an exported one, has no valid flag; its operations have to be checked
    (``is_training_normalization``).
    """
    return bool(getattr(model, "training", False)) and not has_fixed_mode(model)


def has_fixed_mode(module: nn.Module) -> bool:
    """Returns whether a module comes from torch.export: its operations have a fixed mode, and ``eval()`` raises."""
    return isinstance(module, GraphModule) and "eval" in vars(module)


def is_training_normalization(module: nn.Module) -> bool:
    """Returns whether a module is a normalization in training mode, which uses the batch's statistics."""
    if isinstance(module, GraphModule) and has_fixed_mode(module):
        return any(map(updates_statistics, module.graph.nodes))
    if not getattr(module, "training", False):
        return False
    if isinstance(module, torch.jit.ScriptModule):
        return "BatchNorm" in getattr(module, "original_name", "")
    return isinstance(module, _BatchNorm) or (isinstance(module, _NormBase) and module.track_running_stats)


def updates_statistics(node: Node) -> bool:
    """Returns whether an operation of a graph is a normalization in training mode, with running statistics."""
    schema = getattr(node.target, "_schema", None)
    if schema is None or not schema.name.rpartition("::")[2].lstrip("_").endswith(("batch_norm", "instance_norm")):
        return False
    names = (argument.name for argument in schema.arguments)
    arguments = dict(zip(names, node.args, strict=False)) | node.kwargs
    in_training = arguments.get("training", arguments.get("use_input_stats")) is True
    return in_training and arguments.get("running_mean") is not None


def is_registered(model: nn.Module, module: nn.Module) -> bool:
    """Returns whether ``model.eval()`` reaches a module."""
    return any(module is each for each in model.modules())


def check_settings(settings: object, expected: type) -> None:
    """Checks the class of an attack's settings."""
    if not isinstance(settings, expected):
        raise TypeError(f"settings is a {type(settings).__name__}, expected {expected.__name__}")


def check_images(images: Tensor) -> None:
    """Checks dtype, shape and range of images."""
    if not isinstance(images, Tensor) or images.dtype != torch.float32:
        hint = "; divide by 255" if getattr(images, "dtype", None) == torch.uint8 else ""
        raise TypeError(f"images is {describe_type(images)}, expected torch.float32 in [0, 1]{hint}")
    if images.dim() != 4 or images.numel() == 0:
        raise ValueError(f"images has shape {tuple(images.shape)}, expected (B, C, H, W), none of them 0")
    low, high = (float(value) for value in images.detach().aminmax())
    if not (low >= -BOX_TOLERANCE and high <= 1 + BOX_TOLERANCE):
        raise ValueError(f"images has values from {low:.6g} to {high:.6g}, expected in [0, 1]")


def check_numbers(name: str, numbers: Tensor, images: Tensor, limit: int) -> None:
    """Checks that a tensor holds an int64 number in [0, limit) for each image, on the images' device."""
    if not isinstance(numbers, Tensor) or numbers.dtype != torch.int64:
        raise TypeError(f"{name} is {describe_type(numbers)}, expected an int64 tensor")
    if numbers.shape != images.shape[:1]:
        raise ValueError(
            f"{name} has shape {tuple(numbers.shape)}, expected ({len(images)},), a number for each image"
        )
    if numbers.device != images.device:
        raise ValueError(f"{name} is on {numbers.device}, expected {images.device}, where the images are")
    low, high = (int(value) for value in numbers.aminmax())
    if low < 0 or high >= limit:
        raise ValueError(f"{name} holds {low if low < 0 else high}, expected in [0, {limit})")


def require_tensor(output: object) -> Tensor:
    """Returns a model's output; TypeError where it is no tensor, but a tuple or dictionary with one, say."""
    if not isinstance(output, Tensor):
        kind = type(output).__name__
        hint = "; return torch.from_numpy(scores)" if kind == "ndarray" else "; return the logits alone"
        raise TypeError(f"model answers with a {kind}, expected a tensor of logits (B, classes){hint}")
    return output


def check_logits(logits: Tensor, rows: int, highest: int) -> None:
    """Checks the shape of a model's logits, and that they have the highest class among labels and targets."""
    if logits.dim() != 2 or len(logits) != rows or logits.shape[1] < 2:
        is_class = logits.dim() == 1 or logits.shape[1:] == (1,)
        hint = "; return a score for each class, not the class alone" if is_class else ""
        raise ValueError(f"model answers with shape {tuple(logits.shape)}, expected logits ({rows}, classes){hint}")
    if highest >= logits.shape[1]:
        raise ValueError(
            f"labels or targets hold class {highest}, expected below {logits.shape[1]}, the number of logits"
        )


def highest_class(labels: Tensor, targets: Tensor | None) -> int:
    """Returns the highest class among labels and targets."""
    return int(max(classes.max() for classes in (labels, targets) if classes is not None))


def check_choice(name: str, value: str, choices: Sequence[str]) -> None:
    """Checks that a setting is one of its choices."""
    if value not in choices:
        raise ValueError(f"{name} is {value!r}, expected one of {', '.join(choices)}")


def describe_type(value: object) -> str:
    """Returns a tensor's dtype or a value's type, for error messages."""
    return str(value.dtype) if isinstance(value, Tensor) else f"a {type(value).__name__}"
