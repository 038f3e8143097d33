"""Counting in videos: the number that an answer gives, and how near it is to the truth."""

import re

from olmo.data.families.molmo2_benchmarks import count_range
from olmo.eval.metrics.metadata import known
from olmo.eval.metrics.metric import Grade, Metric, Record
from olmo.eval.metrics.vqa import NUMBER_WORDS

_WORDS = {word: number for number, word in enumerate(NUMBER_WORDS)} | {"none": 0}
_NUMBER = rf"(\d{{1,9}}|{'|'.join(_WORDS)})\b"
_TOTALS = (
    re.compile(rf"\ba total of {_NUMBER}", re.IGNORECASE),
    re.compile(rf"\bthe total number\b.*? is:? {_NUMBER}", re.IGNORECASE | re.DOTALL),
    re.compile(rf"\bthere (?:is|are|were|was) {_NUMBER}", re.IGNORECASE),
)
_NONE_THERE = re.compile(r"\bthere (?:is|are|were|was) no\b(?! more| less| fewer| doubt)", re.IGNORECASE)
_PUBLISHED_TOTALS = (re.compile(r"a total of (\d{1,9})"), re.compile(r"[Tt]he total number.*? is: (\d{1,9})", re.DOTALL))
_TAG = re.compile(r"<[^<>]*>")


def count_of(prediction: str) -> int | None:
    """The count that a text gives: as its only word, as a total, or as the only number in it outside of points; None if none does."""
    text = _TAG.sub(" ", prediction).strip()
    alone = text.rstrip(".").lower()
    if alone in _WORDS:
        return _WORDS[alone]
    for pattern in _TOTALS:
        if found := pattern.search(text):
            return _value(found[1])
    if _NONE_THERE.search(text):
        return 0
    numbers = set(re.findall(r"(?<![\w.,-])\d{1,9}(?![\w-]|[.,]\d)", text))
    return int(numbers.pop()) if len(numbers) == 1 else None


def _value(text: str) -> int:
    return int(text) if text.isdecimal() else _WORDS[text.lower()]


def published_count(prediction: str) -> int | None:
    """What the published evaluator reads: the whole text as a number, or a total in digits. It never reads that there are none."""
    text = prediction.strip().rstrip(".")
    if re.fullmatch(r"\d{1,9}", text, re.ASCII):
        return int(text)
    found = next(filter(None, (pattern.search(prediction) for pattern in _PUBLISHED_TOTALS)), None)
    return None if found is None else int(found[1])


def is_close(count: int | None, truth: int) -> bool:
    """Whether a count is off by at most 1, and by one more for each 20 of the truth."""
    return count is not None and abs(count - truth) <= 1 + truth // 20


def _truth(record: Record) -> int:
    return known(record, "count")


def _grade(record: Record) -> Grade:
    count = count_of(record["prediction"])
    return Grade(float(count == _truth(record)), parsed=count is not None)


VIDEO_COUNT = Metric(
    grade=_grade,
    groups=lambda record: (f"correct_{count_range(_truth(record))}", f"acc_{known(record, 'subset')}"),
    more={
        "close": lambda record: float(is_close(count_of(record["prediction"]), _truth(record))),
        "valid": lambda record: float(count_of(record["prediction"]) is not None),
    },
    published=lambda record: float(published_count(record["prediction"]) == _truth(record)),
)
"""`all` is the share of right counts. The type of a question is the range of its count, so `average` is the published
`per_category_average`, but over the ranges that there are: an empty one is left out and does not turn it into NaN."""
METRICS: dict[str, Metric] = {"video_count": VIDEO_COUNT}
