"""Digests that tell models apart."""

import hashlib
import inspect
import json
import re
from collections.abc import Callable, Iterator
from itertools import chain
from types import BuiltinFunctionType, FunctionType, MethodType

import numpy as np
import torch
from torch import Tensor, nn

from ..nn.defense import Defense
from ..utils.modules import TORCH_ATTRIBUTES, hooks, is_altered, is_torch_module, structure
from ..utils.renamed import RENAMED
from .description import LATER_SETTINGS, describe

Function = FunctionType | BuiltinFunctionType | MethodType
# Fingerprints name a class by the module that it was in when the first were taken, so that they stay.
FORMER_MODULES = {new: old for old, new in RENAMED.items() if new.startswith("neuroae.nn.")} | {
    "neuroae.nn.convolutions": "neuroae.sparse_conv"
}
KNOWN_PACKAGES = {"torch", "torchvision", "neuroae"}


def fingerprint(model: nn.Module) -> str:
    """Hexadecimal digest of a model's settings, parameters, buffers and code; the same in every process."""
    return digest_of(settings(model), model)


def state_fingerprint(model: nn.Module) -> str:
    """The same without code, which may change where what it does stays, and with packed weights.

    Of a model that is described by its settings it is the same digest.
    """
    packed = "".join(f"\n{name} {in_words(value, unnamed)}" for name, value in packed_state(model).items())
    return digest_of(settings(model, with_code=False) + packed, model)


def digest_of(text: str, model: nn.Module) -> str:
    digest = hashlib.sha256(text.encode())
    for name, tensor in chain(model.named_parameters(), model.named_buffers()):
        digest.update(f"\n{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(as_bytes(tensor))
    return digest.hexdigest()


def packed_state(model: nn.Module) -> dict[str, object]:
    """What a model saves beside parameters and buffers: weights that are packed for integers, and extra state."""
    known = {name for name, _ in chain(model.named_parameters(), model.named_buffers())}
    return {name: value for name, value in model.state_dict().items() if name not in known}


def as_bytes(tensor: Tensor) -> bytes:
    if tensor.is_quantized:
        tensor = tensor.dequantize()
    # By way of bytes, since numpy has no bfloat16.
    return tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes()


def settings(model: nn.Module, with_code: bool = True) -> str:
    """Those that are not among the tensors; of models that we cannot describe, what they are made of, keep and run.

    Args:
        model: any.
        with_code: whether the source of functions and classes counts, of models that we cannot describe.
    """
    gradient = f"autoencoder_identity={model.autoencoder_identity} " if isinstance(model, Defense) else ""
    if not any(map(is_altered, model.modules())):
        try:
            return gradient + json.dumps(describe(model), sort_keys=True)
        except TypeError:
            pass
    kind = f"{FORMER_MODULES.get(type(model).__module__, type(model).__module__)}.{type(model).__qualname__}"
    kept = "".join(f"\n{line}" for line in attributes(model, named if with_code else unnamed))
    return f"{gradient}{kind} {json.dumps(structure(model))}{kept}{code(model) if with_code else ''}"


def means_nothing_new(module: nn.Module, name: str, value: object) -> bool:
    """Whether it is a setting that came later, at the value that models without it have: their fingerprints stay."""
    return any(
        isinstance(module, kind) and name in later and later[name] == value for kind, later in LATER_SETTINGS.items()
    )


def attributes(model: nn.Module, describe_function: Callable[[Function], str | None]) -> Iterator[str]:
    """What modules other than PyTorch's keep beside their parameters and buffers, and the hooks of all modules."""
    for path, module in model.named_modules():
        own = {} if is_torch_module(module) else vars(module)
        for name, value in sorted(own.items()):
            if means_nothing_new(module, name, value):
                continue
            told = None if name in TORCH_ATTRIBUTES and name != "forward" else in_words(value, describe_function)
            if told is not None:
                yield f"{path} {name} {told}"
        yield from (f"{path} hook {in_words(hook, describe_function)}" for hook in hooks(module))
        if isinstance(module, torch.jit.ScriptModule):
            # Without lines of files, and the numbers that tell classes of one name apart.
            yield f"{path} {re.sub(r' *#.*|___torch_mangle_[0-9]+[.]', '', str(module.inlined_graph))}"


def named(function: Function) -> str:
    """A function by its name and source."""
    return f"{function.__module__}.{function.__qualname__} {source(function) or ''}"


def unnamed(_: Function) -> None:
    """Where functions do not count."""


def in_words(value: object, describe_function: Callable[[Function], str | None]) -> str | None:
    """Numbers and words as they are, tensors and arrays by a digest, functions as they are described; else None."""
    if value is None or isinstance(value, (bool, int, float, str)):
        return repr(value)
    if isinstance(value, Tensor):
        return f"{value.dtype} {tuple(value.shape)} {hashlib.sha256(as_bytes(value)).hexdigest()}"
    if isinstance(value, (np.ndarray, np.generic)):
        return f"{value.dtype} {value.shape} {hashlib.sha256(value.tobytes()).hexdigest()}"
    if isinstance(value, (FunctionType, BuiltinFunctionType, MethodType)):
        return describe_function(value)
    if isinstance(value, (list, tuple)):
        each = [in_words(part, describe_function) for part in value]
    elif isinstance(value, dict):
        each = [in_words(part, describe_function) for pair in value.items() for part in pair]
    else:
        return None
    return None if None in each else f"{type(value).__name__} {each}"


def code(model: nn.Module) -> str:
    """The source of the modules' classes and of those that they come from, but for torch's and ours."""
    kinds = {kind: None for module in model.modules() for kind in type(module).__mro__}
    others = (kind for kind in kinds if kind.__module__.partition(".")[0] not in KNOWN_PACKAGES)
    return "\n".join(filter(None, map(source, others)))


def source(code: type | Callable[..., object]) -> str | None:
    """None of what is not written in Python."""
    try:
        return inspect.getsource(code)
    except (OSError, TypeError):
        return None
