"""Utilisation of the device in the metrics and in the log line."""

import logging
from types import SimpleNamespace

import pytest
import torch

from olmo.nn.flops import flops_for_batch
from olmo.nn.flops_training import StepFlops, step_flops
from olmo.train.callbacks import speed
from olmo.train.callbacks.console import format_line
from olmo.train.callbacks.speed import SpeedMonitor
from olmo.train.device_peaks import peak_flops
from tests.train.test_console import metrics as line_metrics
from tests.train.test_precision import make_step
from tests.train.tiny_run import make_batch, model_config


@pytest.mark.parametrize(
    ("name", "peak"),
    [
        ("NVIDIA H100 80GB HBM3", 989e12),
        ("NVIDIA H100 PCIe", 756e12),
        ("NVIDIA H200", 989e12),
        ("NVIDIA A100-SXM4-80GB", 312e12),
        ("NVIDIA A1000 Laptop GPU", None),
        ("NVIDIA H20", None),
        ("Tesla T4", None),
    ],
)
def test_peaks_by_name(name, peak):
    """Seen to fail with names compared by substring (H20 for H200's beginning, A100 in A1000)."""
    assert peak_flops(name) == peak


def fake_trainer(bf16: bool, main: bool = True):
    world = SimpleNamespace(device=torch.device("cuda"), is_main=main, size=2)
    cfg = SimpleNamespace(uses_bf16=lambda device: bf16)
    state = SimpleNamespace(tokens=0, step=11)
    return SimpleNamespace(
        world=world, cfg=cfg, state=state, train_step=SimpleNamespace(count_flops=None), steps_done=0, step_seconds=2.0, data_wait=0.0,
        last_step=20,
    )  # fmt: skip


def run(monitor: SpeedMonitor, trainer, flops: StepFlops | None) -> dict[str, float]:
    """The record of the last of three steps, the first of which is slow."""
    monitor.on_start(trainer)
    for seconds in (100.0, 1.0, 3.0):
        trainer.steps_done += 1
        trainer.step_seconds = seconds
        record = {}
        monitor.on_step(trainer, SimpleNamespace(tokens=8, loss_tokens=4, frames=2, flops=flops), record)
    return record


@pytest.fixture
def h100(monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "NVIDIA H100 80GB HBM3")


def test_utilisation_of_a_known_device(h100):
    """Two steps of 2 s on two devices. Seen to fail with the first step in the window, and without the number of devices."""
    trainer = fake_trainer(bf16=True)
    record = run(SpeedMonitor(20), trainer, StepFlops(model=989e12, hardware=1.25 * 989e12))
    assert trainer.train_step.count_flops is True
    assert record["throughput/device/mfu"] == pytest.approx(0.25)
    assert record["throughput/device/hfu"] == pytest.approx(0.3125)
    given = run(SpeedMonitor(20, peak=2 * 989e12), fake_trainer(bf16=False), StepFlops(989e12, 989e12))
    assert given["throughput/device/mfu"] == pytest.approx(0.125)


@pytest.mark.parametrize(("bf16", "name"), [(False, "NVIDIA H100 80GB HBM3"), (True, "Tesla T4")])
def test_no_metric_for_an_unknown_peak(bf16, name, h100, monkeypatch, caplog):
    """One line says so, on rank 0. Seen to fail with the bf16 peak used for fp32."""
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: name)
    for main in (True, False):
        trainer = fake_trainer(bf16, main)
        with caplog.at_level(logging.INFO, logger=speed.__name__):
            record = run(SpeedMonitor(20), trainer, None)
        assert not [key for key in record if "fu" in key] and trainer.train_step.count_flops is False
    assert len(caplog.messages) == 1 and "gpu_flops_available" in caplog.text


def test_the_step_counts_its_batch():
    """Sums over micro-batches; nothing is counted unless asked for. Seen to fail with the first micro-batch only."""
    batch = make_batch(model_config(), [4, 2, 0])
    step = make_step()
    assert step(batch, 1).flops is None
    step.count_flops = True
    expected = step_flops(flops_for_batch(step.cfg.model, batch), step.cfg.model, step.cfg.trained, "full")
    assert step(batch, 2).flops == expected and expected.hardware > expected.model > 0


def test_the_line_shows_it():
    """Between the rates and the waiting time, in a field of one width."""
    known = [line_metrics() | {"throughput/device/mfu": mfu} for mfu in (0.0312, 0.456, 1.0)]
    lines = [format_line(7, 6250, 1.0, 0.5, m) for m in known]
    assert "| mfu  3.1% | wait" in lines[0] and "| mfu 45.6% | wait" in lines[1]
    assert "mfu" not in format_line(7, 6250, 1.0, 0.5, line_metrics())
