"""Whole runs through the command: resuming, stopping, keeping checkpoints, folders that cannot be written, wandb."""

import errno
import os
import shutil
import signal
import sys
from pathlib import Path

import pytest
import torch
from fsspec.implementations.local import LocalFileSystem

from olmo.checkpoints import load_model, model_tensors, read_config, select_checkpoint
from olmo.checkpoints.stores import Store
from olmo.train import build, start
from olmo.train.saving import checkpoint
from olmo.train.step import TrainStep
from tests.train.command import launch, records, train, without_times
from tests.train.same_end import assert_same_end

pytestmark = pytest.mark.usefixtures("shapes")


@pytest.fixture(scope="module")
def reference(shapes_folder, tmp_path_factory):
    """Six uninterrupted steps with packing, dropout and two micro-batches."""
    folder = tmp_path_factory.mktemp("reference")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MOLMO_DATA_DIR", str(shapes_folder))
        assert train(folder, *FULL) == 0
    return folder


FULL = (
    "--packing",
    "--data.packing.buffer_size=3",
    "--data.packing.max_frames=16",
    "--model.llm.residual_dropout=0.1",
    "--device_batch_size=2",
    "--seq_len=300",
)


def at_step(monkeypatch, step: int, action):
    """Call `action` once, in the middle of optimiser step `step`."""
    forward, call = TrainStep.forward, TrainStep.__call__
    current, done = [0], []

    def counting(self, batch, number, wish=lambda: False):
        current[0] = number
        return call(self, batch, number, wish)

    def patched(self, batch):
        if current[0] == step and not done:
            done.append(True)
            action()
        return forward(self, batch)

    monkeypatch.setattr(TrainStep, "forward", patched)
    monkeypatch.setattr(TrainStep, "__call__", counting)


def assert_same_weights(a: Path, b: Path):
    a, b = (model_tensors(load_model(select_checkpoint(f))) for f in (a, b))
    assert a.keys() == b.keys()
    for name, value in a.items():
        assert torch.equal(value, b[name]), name


BACKGROUND = "--save_asynchronously=true"


@pytest.mark.parametrize(
    ("stop", "words"),
    [(1, ()), (4, (BACKGROUND,)), pytest.param(4, (), marks=pytest.mark.slow), pytest.param(1, (BACKGROUND,), marks=pytest.mark.slow)],
)
def test_resume_is_exact(reference, tmp_path, stop, words):
    """Stopped after `stop` steps (with examples waiting in the packer) and started again by the same command.

    Fails (seen) when dropout's random state, the packer's buffer or the optimiser's moments are not restored.
    """
    assert train(tmp_path, *FULL, f"--stop_after={stop}", *words) == 0
    assert len(records(tmp_path)) == stop
    assert train(tmp_path, *FULL, *words) == 0
    assert_same_end(reference, tmp_path)


@pytest.mark.slow
def test_another_seed_is_another_run(reference, tmp_path):
    """The comparison above can fail: it does for other dropout masks."""
    assert train(tmp_path, *FULL, "--seed=7") == 0
    assert [r["train/CrossEntropyLoss"] for r in records(tmp_path)] != [r["train/CrossEntropyLoss"] for r in records(reference)]


def test_a_signal_saves_and_stops(reference, tmp_path, monkeypatch, capsys):
    """SIGTERM in the middle of step 2: that step is finished, saved, and the run goes on from there exactly."""
    with monkeypatch.context() as patch:
        at_step(patch, 2, lambda: os.kill(os.getpid(), signal.SIGTERM))
        assert train(tmp_path, *FULL) == 0
    assert "stopped by SIGTERM at step 2 of 6" in capsys.readouterr().out
    assert sorted(p.name for p in tmp_path.glob("step*")) == ["step2"]
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    assert train(tmp_path, *FULL) == 0
    assert_same_end(reference, tmp_path)


@pytest.mark.slow
def test_a_killed_run_resumes_from_its_last_whole_checkpoint(reference, tmp_path, monkeypatch):
    """Dies in step 5; left over: step3, two half-written steps and a torn last line of the metrics."""
    with monkeypatch.context() as patch, pytest.raises(ZeroDivisionError):
        at_step(patch, 5, lambda: 1 / 0)
        train(tmp_path, *FULL)
    assert len(records(tmp_path)) == 4
    (tmp_path / "step4-tmp/model_and_optim").mkdir(parents=True)
    (tmp_path / "step4-unsharded-tmp").mkdir()
    with open(tmp_path / "metrics.jsonl", "a") as file:
        file.write('{"step": 5, "train/Cross')
    assert train(tmp_path, *FULL) == 0
    assert not list(tmp_path.glob("*-tmp"))
    assert_same_end(reference, tmp_path)


def test_time_limit(tmp_path, capsys):
    assert train(tmp_path, "--time_limit=0.0") == 0
    assert "stopped by the time limit at step 1 of 6" in capsys.readouterr().out
    assert (tmp_path / "step1").is_dir()


def names(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.glob("step*"))


@pytest.mark.slow
def test_which_checkpoints_stay(tmp_path):
    assert train(tmp_path / "a", "--save_interval=2", "--save_num_checkpoints_to_keep=2", "--save_at=5") == 0
    assert names(tmp_path / "a") == ["step5", "step6"]
    words = ("--save_interval=4", "--save_interval_ephemeral=1", "--stop_after=3", "--save_num_checkpoints_to_keep=1")
    assert train(tmp_path / "b", *words) == 0
    assert names(tmp_path / "b") == ["step3"]
    assert train(tmp_path / "c", "--save_num_checkpoints_to_keep=0", "--stop_after=1") == 0
    assert names(tmp_path / "c") == []


@pytest.mark.slow
def test_ephemeral_checkpoints_give_way(tmp_path):
    assert train(tmp_path, "--save_interval=4", "--save_interval_ephemeral=1", "--max_duration=7", "--save_num_checkpoints_to_keep=-1") == 0
    assert names(tmp_path) == ["step4", "step7"]


def test_last_checkpoint_without_optimizer_and_unsharded(tmp_path):
    words = ("--save_final_optim=false", "--save_final_unsharded_checkpoint", "--max_duration=2")
    assert train(tmp_path, *words) == 0
    assert names(tmp_path) == ["step2", "step2-unsharded"]
    keys = checkpoint.read_metadata(tmp_path / "step2").state_dict_metadata
    assert keys and not any(k.startswith("optim.") for k in keys)
    assert_same_weights(tmp_path / "step2", tmp_path / "step2-unsharded")
    assert train(tmp_path, *words) == 0, "a finished run has nothing to do and needs no optimiser state"


@pytest.mark.slow
def test_a_longer_run_needs_the_optimizer_state(tmp_path, capsys):
    assert train(tmp_path, "--save_final_optim=false", "--max_duration=1") == 0
    assert train(tmp_path, "--max_duration=2") == 1
    assert "holds no optimiser state" in capsys.readouterr().err
    assert train(tmp_path, "--max_duration=2", "--reset_optimizer_state") == 0


def test_two_runs_in_one_folder(tmp_path, capsys):
    assert train(tmp_path, "--max_duration=3") == 0
    assert train(tmp_path, "--max_duration=3", "--allow_resume=false") == 1
    assert "already holds a run" in capsys.readouterr().err
    assert train(tmp_path, "--max_duration=2", "--allow_resume=false", "--save_overwrite") == 0
    assert names(tmp_path) == ["step2"], "checkpoints of the replaced run would be taken for newer ones"
    assert [r["step"] for r in records(tmp_path)] == [1, 2]


def test_weights_alone_cannot_be_continued(tmp_path, capsys):
    """The newest checkpoint of the folder has no state; nothing is deleted, and nothing starts anew in its place."""
    words = ("--max_duration=2", "--save_interval=1", "--save_num_checkpoints_to_keep=2", "--save_final_unsharded_checkpoint")
    assert train(tmp_path, *words) == 0
    shutil.rmtree(tmp_path / "step2")
    assert train(tmp_path, *words) == 1
    assert_one_line(capsys, f"{tmp_path / 'step2-unsharded'} holds weights only and cannot be continued", "--initial_model_checkpoint")
    assert names(tmp_path) == ["step1", "step2-unsharded"]


@pytest.mark.slow
def test_load_path_and_initial_checkpoint(tmp_path):
    first = tmp_path / "first"
    assert train(first, "--max_duration=3") == 0
    assert train(tmp_path / "on", f"--load_path={first}", "--max_duration=5") == 0
    assert [r["step"] for r in records(tmp_path / "on")] == [4, 5]
    words = (f"--load_path={first}", "--reset_trainer_state", "--reset_optimizer_state", "--max_duration=1")
    assert train(tmp_path / "reset", *words) == 0
    assert train(tmp_path / "weights", f"--initial_model_checkpoint={first}", "--max_duration=1") == 0
    assert [without_times(r) for r in records(tmp_path / "reset")] == [without_times(r) for r in records(tmp_path / "weights")]
    assert names(first) == ["step3"]


def test_saved_config_tells_the_whole_run(tmp_path):
    assert train(tmp_path, "--max_duration=1", "--run_name=x") == 0
    raw = read_config(tmp_path)
    assert raw["model"]["model_name"] == "temporal_video_olmo" and raw["run_name"] == "x"
    assert raw["runtime_data"]["world_size"] == 1 and "moving_shapes" in raw["runtime_data"]["args"]
    assert launch(tmp_path / "config.yaml", "moving_shapes", f"--save_folder={tmp_path / 'again'}", "--max_duration=1") == 0


# ---------------------------------------------------------------------------------------------- what goes wrong


def failing(number: int, text: str):
    def fail(*args, **kwargs):
        raise OSError(number, text)

    return fail


def test_read_only_save_folder(tmp_path, monkeypatch, capsys):
    """Found out before the model is built (simulated: root may write everywhere)."""
    monkeypatch.setattr(LocalFileSystem, "_open", failing(errno.EROFS, "Read-only file system"))
    monkeypatch.setattr(build, "build_sharded_model", lambda *a: pytest.fail("the model was built first"))
    assert train(tmp_path / "x") == 1
    assert_one_line(capsys, f"cannot write to {tmp_path / 'x'}: Read-only file system")


def test_save_folder_that_is_a_file(tmp_path, capsys):
    (tmp_path / "x").write_text("")
    assert train(tmp_path / "x") == 1
    assert_one_line(capsys, "cannot write to", "File exists")


def assert_one_line(capsys, *parts):
    err = capsys.readouterr().err
    assert err.count("\n") == 1 and "Traceback" not in err
    for part in parts:
        assert part in err


def test_a_failure_while_looking_for_the_start(tmp_path, monkeypatch, capsys):
    """It is not called one of writing, and --debug shows where it happened."""

    def broken(*args):
        raise PermissionError(errno.EACCES, "Permission denied", "step3")

    monkeypatch.setattr(start, "existing_steps", broken)
    assert train(tmp_path) == 1
    assert_one_line(capsys, "cannot look for the checkpoint to start from: PermissionError", "step3")
    assert train(tmp_path, "--debug") == 1
    assert "in broken" in capsys.readouterr().err


@pytest.mark.parametrize("where", ["store", "dcp"])
def test_disk_full_in_the_last_save(tmp_path, monkeypatch, capsys, where):
    """One sentence, no half checkpoint; what was saved before stays."""
    import torch.distributed.checkpoint as dcp

    target = (Store, "write") if where == "store" else (dcp.filesystem, "_write_item")
    at_step(monkeypatch, 5, lambda: monkeypatch.setattr(*target, failing(errno.ENOSPC, "No space left on device")))
    assert train(tmp_path) == 1
    assert_one_line(capsys, f"cannot write to {tmp_path}: No space left on device; give a folder with room", "step6 was not saved", "step3")
    assert names(tmp_path) == ["step3"]


def test_loss_that_is_no_number_stops_the_run(tmp_path, monkeypatch, capsys):
    forward = TrainStep.forward

    def broken(self, batch):
        out = forward(self, batch)
        out.loss = out.loss._replace(ce=out.loss.ce * float("inf"))
        return out

    at_step(monkeypatch, 4, lambda: monkeypatch.setattr(TrainStep, "forward", broken))
    assert train(tmp_path, "--device_batch_size=1") == 1
    assert_one_line(capsys, "step 4: train/CrossEntropyLoss is not finite")
    assert names(tmp_path) == ["step3"]


def test_out_of_memory(tmp_path, monkeypatch, capsys):
    def full():
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 9 GiB")

    at_step(monkeypatch, 1, full)
    assert train(tmp_path) == 1
    assert_one_line(capsys, "ran out of memory; lower --device_batch_size, --seq_len or --model.mm_preprocessor.max_frames")


def test_checkpoint_of_another_model(tmp_path, capsys):
    assert train(tmp_path / "a", "--max_duration=1") == 0
    words = (f"--initial_model_checkpoint={tmp_path / 'a'}", "--model.llm.d_model=48")
    assert train(tmp_path / "b", *words) == 1
    assert_one_line(capsys, "is of another model", "of another shape")


# ---------------------------------------------------------------------------------------------- wandb


@pytest.fixture
def offline(monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.delenv("WANDB_PROJECT", raising=False)


def test_wandb_is_off_without_a_project(tmp_path, offline, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    assert train(tmp_path, "--wandb={log_interval: 1}", "--max_duration=1") == 0


def test_wandb_that_breaks_is_one_line(tmp_path, offline, monkeypatch, capsys):
    class Broken:
        __spec__ = "that of an installed package"
        Settings = staticmethod(dict)

        class init:  # noqa: N801
            id, url = "x", None

            def __init__(self, **kwargs):
                pass

            def log(self, *args, **kwargs):
                raise ConnectionError("the server is gone")

    monkeypatch.setitem(sys.modules, "wandb", Broken)
    assert train(tmp_path, "--wandb={project: p, log_interval: 1}", "--max_duration=2") == 0
    assert capsys.readouterr().out.count("wandb is off from here on (log failed: the server is gone)") == 1
    assert len(records(tmp_path)) == 2


@pytest.mark.slow
def test_wandb_offline(tmp_path, offline):
    """A real offline run leaves its file in the save folder."""
    assert train(tmp_path, "--wandb={project: p, log_interval: 1, tags: [a]}", "--max_duration=2") == 0
    files = list((tmp_path / "wandb").rglob("*.wandb"))
    assert len(files) == 1 and files[0].stat().st_size > 0
    saved = torch.load(tmp_path / "step2/train/rank0.pt", weights_only=True)
    assert saved["wandb_id"] in files[0].name


def test_metrics_are_valid_json_with_the_published_keys(reference):
    keys = set().union(*records(reference))
    expected = {
        "train/CrossEntropyLoss", "train/ZLoss", "train/Accuracy", "train/AuxLoss", "optim/llm_lr", "optim/vit_grad_norm",
        "optim/temporal_token_scorer_lr", "throughput/total_tokens", "throughput/device/tokens_per_second",
        "throughput/device/loss_tokens_per_second", "throughput/device/batches_per_second", "batch/non_masked_tokens",
        "batch/per_non_masked_tokens", "batch/loss_tokens", "batch/per_loss_tokens", "batch/n_packed", "batch/n_segments",
    }  # fmt: skip
    assert expected <= keys
    packed = [r["batch/n_packed"] for r in records(reference)]
    assert max(packed) > 1, "rows of 300 tokens hold more than one example"
