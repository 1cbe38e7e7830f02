"""How the process keeps the memory that it has freed, and in pages of which size."""

import ctypes
import os
from pathlib import Path

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
