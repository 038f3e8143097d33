"""Scores with intervals, and comparisons of two runs: what graded answers say, and how surely."""

from olmo.eval.statistics.clusters import cluster_of
from olmo.eval.statistics.paired import PairedDifference, paired_difference
from olmo.eval.statistics.pooling import Average, average_of_tasks
from olmo.eval.statistics.scores import OVERALL, Score, score
from olmo.eval.statistics.tables import UNRELIABLE, format_score, format_table

__all__ = [
    "OVERALL",
    "UNRELIABLE",
    "Average",
    "PairedDifference",
    "Score",
    "average_of_tasks",
    "cluster_of",
    "format_score",
    "format_table",
    "paired_difference",
    "score",
]
