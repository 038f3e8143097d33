"""Two thousand clips through the loader and two workers: neither memory nor open files grow, in any process."""

import gc
import os
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest

from olmo.data import decode_process
from olmo.host_memory import release_freed_memory
from tests.data.test_pipeline import forty_clips, make, tiny_model
from tests.data.test_video_soak import handles, resident
from tests.own_process import in_own_process

CLIPS, WARMUP, LOOKS = 2000, 500, 10
FAMILY = 5
"""This process, two workers, and their decoders."""
IN_FLIGHT = 3
"""Open files by which looks differ: arrays on their way between processes are files too."""


def family() -> list[int]:
    """This process, its workers and their decoders."""
    found = [os.getpid()]
    for process in found:
        for thread in Path(f"/proc/{process}/task").iterdir():
            with suppress(FileNotFoundError):  # a thread that has just ended
                found += [int(child) for child in (thread / "children").read_text().split()]
    return found


def looks_before_and_after(folder: Path) -> tuple[int, dict[int, np.ndarray]]:
    """Bad clips, and by clips loaded the bytes and open files of each process (`[2, processes]`, medians of at least ten looks)."""
    decode_process.REQUESTS_PER_CHILD = 10**9  # the same children from start to end
    loader = make(tiny_model(), forty_clips(folder)[0], workers=2)
    others = set(family()) - {os.getpid()}  # helpers of Python that making the clips started
    clips, looks = 0, {WARMUP: [], CLIPS: []}
    batches = iter(loader)
    while clips < CLIPS:
        clips += sum(len(row["examples"]) for row in next(batches).metadata)
        for end, seen in looks.items():
            if end - 20 * LOOKS < clips <= end + 20:
                gc.collect()
                release_freed_memory()
                processes = [p for p in family() if p not in others]
                if len(processes) == FAMILY:  # a decoder may only be starting
                    seen.append(([resident(p) for p in processes], [handles(p) for p in processes]))
    assert all(len(seen) >= LOOKS for seen in looks.values()), {end: len(seen) for end, seen in looks.items()}
    return loader.failures.bad, {end: np.median(seen, axis=0) for end, seen in looks.items()}


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_loading_for_long_keeps_nothing(monkeypatch, tmp_path):
    """Memory and open files of the main process, two workers and their decoders after 500 and after 2,000 clips (20 batches apart at
    most). One clip in forty is broken."""
    monkeypatch.setenv("MOLMO_DATA_DIR", str(tmp_path))
    bad, looks = in_own_process(looks_before_and_after, tmp_path / "shapes")
    (memory, files), (memory_after, files_after) = looks[WARMUP], looks[CLIPS]
    growth = memory_after / memory - 1
    print(f"memory grows by {growth}, files {files} {files_after}")
    assert bad > CLIPS / 80
    assert growth.max() < 0.05
    assert (files_after - files).max() <= IN_FLIGHT
