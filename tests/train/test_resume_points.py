"""Runs that stop at awkward points end as one that never stopped: weights, optimiser, random state, data, losses, bit for bit.

Everything that has a state is on: rows of several examples, pruning, dropout, two micro-batches, a clip that cannot be
measured and one that cannot be decoded.
"""

import shutil
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from olmo.data.failures import BadVideoError
from olmo.data.video_reader import VideoReader
from olmo.train.data import build_loader
from olmo.train.sft import build_train_config, parse
from tests.train.command import CONFIG, records, train
from tests.train.ranks import ALONE
from tests.train.same_end import assert_same_checkpoint, assert_same_records, differences, stored_tensors
from tests.train.test_run import at_step
from tests.train.witness import Seen, witness

pytestmark = pytest.mark.slow

STEPS, END, VIDEOS = 20, 12, 8
"""Steps of the run that never stops; where the others end; examples of an epoch."""
REPLACED, HOLE = "000002.mp4", "000005.mp4"
"""The clip that has no length, so that another takes its place, and the one that is missing in its row."""
WORDS = (
    *("--packing", "--data.packing.buffer_size=6", "--data.packing.max_frames=16", "--seq_len=500", f"--max_duration={STEPS}"),
    *("--model.llm.residual_dropout=0.1", "--device_batch_size=2", "--data.max_bad_fraction=0.5", "--data.isolate_decoding=false"),
)


@contextmanager
def with_broken_clips(folder: Path):
    """`folder` is the data folder, and one of its clips breaks off where it is decoded."""
    real = VideoReader.frames_of

    def frames_of(self, info, indices, transform=None):
        if info.path.endswith(HOLE):
            raise BadVideoError(info.path, "crash", "for this test")
        return real(self, info, indices, transform)

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MOLMO_DATA_DIR", str(folder))
        patch.setattr(VideoReader, "frames_of", frames_of)
        yield


@dataclass(frozen=True)
class Reference:
    """A run that never stopped, with checkpoints of step END and of the last."""

    folder: Path
    seen: list[Seen]


@pytest.fixture(scope="module")
def data(shapes_folder, tmp_path_factory):
    folder = tmp_path_factory.mktemp("broken") / "data"
    shutil.copytree(shapes_folder, folder)
    (clip,) = folder.glob(f"moving_shapes/*/train/*/{REPLACED}")
    clip.write_bytes(b"no video at all")
    return folder


@pytest.fixture(autouse=True)
def _broken_clips(data):
    with with_broken_clips(data):
        yield


@pytest.fixture(scope="module")
def reference(data, tmp_path_factory):
    folder = tmp_path_factory.mktemp("reference")
    with with_broken_clips(data), witness() as seen:
        assert train(folder, *WORDS, f"--save_interval={END}") == 0
    assert sum(len(row) > 1 for s in seen for row in s.rows) > STEPS and all(s.metrics["train/kept_fraction"] < 1 for s in seen)
    return Reference(folder, seen)


@pytest.fixture(scope="module")
def places(data):
    """State of the data before the first step and after every one, without a model in between."""
    words = [str(CONFIG), "moving_shapes", "--save_folder=unused", "--use_temporal_video_olmo", *WORDS]
    with with_broken_clips(data):
        loader = build_loader(build_train_config(*parse(words)), ALONE)
        return [loader.state_dict(), *(loader.state_dict() for _ in zip(range(END), loader, strict=False))]


def continue_to_the_end(reference: Reference, folder: Path, capsys, step: int, *more: str):
    """Start the same command again, and compare everything from there on."""
    capsys.readouterr()
    with witness() as seen:
        assert train(folder, *WORDS, f"--stop_at={END}", *more) == 0
    assert f"continuing {folder / f'step{step}'} at step {step}" in capsys.readouterr().out
    assert seen == reference.seen[step:END], "exact losses, examples and kept cells"
    assert len(records(folder)) == END
    assert_same_records(reference.folder, folder, END)
    assert_same_checkpoint(reference.folder / f"step{END}", folder / f"step{END}")


def test_resume_in_the_middle(reference, tmp_path, capsys):
    """Six steps, and six more after a restart."""
    assert train(tmp_path, *WORDS, "--stop_after=6") == 0
    continue_to_the_end(reference, tmp_path, capsys, 6)


def waiting_epochs(state: dict) -> set[int]:
    """Epochs of the examples that wait to be packed."""
    return {place // VIDEOS for place, _ in state["waiting"]}


def failed(cause: str):
    """Whether a clip failed so in the step."""
    return lambda now, before: now["reads"]["by_cause"].get(cause, 0) > before["reads"]["by_cause"].get(cause, 0)


POINTS = {
    "with examples in the pool": lambda now, before: len(now["waiting"]) > 3,
    "at the edge of an epoch": lambda now, before: len(waiting_epochs(now)) > 1,
    "after a clip that was replaced": failed("corrupt"),
    "after a clip that left a hole": failed("crash"),
}


def stops(places) -> dict[str, int]:
    """A step for every point, each another one."""
    found: dict[str, int] = {}
    for point, wanted in POINTS.items():
        found[point] = next(n for n in range(2, END) if n not in found.values() and wanted(places[n], places[n - 1]))
    return found


@pytest.mark.parametrize("point", POINTS)
def test_resume_at_awkward_points(reference, places, tmp_path, capsys, point):
    """Stopped with a data worker that has read ahead, continued without one. Seen to fail (all four) when
    starting workers draws from the random state of training."""
    stop = stops(places)[point]
    assert train(tmp_path, *WORDS, f"--stop_after={stop}", "--data.num_workers=1") == 0
    assert differences(torch.load(tmp_path / f"step{stop}/train/rank0.pt", weights_only=True)["loader"], places[stop]) == []
    continue_to_the_end(reference, tmp_path, capsys, stop)


def test_resume_from_an_ephemeral_checkpoint(reference, tmp_path, capsys, monkeypatch):
    """A run that dies in the middle of a step, with nothing but an ephemeral checkpoint from before; it goes when it is superseded."""
    words = ("--save_interval=10", "--save_interval_ephemeral=4", "--save_num_checkpoints_to_keep=1")
    with monkeypatch.context() as patch, pytest.raises(ZeroDivisionError):
        at_step(patch, 7, lambda: 1 / 0)
        train(tmp_path, *WORDS, *words)
    assert [p.name for p in tmp_path.glob("step*")] == ["step4"]
    continue_to_the_end(reference, tmp_path, capsys, 4, *words)
    assert [p.name for p in tmp_path.glob("step*")] == [f"step{END}"]


def test_resume_needs_everything(reference, tmp_path):
    """The comparison tells two steps apart: in every weight, every moment, the data and the random state."""
    a, b = (reference.folder / f"step{n}" for n in (END, STEPS))
    tensors = stored_tensors(a)
    changed = differences(tensors, stored_tensors(b))
    assert len(changed) == sum(t.is_floating_point() for t in tensors.values())
    states = [torch.load(f / "train/rank0.pt", weights_only=True) for f in (a, b)]
    assert {"/step", "/loader/place", "/random/torch"} <= set(differences(*states))


def test_the_same_seed_is_the_same_run(reference, tmp_path):
    """Twenty steps twice."""
    with witness() as seen:
        assert train(tmp_path, *WORDS) == 0
    assert seen == reference.seen
    assert_same_records(reference.folder, tmp_path)
    assert_same_checkpoint(reference.folder / f"step{STEPS}", tmp_path / f"step{STEPS}")


@pytest.mark.parametrize("seed", ["--seed=7", "--data.seed=7"])
def test_another_seed_is_another_run(reference, tmp_path, seed):
    """Of the weights and of dropout, or of the data: from the first step on."""
    with witness() as seen:
        assert train(tmp_path, *WORDS, seed, "--stop_at=3") == 0
    losses = [[s.metrics["train/CrossEntropyLoss"] for s in run[:3]] for run in (seen, reference.seen)]
    assert all(a != b for a, b in zip(*losses, strict=True))
    assert ([s.rows for s in seen] == [s.rows for s in reference.seen[:3]]) == (seed == "--seed=7")
