"""Whether data sets are well: what of them is there, whether examples can be read, how long they are, and what to do about each problem.

Examples go through the preprocessor of training, so that whatever would be wrong then is found now. Videos are opened and their frames
looked up, and decoded only on request: lengths do not depend on what the pictures show.
"""

import logging
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from olmo.data.catalogue import Row, check_name, is_known
from olmo.data.dataset import Dataset
from olmo.data.download.presence import advice, split_state
from olmo.data.examples import Limits, Preprocessor
from olmo.data.failures import BAD_EXAMPLE, cause_and_file
from olmo.data.frame_table import VideoInfo
from olmo.data.load_video import VideoLoader
from olmo.data.mixtures import KwargsMixture
from olmo.data.records import DatasetRow
from olmo.data.seeding import Purpose, example_rng
from olmo.data.video_reader import VideoReader
from olmo.exceptions import OLMoDataError, OLMoError, first_line

log = logging.getLogger(__name__)

AGAIN = "delete the file and fetch it again; if it stays like this, leave its annotations out"
WHAT_TO_DO = {
    "timeout": "raise data.decode_timeout, or encode the file anew with more key frames",
    "invalid_clip": "compare the times of the annotation with the length of the video: the file may be another cut of it",
    BAD_EXAMPLE: "correct the annotation, or leave it out",
}
"""Cause of a failure (`olmo.data.failures`) -> the remedy, where it is not `AGAIN`; a missing file is fetched from its source."""

TOO_LONG_ADVICE = "raise data.sequence_length, or lower model.mm_preprocessor.video.max_frames; text beyond the end of a row is cut"


@dataclass
class Problem:
    """Something that is wrong, and the remedy."""

    what: str
    do: str


@dataclass
class Lengths:
    """Statistics of a number per example."""

    min: int
    median: int
    p95: int
    max: int

    @classmethod
    def of(cls, values: Sequence[int]) -> "Lengths | None":
        if not values:
            return None
        return cls(*(int(v) for v in np.percentile(values, [0, 50, 95, 100], method="nearest")))


@dataclass
class Diagnosis:
    """One data set."""

    name: str
    split: str
    status: str = "ok"
    """ok; problems (it can be opened, but see there); missing (it cannot be opened); failed (an error that is not about the data)."""
    rate: float | None = None
    """Share of the mixture; null where sizes are unknown."""
    examples: int | None = None
    expected: int | None = None
    """Examples that the publisher states."""
    videos: int | None = None
    """Different videos of an indexed data set."""
    videos_missing: int | None = None
    sampled: int = 0
    readable: int = 0
    failures: dict[str, int] = field(default_factory=dict)
    """Cause -> how many of the sampled examples."""
    frames: Lengths | None = None
    tokens: Lengths | None = None
    """Before pruning, nothing cut."""
    tokens_after_pruning: Lengths | None = None
    over_sequence_length: float | None = None
    """Share of the sampled examples that are longer than the sequence length after pruning."""
    problems: list[Problem] = field(default_factory=list)
    caution: str = ""
    """What to know about the layout of its files, if that is not documented."""


class ProbingLoader(VideoLoader):
    """Opens videos and looks up frames, but delivers blank pictures instead of decoding."""

    @property
    def reader(self) -> "_Blank":
        return _Blank(super().reader)


class _Blank:
    """A reader of videos that decodes nothing."""

    def __init__(self, reader: VideoReader) -> None:
        self.probe = reader.probe

    def frames_of(self, info: VideoInfo, indices: np.ndarray, transform: Callable[[np.ndarray], np.ndarray] | None = None) -> np.ndarray:
        side = min(info.width, info.height)  # small, in proportions that a resize may keep
        frame = np.zeros((16 * info.height // side, 16 * info.width // side, 3), np.uint8)
        return np.repeat((frame if transform is None else transform(frame))[None], len(indices), axis=0)


Open = Callable[[str, str], Dataset]
"""(name, split) -> the data set."""


def split_of(name: str, split: str) -> str:
    """The split of a data set that is looked at: its own, or `split`, or its first where it has no such split."""
    row = _row_of(name)
    if row is None:
        return split
    return check_name(name)[1] or (split if split in row.splits else row.splits[0])


def examine(name: str, split: str, open_set: Open, preprocessor: Preprocessor, limits: Limits, *, sample: int, seed: int) -> Diagnosis:
    """Look at one data set; whatever is wrong with it stands in the diagnosis, and nothing is raised."""
    row = _row_of(name)
    found = Diagnosis(name, split, caution=row.caution if isinstance(row, DatasetRow) else "")
    try:
        _examine(found, row, open_set, preprocessor, limits, sample, seed)
    except OLMoDataError as err:
        found.status = "missing"
        found.problems.append(Problem(str(err), _how_to_get(row)))
    except OLMoError as err:
        found.status = "failed"
        found.problems.append(Problem(str(err), "correct this first: it is about the machine or the config, not about the data"))
    except Exception as err:  # a reader that fails on unforeseen annotations must not hide the other data sets
        found.status = "failed"
        log.debug("%s", name, exc_info=True)
        found.problems.append(Problem(f"its reader failed: {type(err).__name__}: {first_line(err)}", "see the traceback with --debug"))
    if found.problems and found.status == "ok":
        found.status = "problems"
    return found


def _row_of(name: str) -> Row | None:
    try:
        return check_name(name)[0] if is_known(name) else None
    except OLMoError:  # a file of one's own, or a name whose set is not read yet
        return None


def _how_to_get(row: Row | None) -> str:
    if isinstance(row, DatasetRow):
        return "; ".join(advice(row))
    return "correct the file where it is named, or its path" if row is None else "delete its folder: it is generated anew on next use"


def _examine(found: Diagnosis, row: Row | None, open_set: Open, preprocessor: Preprocessor, limits: Limits, sample: int, seed: int) -> None:
    dataset = open_set(found.name, found.split)
    found.examples = len(dataset)
    if isinstance(row, DatasetRow):
        state = split_state(row, found.split)
        found.expected, found.videos, found.videos_missing = state.expected, state.videos, state.missing
        found.problems += [Problem(what, _how_to_get(row)) for what in state.problems()]
    if not found.examples:
        found.problems.append(Problem("it has no examples", "check its annotation files: they may be of another split or version"))
    sizes, failures = _read_sample(found.name, dataset, preprocessor, limits, sample, seed)
    found.sampled, found.readable = len(sizes) + len(failures), len(sizes)
    _tell_failures(found, failures, _how_to_get(row))
    _tell_lengths(found, sizes, limits)


@dataclass(frozen=True)
class _Size:
    """What is kept of a processed example; its pictures are large."""

    frames: int
    tokens: int
    after_pruning: int
    refusal: str | None


def _read_sample(
    name: str, dataset: Dataset, preprocessor: Preprocessor, limits: Limits, sample: int, seed: int
) -> tuple[list[_Size], list[OLMoDataError]]:
    """Read up to `sample` examples, the same ones every time."""
    chosen = example_rng(seed, name, 0, 0, Purpose.ORDER).choice(len(dataset), min(sample, len(dataset)), replace=False)
    sizes, failures = [], []
    for index in np.sort(chosen).tolist():
        rng = example_rng(seed, name, index, 0, Purpose.EXAMPLE)
        try:
            example = preprocessor(dataset.get(index, rng), rng)
        except OLMoDataError as err:
            failures.append(err)
            continue
        refusal = limits.refusal(example)
        sizes.append(_Size(example.num_frames, example.num_tokens, example.num_tokens_after_pruning, refusal))
    return sizes, failures


def _tell_failures(found: Diagnosis, failures: Sequence[OLMoDataError], how_to_get: str) -> None:
    """Count failures by their cause, and name the first of each."""
    by_cause: dict[str, list[OLMoDataError]] = {}
    for err in failures:
        by_cause.setdefault(cause_and_file(err)[0], []).append(err)
    found.failures = {cause: len(errors) for cause, errors in by_cause.items()}
    for cause, errors in by_cause.items():
        what = f"{len(errors)} of {found.sampled} examples cannot be read, first: {errors[0]}"
        found.problems.append(Problem(what, how_to_get if cause == "missing" else WHAT_TO_DO.get(cause, AGAIN)))


def _tell_lengths(found: Diagnosis, sizes: Sequence[_Size], limits: Limits) -> None:
    found.frames = Lengths.of([s.frames for s in sizes])
    found.tokens = Lengths.of([s.tokens for s in sizes])
    found.tokens_after_pruning = Lengths.of([s.after_pruning for s in sizes])
    if sizes and limits.max_tokens is not None:
        longer = sum(s.after_pruning > limits.max_tokens for s in sizes)
        found.over_sequence_length = longer / len(sizes)
        if longer:
            what = f"{longer} of {len(sizes)} examples are longer than sequence_length {limits.max_tokens} after pruning"
            found.problems.append(Problem(what, TOO_LONG_ADVICE))
    refused = Counter(s.refusal for s in sizes if s.refusal)
    for reason, count in refused.items():
        what = f"{count} of {len(sizes)} examples fit no row ({reason}) and would be left out of the training"
        found.problems.append(Problem(what, TOO_LONG_ADVICE))


def rates_of(groups: Sequence[KwargsMixture], sizes: Mapping[str, int | None]) -> dict[str, float | None]:
    """Share of each data set, as `build_mixture` gives it, among those whose size is known or does not matter; null for others."""
    shares: dict[str, float | None] = {}
    for group in groups:
        own: dict[str, float] = {}
        for entry in group.datasets:
            factor = entry.root_size_factor
            size = sizes.get(entry.dataset_name)
            if size is None and factor is not None and (factor == 0 or factor >= 1):
                size = 1  # it does not matter
            shares[entry.dataset_name] = None
            if size is not None:
                own[entry.dataset_name] = entry.share(size)
        total = sum(own.values())
        shares |= {name: share / total * group.rate if total > 0 else 0.0 for name, share in own.items()}
    whole = sum(s for s in shares.values() if s is not None)
    return {name: share if share is None or whole == 0 else share / whole for name, share in shares.items()}
