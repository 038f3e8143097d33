"""One place of the stream -> one processed example: what a data worker does, and what it reports.

Everything here depends on the place alone, not on the worker or on what was read before, so any number of workers gives
the same examples. A broken file is replaced by the next example of the same data set, which is a function of the place
as well: resuming needs no memory of what was skipped.
"""

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

import numpy as np
import torch

from olmo.data.mixture_stream import MixtureStream, Source, name_key
from olmo.data.mixtures import Member
from olmo.exceptions import OLMoDataError, OLMoError
from olmo.preprocessing.example import ProcessedExample


class Preprocessor(Protocol):
    """What turns a raw example into arrays."""

    @property
    def max_frames(self) -> int:
        """Most frames or crops that one example can have."""
        ...

    def __call__(self, example: dict, rng: np.random.Generator) -> ProcessedExample: ...


MAX_SUBSTITUTES = 50
"""Examples tried for one place before the run gives up; far above what `max_bad_fraction` lets through."""

TOO_LONG = "too_long"
TOO_MANY_FRAMES = "too_many_frames"


@dataclass
class Loaded:
    """What comes of one place."""

    example: ProcessedExample | None = None
    reads: int = 0
    failures: list[OLMoDataError] = field(default_factory=list)
    rejected: Counter[str] = field(default_factory=Counter)
    """Examples that were read but fit no row, by reason."""
    error: OLMoError | None = None
    """What ends the run (it crosses the process boundary as a value, because a re-raised copy would carry a traceback)."""


@dataclass(frozen=True)
class Limits:
    """What fits a row."""

    max_tokens: int | None = None
    """Tokens after pruning; text beyond is cut, visual tokens and whole answers must not be."""
    max_frames: int | None = None
    vision_ids: Collection[int] = ()
    """Special tokens that must not be cut."""

    def refusal(self, example: ProcessedExample) -> str | None:
        """Why an example fits no row, or None."""
        if self.max_frames is not None and example.num_frames > self.max_frames:
            return TOO_MANY_FRAMES
        if self.max_tokens is None or example.num_tokens_after_pruning <= self.max_tokens:
            return None
        end = self.max_tokens + example.dropped_cells
        return TOO_LONG if example.lost_by_cut(end, self.vision_ids) else None


class ExampleSource(torch.utils.data.Dataset):
    """Maps places of the stream to `Loaded`; runs in this process or in data workers."""

    def __init__(self, members: Sequence[Member], preprocessor: Preprocessor, limits: Limits, *, seed: int, shuffle: bool) -> None:
        self.members, self.preprocessor, self.limits, self.seed = list(members), preprocessor, limits, seed
        self.stream = MixtureStream([Source(m.name, len(m.dataset), m.rate) for m in members], seed, shuffle)

    def __getitem__(self, place: int) -> Loaded:
        loaded = Loaded()
        try:
            for attempt in range(MAX_SUBSTITUTES):
                loaded.reads += 1
                try:
                    example = self._read(place, attempt)
                except OLMoDataError as err:
                    loaded.failures.append(err)
                    continue
                if reason := self.limits.refusal(example):
                    loaded.rejected[reason] += 1
                    continue
                loaded.example = to_shared(example) if torch.utils.data.get_worker_info() else example
                return loaded
            loaded.error = OLMoDataError(self._exhausted(loaded))
        except OLMoError as err:
            loaded.error = err
        return loaded

    def _read(self, place: int, attempt: int) -> ProcessedExample:
        draw = self.stream.draw(place, skip=attempt)
        member = self.members[draw.dataset]
        rng = np.random.default_rng([self.seed, name_key(member.name), draw.index, draw.epoch, attempt])
        raw = member.dataset.get(draw.index, rng)
        if member.message_weight is not None:
            own = raw.get("weight")
            raw = {**raw, "weight": member.message_weight * (own if isinstance(own, (int, float)) else 1)}
        return self.preprocessor(raw, rng)

    @staticmethod
    def _exhausted(loaded: Loaded) -> str:
        reasons = [str(f) for f in loaded.failures[:3]] + [f"{n} examples are {r}" for r, n in loaded.rejected.items()]
        return f"{loaded.reads} examples in a row could not be used: {'; '.join(reasons)}"


def to_shared(example: ProcessedExample) -> ProcessedExample:
    """The big arrays as tensors, which a worker hands over in shared memory instead of through a pipe."""
    wrapped = {n: torch.from_numpy(a) for n in ("images", "token_pooling") if (a := getattr(example, n)) is not None}
    return replace(example, **wrapped)


def from_shared(example: ProcessedExample) -> ProcessedExample:
    """Undo `to_shared`; copies nothing."""
    arrays = {n: a.numpy() for n in ("images", "token_pooling") if isinstance(a := getattr(example, n), torch.Tensor)}
    return replace(example, **arrays) if arrays else example
