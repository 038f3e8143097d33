"""Result folders: resume after a crash, refuse other settings, merge ranks."""

import json
from pathlib import Path

import pytest

from olmo.eval.results import ResultFolder, read_records, result_folder, weights_fingerprint
from olmo.eval.tasks import TASKS
from olmo.exceptions import OLMoConfigurationError, OLMoEnvironmentError

SETTINGS = {"task": "t", "max_new_tokens": 8, "model": {"llm": {"d_model": 4}}}


def line(n: int) -> dict:
    return {"example_id": str(n), "order": n, "prediction": f"answer {n} \u2028 ü"}


def opened(path: Path, settings=SETTINGS, overwrite=False, rank=0, world_size=1) -> ResultFolder:
    folder = ResultFolder(path, settings, rank=rank, world_size=world_size)
    if rank == 0:
        folder.prepare(overwrite)
    return folder


def test_names_of_result_folders():
    """Beside `step<N>`, inside anything else: two checkpoints of one parent must not share results."""
    task = TASKS["moving_shapes"]
    assert result_folder(Path("run/step7"), 7, task, None) == Path("run/predictions-ck7-moving_shapes-test")
    assert result_folder(Path("models/a"), None, task, "x") == Path("models/a/predictions-moving_shapes-test-x")
    assert result_folder(Path("run/step7"), 7, task, None, "out") == Path("out/predictions-ck7-moving_shapes-test")


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


def test_other_settings_are_refused_and_overwritten_on_request(tmp_path):
    opened(tmp_path).append([line(0)])
    other = SETTINGS | {"model": {"llm": {"d_model": 5}}}
    with pytest.raises(OLMoConfigurationError, match=r"model.llm.d_model was 4, now 5.*--overwrite.*--eval_name"):
        opened(tmp_path, other)
    assert opened(tmp_path, other, overwrite=True).read_predictions() == []


def test_finished_metrics_count_only_for_the_same_questions(tmp_path):
    folder = opened(tmp_path)
    assert folder.finished_metrics(None) is None
    folder.write_metrics({"metrics": {}, "max_examples": 5})
    assert folder.finished_metrics(5) is not None and folder.finished_metrics(None) is None
    assert ResultFolder(tmp_path, SETTINGS | {"task": "u"}).finished_metrics(5) is None


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
