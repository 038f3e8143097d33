"""How a rank that failed leaves: its sentence is where torchrun looks, once, and an echo of another's end waits."""

import json

import pytest

from olmo import launch, leaving
from olmo.exceptions import OLMoDataError, OLMoEnvironmentError

ECHO = "[../third_party/gloo/gloo/transport/tcp/pair.cc:553] Connection closed by peer [127.0.0.1]:5251"


class Left(BaseException):
    """In place of the end of this process."""


@pytest.fixture
def rank_one(monkeypatch, tmp_path):
    """This process as rank 1 of 2; returns the file that torchrun reads."""

    def leave(status):
        raise Left(status)

    for key, value in {"RANK": "1", "WORLD_SIZE": "2", "TORCHELASTIC_ERROR_FILE": str(tmp_path / "error.json")}.items():
        monkeypatch.setenv(key, value)
    monkeypatch.setattr(launch, "leave", leave)
    monkeypatch.setattr(launch, "ECHO_DELAY", 0.0)
    return tmp_path / "error.json"


def failing(error: BaseException) -> BaseException:
    def main(argv):
        raise error

    with pytest.raises(Left) as left:
        launch.run_command(main, [])
    return left.value


def told(file) -> str:
    return json.loads(file.read_text())["message"]["message"]


@pytest.mark.parametrize(
    ("error", "cause", "last_line"),
    [
        (OLMoDataError("a.mp4 is\nbroken"), "a.mp4 is broken", "error (rank 1): a.mp4 is broken"),
        (ZeroDivisionError("by zero"), "ZeroDivisionError: by zero", "ZeroDivisionError: by zero"),
        (RuntimeError(ECHO), f"another rank is gone: {ECHO}", f"error (rank 1): another rank is gone: {ECHO}"),
    ],
)
def test_fault_in_a_rank_is_told_and_ends_the_process(rank_one, capsys, error, cause, last_line):
    """Seen to fail (no file) without `note_cause`, and (returns) without `leave`."""
    assert failing(error).args == (1,)
    assert told(rank_one) == cause
    assert capsys.readouterr().err.splitlines()[-1] == last_line


def test_the_older_cause_stays(rank_one):
    leaving.note_cause("first")
    leaving.note_cause("second")
    assert told(rank_one) == "first"


def test_a_cause_that_cannot_be_noted_is_no_trouble(monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("TORCHELASTIC_ERROR_FILE", str(tmp_path / "none/error.json"))
    leaving.note_cause("first")
    assert "torchrun will not know" in capsys.readouterr().err


def test_echoes():
    """Errors of collectives about connections, also behind an error of ours; not every error that has one of the words."""
    assert leaving.is_echo(RuntimeError(ECHO))
    wrapped = OLMoEnvironmentError("cannot write")
    wrapped.__cause__ = RuntimeError(ECHO)
    assert leaving.is_echo(wrapped)
    assert not leaving.is_echo(RuntimeError("CUDA error: invalid argument"))
    assert not leaving.is_echo(RuntimeError("NCCL error: unhandled cuda error"))
    assert not leaving.is_echo(ConnectionResetError("Connection reset by peer"))


def test_alone_nothing_changes():
    """Seen to fail when the status of a single process is its end."""

    def main(argv):
        raise ZeroDivisionError("by zero")

    with pytest.raises(ZeroDivisionError):
        launch.run_command(main, [])
    assert launch.run_command(lambda argv: 3, []) == 3
