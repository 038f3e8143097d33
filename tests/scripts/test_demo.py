"""The demo: what is accepted, what is shown, and (slow) the whole of it in small."""

import importlib.util
import json
import os
import subprocess
import sys

import pytest

from olmo.launch import run_command


def load_script(repo, name):
    """The script as a module; scripts find each other as they do when one of them is run."""
    if str(repo / "scripts") not in sys.path:
        sys.path.append(str(repo / "scripts"))
    spec = importlib.util.spec_from_file_location(name, repo / "scripts" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def demo(repo):
    return load_script(repo, "demo")


def scores(**lows: float) -> dict[str, dict]:
    table = {name: {"low": low, "value": low + 0.02, "chance": 0.25} for name, low in lows.items()}
    return table | {
        n: {"low": 0.0, "value": sum(s["value"] for s in table.values()) / len(table), "chance": 0.25} for n in ("all", "average")
    }


def test_accepted_when_both_learned_and_pruning_costs_little(demo):
    assert demo.acceptance_problems(scores(a=0.8, b=0.5), scores(a=0.75, b=0.5)) == []


def test_not_accepted(demo):
    """Seen to fail when the value instead of the lower end is compared with chance."""
    problems = demo.acceptance_problems(scores(a=0.8, b=0.499), scores(a=0.3, b=0.9))
    assert [p.split(":")[0] for p in problems[:2]] == ["unpruned, b", "STTS, a"] and len(problems) == 2
    (problem,) = demo.acceptance_problems(scores(a=0.9), scores(a=0.84))
    assert "costs 6.0 points" in problem
    assert demo.acceptance_problems(scores(a=0.84), scores(a=0.9)) == []


@pytest.mark.parametrize(
    ("words", "problems", "said"),
    [
        ([], [], ["accepted: both models learned every question type, and pruning costs little"]),
        ([], ["a", "b"], ["not accepted: a", "not accepted: b", "not accepted"]),
        (["--fast"], ["a"], ["no verdict: with --fast nothing is learned"]),
        (["--fast", "--check"], ["a"], ["not accepted: a", "not accepted"]),
    ],
)
def test_the_verdict_is_told_with_and_without_check(demo, tmp_path, words, problems, said):
    made = demo.Demo(demo.build_parser().parse_args([f"--out={tmp_path}", *words]), None)
    made.problems = problems
    assert made.verdict() == said


def test_sample_videos_are_those_with_most_questions_and_one_other(demo):
    by_video = {"a": [{}] * 2, "b": [{}] * 6, "c": [{}] * 6, "d": [{}] * 3, **{f"e{i}": [{}] * 6 for i in range(9)}}
    assert demo.choose_videos(by_video) == ["a", "b", "c", "e0", "e1", "e2"]
    assert demo.choose_videos({"a": [{}]}) == ["a"]
    few_rich = {"a": [{}] * 6, "b": [{}] * 3, "c": [{}] * 4, "d": [{}] * 4, "e": [{}] * 5, "f": [{}] * 3, "g": [{}] * 4}
    assert demo.choose_videos(few_rich) == ["a", "b", "c", "d", "e", "g"]


@pytest.mark.parametrize("words", [["--steps=0"], ["--num_test=x"], ["--stepz=4"], ["more"]])
def test_mistakes_are_one_sentence(demo, words, capsys):
    assert run_command(demo.main, words) == 1
    err = capsys.readouterr().err
    assert err.startswith("error: ") and err.count("\n") == 1


def test_both_models_go_on_from_one_start(demo, tmp_path):
    """Fails (seen) when the start is not part of what a training depends on: a changed start would be reported as trained already."""
    args = demo.build_parser().parse_args([f"--out={tmp_path}", "--steps=7"])
    made = demo.Demo(args, None)
    start, unpruned, stts = (made.train_command(m) for m in (demo.START, *demo.MODELS))
    off, begin = "--model.vision_backbone.vit.prune=False", f"--initial_model_checkpoint={tmp_path / 'start'}"
    assert off in start and begin not in start
    assert off in unpruned and begin in unpruned
    assert off not in stts and begin in stts
    seeds = [next(w for w in c if w.startswith("--data.seed=")) for c in (start, unpruned, stts)]
    assert seeds[0] != seeds[1] == seeds[2], "the second half must not repeat the order of the first"
    before, after = made.training(demo.START, None), made.training(demo.MODELS[1], made.training(demo.START, None))
    assert after.recipe() == made.training(demo.MODELS[1], before).recipe()
    before.command.append("--optimizer.llm_learning_rate=1")
    assert after.recipe() != made.training(demo.MODELS[1], before).recipe()


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_whole_demo_in_small(repo, tmp_path):
    environment = os.environ | {"MOLMO_DATA_DIR": str(tmp_path / "data"), "PYTHONPATH": str(repo)}
    words = [sys.executable, str(repo / "scripts" / "demo.py"), "--fast", f"--out={tmp_path / 'demo'}", "--steps=4"]
    first = subprocess.run(words, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=420)
    assert first.returncode == 0, first.stdout + first.stderr
    assert first.stdout.strip().endswith("report.html")
    page = (tmp_path / "demo" / "report.html").read_text()
    assert page.count("<figure>") == 6 and str(repo) not in page
    assert all("no verdict: with --fast nothing is learned" in text for text in (page, first.stdout))
    log = (tmp_path / "demo" / "stts" / "train.log").read_text()
    assert "temporal_token_scorer" in log, "the log names what is initialised afresh"
    summary = json.loads((tmp_path / "demo" / "summary.json").read_text())
    assert set(summary["seconds"]) == {"make videos", "train", "evaluate", "report", "total"} and summary["accepted"] is False
    again = subprocess.run([*words, "--check"], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=420)
    assert again.returncode == 1 and again.stdout.count("trained already") == 3 and "not accepted" in again.stdout
