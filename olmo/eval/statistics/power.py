"""How many questions it would take to see a small difference between two runs."""

from dataclasses import dataclass
from math import ceil
from statistics import NormalDist

from olmo.eval.statistics.estimates import Sample, variance
from olmo.eval.statistics.quantiles import Z95


@dataclass(frozen=True)
class Needed:
    """Size of a test set of the same kind."""

    questions: int
    videos: int


def needed_for(sample: Sample, difference: float = 0.005, power: float = 0.8) -> Needed | None:
    """Questions and videos with which a true difference is told from none (5 %, two-sided) with this probability.

    From paired differences: as often as these runs disagree, as alike as questions about one video are answered, and with as many
    questions per video. None where the runs agree on everything, so that nothing is known about their disagreements.
    """
    spread = variance(sample)
    if spread == 0:
        return None
    times = spread * ((Z95 + NormalDist().inv_cdf(power)) / difference) ** 2
    return Needed(ceil(times * len(sample.values)), ceil(times * sample.num_videos))
