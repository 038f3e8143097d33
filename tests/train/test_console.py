"""The log line and the progress bar."""

import contextlib
import fcntl
import io
import itertools
import logging
import os
import re
import struct
import sys
import termios
import threading
from types import SimpleNamespace

import pytest
from rich.console import Console

from olmo.train.callbacks.console import ConsoleLogger, clock, format_line, short
from tests.train.command import records, train

LINE = re.compile(
    r"step +(?P<step>\d+)/(?P<last>\d+) \| loss +(?P<loss>[\d.]+) \| acc (?P<acc>[\d.]+) \| kept (?P<kept>[\d.]+)"
    r" \| tok/s +(?P<tokens>[\d.]+[kMG]?) \| frames/s +(?P<frames>[\d.]+[kMG]?) \| wait +(?P<wait>\d+)%"
    r" \| +(?P<seconds>[\d.]+) s \| eta +(?P<eta>[\d:]+)"
)


def metrics(rate: float = 1234.0, kept: float = 0.5, wait: float = 0.25, seconds: float = 1.5, eta: float = 3661.0) -> dict[str, float]:
    return {
        "train/CrossEntropyLoss": 2.0,
        "train/Accuracy": 0.5,
        "train/kept_fraction": kept,
        "throughput/device/tokens_per_second": rate,
        "throughput/device/frames_per_second": rate / 50,
        "throughput/data_wait_fraction": wait,
        "throughput/seconds_per_step": seconds,
        "throughput/eta_seconds": eta,
    }


def test_the_line_says_everything():
    """Seen to fail with the fraction that is removed in place of the kept one, and with tokens and frames exchanged."""
    found = LINE.fullmatch(format_line(7, 6250, 1.25, 0.5, metrics(kept=0.375)))
    assert found is not None
    assert found.groupdict() == dict(
        step="7", last="6250", loss="1.2500", acc="0.500", kept="0.375", tokens="1.2k", frames="24.7", wait="25", seconds="1.500",
        eta="1:01:01",
    )  # fmt: skip


def test_lines_have_one_width():
    """Whatever the numbers, from a first slow step to a fast machine. Seen to fail without the width of the loss, of the
    step, of the rates and of the time left."""
    values = itertools.product((1, 99, 6250), (0.0, 12.5, 999.0), (0.3, 999.9, 56_789.0, 999_960.0, 9.9e9), (0.0, 1.0), (0, 86_399, 1e6))
    lines = [format_line(s, 6250, loss, 1.0, metrics(rate, wait, wait, 100 * wait, eta)) for s, loss, rate, wait, eta in values]
    assert {len(line) for line in lines} == {len(lines[0])}
    assert len({tuple(i for i, c in enumerate(line) if c == "|") for line in lines}) == 1


def test_numbers_and_times_are_short():
    """Seen to fail as `1000.0k`, and as `1 day, 6:00:00`."""
    assert [short(v) for v in (0.0, 999.9, 1000.0, 999_940.0, 999_960.0, 2.5e9)] == ["0.0", "999.9", "1.0k", "999.9k", "1.0M", "2.5G"]
    assert [clock(v) for v in (0.4, 61, 3661, 30 * 3600)] == ["0:00:00", "0:01:01", "1:01:01", "30:00:00"]


def run(console: Console, main: bool = True) -> ConsoleLogger:
    """Three steps of a run of ten, without an end."""
    logger = ConsoleLogger(2, console)
    world, state = SimpleNamespace(is_main=main), SimpleNamespace(step=0)
    trainer = SimpleNamespace(world=world, state=state, last_step=10, steps_done=0)
    logger.on_start(trainer)
    for step in (1, 2, 3):
        trainer.state.step = trainer.steps_done = step
        logger.on_step(trainer, None, metrics() | {"train/CrossEntropyLoss": float(step)})
    return logger


@pytest.mark.parametrize("terminal", [True, False])
def test_the_bar_is_for_terminals(terminal, caplog):
    """Seen to fail when the console is not asked whether it is a terminal."""
    out = io.StringIO()
    console = Console(file=out, force_terminal=terminal, width=100)
    with caplog.at_level(logging.INFO, logger="olmo"):
        logger = run(console)
        assert (logger.progress is not None) is terminal
        logger.on_end(None, "finished")
    assert ("training" in out.getvalue() and "3/10" in out.getvalue() and "1:01:01 left" in out.getvalue()) is terminal
    assert logger.progress is None
    losses = [LINE.fullmatch(m)["loss"] for m in caplog.messages]
    assert losses == ["1.0000", "1.5000"], "the first step, and the mean over an interval of two"


def test_other_ranks_are_silent(caplog):
    """Seen to fail when rank 0 is not asked for."""
    out = io.StringIO()
    with caplog.at_level(logging.INFO, logger="olmo"):
        assert run(Console(file=out, force_terminal=True), main=False).progress is None
    assert not out.getvalue() and not caplog.messages


def test_a_run_prints_its_lines_without_a_bar(shapes, tmp_path, capsys):
    """Here the output is a file. Seen to fail with an interval of two steps in place of the one that is set."""
    assert train(tmp_path, "--max_duration=4") == 0
    out = capsys.readouterr().out
    lines = [found for line in out.splitlines() if (found := LINE.fullmatch(line))]
    assert [int(line["step"]) for line in lines] == [1, 2, 3, 4] and len({len(line[0]) for line in lines}) == 1
    assert [f"{r['train/kept_fraction']:.3f}" for r in records(tmp_path)] == [line["kept"] for line in lines] == ["0.500"] * 4
    assert "training " not in out.replace("while training waited", "") and "\x1b" not in out


def test_a_run_on_a_real_terminal(shapes, tmp_path, monkeypatch):
    """The output is a pseudo-terminal: the bar is drawn over and over and gone at the end, and every log line stays whole.

    Seen to fail when log lines go past the console of the bar (they then stand behind a half-drawn bar).
    """
    main, other = os.openpty()
    fcntl.ioctl(other, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 200, 0, 0))
    seen = bytearray()

    def read() -> None:
        with contextlib.suppress(OSError):  # how Linux says that nobody writes any more
            while part := os.read(main, 65536):
                seen.extend(part)

    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    for name, value in {"TERM": "xterm-256color", "COLUMNS": "", "LINES": ""}.items():
        monkeypatch.setenv(name, value) if value else monkeypatch.delenv(name, raising=False)
    with open(other, "w") as terminal:
        monkeypatch.setattr(sys, "stdout", terminal)
        assert train(tmp_path, "--max_duration=3", "--save_num_checkpoints_to_keep=0") == 0
    reader.join(10)
    os.close(main)
    text = seen.decode()
    assert "\x1b[?25l" in text and "\x1b[?25h" in text, "the cursor is hidden while the bar is there, and comes back"
    assert re.search(r"training .*1/3", text) and re.search(r"training .*left", text)
    lines = [re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", line).strip("\r") for line in text.splitlines()]
    found = [match for line in lines if (match := LINE.fullmatch(line.rpartition("\r")[2].strip()))]
    assert [match["step"] for match in found] == ["1", "2", "3"]
