"""Decoding: every backend shows the frame that the frame table names, and broken files are told apart and never hang."""

import importlib.util
import os
import pickle
import signal
import time

import numpy as np
import pytest

from olmo.data.decode_process import IsolatedBackend
from olmo.data.failures import BadVideoError
from olmo.data.frame_table import _by_decoding, read_frame_table
from olmo.data.video_reader import VideoReader, VideoReaderConfig, choose_backend, upright
from olmo.exceptions import OLMoConfigurationError
from tests.data.clips import broken_zoo, numbered_frame, read_number, write_clip

BACKENDS = [
    name for name, package in (("pyav", "av"), ("decord", "decord"), ("torchcodec", "torchcodec")) if importlib.util.find_spec(package)
]
IN_PROCESS = {name: VideoReaderConfig(backend=name, isolate=False) for name in BACKENDS}


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    folder = tmp_path_factory.mktemp("clips")
    steps = np.cumsum([1 + i % 3 for i in range(20)])
    return {
        "plain": (write_clip(folder / "plain.mp4"), np.arange(30) / 10),
        "offset": (write_clip(folder / "offset.mp4", begin=0.5), np.arange(30) / 10),
        "matroska": (write_clip(folder / "plain.mkv"), np.arange(30) / 10),
        "variable_rate": (write_clip(folder / "variable.mp4", frames=20, times=steps), (steps - steps[0]) / 10),
        "many_key_frames": (write_clip(folder / "gops.mp4", frames=90, fps=30, gop=7), np.arange(90) / 30),
        "one_frame": (write_clip(folder / "one.mp4", frames=1), np.zeros(1)),
        "orange": (write_clip(folder / "orange.mp4", tint=(1, 0.6, 0.2)), np.arange(30) / 10),
    }


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("clip", ["plain", "offset", "matroska", "variable_rate", "many_key_frames", "one_frame"])
def test_shows_the_frame_of_each_moment(clips, clip, backend):
    """Oracle: the last frame whose known start is not after the time. Seen to fail without the "- 1" in the lookup."""
    path, starts = clips[clip]
    reader = IN_PROCESS[backend].build()
    info = reader.probe(str(path))
    np.testing.assert_allclose(info.starts, starts, atol=1e-3)  # matroska stamps are milliseconds
    # Just after every start, out of order, with repetitions, and before and beyond the ends.
    times = np.concatenate([starts[::-3] + 0.004, starts[:4] + 0.02, [-1.0, 1e6, 0.0]])
    expected = [max(0, int(np.sum(starts <= t)) - 1) for t in times]
    assert [read_number(f) for f in reader.frames_at(str(path), times)] == expected


@pytest.mark.parametrize("clip", ["plain", "offset", "variable_rate", "orange"])
def test_backends_agree(clips, clip):
    """Same frames, and pixels within 2/255 on average. Seen to fail with the frame before, and (on a clip with colours) with red
    and blue exchanged."""
    path, starts = clips[clip]
    pictures = [c.build().frames_at(str(path), starts[::4]).astype(int) for c in IN_PROCESS.values()]
    for other in pictures[1:]:
        assert np.abs(pictures[0] - other).mean() <= 2


def test_times_on_a_frame_boundary_do_not_fall_back(clips):
    """Eight times 0.1 adds up to less than 0.8 in floating point; seen to fail with LOOKUP_TOLERANCE 0."""
    info = read_frame_table(str(clips["plain"][0]))
    assert info.duration == 3.0
    times = np.cumsum([0.0] + [0.1] * 29)
    assert times[8] < 0.8
    assert info.index_at(times).tolist() == list(range(30))
    assert info.index_at(np.arange(30) * 0.1 + 0.0999).tolist() == list(range(30))


@pytest.mark.parametrize("backend", BACKENDS)
def test_broken_files_are_told_apart(tmp_path, backend):
    reader = VideoReaderConfig(backend=backend, timeout=20).build()
    for name, (path, cause) in broken_zoo(tmp_path).items():
        with pytest.raises(BadVideoError) as caught:
            reader.frames_at(str(path), np.array([0.0, 1.0]))
        assert caught.value.cause == cause, name
        assert str(path) in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("backend", BACKENDS)
def test_damaged_bytes_raise_or_decode_but_never_hang(tmp_path, backend):
    """Noise over the middle of the file: whatever the decoder makes of it, it is a picture or a BadVideoError, and soon."""
    data = bytearray(write_clip(tmp_path / "clip.mp4", frames=60).read_bytes())
    rng = np.random.default_rng(0)
    reader = VideoReaderConfig(backend=backend, timeout=20).build()
    started = time.monotonic()
    for number in range(8):
        noisy = data.copy()
        at = int(rng.integers(64, len(data) // 2))
        noisy[at : at + 400] = rng.bytes(400)
        path = tmp_path / f"noisy{number}.mp4"
        path.write_bytes(noisy)
        try:
            assert reader.frames_at(str(path), np.linspace(0, 6, 8)).shape == (8, 64, 64, 3)
        except BadVideoError as err:
            assert err.cause in ("corrupt", "truncated", "no_frames", "no_video", "timeout", "crash")
    assert time.monotonic() - started < 60


def test_transform_sees_one_frame_at_a_time(clips):
    """Frames are shrunk as they come: the reader never holds them at full size."""
    shapes = []

    def shrink(frame):
        shapes.append(frame.shape)
        return frame[::8, ::8]

    frames = IN_PROCESS["pyav"].build().frames_at(str(clips["plain"][0]), np.arange(30) / 10, transform=shrink)
    assert frames.shape == (30, 8, 8, 3)
    assert shapes == [(64, 64, 3)] * 30


class SlowBackend:
    name = "slow"

    def frames(self, info, indices, timeout):
        for index in indices:
            time.sleep(0.05)
            yield numbered_frame(index)


def test_a_slow_clip_meets_the_time_limit(clips):
    path = str(clips["plain"][0])
    assert len(VideoReader(SlowBackend(), timeout=5).frames_at(path, np.arange(3) / 10)) == 3
    with pytest.raises(BadVideoError) as caught:
        VideoReader(SlowBackend(), timeout=0.2).frames_at(path, np.arange(30) / 10)
    assert caught.value.cause == "timeout"


def test_building_the_table_by_decoding_meets_the_time_limit(clips):
    """Files without packet stamps are decoded for them, which may take long."""
    import av

    path = str(clips["plain"][0])
    with av.open(path) as container:
        assert _by_decoding(container, container.streams.video[0], path, time.monotonic() + 60).num_frames == 30
        with pytest.raises(BadVideoError) as caught:
            _by_decoding(container, container.streams.video[0], path, time.monotonic() - 1)
    assert caught.value.cause == "timeout"


def test_a_hanging_decoder_is_killed_and_replaced(clips):
    """A stopped child stands for native code that never returns: nothing inside this process could interrupt that."""
    path, starts = clips["plain"]
    backend = IsolatedBackend("pyav")
    reader = VideoReader(backend, timeout=10)
    assert [read_number(f) for f in reader.frames_at(str(path), starts[:3])] == [0, 1, 2]
    os.kill(backend._child.pid, signal.SIGSTOP)
    reader.timeout = 0.5
    with pytest.raises(BadVideoError) as caught:
        reader.frames_at(str(path), starts[:3])
    assert caught.value.cause == "timeout"
    reader.timeout = 10
    assert [read_number(f) for f in reader.frames_at(str(path), starts[3:6])] == [3, 4, 5]
    backend.close()


def test_a_crashing_decoder_is_one_bad_video(clips):
    """Seen to fail (endless loop) when end-of-file on the pipe is not checked."""
    path, _ = clips["many_key_frames"]
    backend = IsolatedBackend("pyav")
    reader = VideoReader(backend, timeout=10)
    frames = backend.frames(reader.probe(str(path)), list(range(90)), 10)
    next(frames)
    os.kill(backend._child.pid, signal.SIGKILL)
    with pytest.raises(BadVideoError) as caught:
        list(frames)
    assert caught.value.cause == "crash"
    assert len(reader.frames_at(str(path), np.zeros(1))) == 1
    backend.close()


def test_errors_of_the_child_keep_their_cause(tmp_path, clips):
    reader = VideoReader(IsolatedBackend("pyav"), timeout=10)
    info = reader.probe(str(clips["plain"][0]))
    gone = type(info)(**{**info.__dict__, "path": str(tmp_path / "gone.mp4")})
    with pytest.raises(BadVideoError) as caught:
        reader.frames_of(gone, np.array([0]))
    assert caught.value.path.endswith("gone.mp4") and caught.value.cause == "corrupt"
    reader.backend.close()


def test_auto_takes_the_first_that_imports(monkeypatch, caplog):
    from olmo.data import video_reader

    order = list(video_reader.BACKENDS)
    assert order == ["torchcodec", "pyav", "decord"]

    def broken():
        raise RuntimeError("cannot load library")

    monkeypatch.setitem(video_reader.BACKENDS, "torchcodec", broken)
    monkeypatch.setattr(video_reader, "_announced", set())
    with caplog.at_level("INFO"):
        assert choose_backend(video_reader.VideoBackend.auto).name == "pyav"
        choose_backend(video_reader.VideoBackend.auto)
    assert [r.message.split("(")[0].strip() for r in caplog.records] == ["videos are decoded by pyav"]


def test_settings_are_checked():
    with pytest.raises(OLMoConfigurationError, match="decode_timeout"):
        VideoReaderConfig(timeout=0).build()


def test_bad_video_errors_cross_processes():
    err = pickle.loads(pickle.dumps(BadVideoError("a.mp4", "truncated", "3 of 9")))
    assert (err.path, err.cause, str(err)) == ("a.mp4", "truncated", "a.mp4: the file ends before its video does (3 of 9)")


def test_rotation():
    """90 degrees counter-clockwise moves the right edge to the top."""
    frame = np.zeros((2, 3, 3), dtype=np.uint8)
    frame[:, 2] = 255
    assert upright(frame, 90).shape == (3, 2, 3) and (upright(frame, 90)[0] == 255).all()
    assert upright(frame, 0) is frame
