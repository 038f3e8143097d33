"""How often 95 % intervals hold the truth, by simulation.

    python -m tests.eval.statistics.simulation [runs]

prints the table of all settings. Every video has a share of right answers of its own, drawn from a beta distribution with the mean p
and as wide as the correlation within videos says (0 = none, 1 = every video all right or all wrong).
"""

import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from olmo.eval.statistics.estimates import Sample, estimate
from olmo.eval.statistics.paired import difference_of
from olmo.eval.statistics.pooling import TaskValues, average_of, pool

RUNS = 2000
LIMITS = (0.93, 0.97)

Sizes = Callable[[np.random.Generator], np.ndarray]


def equal(videos: int, questions: int) -> Sizes:
    return lambda rng: np.full(videos, questions)


def geometric(videos: int, mean: int) -> Sizes:
    """Most videos have few questions, some have many: the widest is about five times the mean."""
    return lambda rng: rng.geometric(1 / mean, videos)


def lognormal(videos: int) -> Sizes:
    """Very uneven: from 1 to about 30 questions, mean 4.5."""
    return lambda rng: np.maximum(1, np.round(np.exp(rng.normal(1, 1, videos)))).astype(int)


def shares(rng: np.random.Generator, p: float, correlation: float, videos: int) -> np.ndarray:
    """The share of right answers of each video, [videos]."""
    if correlation == 0:
        return np.full(videos, p)
    if correlation == 1:
        return (rng.random(videos) < p).astype(float)
    width = (1 - correlation) / correlation
    return rng.beta(p * width, (1 - p) * width, videos)


@dataclass(frozen=True)
class Setting:
    """One kind of test set."""

    name: str
    sizes: Sizes
    correlation: float

    def draw(self, rng: np.random.Generator, p: float) -> tuple[np.ndarray, np.ndarray]:
        """(video of each question, the share of right answers of its video)."""
        sizes = self.sizes(rng)
        return np.repeat(np.arange(len(sizes)), sizes), np.repeat(shares(rng, p, self.correlation, len(sizes)), sizes)


SETTINGS = (
    Setting("200 questions, 100 videos, independent", equal(100, 2), 0.0),
    Setting("200 questions, 100 videos, correlation 0.3", equal(100, 2), 0.3),
    Setting("200 questions, 100 videos, correlation 0.8", equal(100, 2), 0.8),
    Setting("200 questions, one per video", equal(200, 1), 0.0),
    Setting("1,000 questions, 100 videos, independent", equal(100, 10), 0.0),
    Setting("1,000 questions, 100 videos, correlation 0.5", equal(100, 10), 0.5),
    Setting("1,000 questions, 100 videos, all alike", equal(100, 10), 1.0),
    Setting("1,500 questions, 500 videos, correlation 0.5", equal(500, 3), 0.5),
    Setting("about 400, 100 uneven videos, independent", geometric(100, 4), 0.0),
    Setting("about 400, 100 uneven videos, correlation 0.3", geometric(100, 4), 0.3),
    Setting("about 400, 100 uneven videos, correlation 0.8", geometric(100, 4), 0.8),
)
VERY_UNEVEN = (
    Setting("about 1,350, 300 very uneven videos, correlation 0.3", lognormal(300), 0.3),
    Setting("about 1,350, 300 very uneven videos, correlation 0.8", lognormal(300), 0.8),
)
PROPORTIONS = (0.1, 0.5, 0.95)


def coverage_of_proportion(setting: Setting, p: float, runs: int, seed: int = 0) -> float:
    rng = np.random.default_rng(seed)
    held = 0
    for _ in range(runs):
        videos, chances = setting.draw(rng, p)
        found = estimate(Sample.plain((rng.random(len(chances)) < chances).astype(float), videos))
        held += found.low <= p <= found.high
    return held / runs


def coverage_of_grades(setting: Setting, p: float, runs: int, seed: int = 0) -> float:
    """Grades between 0 and 1, such as F1: a third is 0 or 1, the others lie between."""
    rng = np.random.default_rng(seed)
    held = 0
    for _ in range(runs):
        videos, chances = setting.draw(rng, p)
        partly = rng.beta(2 * np.maximum(chances, 1e-9), 2 * np.maximum(1 - chances, 1e-9))
        values = np.where(rng.random(len(chances)) < 1 / 3, rng.random(len(chances)) < chances, partly)
        found = estimate(Sample.plain(values, videos))
        held += found.low <= p <= found.high
    return held / runs


def coverage_of_average(setting: Setting, runs: int, seed: int = 0) -> float:
    """The mean over four question types of different frequency and difficulty; the types of a video share its difficulty."""
    rng = np.random.default_rng(seed)
    often, easier = np.array([0.5, 0.3, 0.15, 0.05]), np.array([0.5, 0.8, 1.0, 1.2])
    held = 0
    for _ in range(runs):
        videos, chances = setting.draw(rng, 0.6)
        types = rng.choice(4, size=len(videos), p=often)
        right = rng.random(len(chances)) < np.where(types < 3, easier[types] * chances, 1 - 0.7 * (1 - chances))
        found = estimate(Sample.balanced(right.astype(float), videos, np.unique(types, return_inverse=True)[1]))
        held += found.low <= (0.3 + 0.48 + 0.6 + 0.72) / 4 <= found.high
    return held / runs


def coverage_of_tasks(setting: Setting, runs: int, seed: int = 0) -> float:
    """The mean of three tasks, of which two ask about the same videos, with different shares."""
    rng = np.random.default_rng(seed)
    held = 0
    for _ in range(runs):
        videos, chances = setting.draw(rng, 0.6)
        others, other_chances = setting.draw(rng, 0.4)
        tasks = [
            _task(rng, "v", videos, chances),
            _task(rng, "v", videos, 0.5 * chances),
            _task(rng, "w", others, other_chances),
        ]
        found = average_of(tasks)
        held += found.low <= (0.6 + 0.3 + 0.4) / 3 <= found.high
    return held / runs


def coverage_of_difference(setting: Setting, runs: int, change: float = 0.15, gain: float = 0.7, seed: int = 0) -> float:
    """Two runs that answer a share `change` of the questions anew; the second is right there with probability `gain`."""
    rng = np.random.default_rng(seed)
    p, held = 0.6, 0
    for _ in range(runs):
        videos, chances = setting.draw(rng, p)
        first = rng.random(len(chances)) < chances
        anew = rng.random(len(chances)) < change
        second = np.where(anew, rng.random(len(chances)) < gain, first)
        task = TaskValues(second.astype(float) - first, [f"v{v}" for v in videos], ["all"] * len(videos))
        found = difference_of(*pool([task]))
        held += found.low - 1e-9 <= change * (gain - p) <= found.high + 1e-9  # both lie on multiples of 1 / n
    return held / runs


def _task(rng: np.random.Generator, name: str, videos: np.ndarray, chances: np.ndarray) -> TaskValues:
    right = (rng.random(len(chances)) < chances).astype(float)
    return TaskValues(right, [f"{name}{v}" for v in videos], ["all"] * len(videos))


def table(runs: int = RUNS) -> Iterator[str]:
    yield f"{'':<54}" + "".join(f"  p = {p:<5}" for p in PROPORTIONS)
    for setting in (*SETTINGS, *VERY_UNEVEN):
        yield f"{setting.name:<54}" + "".join(f"  {coverage_of_proportion(setting, p, runs):<9.3f}" for p in PROPORTIONS)


if __name__ == "__main__":
    for line in table(int(sys.argv[1]) if len(sys.argv) > 1 else RUNS):
        print(line, flush=True)
