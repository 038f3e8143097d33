"""Scores of short answers as image benchmarks define them: agreement with annotators, edit distance, numbers within 5 %."""

import re
from collections import Counter
from collections.abc import Callable, Sequence

from olmo.eval.metrics.metric import Grade, Metric, Record

NUMBER_WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
_DIGITS = {word: str(number) for number, word in enumerate(NUMBER_WORDS)} | {"none": "0"}
_ARTICLES = {"a", "an", "the"}
_CONTRACTIONS = {
    word.replace("'", ""): word
    for word in (
        "ain't aren't can't could've couldn't couldn't've didn't doesn't don't hadn't hadn't've hasn't haven't he'd he'd've he's "
        "how'd how'll how's i'd've i'm i've isn't it'd it'd've it'll let's ma'am might've mightn't mightn't've must've mustn't "
        "needn't not've o'clock oughtn't shan't she'd've should've shouldn't shouldn't've somebody'd somebody'll somebody's "
        "someone'd someone'll someone's something'd something'll that'd that'd've that's there'd there'd've there're there's they'd "
        "they'd've they'll they're they've 'twas wasn't we'd've we've weren't what'll what're what's what've when's where'd where's "
        "where've who'd who'd've who'll who's who've why'll why're why's won't would've wouldn't wouldn't've y'all y'all'll "
        "y'all'd've you'd you'd've you'll you're you've"
    ).split()
}
"""Word without its apostrophes -> the usual spelling."""
_PUNCTUATION = ';/[]"{}()=+\\_-><@`,?!'
_COMMA_IN_NUMBER = re.compile(r"\d,\d")
_LONE_PERIOD = re.compile(r"\.(?!\d)")


def cleaned(prediction: str) -> str:
    """What the published evaluator takes for the answer: the text after "Answer:", or the most frequent line, with single spaces."""
    text = prediction.strip()
    if "Answer:" in text:
        return text.partition("Answer:")[2].strip()
    lines = [line for line in (" ".join(line.split()) for line in text.split("\n")) if line]
    return Counter(lines).most_common(1)[0][0] if lines else ""


def normalised_words(text: str) -> str:
    """The spelling in which VQA v2 compares answers: no punctuation, articles or number words, usual contractions."""
    text = re.sub(r"[\n\t]", " ", text).strip().lower()
    number = _COMMA_IN_NUMBER.search(text)
    out = text
    for mark in _PUNCTUATION:
        beside_space = f"{mark} " in text or f" {mark}" in text
        out = out.replace(mark, "" if beside_space or number else " ")
    out = _LONE_PERIOD.sub("", out)
    words = [_DIGITS.get(word, word) for word in out.split()]
    return " ".join(_CONTRACTIONS.get(word.replace("'", ""), word) for word in words if word not in _ARTICLES)


def edit_distance(a: str, b: str) -> int:
    """Fewest insertions, deletions and replacements of one character that turn `a` into `b`."""
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, 1):
        previous, row[0] = row[0], i
        for j, y in enumerate(b, 1):
            previous, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, previous + (x != y))
    return row[-1]


def vqa_score(prediction: str, answers: str | Sequence[str]) -> float:
    """VQA v2: a third for every annotator who said the same, at most 1. A single text has to be met."""
    return _agreement(prediction, answers, normalised_words)


def a_okvqa_score(prediction: str, answers: str | Sequence[str]) -> float:
    """A-OKVQA: as VQA v2, with only case and outer spaces ignored."""
    return _agreement(prediction, answers, lambda text: text.lower().strip())


def _agreement(prediction: str, answers: str | Sequence[str], spelled: Callable[[str], str]) -> float:
    said = spelled(prediction)
    if isinstance(answers, str):
        return float(said == spelled(answers))
    return min(sum(said == spelled(answer) for answer in answers) / 3, 1.0)


def anls(prediction: str, answers: str | Sequence[str]) -> float:
    """Document VQA: how similar the best answer is, by edit distance over the longer length; 0 from one half on."""
    return max(_similarity(prediction.lower(), answer.lower()) for answer in _several(answers))


def _similarity(a: str, b: str) -> float:
    distance = edit_distance(a, b) / max(len(a), len(b), 1)
    return 1 - distance if distance < 0.5 else 0.0


def exact_match(prediction: str, answers: str | Sequence[str]) -> float:
    """1 if the prediction is one of the answers, up to case."""
    return float(prediction.lower() in [answer.lower() for answer in _several(answers)])


def relaxed_correctness(prediction: str, answers: str | Sequence[str]) -> float:
    """ChartQA: numbers may be off by 5 % of the truth, where that is not 0; anything else has to be met up to case."""
    return max(_relaxed(prediction, answer) for answer in _several(answers))


def _relaxed(prediction: str, answer: str) -> float:
    said, truth = _number(prediction), _number(answer)
    if said is not None and truth:
        return float(abs(said - truth) <= 0.05 * abs(truth))
    return float(prediction.lower() == answer.lower())


def _number(text: str) -> float | None:
    """A number; one in percent as a fraction."""
    try:
        return float(text.rstrip("%")) / 100 if text.endswith("%") else float(text)
    except ValueError:
        return None


def _several(answers: str | Sequence[str]) -> Sequence[str]:
    return [answers] if isinstance(answers, str) else answers


def _metric(score: Callable[[str, str | Sequence[str]], float]) -> Metric:
    """An answer without a word is no answer, and wrong, even where the score would compare it with an article and find it equal."""

    def grade(record: Record) -> Grade:
        said = cleaned(record["prediction"])
        return Grade(score(said, record["answer"])) if said else Grade(0.0, parsed=False)

    return Metric(grade, published=lambda record: score(cleaned(record["prediction"]), record["answer"]))


METRICS: dict[str, Metric] = {
    "vqa_score": _metric(vqa_score),
    "a_okvqa_score": _metric(a_okvqa_score),
    "anls": _metric(anls),
    "em": _metric(exact_match),
    "relaxed_correctness": _metric(relaxed_correctness),
}
