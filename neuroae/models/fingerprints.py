"""Digests that distinguish models.

Evaluations store these digests, so the text that is hashed must stay the same to the byte.
"""

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
# Fingerprints name a class by the module that defined it in version 0.1, so that they do not change.
FORMER_MODULES = {new: old for old, new in RENAMED.items() if new.startswith("neuroae.nn.")} | {
    "neuroae.nn.convolutions": "neuroae.sparse_conv"
}
LIBRARIES = {"torch", "torchvision", "neuroae"}


def fingerprint(model: nn.Module) -> str:
    """Returns a hexadecimal digest of a model's settings, parameters, buffers and code, the same in every process."""
    return digest_of(settings(model), model)


def state_fingerprint(model: nn.Module) -> str:
    """Returns a digest like ``fingerprint``, with packed weights and without code.

    A change of code may leave the model's results the same. For a model that a folder can hold, both digests agree.
    """
    packed = "".join(f"\n{name} {text_of(value, ignore_function)}" for name, value in packed_state(model).items())
    return digest_of(settings(model, with_code=False) + packed, model)


def digest_of(text: str, model: nn.Module) -> str:
    """Returns the digest of a text and of the model's parameters and buffers."""
    digest = hashlib.sha256(text.encode())
    for name, tensor in chain(model.named_parameters(), model.named_buffers()):
        digest.update(f"\n{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(as_bytes(tensor))
    return digest.hexdigest()


def packed_state(model: nn.Module) -> dict[str, object]:
    """Returns the state_dict's other entries than parameters and buffers: packed integer weights, and extra state."""
    tensors = {name for name, _ in chain(model.named_parameters(), model.named_buffers())}
    return {name: value for name, value in model.state_dict().items() if name not in tensors}


def as_bytes(tensor: Tensor) -> bytes:
    """Returns a tensor's values as bytes."""
    if tensor.is_quantized:
        tensor = tensor.dequantize()
    # Viewed as bytes first, since numpy has no bfloat16.
    return tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes()


def settings(model: nn.Module, with_code: bool = True) -> str:
    """Returns a model's settings as text: its configuration, or else its structure, attributes, hooks and code.

    Args:
        model: Any model.
        with_code: Whether the text contains the source of functions and classes, for a model without a configuration.
    """
    gradient = f"autoencoder_identity={model.autoencoder_identity} " if isinstance(model, Defense) else ""
    if not any(map(is_altered, model.modules())):
        try:
            return gradient + json.dumps(describe(model), sort_keys=True)
        except TypeError:
            pass
    kind = f"{FORMER_MODULES.get(type(model).__module__, type(model).__module__)}.{type(model).__qualname__}"
    lines = "".join(f"\n{line}" for line in attributes(model, source_text if with_code else ignore_function))
    return f"{gradient}{kind} {json.dumps(structure(model))}{lines}{code(model) if with_code else ''}"


def is_later_default(module: nn.Module, name: str, value: object) -> bool:
    """Returns whether a later setting has the value of models without it; it must then not change fingerprints."""
    return any(
        isinstance(module, kind) and name in later and later[name] == value for kind, later in LATER_SETTINGS.items()
    )


def attributes(model: nn.Module, describe_function: Callable[[Function], str | None]) -> Iterator[str]:
    """Yields a line for each attribute of modules other than PyTorch's, and for each hook of all modules.

    Parameters and buffers are left out. ``describe_function`` returns the text of a function, or None to ignore it.
    """
    for path, module in model.named_modules():
        values = {} if is_torch_module(module) else vars(module)
        for name, value in sorted(values.items()):
            if is_later_default(module, name, value):
                continue
            text = None if name in TORCH_ATTRIBUTES and name != "forward" else text_of(value, describe_function)
            if text is not None:
                yield f"{path} {name} {text}"
        yield from (f"{path} hook {text_of(hook, describe_function)}" for hook in hooks(module))
        if isinstance(module, torch.jit.ScriptModule):
            # Without line numbers, and without the numbers that distinguish classes of one name.
            yield f"{path} {re.sub(r' *#.*|___torch_mangle_[0-9]+[.]', '', str(module.inlined_graph))}"


def source_text(function: Function) -> str:
    """Returns a function's name and source."""
    return f"{function.__module__}.{function.__qualname__} {source(function) or ''}"


def ignore_function(_: Function) -> None:
    """Returns no text, for digests that do not depend on functions."""


def text_of(value: object, describe_function: Callable[[Function], str | None]) -> str | None:
    """Returns a value as text: plain values by ``repr``, tensors and arrays by a digest, functions by their text.

    Returns None for values of other types, and for containers with such values.
    """
    if value is None or isinstance(value, (bool, int, float, str)):
        return repr(value)
    if isinstance(value, Tensor):
        return f"{value.dtype} {tuple(value.shape)} {hashlib.sha256(as_bytes(value)).hexdigest()}"
    if isinstance(value, (np.ndarray, np.generic)):
        return f"{value.dtype} {value.shape} {hashlib.sha256(value.tobytes()).hexdigest()}"
    if isinstance(value, (FunctionType, BuiltinFunctionType, MethodType)):
        return describe_function(value)
    if isinstance(value, (list, tuple)):
        texts = [text_of(part, describe_function) for part in value]
    elif isinstance(value, dict):
        texts = [text_of(part, describe_function) for pair in value.items() for part in pair]
    else:
        return None
    return None if None in texts else f"{type(value).__name__} {texts}"


def code(model: nn.Module) -> str:
    """Returns the source of the modules' classes and their bases, except torch's and ours."""
    kinds = {kind: None for module in model.modules() for kind in type(module).__mro__}
    others = (kind for kind in kinds if kind.__module__.partition(".")[0] not in LIBRARIES)
    return "\n".join(filter(None, map(source, others)))


def source(code: type | Callable[..., object]) -> str | None:
    """Returns the source of a class or function; None where it is not written in Python."""
    try:
        return inspect.getsource(code)
    except (OSError, TypeError):
        return None
