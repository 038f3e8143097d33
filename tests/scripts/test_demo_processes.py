"""The demo's commands in processes of their own."""

import sys

import pytest

from olmo.exceptions import OLMoError
from tests.scripts.test_demo import load_script


@pytest.fixture(scope="module")
def processes(repo):
    return load_script(repo, "demo_processes")


def test_a_training_is_finished_only_for_the_same_recipe(processes, tmp_path):
    run = processes.TrainingRun(tmp_path, ["python", "x", "--a=1"], "name", 5)
    assert not run.finished() and run.step() == 0
    run.finish(12.34)
    assert run.finished() and run.seconds() == 12.3
    assert not processes.TrainingRun(tmp_path, ["python", "x", "--a=2"], "name", 5).finished()
    (tmp_path / "metrics.jsonl").write_text('{"step": 3}\n{"step": 4}\n')
    assert run.step() == 4


def test_trainings_run_together_until_one_fails(processes, tmp_path):
    """The others are ended too: nobody wants half a comparison."""
    from rich.console import Console

    write = "import pathlib, sys; pathlib.Path(sys.argv[1], 'metrics.jsonl').write_text('{\"step\": 5}')"
    good = processes.TrainingRun(tmp_path / "good", [sys.executable, "-c", write, str(tmp_path / "good")], "good", 5)
    processes.train_together([good], Console(), threads=1)
    assert good.finished() and good.step() == 5
    slow = processes.TrainingRun(tmp_path / "slow", [sys.executable, "-c", "import time; time.sleep(60)"], "slow", 5)
    bad = processes.TrainingRun(tmp_path / "bad", [sys.executable, "-c", "raise SystemExit('error: broken')"], "bad", 5)
    with pytest.raises(OLMoError, match="bad ended with status 1: broken"):
        processes.train_together([slow, bad], Console(), threads=1)
    assert not slow.finished()


def test_threads_are_shared_and_few(processes, monkeypatch):
    monkeypatch.setattr(processes, "cores", lambda: 6)
    assert [processes.threads_for(n) for n in (1, 2, 3, 9)] == [4, 3, 2, 1]
