"""One place of the stream -> one example, measured or processed: what a data worker does, and what it reports.

Everything here depends on the place alone, not on the worker or on what was read before, so any number of workers gives
the same examples. What turns out unusable at once is replaced by the next example of the same data set, which is a function of
the place as well: resuming needs no memory of what was skipped.
"""

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

import numpy as np
import torch

from olmo.data.lengths import Lengths
from olmo.data.mixture_stream import MixtureStream, Source
from olmo.data.mixtures import Member
from olmo.data.packer import TOO_LONG, TOO_MANY_FRAMES
from olmo.data.seeding import Purpose, example_rng
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


@dataclass
class Loaded:
    """What comes of one place."""

    place: int
    attempt: int = 0
    """How many examples of the data set were passed over before this one."""
    example: ProcessedExample | None = None
    """None where it was only measured, or could not be read."""
    lengths: Lengths | None = None
    reads: int = 0
    failures: list[OLMoDataError] = field(default_factory=list)
    rejected: Counter[str] = field(default_factory=Counter)
    """Examples that fit no row, by reason."""
    error: OLMoError | None = None
    """What ends the run (it crosses the process boundary as a value, because a re-raised copy would carry a traceback)."""


Task = int | tuple[int, ...] | Loaded
"""A place to read, places to measure, or a measured example to read."""


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
    """Does the tasks of the loader, in this process or in data workers."""

    def __init__(
        self,
        members: Sequence[Member],
        preprocessor: Preprocessor,
        limits: Limits,
        *,
        seed: int,
        shuffle: bool,
        measuring: Preprocessor | None = None,
    ) -> None:
        """`measuring` gives examples as long as those of `preprocessor`, whose pixels are never looked at; needed to measure places."""
        self.members, self.limits, self.seed = list(members), limits, seed
        self.preprocessor, self.measuring = preprocessor, measuring
        self.stream = MixtureStream([Source(m.name, len(m.dataset), m.rate) for m in members], seed, shuffle)

    def __getitem__(self, task: Task) -> Loaded | list[Loaded]:
        if isinstance(task, int):
            return self._handed_over(self._first_usable(task, self.preprocessor))
        if isinstance(task, tuple):
            return [self.measure(place) for place in task]
        return self._handed_over(self.read(task))

    def measure(self, place: int) -> Loaded:
        """How long the example of a place will be."""
        found = self._first_usable(place, self.measuring)
        return found if found.example is None else replace(found, example=None, lengths=Lengths.of(found.example))

    def read(self, measured: Loaded) -> Loaded:
        """The example that was measured. One that cannot be decoded is missing from its row and nothing takes its place, since
        all rows have been planned."""
        try:
            example = self._example(measured.place, measured.attempt, self.preprocessor)
        except OLMoDataError as err:
            return replace(measured, failures=[*measured.failures, err])
        except OLMoError as err:
            return replace(measured, error=err)
        if (found := Lengths.of(example)) != measured.lengths:
            name = example.name or f"the example at place {measured.place}"
            words = f"{name} has {found} now that it is read, but was measured as {measured.lengths}; did its file change?"
            return replace(measured, error=OLMoDataError(words))
        return replace(measured, example=example)

    def _first_usable(self, place: int, preprocessor: Preprocessor) -> Loaded:
        loaded = Loaded(place)
        try:
            for attempt in range(MAX_SUBSTITUTES):
                loaded.reads += 1
                try:
                    example = self._example(place, attempt, preprocessor)
                except OLMoDataError as err:
                    loaded.failures.append(err)
                    continue
                if reason := self.limits.refusal(example):
                    loaded.rejected[reason] += 1
                    continue
                loaded.attempt, loaded.example = attempt, example
                return loaded
            loaded.error = OLMoDataError(self._exhausted(loaded))
        except OLMoError as err:
            loaded.error = err
        return loaded

    def _example(self, place: int, attempt: int, preprocessor: Preprocessor) -> ProcessedExample:
        draw = self.stream.draw(place, skip=attempt)
        member = self.members[draw.dataset]
        rng = example_rng(self.seed, member.name, draw.index, draw.epoch, Purpose.EXAMPLE)
        raw = member.dataset.get(draw.index, rng)
        if member.message_weight is not None:
            own = raw.get("weight")
            raw = {**raw, "weight": member.message_weight * (own if isinstance(own, (int, float)) else 1)}
        return preprocessor(raw, rng)

    @staticmethod
    def _handed_over(loaded: Loaded) -> Loaded:
        if loaded.example is None or torch.utils.data.get_worker_info() is None:
            return loaded
        return replace(loaded, example=to_shared(loaded.example))

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
