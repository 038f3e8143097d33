"""The page of a training run: what it reads, how it draws, and that it renews itself."""

import json
import math
import re
import time
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from olmo.exceptions import OLMoCliError, OLMoDataError, OLMoEnvironmentError
from olmo.visualize import run_command
from olmo.visualize.run_chart import Line, Look, Mark, chart, number, on_same_steps, round_numbers, thin
from olmo.visualize.run_command import main, parse
from olmo.visualize.run_page import build_run_page, charts
from olmo.visualize.run_records import RunLog, parts_of_time

CONFIG = "model:\n  name: <script>alert(1)</script>\n"


def record(step: int, **more) -> dict:
    """What a run on a GPU with pruning, packing and an evaluation logs."""
    return {
        "step": step, "train/CrossEntropyLoss": 3 / step, "train/Accuracy": 1 - 1 / step, "train/kept_fraction": 0.5,
        "optim/llm_lr": step * 1e-5, "optim/vit_lr": step * 1e-6, "optim/llm_grad_norm": 2.0, "optim/vit_grad_norm": 0.1,
        "data/token_fill": 0.9, "data/frame_fill": 0.8, "throughput/seconds_per_step": 2.0, "throughput/data_wait_seconds": 0.5,
        "throughput/device/tokens_per_second": 1000.0, "throughput/device/mfu": 0.4, "System/Peak GPU Memory (MB)": 70000.0,
        "throughput/eta_seconds": 2.0 * (10 - step), "throughput/unix_time": 100.0 + 3 * step, **more,
    }  # fmt: skip


def start(step: int, **more) -> dict:
    return {
        "time": "2026-11-26T19:00:00+00:00", "step": step, "resumes": step > 0, "checkpoint": f"runs/a/step{step}" if step else None,
        "command": "train.py --x='<b>'", "world_size": 8, "host": "n1", "ranks_of_hosts": {"n1": 8}, "devices": {"NVIDIA H100": 8},
        "commit": "0123456789ab", "dirty": True, "versions": {"olmo": "0.1.0", "python": "3.11.2", "torch": "2.13.0"}, **more,
    }  # fmt: skip


def write_run(folder: Path, records: list[dict], starts: list[dict] = ()) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "metrics.jsonl").write_text("".join(json.dumps(r) + "\n" for r in records))
    (folder / "starts.jsonl").write_text("".join(json.dumps(s) + "\n" for s in starts))
    (folder / "config.yaml").write_text(CONFIG)
    return folder


@pytest.fixture
def run(tmp_path) -> RunLog:
    """Ten steps, started again from step 4; steps 4 and 6 were saved, 6 was skipped, 10 is still there as a checkpoint."""
    records = [record(step) for step in range(1, 11)]
    records[4] |= {"eval/shapes/all": 0.4, "eval/seconds": 0.5, "eval/shapes/count": 0.2}
    records[5] |= {"train/CrossEntropyLoss": None}
    records[6] |= {"throughput/save_pause_seconds": 0.125}
    for r in records:
        r["health/skipped_steps"] = float(r["step"] >= 6)
    folder = write_run(tmp_path / "runs" / "a", records, [start(0), start(4)])
    (folder / "step10").mkdir()
    (folder / "step11-tmp").mkdir()
    log = RunLog(folder, "a")
    assert log.read()
    return log


# ---------------------------------------------------------------------------------------------- reading


def test_the_log_of_a_run(run):
    """Seen to fail when null is read as zero, and when half-written checkpoints count."""
    steps, losses = run.curves["train/CrossEntropyLoss"].arrays()
    assert steps.tolist() == list(range(1, 11)) and math.isnan(losses[5]) and losses[9] == 0.3
    assert run.saved == {4, 6, 10} and run.ended and run.step == 10 and len(run.starts) == 2 and run.config == CONFIG
    assert run.curves["eval/shapes/all"].arrays()[0].tolist() == [5]


def test_the_parts_of_a_step_add_up_to_the_time_that_passed(run):
    """Between two records lie three seconds. Seen to fail with the rest taken over a restart."""
    parts = {name: dict(zip(*curve.arrays(), strict=True)) for name, curve in run.curves.items() if name.startswith("time/")}
    assert parts["time/waiting for data"][3] == 0.5 and parts["time/the step"][3] == 1.5 and parts["time/saving"][7] == 0.125
    assert sum(part[6] for part in parts.values()) == 3.0
    assert parts["time/the rest"].keys() == set(range(2, 11)) - {5}, "nothing is known of the first step of a start"
    assert parts_of_time({"step": 1}, {}) == {}


def test_only_what_is_new_is_read(tmp_path):
    """A growing file, a torn line, and a file that a resumed run replaced. Seen to fail when the old curves stay, and when a torn line
    is taken for a whole one."""
    folder = write_run(tmp_path / "a", [record(1), record(2)])
    log = RunLog(folder, "a")
    assert log.read() and not log.read()
    with open(folder / "metrics.jsonl", "a") as file:
        file.write(json.dumps(record(3)) + "\n" + json.dumps(record(4))[:20])
        file.flush()
        assert log.read() and log.step == 3 and not log.read()
        file.write(json.dumps(record(4))[20:] + "\n")
    assert log.read() and log.curves["train/Accuracy"].arrays()[0].tolist() == [1, 2, 3, 4]
    for steps in ([1, 2, 3], [1, 2, 3, 4, 5, 6]):  # shorter than what was read, then longer
        (folder / "new").write_text("".join(json.dumps(record(s, other=len(steps))) + "\n" for s in steps))
        (folder / "new").replace(folder / "metrics.jsonl")
        assert log.read()
        assert log.curves["other"].arrays()[0].tolist() == steps and set(log.curves["other"].values) == {len(steps)}


@pytest.mark.parametrize("line", ['{"step": 2', "[1]", '{"train/Accuracy": 1}', '{"step": "2"}'])
def test_a_line_that_is_no_record_is_named(tmp_path, line):
    folder = write_run(tmp_path / "a", [record(1)])
    with open(folder / "metrics.jsonl", "a") as file:
        file.write(line + "\n")
    with pytest.raises(OLMoDataError, match=r"metrics.jsonl, line 2: not a record of a training step"):
        RunLog(folder, "a").read()


# ---------------------------------------------------------------------------------------------- drawing


def test_many_points_become_few_and_no_extreme_is_lost():
    """Seen to fail with every n-th value in place of buckets."""
    rng = np.random.default_rng(0)
    values = rng.normal(size=5003)
    values[[17, 4000]] = 50, -50
    short = thin(np.arange(5003), values)
    assert len(short.steps) == 240 and short.high.max() == 50 and short.low.min() == -50
    assert np.all(short.low <= short.mean) and np.all(short.mean <= short.high) and np.all(np.diff(short.steps) > 0)
    sizes = np.diff(np.linspace(0, 5003, 241).astype(int))
    assert np.isclose((short.mean * sizes).sum(), values.sum())
    few = thin(np.array([3, 5]), np.array([1.0, math.nan]))
    assert few.steps.tolist() == [3] and few.low.tolist() == few.mean.tolist() == few.high.tolist() == [1.0]
    assert len(thin(np.array([3]), np.array([math.nan])).steps) == 0


def line(values, steps=None, name="x") -> Line:
    return Line(name, "#123456", np.arange(1, len(values) + 1) if steps is None else np.array(steps), np.array(values, dtype=float))


def coordinates(path: str) -> np.ndarray:
    return np.array([[float(n) for n in point.split()] for point in path.strip("MZ").split("L")])


def test_a_curve_lies_where_its_axes_say():
    """Steps are even from left to right, larger values lie higher, zero on the axis, in equal steps on a logarithmic scale."""
    drawn = chart("t", [line([0.0, 5.0, 10.0])], [], 4, Look(zero=True))
    x, y = coordinates(drawn["lines"][0]["path"]).T
    assert np.allclose(np.diff(x), 109.5, atol=0.2) and np.allclose(y[0] - y[1], y[1] - y[2], atol=0.2) and y[0] == 178
    assert [text for _, text in drawn["ticks"]] == ["0", "5", "10"] and drawn["ticks"][1][0] == y[1]
    assert (x[1], "2") in drawn["steps"]
    _, y = coordinates(chart("t", [line([0.01, 1.0, 100.0])], [], 3, Look(log=True))["lines"][0]["path"]).T
    assert np.allclose(y[0] - y[1], y[1] - y[2], atol=0.2)


def test_a_first_step_that_compiles_does_not_flatten_the_rest():
    """Seen to fail with the highest value as the top."""
    y = coordinates(chart("t", [line([300.0, *[1.0] * 50])], [], 51, Look(zero=True))["lines"][0]["path"])[:, 1]
    assert y[0] < 0 and y[1] < 100


def test_stacked_parts_stand_on_each_other():
    """Also where one was not logged at every step. Seen to fail when each part is thinned by itself."""
    parts = [line([1.0] * 1000, name="a"), line([2.0] * 500, steps=range(2, 1001, 2), name="b")]
    assert on_same_steps(parts)[1].values.tolist()[:4] == [0, 2, 0, 2]
    drawn = chart("t", parts, [], 1000, Look(stacked=True))
    assert [shown["values"][10] for shown in drawn["lines"]] == [1, pytest.approx(1, rel=0.3)]
    low, high = (coordinates(shown["path"])[:, 1].mean() for shown in drawn["lines"])
    assert 178 - low == pytest.approx(low - high, rel=0.1), "as much again"


def test_what_is_not_finite_is_marked_and_not_drawn():
    drawn = chart("t", [line([1.0, math.nan, 3.0])], [Mark("start", 2, "#1", "again")], 3, Look())
    assert len(coordinates(drawn["lines"][0]["path"])) == 2
    assert [(m["kind"], m["text"]) for m in drawn["marks"]] == [("start", "again"), ("alarm", "x: not finite")]
    assert chart("t", [line([math.nan])], [], 1, Look(log=True))["lines"][0]["latest"] == "–"


@pytest.mark.parametrize(
    ("low", "high", "expected"), [(0, 10, [0, 5, 10]), (0, 0.0031, [0, 0.001, 0.002, 0.003]), (-1, 1, [-1, -0.5, 0, 0.5, 1]), (2, 2, [2])]
)
def test_round_numbers(low, high, expected):
    assert round_numbers(low, high, 4) == expected


def test_numbers_are_short():
    assert [number(v) for v in (0, 0.5, 1234.0, 36_864, 2.5e9, 1e-5, 0.00025, -12_000)] == [
        *("0", "0.5", "1234", "36.86k", "2.5G", "1e-5", "0.00025", "-12k"),
    ]  # fmt: skip


# ---------------------------------------------------------------------------------------------- the page


class Checker(HTMLParser):
    """Tags that are closed in order, and what the page would load."""

    def __init__(self, html: str):
        super().__init__()
        self.open, self.loads = [], []
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        if tag not in ("meta", "br"):
            self.open.append(tag)
        self.loads += [value for name, value in attrs if name in ("src", "href")]

    def handle_startendtag(self, tag, attrs):
        pass

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def titles(runs) -> dict[str, list[str]]:
    """Chart -> its curves."""
    colours = {run.name: "#000000" for run in runs}
    return {drawn["title"]: [shown["name"] for shown in drawn["lines"]] for _, drawn in charts(runs, colours)}


def test_every_quantity_is_drawn_once(run):
    """Whatever is logged in the future has its chart too."""
    run.curves["plugin/something"] = run.curves["train/Accuracy"]
    drawn = titles([run])
    assert drawn["loss"] == ["CrossEntropyLoss"] and drawn["learning rates"] == drawn["norms of the gradients"] == ["llm", "vit"]
    assert (
        drawn["fill"] == ["token fill", "frame fill"]
        and drawn["shapes"] == ["all", "count"]
        and drawn["share of the device's peak"] == ["mfu"]
    )
    assert drawn["memory (MB)"] == ["Peak GPU Memory (MB)"] and drawn["since the run began"] == ["skipped steps"]
    assert drawn["seconds of a step, by what they go to"] == ["waiting for data", "the step", "saving", "evaluating", "the rest"]
    assert drawn["plugin/something"] == ["something"]


def test_marks_of_a_run(run):
    """The loss carries restarts, saves, and what went wrong; other charts only the first two."""
    drawn = {d["title"]: [(m["kind"], m["text"]) for m in d["marks"]] for _, d in charts([run], {"a": "#000000"})}
    placed = [("start", "start 2 from step 4"), *(("checkpoint", f"saved step {step}") for step in (4, 6, 10))]
    assert drawn["loss"] == [*placed, ("alarm", "skipped steps, step 6"), ("alarm", "CrossEntropyLoss: not finite")]
    assert drawn["learning rates"] == placed


def test_runs_beside_each_other(run, tmp_path):
    """Each quantity has a chart with a curve per run that logged it."""
    other = RunLog(write_run(tmp_path / "runs" / "b", [record(s, **{"data/token_fill": None}) for s in (1, 2)]), "b")
    other.read()
    del other.curves["data/frame_fill"]
    drawn = titles([run, other])
    assert drawn["loss"] == drawn["learning rates: llm"] == drawn["fill: token fill"] == ["a", "b"] and drawn["fill: frame fill"] == ["a"]
    assert drawn["seconds of a step, by what they go to: b"] == ["waiting for data", "the step", "the rest"]
    html = build_run_page([run, other])
    assert "a · b" in html and "a: start 2 from step 4" in html and Checker(html).open == []


def test_the_page_needs_nothing_else_and_says_what_happened(run):
    html = build_run_page([run])
    checked = Checker(html)
    assert checked.open == [] and checked.loads == [] and "http-equiv" not in html
    assert "<script>alert(1)" not in html and "&lt;script&gt;alert(1)" in html and "--x=&#39;&lt;b&gt;&#39;" in html
    for said in (
        "8 × NVIDIA H100 on n1",
        "commit 0123456789ab with changes",
        "torch 2.13.0",
        "runs/a/step4",
        "fresh weights",
        "at its end",
    ):
        assert said in html
    numbers = [json.loads(text) for text in re.findall(r'<script type="application/json">(.*?)</script>', html)]
    assert numbers and [[len(x) for x in steps] for steps in numbers[::2]] == [[len(y) for y in values] for values in numbers[1::2]]


def test_a_run_that_went_silent_says_so(tmp_path):
    log = RunLog(write_run(tmp_path / "a", [record(1, **{"throughput/unix_time": time.time() - 7200})]), "a")
    log.read()
    assert "silent for 2:00:" in build_run_page([log])
    log.last["throughput/unix_time"] = time.time()
    assert "0:00:18 left" in build_run_page([log])


# ---------------------------------------------------------------------------------------------- the command


def test_the_page_lies_in_the_folder_of_the_run(run, capsys):
    assert main([str(run.folder)]) == 0
    assert (run.folder / "run.html").read_text().startswith("<!doctype html>") and not list(run.folder.glob("*.tmp"))
    assert capsys.readouterr().out == f"wrote {run.folder / 'run.html'}: a up to step 10\n"


def test_live(tmp_path, monkeypatch, capsys):
    """Renewed while the run goes on, final once it has ended. Seen to fail when nothing new is taken for the end."""
    folder, pages = write_run(tmp_path / "a", [record(1)]), []

    def sleep(seconds: float) -> None:
        pages.append((folder / "run.html").read_text())
        if len(pages) == 2:  # a slow step: at the first look there is nothing new
            with open(folder / "metrics.jsonl", "a") as file:
                file.write(json.dumps(record(10)) + "\n")

    monkeypatch.setattr(run_command.time, "sleep", sleep)
    assert main([str(folder), "--live", "--every=5"]) == 0
    assert len(pages) == 3 and all('<meta http-equiv="refresh" content="5.0">' in page for page in pages)
    final = (folder / "run.html").read_text()
    assert "http-equiv" not in final and "at its end" in final
    assert capsys.readouterr().out.endswith("a up to step 10\n")


def test_live_can_be_interrupted(run, monkeypatch):
    def interrupted(seconds: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(run_command.time, "sleep", interrupted)
    assert main([str(run.folder), "--live"]) == 0
    assert "http-equiv" not in (run.folder / "run.html").read_text()


def test_mistakes(tmp_path, run):
    with pytest.raises(OLMoDataError, match="metrics.jsonl: No such file or directory; give the save folder of a training run"):
        main([str(tmp_path)])
    with pytest.raises(OLMoCliError, match="--names: 1 runs need as many different names, not x, y"):
        parse([str(run.folder), "--names", "x", "y"])
    with pytest.raises(OLMoCliError, match="--every=0: must be at least 1 second"):
        parse([str(run.folder), "--live", "--every=0"])
    with pytest.raises(OLMoEnvironmentError, match="the name must end in .html"):
        parse([str(run.folder), "--output=page.png"])
