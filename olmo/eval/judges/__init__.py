"""Judges: language models that say whether a free answer or a caption is right, asked over predictions that were saved before."""

from collections.abc import Callable, Sequence

from olmo.data.families.temp_compass import FORMS
from olmo.eval.judges.captions import captions
from olmo.eval.judges.conversation import Judge
from olmo.eval.judges.mlvu_gen import mlvu_gen
from olmo.eval.judges.open_answer import open_answer
from olmo.eval.judges.temp_compass import temp_compass
from olmo.eval.metrics.metric import Record

JUDGES: dict[str, Callable[[Sequence[Record]], Judge]] = {
    "captions": captions,
    "open_answer": open_answer,
    "temp_compass": temp_compass,
    "mlvu_gen": mlvu_gen,
}
"""Name on the command line -> judge, made from all records of the task."""

JUDGE_METRICS = {"captions": "captions", "open_answer": "judged_answer", "temp_compass": "temp_compass", "mlvu_gen": "mlvu_gen"}
"""Judge -> the metric that reads its judgements."""

TASK_JUDGES = {
    "molmo2_captions_eval": "captions",
    "mlvu_gen": "mlvu_gen",
    "video_eval_pro_open": "open_answer",
    "temp_compass": "temp_compass",
    "temp_compass_internal": "temp_compass",
    **{f"temp_compass_{form}": "temp_compass" for form in FORMS},
}
"""Task -> the judge taken when none is named."""

__all__ = ["JUDGES", "JUDGE_METRICS", "TASK_JUDGES", "Judge"]
