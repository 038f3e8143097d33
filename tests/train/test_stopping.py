"""How a start of the training command ends, what it leaves for scripts (`ended.json`), and that the next start goes on."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from olmo.distributed import World
from olmo.processes import child_environment
from olmo.train.callbacks.outcome import FILE_NAME
from olmo.train.duration import RunLength
from olmo.train.limits import Limits
from olmo.train.trainer import Trainer, TrainerState
from tests.train.command import CONFIG, records, train, without_times
from tests.train.ranks import run_ranks
from tests.train.test_run import at_step
from tests.train.test_trainer import Loader, Step

pytestmark = pytest.mark.usefixtures("shapes")


def outcome(folder: Path) -> dict:
    return json.loads((folder / FILE_NAME).read_text())


def finished(step: int) -> dict:
    return {"status": "finished", "reason": None, "step": step, "last_step": step}


def stopped(reason: str, step: int, last_step: int) -> dict:
    return {"status": "stopped", "reason": reason, "step": step, "last_step": last_step}


def test_resume_until_finished(tmp_path, monkeypatch, capsys):
    """A signal, then the end, then once more: the exit status is 0 each time, the file tells the three apart. Seen to fail when the
    file of the start before stays while training, and when a finished run loses it."""
    seen = []
    with monkeypatch.context() as patch:
        at_step(patch, 2, lambda: os.kill(os.getpid(), signal.SIGTERM))
        assert train(tmp_path) == 0
    assert outcome(tmp_path) == stopped("SIGTERM", 2, 6)
    at_step(monkeypatch, 4, lambda: seen.append((tmp_path / FILE_NAME).exists()))
    assert train(tmp_path) == 0
    assert outcome(tmp_path) == finished(6) and seen == [False]
    capsys.readouterr()
    assert train(tmp_path) == 0
    assert "nothing to do: the run is at step 6 of 6 already" in capsys.readouterr().out
    assert outcome(tmp_path) == finished(6) and len(records(tmp_path)) == 6


def test_a_fault_leaves_no_outcome(tmp_path, monkeypatch):
    """Seen to fail with the file written whatever the end."""
    assert train(tmp_path, "--stop_after=1") == 0 and outcome(tmp_path) == stopped("stop_after=1", 1, 6)
    at_step(monkeypatch, 2, lambda: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        train(tmp_path)
    assert not (tmp_path / FILE_NAME).exists()


def test_resume_after_stop_after_needs_no_setting(tmp_path):
    """The published launcher saves the last step without the optimiser's state; a run that is to go on must have it. Seen to fail when
    the last step of a start counts as the run's."""
    words = ("--save_final_optim=false", "--max_duration=2", "--save_interval=null")
    assert train(tmp_path, *words, "--stop_after=1") == 0
    assert train(tmp_path, *words) == 0 and outcome(tmp_path) == finished(2)


@pytest.mark.slow
def test_resume_of_hours(tmp_path, capsys):
    """The first step is over time already; a second start has nothing to do, and one with more time goes on."""
    words = ("--scheduler.t_max=6", "--save_interval=null")
    assert train(tmp_path, *words, "--max_duration=0.000001h") == 0 and outcome(tmp_path) == finished(1)
    assert "max_duration=0.000001h is 0 s of training" in capsys.readouterr().out
    assert train(tmp_path, *words, "--max_duration=0.000001h") == 0
    assert "nothing to do: the run is at step 1 of 1" in capsys.readouterr().out
    assert train(tmp_path, *words, "--max_duration=9h", "--stop_after=1") == 0
    assert outcome(tmp_path)["status"] == "stopped" and outcome(tmp_path)["last_step"] > 100


PACKED = ("--packing", "--data.packing.buffer_size=3", "--data.packing.max_frames=16", "--seq_len=300", "--max_duration=2.5ep")


@pytest.mark.slow
def test_resume_of_epochs_of_packed_rows(tmp_path, capsys):
    """Two epochs and a half of eight examples: the run ends with the step in which the twentieth goes into a row, and the learning
    rate, whose length is estimated on the way, is the same with a stop in between. Seen to fail when examples that wait to be packed
    count as trained on, and when the count begins anew."""
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    assert train(whole, *PACKED) == 0
    assert "max_duration=2.5ep is 20 examples, in as many steps as they need" in capsys.readouterr().out
    examples = [round(4 * r["batch/n_packed"]) for r in records(whole)]
    assert sum(examples[:-1]) < 20 <= sum(examples) and outcome(whole) == finished(len(examples))
    assert train(parts, *PACKED, "--stop_after=2") == 0 and outcome(parts)["status"] == "stopped"
    assert train(parts, *PACKED) == 0
    assert [without_times(r) for r in records(parts)] == [without_times(r) for r in records(whole)]
    rates = [r["optim/llm_lr"] for r in records(whole)]
    assert rates[1:] == sorted(rates[1:], reverse=True) and rates[-1] < rates[1]


@pytest.mark.slow
def test_resume_of_tokens_and_epochs_that_are_steps(tmp_path):
    """Six steps, said in three ways; two of the runs are stopped on their way. Seen to fail with another length of the schedule."""
    ways = {"6": (), "3ep": ("--stop_after=2",), "12288T": ("--stop_after=4",)}
    found = []
    for duration, stop in ways.items():
        words = (f"--max_duration={duration}", "--data.pad=to_max", "--save_interval=null")
        if stop:
            assert train(tmp_path / duration, *words, *stop) == 0
        assert train(tmp_path / duration, *words) == 0 and outcome(tmp_path / duration) == finished(6)
        found.append([without_times(r) for r in records(tmp_path / duration)])
    assert found[0] == found[1] == found[2]


# ---------------------------------------------------------------------------------------------- several ranks


def _end_together(world: World, folder: Path, argument: None) -> None:
    """Three runs of fake steps, of which one rank alone knows why they end."""
    ends = []

    def run(length: RunLength, during, seconds: float = 0.0, **settings) -> None:
        step = Step(during, **settings)
        step.world = world
        trainer = Trainer(_Agreeing(step), Loader(), [], Limits(step.cfg, world, length))
        trainer.load_state_dict(trainer.state_dict() | {"same_world": True, "seconds": seconds})
        status = trainer.fit()
        ends.append([status, trainer.state.step, trainer.stopping])

    run(RunLength(steps=9), lambda step: world.rank == 1 and step == 3 and os.kill(os.getpid(), signal.SIGTERM))
    run(RunLength(steps=9), lambda step: time.sleep(0.2 * (world.rank == 0)), time_limit=0.3)
    # The clocks that the two ranks have saved differ; rank 0's is the one that counts.
    run(RunLength(seconds=100.0), lambda step: time.sleep(0.2 * (world.rank == 0)), seconds=99.7 if world.rank == 0 else 500.0)
    run(RunLength(seconds=100.0), lambda step: None, seconds=100.0 if world.rank == 0 else 7.0)
    (folder / str(world.rank)).write_text(json.dumps(ends))


class _Agreeing:
    """A step whose ranks add up their wishes, as the real one does."""

    def __init__(self, step: Step):
        self.step = step

    def __getattr__(self, name):
        return getattr(self.step, name)

    def __call__(self, batch, step, wish):
        from olmo.distributed import gather_objects

        result = self.step(batch, step, wish)
        result.stop = any(gather_objects(result.stop))
        return result


@pytest.mark.slow
def test_a_fault_of_one_rank_stops_all_after_the_same_step(tmp_path):
    """A signal to rank 1, and rank 0's clocks. Seen to fail when every rank looks at its own clock."""
    run_ranks(2, _end_together, tmp_path)
    first, second = (json.loads((tmp_path / rank).read_text()) for rank in "01")
    assert first == second
    assert first == [["stopped", 3, "SIGTERM"], ["stopped", 2, "the time limit"], ["finished", 2, None], ["finished", 0, None]]
    assert TrainerState().step == 0


TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--rdzv-backend=c10d", "--rdzv-endpoint=localhost:0"]


def start_torchrun(ranks: int, folder: Path, *words: str) -> subprocess.Popen:
    """In a process group of its own, as a scheduler or a terminal has it."""
    script = Path(__file__).resolve().parents[2] / "launch_scripts/train_image_video_sft.py"
    more = (CONFIG, "moving_shapes", f"--save_folder={folder}", "--save_interval=null", *words)
    command = [*TORCHRUN, f"--nproc-per-node={ranks}", script, *more]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(list(map(str, command)), env=child_environment() | {"OMP_NUM_THREADS": "1"}, start_new_session=True, **pipes)


def until_training(folder: Path) -> None:
    metrics, deadline = folder / "metrics.jsonl", time.monotonic() + 200
    while time.monotonic() < deadline and not (metrics.is_file() and len(metrics.read_text().splitlines()) > 1):
        time.sleep(0.1)


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("ranks", [1, 2])
def test_resume_after_a_fault_signal_to_the_whole_group(ranks, tmp_path):
    """torchrun and its ranks all get SIGTERM, and torchrun passes it on as well: the step is finished and saved once. torchrun itself
    then ends with 1, whatever its ranks do; the file tells. The next start goes on and ends with 0.

    Seen to fail when the second signal counts: the ranks die in mid-step.
    """
    with start_torchrun(ranks, tmp_path, "--max_duration=5000") as process:
        until_training(tmp_path)
        os.killpg(process.pid, signal.SIGTERM)
        out, err = process.communicate(timeout=200)
    assert (tmp_path / FILE_NAME).is_file(), out + err
    assert process.returncode == 1 and "Received 15 death signal" in err
    step = outcome(tmp_path)["step"]
    assert outcome(tmp_path) == stopped("SIGTERM", step, 5000) and (tmp_path / f"step{step}/complete.json").is_file()
    with start_torchrun(ranks, tmp_path, f"--max_duration={step + 1}") as process:
        out, err = process.communicate(timeout=200)
    assert process.returncode == 0, err
    assert outcome(tmp_path) == finished(step + 1)
    assert [r["step"] for r in records(tmp_path)] == list(range(1, step + 2))
