"""Batches for training: an endless stream that can be stopped after any batch and continued exactly there.

Workers measure, read and preprocess; rows are planned before anything is decoded, and packed in one thread per rank. So the
batches do not depend on the number of workers, a global batch holds the same rows for any number of ranks, and the whole state is
a place in the stream plus the places whose examples wait to be packed.
"""

import logging
from collections import Counter
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from olmo.batch import Batch
from olmo.config import BaseConfig
from olmo.data.background import in_background
from olmo.data.examples import ExampleSource, Limits, Loaded, Preprocessor, from_shared
from olmo.data.failures import FailureLog
from olmo.data.lengths import LengthPreprocessor
from olmo.data.load_video import VideoLoader
from olmo.data.mixtures import KwargsMixture, Member, RootSizeMixture, WeightedDataset, build_mixture, mixture_by_name, single_rates
from olmo.data.moving_shapes import MovingShapesConfig
from olmo.data.packer import Packer, PackingConfig, pack_examples
from olmo.data.paths import data_root
from olmo.data.plan import ExampleCost, PlannedBatch, Planner, Position
from olmo.data.probes import Probes
from olmo.data.row_streams import PackedRows, Row, SingleRows
from olmo.data.video_reader import VideoBackend, VideoReaderConfig
from olmo.data.workers import naming_dead_workers, results_of
from olmo.exceptions import OLMoConfigurationError
from olmo.preprocessing.collator import Collator
from olmo.preprocessing.example import ProcessedExample
from olmo.preprocessing.multimodal import ExamplePreprocessor

log = logging.getLogger(__name__)


@dataclass
class DataLoaderConfig(BaseConfig):
    """What is trained on, and how it is loaded."""

    dataset: str | None = None
    """A mixture or a data set by its name, a .jsonl file, or a mixture in a .yaml file; goes before the three mappings below."""

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
            return single_rates(self.mixture)
        if self.root_size_mixture is not None:
            return [KwargsMixture(g.rate, [WeightedDataset(n, None, f) for n, f in g.mixture.items()]) for g in self.root_size_mixture]
        raise OLMoConfigurationError("no training data: set data.dataset to a mixture or data set, for example moving_shapes")

    def video_loader(self, backend: str = "auto") -> VideoLoader:
        """The decoder for the preprocessor; `backend` is what `mm_preprocessor.video.loading_method` means."""
        return VideoLoader(VideoReaderConfig(VideoBackend(backend), self.decode_timeout, self.isolate_decoding))


def build_train_loader(
    cfg: DataLoaderConfig,
    preprocessor: ExamplePreprocessor,
    collator: Collator,
    *,
    device_batch_size: int,
    rank: int = 0,
    world_size: int = 1,
    cost: ExampleCost = ExampleCost(),
) -> "TrainLoader":
    """The stream of batches of one rank, `device_batch_size` rows each. Opens (and if need be generates) the data sets.

    `cost`: the work that is balanced between ranks where rows are packed.
    """
    cfg.check()
    members = build_mixture(cfg.groups(), cfg.split, cfg.moving_shapes)
    probes = Probes(data_root() / "indices" / "probes.sqlite", preprocessor.load_video.config)
    measuring = LengthPreprocessor(preprocessor, probes)
    ranks = {"rank": rank, "world_size": world_size}
    return TrainLoader(cfg, members, preprocessor, collator, measuring, device_batch_size=device_batch_size, cost=cost, **ranks)


class TrainLoader:
    """Iterating continues after the last batch that was handed out; `state_dict` after any batch is what resumes there."""

    def __init__(
        self,
        cfg: DataLoaderConfig,
        members: Sequence[Member],
        preprocessor: Preprocessor,
        collator: Collator,
        measuring: Preprocessor,
        *,
        device_batch_size: int,
        rank: int = 0,
        world_size: int = 1,
        cost: ExampleCost = ExampleCost(),
    ) -> None:
        """`measuring`: gives examples as long as `preprocessor` does, without decoding; asked only where rows are packed."""
        assert 0 <= rank < world_size and device_batch_size > 0
        self.cfg, self.collator, self.cost = cfg, collator, cost
        self.device_batch_size, self.rank, self.world_size = device_batch_size, rank, world_size
        self.max_frames = None if cfg.packing is None else cfg.packing.row_frames(preprocessor.max_frames)
        limits = Limits(
            cfg.sequence_length if cfg.packing is not None or cfg.pad == "to_max" else None,
            self.max_frames,
            collator.vision_ids,
        )
        self.source = ExampleSource(members, preprocessor, limits, seed=cfg.seed, shuffle=cfg.shuffle, measuring=measuring)
        self.failures = FailureLog(cfg.max_bad_fraction)
        self.rejected: Counter[str] = Counter()
        self._rows: Counter[str] = Counter()
        self._position = Position(cfg.start_index)
        self._reads = self.failures.state_dict()
        self._batch: PlannedBatch | None = None

    # ------------------------------------------------------------------------------------------ state

    def state_dict(self) -> dict[str, Any]:
        """Plain numbers that say where the next batch starts; `reads` is this rank's own, all else equal on every rank."""
        p = self._position
        return {
            "place": p.next,
            "rows": p.rows,
            "waiting": [list(w) for w in p.waiting],
            "reads": self._reads,
            "data": self._data_name(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue where `state` was taken: exactly, for any number of ranks and workers. Examples that waited to be packed are
        measured again."""
        if "place" not in state:
            position = self._old_position(state)
        else:
            waiting = tuple((int(place), int(since)) for place, since in state["waiting"])
            position = Position(int(state["place"]), int(state["rows"]), waiting)
        if state["data"] != self._data_name():
            self._warn("the training data changed since the checkpoint was written; the new data start at the old position")
            position = Position(position.next, position.rows)
        if self.cfg.packing is None:
            position = Position(position.next)
        self.failures.load_state_dict(state["reads"])
        self._reads, self._position = state["reads"], position

    def _old_position(self, state: dict[str, Any]) -> Position:
        """Of a checkpoint from when every rank packed on its own: the first place that no rank had taken."""
        self._warn(
            "the checkpoint is from a version with another order of the data, in which every rank packed its own examples: training goes "
            "on at the same place of the new order, without examples that waited to be packed"
        )
        return Position(self.cfg.start_index + int(state["next"]) * int(state["world_size"]))

    def _warn(self, message: str) -> None:
        if self.rank == 0:
            log.warning(message)

    @property
    def epoch_size(self) -> int:
        """Examples of all data sets of the mixture."""
        return sum(s.size for s in self.source.stream.sources)

    @property
    def drawn(self) -> int:
        """Places of the stream whose examples were in the batches handed out so far, on all ranks."""
        return self._position.next - self.cfg.start_index - len(self._position.waiting)

    def _data_name(self) -> str:
        sources = ", ".join(f"{s.name} {s.size} {s.rate:.6f}" for s in self.source.stream.sources)
        return f"{sources}; seed {self.cfg.seed}, start {self.cfg.start_index}, shuffle {self.cfg.shuffle}"

    def metrics(self) -> dict[str, float]:
        """Counters for the log: bad and refused examples, how full this rank's rows are, and how even the ranks' work."""
        out = self.failures.metrics() | {f"data/rejected_{r}": float(n) for r, n in sorted(self.rejected.items())}
        rows = self._rows["rows"]
        if self.cfg.packing is not None and rows:
            out["data/examples_per_row"] = self._rows["examples"] / rows
            out["data/token_fill"] = self._rows["tokens"] / (rows * self.cfg.sequence_length)
            out["data/frame_fill"] = self._rows["frames"] / (rows * self.max_frames)
            out["data/empty_rows"] = float(self._rows["empty"])
        if self._batch is not None:
            out |= {"data/work_max_over_mean": self._batch.imbalance, "data/longest_wait_rows": float(self._batch.longest_wait)}
        return out

    # ------------------------------------------------------------------------------------------ iteration

    def __iter__(self) -> Iterator[Batch]:
        cfg, stream = self.cfg, self._stream()
        settings = {"num_workers": cfg.num_workers, "prefetch_factor": cfg.prefetch_factor, "timeout": cfg.timeout}
        batches = self._batches(stream, results_of(self.source, stream.tasks(), **settings))
        if cfg.num_workers > 0:
            batches = in_background(batches)
        while True:
            with naming_dead_workers():
                batch, last, self._reads = next(batches)
            self._position, self._batch = last.position, last.batch
            yield batch

    def _stream(self) -> SingleRows | PackedRows:
        start, ranks = self._position, {"rank": self.rank, "world_size": self.world_size}
        if self.cfg.packing is None:
            return SingleRows(start, **ranks)
        packer = Packer[Loaded](self.cfg.packing, self.cfg.sequence_length, self.max_frames)
        return PackedRows(Planner(packer, self.device_batch_size * self.world_size, self.cost, start=start, **ranks), start)

    def _batches(self, stream: SingleRows | PackedRows, results: Generator) -> Generator[tuple[Batch, Row, dict[str, Any]]]:
        """Batches, each with its last row and the account of reads behind it."""
        rows: list[ProcessedExample] = []
        try:
            for row in stream.rows(results):
                rows.append(self._joined(row))
                if len(rows) < self.device_batch_size:
                    continue
                batch = self.collator(rows)
                if self.cfg.pin_memory and torch.cuda.is_available():
                    batch = batch.pin_memory()
                yield batch, row, self.failures.state_dict()
                rows = []
        finally:
            results.close()

    def _joined(self, row: Row) -> ProcessedExample:
        """The arrays of a row, after counting what went wrong on the way to it."""
        for loaded in row.examples:
            self.rejected.update(loaded.rejected)
            self.failures.record(loaded.reads, loaded.failures)
            if loaded.error is not None:
                raise loaded.error
        examples = [from_shared(loaded.example) for loaded in row.examples if loaded.example is not None]
        self._rows.update(
            rows=1,
            empty=not examples,
            examples=len(examples),
            tokens=sum(e.num_tokens_after_pruning for e in examples),
            frames=sum(e.num_frames for e in examples),
        )
        return examples[0] if self.cfg.packing is None else pack_examples(examples)
