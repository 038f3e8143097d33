"""Every benchmark from its files to its metrics: the real command on miniatures, and the text that the model is given."""

import json

import pytest

from olmo.eval.averages import Result, averages_of, write_averages
from olmo.eval.metrics import METRICS
from olmo.eval.results import newest_results
from olmo.eval.runner import scored
from olmo.eval.statistics import score
from olmo.eval.task_table import AVERAGES
from olmo.eval.tasks import resolve_tasks
from olmo.json_lines import read_records
from tests.data.families.asking import wordings
from tests.data.families.test_benchmarks import CAPTIONS, REQUEST
from tests.data.families.test_grounding import QUESTION as QV_QUESTION
from tests.data.families.test_long_benchmarks import LVBENCH, MLVU
from tests.data.families.test_subtitle_benchmarks import LVB, MME
from tests.data.families.test_temp_compass import REQUEST as CAPTION_REQUEST
from tests.eval.benchmarks import clip_of_12_seconds, link_videos, write_benchmarks
from tests.eval.test_runner import launcher  # noqa: F401
from tests.inference.tiny import write_checkpoint

PUBLISHED_TEXT = ("prompt_templates=uber_model_v2", "system_prompt=demo_or_style_v2", "pointing_format=html-v2")
LETTER = "Answer with the option's letter from the given choices directly."
ONLY_LETTER = "Please respond with only the letter of the correct answer."


def short_answers(question: str) -> set[str]:
    return {f"video_short_answer: {text}" for text in wordings("short_answer", question=question)}


ASKED = {
    "nextqa_mc:test": f"how do the two man play the instrument\nA. answer 0\nB. answer 1\nC. answer 2\nD. answer 3\nE. answer 4\n{LETTER}",
    "perception_test:validation": f"Is the camera moving?\nA. yes\nB. no\nC. unclear\n{LETTER}",
    "perception_test:test": f"Is the camera moving?\nA. yes\nB. no\nC. unclear\n{LETTER}",
    "mvbench:validation": f"What is done?\nA. Nothing.\nB. Lifting up.\nC. Dropping.\n{ONLY_LETTER}",
    "tomato:test": "Which instrument plays first?\nOnly return the correct answer option.\nA. Cello.\nB. Flute.\nC. Both.",
    "motionbench:validation": "How does it move?\nA. Up\nB. Down",
    "motionbench:test": "How does it move?\nA. Up\nB. Down",
    "temp_compass_multi-choice:validation": (
        "What is the man doing?\nOnly return the correct answer option.\nA. dribbling\nB. dunking\nC. passing"
    ),
    "temp_compass_yes_no:validation": short_answers("Is the man dunking?"),
    "temp_compass_caption_matching:validation": (
        "Which description is a more suitable match for the video?\nOnly return the correct answer option.\n"
        "A. The man dribbles.\nB. The man: he dunks."
    ),
    "temp_compass_captioning:validation": CAPTION_REQUEST,
    "ego_schema:validation": (
        f"What does C do?\nA. C does this\nB. C does that\nC. C does more\nD. C does less\nE. C does nothing\n{LETTER}"
    ),
    "ego_schema:test": f"What does C do?\nA. C does this\nB. C does that\nC. C does more\nD. C does less\nE. C does nothing\n{LETTER}",
    "temporal_bench:test": short_answers(f"{CAPTIONS}\n{REQUEST}"),
    "temporal_bench_mc:test": (
        "Which caption best describes this video?\nOnly return the correct answer option.\nA. He tosses it up.\nB. He eats it."
    ),
    "video_mme:validation": MME,
    "video_mme_w_subtitle:validation": MME,
    "long_video_bench_no_subtitle:validation": LVB,
    "long_video_bench_no_subtitle:test": LVB,
    "long_video_bench_w_subtitle:validation": LVB,
    "mlvu_mc:validation": MLVU,
    "mlvu_mc:test": MLVU,
    "mlvu_gen:validation": "demo: What about the scene?",
    "lvbench:test": LVBENCH,
    "video_eval_pro_open:test": "demo: What runs away?",
    "video_eval_pro_mc:test": f"What runs away?\nA. A cat\nB. A dog\nC. A cow\n{ONLY_LETTER}",
    "molmo2_captions_eval:test": wordings("long_caption"),
    "molmo2_video_count_eval:val": "How many dogs are there?",
    "molmo2_video_point_eval:val": 'How many "red car" are there in the video?',
    "qv_highlights:validation": short_answers(QV_QUESTION),
}
"""Task -> what its first question asks, to the letter; a set where one of several wordings is drawn."""
SUBTITLES = {
    "video_mme_w_subtitle:validation": "subtitle\n0.0 - 2.5 hello\n4.5 - 65.0 world\n",
    "long_video_bench_w_subtitle:validation": "subtitle\n0.0 - 2.2 hello\n",
}


def expected_prompts(label: str, record: dict) -> set[str]:
    """The whole text: BOS, a time and the cells of every frame, subtitles, and the turn of the user."""
    frames = "".join(f"{' ' if i else ''}{t:.1f} <frame_start><im_patch>[9]<frame_end>" for i, t in enumerate(record["frame_times"]))
    questions = {ASKED[label]} if isinstance(ASKED[label], str) else ASKED[label]
    before = f"<|endoftext|>{frames}{SUBTITLES.get(label, '')}<|im_start|>user\n"
    return {f"{before}{question}<|im_end|>\n<|im_start|>assistant\n" for question in questions}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """With the texts of the released models."""
    return write_checkpoint(tmp_path_factory.mktemp("run"), tuple(f"data_formatter.{word}" for word in PUBLISHED_TEXT))


def test_from_files_to_metrics(launcher, checkpoint, tmp_path, monkeypatch, capsys):  # noqa: F811
    """Every task with a reader writes predictions and, unless a judge or the publisher has the last word, metrics."""
    monkeypatch.setenv("MOLMO_DATA_DIR", str(tmp_path / "data"))
    write_benchmarks(tmp_path / "data")
    tasks = resolve_tasks(",".join(ASKED))
    link_videos(tasks, clip_of_12_seconds(tmp_path))
    words = ("--num_workers=0", "--device_batch_size=4", "--max_new_tokens=2", f"--save_dir={tmp_path / 'out'}")
    assert launcher(checkpoint, f"--tasks={','.join(ASKED)}", *words) == 0, capsys.readouterr().err
    for task in tasks:
        folder = newest_results(tmp_path / "out" / checkpoint.parent.name, f"predictions-ck3-{task.name}-{task.split}-*")
        records = read_records(folder / "predictions.jsonl")
        assert records[0]["prompt"] in expected_prompts(task.label, records[0]), task.label
        assert len({r["example_id"] for r in records}) == len(records) and not any("failed" in r for r in records)
        assert all(sum(r["kept"]) == r["visual_after"] < r["visual_before"] for r in records)
        _check_metrics(task, json.loads((folder / "metrics.json").read_text()), records)
        if task.name == "mvbench":
            _check_clips({r["example_id"]: r["frame_times"] for r in records})


def test_averages_of_the_thirteen(tmp_path):
    """Each task counts alike, by its headline. Oracle: the mean of the headlines. Written only when all are there."""
    results, headlines = {}, {}
    for number, task in enumerate(resolve_tasks("video")):
        folder = tmp_path / f"predictions-{task.name}"
        folder.mkdir()
        right = [i < number for i in range(13)]
        records = [_answered(task, i, letter="B" if is_right else "A") for i, is_right in enumerate(right)]
        (folder / "predictions.jsonl").write_text("".join(json.dumps(r) + "\n" for r in records))
        results[task.label] = Result(task, folder)
        headlines[task.name] = score(METRICS[task.metric], records)[METRICS[task.metric].headline].value
        assert headlines[task.name] == pytest.approx(number / 13)
        assert bool(write_averages(results)) == (number == 12)
    (file,) = tmp_path.glob("averages-video-*.json")
    found = json.loads(file.read_text())["averages"]
    for name, members in AVERAGES["video"].items():
        assert found[name]["value"] == pytest.approx(sum(headlines[m] for m in members) / len(members))
        assert found[name]["low"] < found[name]["value"] < found[name]["high"] and found[name]["tasks"] == len(members)
    few = {label: Result(r.task, r.folder, frozenset({"0", "1"})) for label, r in results.items()}
    assert averages_of("video", few)["overall"].n == 26


KNOWN = (
    *("task_type", "reasoning_type", "area", "reasoning", "duration", "sub_category", "duration_group", "question_category"),
    *("qa_type", "qa_subtype", "qtype", "temporal_aspect"),
)


def _answered(task, number: int, letter: str) -> dict:
    """A question about two options of which B is right."""
    metadata = dict.fromkeys(KNOWN, "short") | {"question_type": "CH", "task": "multi-choice", "answer": "B. that"}
    asked = {"example_id": str(number), "video": f"{number}.mp4", "question_type": "all", "question": "Which?\nA. this\nB. that"}
    told = {"options": ["this", "that"], "answer_idx": 1, "answer": "that"} if task.name in ("tomato", "temp_compass_multi-choice") else {}
    return {**asked, "answer": "B", **told, "chance": None, "metadata": metadata, "prediction": letter}


def _check_clips(times: dict[str, list[float]]) -> None:
    """The times of a clip reach the reader of videos. Seen to fail with the metadata left out of what is asked."""
    assert max(times["action_antonym_0"]) <= 2.0 < 10 < max(times["action_count_0"])


def _check_metrics(task, content: dict, records: list[dict]) -> None:
    assert content["questions"] == len(records)
    if task.judge:
        assert (content["status"], content["scores"]) == ("needs judge", {})
    elif task.metric is None:
        assert (content["status"], content["scores"]) == ("predictions only", {})
    else:
        found = content["scores"]["all"]
        assert content["status"] == "scored" and found["n"] == len(records) and 0 <= found["low"] <= found["value"] <= found["high"] <= 1
        failed = [r | {"prediction": "", "failed": {"file": "a.mp4", "cause": "corrupt", "message": ""}} for r in records]
        for compat in (False, True):
            found = scored(task, failed, compat)["scores"]["all"]
            assert (found["value"], found["n"], found["unparsed"]) == (0, len(records), len(records)), "unreadable videos are wrong"


def test_the_table_covers_every_task_that_can_be_read():
    from olmo.eval.listing import data_state
    from olmo.eval.task_table import TASKS

    several = {"temp_compass", "temp_compass_internal", "video_mme_short", "video_mme_medium", "video_mme_long", "moving_shapes"}
    readable = {t.name for t in TASKS.values() if data_state(t) != "no reader yet"}
    assert {label.partition(":")[0] for label in ASKED} == readable - several
