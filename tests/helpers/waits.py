"""Finds operations that would make the host wait for a GPU, on the CPU."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

# Operations that read values, or whose result has a shape that depends on values.
WAITS = ("_local_scalar_dense", "equal", "is_nonzero", "masked_select", "nonzero", "_unique2", "bincount")
# Methods that copy values to the CPU. On the CPU they call no operation.
COPIES = (Tensor.tolist, Tensor.numpy, Tensor.cpu)


class RefuseWaits(TorchDispatchMode):
    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        assert func.overloadpacket.__name__ not in WAITS, f"{func} waits for the device"
        return func(*args, **(kwargs or {}))


class RefuseCopies(TorchFunctionMode):
    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        assert func not in COPIES, f"{func.__name__} waits for the device"
        return func(*args, **(kwargs or {}))


@contextmanager
def no_waits() -> Iterator[None]:
    """Raises ``AssertionError`` where a GPU would make the host wait."""
    with RefuseCopies(), RefuseWaits():
        yield
