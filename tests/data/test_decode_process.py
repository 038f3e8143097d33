"""Decoding in a child: hangs and crashes of native code are one bad video each, and the next clip is read as if nothing happened."""

import os
import pickle
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from olmo.data import decode_process
from olmo.data.decode_process import IsolatedBackend, end_idle_children
from olmo.data.decoders import InProcess, PyAVDecoder
from olmo.data.failures import BadVideoError
from olmo.data.quarantine import Quarantine
from olmo.data.video_reader import VideoReader
from olmo.exceptions import OLMoEnvironmentError
from olmo.preprocessing.images import PixelConfig
from tests.data import decoding_faults as faults
from tests.data.clips import broken_zoo, read_number, write_clip
from tests.data.test_video_reader import BACKENDS


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    return str(write_clip(tmp_path_factory.mktemp("clips") / "plain.mp4"))


@pytest.fixture(scope="module", autouse=True)
def _no_child_is_left():
    yield
    end_idle_children()
    assert not any(decode_process._idle.values())


def reader(backend="pyav", timeout=20.0, quarantine=None) -> VideoReader:
    return VideoReader(IsolatedBackend(backend), timeout, quarantine)


def numbers(videos: VideoReader, path: str, count: int = 5) -> list[int]:
    return [read_number(f) for f in videos.frames_at(path, np.arange(count) / 10)]


def child_of(videos: VideoReader, path: str) -> int:
    return int(videos.frames_at(path, np.zeros(1), faults.process_id)[0, 0])


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(("fault", "cause"), [(faults.hang, "timeout"), (faults.crash, "crash")])
def test_a_native_fault_costs_one_clip(clip, backend, fault, cause):
    """The promise of this file, for every library. Seen to fail (the tests themselves hang or die) without a child."""
    started = time.monotonic()
    with pytest.raises(BadVideoError) as caught:
        reader(backend, timeout=1.0).frames_at(clip, np.arange(3) / 10, fault)
    assert caught.value.cause == cause and clip in str(caught.value) and "\n" not in str(caught.value)
    assert time.monotonic() - started < 30
    assert numbers(reader(backend), clip) == [0, 1, 2, 3, 4]


def test_a_decoder_killed_while_it_opens_a_file_is_one_bad_video(clip):
    """Also what happens before the first frame is outside this process. The child is stopped, then killed, under a probe."""
    videos = reader()
    child = child_of(videos, clip)
    asked = videos.backend._ask(clip, 20.0, "frames", videos.probe(clip), list(range(30)), 20.0, faults.slow)
    next(asked)
    os.kill(child, signal.SIGKILL)
    with pytest.raises(BadVideoError, match="SIGKILL") as caught:
        list(asked)
    assert caught.value.cause == "crash"
    assert numbers(videos, clip) == [0, 1, 2, 3, 4]


def test_a_child_that_died_between_two_clips_is_nobodys_fault(clip):
    """Seen to fail (a good file reported as crashed) when the first message is part of the clip."""
    videos = reader()
    child = child_of(videos, clip)
    os.kill(child, signal.SIGKILL)
    assert numbers(videos, clip) == [0, 1, 2, 3, 4]
    assert child_of(videos, clip) != child


def test_a_slow_clip_is_stopped_without_losing_the_child(clip):
    videos = reader()
    child = child_of(videos, clip)
    videos.timeout = 0.5
    with pytest.raises(BadVideoError) as caught:
        videos.frames_at(clip, np.arange(30) / 10, faults.slow)
    assert caught.value.cause == "timeout"
    videos.timeout = 20
    assert child_of(videos, clip) == child


def test_a_child_whose_parent_was_killed_ends_itself(clip, tmp_path):
    """Nobody is left to stop a decoder that hangs, so the system does. Seen to fail (it lives on) without the alarm."""
    program = (
        "import numpy as np, sys; from tests.data import decoding_faults as f; from olmo.data.decode_process import IsolatedBackend;"
        "from olmo.data.video_reader import VideoReader; v = VideoReader(IsolatedBackend('pyav'), 1.0);"
        "print(v.frames_at(sys.argv[1], np.zeros(1), f.process_id)[0, 0], flush=True); v.frames_at(sys.argv[1], np.zeros(1), f.hang)"
    )
    parent = subprocess.Popen([sys.executable, "-c", program, clip], stdout=subprocess.PIPE, text=True)
    child = int(parent.stdout.readline())
    time.sleep(0.5)
    parent.kill()
    parent.communicate()
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline and _lives(child):
        time.sleep(0.1)
    assert not _lives(child)


def _lives(process: int) -> bool:
    try:
        with open(f"/proc/{process}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_readers_of_a_process_share_children(clip):
    assert child_of(reader(), clip) == child_of(reader(), clip)


def test_a_forked_worker_starts_its_own_child(clip):
    """Two processes that read from one child would take each other's frames. Seen to fail without the hook at fork."""
    child = child_of(reader(), clip)
    ours, theirs = os.pipe()
    worker = os.fork()
    if worker == 0:
        try:
            os.write(theirs, str(child_of(reader(), clip)).encode())
            end_idle_children()
        finally:
            os._exit(0)
    os.close(theirs)
    other = int(os.read(ours, 100))
    os.waitpid(worker, 0)
    os.close(ours)
    assert other != child
    assert child_of(reader(), clip) == child


@pytest.mark.parametrize("transform", [None, PixelConfig(size=(42, 28)).resize_frame])
def test_frames_are_the_same_as_without_a_child(clip, transform):
    """The transform of the preprocessor runs in the child, so that only small frames cross."""
    here, there = VideoReader(InProcess(PyAVDecoder())), reader()
    seconds = np.array([2.0, 0.0, 2.0, 1.1])
    np.testing.assert_array_equal(here.frames_at(clip, seconds, transform), there.frames_at(clip, seconds, transform))
    ours, theirs = here.probe(clip), there.probe(clip)
    assert all(np.array_equal(getattr(ours, name), getattr(theirs, name)) for name in vars(ours))


def test_errors_keep_their_cause(tmp_path):
    videos = reader()
    for name, broken in broken_zoo(tmp_path).items():
        with pytest.raises(BadVideoError) as caught:
            videos.probe(str(broken.path))
        assert (caught.value.cause, caught.value.path) == (broken.cause, str(broken.path)), name


def test_a_mistake_in_the_transform_is_no_broken_file(clip):
    with pytest.raises(RuntimeError, match=r"(?s)decoding_faults.*NameError"):
        reader().frames_at(clip, np.zeros(1), faults.mistake)


def test_a_child_that_does_not_start_is_told(clip):
    """It is no fault of the file. Seen to fail (crash) when the first message is part of the clip."""
    with pytest.raises(OLMoEnvironmentError, match=r"decodes videos with something does not start \(status 1\)"):
        reader("something").probe(clip)


def test_hung_and_crashed_files_are_not_tried_again(clip, tmp_path):
    """In this run and in later ones, until the file changes. Seen to fail with the cause not in QUARANTINED_CAUSES."""
    path = tmp_path / "clip.mp4"
    path.write_bytes(open(clip, "rb").read())
    listed = tmp_path / "data" / "quarantine.jsonl"
    with pytest.raises(BadVideoError):
        reader(quarantine=Quarantine(listed)).frames_at(str(path), np.zeros(1), faults.crash)
    for videos in (reader(quarantine=Quarantine(listed)), VideoReader(InProcess(PyAVDecoder()), quarantine=Quarantine(listed))):
        with pytest.raises(BadVideoError, match=f"crash on .*delete its line in {listed}") as caught:
            videos.frames_at(str(path), np.zeros(1))
        assert caught.value.cause == "quarantined"
    path.write_bytes(open(clip, "rb").read() + b"\0" * 8)
    assert numbers(reader(quarantine=Quarantine(listed)), str(path)) == [0, 1, 2, 3, 4]


def test_backends_cross_processes(clip):
    assert numbers(pickle.loads(pickle.dumps(reader())), clip) == [0, 1, 2, 3, 4]
