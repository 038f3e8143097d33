"""What the C library does with freed memory, where computing happens on a CPU.

glibc gives every large block back to the kernel when it is freed, and the kernel clears it page by page when it is needed again. A
transformer layer frees and needs hundreds of megabytes, so a quarter to a third of the time can go there.
"""

import ctypes

_MMAP_THRESHOLD, _TRIM_THRESHOLD = -3, -1  # of mallopt(3)
_NEVER = 2**30


def reuse_freed_memory() -> bool:
    """Keep freed blocks of this process for its next ones; returns False where the C library has no such setting."""
    libc = ctypes.CDLL(None)
    if not hasattr(libc, "mallopt"):
        return False
    return bool(libc.mallopt(_MMAP_THRESHOLD, _NEVER) and libc.mallopt(_TRIM_THRESHOLD, 2 * _NEVER - 1))


def release_freed_memory() -> None:
    """Give what is freed back to the kernel once, so that the size of the process says what it uses."""
    libc = ctypes.CDLL(None)
    if hasattr(libc, "malloc_trim"):
        libc.malloc_trim(0)
