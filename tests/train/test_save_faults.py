"""Saves that fail, are slow or are killed: the last good checkpoint stays, on a disk and in an object store."""

import errno
import itertools
import os
import threading
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

from olmo.checkpoints import load_model, step_of, verify_checkpoint
from olmo.checkpoints.remote import fetch, select_in_store, whole_steps
from olmo.checkpoints.stores import Store
from olmo.exceptions import OLMoConfigurationError, OLMoEnvironmentError
from olmo.train.callbacks import checkpointer
from olmo.train.callbacks.checkpointer import Checkpointer
from olmo.train.config import TrainConfig
from olmo.train.optim import OptimizerConfig, build_optimizer
from olmo.train.saving.checkpoint import load_trainer_state
from olmo.train.saving.snapshot import Snapshots
from olmo.train.saving.writing import clear_leftovers, write_checkpoint
from tests.checkpoints.formats import fresh
from tests.train.ranks import ALONE
from tests.train.tiny_run import model_config

NUMBER = itertools.count()
FAULTS = {"full": errno.ENOSPC, "read only": errno.EROFS, "vanished": errno.EIO}
FILES = ("unfinished.json", "train/rank0.pt", "model_and_optim/__0_0.distcp", ".metadata.tmp", "config.yaml", "complete.json")

SNAPSHOTS = Snapshots()
"""Its config is rendered once, which is most of the time of a tiny save."""


@pytest.fixture(scope="module")
def model():
    return fresh(model_config())


@pytest.fixture(params=["disk", "store"])
def store(request, tmp_path, monkeypatch):
    monkeypatch.setenv("OLMO_CHECKPOINT_CACHE", str(tmp_path / "cache"))
    return Store(tmp_path / "run" if request.param == "disk" else f"memory://faults{next(NUMBER)}/run")


class Trainer:
    """As much of a trainer as the checkpointer looks at; a step adds one to every weight."""

    def __init__(self, cfg, model):
        self.cfg, self.model, self.world, self.resumed, self.stopping = cfg, model, ALONE, False, None
        self.optimizer = build_optimizer(OptimizerConfig(), model)
        self.last_step, self.state, self.told = 10**6, type("State", (), {"step": 0})(), []

    def state_dict(self):
        return {"step": self.state.step, "world_size": 1, "loader": {"place": [self.state.step]}}

    def notify_saved(self, location):
        self.told.append(location)

    def steps(self, saver, count):
        for _ in range(count):
            self.state.step += 1
            with torch.no_grad():
                for p in self.model.parameters():
                    p.fill_(self.state.step)
            saver.on_step(self, None, {})

    def until_written(self, saver):
        """Let a save in the background end, without looking how."""
        if saver.writer.busy:
            saver.writer._thread.join(20)


def trainer_for(store, model, **settings):
    cfg = TrainConfig(model=model_config(), checkpoint_folder=store.location, save_folder="/nowhere", save_interval=1, **settings)
    return Trainer(cfg, model), Checkpointer(cfg)


@contextmanager
def fault(monkeypatch, number, name):
    """Writing files that end in `name` fails after 20 bytes, like a disk that fills up or goes away."""
    writing = Store.writing

    @contextmanager
    def broken(self, path):
        with writing(self, path) as stream:
            if path.endswith(name):
                stream.write(b"x" * 20)
                raise OSError(number, os.strerror(number))
            yield stream

    with monkeypatch.context() as patch:
        patch.setattr(Store, "writing", broken)
        yield


def newest(store):
    """The newest checkpoint that would be resumed from, after a look at every byte."""
    name = next(whole_steps(store), None)
    if name is not None:
        verify_checkpoint(store.path(name) if store.renames else fetch(store.url(name)))
    return name


def snapshot(store, model, step):
    cfg = TrainConfig(model=model_config(), checkpoint_folder=store.location)
    return SNAPSHOTS.take(cfg, step, model, None, {"step": step}, copy=False)


@pytest.mark.parametrize("name", FILES)
def test_fault_in_any_file(store, model, monkeypatch, name):
    """Every file, every kind of error."""
    write_checkpoint(store, snapshot(store, model, 1), ALONE)
    for number in FAULTS.values():
        with fault(monkeypatch, number, name), pytest.raises(OLMoEnvironmentError, match=f"cannot write to .*{os.strerror(number)}"):
            write_checkpoint(store, snapshot(store, model, 2), ALONE)
        assert newest(store) == "step1"
    write_checkpoint(store, snapshot(store, model, 2), ALONE)
    assert newest(store) == "step2"


@pytest.mark.parametrize("name", FILES)
def test_fault_that_also_keeps_from_cleaning_up(store, model, monkeypatch, name):
    """What a kill or a vanished mount leaves is never taken, and the next start clears it. Seen to fail in a store when the
    marker is written before the config."""
    write_checkpoint(store, snapshot(store, model, 1), ALONE)
    with fault(monkeypatch, errno.EIO, name), monkeypatch.context() as patch:
        patch.setattr(Store, "delete", lambda *a: None)
        patch.setattr(Store, "delete_file", lambda *a: None)
        with pytest.raises(OLMoEnvironmentError):
            write_checkpoint(store, snapshot(store, model, 2), ALONE)
    assert newest(store) == "step1"
    if not store.renames:
        assert select_in_store(store.location).endswith("/step1")
    clear_leftovers(store)
    assert store.folders() == ["step1"] and newest(store) == "step1"


def test_fault_while_replacing_a_checkpoint_of_the_same_step(tmp_path, model, monkeypatch):
    """On a disk the old one stays until the new one has its name, also when the run dies between the two renames."""
    store = Store(tmp_path)
    write_checkpoint(store, snapshot(store, model, 1), ALONE)
    rename = Store.rename
    for fail_at in (1, 2, 3):
        calls = itertools.count(1)

        def broken(self, old, new, calls=calls, fail_at=fail_at):
            if ".metadata" not in old and next(calls) == fail_at:
                raise OSError(errno.EIO, "Input/output error")
            rename(self, old, new)

        with monkeypatch.context() as patch:
            patch.setattr(Store, "rename", broken)
            if fail_at == 3:
                write_checkpoint(store, snapshot(store, model, 1), ALONE)
            else:
                with pytest.raises(OLMoEnvironmentError):
                    write_checkpoint(store, snapshot(store, model, 1), ALONE)
        clear_leftovers(store)
        assert store.folders() == ["step1"] and newest(store) == "step1"


@pytest.mark.parametrize("background", [False, True])
def test_fault_runs_go_on_and_try_again(store, model, monkeypatch, caplog, background):
    """Two failures are allowed: two warnings, nothing deleted, and the third save succeeds."""
    trainer, saver = trainer_for(store, model, save_asynchronously=background, save_num_checkpoints_to_keep=1)
    saver.on_start(trainer)
    trainer.steps(saver, 1)
    trainer.until_written(saver)
    with fault(monkeypatch, errno.ENOSPC, "rank0.pt"):
        trainer.steps(saver, 2)
        trainer.until_written(saver)
        assert newest(store) == "step1"
    trainer.steps(saver, 1)
    saver._settle(trainer)
    assert [step_of(s) for s in trainer.told] == [1, 4] and store.folders() == ["step4"] and newest(store) == "step4"
    warnings = [r.getMessage() for r in caplog.records if "training goes on" in r.getMessage()]
    assert [w.split(" was")[0] for w in warnings] == ["step2", "step3"]
    assert all("No space left on device" in w and store.url("step1") in w for w in warnings)
    assert saver.failures == 0


@pytest.mark.parametrize("background", [False, True])
def test_fault_too_many_failures_end_the_run(store, model, monkeypatch, background):
    """The third in a row with two allowed; the error names the checkpoint that is left."""
    trainer, saver = trainer_for(store, model, save_asynchronously=background)
    saver.on_start(trainer)
    trainer.steps(saver, 1)
    trainer.until_written(saver)
    with fault(monkeypatch, errno.EROFS, "distcp"):
        with pytest.raises(OLMoEnvironmentError, match=r"Read-only file system.*saving failed 3 times in a row; .*/run/step1\)"):
            trainer.steps(saver, 4)
        saver.on_end(trainer, "failed")
    assert trainer.state.step == (5 if background else 4), "in the background a failure is noticed when the next save is due"
    assert newest(store) == "step1"


@pytest.mark.parametrize("background", [False, True])
def test_fault_in_the_last_save_is_an_error(store, model, monkeypatch, background):
    trainer, saver = trainer_for(store, model, save_asynchronously=background)
    trainer.last_step = 2
    saver.on_start(trainer)
    trainer.steps(saver, 1)
    trainer.until_written(saver)
    with fault(monkeypatch, errno.EIO, "config.yaml"), pytest.raises(OLMoEnvironmentError, match=r"step2 was not saved; .*step1"):
        trainer.steps(saver, 1)


def test_fault_while_deleting_an_old_checkpoint(tmp_path, model, monkeypatch, caplog):
    """It is a warning: the new one is whole."""
    store = Store(tmp_path)
    trainer, saver = trainer_for(store, model, save_asynchronously=False, save_num_checkpoints_to_keep=1)
    saver.on_start(trainer)
    trainer.steps(saver, 1)

    def broken(*args):
        raise OSError(errno.EROFS, "Read-only file system")

    with monkeypatch.context() as patch:
        patch.setattr(checkpointer, "delete", broken)
        trainer.steps(saver, 1)
    assert f"{store.url('step1')} cannot be deleted" in caplog.text and newest(store) == "step2"


# ---------------------------------------------------------------------------------------------- in the background


def held_up(monkeypatch):
    """Writers wait at the config until told to go on; returns (may go on, one is there, most writers at a time)."""
    go, there, inside, most = threading.Event(), threading.Event(), [0], [0]
    writing, lock = Store.writing, threading.Lock()

    @contextmanager
    def waiting(self, path):
        if path.endswith("rank0.pt"):
            with lock:
                inside[0] += 1
                most[0] = max(most[0], inside[0])
        if path.endswith("config.yaml"):
            there.set()
            assert go.wait(20)
            with lock:
                inside[0] -= 1
        with writing(self, path) as stream:
            yield stream

    monkeypatch.setattr(Store, "writing", waiting)
    return go, there, most


def test_resume_state_is_that_of_the_request(store, model, monkeypatch):
    """Training goes on for three steps while step 1 is written; what is saved is step 1. Seen to fail when live tensors are
    written (`copy=False`) in the background."""
    trainer, saver = trainer_for(store, model, save_asynchronously=True)
    saver.cfg.save_interval = 100
    saver.cfg.save_at = 1
    go, there, _ = held_up(monkeypatch)
    monkeypatch.setattr(checkpointer, "write_checkpoint", lambda *a, **k: (go.wait(20), write_checkpoint(*a, **k))[1])
    saver.on_start(trainer)
    trainer.steps(saver, 4)
    assert saver.writer.busy and not trainer.told and newest(store) is None
    go.set()
    saver.on_end(trainer, "finished")
    folder = fetch(store.url("step1")) if not store.renames else store.path("step1")
    assert all((p == 1).all() for p in load_model(folder).parameters()) and (next(model.parameters()) == 4).all()
    state = load_trainer_state(Path(folder), ALONE)
    assert state["step"] == 1 and state["loader"] == {"place": [1]}


def test_resume_a_second_save_waits_for_the_first(store, model, monkeypatch):
    """Never two writers; both are whole."""
    trainer, saver = trainer_for(store, model, save_asynchronously=True)
    go, there, most = held_up(monkeypatch)
    saver.on_start(trainer)
    trainer.steps(saver, 1)
    assert there.wait(20)
    second = threading.Thread(target=trainer.steps, args=(saver, 2))
    second.start()
    second.join(0.3)
    assert second.is_alive() and trainer.state.step == 2, "the second save waits"
    go.set()
    second.join(20)
    saver._settle(trainer)
    assert [step_of(s) for s in trainer.told] == [1, 2, 3] and most == [1]
    assert all(verify_checkpoint(fetch(store.url(s)) if not store.renames else store.path(s)) for s in ("step1", "step2", "step3"))
    assert saver.last_bytes > 0 and saver.last_pause > 0


def test_resume_knows_ephemeral_checkpoints(store, model):
    """After a restart the ephemeral one goes with the next save, and permanent ones stay."""
    settings = dict(save_asynchronously=False, save_num_checkpoints_to_keep=-1, save_interval_ephemeral=1)
    trainer, saver = trainer_for(store, model, **settings)
    trainer.cfg.save_interval = 2
    saver.on_start(trainer)
    trainer.steps(saver, 3)
    assert store.folders() == ["step2", "step3"]
    again, saver = trainer_for(store, model, **settings)
    again.cfg.save_interval, again.state.step, again.resumed = 2, 3, True
    saver.on_start(again)
    assert [(s.name, s.ephemeral) for s in saver.saved] == [("step2", False), ("step3", True)]
    again.steps(saver, 1)
    assert store.folders() == ["step2", "step4"]


def test_fault_of_a_run_still_finishes_its_save(store, model, monkeypatch):
    """A run that fails while a save is under way does not lose that save."""
    trainer, saver = trainer_for(store, model, save_asynchronously=True)
    go, there, _ = held_up(monkeypatch)
    saver.on_start(trainer)
    trainer.steps(saver, 1)
    assert there.wait(20)
    threading.Timer(0.2, go.set).start()
    saver.on_end(trainer, "failed")
    assert newest(store) == "step1"


def test_fault_of_a_store_that_is_not_known(monkeypatch):
    with pytest.raises(OLMoConfigurationError, match="nothing:// is not known"):
        Store("nothing://bucket/run")

    def absent(*args, **kwargs):
        raise ImportError("install gcsfs")

    monkeypatch.setattr("olmo.checkpoints.stores.url_to_fs", absent)
    with pytest.raises(OLMoEnvironmentError, match="gs:// needs a package that is not installed: pip install gcsfs"):
        Store("gs://bucket/run")
    with pytest.raises(OLMoEnvironmentError, match=r"s3:// needs the package 's3fs'.*\[cloud\]"):
        Store("s3://bucket/run")
