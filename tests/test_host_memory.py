"""Freed memory is used again on CPUs."""

import subprocess
import sys

import pytest

PROGRAM = """
import resource, sys, torch
from olmo.host_memory import reuse_freed_memory
if sys.argv[1] == "reuse" and not reuse_freed_memory():
    sys.exit(3)
def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
def work(rounds):
    for _ in range(rounds):
        x = torch.ones(2**24)
        x = (x + 1) * x
work(10)
before = faults()
work(10)
print(faults() - before)
"""


def page_faults(mode: str) -> int:
    done = subprocess.run([sys.executable, "-c", PROGRAM, mode], capture_output=True, text=True)
    if done.returncode == 3:
        pytest.skip("this C library keeps its own rules")
    assert done.returncode == 0, done.stderr
    return int(done.stdout)


def test_pages_are_not_cleared_again():
    """Thirty blocks of 64 MiB, 4 KiB a page: nearly 500,000 faults as the library comes, and next to none."""
    usual, reused = page_faults("as it comes"), page_faults("reuse")
    assert usual > 30 * 16_000 and reused < usual / 5, (usual, reused)
