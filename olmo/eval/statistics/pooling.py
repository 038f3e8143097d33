"""The answers of several tasks as one sample: means over tasks, each task counting alike.

Tasks are independent unless they ask about the same videos (with and without subtitles, say). Where the names of videos coincide they
are one video, so that what goes wrong with it goes wrong in both tasks at once.
"""

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from olmo.eval.metrics.metric import Metric, Record
from olmo.eval.statistics.clusters import cluster_of, codes
from olmo.eval.statistics.estimates import Estimate, Sample, estimate
from olmo.eval.statistics.scores import headline_values


@dataclass(frozen=True)
class TaskValues:
    """One value per question of a task, and what decides how it counts in the headline of the task."""

    values: np.ndarray
    """[n] float."""
    videos: Sequence[Hashable]
    """What each question is about."""
    types: Sequence[str]
    """Question types where each of them counts alike, otherwise the same for all."""

    @classmethod
    def of(cls, metric: Metric, records: Sequence[Record], values: np.ndarray) -> "TaskValues":
        """Values of records, of which those that are NaN do not count."""
        counted = [(r, v) for r, v in zip(records, values, strict=True) if not np.isnan(v)]
        by_type = metric.headline == "average"
        types = [str(r.get("question_type", "all")) if by_type else "all" for r, _ in counted]
        return cls(np.array([v for _, v in counted]), [cluster_of(r) for r, _ in counted], types)


@dataclass(frozen=True)
class Average:
    """Unweighted mean of the headlines of some tasks."""

    tasks: int
    n: int
    """Questions of all of them."""
    value: float
    low: float
    high: float
    reliable: bool


def pool(tasks: Sequence[TaskValues]) -> tuple[Sample, np.ndarray]:
    """One sample in which every task counts alike, and for each of its videos the block of tasks that share videos (see `resampled`)."""
    keys = [(number, kind) for number, task in enumerate(tasks) for kind in task.types]
    strata = codes(keys)
    types = [len(set(task.types)) for task in tasks]
    shares = np.array([1 / (len(tasks) * types[number]) for number, _ in dict.fromkeys(keys)])
    names = [video for task in tasks for video in task.videos]
    sample = Sample(np.concatenate([task.values for task in tasks]), codes(names), strata, shares)
    blocks = _blocks(tasks)
    return sample, np.array([blocks[video] for video in dict.fromkeys(names)])


def average_of_tasks(tasks: Sequence[tuple[Metric, Sequence[Record]]], compat: bool = False) -> Average:
    """Mean over the headlines of tasks with a 95 % interval; tasks without records are the caller's mistake."""
    values = [TaskValues.of(metric, records, headline_values(metric, records, compat)) for metric, records in tasks]
    return average_of(values)


def average_of(tasks: Sequence[TaskValues]) -> Average:
    sample, _ = pool(tasks)
    found: Estimate = estimate(sample)
    return Average(len(tasks), len(sample.values), found.value, found.low, found.high, found.reliable)


def _blocks(tasks: Sequence[TaskValues]) -> Mapping[Hashable, int]:
    """Video -> a number that is the same for all videos of tasks which share one, directly or through others."""
    block_of: dict[Hashable, int] = {}
    for number, task in enumerate(tasks):
        touched = {block_of[v] for v in task.videos if v in block_of}
        if touched:
            block_of = {v: number if b in touched else b for v, b in block_of.items()}
        block_of |= dict.fromkeys(task.videos, number)
    return block_of
