"""Second places for the metrics may raise, exit or hang at any moment: one line says so, and training does not change."""

import logging
import random
import sys
import threading
import time
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from olmo.checkpoints import load_model
from olmo.train import run
from olmo.train.callbacks import sink
from olmo.train.callbacks.sink import Sink
from olmo.train.callbacks.tensorboard import TensorboardLogger
from olmo.train.config_blocks import TensorboardConfig
from tests.train.command import records, train, without_times
from tests.train.test_config import config

MOMENTS = {"start": "open", "log": "report", "finish": "close"}
"""Word of the log line -> method."""


class Recorder(Sink):
    """Keeps what it gets, spoils it, and draws from every global generator whenever it can."""

    def __init__(self, title: str = "recorder"):
        super().__init__(1)
        self.title, self.seen, self.threads = title, [], set()

    def _draw(self, what):
        random.random(), np.random.rand(), torch.rand(1)
        self.threads.add(threading.current_thread())
        self.seen.append(what)

    def open(self, trainer):
        self._draw("open")

    def report(self, metrics, step):
        self._draw(step)
        metrics.clear()

    def close(self, status):
        self._draw(status)


def broken(moment: str, action) -> Recorder:
    """A recorder that does `action` at one moment, the second report if it is `log`."""
    made = Recorder(f"broken at {moment}")
    whole = getattr(made, MOMENTS[moment])

    def spoilt(*args):
        whole(*args)
        if moment != "log" or args[1] == 2:
            action()

    setattr(made, MOMENTS[moment], spoilt)
    return made


def fails():
    raise ConnectionError("the server is gone\nand more")


def drive(made: Sink, steps: int = 3) -> None:
    """A run without a model."""
    trainer = SimpleNamespace(world=SimpleNamespace(is_main=True), state=SimpleNamespace(step=0))
    made.on_start(trainer)
    for step in range(1, steps + 1):
        trainer.state.step = step
        made.on_step(trainer, None, {"train/CrossEntropyLoss": 1.0})
    made.on_end(trainer, "finished")


@pytest.mark.usefixtures("shapes")
def test_training_is_bit_equal_with_and_without_sinks(tmp_path, monkeypatch, capsys):
    """Dropout shows every draw; one of the sinks is a real one, whose files agree with metrics.jsonl.

    Seen to fail without the random state being put back (one sink that draws is enough), and without a copy of the record (the
    sinks before take it away from those behind).
    """
    words = ("--model.llm.residual_dropout=0.1", "--max_duration=3", "--save_interval=null")
    assert train(tmp_path / "without", *words) == 0
    sinks = [Recorder(), *(broken(moment, fails) for moment in MOMENTS)]
    standard = run.standard_callbacks

    def with_sinks(*args, **kwargs):
        return [*sinks, *standard(*args, **kwargs)]

    monkeypatch.setattr(run, "standard_callbacks", with_sinks)
    capsys.readouterr()
    assert train(tmp_path / "with", *words, "--tensorboard={log_interval: 2}") == 0
    out = capsys.readouterr().out
    plain, reported = (load_model(tmp_path / name / "step3").state_dict() for name in ("without", "with"))
    assert plain.keys() == reported.keys() and all(torch.equal(plain[k], reported[k]) for k in plain)
    assert [without_times(r) for r in records(tmp_path / "without")] == [without_times(r) for r in records(tmp_path / "with")]
    assert [s.seen for s in sinks] == [["open", 1, 2, 3, "finished"], ["open"], ["open", 1, 2], ["open", 1, 2, 3, "finished"]]
    for moment in MOMENTS:
        assert out.count(f"broken at {moment} is off from here on ({moment} failed: the server is gone)") == 1
    assert out.count("is off from here on") == 3
    second = pytest.approx(records(tmp_path / "with")[1]["train/CrossEntropyLoss"], rel=1e-6)
    assert scalars(tmp_path / "with" / "tensorboard", "train/CrossEntropyLoss") == [(2, second)]


@pytest.mark.parametrize("moment", MOMENTS)
def test_a_sink_that_hangs_is_left_behind(moment, monkeypatch, caplog):
    """Training waits for a sink only so long."""
    for name in ("START_SECONDS", "REPORT_SECONDS", "END_SECONDS"):
        monkeypatch.setattr(sink, name, 0.2)
    release = threading.Event()
    made, began = broken(moment, release.wait), time.monotonic()
    drive(made)
    assert time.monotonic() - began < 5
    assert caplog.messages == [f"broken at {moment} is off from here on ({moment} failed: no answer for 0 s)"]
    assert made.worker is None
    release.set()
    for thread in made.threads:
        assert thread.daemon, "the process would wait for it"
        thread.join(5)
        assert not thread.is_alive(), "left behind, but it ends when the library comes back"


def test_a_library_that_exits_ends_only_itself(caplog):
    """SystemExit in a sink ends the sink, not the training."""
    made = broken("log", lambda: sys.exit(3))
    drive(made)
    assert caplog.messages == ["broken at log is off from here on (log failed: 3)"] and made.seen == ["open", 1, 2]


def test_reports_come_at_the_interval_and_after_an_evaluation():
    """And from one thread, which is gone afterwards."""
    made = Recorder()
    made.interval = 3
    trainer = SimpleNamespace(world=SimpleNamespace(is_main=True), state=SimpleNamespace(step=0))
    made.on_start(trainer)
    for step in range(1, 8):
        trainer.state.step = step
        made.on_step(trainer, None, {"eval/seconds": 1.0} if step == 5 else {})
    made.on_end(trainer, "stopped")
    assert made.seen == ["open", 3, 5, 6, "stopped"]
    (thread,) = made.threads
    thread.join(5)
    assert not thread.is_alive()


def test_other_ranks_have_no_sink():
    made = Recorder()
    trainer = SimpleNamespace(world=SimpleNamespace(is_main=False), state=SimpleNamespace(step=1))
    made.on_start(trainer)
    made.on_step(trainer, None, {})
    made.on_end(trainer, "finished")
    assert made.seen == [] and made.worker is None


# ---------------------------------------------------------------------------------------------- tensorboard


def scalars(folder, key: str) -> list[tuple[int, float]]:
    """What TensorBoard itself reads."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder))
    events.Reload()
    return [(event.step, event.value) for event in events.Scalars(key)]


def report(folder, steps: range, key: str = "train/CrossEntropyLoss") -> None:
    """One start of a run that reports `steps`."""
    cfg = config(save_folder=str(folder), tensorboard={"log_interval": 1})
    state = SimpleNamespace(step=steps.start - 1)
    trainer = SimpleNamespace(world=SimpleNamespace(is_main=True), state=state, cfg=cfg)
    logger = TensorboardLogger(cfg.tensorboard)
    logger.on_start(trainer)
    for step in steps:
        state.step = step
        logger.on_step(trainer, None, {key: step / 2 + steps.stop, "count": 3})
    logger.on_end(trainer, "finished")


def test_a_resumed_run_has_every_step_once_in_tensorboard(tmp_path):
    """The first start came to step 4 and was resumed from step 2; a new run in the folder begins anew. Seen to fail without
    `purge_step`, and with one of resumed runs alone."""
    report(tmp_path, range(1, 5))
    report(tmp_path, range(3, 6))
    assert scalars(tmp_path / "tensorboard", "train/CrossEntropyLoss") == [(1, 5.5), (2, 6.0), (3, 7.5), (4, 8.0), (5, 8.5)]
    assert [step for step, _ in scalars(tmp_path / "tensorboard", "count")] == [1, 2, 3, 4, 5]
    report(tmp_path, range(1, 3))
    assert scalars(tmp_path / "tensorboard", "train/CrossEntropyLoss") == [(1, 3.5), (2, 4.0)]


@pytest.mark.parametrize(("package", "word"), [("tensorboard", "--tensorboard={}"), ("wandb", "--wandb={project: p}")])
def test_without_the_package_one_line_says_what_to_install(package, word, shapes, tmp_path, monkeypatch, capsys):
    """Before anything is made; switched off, the package is not asked for."""
    monkeypatch.setitem(sys.modules, package, None)
    monkeypatch.delenv("WANDB_MODE", raising=False)
    assert train(tmp_path / "run", "--max_duration=1", word) != 0
    said = capsys.readouterr().err
    assert f"reporting to {package} needs the package '{package}': pip install" in said and "Traceback" not in said
    assert not (tmp_path / "run" / "config.yaml").exists()
    monkeypatch.setenv("WANDB_MODE", "disabled")
    assert train(tmp_path / "run", "--max_duration=1", "--wandb={project: p}") == 0


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path, caplog):
    (tmp_path / "file").touch()
    logger = TensorboardLogger(TensorboardConfig(folder=str(tmp_path / "file")))
    trainer = SimpleNamespace(world=SimpleNamespace(is_main=True), state=SimpleNamespace(step=0), cfg=config())
    with caplog.at_level(logging.WARNING, logger="olmo"):
        logger.on_start(trainer)
    assert len(caplog.messages) == 1 and caplog.messages[0].startswith("tensorboard is off from here on (start failed: ")
