"""Measuring a restart measures a restart: of the tiny model, with a run that is really continued."""

import re

import pytest

from scripts.measure_restart import STAGES, main


@pytest.mark.slow
def test_a_start_is_measured_in_its_stages(tmp_path, capsys):
    """Seen to fail when the measured start saves, because the next one is then at its end and has no first step."""
    assert main(["--parameters=0", "--starts=2", f"--folder={tmp_path}"]) == 0
    size, *lines = capsys.readouterr().out.splitlines()
    assert re.fullmatch(r"checkpoint of [\d.]+ MB", size)
    for line, name in zip(lines, ("by the clock", "on a processor"), strict=True):
        whole, stages = re.fullmatch(rf"{name} +([\d.]+) s: (.*)", line).groups()
        seconds = {stage: float(value) for stage, value in (part.split(" ") for part in stages.split(", "))}
        assert tuple(seconds) == STAGES and min(seconds.values()) >= 0
        assert sum(seconds.values()) == pytest.approx(float(whole), abs=0.1)
    assert not list(tmp_path.iterdir())
