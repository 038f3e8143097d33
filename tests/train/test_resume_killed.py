"""Kill -9 in the middle of a save, on a disk and on S3, or of a step, of one process or of one of two ranks; then the same command."""

import os
import signal
import subprocess
import sys

import pytest

from tests.checkpoints.s3_server import s3_server
from tests.train.command import CONFIG, train
from tests.train.same_end import assert_same_end

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600), pytest.mark.usefixtures("shapes")]
STEPS = ("--max_duration=6", "--save_interval=2", "--packing", "--model.llm.residual_dropout=0.1")


def words(folder, *more):
    return [CONFIG, "moving_shapes", f"--save_folder={folder}", "--use_temporal_video_olmo", *STEPS, *more]


def command(repo, *argv, ranks=1):
    torchrun = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={ranks}"] if ranks > 1 else []
    environment = os.environ | {"PYTHONPATH": str(repo), "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    argv = [sys.executable, *torchrun, *map(str, argv)]
    return subprocess.run(argv, env=environment, cwd=repo, capture_output=True, text=True, timeout=280)


@pytest.fixture(scope="module")
def reference(shapes_folder, tmp_path_factory):
    folder = tmp_path_factory.mktemp("reference")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MOLMO_DATA_DIR", str(shapes_folder))
        assert train(folder, *STEPS) == 0
    return folder


@pytest.mark.parametrize("file", ["distcp", "complete.json"])
@pytest.mark.parametrize("background", ["false", "true"])
def test_resume_after_kill_in_mid_save(reference, tmp_path, repo, capsys, file, background):
    """What is left is no checkpoint; the same command goes on from the one before and ends as if nothing had happened."""
    more = [f"--save_asynchronously={background}"]
    done = command(repo, "-m", "tests.train.killed", file, 4, 0, *words(tmp_path, *more))
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert sorted(p.name for p in tmp_path.glob("step*")) == ["step2", "step4-tmp"]
    assert train(tmp_path, *STEPS, *more) == 0
    assert f"continuing {tmp_path / 'step2'} at step 2" in capsys.readouterr().out
    assert_same_end(reference, tmp_path)
    assert sorted(p.name for p in tmp_path.glob("step*")) == ["step2", "step4", "step6"]


def test_resume_on_s3_after_kill_in_mid_save(reference, tmp_path, repo, monkeypatch, capsys):
    """A partial upload is left behind; the run goes on from the checkpoint before it and ends the same."""
    monkeypatch.setenv("OLMO_CHECKPOINT_CACHE", str(tmp_path / "cache"))
    with s3_server() as (_, client):
        more = ["--checkpoint_folder=s3://runs/a", "--save_asynchronously=true"]
        done = command(repo, "-m", "tests.train.killed", "config.yaml", 4, 0, *words(tmp_path / "run", *more))
        assert done.returncode == -signal.SIGKILL, done.stderr
        left = [o["Key"] for o in client.list_objects_v2(Bucket="runs", Prefix="a/step4/")["Contents"]]
        assert "a/step4/unfinished.json" in left and "a/step4/complete.json" not in left
        assert train(tmp_path / "run", *STEPS, *more) == 0
        out = capsys.readouterr().out
        assert "skipping s3://runs/a/step4" in out and "continuing s3://runs/a/step2 at step 2" in out
        assert not list((tmp_path / "cache").glob("*/step*")), "what was fetched to resume is deleted again"
        assert_same_end(reference, tmp_path / "run", stored_b="s3://runs/a")
        folders = {o["Key"].split("/")[1] for o in client.list_objects_v2(Bucket="runs", Prefix="a/")["Contents"]}
        assert folders == {"step2", "step4", "step6"}
        # Another machine: no logs there yet. Another run may not be started in the same place.
        assert train(tmp_path / "other", *STEPS, "--allow_resume=false", *more) == 1
        assert "checkpoint_folder s3://runs/a already holds a run" in capsys.readouterr().err


def two_ranks(repo, folder, *more):
    """The training command in two ranks, to its end."""
    done = command(repo, repo / "launch_scripts/train_image_video_sft.py", *words(folder, *more), ranks=2)
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


@pytest.fixture(scope="module")
def two_rank_reference(shapes_folder, tmp_path_factory, repo):
    folder = tmp_path_factory.mktemp("two_ranks")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MOLMO_DATA_DIR", str(shapes_folder))
        two_ranks(repo, folder)
    return folder


PART = "__1_0.distcp"
"""What rank 1 writes of a checkpoint."""


@pytest.mark.parametrize(("where", "background", "left"), [(PART, "false", 2), (PART, "true", 2), ("forward", "false", 4)])
def test_resume_after_kill_of_one_of_two_ranks(two_rank_reference, tmp_path, repo, where, background, left):
    """Rank 1 dies in its part of the checkpoint of step 4, which rank 0 must not make one then, or in the middle of step 5.

    The relaunched command goes on from the newest whole checkpoint and ends as the run that nobody killed: losses, weights,
    optimiser, and the state of both ranks.
    """
    more = [f"--save_asynchronously={background}"]
    step = 5 if where == "forward" else 4
    done = command(repo, "-m", "tests.train.killed", where, step, 1, *words(tmp_path, *more), ranks=2)
    assert done.returncode != 0
    whole = [p for p in tmp_path.glob("step*") if (p / "complete.json").is_file()]
    assert max(int(p.name.removeprefix("step")) for p in whole) == left
    assert not [p for p in tmp_path.glob("step*") if p not in whole and not p.name.endswith("-tmp")]
    assert f"continuing {tmp_path / f'step{left}'} at step {left}" in two_ranks(repo, tmp_path, *more)
    assert_same_end(two_rank_reference, tmp_path)
    assert sorted(p.name for p in tmp_path.glob("step*")) == ["step2", "step4", "step6"]
