"""How the process keeps the memory that it has freed, and in pages of which size."""

import ctypes
import functools
import os
from pathlib import Path

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
            backends need, or processes would share a GPU.
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


# Numbers of mallopt's parameters in glibc's malloc.h.
M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_MAX = -1, -2, -4
NEVER, NONE = -1, 0
TOP_PAD = 2**28

MADV_HUGEPAGE = 14
PAGE = 2**21
MOST_RESERVED = 2**34


def keep_freed_memory() -> bool:
    """Has the C library keep large freed blocks for reuse, for the life of the process; False where it cannot.

    Every training or attack step frees and takes the same hundreds of megabytes. By default glibc gives such blocks
    back to the system and gets them again zeroed page by page, which costs a tenth of a step. In pages of 2 MiB
    instead of 4 KiB, another tenth is not spent on the translation of addresses. It is a setting of the whole process,
    so the command line makes it, and the library never does. The price is that memory stays at its peak.
    """
    try:
        library = ctypes.CDLL(None)
        mallopt, malloc, free, madvise = library.mallopt, library.malloc, library.free, library.madvise
    except (AttributeError, OSError, TypeError):
        return False
    settings = {M_MMAP_MAX: NONE, M_TRIM_THRESHOLD: NEVER, M_TOP_PAD: TOP_PAD}
    if not all(mallopt(parameter, value) for parameter, value in settings.items()):
        return False
    malloc.restype, malloc.argtypes, free.argtypes = ctypes.c_void_p, [ctypes.c_size_t], [ctypes.c_void_p]
    madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    # A block at the end of the heap, never written to, and freed: large pages are asked for where the heap will grow.
    size = min(MOST_RESERVED, physical_memory() // 2)
    block = malloc(size) if addresses_are_free() else None
    if block:
        first = (block + PAGE - 1) // PAGE * PAGE
        madvise(first, block + size - first, MADV_HUGEPAGE)
        free(block)
    return True


def physical_memory() -> int:
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def addresses_are_free() -> bool:
    """Whether memory counts when it is written to, and not before, and how much address space there is does not."""
    import resource

    overcommit = Path("/proc/sys/vm/overcommit_memory")
    strict = overcommit.exists() and overcommit.read_text().strip() == "2"
    limits = (resource.getrlimit(kind)[0] for kind in (resource.RLIMIT_AS, resource.RLIMIT_DATA))
    limited = any(limit != resource.RLIM_INFINITY for limit in limits)
    return not (strict or limited or "MALLOC_PERTURB_" in os.environ)
