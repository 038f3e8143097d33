"""Training on a zoo of bad media: what cannot be shown is skipped, counted and named, what is merely odd is trained on."""

import json
import time

import numpy as np
import pytest

from olmo.data.failures import CAUSES, BadVideoError
from olmo.data.video_reader import VideoReaderConfig
from tests.data.clips import broken_zoo, good_zoo
from tests.train.command import CONFIG, launch, records

pytestmark = pytest.mark.slow

ODD = ("plain", "variable_rate", "turned90", "no_stamps", "one_frame", "cut_start_b_frames")
LONGEST = 30
"""Seconds that any clip may take."""
STEPS, ROWS = 12, 4


@pytest.fixture(scope="module")
def zoo(tmp_path_factory):
    """Every broken clip that is a file with something in it (others are refused with the line that names them), and odd ones."""
    folder = tmp_path_factory.mktemp("zoo")
    good = good_zoo(folder)
    return {name: good[name] for name in ODD} | {k: c for k, c in broken_zoo(folder).items() if c.cause not in ("missing", "empty")}


def train_on(zoo, folder, *more: str) -> int:
    lines = [{"id": name, "video": str(clip.path), "question": "What is it?", "answer": "A number."} for name, clip in zoo.items()]
    (folder / "zoo.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    words = (f"--save_folder={folder / 'run'}", "--use_temporal_video_olmo", f"--max_duration={STEPS}", "--save_interval=null", *more)
    return launch(CONFIG, folder / "zoo.jsonl", *words)


@pytest.mark.parametrize(
    "packing", [(), ("--packing", "--data.packing.buffer_size=3", "--data.packing.max_frames=16")], ids=["rows", "packed"]
)
def test_fault_of_a_clip_costs_that_clip(zoo, tmp_path, monkeypatch, capsys, packing):
    """A run of four epochs and more where half of the clips are broken and all of them may be."""
    monkeypatch.setenv("MOLMO_DATA_DIR", str(tmp_path / "data"))
    assert train_on(zoo, tmp_path, "--data.max_bad_fraction=1", "--data.num_workers=1", *packing) == 0
    out, last = capsys.readouterr().out, records(tmp_path / "run")[-1]
    assert last["step"] == STEPS
    counted = {cause: last.get(f"data/bad_{cause}", 0) for cause in CAUSES}
    expected = {cause: sum(clip.cause == cause for clip in zoo.values()) for cause in CAUSES}
    assert (
        {c for c, n in counted.items() if n} == {c for c, n in expected.items() if n} == {"corrupt", "truncated", "no_frames", "no_video"}
    )
    assert last["data/bad_fraction"] == pytest.approx(sum(counted.values()) / last["data/reads"])
    for clip in zoo.values():
        assert out.count(f"skipped {clip.path}: ") == (clip.cause is not None)


def test_fault_of_one_clip_in_a_hundred_is_the_limit(zoo, tmp_path, monkeypatch, capsys):
    """The same data as they stand: an error that names files and the setting."""
    monkeypatch.setenv("MOLMO_DATA_DIR", str(tmp_path / "data"))
    assert train_on(zoo, tmp_path) == 1
    err = capsys.readouterr().err
    assert "examples could not be read, more than data.max_bad_fraction=0.01 allows" in err and err.count("\n") == 1
    assert any(str(clip.path) in err for clip in zoo.values() if clip.cause)


def test_fault_of_a_clip_is_found_in_time(zoo, tmp_path, monkeypatch):
    """Opened and asked for eight frames as training does it, in a child process."""
    monkeypatch.setenv("MOLMO_DATA_DIR", str(tmp_path))
    reader = VideoReaderConfig(timeout=LONGEST).build()
    for name, clip in zoo.items():
        began = time.monotonic()
        try:
            frames, cause = reader.frames_at(str(clip.path), np.linspace(0, 2, 8)), None
            assert len(frames) == 8
        except BadVideoError as err:
            cause = err.cause
        assert cause == clip.cause, name
        assert time.monotonic() - began < LONGEST, name
