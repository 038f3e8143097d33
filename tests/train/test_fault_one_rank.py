"""What happens to one rank ends all of them soon, and the first cause is said last: with torchrun, as it is."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from olmo.leaving import EXIT_HUNG
from tests.train.command import CONFIG

pytestmark = pytest.mark.slow


def run(repo: Path, folder: Path, fault: str, *words: str) -> tuple[subprocess.CompletedProcess, float]:
    """Two ranks with `fault` in step 2 of rank 1; also returns the seconds from the end of step 1 to the end of everything."""
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m", "tests.train.faulty"]
    train = [CONFIG, "moving_shapes", f"--save_folder={folder}", "--device_batch_size=1", "--max_duration=4", *words]
    environment = os.environ | {"PYTHONPATH": str(repo), "CUDA_VISIBLE_DEVICES": ""}
    argv = [*torchrun, fault, "2", "1", *map(str, train)]
    done = subprocess.run(argv, env=environment, cwd=repo, capture_output=True, text=True, timeout=280)
    assert len((folder / "metrics.jsonl").read_text().splitlines()) == 1
    return done, time.time() - (folder / "metrics.jsonl").stat().st_mtime


def root_cause(err: str) -> dict[str, str]:
    """The fields of torchrun's last table."""
    lines = err.rstrip().splitlines()
    assert set(lines[-1]) == {"="}
    start = max(i for i, line in enumerate(lines) if line.startswith("Root Cause"))
    assert len(lines) - start < 10, "it stands at the very end"
    return {key.strip(): value.strip() for key, _, value in (line.partition(" : ") for line in lines[start + 2 : -1])}


@pytest.mark.parametrize(
    ("fault", "cause", "printed"),
    [
        ("raise_ours", "the example of this test is broken", "error (rank 1): the example of this test is broken"),
        ("raise_any", "ZeroDivisionError: a fault of this test", "ZeroDivisionError: a fault\nof this test"),
        ("kill", "Signal 9 (SIGKILL) received by PID", None),
    ],
)
def test_fault_in_one_of_two_ranks(fault, cause, printed, shapes, tmp_path, repo):
    """Rank 0 waits in the middle of the step. Seen to fail (the first cause) when rank 0, which only lost its connection, leaves at
    once, and (no cause in the table) without the file that torchrun reads."""
    done, seconds = run(repo, tmp_path, fault)
    assert done.returncode == 1 and seconds < 60
    found = root_cause(done.stderr)
    assert found["rank"] == "1 (local_rank: 1)" and found["traceback"].startswith(cause)
    assert printed is None or printed in done.stderr
    assert "error (rank 0): another rank is gone" in done.stderr


def test_fault_data_loading_that_hangs_in_one_of_two_ranks(shapes, tmp_path, repo):
    """Rank 0 waits in a collective, where no signal and no Python code reaches it; both leave their stacks, and rank 1 is the cause."""
    done, seconds = run(repo, tmp_path, "sleep_for_ever", "--hang_timeout=15")
    assert done.returncode == 1 and seconds < 60
    found = root_cause(done.stderr)
    assert found["rank"] == "1 (local_rank: 1)" and found["exitcode"].startswith(str(EXIT_HUNG))
    assert found["traceback"].startswith("no progress for") and "at: waiting for data (after step 1)" in found["traceback"]
    assert "in sleep_for_ever" in (tmp_path / "stacks/rank1.txt").read_text()
    zero = (tmp_path / "stacks/rank0.txt").read_text()
    assert "at: the start of step 2" in zero and "in all_reduce" in zero
