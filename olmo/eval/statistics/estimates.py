"""A mean over questions with an interval that knows that questions about one video belong together.

The mean is weighted: questions lie in strata (question types, tasks), and every stratum has a fixed share. Its variance comes
from sums over videos. Two are computed and the larger one is taken:

- the cluster-robust one, from what every video adds to the deviation. It assumes nothing, but where few videos are wrong it is far off
  whenever these happen to be short of questions;
- the one of a model: the questions of any video correlate alike, by a coefficient estimated from all videos.

For values in 0..1 the interval is Wilson's at the number of independent questions that would have this variance; it stays within
0..1 and is not empty at the ends. How often such intervals hold the truth is simulated in `tests/eval/statistics/test_coverage.py`.
"""

from dataclasses import dataclass
from math import sqrt

import numpy as np

from olmo.eval.statistics.quantiles import student95

MIN_QUESTIONS, MIN_VIDEOS = 200, 100
"""Fewer questions or videos give no reliable interval."""
ROUNDING = 1e-18
"""Variances below this are those of equal numbers."""
RELIABLE_VALUES = (0.1, 0.95)
"""Proportions near 0 or 1 rest on a few right or wrong answers."""
MIN_EVENNESS = 0.5
"""Least `evenness` of the videos. Where sizes differ more, simulated intervals hold the truth up to a point
too often or, if a few videos hold most of the questions, far too seldom."""
MIN_RARE_VIDEOS = 5
"""Nor is it enough if the rarer of right and wrong comes from fewer videos than this, should one answer decide a whole video (questions
may crowd in few videos). With equally many questions per video the limits above imply it."""


@dataclass(frozen=True)
class Estimate:
    """A mean with its 95 % interval."""

    value: float
    low: float
    high: float
    reliable: bool
    """Whether there is enough for the interval to hold the truth as often as it says."""


@dataclass(frozen=True)
class Sample:
    """Values of questions, and how they enter a mean. Arrays are per question unless said otherwise."""

    values: np.ndarray
    """[n] float."""
    videos: np.ndarray
    """[n] int, 0..number of videos - 1."""
    strata: np.ndarray
    """[n] int, 0..S - 1; none is empty."""
    shares: np.ndarray
    """[S] float: weight of each stratum in the mean; they sum to 1."""

    @classmethod
    def plain(cls, values: np.ndarray, videos: np.ndarray) -> "Sample":
        """Every question counts alike."""
        return cls(values, videos, np.zeros(len(values), dtype=np.int64), np.ones(1))

    @classmethod
    def balanced(cls, values: np.ndarray, videos: np.ndarray, strata: np.ndarray) -> "Sample":
        """Every stratum counts alike."""
        count = int(strata.max()) + 1
        return cls(values, videos, strata, np.full(count, 1 / count))

    @property
    def num_videos(self) -> int:
        return int(self.videos.max()) + 1

    def means(self) -> np.ndarray:
        """Mean of each stratum, [S]."""
        return np.bincount(self.strata, self.values) / np.bincount(self.strata)

    def value(self) -> float:
        return float(self.means() @ self.shares)

    def weights(self) -> np.ndarray:
        """How much each question counts in the mean, [n], sum 1."""
        return (self.shares / np.bincount(self.strata))[self.strata]


def estimate(sample: Sample) -> Estimate:
    """The mean of a sample with its interval; values outside 0..1 (errors of counts, say) get a symmetric one."""
    value, videos = sample.value(), sample.num_videos
    bounded = sample.values.min() >= 0 and sample.values.max() <= 1
    reliable = len(sample.values) >= MIN_QUESTIONS and videos >= MIN_VIDEOS and evenness(sample) >= MIN_EVENNESS
    if bounded:
        rare = equal_videos(sample) * min(value, 1 - value)
        reliable &= RELIABLE_VALUES[0] <= value <= RELIABLE_VALUES[1] and rare > MIN_RARE_VIDEOS - 1e-9
    spread = variance(sample)
    quantile = student95(degrees_of_freedom(sample))
    if not bounded and videos == 1:  # one video tells nothing about others
        return Estimate(value, float(sample.values.min()), float(sample.values.max()), False)
    if not bounded:
        half = quantile * sqrt(spread)
        return Estimate(value, value - half, value + half, reliable)
    if spread > 0:
        independent = value * (1 - value) / spread
    else:  # nothing varies, so nothing tells how the questions of a video go together: as if one decided all
        independent = equal_videos(sample)
    low, high = wilson_interval(value, independent, quantile)
    return Estimate(value, low, high, reliable)


def variance(sample: Sample) -> float:
    """Variance of the mean, the larger of the cluster-robust and the model's (see above); 0 where nothing varies."""
    weights, errors = sample.weights(), deviations(sample)
    robust = float((_per_video(sample, weights * errors) ** 2).sum())
    spread = np.sqrt(np.bincount(sample.strata, errors**2) / np.bincount(sample.strata))[sample.strata]
    squares = _per_video(sample, (weights * spread) ** 2)
    together = _per_video(sample, weights * spread) ** 2 - squares
    model = float(squares.sum() + correlation(sample, errors, spread) * together.sum())
    larger = max(robust, model)
    return larger if larger > ROUNDING else 0.0


def degrees_of_freedom(sample: Sample) -> float:
    """How well the variance is known: videos less one; fewer where it comes mostly from a stratum of few videos (Satterthwaite)."""
    videos = np.maximum(_videos_of_strata(sample), 2)
    means = sample.means()
    parts = sample.shares**2 * np.bincount(sample.strata, (sample.values - means[sample.strata]) ** 2) / np.bincount(sample.strata) / videos
    if not parts.any():
        return max(sample.num_videos - 1, 1)
    return float(parts.sum() ** 2 / (parts**2 / (videos - 1)).sum())


def deviations(sample: Sample) -> np.ndarray:
    """What lies between each value and the mean of its stratum, [n], stretched because that mean has followed the values.

    A stratum of one video tells nothing about how far its mean may be off; the mean of all is taken for it.
    """
    videos = _videos_of_strata(sample)
    several = videos > 1
    centres = np.where(several, sample.means(), sample.values.mean())
    stretch = np.sqrt(np.divide(videos, videos - 1, out=np.ones(len(videos)), where=several))
    return (sample.values - centres[sample.strata]) * stretch[sample.strata]


def correlation(sample: Sample, errors: np.ndarray, spread: np.ndarray) -> float:
    """How alike the questions of one video are answered, up to 1: mean product of the standardised errors of two of them.

    A video counts by its number of questions, not of pairs, so that no long list of questions decides alone.
    """
    standard = np.divide(errors, spread, out=np.zeros_like(errors), where=spread > 0)
    sizes = np.bincount(sample.videos)
    several = sizes > 1
    if not several.any():
        return 0.0
    pairs = _per_video(sample, standard) ** 2 - _per_video(sample, standard**2)
    return min(1.0, float((pairs[several] / (sizes[several] - 1)).sum() / sizes[several].sum()))


def equal_videos(sample: Sample) -> float:
    """How many videos of equal weight would count as much as these do if one answer decided a whole video."""
    return 1 / float((_per_video(sample, sample.weights()) ** 2).sum())


def evenness(sample: Sample) -> float:
    """How many videos of equal size would count as much as those of a stratum do, as a share of them; mean over strata. In 0..1."""
    cells, sizes = np.unique(sample.strata * sample.num_videos + sample.videos, return_counts=True)
    strata = cells // sample.num_videos
    questions, squares, videos = (np.bincount(strata, weights) for weights in (sizes, sizes.astype(float) ** 2, None))
    return float(sample.shares @ (questions**2 / squares / videos))


def wilson_interval(value: float, n: float, quantile: float) -> tuple[float, float]:
    """Wilson's score interval of a proportion `value` seen in `n` independent questions (`n` may be a fraction)."""
    square = quantile * quantile
    centre = (value + square / (2 * n)) / (1 + square / n)
    half = quantile / (1 + square / n) * sqrt(max(value * (1 - value), 0.0) / n + square / (4 * n * n))
    low = 0.0 if value == 0 else min(max(centre - half, 0.0), value)
    high = 1.0 if value == 1 else max(min(centre + half, 1.0), value)
    return low, high


def _videos_of_strata(sample: Sample) -> np.ndarray:
    """[S] int."""
    pairs = np.unique(sample.strata * sample.num_videos + sample.videos)
    return np.bincount(pairs // sample.num_videos)


def _per_video(sample: Sample, numbers: np.ndarray) -> np.ndarray:
    return np.bincount(sample.videos, numbers)
