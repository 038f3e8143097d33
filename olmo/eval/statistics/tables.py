"""Scores as lines of text. A number is never shown without its interval, nor a doubtful interval without saying so."""

from collections.abc import Mapping

from olmo.eval.statistics.scores import Score

UNRELIABLE = "interval unreliable"


def format_table(scores: Mapping[str, Score]) -> list[str]:
    """One line per score: value, interval, n, chance, and what a reader has to know about it."""
    width = max((len(name) for name in scores), default=0)
    return [f"  {name:<{width}}  {format_score(score)}" for name, score in scores.items()]


def format_score(score: Score) -> str:
    """Everything but the name, in percent where the value is one of right and wrong."""
    notes = [] if score.chance is None else [f"chance {100 * score.chance:5.1f} %"]
    notes += [f"{score.unparsed} unparsed"] if score.unparsed else []
    notes += [] if score.published is None else [f"published evaluator {100 * score.published:.1f} %"]
    notes += [] if score.default is None else [f"published evaluator; {100 * score.default:.1f} % by default"]
    notes += [] if score.reliable else [UNRELIABLE]
    interval = f"[{100 * score.low:5.1f}, {100 * score.high:5.1f}]"
    return "  ".join([f"{100 * score.value:5.1f} %", interval, f"n {score.n:>5}", *notes])
