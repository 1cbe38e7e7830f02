"""How the process keeps the memory that it has freed, and in pages of which size."""

import ctypes
import os

# Numbers of mallopt's parameters in glibc's malloc.h.
M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_THRESHOLD = -1, -2, -3
NEVER = -1
LARGEST = 2**31 - 1
TOP_PAD = 2**28

MADV_HUGEPAGE = 14
PAGE = 2**21
GIBIBYTE = 2**30
MOST_GIBIBYTES = 16


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
    malloc.restype, malloc.argtypes, free.argtypes = ctypes.c_void_p, [ctypes.c_size_t], [ctypes.c_void_p]
    madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    settings = {M_MMAP_THRESHOLD: LARGEST, M_TRIM_THRESHOLD: NEVER, M_TOP_PAD: TOP_PAD}
    if not all(mallopt(parameter, value) for parameter, value in settings.items()):
        return False
    # Blocks come from the heap now. These reserve its next addresses, no memory; freed, they are the first to be used.
    blocks = [malloc(GIBIBYTE) for _ in range(half_of_memory())]
    for block in filter(None, blocks):
        first = (block + PAGE - 1) // PAGE * PAGE
        madvise(first, GIBIBYTE - (first - block), MADV_HUGEPAGE)
        free(block)
    return True


def half_of_memory() -> int:
    """In whole GiB."""
    return min(MOST_GIBIBYTES, os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2 // GIBIBYTE)
