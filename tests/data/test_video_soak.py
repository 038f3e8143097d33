"""Thousands of reads of good and broken clips: neither memory nor open files grow, here or in the child."""

import os
from pathlib import Path

import numpy as np
import pytest

from olmo.data import decode_process
from olmo.data.decode_process import IsolatedBackend, end_idle_children
from olmo.data.decoders import DECODERS, InProcess
from olmo.data.failures import BadVideoError
from olmo.data.video_reader import VideoReader
from olmo.host_memory import release_freed_memory
from tests.data import decoding_faults as faults
from tests.data.clips import broken_zoo, good_zoo
from tests.data.test_video_reader import BACKENDS
from tests.own_process import in_own_process

READS, WARMUP, LOOKS = 2000, 500, 10


def resident(process: int) -> int:
    """Bytes of a process that are in memory."""
    with open(f"/proc/{process}/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def handles(process: int) -> int:
    return len(os.listdir(f"/proc/{process}/fd"))


def looks_before_and_after(folder: Path, backend: str, isolated: bool) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Bytes and open files of each process after the warm-up and at the end: medians of ten looks."""
    decode_process.REQUESTS_PER_CHILD = 10**9  # one and the same child from start to end
    clips = {k: c for k, c in good_zoo(folder).items() if k != "five_k"} | broken_zoo(folder)
    reader = VideoReader(IsolatedBackend(backend) if isolated else InProcess(DECODERS[backend]()), timeout=20)
    path, rng = str(clips["plain"].path), np.random.default_rng(0)

    def watched() -> list[int]:
        child = int(reader.frames_at(path, np.zeros(1), faults.process_id)[0, 0])
        release_freed_memory()
        return sorted({child, os.getpid()})

    def read(count: int) -> tuple[dict[str, list[int]], int]:
        looks, bad = {"memory": [], "handles": []}, 0
        for number in range(count):
            clip = list(clips.values())[number % len(clips)]
            try:
                reader.frames_at(str(clip.path), rng.uniform(0, 3, 8), faults.shrink)
                assert clip.cause is None
            except BadVideoError as err:
                assert err.cause == clip.cause
                bad += 1
            if count - number <= LOOKS:
                processes = watched()
                looks["memory"].append([resident(p) for p in processes])
                looks["handles"].append([handles(p) for p in processes])
        return {name: np.median(values, axis=0) for name, values in looks.items()}, bad

    before, _ = read(WARMUP)
    after, bad = read(READS)
    end_idle_children()
    kinds = [clip.cause for clip in clips.values()]
    assert bad == sum(kinds[number % len(kinds)] is not None for number in range(READS)) > READS / 5
    return before, after


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("isolated", [False, True], ids=["here", "isolated"])
@pytest.mark.parametrize("backend", BACKENDS)
def test_reading_for_long_keeps_nothing(tmp_path, backend, isolated):
    """Seen to fail with 20 kB kept per read and with a file left open per read."""
    before, after = in_own_process(looks_before_and_after, tmp_path, backend, isolated)
    assert (after["handles"] == before["handles"]).all(), (before, after)
    growth = after["memory"] / before["memory"] - 1
    print(f"{backend}: memory grows by {growth}")
    assert (growth < 0.05).all()
