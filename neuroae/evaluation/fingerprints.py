"""Digests that tell models apart."""

import hashlib
import inspect
import json
from itertools import chain

import torch
from torch import nn

from ..defense import Defense
from ..pretrained.description import describe
from ..structure import is_torchs, structure

KNOWN_PACKAGES = {"torch", "torchvision", "neuroae"}
KEPT_BY_TORCH = vars(nn.Module()).keys()


def fingerprint(model: nn.Module) -> str:
    """Hexadecimal digest of a model's settings, parameters and buffers; the same in every process."""
    digest = hashlib.sha256(settings(model).encode())
    for name, tensor in chain(model.named_parameters(), model.named_buffers()):
        digest.update(f"\n{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        # As bytes, since numpy has no bfloat16.
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def settings(model: nn.Module) -> str:
    """Those that are not among the tensors; of models that we cannot describe, what they are made of, keep and run."""
    gradient = f"autoencoder_identity={model.autoencoder_identity} " if isinstance(model, Defense) else ""
    try:
        return gradient + json.dumps(describe(model), sort_keys=True)
    except TypeError:
        kind = f"{type(model).__module__}.{type(model).__qualname__}"
        return f"{gradient}{kind} {json.dumps(structure(model))}{attributes(model)}{code(model)}"


def attributes(model: nn.Module) -> str:
    """What modules other than PyTorch's keep beside their tensors, as far as it is numbers and words, one a line."""
    lines = [
        f"\n{path} {name} {value!r}"
        for path, module in model.named_modules()
        if not is_torchs(module)
        for name, value in sorted(vars(module).items())
        if name not in KEPT_BY_TORCH and is_plain(value)
    ]
    return "".join(lines)


def is_plain(value: object) -> bool:
    if isinstance(value, (list, tuple)):
        return all(map(is_plain, value))
    if isinstance(value, dict):
        return all(is_plain(key) and is_plain(each) for key, each in value.items())
    return value is None or isinstance(value, (bool, int, float, str))


def code(model: nn.Module) -> str:
    """The source of the modules' classes and of those that they come from, but for torch's and ours."""
    kinds = {kind: None for module in model.modules() for kind in type(module).__mro__}
    found = []
    for kind in kinds:
        if kind.__module__.partition(".")[0] not in KNOWN_PACKAGES:
            try:
                found.append(inspect.getsource(kind))
            except (OSError, TypeError):
                continue
    return "\n".join(found)
