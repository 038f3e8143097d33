"""What published evaluators read, where the reference scores do not reach: guesses, defects, and any text at all."""

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from olmo.eval.metrics import published_options as published

TEXT = st.one_of(st.text(max_size=40), st.lists(st.sampled_from(["A", "(B)", "C.", "best", "Answer:", " ", "e"]), max_size=8).map(" ".join))
OPTIONS = st.lists(st.text(min_size=1, max_size=6), min_size=1, max_size=6)


@given(TEXT, OPTIONS)
def test_any_text_is_an_option_or_none(text, options):
    found = [published.last_of_best_kind(text, options), published.first_of_all_kinds(text, options)]
    assert all(number is None or 0 <= number < len(options) for number in found)
    assert 0 <= published.most_similar_option(text, options) < len(options)
    assert published.first_capital_word(text) in (None, 0, 1, 2, 3)
    assert published.first_capital(text, "ABCD", published.VIDEO_MME_PREFIXES) in (None, 0, 1, 2, 3)
    assert published.letter_before_bracket(text, "B") in (True, False)


def test_joined_prefixes_of_video_mme():
    """ "Best option: C" is B there, and C in LongVideoBench, where the list has all its commas."""
    assert published.first_capital("Best option: C", "ABCD", published.VIDEO_MME_PREFIXES) == 1
    assert published.first_capital("Best option: C", "ABCDE", published.LONG_VIDEO_BENCH_PREFIXES) == 2


def test_a_guess_belongs_to_its_question():
    """The same in every run, and evenly spread over questions."""
    guesses = [published.guessed_option(f"q{i}", 4) for i in range(2000)]
    assert all(abs(count - 500) < 90 for count in Counter(guesses).values())  # four and a half standard deviations
    assert guesses[:8] == [2, 2, 0, 3, 1, 1, 0, 2]  # on every machine
