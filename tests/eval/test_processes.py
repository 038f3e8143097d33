"""Commands in processes of their own."""

import sys

import pytest

from olmo.eval.processes import TrainingRun, check, start, threads_for, train_together
from olmo.exceptions import OLMoError


def test_a_training_is_finished_only_for_the_same_recipe(tmp_path):
    run = TrainingRun(tmp_path, ["python", "x", "--a=1"], "name", 5)
    assert not run.finished() and run.step() == 0
    run.finish(12.34)
    assert run.finished() and run.seconds() == 12.3
    assert not TrainingRun(tmp_path, ["python", "x", "--a=2"], "name", 5).finished()
    (tmp_path / "metrics.jsonl").write_text('{"step": 3}\n{"step": 4}\n')
    assert run.step() == 4


def test_a_failed_process_is_reported_by_its_own_sentence(tmp_path):
    log = tmp_path / "train.log"
    process = start([sys.executable, "-c", "print('hello'); print('error: no such thing'); print('bye'); raise SystemExit(3)"], log, 1)
    process.wait()
    with pytest.raises(OLMoError, match=r"x ended with status 3: no such thing \(all of it in .*train.log\)"):
        check(process, log, "x")


def test_trainings_run_together_until_one_fails(tmp_path):
    """The others are ended too: nobody wants half a comparison."""
    from rich.console import Console

    write = "import pathlib, sys; pathlib.Path(sys.argv[1], 'metrics.jsonl').write_text('{\"step\": 5}')"
    good = TrainingRun(tmp_path / "good", [sys.executable, "-c", write, str(tmp_path / "good")], "good", 5)
    train_together([good], Console(), threads=1)
    assert good.finished() and good.step() == 5
    slow = TrainingRun(tmp_path / "slow", [sys.executable, "-c", "import time; time.sleep(60)"], "slow", 5)
    bad = TrainingRun(tmp_path / "bad", [sys.executable, "-c", "raise SystemExit('error: broken')"], "bad", 5)
    with pytest.raises(OLMoError, match="bad ended with status 1: broken"):
        train_together([slow, bad], Console(), threads=1)
    assert not slow.finished()


def test_threads_are_shared_and_few(monkeypatch):
    monkeypatch.setattr("olmo.eval.processes.cores", lambda: 6)
    assert [threads_for(n) for n in (1, 2, 3, 9)] == [4, 3, 2, 1]
