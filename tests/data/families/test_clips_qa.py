"""Short clips of the internet: the first example of every split, from miniatures in the published formats."""

import pytest

from olmo.exceptions import OLMoDataError
from tests.data.families.fixtures import example, open_split

MC, OE = "video_multiple_choice", "video_short_answer"


def tgif(files, **changes):
    options = {f"a{i}": f"option {i}" for i in range(1, 6)}
    row = {"gif_name": "tumblr_1", "question": "What does the cat do 3 times?", **options, "answer": "2", "vid_id": "ACTION4", "key": "1"}
    files.csv("Train_action_question.csv", [row | changes, row | {"gif_name": "tumblr_2"}], delimiter="\t")
    files.csv("Train_transition_question.csv", [row | {"gif_name": "tumblr_2", "question": "What comes after?"}], delimiter="\t")
    files.csv("Train_count_question.csv", [{"gif_name": "tumblr_1", "question": "How often?", "answer": "3"}], delimiter="\t")
    files.csv("Train_frameqa_question.csv", [{"gif_name": "tumblr_3", "question": "What colour?", "answer": "red"}], delimiter="\t")


def test_tgif(miniature):
    """Questions on actions and transitions are asked with and without options; all on a video are one example."""
    tgif(miniature("TGIF"))
    assert example("tgif") == {
        "video": "videos/tumblr_1.mp4",
        "message_list": [
            {
                "question": "What does the cat do 3 times?",
                "options": [f"option {i}" for i in range(1, 6)],
                "answer_idx": 2,
                "style": MC,
            },
            {"question": "What does the cat do 3 times?", "answer": "option 3", "style": OE},
            {"question": "How often?", "answer": "3", "style": OE},
        ],
    }
    assert len(open_split("tgif")) == 3
    with pytest.raises(OLMoDataError, match="tgif: Test_action_question.csv is not in"):
        open_split("tgif", "test")


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"answer": "5"}, "Train_action_question.csv, line 2: the answer is option 5, but there are 5, counted from 0"),
        ({"answer": "third"}, "Train_action_question.csv, line 2: 'answer' should be a whole number, but is \"third\""),
    ],
)
def test_tgif_with_a_wrong_answer(miniature, changes, sentence):
    tgif(miniature("TGIF"), **changes)
    with pytest.raises(OLMoDataError, match=f"^tgif: .*{sentence}"):
        open_split("tgif")
