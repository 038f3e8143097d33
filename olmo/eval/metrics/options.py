"""Which option an answer means. What cannot be read means none, and is wrong."""

import re
from collections.abc import Sequence

from olmo.eval.metrics.answers import normalise
from olmo.preprocessing.multiple_choice import option_letters


def chosen_option(prediction: str, options: Sequence[str]) -> int | None:
    """The option that a prediction names: by its letter ("B", "b.", "(B)", "B. red") or by its whole text, or None."""
    text = normalise(prediction)
    letters = [letter.lower() for letter in option_letters(len(options))]
    if begin := re.match(r"\(?([a-z]{1,2})(?:[.):]|$)", text):
        if begin[1] in letters:
            return letters.index(begin[1])
    texts = [normalise(option) for option in options]
    return texts.index(text) if text and text in texts else None
