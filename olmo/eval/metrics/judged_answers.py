"""Free answers that another model has found right or wrong: its verdict stands in the record as `judgement`, {"correct": bool | None}."""

from olmo.eval.metrics.metric import Grade, Metric, Record
from olmo.exceptions import OLMoDataError


def judged_correct(record: Record) -> Grade:
    """The verdict. Without one, or where it could not be read, the answer counts as wrong and unread."""
    judgement = record.get("judgement")
    if judgement is None:
        return Grade(0.0, parsed=False)
    correct = judgement.get("correct", "missing") if isinstance(judgement, dict) else "missing"
    if correct not in (True, False, None):
        raise OLMoDataError(f"prediction of example {record['example_id']}: 'judgement' should hold 'correct' (true, false or null)")
    return Grade(float(correct or False), parsed=correct is not None)


METRICS: dict[str, Metric] = {"judged_answer": Metric(judged_correct)}
"""Name in a task record -> metric."""
