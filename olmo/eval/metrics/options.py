"""Which option an answer means. What cannot be read means none, and is wrong.

A letter counts only where it is named as a label: alone, before a mark ("B.", "(B)"), or after words such as "the answer is". So the
article in "A man walks" names nothing. Two different labels, or two options told in words, name nothing either.
"""

import re
from collections.abc import Iterator, Sequence

from olmo.data.families.asking import split_options
from olmo.eval.metrics.answers import normalise
from olmo.eval.metrics.metric import Record
from olmo.exceptions import OLMoDataError
from olmo.preprocessing.multiple_choice import option_letters

MOST_LETTERS = 26
"""Options that are told apart where a question does not list them in lines of their own."""

_CUE = (
    r"\b(?:it\s+is|it's|(?:answer|option|choice|caption|sentence|choose|chose|pick|select)(?:\s+is|\s+would\s+be)?)"
    r"\s*[:-]?\s*"
)
_MARK = r"[).:\]](?=\s|$)|\s*(?:\n|$)"
"""What makes the letter before it a label: a mark, or the end of the line."""
_LEADING = re.compile(rf"\(?([A-Za-z]{{1,2}})(?:{_MARK})\s*")
_LEADING_CAPITAL = re.compile(r"([B-HJ-Z])(?:\s*[,;/-]|\s)\s*")
"""A capital that is no word of its own, as A and I are, may also stand before words."""
_IN_BRACKETS = re.compile(r"[(\[]([A-Za-z]{1,2})[)\]]")
_AFTER_CUE = re.compile(rf"{_CUE}[(\[]?([A-Za-z]{{1,2}})(?:[,;]|{_MARK})", re.IGNORECASE)
_CAPITAL_AFTER_CUE = re.compile(rf"(?i:{_CUE})(?:([B-HJ-Z])\b|([AI])(?=\s+(?:or|and)\b))")
_NEXT = re.compile(rf"\(?(?:([A-Z]{{1,2}})(?:[,;]|{_MARK})|([B-HJ-Z])\b)|(?:or|and|/|&)\s*\(?([A-Z]{{1,2}})\b")
"""Another label just behind one: with a mark, as a bare capital, or after "or"."""
_CUE_BEFORE_TEXT = re.compile(rf"(?:.*?{_CUE}|\(?\w{{1,2}}[).:]\s+)(.*)", re.IGNORECASE | re.DOTALL)
_DENIAL = re.compile(r"\b(?:not|neither|nor|never|no|except|\w+n't)\b")
_DENIED = re.compile(r"(?:\b(?:not|nor|never)|n't)\s*(?:\w+\s+)?$", re.IGNORECASE)
_LABEL = re.compile(r"\s*\(?([A-Z]{1,2})[).:]\s*(.*)", re.DOTALL)


def chosen_option(prediction: str, options: Sequence[str]) -> int | None:
    """The option that a prediction names, by its letter or by its text, or None.

    `options`: their texts without letters; an option without a text can be named by its letter only.
    """
    text = re.sub(r"[*`]", "", prediction).strip(" \t\n\"'")
    text = re.sub(r"[^\S\n]+", " ", text)
    letters = [letter.lower() for letter in option_letters(len(options))]
    texts = [normalise(option) for option in options]
    label = _LEADING.match(text)
    if label and label[1].lower() in letters:
        first = letters.index(label[1].lower())
        if normalise(text[label.end() :]) in ("", texts[first]):
            return first
    elif (whole := normalise(text)) and texts.count(whole) == 1:
        return texts.index(whole)
    words = {word for option in options for word in re.findall(r"\b[A-Z]\b", option)}
    named = {letters.index(name.lower()) for name in _labels(text, words) if name.lower() in letters}
    if named:
        return named.pop() if len(named) == 1 else None
    return _told_in_words(text, texts)


def _labels(text: str, words: set[str]) -> Iterator[str]:
    """What looks like the label of an option. `words`: letters that are words in an option (in "C walks away" it is a person), so that
    a bare one is no label."""
    bare = _LEADING_CAPITAL.match(text)
    if first := _LEADING.match(text) or (bare if bare and bare[1] not in words else None):
        yield first[1]
        if (following := _NEXT.match(text, first.end())) and following[2] not in words:
            yield following[following.lastindex]
    for pattern in (_IN_BRACKETS, _AFTER_CUE, _CAPITAL_AFTER_CUE):
        for found in pattern.finditer(text):
            if not _DENIED.search(text[: found.start()]) and not (pattern is _CAPITAL_AFTER_CUE and found[found.lastindex] in words):
                yield found[found.lastindex]


def _told_in_words(text: str, texts: Sequence[str]) -> int | None:
    """The one option whose text stands in the prediction, and is not denied there."""
    if (after := _CUE_BEFORE_TEXT.fullmatch(text)) and texts.count(normalise(after[1])) == 1 and normalise(after[1]):
        return texts.index(normalise(after[1]))
    whole = normalise(text)
    spans = [_spans(option, whole) for option in texts]
    found = [
        number
        for number, own in enumerate(spans)
        if any(not any(_inside(span, other) for others in spans for other in others) for span in own)
    ]
    if len(found) != 1:
        return None
    begins = re.match(rf"{re.escape(texts[found[0]])}[,.;:]", whole)  # "No, he does not"
    denied = _DENIAL.search(whole.replace(texts[found[0]], " "))
    return None if denied and not begins else found[0]


def _spans(option: str, text: str) -> list[tuple[int, int]]:
    """Where an option stands in a text as whole words. A single letter is a word of its own too often to count."""
    if not option or len(option) == 1 and option.isalpha():
        return []
    return [found.span() for found in re.finditer(rf"(?<!\w){re.escape(option)}(?!\w)", text)]


def _inside(span: tuple[int, int], other: tuple[int, int]) -> bool:
    """Whether a span is a part of a longer one."""
    return other[0] <= span[0] and span[1] <= other[1] and other != span


# -- options and truth of a record


def options_of(record: Record) -> list[str]:
    """The texts of the options, without letters: from the record, its metadata, or the lines of its question.

    Where none of these tells them there are as many options without a text as letters: an answer can then name a letter.
    """
    options = record.get("options") or record.get("metadata", {}).get("options")
    if not options:
        try:
            _, options = split_options(record.get("question", ""), record["example_id"])
        except OLMoDataError:
            return [""] * MOST_LETTERS
        options[-1] = options[-1].partition("\n")[0]  # an instruction may follow
    return without_letters(options)


def without_letters(options: Sequence[str]) -> list[str]:
    """Options as texts: "A. red", "B. blue" -> "red", "blue". Others stay as they are."""
    found = [_LABEL.fullmatch(option) for option in options]
    if [match[1] if match else None for match in found] == list(option_letters(len(options))):
        return [match[2] for match in found]
    return list(options)


def right_option(record: Record) -> int:
    """The number of the right option, counted from 0; OLMoDataError where the record does not tell it."""
    if record.get("answer_idx") is not None:
        return record["answer_idx"]
    answer = record.get("answer")
    found = re.match(r"\s*\(?([A-Z])(?:[).:]|\s*$)", answer) if isinstance(answer, str) else None
    if not found:
        raise OLMoDataError(
            f"question {record['example_id']}: 'answer' should be the letter of an option, or 'answer_idx' its number, but it is {answer!r}"
        )
    return option_letters(MOST_LETTERS).index(found[1])
