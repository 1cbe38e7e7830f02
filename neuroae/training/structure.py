"""What a task is made of, in words that are the same whatever PyTorch's version prints."""

import inspect
from itertools import chain

from torch import nn


def structure(task: nn.Module) -> dict[str, str]:
    """Each module by its path: what it is, its settings and its own tensors."""
    return {path or "task": described(module) for path, module in task.named_modules()}


def described(module: nn.Module) -> str:
    own = chain(module.named_parameters(recurse=False), module.named_buffers(recurse=False))
    tensors = [f"{name} {tensor.dtype} {tuple(tensor.shape)}" for name, tensor in own]
    return "; ".join([f"{type(module).__qualname__}({settings(module)})", *tensors])


def settings(module: nn.Module) -> str:
    """Of PyTorch's own modules the arguments that made them: what they print gains words from version to version."""
    if not type(module).__module__.startswith("torch.nn."):
        return module.extra_repr()
    asked = inspect.signature(type(module).__init__).parameters
    kept = {name: value for name, value in vars(module).items() if name in asked}
    return ", ".join(f"{name}={value!r}" for name, value in kept.items())
