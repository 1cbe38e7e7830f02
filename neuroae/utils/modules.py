"""What a model is made of, in words that are the same in every process and whatever PyTorch's version prints."""

import inspect
import re
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from itertools import chain
from types import CellType, FunctionType, MethodType

from torch import Tensor, nn

SEEDED = {"seed", "image_ids"}
WRAPPERS = {
    "OptimizedModule": "_orig_mod",
    "DataParallel": "module",
    "DistributedDataParallel": "module",
    "FixedBatch": "model",
}

KEPT_BY_TORCH = vars(nn.Module()).keys()
HOOKS = ("_forward_pre_hooks", "_forward_hooks", "_backward_pre_hooks", "_backward_hooks")


def structure(model: nn.Module) -> dict[str, str]:
    """Each module by its path: what it is, its settings and its own tensors."""
    return {path or "model": described(module) for path, module in model.named_modules()}


def described(module: nn.Module) -> str:
    tensors = [f"{name} {tensor.dtype} {tuple(tensor.shape)}" for name, tensor in own_tensors(module)]
    # Addresses of functions and the like differ from process to process.
    kept = re.sub(r" at 0x[0-9a-fA-F]+", "", settings(module))
    return "; ".join([f"{type(module).__qualname__}({kept})", *tensors])


def own_tensors(module: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Its parameters and buffers by name, without those of its parts."""
    return chain(module.named_parameters(recurse=False), module.named_buffers(recurse=False))


def settings(module: nn.Module) -> str:
    """Of PyTorch's own modules the arguments that made them: what they print gains words from version to version."""
    if not is_torchs(module):
        return module.extra_repr()
    asked = inspect.signature(type(module).__init__).parameters
    kept = {name: value for name, value in vars(module).items() if name in asked}
    return ", ".join(f"{name}={value!r}" for name, value in kept.items())


def hooks(module: nn.Module) -> list[Callable[..., object]]:
    """Those that a call of the module runs beside its forward."""
    return [hook for kind in HOOKS for hook in getattr(module, kind, {}).values()]


def is_altered(module: nn.Module) -> bool:
    """Whether a call does something else than its class says: it has hooks, or a forward that was assigned to it."""
    return "forward" in vars(module) or bool(hooks(module))


def is_torchs(module: nn.Module) -> bool:
    return type(module).__module__.startswith("torch.nn.")


def every_module(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """The model's modules by path, with those in its lists, dictionaries and functions, which ``eval()`` misses."""
    seen: set[int] = set()
    waiting: list[tuple[str, object]] = [("", model)]
    while waiting:
        path, value = waiting.pop()
        if id(value) in seen:
            continue
        seen.add(id(value))
        if isinstance(value, nn.Module):
            yield path, value
        waiting += [(f"{path}.{name}" if path else str(name), part) for name, part in parts(value)]


def parts(value: object) -> Iterable[tuple[object, object]]:
    """What a module, a container or a function holds, by name or position; nothing of any other object."""
    if isinstance(value, nn.Module):
        kept = {} if is_torchs(value) else vars(value)
        attributes = ((name, part) for name, part in kept.items() if name not in KEPT_BY_TORCH or name == "forward")
        return [*value.named_children(), *attributes, *(("hook", hook) for hook in hooks(value))]
    if isinstance(value, (list, tuple, set, frozenset)):
        return enumerate(value)
    if isinstance(value, dict):
        return value.items()
    if isinstance(value, partial):
        return enumerate((value.func, value.args, value.keywords))
    if isinstance(value, MethodType):
        return [("__self__", value.__self__), ("__func__", value.__func__)]
    if isinstance(value, FunctionType):
        closed = zip(value.__code__.co_freevars, map(content, value.__closure__ or ()), strict=True)
        return [*closed, ("defaults", value.__defaults__), ("defaults", value.__kwdefaults__)]
    return ()


def content(cell: CellType) -> object:
    """What a function's cell holds; None where that is not assigned yet."""
    try:
        return cell.cell_contents
    except ValueError:
        return None


def takes_seeds(model: nn.Module) -> bool:
    """Whether the model draws by seed and image id, as a ``Defense`` does."""
    try:
        return set(inspect.signature(unwrapped(model).forward).parameters) >= SEEDED
    except (ValueError, TypeError):  # a traced, loaded or frozen TorchScript module keeps no names
        return False


def unwrapped(model: nn.Module) -> nn.Module:
    """The model within torch.compile's or a parallel wrapper, which pass on whatever they are given."""
    while type(model).__name__ in WRAPPERS:
        model = getattr(model, WRAPPERS[type(model).__name__])
    return model
