"""The launch examples of docs/scaling.md: two machines that find each other, and the SLURM script with its signals."""

import os
import re
import shlex
import signal
import socket
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest

from olmo.checkpoints import select_checkpoint
from tests.test_docs import commands
from tests.train.command import CONFIG, records
from tests.train.conftest import shapes_folder  # noqa: F401

REPO = Path(__file__).resolve().parents[2]
SBATCH = REPO / "scripts/slurm/train.sbatch"
DOCUMENTED = commands(REPO / "docs/scaling.md")
SMALL = [str(CONFIG), "moving_shapes", "--num_workers=0", "--console_log_interval=1"]


def environment(shapes, **more: str) -> dict[str, str]:  # noqa: F811
    return os.environ | {"PYTHONPATH": str(REPO), "OMP_NUM_THREADS": "1", "MOLMO_DATA_DIR": str(shapes), "CUDA_VISIBLE_DEVICES": ""} | more


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.mark.slow
def test_two_machines_find_each_other(shapes_folder, tmp_path):  # noqa: F811
    """The documented command on two "machines" with one process each, both this one: two ranks train two steps together."""
    command = next(c for c in DOCUMENTED if c.startswith("torchrun --nnodes"))
    words = shlex.split(command)
    start = words.index("launch_scripts/sft.py")
    launcher = [{"8": "1", "node1:29400": f"127.0.0.1:{free_port()}"}.get(w, w) for w in words[1:start]]
    assert "2" in launcher and "c10d" in launcher
    run = [sys.executable, "-m", "torch.distributed.run", *launcher, "--local-addr=127.0.0.1", words[start], *SMALL]
    run += ["--max_duration=2", f"--save_folder={tmp_path}"]
    machines = [
        subprocess.Popen(run, cwd=REPO, env=environment(shapes_folder), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        for _ in range(2)
    ]
    outputs = [machine.communicate(timeout=240)[0] for machine in machines]
    assert [machine.returncode for machine in machines] == [0, 0], outputs
    assert [r["step"] for r in records(tmp_path)] == [1, 2]
    assert sorted(p.name for p in (select_checkpoint(tmp_path) / "train").iterdir()) == ["rank0.pt", "rank1.pt"]


# ---------------------------------------------------------------------------------------------- SLURM


SRUN = """#!/bin/bash
# Two tasks on this machine; SIGTERM goes to both, as from the real one.
while [[ $1 == --* ]]; do shift; done
tasks=()
for ((i = 0; i < SLURM_NTASKS; i++)); do
    SLURM_PROCID=$i SLURM_LOCALID=$i "$@" &
    tasks+=($!)
done
trap 'kill -TERM "${tasks[@]}"' TERM
status=0
for task in "${tasks[@]}"; do
    wait "$task"; code=$?
    while kill -0 "$task" 2>/dev/null; do wait "$task"; code=$?; done
    (( code > status )) && status=$code
done
exit $status
"""
SCONTROL = """#!/bin/bash
if [ "$1" = show ]; then echo 127.0.0.1; echo 127.0.0.2; else echo "$@" >> "$REQUESTS"; fi
"""


@pytest.fixture
def cluster(tmp_path, shapes_folder):  # noqa: F811
    """An environment in which `srun` and `scontrol` are small scripts, and `python` this interpreter."""
    tools = tmp_path / "bin"
    tools.mkdir()
    for name, text in (("srun", SRUN), ("scontrol", SCONTROL), ("python", f'#!/bin/bash\nexec {sys.executable} "$@"\n')):
        (tools / name).write_text(text)
        (tools / name).chmod(0o755)
    slurm = {"SLURM_JOB_ID": "77", "SLURM_NTASKS": "2", "SLURM_JOB_NODELIST": "node[1-2]", "MASTER_PORT": str(free_port())}
    requests = tmp_path / "requests"
    requests.touch()
    return environment(shapes_folder, PATH=f"{tools}:{os.environ['PATH']}", REQUESTS=str(requests), **slurm), requests


def submit(env: dict[str, str], *words: str) -> subprocess.Popen:
    run = ["bash", SBATCH, "launch_scripts/sft.py", *SMALL, *words]
    return subprocess.Popen(run, cwd=REPO, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def test_the_script_is_sound():
    """It is shell, and asks SLURM for the signal and for requeueing."""
    assert subprocess.run(["bash", "-n", SBATCH]).returncode == 0
    options = re.findall(r"^#SBATCH (--\S+)", SBATCH.read_text(), re.M)
    assert {"--signal=B:TERM@120", "--requeue", "--open-mode=append"} <= set(options)
    assert stat.S_ISREG(SBATCH.stat().st_mode)


def test_the_script_hands_on_words_and_status(cluster, tmp_path):
    """Arguments with spaces arrive whole, each rank knows its place, and a failure is the job's; nothing is requeued."""
    (env, requests), words = cluster, ["a b", "--c='d'"]
    told = '{e["RANK"]} {e["WORLD_SIZE"]} {e["MASTER_ADDR"]} {sys.argv[1:]}'
    code = f"import os, sys; e = os.environ; os.write(1, (f'{told}' + chr(10)).encode())"
    (tmp_path / "rank.py").write_text(f"{code}\nsys.exit(3)")
    done = subprocess.run(["bash", SBATCH, tmp_path / "rank.py", *words], env=env, capture_output=True, text=True, timeout=60)
    assert done.returncode == 3 and not requests.read_text()
    assert sorted(done.stdout.splitlines()) == [f"{rank} 2 127.0.0.1 {words}" for rank in (0, 1)]


@pytest.mark.slow
def test_a_job_that_is_stopped_goes_on(cluster, tmp_path):
    """SIGTERM to the batch script alone, as `--signal=B:TERM` sends it: both ranks save, the job asks to be requeued, and the same
    command goes on where it stopped. Seen to fail without the second wait: the script then leaves while the ranks still save."""
    env, requests = cluster
    words = ("--allow_resume=true", "--save_interval=null", f"--save_folder={tmp_path / 'run'}")
    job = submit(env, "--max_duration=5000", *words)
    metrics, deadline = tmp_path / "run/metrics.jsonl", time.monotonic() + 200
    while time.monotonic() < deadline and not (metrics.is_file() and len(metrics.read_text().splitlines()) > 1):
        time.sleep(0.2)
    job.send_signal(signal.SIGTERM)
    out = job.communicate(timeout=200)[0]
    assert job.returncode == 0 and requests.read_text() == "requeue 77\n", out
    stopped = len(records(tmp_path / "run"))
    assert select_checkpoint(tmp_path / "run").name == f"step{stopped}", out
    requests.write_text("")
    again = submit(env | {"MASTER_PORT": str(free_port())}, f"--max_duration={stopped + 2}", *words)
    out = again.communicate(timeout=200)[0]
    assert again.returncode == 0 and not requests.read_text(), out
    assert [r["step"] for r in records(tmp_path / "run")] == list(range(1, stopped + 3))
