"""Where a model computes."""

import functools
import os

import torch


def choose_device(name: str | None) -> torch.device:
    """The device of a name, "cpu" or "cuda:1"; None takes this process's GPU if there is one, and the CPU if not.

    "cuda" is this process's GPU too: that of its ``LOCAL_RANK`` where ``torchrun`` started it, else the first.

    Raises:
        ValueError: torch knows no such device, or the machine has none.
    """
    if name is None:
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(f"cuda:{own_gpu()}" if name == "cuda" else name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ValueError(f"device is {name!r}, which cannot be used here: {error}") from error
    return device


def own_gpu() -> int:
    """This process's, among those that it sees: some launchers show each process its own alone."""
    rank, seen = int(os.environ.get("LOCAL_RANK", 0)), torch.cuda.device_count()
    return rank % seen if seen else rank


@functools.cache
def has_matrix_units() -> bool:
    """Whether this processor multiplies bfloat16 matrices in units of their own (AMX), far faster than float32."""
    return bool(torch.cpu._is_amx_tile_supported())


def has_fast_bfloat16(device: torch.device) -> bool:
    """Whether PyTorch's layers are fast in bfloat16: on GPUs, and on processors for which oneDNN has it."""
    return device.type != "cpu" or bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
