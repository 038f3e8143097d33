"""Evaluating a data file of one's own: how it is named, what is asked, and what counts as right."""

import json

import numpy as np
import pytest
from PIL import Image

from olmo.data.catalogue import get_dataset
from olmo.eval.metrics import METRICS, chosen_option
from olmo.eval.questions import list_questions, share_of
from olmo.eval.results import newest_results
from olmo.eval.statistics import score
from olmo.eval.tasks import resolve_tasks
from olmo.exceptions import OLMoCliError
from olmo.json_lines import read_records
from tests.data.clips import write_clip
from tests.eval.test_runner import launcher  # noqa: F401
from tests.inference.tiny import write_checkpoint

LINES = [
    {"video": "a.mp4", "question": "Where?", "answer": "here", "question_type": "place"},
    {"video": "a.mp4", "question": "Which?", "options": ["red", "blue"], "answer": "B", "id": "which"},
    {"image": "x.png", "question": "Which?", "options": ["red", "blue", "green"], "answer": "red"},
    {"video": "a.mp4", "conversations": [{"question": "Who?", "answer": "me"}, {"question": "Why?", "options": ["a", "b"], "answer": "a"}]},
    {
        "messages": [
            {"role": "user", "content": "One?"},
            {"role": "assistant", "content": "one"},
            {"role": "user", "content": "Two?"},
            {"role": "assistant", "content": "two"},
        ]
    },
]


@pytest.fixture
def file(tmp_path, monkeypatch):
    monkeypatch.setenv("MOLMO_DATA_DIR", str(tmp_path / "data"))
    write_clip(tmp_path / "a.mp4", frames=10)
    Image.new("RGB", (20, 20), "red").save(tmp_path / "x.png")
    path = tmp_path / "my.val.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in LINES))
    return path


@pytest.mark.parametrize(
    ("prediction", "number"),
    [
        *(
            ("B", 1),
            ("b.", 1),
            ("(C) the red one", 2),
            ("a: blue", 0),
            (" b) blue car\n", 1),
            ("The red one.", 2),
            ("Blue car", 1),
            ("blue", 0),
        ),
        *(("D", None), ("", None), ("B or C", None), ("a blue", 0), ("Because.", None), (".", None)),
    ],
)
def test_the_option_that_an_answer_means(prediction, number):
    """What is none of them is wrong, not guessed. Seen to fail with any short word at the start taken for a letter."""
    assert chosen_option(prediction, ["blue", "blue car", "the red one"]) == number


def test_options_and_open_answers_in_one_metric():
    choice = {"question_type": "choice", "options": ["red", "blue"], "answer_idx": 1, "answer": "blue", "chance": 0.5}
    word = {"question_type": "word", "answer": "Blue whale", "chance": None}
    records = [{**choice, "prediction": p, "example_id": p} for p in ("B. blue", "A. red", "b", "A. blue")]
    records += [{**word, "prediction": p, "example_id": p} for p in ("blue  whale.", "whale")]
    scores = score(METRICS["option_or_answer"], records)
    assert (scores["choice"].correct, scores["choice"].n, scores["choice"].chance) == (2, 4, 0.5)
    assert (scores["word"].correct, scores["word"].n, scores["word"].chance) == (1, 2, None)


def test_a_path_is_a_task():
    (task,) = resolve_tasks("some/where/my.val.jsonl")
    assert (task.label, task.title, task.source) == ("my.val:all", "my.val.jsonl", "some/where/my.val.jsonl")
    assert [t.source for t in resolve_tasks("moving_shapes,a.jsonl,b.jsonl,a.jsonl")] == ["moving_shapes", "a.jsonl", "b.jsonl"]
    with pytest.raises(OLMoCliError, match="x/a.jsonl and y/a.jsonl have the same name"):
        resolve_tasks("x/a.jsonl,y/a.jsonl")


def test_what_is_asked(file):
    """Every line is asked, a list of conversations one by one, of several turns the last with those before it."""
    questions = list_questions(get_dataset(str(file)))
    asked = [{k: v for k, v in q.record.items() if k not in ("order", "video", "metadata")} for q in questions]
    every = {"question_type": "all", "chance": None}
    assert asked == [
        every | {"example_id": "my.val.jsonl:line 1", "question_type": "place", "question": "Where?", "answer": "here"},
        {
            **every,
            **{"example_id": "my.val.jsonl:which", "question": "Which?", "answer": "blue", "options": ["red", "blue"], "answer_idx": 1},
            "chance": 1 / 2,
        },
        {
            **every,
            **{"example_id": "my.val.jsonl:line 3", "question": "Which?", "answer": "red", "options": ["red", "blue", "green"]},
            **{"answer_idx": 0, "chance": 1 / 3},
        },
        every | {"example_id": "my.val.jsonl:line 4/0", "question": "Who?", "answer": "me"},
        {
            **every,
            **{"example_id": "my.val.jsonl:line 4/1", "question": "Why?", "answer": "a", "options": ["a", "b"], "answer_idx": 0},
            "chance": 1 / 2,
        },
        every | {"example_id": "my.val.jsonl:line 5", "question": "Two?", "answer": "two"},
    ]
    assert [len(share_of(questions, r, 3)) for r in range(3)] == [4, 1, 1]


def test_the_command(launcher, file, tmp_path, capsys):  # noqa: F811
    """Videos, an image and text go through one model; a changed file is not answered from what was saved; a wrong one stops at once."""
    checkpoint = write_checkpoint(tmp_path / "run")
    words = (checkpoint, f"--tasks={file}", "--num_workers=0", "--max_new_tokens=3", "--device_batch_size=3")
    assert launcher(*words) == 0
    assert "my.val.jsonl (all), 6 questions" in capsys.readouterr().out
    results = newest_results(tmp_path / "run", "predictions-ck3-my.val-all-*")
    records = read_records(results / "predictions.jsonl")
    assert len(records) == 6 and [r["visual_before"] > 0 for r in records] == [True] * 5 + [False]
    assert np.isfinite(json.loads((results / "metrics.json").read_text())["metrics"]["average"])
    file.write_text(file.read_text().replace("Where?", "Where now?"))
    assert launcher(*words) == 0 and "6 questions" in capsys.readouterr().out
    assert newest_results(tmp_path / "run", "predictions-ck3-my.val-all-*") != results
    file.write_text('{"question": "Where?"}\n')
    for more in ((), ("--dry_run",)):
        assert launcher(*words, *more) == 1
        assert "line 1: the key 'answer' is missing" in capsys.readouterr().err
