"""Reference scores of the published evaluators on single answers.

Seen to fail with an article less in VQA v2, with the first letter in brackets in place of the last in NExT-QA, and with
an unread answer of Video-MME counted as wrong in place of left out.
"""

import pytest

from olmo.eval.metrics import counting, multiple_choice, temp_compass, vqa
from olmo.eval.metrics.options import chosen_option
from olmo.eval.metrics.published_options import (
    first_capital_word,
    first_of_all_kinds,
    last_of_best_kind,
    letter_before_bracket,
    most_similar_option,
    starts_with_letter,
)
from tests.goldens.data_cases import cases, read


def _tolerance():
    return read("scores.json")["score_tolerance"]


def _index_of(letter):
    return "ABCDE".index(letter)


VQA_RULES = {
    "em_start": lambda text, known: starts_with_letter(text, known.get("answers") or known["answer"]),
    "mc": lambda text, known: most_similar_option(text, known["option_names"]) == known["answer_idx"],
    "perception_test_mc": lambda text, known: first_capital_word(text) == known["answer_idx"],
    "nextqa_mc": lambda text, known: last_of_best_kind(text, known["options"]) == _index_of(known["answer"]),
    "ego_schema_mc": lambda text, known: first_of_all_kinds(text, known["options"]) == int(known["answer_idx"]),
    "vqa_score": lambda text, known: vqa.vqa_score(text, known["answers"]),
    "a_okvqa_score": lambda text, known: vqa.a_okvqa_score(text, known["answers"]),
    "ansl": lambda text, known: vqa.anls(text, known["answers"]),
    "em": lambda text, known: vqa.exact_match(text, known["answers"]),
    "relaxed_correctness": lambda text, known: vqa.relaxed_correctness(text, known["answers"]),
}


@pytest.mark.parametrize("case", cases("scores.json", "vqa_eval"))
def test_golden_score(case):
    given = case["input"]
    score = VQA_RULES[given["metric"]](vqa.cleaned(given["prediction"]), given["metadata"])
    assert float(score) == pytest.approx(case["expected"]["score"], abs=_tolerance())


def _caption_matching(question, prediction, answer):
    """Captions with labels are options like others: our own reading takes the labels for letters."""
    lines = question.split("\n")[1:]
    chosen = chosen_option(prediction, [line.partition(": ")[2] for line in lines])
    return chosen == lines.index(answer)


FUNCTIONS = {
    "select_mc_option": most_similar_option,
    "select_perception_test_option": lambda text: -1 if (found := first_capital_word(text)) is None else found,
    "mlvu_mc": lambda letter, text: letter_before_bracket(text, letter),
    "temp_compass_score(no judge)": lambda text, known: float(temp_compass.published_rule(text, known) or 0),
    "eval_caption_matching(no judge)": _caption_matching,
}


@pytest.mark.parametrize("case", cases("scores.json", "function"))
def test_golden_function(case):
    given = case["input"]
    assert FUNCTIONS[given["function"]](*given["args"]) == case["expected"]["result"]


def _as_record(given):
    """A line of a prediction file with the metadata of a case."""
    known = given["metadata"]
    names = known.get("option_names") or known.get("options") or "ABCD"
    right = known["answer_idx"] if "answer_idx" in known else _index_of(known["answer"][0])
    return {
        "example_id": "x",
        "prediction": given["prediction"],
        "options": list(names),
        "answer_idx": right,
        "metadata": known,
    }


BENCHMARKS = {"VideoMMEEval": "video_mme", "LongVideoBenchEval": "long_video_bench", "LVBenchEval": "lvbench"}


@pytest.mark.parametrize("case", cases("scores.json", "benchmark"))
def test_golden_benchmark(case):
    """The published value of a metric; TOMATO's cases hold options without letters too, so its rule is asked for itself."""
    given, want = case["input"], case["expected"]
    if given["evaluator"] == "VideoCountEval":
        count, truth = counting.published_count(given["prediction"]), given["metadata"]["count"]
        assert {"correct": count == truth, "close": counting.is_close(count, truth), "valid": count is not None} == want
    elif given["evaluator"] == "TomatoEval":
        known = given["metadata"]
        assert float(most_similar_option(given["prediction"], known["option_names"]) == known["answer_idx"]) == want["score"]
        assert want["counted"]
    else:
        value = multiple_choice.METRICS[BENCHMARKS[given["evaluator"]]].published(_as_record(given))
        assert value == want["score"] and (value is not None) == want["counted"]
