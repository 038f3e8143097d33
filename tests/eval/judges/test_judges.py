"""What each judge asks and what it makes of the replies, without a server."""

import pytest

from olmo.data.families.temp_compass import FORMS
from olmo.eval.judges import JUDGES, TASK_JUDGES
from olmo.eval.judges.captions import MOST_AT_ONCE
from olmo.eval.judges.conversation import Reply, hold, rehearse
from olmo.exceptions import OLMoDataError
from tests.eval.judges.judge_server import sensible
from tests.eval.judges.records import caption_record, compass_record, open_record


class Script:
    """Gives prepared replies, then sensible ones, and keeps what it was asked."""

    def __init__(self, *replies: str | Reply) -> None:
        self.replies, self.asked = list(replies), []

    def __call__(self, messages, max_tokens: int) -> Reply:
        self.asked.append([dict(m) for m in messages])
        reply = self.replies.pop(0) if self.replies else sensible(messages)
        return reply if isinstance(reply, Reply) else Reply(reply)


def judged(name: str, record, *replies, records=None):
    script = Script(*replies)
    judge = JUDGES[name](records or [record])
    judgement, unread = hold(judge.converse(record), script)
    return judgement, unread, script.asked


def test_open_answers():
    assert judged("open_answer", open_record(1))[:2] == ({"correct": True}, 0)
    assert judged("open_answer", open_record(1, "a blue car"))[0] == {"correct": False}
    assert judged("open_answer", open_record(1, "  "))[::2] == ({"correct": False}, [])
    both = open_record(1, answer=["car", "automobile"])
    assert "car (or) automobile" in judged("open_answer", both)[2][0][0]["content"]
    in_words = open_record(1, answer="B", metadata={"answer_text": "a red car"})
    assert judged("open_answer", in_words)[0] == {"correct": True}
    with pytest.raises(OLMoDataError, match="question q1: there is no 'answer'"):
        judged("open_answer", open_record(1, answer=None))


def test_nonsense_is_asked_about_once_more_and_never_guessed():
    """Seen to fail with the first word of the reply taken for the verdict."""
    judgement, unread, asked = judged("open_answer", open_record(1), "Correct, mostly", "incorrect")
    assert (judgement, unread) == ({"correct": False}, 0)
    assert [m["role"] for m in asked[1]] == ["user", "assistant", "user"]
    assert asked[1][0] == asked[0][0] and asked[1][1]["content"] == "Correct, mostly" and "Correct or Incorrect" in asked[1][2]["content"]
    judgement, unread, asked = judged("open_answer", open_record(1), "hm", "well")
    assert (judgement, unread, len(asked)) == ({"correct": None}, 1, 2)
    assert judged("open_answer", open_record(1), Reply("Correct", cut=True), Reply("Correct", cut=True))[0] == {"correct": None}


CHOICE = {"question": "What happens?\nA. up\nB. down", "answer": "B. down"}


@pytest.mark.parametrize(
    ("form", "prediction", "needed"),
    [
        ("multi-choice", "B. down", False),
        ("multi-choice", "A", False),
        ("multi-choice", "B) it goes", False),
        ("multi-choice", "down", True),
        ("caption_matching", "Because", True),
        ("yes_no", "Yes, it does", False),
        ("yes_no", "It does not", True),
        ("captioning", "A", True),
    ],
)
def test_temp_compass_asks_only_what_its_rules_leave_open(form, prediction, needed):
    more = {"question": "Does it?", "answer": "yes"} if form == "yes_no" else CHOICE
    more |= {"mc_question": "How?\nA. up\nB. down", "mc_answer": "B. down"} if form == "captioning" else {}
    record = compass_record(1, form, prediction, **more)
    assert JUDGES["temp_compass"]([record]).applies(record) is needed


def test_temp_compass():
    def caption(text):
        return compass_record(
            1, "captioning", text, question="Describe", answer="it rises", mc_question="How?\nA. up\nB. down", mc_answer="A. up"
        )

    assert judged("temp_compass", caption("It goes up."))[0] == {"correct": True}
    assert judged("temp_compass", caption("It goes down."))[0] == {"correct": False}
    assert judged("temp_compass", caption("It rests."))[0] == {"correct": False}, "the description tells nothing"
    assert judged("temp_compass", caption("It goes up."), "A or B", "A, B")[:2] == ({"correct": None}, 1)
    assert judged("temp_compass", compass_record(1, "multi-choice", "So it is B. down", **CHOICE))[0] == {"correct": True}
    applies = JUDGES["temp_compass"]([]).applies
    with pytest.raises(OLMoDataError, match="q1: metadata 'task' should be one of multi-choice"):
        applies(compass_record(1, "riddle", "x"))
    with pytest.raises(OLMoDataError, match="q1: metadata 'mc_answer' should be a text"):
        applies(compass_record(1, "captioning", "x", mc_question="?"))


def test_mlvu():
    scene = open_record(1, metadata={"task_type": "subPlot", "scoring_points": ["the car stops"]})
    judgement, _, asked = judged("mlvu_gen", scene)
    assert judgement == {"accuracy": 4, "relevance": 5}
    assert "- the car stops" in asked[0][0]["content"]
    summary = open_record(1, metadata={"task_type": "summary"})
    judgement, _, asked = judged("mlvu_gen", summary)
    assert judgement == {"completeness": 2, "reliability": 3}
    assert "points_that_matter" not in asked[0][0]["content"]
    assert judged("mlvu_gen", summary, "9", "9")[:2] == ({"completeness": None, "reliability": None}, 1)
    assert judged("mlvu_gen", scene | {"prediction": ""})[::2] == ({"accuracy": 1, "relevance": 1}, [])
    with pytest.raises(OLMoDataError, match="'task_type' should be one of sub_scene, .* but is 'plotQA'"):
        judged("mlvu_gen", open_record(1, metadata={"task_type": "plotQA"}))


TRUTH = [("A car is red", "Colour"), ("a dog barks", "sound")]
REFERENCE = "A car is red. A dog barks. A man runs."


def shares(judgement, kind):
    return [(s["category"], s["stated"]) for s in judgement["statements"] if s["kind"] == kind]


def test_captions():
    """Recall by the caption, consistency by the annotators' text; categories of all records are offered."""
    record = caption_record(1, "A car is red. A man runs. A cat sleeps", TRUTH, REFERENCE)
    other = caption_record(2, "x", [("s", "shape")], "")
    judgement, unread, asked = judged("captions", record, records=[record, other])
    assert shares(judgement, "recall") == [("Colour", True), ("sound", False)]
    assert shares(judgement, "consistency") == [("Colour", True), ("other", True), ("other", False)]
    assert (unread, len(asked)) == (0, 3)
    assert "- Colour\n- shape\n- sound\n- other" in asked[0][0]["content"]


def test_a_caption_that_cannot_be_judged():
    record = caption_record(1, "A car is red.", TRUTH, REFERENCE)
    judgement, unread, asked = judged("captions", record, "Sorry.", "No.")
    assert shares(judgement, "consistency") == [("other", None)] and unread == 1
    assert shares(judgement, "recall") == [("Colour", True), ("sound", False)]
    judgement, unread, asked = judged("captions", record, "A car is red | Colour", "?", "?")
    assert shares(judgement, "recall") == [("Colour", None), ("sound", None)] and unread == 1
    empty, _, asked = judged("captions", record | {"prediction": ""})
    assert shares(empty, "recall") == [("Colour", False), ("sound", False)] and shares(empty, "consistency") == [] and asked == []


def test_statements_left_out_are_asked_for_once_more():
    """Seen to fail with the verdicts of the second reply put in the first places."""
    truth = [("no", "a"), ("A car is red", "b"), ("a dog barks", "c")]
    record = caption_record(1, "A car is red. a dog barks", truth, REFERENCE)
    judgement, unread, asked = judged("captions", record, "x y | a", "1. Not stated")
    assert shares(judgement, "recall") == [("a", False), ("b", True), ("c", True)]
    assert "1. A car is red\n2. a dog barks\n</statements>" in asked[2][0]["content"]
    judgement, unread, asked = judged("captions", record, "x y | a", "1. Not stated", "2. Stated", "1. Stated")
    assert shares(judgement, "recall") == [("a", False), ("b", None), ("c", True)] and unread == 0


def test_long_lists_are_asked_in_parts():
    truth = [(f"fact {n}", "a") for n in range(2 * MOST_AT_ONCE + 1)]
    record = caption_record(1, f"fact {MOST_AT_ONCE + 1}. end", truth, "")
    judgement, _, asked = judged("captions", record)
    assert len(asked) == 1 + 3 + 1
    stated = [i for i, (_, stated) in enumerate(shares(judgement, "recall")) if stated]
    assert stated == [4, MOST_AT_ONCE + 1], "fact 4 stands in fact 41, by the words"


def test_captions_name_what_is_wrong_with_a_record():
    record = caption_record(1, "x", TRUTH, REFERENCE)
    record["metadata"]["data"]["categories"].pop()
    with pytest.raises(OLMoDataError, match="q1: metadata 'data' should have as many 'categories'"):
        JUDGES["captions"]([record])
    with pytest.raises(OLMoDataError, match="q1: metadata 'data' should hold"):
        JUDGES["captions"]([open_record(1)])


def test_every_rehearsal_reads_its_own_typical_replies():
    """Forecasts go the same way as judging, so that they count every kind of request."""
    caption = caption_record(1, "A car | is red. " * 30, TRUTH, REFERENCE)
    assert len(rehearse(JUDGES["captions"]([caption]).converse(caption))) == 3
    records = {
        "open_answer": open_record(1),
        "mlvu_gen": open_record(1, metadata={"task_type": "summary"}),
        "temp_compass": compass_record(1, "captioning", "x", mc_question="?\nA. a\nB. b", mc_answer="A"),
    }
    for name, record in records.items():
        assert len(rehearse(JUDGES[name]([record]).converse(record))) == 1
    assert {"captions", *records} == set(JUDGES) == set(TASK_JUDGES.values())
    assert all(f"temp_compass_{form}" in TASK_JUDGES for form in FORMS)


def test_what_is_judged_stands_in_the_prompt_once_and_as_it_is():
    """Marks of HTML are no marks here. Seen to fail with a template that escapes."""
    record = open_record(1, prediction="a < b & {{ c }}\n<answer>")
    assert judged("open_answer", record)[2][0][0]["content"].count("\na < b & {{ c }}\n<answer>\n</answer>") == 1
