"""Two runs on the same questions: their difference, with an interval that uses the pairing and draws whole videos."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from olmo.eval.metrics.metric import Metric, Record
from olmo.eval.statistics.estimates import MIN_QUESTIONS, MIN_VIDEOS, Sample
from olmo.eval.statistics.pooling import TaskValues, pool
from olmo.eval.statistics.scores import headline_values

BOOTSTRAP_SAMPLES = 2000
MIN_DIFFERING = 10
"""Videos in which the runs must differ for a reliable interval."""
CHUNK = 250
"""Resamples made at a time; bounds the memory."""


@dataclass(frozen=True)
class PairedDifference:
    """Score of the second run minus that of the first, both on the questions that both have."""

    n: int
    """Questions in common."""
    videos: int
    """Videos in common."""
    value: float
    low: float
    high: float
    reliable: bool
    """Whether there are enough questions and videos, and enough of them on which the runs differ."""


@dataclass(frozen=True)
class Pairs:
    """What two runs got for the questions that both have."""

    first: TaskValues
    second: TaskValues

    @property
    def differences(self) -> TaskValues:
        """Second - first."""
        return replace(self.first, values=self.second.values - self.first.values)


def pairs_of(metric: Metric, first: Sequence[Record], second: Sequence[Record]) -> Pairs:
    """Values for the headline of the metric on the questions that both lists hold; ValueError if there are none."""
    by_id = {r["example_id"]: r for r in second}
    common = [r for r in first if r["example_id"] in by_id]
    values = headline_values(metric, common), headline_values(metric, [by_id[r["example_id"]] for r in common])
    known = ~np.isnan(values[0]) & ~np.isnan(values[1])
    if not known.any():
        raise ValueError("the two prediction lists share no question")
    return Pairs(*(TaskValues.of(metric, common, np.where(known, v, np.nan)) for v in values))


def paired_difference(metric: Metric, first: Sequence[Record], second: Sequence[Record]) -> PairedDifference:
    """Difference of the headlines of two runs, second - first, on the questions that both answered."""
    return difference_of(*pool([pairs_of(metric, first, second).differences]))


def difference_of(sample: Sample, blocks: np.ndarray) -> PairedDifference:
    """The mean of paired differences with a 95 % bootstrap interval. `blocks`: see `resampled`."""
    low, high = np.percentile(resampled(sample, blocks), [2.5, 97.5])
    differing = len(np.unique(sample.videos[sample.values != 0]))
    reliable = len(sample.values) >= MIN_QUESTIONS and sample.num_videos >= MIN_VIDEOS and differing >= MIN_DIFFERING
    return PairedDifference(len(sample.values), sample.num_videos, sample.value(), float(low), float(high), reliable)


def resampled(sample: Sample, blocks: np.ndarray, samples: int = BOOTSTRAP_SAMPLES, seed: int = 0) -> np.ndarray:
    """The mean in each of `samples` resamples of whole videos, [samples].

    `blocks` [number of videos]: videos are drawn anew within each block, so that the questions of one data set never stand in for
    those of another. A stratum that a resample leaves empty is left out of its mean.
    """
    shape = (sample.num_videos, len(sample.shares))
    sums, counts = np.zeros(shape), np.zeros(shape)
    np.add.at(sums, (sample.videos, sample.strata), sample.values)
    np.add.at(counts, (sample.videos, sample.strata), 1)
    parts = []
    for block in np.unique(blocks):
        inside = np.flatnonzero(blocks == block)
        within = np.flatnonzero(counts[inside].any(0))
        parts.append((len(inside), within, sums[np.ix_(inside, within)], counts[np.ix_(inside, within)]))
    rng = np.random.default_rng(seed)
    means = []
    for start in range(0, samples, CHUNK):
        size = min(CHUNK, samples - start)
        total, asked = np.zeros((size, shape[1])), np.zeros((size, shape[1]))
        for videos, within, sums_inside, counts_inside in parts:
            drawn = rng.multinomial(videos, np.full(videos, 1 / videos), size=size).astype(float)
            total[:, within] += drawn @ sums_inside
            asked[:, within] += drawn @ counts_inside
        present = asked > 0
        shares = np.where(present, sample.shares, 0.0)
        by_stratum = np.divide(total, asked, out=np.zeros_like(total), where=present)
        means.append((by_stratum * shares).sum(1) / shares.sum(1))
    return np.concatenate(means)
