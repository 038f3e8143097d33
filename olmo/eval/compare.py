"""Two runs on the same tasks, question by question: what differs, how surely, and what makes them hard to compare."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from olmo.eval.saved_runs import Run
from olmo.eval.statistics import Average, PairedDifference, Score, score
from olmo.eval.statistics.mcnemar import McNemar, mcnemar
from olmo.eval.statistics.paired import Pairs, difference_of, pairs_of
from olmo.eval.statistics.pooling import average_of, pool
from olmo.eval.statistics.power import Needed, needed_for
from olmo.exceptions import OLMoDataError

COMPARED = ("checkpoint", "weights", "model", "topk")
"""Settings that runs are compared for; every other one should be equal."""
HOW_VIDEOS_ARE_SHOWN = "mm_preprocessor"
"""The block of the model's settings that should be equal too, but for the share of pruned cells."""
PRUNING_KEYS = ("topk",)


@dataclass(frozen=True)
class TaskComparison:
    """What two runs did on one task."""

    label: str
    headline: str
    """Which score of the task is compared."""
    first: Score
    """On the questions in common."""
    second: Score
    difference: PairedDifference
    mcnemar: McNemar | None
    """None where an answer may be partly right."""
    needed: Needed | None
    """For a difference of half a point; None where the runs never disagree."""
    warnings: list[str]


@dataclass(frozen=True)
class AverageComparison:
    """What two runs did on the mean of some tasks."""

    name: str
    first: Average
    second: Average
    difference: PairedDifference
    needed: Needed | None


@dataclass(frozen=True)
class Comparison:
    """Everything about two runs."""

    tasks: list[TaskComparison]
    averages: list[AverageComparison]
    warnings: list[str] = field(default_factory=list)

    def asdict(self) -> dict[str, Any]:
        return asdict(self)


def compare(first: Mapping[str, Run], second: Mapping[str, Run], averages: Mapping[str, Sequence[str]]) -> Comparison:
    """Compare runs task by task and in means over tasks (name -> labels), those of which both have every task."""
    refuse_other_splits(first, second)
    common = [label for label in first if label in second]
    if not common:
        raise OLMoDataError(f"the two have no task in common: one has {', '.join(first)}, the other {', '.join(second)}")
    pairs: dict[str, Pairs] = {}
    tasks = []
    for label in common:
        a, b = first[label], second[label]
        refuse_other_truths(a, b)
        pairs[label] = pairs_of(a.metric, a.records, b.records)
        tasks.append(compare_task(a, b, pairs[label]))
    warnings = [f"{label}: only the first has it" for label in first if label not in second]
    warnings += [f"{label}: only the second has it" for label in second if label not in first]
    means = dict(averages)
    if len(common) > 1:
        means[f"these {len(common)} tasks"] = common
    found, seen = [], set()
    for name, labels in means.items():
        if all(label in pairs for label in labels) and tuple(sorted(labels)) not in seen:
            seen.add(tuple(sorted(labels)))
            found.append(compare_average(name, [pairs[label] for label in labels]))
    return Comparison(tasks, found, warnings)


def compare_task(a: Run, b: Run, pairs: Pairs) -> TaskComparison:
    """One task of both runs, on the questions in common."""
    in_b, in_a = {r["example_id"] for r in b.records}, {r["example_id"] for r in a.records}
    common = [r for r in a.records if r["example_id"] in in_b], [r for r in b.records if r["example_id"] in in_a]
    first, second = (score(a.metric, records)[a.metric.headline] for records in common)
    sample, blocks = pool([pairs.differences])
    return TaskComparison(
        a.label,
        a.metric.headline,
        first,
        second,
        difference_of(sample, blocks),
        mcnemar(pairs.first.values, pairs.second.values),
        needed_for(sample),
        [*differing_questions(a, b), *differing_settings(a, b), *differing_input(*common)],
    )


def compare_average(name: str, pairs: Sequence[Pairs]) -> AverageComparison:
    sample, blocks = pool([p.differences for p in pairs])
    sides = average_of([p.first for p in pairs]), average_of([p.second for p in pairs])
    return AverageComparison(name, *sides, difference_of(sample, blocks), needed_for(sample))


# ---------------------------------------------------------------------------------------------- what should be equal


def refuse_other_splits(first: Mapping[str, Run], second: Mapping[str, Run]) -> None:
    """Scores of different splits of one task must not be taken for a difference of runs."""
    for label in first:
        name = label.partition(":")[0]
        others = [other for other in second if other.partition(":")[0] == name]
        if others and label not in others:
            raise OLMoDataError(
                f"{first[label].path} is of {label}, {second[others[0]].path} of {others[0]}: different splits do not compare"
            )


def refuse_other_truths(a: Run, b: Run) -> None:
    """The same name of a question must mean the same question."""
    truths = {r["example_id"]: (r.get("question"), r.get("answer"), r.get("options")) for r in a.records}
    if not any(r["example_id"] in truths for r in b.records):
        raise OLMoDataError(f"{a.label}: {a.path} and {b.path} have no question in common")
    for r in b.records:
        if r["example_id"] in truths and truths[r["example_id"]] != (r.get("question"), r.get("answer"), r.get("options")):
            raise OLMoDataError(f"{a.label}: question {r['example_id']} has another text, answer or options in {b.path} than in {a.path}")


def differing_questions(a: Run, b: Run) -> list[str]:
    ids, others = ({r["example_id"] for r in run.records} for run in (a, b))
    counts = len(ids - others), len(others - ids)
    return [f"the questions differ: {counts[0]} only in the first, {counts[1]} only in the second"] if any(counts) else []


def differing_settings(a: Run, b: Run) -> list[str]:
    """Settings that are unequal and should not be, such as the number of frames."""
    one, other = (dict(settings_to_match(run.settings)) for run in (a, b))
    return [
        f"{key} differs: {one.get(key)} and {other.get(key)}" for key in dict.fromkeys([*one, *other]) if one.get(key) != other.get(key)
    ]


def settings_to_match(settings: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """(dotted key, value) of everything that should be the same for both runs."""
    shown = (settings.get("model") or {}).get(HOW_VIDEOS_ARE_SHOWN) or {}
    yield from _flat({key: value for key, value in settings.items() if key not in COMPARED})
    yield from ((key, value) for key, value in _flat(shown, f"{HOW_VIDEOS_ARE_SHOWN}.") if key.rpartition(".")[2] not in PRUNING_KEYS)


def differing_input(first: Sequence[Mapping[str, Any]], second: Sequence[Mapping[str, Any]]) -> list[str]:
    """Prompts (but for the number of visual tokens) and frame times that are not the same."""
    by_id = {r["example_id"]: r for r in second}
    found = []
    for key, name, read in (("prompt", "prompts", _without_counts), ("frame_times", "times of the frames", lambda times: times)):
        differ = [r["example_id"] for r in first if read(r.get(key)) != read(by_id[r["example_id"]].get(key))]
        if differ:
            found.append(f"the {name} differ in {len(differ)} of {len(first)} questions (first: {differ[0]})")
    return found


def _without_counts(prompt: str | None) -> str | None:
    return None if prompt is None else re.sub(r"(<[^<>]+>)\[\d+\]", r"\1", prompt)


def _flat(block: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in block.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value
