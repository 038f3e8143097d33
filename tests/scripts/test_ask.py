"""The command that asks: one sentence for every mistake, and an answer with its cost."""

import pytest

from olmo.launch import run_command
from tests.inference.tiny import videos, write_checkpoint
from tests.scripts.test_demo import load_script


@pytest.fixture(scope="module")
def ask(repo):
    module = load_script(repo, "ask")
    return lambda *words: run_command(module.main, [str(w) for w in words])


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return write_checkpoint(tmp_path_factory.mktemp("run"))


@pytest.fixture(scope="module")
def video(tmp_path_factory):
    return videos(tmp_path_factory.mktemp("videos"), 1).get(0, None)["video"]


@pytest.mark.parametrize("suffix", ["html", "mp4"])
def test_answer_and_cost(ask, checkpoint, video, tmp_path, capsys, suffix):
    shown = tmp_path / f"kept.{suffix}"
    assert ask(video, "Which way?", "--checkpoint", checkpoint, "--max_new_tokens=3", "--show", shown) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "before pruning" in lines[1] and "8 frames" in lines[1] and lines[2].startswith("seconds  video ") and "total" in lines[2]
    assert shown.stat().st_size > 1000


def test_overrides_reach_the_model(ask, checkpoint, video, capsys):
    assert ask(video, "Why?", "--checkpoint", checkpoint, "--max_new_tokens=1", "--model.vision_backbone.vit.topk", "0.0") == 0
    assert "(0 % fewer)" in capsys.readouterr().out


def test_words_with_spaces_before_the_positionals(repo):
    """A value after a key of the model is never taken for the video."""
    words = ["--model.vision_backbone.vit.topk", "0.0", "--checkpoint", "c", __file__, "Why?"]
    args, overrides = load_script(repo, "ask").parse(words)
    assert (args.video, args.question, args.checkpoint, overrides) == (__file__, "Why?", "c", ["vision_backbone.vit.topk=0.0"])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "name a video file and a question"),
        (["Which way does it go?"], "there is a question ('Which way does it go?') but no video"),
        ([__file__], "but no question; write it behind the video"),
        (["none.mp4", "Why?"], "there is no video file none.mp4"),
        ([__file__, "Why?"], "the file cannot be decoded"),
        ([__file__, "Why?", "--show=kept.gif"], "must end in .html or .mp4"),
        ([__file__, "Why?", "--max_new_tokens=0"], "must be at least 1"),
        ([__file__, "Why?", "--topk=0.3"], "unknown option '--topk'"),
    ],
)
def test_mistakes_are_one_sentence(ask, checkpoint, capsys, words, message):
    assert ask(*words, "--checkpoint", checkpoint) == 1
    err = capsys.readouterr().err
    assert message in err and err.count("\n") == 1


def test_debug_shows_the_traceback(ask, checkpoint, capsys):
    assert ask("none.mp4", "Why?", "--checkpoint", checkpoint, "--debug") == 1
    err = capsys.readouterr().err
    assert "Traceback" in err and err.splitlines()[-1].startswith("error: there is no video file none.mp4")


def test_checkpoint_is_needed(ask, capsys):
    assert ask("v.mp4", "Why?") == 1
    assert "--checkpoint" in capsys.readouterr().err
