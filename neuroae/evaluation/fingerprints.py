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

from ..defense import Defense
from ..pretrained.description import describe
from ..structure import KEPT_BY_TORCH, hooks, is_altered, is_torchs, structure

KNOWN_PACKAGES = {"torch", "torchvision", "neuroae"}


def fingerprint(model: nn.Module) -> str:
    """Hexadecimal digest of a model's settings, parameters and buffers; the same in every process."""
    digest = hashlib.sha256(settings(model).encode())
    for name, tensor in chain(model.named_parameters(), model.named_buffers()):
        digest.update(f"\n{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(as_bytes(tensor))
    return digest.hexdigest()


def as_bytes(tensor: Tensor) -> bytes:
    # By way of bytes, since numpy has no bfloat16.
    return tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes()


def settings(model: nn.Module) -> str:
    """Those that are not among the tensors; of models that we cannot describe, what they are made of, keep and run."""
    gradient = f"autoencoder_identity={model.autoencoder_identity} " if isinstance(model, Defense) else ""
    if not any(map(is_altered, model.modules())):
        try:
            return gradient + json.dumps(describe(model), sort_keys=True)
        except TypeError:
            pass
    kind = f"{type(model).__module__}.{type(model).__qualname__}"
    kept = "".join(f"\n{line}" for line in attributes(model))
    return f"{gradient}{kind} {json.dumps(structure(model))}{kept}{code(model)}"


def attributes(model: nn.Module) -> Iterator[str]:
    """What modules other than PyTorch's keep beside their parameters and buffers, and the hooks of all modules."""
    for path, module in model.named_modules():
        own = {} if is_torchs(module) else vars(module)
        for name, value in sorted(own.items()):
            told = None if name in KEPT_BY_TORCH and name != "forward" else in_words(value)
            if told is not None:
                yield f"{path} {name} {told}"
        yield from (f"{path} hook {in_words(hook)}" for hook in hooks(module))
        if isinstance(module, torch.jit.ScriptModule):
            # Without lines of files, and the numbers that tell classes of one name apart.
            yield f"{path} {re.sub(r' *#.*|___torch_mangle_[0-9]+[.]', '', str(module.inlined_graph))}"


def in_words(value: object) -> str | None:
    """Numbers and words as they are, tensors and arrays by a digest, functions by name and source; else None."""
    if value is None or isinstance(value, (bool, int, float, str)):
        return repr(value)
    if isinstance(value, Tensor):
        return f"{value.dtype} {tuple(value.shape)} {hashlib.sha256(as_bytes(value)).hexdigest()}"
    if isinstance(value, (np.ndarray, np.generic)):
        return f"{value.dtype} {value.shape} {hashlib.sha256(value.tobytes()).hexdigest()}"
    if isinstance(value, (FunctionType, BuiltinFunctionType, MethodType)):
        return f"{value.__module__}.{value.__qualname__} {source(value) or ''}"
    if isinstance(value, (list, tuple)):
        each = [in_words(part) for part in value]
    elif isinstance(value, dict):
        each = [in_words(part) for pair in value.items() for part in pair]
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
