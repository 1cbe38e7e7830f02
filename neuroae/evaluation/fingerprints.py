"""Digests that tell models apart."""

import hashlib
import json
import re
from itertools import chain

import torch
from torch import nn

from ..defense import Defense
from ..pretrained.description import describe


def fingerprint(model: nn.Module) -> str:
    """Hexadecimal digest of a model's settings, parameters and buffers; the same in every process."""
    digest = hashlib.sha256(settings(model).encode())
    for name, tensor in chain(model.named_parameters(), model.named_buffers()):
        digest.update(f"\n{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        # As bytes, since numpy has no bfloat16.
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def settings(model: nn.Module) -> str:
    """Those that are not among the tensors; of models that we cannot describe, what they print."""
    gradient = f"autoencoder_identity={model.autoencoder_identity} " if isinstance(model, Defense) else ""
    try:
        return gradient + json.dumps(describe(model), sort_keys=True)
    except TypeError:
        # Addresses of functions and the like differ from process to process.
        printed = re.sub(r" at 0x[0-9a-f]+", "", repr(model))
        return f"{gradient}{type(model).__module__}.{type(model).__qualname__} {printed}"
