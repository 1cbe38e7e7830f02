"""Where a model computes."""

import functools
import os

import torch
from torch import Tensor

KINDS = ("cpu", "cuda")
# By these a launcher shows each process its own GPU alone.
ISOLATING = ("CUDA_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES")


def choose_device(name: str | None) -> torch.device:
    """The device of a name, "cpu" or "cuda:1"; None takes this process's GPU if there is one, and the CPU if not.

    "cuda" is this process's GPU too: that of its ``LOCAL_RANK`` where ``torchrun`` started it, else the first.

    Raises:
        ValueError: torch knows no such device, the machine has none, it is of a kind without float64, which all
            engines need, or processes would share a GPU.
    """
    if name is None:
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(f"cuda:{own_gpu()}" if name == "cuda" else name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ValueError(f"device is {name!r}, which cannot be used here: {error}") from error
    if device.type not in KINDS:
        raise ValueError(f"device is {name!r}, expected one of the kinds {', '.join(KINDS)}")
    if device.type == "cuda" and device.index != own_gpu():
        refuse_shared(name)
    return device


def without_waiting(tensor: Tensor, device: torch.device) -> Tensor:
    """The tensor on the device; a GPU fetches it when it gets there, and is not waited for."""
    if device.type == "cuda" and tensor.device.type == "cpu":
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)


def own_gpu() -> int:
    """This process's, among those that it sees: some launchers show each process its own alone."""
    rank, seen = int(os.environ.get("LOCAL_RANK", 0)), torch.cuda.device_count()
    isolated = any(name in os.environ for name in ISOLATING)
    if 0 < seen < local_processes() and not (seen == 1 and isolated):
        raise ValueError(
            f"{local_processes()} processes have {seen} GPUs here; start one for each GPU, or --device cpu"
        )
    return rank % seen if seen else rank


def local_processes() -> int:
    """Those that ``torchrun`` started on this machine."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", 1))


def refuse_shared(name: str) -> None:
    if local_processes() > 1:
        raise ValueError(f'device is {name!r} for each of {local_processes()} processes; "cuda" gives each its own')


@functools.cache
def has_matrix_units() -> bool:
    """Whether this processor multiplies bfloat16 matrices in units of their own (AMX), far faster than float32."""
    return bool(torch.cpu._is_amx_tile_supported())


def has_fast_bfloat16(device: torch.device) -> bool:
    """Whether PyTorch's layers are fast in bfloat16: on GPUs, and on processors for which oneDNN has it."""
    if device.type == "cpu":
        return torch.backends.mkldnn.is_available() and bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
    if device.type != "cuda":
        return True
    with torch.cuda.device(device):
        return torch.cuda.is_bf16_supported(including_emulation=False)
