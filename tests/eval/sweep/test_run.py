"""Sweeps as processes: killed and started again, and with an evaluation that fails."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from olmo.eval.sweep.plan import plan
from olmo.eval.sweep.run import FINISHED, TABLE, Sweep
from olmo.eval.tasks import resolve_tasks
from olmo.processes import child_environment
from tests.inference.tiny import videos, write_checkpoint


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    data = videos(tmp_path_factory.mktemp("videos"), 2)
    made = {"root": data.config.root, "num_test": 2, "processes": 1}
    return write_checkpoint(tmp_path_factory.mktemp("run"), data={"moving_shapes": made}).parent


def test_a_failing_evaluation_is_told_and_the_others_go_on(checkpoint, tmp_path):
    """The evaluation program is not there, so every point fails in its own process."""
    said = []
    sweep = Sweep(plan({str(checkpoint): [4]}, [0, 0.5], ["scorer"], [0]), resolve_tasks("moving_shapes"), tmp_path, tmp_path / "none.py")
    sweep.run(said.append)
    assert len(said) == len(sweep.failed) == 2 and not sweep.records
    assert all("the evaluation ended with status 2" in reason and "eval.log" in reason for reason in sweep.failed.values())
    assert json.loads((tmp_path / TABLE).read_text())["failed"] == sweep.failed


def test_a_mark_holds_for_its_own_command_and_weights_only(checkpoint, tmp_path):
    """Seen to fail (the old result stands) when the mark is there, whatever it says."""
    points = plan({str(checkpoint): [4]}, [0], [], [])
    sweep = Sweep(points, resolve_tasks("moving_shapes"), tmp_path, tmp_path / "x.py")
    marker = sweep.folder(points[0]) / FINISHED
    marker.parent.mkdir(parents=True)
    marker.write_text(json.dumps({"recipe": sweep.recipe(points[0])}))
    assert sweep.finished(points[0])
    assert not replace(sweep, words=["--max_examples=3"]).finished(points[0])
    assert not replace(sweep, tasks=resolve_tasks("moving_shapes:train")).finished(points[0])
    weights = checkpoint / "step3" / "model.pt"
    before = weights.stat()
    os.utime(weights, ns=(before.st_atime_ns, before.st_mtime_ns + 1))
    assert not sweep.finished(points[0])
    os.utime(weights, ns=(before.st_atime_ns, before.st_mtime_ns))


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_sweep_that_is_ended_goes_on(checkpoint, repo, tmp_path):
    """Ended in its second point, with the evaluation that it had started; then continued; then there is nothing left to do."""
    words = [str(checkpoint), "--tasks=moving_shapes", "--frames", "4", "--topk", "0", "0.5", "--methods", "random", "--seeds", "0", "1"]
    words += ["--max_examples=4", "--num_workers=0", "--device_batch_size=4", f"--output={tmp_path / 'out'}"]
    command = [sys.executable, str(repo / "scripts" / "sweep.py"), *words]
    points = tmp_path / "out" / "points"
    first, second = (points / f"{checkpoint.name}-f4-{name}" for name in ("k0-none", "k0.5-random-s0"))
    process = subprocess.Popen(command, env=child_environment(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        wait_for(lambda: (second / "eval.log").is_file() and children_of(second), process)
        process.send_signal(signal.SIGTERM)
        said = process.communicate(timeout=60)[0]
    finally:
        process.kill()
    assert process.returncode == 128 + signal.SIGTERM and "[1/3]" in said and "[2/3]" not in said
    assert children_of(second) == [] and (first / FINISHED).is_file() and not (second / FINISHED).exists()

    again = subprocess.run(command, env=child_environment(), capture_output=True, text=True, timeout=500)
    assert again.returncode == 0, again.stdout + again.stderr
    lines = [line for line in again.stdout.splitlines() if line.startswith("[")]
    assert [line.endswith("(done already)") for line in lines] == [True, False, False]
    table = json.loads((tmp_path / "out" / TABLE).read_text())
    assert [p["seed"] for p in table["points"]] == [None, 0, 1] and not table["failed"]
    assert [p["tasks"]["moving_shapes:test"]["n"] for p in table["points"]] == [4, 4, 4]
    before, pruned, other = (p["tokens"] for p in table["points"])
    assert before - pruned == before - other == 4 * 9 // 2
    assert (tmp_path / "out" / "sweep.html").is_file()

    once_more = subprocess.run(command, env=child_environment(), capture_output=True, text=True, timeout=200)
    assert once_more.stdout.count("(done already)") == 3
    assert json.loads((tmp_path / "out" / TABLE).read_text())["points"] == table["points"]


def wait_for(condition, process: subprocess.Popen, seconds: float = 300) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < end
        time.sleep(0.1)


def children_of(folder: Path) -> list[str]:
    """Processes that write to a folder."""
    found = []
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if f"--save_dir={folder}" in entry.read_text().split("\0"):
                found.append(entry.parent.name)
        except OSError:
            continue
    return found
