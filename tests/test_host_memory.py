"""Freed memory is used again on CPUs."""

import json
import platform
import subprocess
import sys

PROGRAM = """
import json, resource, sys, torch
from olmo.host_memory import reuse_freed_memory
reuses = sys.argv[1] == "reuse" and reuse_freed_memory()
def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
def work(rounds):
    for _ in range(rounds):
        x = torch.ones(2**24)
        x = (x + 1) * x
work(10)
before = faults()
work(10)
print(json.dumps([reuses, faults() - before]))
"""


def page_faults(mode: str) -> tuple[bool, int]:
    """(whether the C library took the setting, pages that the kernel had to give while thirty blocks of 64 MiB were made)."""
    done = subprocess.run([sys.executable, "-c", PROGRAM, mode], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return tuple(json.loads(done.stdout))


def test_pages_are_not_cleared_again():
    """Nearly 500,000 faults of 4 KiB as glibc comes, and next to none; other C libraries go on as they are."""
    (_, usual), (reuses, reused) = page_faults("as it comes"), page_faults("reuse")
    assert reuses == (platform.libc_ver()[0] == "glibc")
    assert not reuses or (usual > 30 * 16_000 and reused < usual / 5), (usual, reused)
