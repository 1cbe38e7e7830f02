"""The device that a process computes on, the dtypes that it is fast in, and the reuse of freed memory."""

import ctypes
import functools
import os
from pathlib import Path

import torch
from torch import Tensor

DEVICE_TYPES = ("cpu", "cuda")
# Environment variables by which a launcher makes only one GPU visible to a process.
ISOLATION_VARIABLES = ("CUDA_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES")

# Parameters of mallopt, as numbered in glibc's malloc.h, with their values here.
M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_MAX = -1, -2, -4
MALLOC_SETTINGS = {M_MMAP_MAX: 0, M_TRIM_THRESHOLD: -1, M_TOP_PAD: 2**28}
MADV_HUGEPAGE = 14
HUGE_PAGE = 2**21
MAX_RESERVED = 2**34


def choose_device(name: str | None) -> torch.device:
    """Returns the device with this name.

    Args:
        name: "cpu", "cuda:1" and so on. "cuda" is this process's GPU: the one of its ``LOCAL_RANK`` if ``torchrun``
            started it, otherwise the first. None chooses "cuda" if there is a GPU, and "cpu" if there is none.

    Raises:
        ValueError: torch does not know the device; the machine does not have it; it is neither a CPU nor a CUDA
            device (others have no float64, which all backends need); or several processes would share a GPU.
    """
    if name is None:
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(f"cuda:{local_gpu()}" if name == "cuda" else name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ValueError(f"device is {name!r}, which cannot be used here: {error}") from error
    if device.type not in DEVICE_TYPES:
        raise ValueError(f"device is {name!r}, expected one of the types {', '.join(DEVICE_TYPES)}")
    if device.type == "cuda" and device.index != local_gpu() and local_processes() > 1:
        raise ValueError(f'device is {name!r} for each of {local_processes()} processes; "cuda" gives each its own')
    return device


def local_gpu() -> int:
    """Returns the index of this process's GPU among the GPUs that it sees.

    Raises:
        ValueError: The machine has fewer GPUs than processes.
    """
    rank, visible = int(os.environ.get("LOCAL_RANK", 0)), torch.cuda.device_count()
    isolated = visible == 1 and any(name in os.environ for name in ISOLATION_VARIABLES)
    if 0 < visible < local_processes() and not isolated:
        raise ValueError(
            f"{local_processes()} processes have {visible} GPUs here; start one process for each GPU, or use "
            "--device cpu"
        )
    return rank % visible if visible else rank


def local_processes() -> int:
    """Returns the number of processes that ``torchrun`` started on this machine."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", 1))


def to_device(tensor: Tensor, device: torch.device) -> Tensor:
    """Returns the tensor on the device, without waiting for a copy from the CPU to a GPU."""
    if device.type == "cuda" and tensor.device.type == "cpu":
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)


@functools.cache
def has_matrix_units() -> bool:
    """Returns whether this processor has matrix units for bfloat16 (AMX), which are far faster than float32."""
    return bool(torch.cpu._is_amx_tile_supported())


def has_fast_bfloat16(device: torch.device) -> bool:
    """Returns whether PyTorch's layers are fast in bfloat16 on this device."""
    if device.type == "cpu":
        return torch.backends.mkldnn.is_available() and bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
    if device.type != "cuda":
        return True
    with torch.cuda.device(device):
        return torch.cuda.is_bf16_supported(including_emulation=False)


def keep_freed_memory() -> bool:
    """Makes the C library keep large freed blocks for reuse, for the life of the process.

    Every training or attack step frees and allocates the same hundreds of megabytes. By default glibc returns such
    blocks to the system and gets them back zeroed page by page, which takes a tenth of a step. Another tenth goes to
    translating addresses, which pages of 2 MiB instead of 4 KiB save. The setting affects the whole process, so only
    the command line makes it, never the library. Its price is that memory stays at its peak.

    Returns:
        Whether the C library supports it.
    """
    try:
        library = ctypes.CDLL(None)
        mallopt, malloc, free, madvise = library.mallopt, library.malloc, library.free, library.madvise
    except (AttributeError, OSError, TypeError):
        return False
    if not all(mallopt(parameter, value) for parameter, value in MALLOC_SETTINGS.items()):
        return False
    malloc.restype, malloc.argtypes, free.argtypes = ctypes.c_void_p, [ctypes.c_size_t], [ctypes.c_void_p]
    madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    # A block at the end of the heap, freed without being written to, marks the addresses that the heap will grow into.
    size = min(MAX_RESERVED, physical_memory() // 2)
    block = malloc(size) if can_reserve_addresses() else None
    if block:
        first = (block + HUGE_PAGE - 1) // HUGE_PAGE * HUGE_PAGE
        madvise(first, block + size - first, MADV_HUGEPAGE)
        free(block)
    return True


def physical_memory() -> int:
    """Returns the machine's memory, in bytes."""
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def can_reserve_addresses() -> bool:
    """Returns whether memory that is allocated and never written to costs nothing and breaks no limit."""
    import resource  # not on Windows

    overcommit = Path("/proc/sys/vm/overcommit_memory")
    strict = overcommit.exists() and overcommit.read_text().strip() == "2"
    limits = (resource.getrlimit(kind)[0] for kind in (resource.RLIMIT_AS, resource.RLIMIT_DATA))
    limited = any(limit != resource.RLIM_INFINITY for limit in limits)
    return not (strict or limited or "MALLOC_PERTURB_" in os.environ)
