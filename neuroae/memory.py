"""How the process keeps the memory that it has freed."""

import ctypes

# Numbers of mallopt's parameters in glibc's malloc.h.
M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_THRESHOLD = -1, -2, -3
LARGEST = 2**31 - 1
TOP_PAD = 2**28


def keep_freed_memory() -> bool:
    """Has the C library keep large freed blocks for reuse, for the life of the process; False where it cannot.

    Every training or attack step frees and takes the same hundreds of megabytes. By default glibc gives such blocks
    back to the system and gets them again zeroed page by page, which costs a tenth of a step. It is a setting of the
    whole process, so the command line makes it, and the library never does. The price is that memory stays at its
    peak.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return False
    settings = {M_MMAP_THRESHOLD: LARGEST, M_TRIM_THRESHOLD: LARGEST, M_TOP_PAD: TOP_PAD}
    accepted = [mallopt(parameter, value) for parameter, value in settings.items()]
    return all(accepted)
