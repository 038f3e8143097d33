"""Result folders: resume after a crash, refuse other settings, merge ranks."""

import json
import os
import re
from pathlib import Path

import pytest

from olmo.eval.results import ResultFolder, newest_results, result_folder, weights_fingerprint
from olmo.eval.task import Task
from olmo.eval.task_table import TASKS
from olmo.exceptions import OLMoConfigurationError, OLMoEnvironmentError
from olmo.json_lines import read_records

SETTINGS = {"task": "t", "max_new_tokens": 8, "model": {"llm": {"d_model": 4}}}


def line(n: int) -> dict:
    return {"example_id": str(n), "order": n, "prediction": f"answer {n} \u2028 ü"}


def opened(path: Path, settings=SETTINGS, overwrite=False, rank=0, world_size=1) -> ResultFolder:
    folder = ResultFolder(path, settings, rank=rank, world_size=world_size)
    if rank == 0:
        folder.prepare(overwrite)
    return folder


ASKED = {"checkpoint": "step7", "weights": {"bytes": 1}, "frames": 64, "topk": 0.5, "max_new_tokens": 8}


def named(checkpoint: str, step: int | None = None, task: Task = TASKS["moving_shapes"], settings=ASKED, **options) -> Path:
    return result_folder(Path(checkpoint), step, task, settings, **options)


def test_names_of_result_folders():
    """Model, step, task, split, frames, topk and a hash of the settings."""
    mark = named("/run/step7", 7).name.rpartition("-")[2]
    assert re.fullmatch("[0-9a-f]{8}", mark)
    assert named("/run/step7", 7) == Path(f"/run/predictions-ck7-moving_shapes-test-f64-k0.5-{mark}")
    assert named("/models/a", eval_name="x") == Path(f"/models/a/predictions-moving_shapes-test-f64-k0.5-{mark}-x")
    assert named("/run/step7", 7, save_dir="out") == Path(f"out/run/predictions-ck7-moving_shapes-test-f64-k0.5-{mark}")
    assert named("step7", 7).is_absolute()


def test_no_two_evaluations_share_a_folder():
    """Checkpoints of one parent, splits of one task, settings of one model. Seen to fail (splits) without the split in the name,
    and (unsharded) with every checkpoint of a step beside it."""
    task = TASKS["mvbench"]
    folders = [
        *(named(f"/run/{name}", step, save_dir=out) for out in (None, "out") for name, step in (("step7", 7), ("step7-unsharded", 7))),
        *(named(f"/models/{name}", save_dir=out) for out in (None, "out") for name in ("a", "b")),
        *(named("/run/step7", 7, task.on(split)) for split in ("a", "b")),
        *(named("/run/step7", 7, settings=ASKED | more) for more in ({"max_new_tokens": 9}, {"frames": 128}, {"topk": 0.3})),
    ]
    assert len(set(folders)) == len(folders)


def test_other_weights_are_not_other_settings():
    """They are refused in the same folder instead of piling up in new ones."""
    assert named("/run/step7", 7) == named("/run/step7", 7, settings=ASKED | {"weights": {"bytes": 2}})


def test_newest_results(tmp_path):
    assert newest_results(tmp_path, "predictions-*") is None
    for number, name in enumerate(("predictions-a-1", "predictions-a-2", "predictions-b-3", "predictions-a-4")):
        (tmp_path / name).mkdir()
        if name != "predictions-a-4":
            (tmp_path / name / "metrics.json").write_text("{}")
            os.utime(tmp_path / name / "metrics.json", (100 - number, 100 - number))
    assert newest_results(tmp_path, "predictions-a-*") == tmp_path / "predictions-a-1"


def test_resume_after_a_cut_line(tmp_path):
    """A crash cuts the last line: it is asked again. Seen to fail (broken JSON) without cutting the partial line."""
    first = opened(tmp_path / "r")
    first.append([line(0), line(1)])
    first.close()
    file = tmp_path / "r" / "predictions.jsonl"
    file.write_bytes(file.read_bytes() + json.dumps(line(2)).encode()[:15])
    again = opened(tmp_path / "r")
    assert [r["example_id"] for r in again.read_predictions()] == ["0", "1"]
    again.append([line(2)])
    again.close()
    assert again.merge() == [line(0), line(1), line(2)] == read_records(file)


def test_ranks_are_merged_in_the_order_of_the_data_set(tmp_path):
    ranks = [opened(tmp_path, rank=r, world_size=2) for r in range(2)]
    ranks[1].append([line(1), line(3)])
    ranks[0].append([line(0), line(2)])
    for rank in ranks:
        rank.close()
    assert [r["order"] for r in ranks[0].merge()] == [0, 1, 2, 3]
    assert [p.name for p in tmp_path.glob("predictions*")] == ["predictions.jsonl"]


def test_an_answer_stands_for_an_earlier_failure(tmp_path):
    """In whichever file it is, and not the other way round. Seen to fail with the first line of a question taken."""
    main, other = (opened(tmp_path, rank=r, world_size=2) for r in range(2))
    failed = {"failed": {"file": "a.mp4", "cause": "corrupt", "message": ""}}
    main.append([line(0) | failed, line(1), line(2) | failed, line(3) | failed])
    main.append([line(2)])
    other.append([line(0), line(1) | failed])
    for folder in (main, other):
        folder.close()
    assert main.merge() == [line(0), line(1), line(2), line(3) | failed]


def test_starts_are_noted_one_after_another(tmp_path):
    folder = opened(tmp_path)
    assert folder.read_starts() == []
    for ranks in (1, 2):
        folder.note_start({"ranks": ranks})
    assert folder.read_starts() == [{"ranks": 1}, {"ranks": 2}]


def test_other_settings_are_refused_and_overwritten_on_request(tmp_path):
    opened(tmp_path).append([line(0)])
    other = SETTINGS | {"model": {"llm": {"d_model": 5}}}
    with pytest.raises(OLMoConfigurationError, match=r"model.llm.d_model was 4, now 5.*--overwrite.*--eval_name"):
        opened(tmp_path, other)
    assert opened(tmp_path, other, overwrite=True).read_predictions() == []


def test_finished_metrics_count_only_for_the_same_questions(tmp_path):
    folder = opened(tmp_path)
    assert folder.finished_metrics() is None
    folder.write_metrics({"metrics": {}, "max_examples": 5, "compat": False})
    assert folder.finished_metrics(max_examples=5, compat=False) is not None
    assert folder.finished_metrics(max_examples=None, compat=False) is None and folder.finished_metrics(compat=True) is None
    assert ResultFolder(tmp_path, SETTINGS | {"task": "u"}).finished_metrics(max_examples=5) is None


def test_predictions_without_settings_are_refused(tmp_path):
    (tmp_path / "predictions.jsonl").write_text("")
    with pytest.raises(OLMoConfigurationError, match=r"no settings.json; use --overwrite"):
        opened(tmp_path)


def test_a_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OLMoEnvironmentError, match="cannot write results to"):
        opened(tmp_path / "file" / "below")


def test_retrained_weights_have_another_fingerprint(tmp_path):
    (tmp_path / "model.pt").write_bytes(b"123")
    before = weights_fingerprint(tmp_path)
    (tmp_path / "model.pt").write_bytes(b"1234")
    assert weights_fingerprint(tmp_path) != before
