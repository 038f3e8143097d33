"""The two profilers: which steps they see, what they leave, and that a run too short for them says so."""

import gzip
import json
import pstats
from types import SimpleNamespace

import pytest
import torch

from olmo.exceptions import OLMoEnvironmentError
from olmo.train.callbacks.profiler import PythonProfiler, TorchProfiler
from olmo.train.callbacks.standard import standard_callbacks
from olmo.train.duration import RunLength
from tests.train.ranks import ALONE
from tests.train.test_config import config
from tests.train.test_trainer import Step, make


def work(step: int) -> None:
    """A product whose shape tells the step."""
    torch.ones(step, 3) @ torch.ones(3, 2)
    if step in (4, 5, 8, 9):
        globals()[f"python_of_{step}"]()


def python_of_4():
    pass


def python_of_5():
    pass


def python_of_8():
    pass


def python_of_9():
    pass


def run(callback, steps: int, during=work) -> None:
    assert make(RunLength(steps=steps), Step(during), [callback]).fit() == "finished"


def test_torch_profiling(tmp_path, caplog):
    """Steps 7 to 9 are recorded, and only they. Seen to fail when the warm-up is recorded too."""
    with caplog.at_level("INFO"):
        run(TorchProfiler(str(tmp_path)), 12)
    assert [p.name for p in tmp_path.rglob("*") if p.is_file()] == ["9.chrome_trace.json.gz"]
    with gzip.open(tmp_path / "profiler/9.chrome_trace.json.gz") as file:
        names = [e["name"] for e in json.load(file)["traceEvents"] if "name" in e]
    assert names.count("aten::mm") == 3 and sum(n.startswith("ProfilerStep#") for n in names) == 3
    (message,) = caplog.messages
    assert "aten::mm" in message and "by their own time on the CPU" in message and str(tmp_path / "profiler/9.chrome") in message


def test_python_profiling(tmp_path, caplog):
    """Steps 5 to 8. Seen to fail when step 4 is among them."""
    with caplog.at_level("INFO"):
        run(PythonProfiler(str(tmp_path)), 12)
    found = {name for _, _, name in pstats.Stats(str(tmp_path / "profiler/8.prof")).stats}
    assert {"python_of_5", "python_of_8"} <= found and not {"python_of_4", "python_of_9"} & found
    (message,) = caplog.messages
    assert "steps 5 to 8 of this start" in message and "tottime" in message


@pytest.mark.parametrize(("kind", "needed"), [(TorchProfiler, 9), (PythonProfiler, 8)])
def test_a_run_that_is_too_short(kind, needed, tmp_path, caplog):
    caplog.set_level("WARNING")
    run(kind(str(tmp_path)), needed - 1)
    (message,) = caplog.messages
    assert f"it needs {needed} steps in one start" in message and not list(tmp_path.rglob("*"))
    caplog.clear()
    run(kind(str(tmp_path)), needed)
    assert len([p for p in tmp_path.rglob("*") if p.is_file()]) == 1 and not caplog.messages


def test_profilers_are_off_after_a_fault(tmp_path):
    """A run breaks while both record. Seen to fail with either left on."""
    both, recording = [TorchProfiler(str(tmp_path)), PythonProfiler(str(tmp_path))], []

    def broken(step):
        if step == 8:
            recording.append(both[1].profile)
            assert torch.autograd._profiler_enabled()
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        make(RunLength(steps=12), Step(broken), both).fit()
    python_of_9()
    assert not torch.autograd._profiler_enabled()
    assert "python_of_9" not in {name for _, _, name in pstats.Stats(recording[0]).stats}


@pytest.mark.parametrize("kind", [TorchProfiler, PythonProfiler])
def test_a_folder_that_cannot_be_written_is_one_sentence(kind, tmp_path):
    (tmp_path / "profiler").write_text("")
    with pytest.raises(OLMoEnvironmentError, match=f"cannot write to {tmp_path}: File exists"):
        run(kind(str(tmp_path)), 9)


@pytest.mark.parametrize("kind", [TorchProfiler, PythonProfiler])
def test_only_rank_0_profiles(kind, tmp_path):
    callback = kind(str(tmp_path))
    other = SimpleNamespace(world=SimpleNamespace(is_main=False), steps_done=4, state=SimpleNamespace(step=4))
    callback.on_start(other)
    callback.on_step(other, None, {})
    callback.on_end(other, "finished")
    assert callback.profile is None and ALONE.is_main


def test_the_published_keys_switch_them_on():
    kinds = [TorchProfiler, PythonProfiler]
    cfg = config()
    assert not [c for c in standard_callbacks(cfg, None, None) if type(c) in kinds]
    wanted = standard_callbacks(cfg.with_overrides(["torch_profiling=true", "python_profiling=true"]), None, None)
    assert [type(c) for c in wanted if type(c) in kinds] == kinds
