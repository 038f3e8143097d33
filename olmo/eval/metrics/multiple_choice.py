"""Benchmarks whose answers are options: one reading of answers for all of them, and what each published evaluator made of it.

Without a right answer in the record (a test split whose answers are kept) there is nothing to grade, and grading fails.
"""

from collections.abc import Callable, Sequence

from olmo.eval.metrics.metadata import known
from olmo.eval.metrics.metric import Grade, Metric, Record
from olmo.eval.metrics.options import chosen_option, options_of, right_option
from olmo.eval.metrics.published_options import (
    LONG_VIDEO_BENCH_PREFIXES,
    VIDEO_MME_PREFIXES,
    first_capital,
    first_capital_word,
    first_of_all_kinds,
    guessed_option,
    last_of_best_kind,
    letter_before_bracket,
    most_similar_option,
    starts_with_letter,
)
from olmo.eval.metrics.spans import QV_HIGHLIGHTS
from olmo.eval.metrics.temp_compass import TEMP_COMPASS
from olmo.eval.metrics.vqa import cleaned
from olmo.preprocessing.multiple_choice import option_letters


def grade_option(record: Record) -> Grade:
    """Whether the option that the answer names is the right one; an answer that names none is wrong."""
    right = right_option(record)
    chosen = chosen_option(record["prediction"], options_of(record))
    return Grade(float(chosen == right), parsed=chosen is not None)


def _letter(record: Record) -> str:
    return option_letters(right_option(record) + 1)[-1]


def _by(*keys: str, **prefixed: str) -> Callable[[Record], list[str]]:
    """Groups from metadata: the values of `keys`, and those of `prefixed` behind their prefix. A list counts in each of its values."""

    def groups(record: Record) -> list[str]:
        names = [name for key in keys for name in _values(record, key)]
        names += [f"{prefix}_{name}" for prefix, key in prefixed.items() for name in _values(record, key)]
        return list(dict.fromkeys(names))

    return groups


def _values(record: Record, key: str) -> list[str]:
    value = known(record, key)
    return [str(v) for v in value] if isinstance(value, list) else [str(value)]


# -- published readings: a value from 0 to 1, or None for an answer that is left out


def _starting(record: Record) -> float:
    return float(starts_with_letter(cleaned(record["prediction"]), _letter(record)))


def _starting_as_it_is(record: Record) -> float:
    return float(starts_with_letter(record["prediction"], _letter(record)))


def _most_similar_letter(record: Record) -> float:
    """Some option always is the most similar; an answer about a video that could not be read has none."""
    if record.get("failed"):
        return 0.0
    letters = option_letters(len(options_of(record)))
    return float(most_similar_option(record["prediction"], letters) == right_option(record))


def _capital_word(record: Record) -> float:
    return float(first_capital_word(cleaned(record["prediction"])) == right_option(record))


def _first_capital_or_nothing(record: Record) -> float | None:
    chosen = first_capital(record["prediction"], "ABCD", VIDEO_MME_PREFIXES)
    return None if chosen is None else float(chosen == right_option(record))


def _first_capital_or_guess(record: Record) -> float:
    return _or_guess(first_capital(record["prediction"], "ABCDE", LONG_VIDEO_BENCH_PREFIXES), record)


def _in_any_form_or_guess(rule: Callable[[str, Sequence[str]], int | None]) -> Callable[[Record], float]:
    """`rule` sees the options as their file has them, with or without letters."""

    def published(record: Record) -> float:
        options = record.get("metadata", {}).get("options") or options_of(record)
        return _or_guess(rule(cleaned(record["prediction"]), options), record)

    return published


def _or_guess(chosen: int | None, record: Record) -> float:
    """A guess for a video that could not be read would be a chance to be right, so there is none."""
    if chosen is None and not record.get("failed"):
        chosen = guessed_option(record["example_id"], len(options_of(record)))
    return float(chosen == right_option(record))


def _truth_with_itself(record: Record) -> float:
    """Whatever was said is right."""
    return float(not record.get("failed"))


def _mlvu_rule(record: Record) -> float:
    return float(letter_before_bracket(record["prediction"], _letter(record)))


# -- groups


def _nextqa_groups(record: Record) -> list[str]:
    """Its eight types, and the three kinds that their first letters stand for."""
    kinds = {"C": "causal", "T": "temporal", "D": "descriptive"}
    types = _values(record, "question_type")
    return [*types, *(kinds[name[0]] for name in types if name[0] in kinds)]


_video_mme_kinds = _by("duration", all_category="sub_category", all_task="task_type")


def _video_mme_groups(record: Record) -> list[str]:
    return [*_video_mme_kinds(record), *(["medium_long"] if known(record, "duration") in ("medium", "long") else [])]


METRICS: dict[str, Metric] = {
    "mvbench": Metric(grade_option, _by("task_type"), published=_starting),
    "motionbench": Metric(grade_option, _by("task_type"), published=_starting),
    "mlvu_mc": Metric(grade_option, _by("task_type"), more={"mlvu_rule": _mlvu_rule}, published=_starting, headline="average"),
    "video_eval_pro_mc": Metric(grade_option, _by("qa_type", "qa_subtype"), published=_starting),
    "tomato": Metric(grade_option, _by("reasoning_type"), published=_most_similar_letter),
    "perception_test": Metric(grade_option, _by("area", "reasoning"), published=_capital_word),
    "ego_schema": Metric(grade_option, published=_in_any_form_or_guess(first_of_all_kinds)),
    "nextqa_mc": Metric(grade_option, _nextqa_groups, published=_in_any_form_or_guess(last_of_best_kind)),
    "video_mme": Metric(grade_option, _video_mme_groups, published=_first_capital_or_nothing),
    "long_video_bench": Metric(grade_option, _by(duration="duration_group", all="question_category"), published=_first_capital_or_guess),
    "lvbench": Metric(grade_option, _by(all="qtype"), published=_starting_as_it_is),
    "temporal_bench": Metric(grade_option, _by("type"), published=_truth_with_itself),
    "temporal_bench_mc": Metric(grade_option, _by("type"), published=_most_similar_letter),
    "temp_compass": TEMP_COMPASS,
    "qv_highlights": QV_HIGHLIGHTS,
}
"""Name in a task record -> metric. The headline of MLVU is its M-avg: the mean over its tasks, which are its question types; `all`
is the micro accuracy."""
