"""The report from made-up runs: complete, self-contained, escaped."""

import base64
import json
import re

import numpy as np
import pytest

from olmo.eval.report import ReportRun, SampleVideo, build_report, read_curve
from olmo.eval.report.figures import loss_curves
from olmo.exceptions import OLMoDataError
from olmo.nn.pruning_plan import CellGrid
from olmo.pages.drawing import run_colours, running_mean


def a_run(name: str, share: float, after: int) -> ReportRun:
    records = [
        {
            "example_id": f"{v}/{kind}",
            "video": f"{v}.mp4",
            "question_type": kind,
            "answer": "red",
            "prediction": "red" if v < share * 20 else "<script>",
            "chance": 0.25,
            "tokens_before": 100,
            "tokens_after": 28 + after,
            "visual_before": 72,
            "visual_after": after,
        }
        for v in range(20)
        for kind in ("color", "stopped")
    ]
    timing = {"questions": 40.0, "video": 1.0, "decode": 2.0}
    return ReportRun(name, records, "short_answer", [(1, 3.0), (2, 1.0)], 12.0, timing, {"method": name})


def a_sample() -> SampleVideo:
    rng = np.random.default_rng(0)
    questions = [{"question": "Which?", "answer": "red", "predictions": {"dense": "red", "STTS": "<script>"}}]
    frames = rng.integers(0, 255, (8, 42, 42, 3), dtype=np.uint8)
    return SampleVideo(
        "video 1", frames, np.arange(8) / 2, rng.random((8, 9)) < 0.5, rng.random((8, 9)), CellGrid((9, 9), (3, 3)), questions
    )


@pytest.fixture(scope="module")
def page(tmp_path_factory) -> str:
    path = tmp_path_factory.mktemp("report") / "sub" / "report.html"
    runs = [a_run("dense", 0.75, 72), a_run("STTS", 0.5, 41)]
    build_report(path, title="A & B", runs=runs, samples=[a_sample()], settings={"Data": {"seed": "0"}}, commands=["run --x=1"])
    return path.read_text()


def test_page_needs_no_other_file(page):
    sources = re.findall(r'(?:src|href)="([^"]{0,30})', page)
    assert sources and all(s.startswith("data:image/") for s in sources)
    assert "<script" not in page and "&lt;script&gt;" in page and "A &amp; B" in page


def test_page_tells_the_numbers(page):
    text = re.sub(r"<[^>]+>", " ", page)
    text = re.sub(r"\s+", " ", text)
    for expected in ("75.0 %", "50.0 %", "STTS minus dense: −25.0 points", "41.0 of 72.0", "50.0 ms", "run --x=1", "chance"):
        assert expected in text, expected


def test_right_and_wrong_are_marked(page):
    assert page.count('class="right"') == 1 and page.count('class="wrong"') == 1


def test_curve_takes_the_later_line_of_a_step(tmp_path):
    """After a resume the steps since the last checkpoint are logged again."""
    rows = [{"step": 1, "train/CrossEntropyLoss": 3.0}, {"step": 2, "train/CrossEntropyLoss": 9.0}, {"step": 2, "other": 1}]
    rows += [{"step": 2, "train/CrossEntropyLoss": 2.0}]
    (tmp_path / "m.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    assert read_curve(tmp_path / "m.jsonl") == [(1, 3.0), (2, 2.0)]
    with pytest.raises(OLMoDataError, match="there is no training log"):
        read_curve(tmp_path / "none.jsonl")


def test_running_mean_equals_a_loop():
    """Seen to fail with one neighbour less on the right, and with the full width as divisor at the ends."""
    values = np.random.default_rng(0).random(17)
    slow = [values[max(0, i - 3) : i + 4].mean() for i in range(17)]
    np.testing.assert_allclose(running_mean(values, 3), slow)


def test_a_run_has_one_colour_in_every_chart():
    """Seen to fail when the charts colour by position: the first run has no curve, so the second took its colour."""
    colours = run_colours(["dense", "STTS"])
    chart = base64.b64decode(loss_curves({"STTS": [(1, 3.0), (2, 1.0)]}, colours, "loss").partition(",")[2]).decode()
    assert colours["STTS"] in chart and colours["dense"] not in chart
