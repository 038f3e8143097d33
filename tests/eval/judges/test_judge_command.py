"""The command over result folders: offline by default, resumed without repeating, stopped by limits, killed in the middle."""

import json
import re
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from functools import partial

import pytest

from olmo.eval.judges import JUDGE_METRICS, TASK_JUDGES
from olmo.eval.judges.asker import Patience
from olmo.eval.judges.command import LEFT_OVER, STOPPED, main, parse
from olmo.eval.judges.merge import JudgementFile, with_judgements
from olmo.eval.metrics import METRICS
from olmo.eval.metrics.judged_answers import judged_correct
from olmo.eval.task_table import TASKS
from olmo.exceptions import OLMoCliError, OLMoDataError, OLMoEnvironmentError
from olmo.launch import run_command
from tests.eval.judges.judge_server import Fault, serving
from tests.eval.judges.records import caption_record, compass_record, judgements, open_record, result_folder


@pytest.fixture
def folder(tmp_path):
    """Six free answers, every third one wrong."""
    records = [open_record(n, "a tree" if n % 3 == 2 else "It is a red car.") for n in range(6)]
    return result_folder(tmp_path / "results", records)


@pytest.fixture
def judge(server, monkeypatch):
    """The command against the server, in this process, without long pauses."""
    monkeypatch.setattr("olmo.eval.judges.asker.Patience", lambda attempts: Patience(attempts, pause=0.01))

    def run(folder, *words):
        words = [str(folder), "--judge=open_answer", "--model=m", f"--base_url={server.url}", "--timeout=0.5", *words]
        return main(words)

    return run


def test_nothing_is_sent_unless_a_server_is_named(folder, capsys, monkeypatch):
    """Neither without an address nor in a dry run. Seen to fail with the address of OpenAI as the default."""

    def refuse(*args):
        raise AssertionError("something was sent")

    monkeypatch.setattr("olmo.eval.judges.endpoint.Endpoint.send", refuse)
    monkeypatch.setenv("OPENAI_API_KEY", "k")
    monkeypatch.setenv("OPENAI_BASE_URL", "http://192.0.2.1/v1")
    before = sorted(folder.iterdir())
    for words in (
        [],
        ["--model=m"],
        ["--model=m", "--base_url=http://192.0.2.1/v1", "--dry_run", "--price_prompt=1000", "--price_reply=0"],
    ):
        assert main([str(folder), "--judge=open_answer", *words]) == 0
        said = capsys.readouterr().out
        assert (
            "6 answers to judge" in said
            and re.search(r"about 6 requests with \d{4} tokens of prompts and 18 of replies", said)
            and "nothing was sent" in said
        )
    assert "USD" in said
    assert sorted(folder.iterdir()) == before
    monkeypatch.setenv("OLMO_JUDGE_BASE_URL", "http://192.0.2.1/v1")
    with pytest.raises(OLMoCliError, match="needs --model"):
        main([str(folder), "--judge=open_answer"])


def test_judging(folder, judge, server, capsys):
    assert judge(folder) == 0
    lines = judgements(folder)
    assert {k: v["judgement"]["correct"] for k, v in lines.items()} == {f"q{n}": n % 3 != 2 for n in range(6)}
    assert all((x["judge"], x["model"], x["unparsed"], len(x["prompt_sha"])) == ("open_answer", "m", 0, 64) for x in lines.values())
    metrics = json.loads((folder / "metrics.json").read_text())
    assert metrics["judge"] | {"date": 0} == {"judge": "open_answer", "model": "m", "judged": 6, "unparsed": 0, "date": 0}
    assert metrics["metric"] == "judged_answer" and metrics["metrics"]["all"] == pytest.approx(4 / 6)
    assert metrics["scores"]["all"]["n"] == metrics["questions"] == 6
    assert "sent: 6 requests, 600 tokens of prompts, 60 of replies" in capsys.readouterr().out


def test_started_again_it_asks_for_what_is_missing(folder, judge, server):
    """Another answer, another model or other parameters are other judgements. Seen to fail with the id alone deciding."""
    judge(folder)
    assert judge(folder) == 0 and len(server.asked) == 6
    lines = (folder / "judgements.jsonl").read_text().splitlines(keepends=True)
    (folder / "judgements.jsonl").write_text("".join(lines[:4]) + lines[4][:20])
    assert judge(folder) == 0
    assert len(judgements(folder)) == 6 and len(server.asked) == 6, "the replies were in the cache"
    records = (folder / "predictions.jsonl").read_text().replace("a tree", "a bush", 1)
    (folder / "predictions.jsonl").write_text(records)
    judge(folder)
    assert len(server.asked) == 7
    judge(folder, '--parameters={"temperature": 1}')
    assert len(server.asked) == 13


def test_one_cache_for_several_folders(folder, judge, server, tmp_path):
    other = result_folder(tmp_path / "other", [open_record(n, "It is a red car.") for n in range(2)])
    judge(folder, f"--cache={tmp_path / 'shared'}")
    assert judge(other, f"--cache={tmp_path / 'shared'}") == 0
    assert len(server.asked) == 6 and len(judgements(other)) == 2 and not (other / "judge_cache").exists()


def test_a_limit_stops_it_with_what_is_done_saved(folder, judge, server, capsys):
    assert judge(folder, "--max_requests=4", "--concurrency=1") == STOPPED
    assert len(judgements(folder)) == len(server.asked) == 4
    assert "stopped: the next request could exceed --max_requests" in capsys.readouterr().out
    assert judge(folder) == 0
    assert len(judgements(folder)) == len(server.asked) == 6


def test_nonsense_is_stored_as_unparsed_and_counted(folder, judge, server, capsys):
    server.always = lambda prompt: Fault(text="It depends.") if "number 3?" in prompt or "cannot be read" in prompt else None
    assert judge(folder) == 0
    line = judgements(folder)["q3"]
    assert line["judgement"] == {"correct": None} and line["unparsed"] == 1
    scores = json.loads((folder / "metrics.json").read_text())["scores"]
    assert scores["all"]["correct"] == 3 and scores["all"]["unparsed"] == 1
    assert len(server.asked) == 7 and "1 replies could not be read" in capsys.readouterr().out
    assert judge(folder) == 0 and len(server.asked) == 7, "it is judged, as far as it can be"


def test_an_answer_that_cannot_be_judged_leaves_the_others_alone(folder, judge, server, capsys):
    server.always = lambda prompt: Fault(400, body=b'{"error": {"message": "too long"}}') if "number 3?" in prompt else None
    assert judge(folder) == LEFT_OVER
    assert set(judgements(folder)) == {"q0", "q1", "q2", "q4", "q5"}
    assert "q3 has no judgement" in capsys.readouterr().out
    server.always = lambda prompt: None
    assert judge(folder) == 0
    assert len(judgements(folder)) == 6 and len(server.asked) == 7


def test_a_server_that_is_gone_ends_it(folder, judge, server):
    """After three answers without a reply, not after all."""
    server.always = lambda prompt: Fault(500, body=b"broken")
    with pytest.raises(OLMoEnvironmentError, match="no reply to 3 answers in a row.*500: broken"):
        judge(folder, "--concurrency=1", "--attempts=2")
    assert 6 <= len(server.asked) <= 8  # the next one may be on its way already


def test_a_wrong_key_ends_it_at_once(folder, judge, server):
    server.faults = [Fault(401, body=b"who are you")] * 9
    with pytest.raises(OLMoEnvironmentError, match="401: who are you; is the key right"):
        judge(folder, "--concurrency=1")
    assert len(server.asked) <= 2  # the next one may be on its way already


def test_the_judge_by_the_task(server, tmp_path, capsys):
    """TempCompass: only what its rules leave open is asked; captions; and a task without a judge says so."""
    choice = {"question": "?\nA. up\nB. down", "answer": "A. up"}
    records = [compass_record(n, "multi-choice", text, **choice) for n, text in enumerate(["A", "B.", "it is A. up"])]
    compass = result_folder(tmp_path / "compass", records, "temp_compass_multi-choice:validation")
    caption = caption_record(1, "A car is red. A man runs", [("A car is red", "Colour")], "A car is red.")
    captions = result_folder(tmp_path / "captions", [caption], "molmo2_captions_eval:test")
    assert main([str(compass), str(captions), "--model=m", f"--base_url={server.url}"]) == 0
    said = capsys.readouterr().out
    assert "1 answers to judge; 0 are judged by m already; 2 need no judge" in said
    assert {k: v["judgement"] for k, v in judgements(compass).items()} == {"q2": {"correct": True}}
    assert [s["stated"] for s in judgements(captions)["q1"]["judgement"]["statements"]] == [True, True, False]
    assert with_judgements(records, compass)[2]["judgement"] == {"correct": True}
    assert "judgement" not in with_judgements(records, compass)[0]
    shapes = result_folder(tmp_path / "shapes", [open_record(1)])
    with pytest.raises(OLMoCliError, match="task moving_shapes:test is scored without one.*--judge"):
        main([str(shapes)])


def test_every_judge_has_a_metric_and_every_judged_task_a_judge():
    assert set(JUDGE_METRICS.values()) <= set(METRICS)
    assert all(TASKS[name].metric == JUDGE_METRICS[judge] for name, judge in TASK_JUDGES.items())
    assert {name for name, task in TASKS.items() if task.judge} <= set(TASK_JUDGES)


def test_the_scores_of_what_is_not_judged_yet(folder, judge):
    """Wrong and unread, not left out."""
    judge(folder, "--max_requests=2", "--concurrency=1")
    scores = json.loads((folder / "metrics.json").read_text())["scores"]
    assert (scores["all"]["n"], scores["all"]["correct"], scores["all"]["unparsed"]) == (6, 2, 4)
    with pytest.raises(OLMoDataError, match="'judgement' should hold 'correct'"):
        judged_correct(open_record(1, judgement={"correct": "yes"}))


def test_judgements_of_two_models_are_not_mixed(folder, judge):
    judge(folder)
    judge(folder, "--model=n", "--max_requests=3", "--concurrency=1")
    records = [json.loads(line) for line in (folder / "predictions.jsonl").read_text().splitlines()]
    assert sum("judgement" in r for r in with_judgements(records, folder, model="n")) == 3
    assert sum("judgement" in r for r in with_judgements(records, folder, model="m")) == 6
    with pytest.raises(OLMoDataError, match="several sources .open_answer by m; open_answer by n."):
        with_judgements(records, folder)


def test_two_commands_on_one_folder(folder, judge, server, tmp_path):
    """The second waits, and asks for nothing that the first has done. Seen to fail with the plan of before the wait."""
    judge(folder)
    file = folder / "judgements.jsonl"
    lines = file.read_text()
    file.write_text("")
    first = JudgementFile(folder)
    second = threading.Thread(target=judge, args=(folder, f"--cache={tmp_path / 'empty'}"))
    second.start()
    time.sleep(0.2)
    assert second.is_alive()
    file.write_text(lines)
    first.close()
    second.join(timeout=10)
    assert len(server.asked) == 6 and file.read_text() == lines


MISTAKES = {
    "--base_url=api.openai.com --model=m": "must be an address such as",
    "--max_cost=1": "needs the prices",
    "--max_requests=0": "must be above 0",
    "--parameters=[1]": "must be a JSON object",
    '--parameters={"stream":true}': "'stream' cannot be set here",
    '--parameters={"max_tokens":"9"}': "must be a whole number above 0",
    '--parameters={"max_tokens":null} --max_tokens_total=9': "needs a longest reply",
    "--modell=m": "unknown option '--modell'",
    "--judge=nobody": "invalid choice",
}


@pytest.mark.parametrize(("words", "told"), MISTAKES.items(), ids=MISTAKES)
def test_mistakes(words, told):
    with pytest.raises(OLMoCliError, match=told):
        parse(["folder", *words.split()])


def test_files_that_are_wrong(tmp_path, folder):
    with pytest.raises(OLMoDataError, match="is no result folder: there is no predictions.jsonl"):
        main([str(tmp_path), "--judge=open_answer"])
    (folder / "judgements.jsonl").write_text('{"example_id": "q1"}\n')
    with pytest.raises(OLMoDataError, match="judgements.jsonl is not a file of judgements"):
        main([str(folder), "--judge=open_answer", "--model=m"])
    (folder / "predictions.jsonl").write_text('{"example_id": "q1"}\n')
    assert run_command(main, [str(folder), "--judge=open_answer"]) == 1


def start(folder, url, judge, *words):
    command = [sys.executable, "scripts/judge.py", str(folder), f"--judge={judge}", "--model=m", f"--base_url={url}", *words]
    # A shell starts background jobs, and so perhaps these tests, with Ctrl-C ignored; the command should be as on a terminal.
    heed = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, preexec_fn=heed)


def wait_until(condition):
    end = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_killed_and_started_again(tmp_path, repo, monkeypatch):
    """kill -9 in the middle of captions, each of three requests: none is repeated but those that were on their way, and what was judged
    is saved. Seen to fail without the cache, and with judgements written at the end."""
    monkeypatch.chdir(repo)
    records = [caption_record(n, f"A car {n} is red", [(f"car {n}", "Colour")], f"car {n}.") for n in range(12)]
    folder = result_folder(tmp_path / "results", records)
    with serving() as server:
        server.delay = 0.05
        process = start(folder, server.url, "captions", "--concurrency=3")
        wait_until(lambda: len(server.asked) >= 17)  # five are done, or more, and three are half done
        process.send_signal(signal.SIGKILL)
        process.communicate()
        assert 17 <= len(server.asked) < 36
        assert 3 <= len(judgements(folder)) < 12
        server.delay = 0.0
        again = start(folder, server.url, "captions")
        out, _ = again.communicate(timeout=30)
        assert again.returncode == 0, out
        asked = Counter(server.prompts)
        assert len(asked) == 36 and max(asked.values()) <= 2
        assert sum(asked.values()) - 36 <= 3
    assert len(judgements(folder)) == 12


def test_interrupted(tmp_path, repo, monkeypatch):
    """Ctrl-C: those on their way are waited for and saved, no other is sent. Seen to fail with judgements that come after it dropped."""
    monkeypatch.chdir(repo)
    folder = result_folder(tmp_path / "results", [open_record(n) for n in range(24)])
    with serving() as server:
        server.delay = 0.1
        process = start(folder, server.url, "open_answer", "--concurrency=3")
        wait_until(lambda: len(server.asked) >= 6)
        process.send_signal(signal.SIGINT)
        out, _ = process.communicate(timeout=20)
        assert process.returncode == 130, out
        assert 6 <= len(judgements(folder)) == len(server.asked) <= 10
