"""What of a data set is there: annotation files, examples against the publisher's numbers, videos; and what to do about the rest."""

import logging
import os
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from olmo.data.catalogue import GeneratedRow, Row
from olmo.data.download.fetch import by_hand_text
from olmo.data.index import IndexedDataset, open_indexed
from olmo.data.paths import video_root
from olmo.data.records import DatasetRow
from olmo.data.sources import ByHand
from olmo.exceptions import OLMoError, first_line

log = logging.getLogger(__name__)


@dataclass
class SplitState:
    """One split of a data set as it lies on disk."""

    split: str
    problem: str | None = None
    """Why it cannot be opened."""
    examples: int | None = None
    expected: int | None = None
    """Examples that the publisher states, where one does."""
    videos: int | None = None
    """Different videos that its examples are about."""
    missing: int = 0
    """How many of them are not there."""
    first_missing: str | None = None

    def problems(self) -> list[str]:
        """Everything that is wrong, as sentences."""
        if self.problem is not None:
            return [self.problem]
        found = []
        if self.expected is not None and self.examples != self.expected:
            found.append(f"{self.examples} examples, but the publisher states {self.expected}")
        if self.missing:
            found.append(f"{self.missing} of {self.videos} videos are missing, first {self.first_missing}")
        return found


@dataclass
class SetState:
    """A data set as it lies on disk."""

    name: str
    status: str
    """ready; partial (some of its splits or videos); missing; generated (on first use)."""
    splits: list[SplitState] = field(default_factory=list)
    todo: list[str] = field(default_factory=list)
    """What to do, one sentence each."""
    caution: str = ""
    """What to know about the layout of its files, if that is not documented."""

    @property
    def complete(self) -> bool:
        return self.status in ("ready", "generated")


def state_of(row: Row, splits: Sequence[str] | None = None) -> SetState:
    """Look at `splits` of a data set (None = all of them). Opening a split makes its index, which takes a while the first time."""
    if isinstance(row, GeneratedRow):
        return SetState(row.name, "generated")
    states = [split_state(row, split) for split in (row.splits if splits is None else splits)]
    good = [s for s in states if not s.problems()]
    if len(good) == len(states):
        return SetState(row.name, "ready", states)
    opened = [s for s in states if s.problem is None and s.missing != s.videos]
    return SetState(row.name, "partial" if opened else "missing", states, advice(row), row.caution)


def advice(row: DatasetRow) -> list[str]:
    """How to get the files of a data set."""
    folder = video_root() / row.folder
    steps = [by_hand_text(s, folder) for s in row.sources if isinstance(s, ByHand)]
    return [*steps, f"{'then run' if steps else 'run'}: python scripts/download_datasets.py {row.name}"]


def split_state(row: DatasetRow, split: str) -> SplitState:
    """Open a split and look for its videos.

    Where some are missing, an older index is made anew: readers may look into the folder for how a video is called, and files may have
    come since.
    """
    state, began = SplitState(split, expected=row.counts.get(split)), time.time()
    try:
        dataset = open_indexed(row, split)
        state.videos, gone = missing_videos(dataset)
        if gone and dataset.index.path.stat().st_mtime < began:
            dataset.index.path.unlink()
            dataset = open_indexed(row, split)
            state.videos, gone = missing_videos(dataset)
    except (OLMoError, OSError) as err:
        state.problem = str(err)
        return state
    except Exception as err:  # a reader that fails on unforeseen annotations must not hide the other data sets
        log.debug("%s:%s", row.name, split, exc_info=True)
        state.problem = f"its reader failed: {type(err).__name__}: {first_line(err)} (--debug shows where)"
        return state
    state.examples, state.missing, state.first_missing = len(dataset), len(gone), gone[0] if gone else None
    return state


def missing_videos(dataset: IndexedDataset) -> tuple[int, list[str]]:
    """(different videos, those of them that are not in the folder, in the order of the examples)."""
    names = dict.fromkeys(dataset.index[i]["video"] for i in range(len(dataset)))
    return len(names), _not_there(dataset.folder, names)


def _not_there(folder: Path, names: Iterable[str]) -> list[str]:
    """Every folder is listed once, because asking for each file takes long on network disks."""
    listed: dict[str, set[str]] = {}
    gone = []
    for name in names:
        parent, base = os.path.split(os.path.normpath(folder / name))
        if parent not in listed:
            listed[parent] = set(os.listdir(parent)) if os.path.isdir(parent) else set()
        if base not in listed[parent]:
            gone.append(name)
    return gone
