"""The parts of a model: its modules with their settings, tensors and hooks, and whether its forward takes seeds.

Descriptions are the same in every process and in every version of PyTorch.
"""

import inspect
import re
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from itertools import chain
from types import CellType, FunctionType, MethodType

from torch import Tensor, nn

SEED_ARGUMENTS = {"seed", "image_ids"}
# Classes that pass all arguments on to a module, with the attribute that holds the module.
WRAPPERS = {
    "OptimizedModule": "_orig_mod",
    "DataParallel": "module",
    "DistributedDataParallel": "module",
}
TORCH_ATTRIBUTES = vars(nn.Module()).keys()
HOOKS = ("_forward_pre_hooks", "_forward_hooks", "_backward_pre_hooks", "_backward_hooks")


def structure(model: nn.Module) -> dict[str, str]:
    """Returns a description of each module by its path: its class, its settings, and its tensors' names and shapes."""
    return {path or "model": describe(module) for path, module in model.named_modules()}


def describe(module: nn.Module) -> str:
    """Returns a description of the module without its submodules."""
    tensors = [f"{name} {tensor.dtype} {tuple(tensor.shape)}" for name, tensor in direct_tensors(module)]
    # Addresses of functions and other objects differ between processes.
    settings = re.sub(r" at 0x[0-9a-fA-F]+", "", module_settings(module))
    return "; ".join([f"{type(module).__qualname__}({settings})", *tensors])


def direct_tensors(module: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Yields the module's parameters and buffers by name, without those of its submodules."""
    return chain(module.named_parameters(recurse=False), module.named_buffers(recurse=False))


def module_settings(module: nn.Module) -> str:
    """Returns the module's settings as text.

    For PyTorch's modules these are the arguments of the constructor, since ``extra_repr`` changes between versions.
    """
    if not is_torch_module(module):
        return module.extra_repr()
    arguments = inspect.signature(type(module).__init__).parameters
    settings = {name: value for name, value in vars(module).items() if name in arguments}
    return ", ".join(f"{name}={value!r}" for name, value in settings.items())


def is_torch_module(module: nn.Module) -> bool:
    """Returns whether the module's class is one of PyTorch's."""
    return type(module).__module__.startswith("torch.nn.")


def is_altered(module: nn.Module) -> bool:
    """Returns whether the module has hooks, or a ``forward`` of its own that replaces the class's."""
    return "forward" in vars(module) or bool(hooks(module))


def hooks(module: nn.Module) -> list[Callable[..., object]]:
    """Returns the hooks that a call of the module runs beside its ``forward``."""
    return [hook for kind in HOOKS for hook in getattr(module, kind, {}).values()]


def every_module(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Yields all modules of the model by path, including those in lists, dictionaries and functions.

    PyTorch does not register modules in such places, so ``model.eval()`` does not reach them.
    """
    visited: set[int] = set()
    stack: list[tuple[str, object]] = [("", model)]
    while stack:
        path, value = stack.pop()
        if id(value) in visited:
            continue
        visited.add(id(value))
        if isinstance(value, nn.Module):
            yield path, value
        stack += [(f"{path}.{name}" if path else str(name), part) for name, part in parts(value)]


def parts(value: object) -> Iterable[tuple[object, object]]:
    """Returns the contents of a module, container or function, by name or position; nothing for other objects."""
    if isinstance(value, nn.Module):
        variables = {} if is_torch_module(value) else vars(value)
        attributes = (
            (name, part) for name, part in variables.items() if name not in TORCH_ATTRIBUTES or name == "forward"
        )
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
        closure = zip(value.__code__.co_freevars, map(cell_content, value.__closure__ or ()), strict=True)
        return [*closure, ("defaults", value.__defaults__), ("defaults", value.__kwdefaults__)]
    return ()


def cell_content(cell: CellType) -> object:
    """Returns the value of a variable that a function closes over; None if it is not assigned yet."""
    try:
        return cell.cell_contents
    except ValueError:
        return None


def takes_seeds(model: nn.Module) -> bool:
    """Returns whether the model takes ``seed`` and ``image_ids``, as a ``Defense`` does."""
    try:
        return set(inspect.signature(unwrap(model).forward).parameters) >= SEED_ARGUMENTS
    except (ValueError, TypeError):  # traced, loaded and frozen TorchScript modules have no argument names
        return False


class Wrapper(nn.Module):
    """A module around a model in evaluation mode that passes on whatever it is given.

    Attributes:
        model: The model inside.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        # Not by eval(), which models with a fixed mode do not have.
        self.training = False

    def rows_at_once(self) -> int | None:
        """Returns how many rows the model inside takes in one call, each with draws of its own; None for one by one.

        A model that draws by seeds gets one seed a call, and so one realization.
        """
        rows: Callable[[], int | None] | None = getattr(self.model, "rows_at_once", None)
        return None if rows is None or takes_seeds(self.model) else rows()


def unwrap(model: nn.Module) -> nn.Module:
    """Returns the model inside of wrappers, such as those of ``torch.compile`` and of ours."""
    while isinstance(model, Wrapper) or type(model).__name__ in WRAPPERS:
        model = model.model if isinstance(model, Wrapper) else getattr(model, WRAPPERS[type(model).__name__])
    return model
