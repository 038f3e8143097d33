"""How published evaluators read an option out of an answer, with their quirks: what `--compat` reports beside our own reading.

Where they guess, they draw from one global generator, so that a result depends on the order of the questions. Here a guess is
drawn from a generator of its own for each question, seeded with its id.
"""

import random
import re
from collections.abc import Callable, Sequence

from olmo.eval.metrics.vqa import edit_distance
from olmo.preprocessing.multiple_choice import option_letters

VIDEO_MME_PREFIXES = (
    "The best answer is",
    "The correct answer is",
    "The answer is",
    "The answer",
    "The best option isThe correct option is",
    "Best answer:Best option:",
    "Answer:",
    "Option:",
)
"""What stands before a letter. Two pairs are joined by mistake, so "Best option: C" is read as B."""
LONG_VIDEO_BENCH_PREFIXES = (
    "The best answer is",
    "The correct answer is",
    "The answer is",
    "The answer",
    "The best option is",
    "The correct option is",
    "Best answer:",
    "Best option:",
    "Answer:",
    "Option:",
)


def starts_with_letter(prediction: str, answers: str | Sequence[str]) -> bool:
    """`em_start`: whether the prediction starts with the first letter of (one of) the answers: "Both of them" is option B."""
    several = [answers] if isinstance(answers, str) else answers
    return any(prediction.lower().startswith(answer[0].lower()) for answer in several)


def most_similar_option(prediction: str, options: Sequence[str]) -> int:
    """`select_mc_option`: the option that fits best; there always is one."""
    text, names = prediction.lower().strip(), [option.lower().strip() for option in options]
    if text in names:
        return names.index(text)
    rules: tuple[Callable[[str], bool], ...] = (text.startswith, lambda name: name.startswith(text), lambda name: text in name)
    for rule in rules:
        fitting = [number for number, name in enumerate(names) if rule(name)]
        if len(fitting) == 1:
            return fitting[0]
    distances = [edit_distance(text, name) for name in names]
    return distances.index(min(distances))


def first_capital_word(prediction: str) -> int | None:
    """PerceptionTest: the first of A, B, C, D that stands alone: "A man opens B" is option A."""
    found = re.search(r"\b[A-D]\b", prediction)
    return None if found is None else "ABCD".index(found[0])


def last_of_best_kind(prediction: str, options: Sequence[str]) -> int | None:
    """NExT-QA: the last letter in brackets, else the last between spaces, else the last with a dot, else the last option in words."""
    text = _padded(prediction)
    for form in ("({})", " {} ", "{}."):
        places = _last_places(text, [form.format(letter) for letter in option_letters(len(options))])
        if places:
            return max(places, key=places.__getitem__)
    places = _in_words(text, options)
    return max(places, key=places.__getitem__) if places else None


def first_of_all_kinds(prediction: str, options: Sequence[str]) -> int | None:
    """EgoSchema: of all letters in brackets, between spaces or with a dot the one whose last place is first, else options in words."""
    text, places = _padded(prediction), {}
    for form in ("({})", " {} ", "{}."):
        found = _last_places(text, [form.format(letter) for letter in option_letters(len(options))])
        places |= {number: min(place, places.get(number, place)) for number, place in found.items()}
    places = places or _in_words(text, options)
    return min(places, key=places.__getitem__) if places else None


def _padded(prediction: str) -> str:
    for mark in ",.!?;:'":
        prediction = prediction.strip(mark)
    return f" {prediction} "


def _in_words(text: str, options: Sequence[str]) -> dict[int, int]:
    """Options that stand in a text of more than five words -> their last place."""
    return _last_places(text.lower(), [option.lower() for option in options]) if len(text.split()) > 5 else {}


def _last_places(text: str, names: Sequence[str]) -> dict[int, int]:
    return {number: text.rfind(name) for number, name in enumerate(names) if name in text}


def first_capital(prediction: str, letters: str, prefixes: Sequence[str]) -> int | None:
    """VideoMME, LongVideoBench: the first of these capitals, inside words too, once known beginnings are taken out."""
    for prefix in prefixes:
        prediction = prediction.replace(prefix, "")
    found = re.search(f"[{letters}]", prediction)
    return None if found is None else letters.index(found[0])


def letter_before_bracket(prediction: str, letter: str) -> bool:
    """MLVU's own rule: the character before the first bracket that closes, or else the whole prediction, is the letter."""
    place = prediction.find(")")
    return (prediction if place < 0 else prediction[max(place - 1, 0) : place]) == letter


def guessed_option(example_id: str, count: int) -> int:
    """The guess that is made where no option can be read: the same for a question in every run."""
    return random.Random(example_id).randrange(count)
