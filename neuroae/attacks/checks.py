"""What every attack asks of its arguments."""

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
    """Refuses what cannot be attacked, naming the argument.

    Raises:
        TypeError: ``images`` is not float32, or ``labels``, ``image_ids`` or ``targets`` are not int64.
        ValueError: the model is in training mode; ``images`` is not (B, C, H, W), empty, or leaves [0, 1] (tolerance
            1e-6); one of the others is not (B,), lies on another device or holds impossible numbers.
    """
    check_mode("model", model)
    check_images(images)
    check_numbers("labels", labels, images, torch.iinfo(torch.int64).max)
    check_numbers("image_ids", image_ids, images, ID_LIMIT)
    if targets is not None:
        check_numbers("targets", targets, images, torch.iinfo(torch.int64).max)


def check_mode(name: str, model: nn.Module) -> None:
    """Refuses a model in training mode, and one with a normalization that is: it would learn from the attack.

    Other parts may be: dropout, say, that a defense keeps on.
    """
    if is_training(model):
        raise ValueError(f"{name} is in training mode, expected evaluation mode; call {name}.eval()")
    for path, module in every_module(model):
        if has_fixed_mode(module) and learns(module):
            raise ValueError(
                f"{'.'.join(filter(None, (name, path)))} was exported in training mode, expected evaluation mode; "
                "export it again after eval()"
            )
        if learns(module):
            raise ValueError(
                f"{name}.{path} is in training mode, expected evaluation mode; call {name}.eval()"
                + ("" if is_registered(model, module) else f", and {name}.{path}.eval(), which that does not reach")
            )


@contextmanager
def refusing_learners() -> Iterator[None]:
    """Refuses, while the block runs models, every normalization in training mode, whatever object hides it.

    Raises:
        ValueError: one is run.
    """

    def refuse(module: nn.Module, _: object) -> None:
        if learns(module):
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
    """Of a model whose mode is fixed, as in frozen TorchScript, what it does tells, not a flag (see ``learns``)."""
    return bool(getattr(model, "training", False)) and not has_fixed_mode(model)


def has_fixed_mode(module: nn.Module) -> bool:
    """Whether it is one of torch.export's, whose operations know their mode, and whose ``eval()`` raises."""
    return isinstance(module, GraphModule) and "eval" in vars(module)


def learns(module: nn.Module) -> bool:
    """Whether it is a normalization that changes its running statistics, or takes those of the batch, by its mode."""
    if isinstance(module, GraphModule) and has_fixed_mode(module):
        return any(map(updates_statistics, module.graph.nodes))
    if not getattr(module, "training", False):
        return False
    if isinstance(module, torch.jit.ScriptModule):
        return "BatchNorm" in getattr(module, "original_name", "")
    return isinstance(module, _BatchNorm) or (isinstance(module, _NormBase) and module.track_running_stats)


def updates_statistics(node: Node) -> bool:
    """Whether an operation of a graph is a normalization in training mode, with running statistics."""
    schema = getattr(node.target, "_schema", None)
    if schema is None or not schema.name.rpartition("::")[2].lstrip("_").endswith(("batch_norm", "instance_norm")):
        return False
    given = {argument.name: value for argument, value in zip(schema.arguments, node.args, strict=False)} | node.kwargs
    in_training = given.get("training", given.get("use_input_stats")) is True
    return in_training and given.get("running_mean") is not None


def is_registered(model: nn.Module, module: nn.Module) -> bool:
    return any(module is each for each in model.modules())


def check_settings(settings: object, expected: type) -> None:
    if not isinstance(settings, expected):
        raise TypeError(f"settings is a {type(settings).__name__}, expected {expected.__name__}")


def check_images(images: Tensor) -> None:
    if not isinstance(images, Tensor) or images.dtype != torch.float32:
        hint = "; divide by 255" if getattr(images, "dtype", None) == torch.uint8 else ""
        raise TypeError(f"images is {kind(images)}, expected torch.float32 in [0, 1]{hint}")
    if images.dim() != 4 or images.numel() == 0:
        raise ValueError(f"images has shape {tuple(images.shape)}, expected (B, C, H, W), none of them 0")
    low, high = (float(value) for value in images.detach().aminmax())
    if not (low >= -BOX_TOLERANCE and high <= 1 + BOX_TOLERANCE):
        raise ValueError(f"images has values from {low:.6g} to {high:.6g}, expected in [0, 1]")


def check_numbers(name: str, numbers: Tensor, images: Tensor, limit: int) -> None:
    """One number in [0, limit) for each image."""
    if not isinstance(numbers, Tensor) or numbers.dtype != torch.int64:
        raise TypeError(f"{name} is {kind(numbers)}, expected an int64 tensor")
    if numbers.shape != images.shape[:1]:
        raise ValueError(
            f"{name} has shape {tuple(numbers.shape)}, expected ({len(images)},), a number for each image"
        )
    if numbers.device != images.device:
        raise ValueError(f"{name} is on {numbers.device}, expected {images.device}, where the images are")
    low, high = (int(value) for value in numbers.aminmax())
    if low < 0 or high >= limit:
        raise ValueError(f"{name} holds {low if low < 0 else high}, expected in [0, {limit})")


def answered(logits: object) -> Tensor:
    """What a model gave, which has to be a tensor; some give tuples, or a tensor among other things."""
    if not isinstance(logits, Tensor):
        raise TypeError(f"model answers with a {type(logits).__name__}, expected a tensor of logits (B, classes)")
    return logits


def check_logits(logits: Tensor, rows: int, highest: int) -> None:
    """Refuses answers of a model that are not (rows, classes), and classes beyond them."""
    if logits.dim() != 2 or len(logits) != rows:
        raise ValueError(f"model answers with shape {tuple(logits.shape)}, expected logits ({rows}, classes)")
    if highest >= logits.shape[1]:
        raise ValueError(f"labels or targets hold class {highest}, expected below {logits.shape[1]}, as model answers")


def highest_class(labels: Tensor, targets: Tensor | None) -> int:
    return int(max(classes.max() for classes in (labels, targets) if classes is not None))


def check_choice(name: str, value: str, choices: Sequence[str]) -> None:
    if value not in choices:
        raise ValueError(f"{name} is {value!r}, expected one of {', '.join(choices)}")


def kind(value: object) -> str:
    return str(value.dtype) if isinstance(value, Tensor) else f"a {type(value).__name__}"
