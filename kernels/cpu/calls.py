"""Calls of the library, and what both kinds of operations hand it."""

from collections.abc import Sequence

import torch
from torch import Tensor

from .library import BAD_INDEX, FORKED, NO_MEMORY, library
from .structures import Code


def run(operation: str, *arguments: object) -> int:
    """Calls the library; ctypes releases the interpreter lock meanwhile."""
    status: int = getattr(library(), f"neuroae_{operation}")(*arguments, torch.get_num_threads())
    if status == NO_MEMORY:
        raise MemoryError(f"the C++ engine found no memory for {operation}")
    if status == FORKED:
        raise RuntimeError(
            f"{operation} runs in a forked process, whose parent computed in parallel: its threads are not here, and "
            "waiting for them would never end. Start processes by spawn (torch.multiprocessing.get_context('spawn')), "
            "or call torch.set_num_threads(1) first"
        )
    return status


def empty(
    shape: Sequence[int],
    dtype: torch.dtype = torch.float32,
    memory_format: torch.memory_format = torch.contiguous_format,
) -> Tensor:
    """For the library to write to: of this type and in this machine's memory, whatever PyTorch's defaults are."""
    return torch.empty(shape, dtype=dtype, device="cpu", memory_format=memory_format)


def pointer(tensor: Tensor | None) -> int | None:
    return None if tensor is None else tensor.data_ptr()


def code_struct(index: Tensor, value: Tensor | None, projection: Tensor | None, count: Tensor | None) -> Code:
    return Code(pointer(index), pointer(value), pointer(projection), pointer(count), *index.shape)


def refuse_bad_index(status: int, index: Tensor, atoms: int) -> None:
    if status == BAD_INDEX:
        raise ValueError(f"index names atom {int(index.max())}, expected -1 to {atoms - 1}")
