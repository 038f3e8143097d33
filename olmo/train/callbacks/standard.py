"""The callbacks of a run, in their order: what watches, what changes weights, what measures, what reports, what saves."""

from typing import Any

from torch import nn

from olmo.train.callbacks.base import Callback
from olmo.train.callbacks.checkpointer import Checkpointer, SaveMeter
from olmo.train.callbacks.console import ConsoleLogger
from olmo.train.callbacks.ema import ExponentialAverage
from olmo.train.callbacks.evaluation import Evaluator
from olmo.train.callbacks.garbage import GarbageCollector
from olmo.train.callbacks.jsonl import JsonlLogger
from olmo.train.callbacks.memory import MemoryMonitor
from olmo.train.callbacks.outcome import OutcomeFile
from olmo.train.callbacks.profiler import PythonProfiler, TorchProfiler
from olmo.train.callbacks.sink import Sink
from olmo.train.callbacks.speed import SpeedMonitor
from olmo.train.callbacks.stability import StabilityMonitor
from olmo.train.callbacks.tensorboard import TensorboardLogger
from olmo.train.callbacks.wandb import WandbLogger
from olmo.train.callbacks.wandb import wanted as wandb_wanted
from olmo.train.callbacks.watchdog import Watchdog
from olmo.train.config import TrainConfig


def sinks(cfg: TrainConfig) -> list[Sink]:
    """The second places for the metrics that `cfg` asks for."""
    wanted = [
        WandbLogger(cfg.wandb) if wandb_wanted(cfg.wandb) else None,
        None if cfg.tensorboard is None else TensorboardLogger(cfg.tensorboard),
    ]
    return [sink for sink in wanted if sink is not None]


def standard_callbacks(cfg: TrainConfig, model: nn.Module, console: Any, protected: str | None = None) -> list[Callback]:
    """What `cfg` asks for. `protected`: a checkpoint that the run started from and must not delete."""
    ema = None if cfg.ema is None else ExponentialAverage(cfg.ema, model)
    checkpointer = Checkpointer(cfg, protected=protected, ema=ema)
    wanted = [
        None if cfg.hang_timeout is None else Watchdog(cfg.hang_timeout, cfg.save_folder),
        ema,
        StabilityMonitor(cfg.stability, cfg.nonfinite),
        SpeedMonitor(cfg.speed_monitor.window_size, cfg.speed_monitor.gpu_flops_available),
        MemoryMonitor(),
        Evaluator(cfg) if cfg.evaluation.tasks else None,
        SaveMeter(checkpointer),
        JsonlLogger(cfg.save_folder),
        ConsoleLogger(cfg.console_log_interval, console),
        *sinks(cfg),
        TorchProfiler(cfg.save_folder) if cfg.torch_profiling else None,
        PythonProfiler(cfg.save_folder) if cfg.python_profiling else None,
        checkpointer,
        OutcomeFile(cfg.save_folder),
        None if cfg.gen1_gc_interval is None else GarbageCollector(cfg.gen1_gc_interval),
    ]
    return [callback for callback in wanted if callback is not None]
