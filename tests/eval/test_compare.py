"""Comparing two runs from their result folders: what is found, what is refused and what is warned about."""

import json
from pathlib import Path

import numpy as np
import pytest

from olmo.eval.compare import compare
from olmo.eval.compare_text import describe, main
from olmo.eval.saved_runs import read_runs, task_means
from olmo.exceptions import OLMoDataError
from olmo.launch import run_command
from tests.eval.statistics.records import record

SETTINGS = {
    "checkpoint": "step3",
    "task": "moving_shapes:test",
    "frames": 8,
    "topk": 0.5,
    "max_new_tokens": 8,
    "data": None,
    "model": {"llm": {"d_model": 4}, "mm_preprocessor": {"video": {"max_frames": 8, "topk": None}}},
}


def write(folder: Path, records, **settings) -> Path:
    """A finished result folder."""
    folder.mkdir(parents=True)
    (folder / "predictions.jsonl").write_text("".join(json.dumps(r) + "\n" for r in records))
    (folder / "settings.json").write_text(json.dumps(SETTINGS | settings))
    (folder / "metrics.json").write_text("{}")
    return folder


def answers(seed: int, n: int = 300, share: float = 0.6) -> list[dict]:
    rng = np.random.default_rng(seed)
    return [
        record(i, "ab"[i % 2], bool(rng.random() < share), video=i // 2)
        | {"prompt": f"<im_patch>[{seed + 1}] Which?", "frame_times": [0.0]}
        for i in range(n)
    ]


@pytest.fixture
def file_task(tmp_path):
    """Settings of a task that is a data file of one's own."""

    def settings(name: str) -> dict:
        return {"task": f"{name}:all", "data": {"file": str(tmp_path / f"{name}.jsonl"), "sha256": "0"}}

    return settings


def test_the_command_tells_everything_about_one_task(tmp_path, capsys):
    """Prompts that differ only in the number of visual tokens, and another share of pruned cells, are what is compared: no warning."""
    a, b = write(tmp_path / "a", answers(0)), write(tmp_path / "b", answers(1, share=0.7), topk=0.8, checkpoint="step4")
    assert run_command(main, [str(a), str(b), f"--json={tmp_path / 'out.json'}"]) == 0
    out = capsys.readouterr().out
    assert "moving_shapes:test (average): 300 questions in common about 150 videos" in out
    assert "McNemar p = " in out and "ignores" not in out and "takes every question for independent" in out
    assert "a difference of 0.5 points needs" in out and "warning" not in out and "mean of" not in out
    (task,) = json.loads((tmp_path / "out.json").read_text())["tasks"]
    first, second = ({r["example_id"]: r["prediction"] == "red" for r in records} for records in (answers(0), answers(1, share=0.7)))
    assert task["mcnemar"]["only_first"] == sum(first[i] and not second[i] for i in first)
    types = [np.mean([second[i] - first[i] for i in first if int(i) % 2 == k]) for k in (0, 1)]
    assert task["difference"]["value"] == pytest.approx(np.mean(types)) == pytest.approx(task["second"]["value"] - task["first"]["value"])
    assert task["difference"]["low"] < task["difference"]["value"] < task["difference"]["high"]
    assert task["needed"]["questions"] > 10_000 and not task["warnings"]


def test_what_should_be_equal_is_warned_about(tmp_path):
    shown = {"llm": {"d_model": 8}, "mm_preprocessor": {"video": {"max_frames": 16, "topk": 0.5}}}
    others = [r | {"prompt": r["prompt"] + ("!" if i == 7 else ""), "frame_times": [0.5]} for i, r in enumerate(answers(1)[:-3])]
    a, b = write(tmp_path / "a", answers(0)[1:]), write(tmp_path / "b", others, frames=16, model=shown)
    (task,) = compare(read_runs(a), read_runs(b), {}).tasks
    assert task.difference.n == 296 == task.first.n == task.second.n
    assert task.warnings == [
        "the questions differ: 3 only in the first, 1 only in the second",
        "frames differs: 8 and 16",
        "mm_preprocessor.video.max_frames differs: 8 and 16",
        "the prompts differ in 1 of 296 questions (first: 7)",
        "the times of the frames differ in 296 of 296 questions (first: 1)",
    ]


def test_means_are_taken_over_the_tasks_that_both_have(tmp_path, file_task):
    for run, seed in (("a", 0), ("b", 10)):
        for k, name in enumerate(("one", "two", "three")):
            write(tmp_path / run / "below" / name, answers(seed + k), **file_task(name))
    write(tmp_path / "a" / "more", answers(9))
    runs = read_runs(tmp_path / "a"), read_runs(tmp_path / "b")
    found = compare(*runs, {"pair": ["one:all", "two:all"], "same": ["two:all", "one:all"], "lacking": ["one:all", "four:all"]})
    assert [(a.name, a.first.tasks, a.difference.n) for a in found.averages] == [("pair", 2, 600), ("these 3 tasks", 3, 900)]
    by_label = {t.label: t.difference.value for t in found.tasks}
    assert found.averages[0].difference.value == pytest.approx((by_label["one:all"] + by_label["two:all"]) / 2)
    assert found.averages[0].difference.value == pytest.approx(found.averages[0].second.value - found.averages[0].first.value)
    assert found.warnings == ["moving_shapes:test: only the first has it"]
    text = "\n".join(describe(found))
    assert "mean of 2 tasks: pair, 600 questions" in text and "warning: moving_shapes:test" in text


def test_published_means_are_over_thirteen_tasks():
    means = task_means()
    assert [len(labels) for labels in means.values()] == [6, 7, 13] and means["overall"] == means["short"] + means["long"]
    assert means["long"][0] == "video_mme:validation"


def test_runs_that_never_disagree(tmp_path):
    a, b = write(tmp_path / "a", answers(0)), write(tmp_path / "b", answers(0))
    found = compare(read_runs(a), read_runs(b), {})
    assert "the runs agree on everything" in "\n".join(describe(found))
    assert not found.tasks[0].difference.reliable


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda a, b: (b / "metrics.json").unlink(), "is not finished: it has no metrics.json"),
        (lambda a, b: (b / "settings.json").unlink(), "has no settings.json"),
        (lambda a, b: (b / "settings.json").write_text("{"), "holds a file that is no JSON"),
        (lambda a, b: (b / "predictions.jsonl").unlink(), "holds no result folder"),
        (lambda a, b: rewrite(b, task="moving_shapes:train"), "different splits do not compare"),
        (
            lambda a, b: rewrite(b, task="my:all", data={"file": "my.jsonl"}),
            "no task in common: one has moving_shapes:test, the other my:all",
        ),
        (lambda a, b: rewrite(b, task="nothing:test"), "nothing:test has no metric"),
        (lambda a, b: rewrite(b, task="mlvu_gen:validation"), "count only with a judge's verdicts"),
        (lambda a, b: reanswer(b, lambda r: r | {"answer": "blue"}), "question 0 has another text, answer or options"),
        (lambda a, b: reanswer(b, lambda r: r | {"example_id": "x" + r["example_id"]}), "have no question in common"),
        (lambda a, b: write(b / "again", answers(0)) and (b / "predictions.jsonl").rename(b / "again" / "predictions.jsonl"), None),
        (lambda a, b: [write(b / n, answers(0)) for n in "xy"] and (b / "predictions.jsonl").unlink(), "two results of moving_shapes:test"),
    ],
)
def test_what_cannot_be_compared(tmp_path, capsys, spoil, message):
    a, b = write(tmp_path / "a", answers(0)), write(tmp_path / "b", answers(1))
    spoil(a, b)
    assert run_command(main, [str(a), str(b)]) == (0 if message is None else 1)
    err = capsys.readouterr().err
    if message is not None:
        assert message in err and err.count("\n") == 1


def rewrite(folder: Path, **settings) -> None:
    (folder / "settings.json").write_text(json.dumps(SETTINGS | settings))


def reanswer(folder: Path, change) -> None:
    (folder / "predictions.jsonl").write_text("".join(json.dumps(change(r)) + "\n" for r in answers(1)))


def test_errors_are_for_the_user(tmp_path, capsys):
    with pytest.raises(OLMoDataError, match="holds no result folder"):
        read_runs(tmp_path)
    a = write(tmp_path / "a", answers(0))
    assert run_command(main, [str(a), str(a), f"--json={tmp_path / 'no' / 'x.json'}"]) == 1
    assert "cannot write" in capsys.readouterr().err
