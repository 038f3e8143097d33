"""Batches for training: an endless stream that can be stopped after any batch and continued exactly there.

Workers only read and preprocess; packing happens in one thread per rank, in the order of the stream. So the batches do
not depend on the number of workers, and the whole state is a place in the stream plus the places that wait in the packer.
Rank r of R takes the places r, r + R, r + 2R, ...: without packing every global batch holds the same examples for any R.
"""

import ctypes
import logging
import signal
import sys
from collections import Counter
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from itertools import chain, count
from typing import Any, TypeVar

import torch

from olmo.batch import Batch
from olmo.config import BaseConfig
from olmo.data.background import in_background
from olmo.data.examples import ExampleSource, Limits, Loaded, Preprocessor, from_shared
from olmo.data.failures import FailureLog
from olmo.data.load_video import VideoLoader
from olmo.data.mixtures import KwargsMixture, Member, RootSizeMixture, WeightedDataset, build_mixture, mixture_by_name
from olmo.data.moving_shapes import MovingShapesConfig
from olmo.data.packer import Item, Packer, PackingConfig, pack_examples
from olmo.data.video_reader import VideoBackend, VideoReaderConfig
from olmo.exceptions import OLMoConfigurationError, OLMoEnvironmentError
from olmo.preprocessing.collator import Collator
from olmo.preprocessing.example import ProcessedExample

log = logging.getLogger(__name__)

T = TypeVar("T")

PR_SET_PDEATHSIG = 1
"""Linux (prctl.h): the signal a process gets when its parent ends."""


@dataclass
class DataLoaderConfig(BaseConfig):
    """What is trained on, and how it is loaded."""

    dataset: str | None = None
    """Name of a mixture or of a data set; goes before the three mappings below."""

    kwargs_mixture: list[KwargsMixture] | None = None
    """Groups of data sets with fixed rates."""

    mixture: dict[str, float] | None = None
    """Data set -> sampling rate."""

    root_size_mixture: list[RootSizeMixture] | None = None
    """Groups sampled by the root of their sizes."""

    split: str = "train"
    """Split of every data set."""

    seed: int = 50189
    """Order of the examples and every random choice in them."""

    pad: str | None = "to_max"
    """to_max: rows of `sequence_length` tokens (after pruning); null: rows as long as the longest of the batch."""

    sequence_length: int | None = None
    """Tokens of one row after pruning."""

    shuffle: bool = True
    """Draw each data set in a new random order every epoch."""

    start_index: int = 0
    """Examples of the stream to leave out at the start."""

    packing: PackingConfig | None = None
    """Put several examples into one row; null = one example per row."""

    num_workers: int = 0
    """Processes that read and preprocess; 0 = in the training process."""

    prefetch_factor: int | None = None
    """Examples that each worker prepares ahead (null = 2)."""

    timeout: float = 0
    """Seconds to wait for a worker before giving up; 0 = no limit (a single clip has its own limit)."""

    pin_memory: bool = True
    """Page-locked batches, for faster copies to a GPU."""

    drop_last: bool = True
    """Published key; the stream is endless and has no last batch, so both values mean the same."""

    max_bad_fraction: float = 0.01
    """Share of examples that may be unreadable before the run fails (they are counted, named and skipped)."""

    decode_timeout: float = 60.0
    """Seconds that decoding one clip may take before it counts as unreadable."""

    isolate_decoding: bool = True
    """Decode in a child process per worker: native code that hangs or crashes costs one example instead of the run."""

    moving_shapes: MovingShapesConfig = field(default_factory=MovingShapesConfig)
    """Size and look of the generated data set."""

    def check(self) -> None:
        """Refuse settings that contradict each other."""
        if self.sequence_length is None and (self.packing is not None or self.pad == "to_max"):
            raise OLMoConfigurationError("data.sequence_length must be set for packing and for data.pad=to_max")
        if not 0 <= self.max_bad_fraction <= 1:
            raise OLMoConfigurationError(f"data.max_bad_fraction must be between 0 and 1, not {self.max_bad_fraction}")
        if self.num_workers < 0 or self.start_index < 0:
            raise OLMoConfigurationError("data.num_workers and data.start_index must not be negative")
        if self.prefetch_factor is not None and self.num_workers == 0:
            raise OLMoConfigurationError("data.prefetch_factor needs data.num_workers of at least 1")

    def groups(self) -> list[KwargsMixture]:
        """The mixture as groups, however it was given."""
        if self.dataset is not None:
            return mixture_by_name(self.dataset)
        if self.kwargs_mixture is not None:
            return list(self.kwargs_mixture)
        if self.mixture is not None:
            # A rate per data set is a group per data set.
            return [KwargsMixture(rate, [WeightedDataset(name)], name) for name, rate in self.mixture.items()]
        if self.root_size_mixture is not None:
            return [KwargsMixture(g.rate, [WeightedDataset(n, None, f) for n, f in g.mixture.items()]) for g in self.root_size_mixture]
        raise OLMoConfigurationError("no training data: set data.dataset to a mixture or data set, for example moving_shapes")

    def video_loader(self, backend: str = "auto") -> VideoLoader:
        """The decoder for the preprocessor; `backend` is what `mm_preprocessor.video.loading_method` means."""
        return VideoLoader(VideoReaderConfig(VideoBackend(backend), self.decode_timeout, self.isolate_decoding))


def build_train_loader(
    cfg: DataLoaderConfig,
    preprocessor: Preprocessor,
    collator: Collator,
    *,
    device_batch_size: int,
    rank: int = 0,
    world_size: int = 1,
) -> "TrainLoader":
    """The stream of batches of one rank, `device_batch_size` rows each. Opens (and if need be generates) the data sets."""
    cfg.check()
    members = build_mixture(cfg.groups(), cfg.split, cfg.moving_shapes)
    return TrainLoader(cfg, members, preprocessor, collator, device_batch_size=device_batch_size, rank=rank, world_size=world_size)


@dataclass(frozen=True)
class _Position:
    """Where a rank is: the next of its places, and the places whose examples wait in the packer."""

    next: int = 0
    waiting: tuple[int, ...] = ()
    reads: dict[str, Any] | None = None


class TrainLoader:
    """Iterating continues after the last batch that was handed out; `state_dict` after any batch is what resumes there."""

    def __init__(
        self,
        cfg: DataLoaderConfig,
        members: Sequence[Member],
        preprocessor: Preprocessor,
        collator: Collator,
        *,
        device_batch_size: int,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        assert 0 <= rank < world_size and device_batch_size > 0
        self.cfg, self.collator = cfg, collator
        self.device_batch_size, self.rank, self.world_size = device_batch_size, rank, world_size
        self.max_frames = None if cfg.packing is None else (cfg.packing.max_frames or preprocessor.max_frames)
        limits = Limits(
            cfg.sequence_length if cfg.packing is not None or cfg.pad == "to_max" else None,
            self.max_frames,
            collator.vision_ids,
        )
        self.source = ExampleSource(members, preprocessor, limits, seed=cfg.seed, shuffle=cfg.shuffle)
        self.failures = FailureLog(cfg.max_bad_fraction)
        self.rejected: Counter[str] = Counter()
        self._rows: Counter[str] = Counter()
        self._position = _Position()

    # ------------------------------------------------------------------------------------------ state

    def state_dict(self) -> dict[str, Any]:
        """Plain numbers that say where the next batch starts."""
        p = self._position
        return {
            "next": p.next,
            "waiting": list(p.waiting),
            "reads": p.reads or self.failures.state_dict(),
            "world_size": self.world_size,
            "packed": self.cfg.packing is not None,
            "data": self._data_name(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue where `state` was taken: exactly with the same number of ranks, and without packing with any number."""
        place, waiting = int(state["next"]), tuple(int(w) for w in state["waiting"])
        if state["data"] != self._data_name() and self.rank == 0:
            log.warning("the training data changed since the checkpoint was written; the new data start at the old position")
            waiting = ()
        if state["world_size"] != self.world_size:
            place = -(-place * int(state["world_size"]) // self.world_size)
            if waiting and self.rank == 0:
                log.warning(
                    "the number of ranks changed from %d to %d: the examples that waited to be packed are left out",
                    state["world_size"],
                    self.world_size,
                )
            waiting = ()
        if not self.cfg.packing:
            waiting = ()
        self.failures.load_state_dict(state["reads"])
        self._position = _Position(place, waiting)

    def _data_name(self) -> str:
        sources = ", ".join(f"{s.name} {s.size} {s.rate:.6f}" for s in self.source.stream.sources)
        return f"{sources}; seed {self.cfg.seed}, start {self.cfg.start_index}, shuffle {self.cfg.shuffle}"

    def metrics(self) -> dict[str, float]:
        """Counters for the log: bad and refused examples, and how full the rows are."""
        out = self.failures.metrics() | {f"data/rejected_{r}": float(n) for r, n in sorted(self.rejected.items())}
        rows = self._rows["rows"]
        if self.cfg.packing is not None and rows:
            out["data/examples_per_row"] = self._rows["examples"] / rows
            out["data/token_fill"] = self._rows["tokens"] / (rows * self.cfg.sequence_length)
            out["data/frame_fill"] = self._rows["frames"] / (rows * self.max_frames)
        return out

    # ------------------------------------------------------------------------------------------ iteration

    def __iter__(self) -> Iterator[Batch]:
        start = self._position
        places = chain(start.waiting, count(start.next))
        loaded = self._loaded(self.cfg.start_index + self.rank + m * self.world_size for m in places)
        batches = self._batches(loaded, start)
        if self.cfg.num_workers > 0:
            batches = in_background(batches)
        while True:
            with _naming_dead_workers():
                batch, self._position = next(batches)
            yield batch

    def _loaded(self, places: Iterator[int]) -> Generator[Loaded]:
        """Examples in the order of `places`, whoever reads them."""
        cfg = self.cfg
        if cfg.num_workers == 0:
            return (self.source[p] for p in places)
        workers = torch.utils.data.DataLoader(
            self.source,
            batch_size=None,
            sampler=_Endless(places),
            num_workers=cfg.num_workers,
            prefetch_factor=cfg.prefetch_factor or 2,
            timeout=cfg.timeout,
            collate_fn=_as_it_is,
            worker_init_fn=_live_and_die_with_the_parent,
        )
        # The iterator is made here, in the main thread, because making it forks the workers.
        return _owned(iter(workers))

    def _batches(self, loaded: Generator[Loaded], start: _Position) -> Generator[tuple[Batch, _Position]]:
        """Batches, each with the position behind it."""
        rows: list[ProcessedExample] = []
        try:
            for row, position in self._rows_of(loaded, start):
                rows.append(row)
                if len(rows) < self.device_batch_size:
                    continue
                batch = self.collator(rows)
                if self.cfg.pin_memory and torch.cuda.is_available():
                    batch = batch.pin_memory()
                yield batch, replace(position, reads=self.failures.state_dict())
                rows = []
        finally:
            loaded.close()

    def _rows_of(self, loaded: Iterator[Loaded], start: _Position) -> Iterator[tuple[ProcessedExample, _Position]]:
        """Rows in order, each with the position behind it."""
        packer = None
        if self.cfg.packing is not None:
            packer = Packer[ProcessedExample](self.cfg.packing, self.cfg.sequence_length, self.max_frames)
        for m in chain(start.waiting, count(start.next)):
            example = self._account(loaded)
            if packer is None:
                self._count_row([example])
                yield example, _Position(m + 1)
                continue
            item = Item(example.num_tokens_after_pruning, example.num_frames, m, example)
            # Those that waited go back in first; they fill the buffer at most, so they push no row out.
            if row := packer.add(item):
                self._count_row([i.value for i in row])
                yield pack_examples([i.value for i in row]), _Position(max(m + 1, start.next), tuple(i.key for i in packer.buffer))

    def _account(self, loaded: Iterator[Loaded]) -> ProcessedExample:
        """The next example, after counting what went wrong on the way to it."""
        with _naming_dead_workers():
            result = next(loaded)
        self.rejected.update(result.rejected)
        self.failures.record(result.reads, result.failures)
        if result.error is not None:
            raise result.error
        return from_shared(result.example)

    def _count_row(self, examples: Sequence[ProcessedExample]) -> None:
        self._rows.update(
            rows=1,
            examples=len(examples),
            tokens=sum(e.num_tokens_after_pruning for e in examples),
            frames=sum(e.num_frames for e in examples),
        )


@contextmanager
def _naming_dead_workers() -> Iterator[None]:
    """torch notices a dead worker in whichever thread is looking; either way it is one sentence."""
    try:
        yield
    except RuntimeError as err:
        if "DataLoader worker" not in str(err):
            raise
        reason = " ".join(str(err).split())[:200]
        raise OLMoEnvironmentError(f"a data worker died ({reason}); lower data.num_workers or free memory") from None


class _Endless(torch.utils.data.Sampler):
    """Hands an endless iterator of places to torch's loader."""

    def __init__(self, places: Iterator[int]) -> None:
        self.places = places

    def __iter__(self) -> Iterator[int]:
        return self.places


def _owned(iterator: Iterator[T]) -> Generator[T]:
    """The same items; closing it lets go of the iterator, and so ends its workers at once and in order. (Left to the
    garbage collector, workers are waited for until they notice by themselves, five seconds later.)"""
    yield from iterator


def _live_and_die_with_the_parent(worker: int) -> None:
    """Torchrun and Ctrl-C signal the whole process group; the training process finishes its step first and needs data for
    it. Workers end when it tells them to, or when it is gone: torch looks for that only between two examples, and a worker
    that waits for room in its queue would stay for ever, so on Linux the kernel is asked to end it."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def _as_it_is(value: T) -> T:
    return value
