"""The frames of some wrong answers, decoded again, with the cells that the model dropped in grey."""

import logging
from collections.abc import Iterator, Mapping
from typing import Any

from olmo.eval.kept_cells import unpack_cells
from olmo.eval.questions import Question, list_questions
from olmo.eval.saved_runs import Run
from olmo.exceptions import OLMoDataError
from olmo.inference.api import ExampleReader, in_proportion
from olmo.inference.show import film_strip
from olmo.models.model import build_model_config
from olmo.models.molmo2.preprocessor import video_cells

log = logging.getLogger(__name__)

MAX_FRAMES = 16
"""Frames of a video that are drawn."""


def draw_errors(name: str, run: Run, limit: int) -> Iterator[dict[str, Any]]:
    """Up to `limit` questions of a run that it got wrong, as the template wants them; those whose video is not there any more are
    skipped with a warning."""
    wrong = [r for r in run.records if run.metric.grade(r).value < 1 and not r.get("failed") and r.get("frame_times")]
    if not wrong or limit < 1:
        return
    try:
        questions = {q.record["example_id"]: q for q in list_questions(open_dataset(run))}
    except OLMoDataError as err:
        log.warning("%s: no frames are drawn, because its data cannot be opened: %s", run.label, err)
        return
    reader = ExampleReader(build_model_config(dict(run.settings["model"])))
    for record in [r for r in wrong if r["example_id"] in questions][:limit]:
        try:
            yield draw(name, run, record, questions[record["example_id"]], reader)
        except OLMoDataError as err:
            log.warning("%s: %s is not drawn: %s", run.label, record["example_id"], err)


def open_dataset(run: Run):
    """The data set of a run, as far as its settings tell where it lies."""
    from olmo.data.catalogue import get_dataset
    from olmo.data.moving_shapes import MovingShapesConfig

    task, _, split = run.label.partition(":")
    data = run.settings.get("data") or {}
    generated = MovingShapesConfig.from_dict(data) if task == "moving_shapes" else None
    return get_dataset(data.get("file", task), split, moving_shapes=generated)


def draw(name: str, run: Run, record: Mapping[str, Any], question: Question, reader: ExampleReader) -> dict[str, Any]:
    """One question with its film strip."""
    reader.read(question.example)
    video, grid = reader.videos.video, video_cells(reader.config)
    frames, keep = len(video.frames), None
    if record.get("kept_cells") and record["visual_before"] == frames * grid.num_cells:  # else cells of several sizes lie on no one grid
        keep = unpack_cells(record["kept_cells"], frames, grid.num_cells)
    return {
        "title": f"{run.label} · {record['video']}",
        "strip": film_strip(in_proportion(video), record["frame_times"], keep, None, grid, max_frames=MAX_FRAMES),
        "question": record["question"],
        "truth": record["answer"],
        "run": name,
        "prediction": record["prediction"],
    }
