"""Scores of free text from the judgements of another model, which stand beside the answers as `judgement`.

Captions are judged by statements: `judgement = {"statements": [{"kind", "category", "stated"}]}`. Of kind `recall` are the true
statements (stated in the caption?), of kind `consistency` those of the caption (stated in the reference?); `stated` is null where the
judge's line could not be read. An answer without a judgement is not graded: it is worth 0 and counts as not read.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from olmo.data.annotations import Entry
from olmo.eval.metrics.metric import Grade, Metric, Record
from olmo.exceptions import OLMoDataError

KINDS = ("recall", "consistency")
UNGRADED = Grade(0.0, parsed=False)


def judgement(record: Record) -> Entry | None:
    """What a judge says about an answer, if one has been asked."""
    if record.get("judgement") is None:
        return None
    return Entry(record, f"prediction of example {record['example_id']}").need("judgement", dict)


def harmonic(recall: float | None, consistency: float | None) -> float:
    """F1; 0 where either is missing, because nothing that could be judged was said."""
    return 2 * recall * consistency / (recall + consistency) if recall and consistency else 0.0


# -- captions


def statements(record: Record) -> list[Entry]:
    """The judged statements of a caption, [] without a judgement. OLMoDataError if one is not of the known form."""
    found = judged.entries("statements") if (judged := judgement(record)) else []
    for statement in found:
        if statement.need("kind", str) not in KINDS:
            raise OLMoDataError(f"{statement.where}: 'kind' should be {' or '.join(KINDS)}, but is '{statement['kind']}'")
        if "stated" not in statement:
            raise OLMoDataError(f"{statement.where}: 'stated' is missing; it should be true, false, or null where the line cannot be read")
        if statement["stated"] is not None:
            statement.need("stated", bool)
    return found


def share_stated(judged: Sequence[Mapping[str, Any]], kind: str, category: str | None = None) -> float | None:
    """Share of the statements of one kind (and category) that are stated, of those that could be read; None if there is none."""
    verdicts = [s["stated"] for s in judged if s["kind"] == kind and category in (None, s.get("category")) and s["stated"] is not None]
    return sum(verdicts) / len(verdicts) if verdicts else None


@dataclass(frozen=True)
class CaptionScores:
    """Captions of a data set. Means over videos, 0..1; None where no statement of that kind was judged."""

    videos: int
    """Captions that a judge has seen."""
    recall: float | None
    consistency: float | None
    f1: float
    """Of the two means: what the paper on Molmo2 reports, not the mean of the captions' own F1."""
    by_category: dict[str, dict[str, float | None]]
    """Category -> kind -> mean over the videos that have such statements."""
    unread: int
    """Statements left out because the judge's line could not be read."""


def caption_scores(records: Sequence[Record]) -> CaptionScores:
    """Recall, consistency and F1 of all captions that were judged, and by category of the statements."""
    videos = [statements(r) for r in records if judgement(r)]
    every = [s for judged in videos for s in judged]
    categories = sorted({s["category"] for s in every if s.get("category")})
    recall, consistency = (_mean_stated(videos, kind) for kind in KINDS)
    return CaptionScores(
        videos=len(videos),
        recall=recall,
        consistency=consistency,
        f1=harmonic(recall, consistency),
        by_category={name: {kind: _mean_stated(videos, kind, name) for kind in KINDS} for name in categories},
        unread=sum(s["stated"] is None for s in every),
    )


def _mean_stated(videos: Sequence[Sequence[Mapping[str, Any]]], kind: str, category: str | None = None) -> float | None:
    shares = [share for judged in videos if (share := share_stated(judged, kind, category)) is not None]
    return float(np.mean(shares)) if shares else None


def _caption_grade(record: Record) -> Grade:
    """F1 of one caption; ungraded if there is no verdict on what is true of it, or none on what it says."""
    judged = statements(record)
    shares = {kind: share_stated(judged, kind) for kind in KINDS}
    unread = any(shares[s["kind"]] is None for s in judged)
    return UNGRADED if unread or not judged else Grade(harmonic(*shares.values()))


def _unread(record: Record) -> float | None:
    return float(sum(s["stated"] is None for s in statements(record))) if judgement(record) else None


# -- free answers of MLVU: two scores of 1 to 5 each

MLVU_SCORES = {"sub_scene": ("accuracy", "relevance"), "summary": ("completeness", "reliability")}
"""Kind of question -> what its answers are scored for."""
_MLVU_KINDS = {"sub_scene": "sub_scene", "subPlot": "sub_scene", "8_sub_scene": "sub_scene", "summary": "summary", "9_summary": "summary"}
"""How the files of MLVU call the kinds."""


def mlvu_kind(record: Record) -> str:
    """`sub_scene` or `summary`."""
    task_type = (record.get("metadata") or {}).get("task_type")
    if task_type not in _MLVU_KINDS:
        known = ", ".join(_MLVU_KINDS)
        raise OLMoDataError(f"question {record['example_id']}: metadata 'task_type' should be one of {known}, but is {task_type!r}")
    return _MLVU_KINDS[task_type]


def _mlvu_scores(record: Record) -> list[float] | None:
    """The two scores, 1..5; None where the judge was not asked or could not be read."""
    judged = judgement(record)
    if judged is None:
        return None
    names = MLVU_SCORES[mlvu_kind(record)]
    scores = [judged.optional(name, float) for name in names]
    for name, score in zip(names, scores, strict=True):
        if score is not None and not 1 <= score <= 5:
            raise OLMoDataError(f"{judged.where}: '{name}' should be a score from 1 to 5, but is {score:g}")
    return None if None in scores else scores


def _mlvu_grade(record: Record) -> Grade:
    """Both scores together as a share of the 10 that can be had; the published total is ten times that."""
    scores = _mlvu_scores(record)
    return UNGRADED if scores is None else Grade(sum(scores) / 10)


def _mlvu_part(kind: str, read: Callable[[list[float]], float]) -> Callable[[Record], float | None]:
    """A quantity of the questions of one kind."""

    def part(record: Record) -> float | None:
        scores = _mlvu_scores(record) if mlvu_kind(record) == kind else None
        return None if scores is None else read(scores)

    return part


METRICS: dict[str, Metric] = {
    "captions": Metric(
        grade=_caption_grade,
        more={
            **{kind: lambda record, kind=kind: share_stated(statements(record), kind) for kind in KINDS},
            "unread_statements": _unread,
        },
    ),
    "mlvu_gen": Metric(
        grade=_mlvu_grade,
        more={
            **{
                f"{kind}_{name}": _mlvu_part(kind, lambda scores, i=i: scores[i])
                for kind, names in MLVU_SCORES.items()
                for i, name in enumerate(names)
            },
            **{f"{kind}_total": _mlvu_part(kind, sum) for kind in MLVU_SCORES},
        },
        headline="average",
    ),
}
"""Name in a task record -> metric."""
