"""Measuring: the example that comes of decoding but for its pixels, without decoding; and lengths of videos that are kept on disk."""

import logging
import pickle
import sqlite3
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from olmo.config import read_yaml
from olmo.data.failures import BadVideoError
from olmo.data.lengths import LengthPreprocessor, Lengths
from olmo.data.load_video import VideoLoader
from olmo.data.probes import Probes
from olmo.data.video_reader import VideoReader, VideoReaderConfig
from olmo.exceptions import OLMoDataError
from olmo.models.molmo2.preprocessor import build_preprocessor
from olmo.models.temporal_video_olmo.config import TemporalVideoOlmoConfig
from tests.data.clips import broken_zoo, write_clip
from tests.data.test_frame_folder import write_frames

ARRAYS = ("input_tokens", "target_tokens", "loss_masks", "position_ids", "subsegment_ids", "token_pooling")
SAMPLING = {
    "times": ["time_sampling=true", "frame_sample_mode=uniform_last_frame", "max_fps=[2, 5]"],
    "drawn_rate": ["time_sampling=true", "frame_sample_mode=uniform_last_frame_sample_fps", "max_fps=[1, 4]"],
    "frames": ["time_sampling=false", "frame_sample_mode=uniform_last_frame_min_2-6"],
    "randomized": ["time_sampling=false", "frame_sample_mode=uniform_randomized"],
}

HERE = VideoReaderConfig(isolate=False)
"""Decoding in this process."""


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("media")
    rng = np.random.default_rng(0)
    lying = Image.Exif()
    lying[0x0112] = 6
    Image.fromarray(rng.integers(0, 256, (90, 400, 3), dtype=np.uint8)).save(folder / "wide.jpg")
    Image.fromarray(rng.integers(0, 256, (90, 400, 3), dtype=np.uint8)).save(folder / "turned.jpg", exif=lying)
    return {
        "clip": str(write_clip(folder / "clip.mp4", frames=47, size=(96, 64))),
        "uneven": str(write_clip(folder / "uneven.mp4", frames=30, times=np.cumsum(1 + np.arange(30) % 3), begin=1.5)),
        "wide": str(folder / "wide.jpg"),
        "turned": str(folder / "turned.jpg"),
        "pictures": write_frames(folder / "pictures", [1, 2, 3, 5, 6, 7, 9]),
    }


def examples(files):
    question = {"question": "What is it?", "answer": "A number.", "style": "video_short_answer"}
    tree = {"message_list": [question, question | {"answer": "Nothing at all, or something else."}]}
    subtitle = {(0.0, 1.0): "one two three", (1.0, 2.5): "four five six seven", (3.0, 4.0): "eight"}
    still = {"question": "What is it?", "answer": "Noise.", "style": "user_qa"}
    yield question | {"video": files["clip"]}
    yield tree | {"video": files["uneven"]}
    yield question | {"video": files["clip"], "metadata": {"clip_start_time": 0.7, "clip_end_time": 3.1}, "subtitle": subtitle}
    yield question | {"video": files["uneven"], "metadata": {"sampler_overrides": {"max_frames": 3}}}
    yield question | {"video": files["pictures"]}
    yield still | {"image": files["wide"]}
    yield still | {"image": files["turned"]}
    yield {k: v for k, v in still.items() if k != "style"} | {"style": "text_sft"}


def preprocessors(request, sampling: list[str], *more: str, probes: Probes = Probes(None)):
    model = TemporalVideoOlmoConfig.from_dict(read_yaml(request.config.rootpath / "configs" / "tiny.yaml")["model"])
    model = model.with_overrides([f"mm_preprocessor.video.{o}" for o in sampling] + list(more))
    loader = VideoLoader(VideoReaderConfig("pyav"))
    real = build_preprocessor(model, is_training=True, seq_len=2000, load_video=loader)
    return real, LengthPreprocessor(real, probes)


@pytest.mark.parametrize(("sampling", "more"), [*((s, ()) for s in SAMPLING), ("times", ("vision_backbone.normalize_on_gpu=false",))])
def test_measuring_gives_the_example_without_its_pixels(request, files, tmp_path, monkeypatch, sampling, more):
    """Oracle: the real preprocessor. Seen to fail with another generator, when a clip's start is not taken off, and when the sides
    of a turned image are not exchanged."""
    probes = Probes(tmp_path / "probes.sqlite")
    probes(files["pictures"])  # once, its first picture tells the size
    real, measuring = preprocessors(request, SAMPLING[sampling], *more, probes=probes)
    expected = [real(e, np.random.default_rng(n)) for n, e in enumerate(examples(files))]
    monkeypatch.setattr(VideoReader, "frames_of", None)  # decoding would fail now
    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", None)
    for n, (example, whole) in enumerate(zip(examples(files), expected, strict=True)):
        found = measuring(example, np.random.default_rng(n))
        for name in ARRAYS:
            np.testing.assert_array_equal(getattr(found, name), getattr(whole, name), err_msg=f"{n} {name}")
        assert found.segments == whole.segments and found.metadata == whole.metadata and Lengths.of(found) == Lengths.of(whole)
        if whole.images is not None:
            assert found.images.shape == whole.images.shape and not any(found.images.strides), "blank pixels take no memory"
    assert {len(e.segments) for e in expected} == {0, 1} and len({Lengths.of(e).frames for e in expected}) > 3


def test_what_measuring_refuses(request, files, tmp_path):
    """The same words as decoding, for everything that shows without decoding."""
    real, measuring = preprocessors(request, SAMPLING["times"])
    question = {"question": "What?", "answer": "This.", "style": "video_short_answer"}
    bad = [question | {"video": str(path)} for path in (s.path for s in broken_zoo(tmp_path).values())]
    bad.append(question | {"video": files["clip"], "metadata": {"clip_start_time": 9.0}})
    bad.append({"question": "What?", "answer": "This.", "style": "user_qa", "image": str(tmp_path / "absent.png")})
    bad.append({"question": "What?", "answer": "This.", "style": "user_qa", "image": str(tmp_path / "text.mp4")})
    for example in bad:
        messages = []
        for preprocess in (real, measuring):
            with pytest.raises(OLMoDataError) as err:
                preprocess(example, np.random.default_rng(0))
            messages.append((type(err.value), str(err.value)))
        assert messages[0] == messages[1]


def count_probes(monkeypatch):
    calls = []
    real = VideoReader.probe
    monkeypatch.setattr(VideoReader, "probe", lambda self, path: calls.append(path) or real(self, path))
    return calls


def test_a_video_is_probed_once(files, tmp_path, monkeypatch):
    """In this run, in a later one, and in another process; anew when the file changes. Seen to fail when the time of change is not
    compared."""
    calls = count_probes(monkeypatch)
    first = Probes(tmp_path / "kept" / "probes.sqlite")
    path = write_clip(tmp_path / "clip.mp4", frames=20)
    length = first(str(path))
    assert (length.num_frames, length.width, length.duration, length.fps) == (20, 64, 2.0, 10.0)
    assert first(str(path)) == Probes(first.file)(str(path)) == pickle.loads(pickle.dumps(first))(str(path)) == length
    assert len(calls) == 1
    write_clip(path, frames=25)
    assert first(str(path)).num_frames == 25 and len(calls) == 2


def test_broken_videos_are_not_kept(tmp_path, monkeypatch):
    calls = count_probes(monkeypatch)
    probe = Probes(tmp_path / "probes.sqlite")
    path = tmp_path / "clip.mp4"
    with pytest.raises(BadVideoError, match="does not exist"):
        probe(str(path))
    path.write_bytes(b"no video")
    for _ in range(2):
        with pytest.raises(BadVideoError, match="cannot be decoded"):
            probe(str(path))
    write_clip(path, frames=12)
    assert probe(str(path)).num_frames == 12 and len(calls) == 4


@pytest.mark.parametrize("damage", ["no database", "a folder"])
def test_probes_that_cannot_be_kept_are_made_anew(files, tmp_path, monkeypatch, caplog, damage):
    """One warning and the right length, not the end of a training."""
    calls = count_probes(monkeypatch)
    file = tmp_path / "probes.sqlite"
    file.mkdir() if damage == "a folder" else file.write_bytes(b"damaged" * 1000)
    probe = Probes(file)
    with caplog.at_level(logging.WARNING):
        assert [probe(files["clip"]).num_frames for _ in range(3)] == [47] * 3
    assert len(calls) == 3 and caplog.text.count("lengths of videos are not kept") == 1


def test_many_processes_keep_probes_in_one_file(tmp_path):
    """Four connections write at once; nothing is lost."""
    from concurrent.futures import ThreadPoolExecutor

    paths = [str(write_clip(tmp_path / f"{n}.mp4", frames=3 + n)) for n in range(12)]
    file = tmp_path / "probes.sqlite"
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda k: [Probes(file, HERE)(p) for p in paths[k::4]], range(4)))
    rows = sqlite3.connect(file).execute("SELECT num_frames FROM probes").fetchall()
    assert sorted(n for (n,) in rows) == [3 + n for n in range(12)]


def test_lengths_tell_what_an_example_takes(request, files):
    real, _ = preprocessors(request, SAMPLING["times"])
    example = real(next(examples(files)), np.random.default_rng(0))
    found = Lengths.of(example)
    assert found.tokens == len(example.input_tokens) - example.dropped_cells > found.loss_tokens > 0
    assert found.frames == len(example.images) and found != replace(found, frames=0)
