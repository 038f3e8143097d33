"""What a process holds of the host's memory, and what the C library does with what is freed, where computing happens on a CPU.

glibc gives every large block back to the kernel when it is freed, and the kernel clears it page by page when it is needed again. A
transformer layer frees and needs hundreds of megabytes, so a quarter to a third of the time can go there.
"""

import ctypes
from pathlib import Path

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


def status_bytes(name: str) -> int:
    """A size of this process as Linux tells it (`VmRSS`: now, `VmHWM`: the most so far, `RssAnon`: what no file backs), in bytes; OSError
    on other systems. What getrusage tells as the most so far is at least what the process that started this one held."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{name}:"))
