"""`TrainConfig`: everything a run is made of, under the published names."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch

from olmo.checkpoints.stores import is_url
from olmo.config import BaseConfig, build_config
from olmo.data.loader import DataLoaderConfig
from olmo.exceptions import OLMoConfigurationError
from olmo.models.model import build_model_config
from olmo.nn.flops_training import Trained
from olmo.nn.lora import LoraConfig
from olmo.train.config_blocks import (
    ActivationCheckpointingMode,
    CompilerConfig,
    EmaConfig,
    EvaluationConfig,
    FSDPConfig,
    NonFiniteConfig,
    Precision,
    RuntimeData,
    SpeedMonitorConfig,
    StabilityConfig,
    TensorboardConfig,
    WandbConfig,
)
from olmo.train.duration import Duration
from olmo.train.mesh import ParallelismConfig
from olmo.train.optim import OptimizerConfig, adapt
from olmo.train.retired_keys import overrides_without_retired, without_retired
from olmo.train.scheduler import SchedulerConfig


@dataclass
class TrainConfig(BaseConfig):
    """A training run."""

    run_name: str | None = None
    """Name for logs."""
    model: Any = None
    """The model; `model.model_name` says which class."""
    seed: int = 6198
    """Seed of initialisation and dropout, the same on all ranks and for every number of ranks."""
    ft_llm: bool = True
    """Train the language model."""
    ft_vit: bool = True
    """Train the ViT."""
    ft_connector: bool = True
    """Train the connector."""
    ft_embedding: str = "lm_head"
    """Which of input embedding, output head and final norm are trained with the language model: all, lm_head, ln_f or wte."""
    lora: LoraConfig | None = None
    """Train low-rank adapters instead of whole parts; the keys ft_llm, ft_vit and ft_connector then make room for
    `lora.train_whole`. null = off."""
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    """Learning rates, decay and betas per parameter group."""
    ema: EmaConfig | None = None
    """Running average of the trained weights; null = none."""
    scheduler: SchedulerConfig = field(default_factory=SchedulerConfig)
    """Warm-up and decay of the learning rates."""
    data: DataLoaderConfig = field(default_factory=DataLoaderConfig)
    """Mixture, packing, workers."""
    restore_dataloader: bool = True
    """On resume continue the data stream where it stopped; false starts it anew."""
    save_folder: str = "./"
    """Where checkpoints, `config.yaml` and `metrics.jsonl` go."""
    checkpoint_folder: str | None = None
    """Where checkpoints go instead of `save_folder`: a folder, or the URL of an object store (`s3://bucket/run`, `gs://...`)."""
    verify_checkpoint: bool = True
    """Compare the check sums of a checkpoint's files before a run starts from it."""
    save_interval: int | None = 1000
    """Steps between checkpoints; null = only the last one."""
    save_at: int | None = None
    """One more step at which to save."""
    save_final_optim: bool = True
    """Whether the last checkpoint holds the optimiser state."""
    save_num_checkpoints_to_keep: int = -1
    """Newest checkpoints that stay; -1 = all, 0 = save none."""
    save_final_unsharded_checkpoint: bool = False
    """Also write the last weights to `step<N>-unsharded/model.pt`."""
    save_interval_ephemeral: int | None = None
    """Steps between checkpoints of which only the newest stays, besides those of `save_interval`."""
    save_asynchronously: bool | None = None
    """Whether training goes on while a checkpoint is written, from a copy in host memory (of the size of the rank's weights and
    optimiser state). A save requested while another is being written waits for it. null = on GPUs: on CPUs the copy competes with
    training for the same memory and cores."""
    save_failures_allowed: int = 2
    """How many saves in a row may fail (disk full, file system gone) before the run ends with an error; until then it goes on with a
    warning and tries again at the next one. The last save of a run may not fail."""
    save_overwrite: bool = False
    """Allow a new run in a folder that already holds one."""
    load_path: str | None = None
    """Checkpoint to start from with weights, optimiser and trainer state (but see the two `reset_` keys)."""
    reset_optimizer_state: bool = False
    """Do not take the optimiser state from `load_path`."""
    reset_trainer_state: bool = False
    """Do not take step, data position and random state from `load_path`."""
    initial_model_checkpoint: str | None = None
    """Checkpoint of which only the weights are taken."""
    allow_resume: bool = False
    """Continue from the newest checkpoint in `save_folder` if there is one."""
    max_duration: int | str = 10000
    """Length of the run, and of the learning-rate schedule: 10000 = optimiser steps; 2ep = epochs; 2e9T = tokens; 1.5h = hours.

    Epochs: one is as many examples as all data sets of the mixture have together, whatever their rates. With one example per row that
    is a number of steps; with packing the run ends with the first step after which as many have gone into rows, and the schedule's
    length is estimated before every step from the examples per step so far. Tokens: positions of rows of `data.sequence_length`,
    padding included, hence a number of steps; needs data.pad=to_max. Hours: time spent training over all starts, without saving and
    evaluating; since the number of steps is not known, it needs scheduler.t_max (or alpha_f=1)."""
    global_train_batch_size: int = 512
    """Sequences per optimiser step over all ranks."""
    device_train_microbatch_size: int = 16
    """Sequences per forward and backward pass on a device."""
    max_grad_norm: float | None = None
    """Each parameter group's gradient is clipped to this norm."""
    nonfinite: NonFiniteConfig = field(default_factory=NonFiniteConfig)
    """What happens when the loss or a gradient is no finite number."""
    stability: StabilityConfig = field(default_factory=StabilityConfig)
    """What counts as a spike of the loss or of a gradient norm; spikes are counted and named, nothing else happens."""
    hang_timeout: float | None = 300.0
    """Seconds without any progress (a micro-batch, a batch of data) after which the stack of every thread is written to
    `<save_folder>/stacks`; after as many again the process ends. The first step has longer, and so have saving and evaluation.
    null = wait for ever."""
    precision: Precision | None = None
    """amp_bf16: autocast on GPUs (CPUs always compute in fp32); null = fp32."""
    wandb: WandbConfig | None = field(default_factory=WandbConfig)
    """Weights & Biases."""
    tensorboard: TensorboardConfig | None = None
    """TensorBoard event files; null = none."""
    speed_monitor: SpeedMonitorConfig = field(default_factory=SpeedMonitorConfig)
    """Throughput numbers."""
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)
    """Evaluation while training; none by default."""
    console_log_interval: int = 1
    """Steps between two log lines; `metrics.jsonl` has every step, and the model's own metrics at these."""
    gen1_gc_interval: int | None = 1
    """Collect garbage every so many steps on all ranks at once, instead of whenever Python likes; null = leave it to Python."""
    compile: CompilerConfig | None = None
    """torch.compile of the parts that the model config names; null = off."""
    activation_checkpointing: bool = True
    """Recompute activations in the backward pass where the model config asks for it."""
    activation_checkpointing_mode: ActivationCheckpointingMode = ActivationCheckpointingMode.full
    """full: store a block's input only; selective: also the results of its matrix products and attention, which are not repeated."""
    fsdp: FSDPConfig = field(default_factory=FSDPConfig)
    """Sharding."""
    parallelism: ParallelismConfig = field(default_factory=ParallelismConfig)
    """What the ranks divide among themselves besides the data."""
    softmax_auxiliary_loss: bool = False
    """Add the z-loss."""
    softmax_auxiliary_loss_scale: float = 1e-4
    """Weight of the z-loss."""
    time_limit: float | None = None
    """Seconds after which this start saves and stops; the run can be continued."""
    stop_at: int | None = None
    """Step at which to stop; null = `max_duration`."""
    stop_after: int | None = None
    """Stop after so many steps of this start; the run can be continued."""
    torch_profiling: bool = False
    """Profile steps 7 to 9 of this start on rank 0 with torch's profiler: a table in the log, and a trace below
    `<save_folder>/profiler`."""
    python_profiling: bool = False
    """Profile the Python code of steps 5 to 8 of this start on rank 0: a table in the log, and a file for `pstats` in the same place."""
    runtime_data: RuntimeData | None = None
    """Filled in when the run starts."""

    @classmethod
    def from_dict(cls, raw: dict[str, Any], overrides: Sequence[str] = ()) -> "TrainConfig":
        """Build from a mapping; the block `model` takes the class that its `model_name` selects."""
        raw = cls.update_legacy_settings(dict(raw))
        model = raw.pop("model", None)
        cfg = build_config(cls, raw)
        if model is not None:
            cfg.model = build_model_config(model)
        return cfg.with_overrides(overrides)

    @classmethod
    def update_legacy_settings(cls, raw: dict[str, Any]) -> dict[str, Any]:
        raw = without_retired(raw)
        raw.pop("runtime_data", None)
        return raw

    def with_overrides(self, overrides: Sequence[str]) -> "TrainConfig":
        return super().with_overrides(overrides_without_retired(overrides))

    @property
    def duration(self) -> Duration:
        """`max_duration`, taken apart."""
        return Duration.parse(self.max_duration)

    @property
    def max_steps(self) -> int | None:
        """Length of the run in optimiser steps, or None where it depends on the data or on the clock."""
        return self.duration.steps(self)

    @property
    def checkpoints(self) -> str:
        """The folder or URL of this run's checkpoints."""
        return self.save_folder if self.checkpoint_folder is None else self.checkpoint_folder

    def saves_asynchronously(self, device: torch.device) -> bool:
        """Whether this run trains on while it saves, on that device."""
        return device.type == "cuda" if self.save_asynchronously is None else self.save_asynchronously

    @property
    def recompute(self) -> str:
        """none, or the mode in which blocks are recomputed where the model config asks for it."""
        return str(self.activation_checkpointing_mode) if self.activation_checkpointing else "none"

    @property
    def trained(self) -> Trained:
        """Which weights get a gradient, for counting FLOPs."""
        if self.lora is not None:
            whole = set(self.lora.train_whole)
            head = "llm" in whole and self.ft_embedding in ("all", "wte" if self.model.llm.weight_tying else "lm_head")
            return Trained("llm" in whole, head, "vit" in whole, "connector" in whole, self.adapted_parts())
        head = "wte" if self.model.llm.weight_tying else "lm_head"
        return Trained(self.ft_llm, self.ft_llm and self.ft_embedding in ("all", head), self.ft_vit, self.ft_connector)

    def adapted_parts(self) -> frozenset[str]:
        """Parts of the model that hold low-rank adapters."""
        if self.lora is None:
            return frozenset()
        model = self.model.build_model(device="meta")
        return frozenset(model.group_of(f"{layer}.weight") for layer in adapt(model, self.lora, self.ft_embedding))

    def uses_bf16(self, device: torch.device) -> bool:
        """Whether this run computes in bf16 on that device."""
        return self.precision == Precision.amp_bf16 and device.type == "cuda"

    def compiler(self, device: torch.device) -> CompilerConfig | None:
        """How this run compiles on that device; None = not at all (as where ranks share sequences). Sequences without a fixed length
        need dynamic shapes."""
        if self.compile is None or device.type != "cuda" or self.parallelism.context_parallel_config.degree > 1:
            return None
        return self.compile if self.data.sequence_length is not None else replace(self.compile, dynamic=True)

    def rows_per_rank(self, world_size: int) -> int:
        """Sequences per optimiser step on one rank."""
        ranks = self.parallelism.data_ranks(world_size)
        rows, rest = divmod(self.global_train_batch_size, ranks)
        if rest or rows < 1:
            what = "ranks" if ranks == world_size else "groups of ranks that share their sequences"
            raise OLMoConfigurationError(
                f"global_train_batch_size={self.global_train_batch_size} must be a multiple of the number of {what}, {ranks}"
            )
        return rows

    def check_ranks(self, world_size: int) -> None:
        """Refuse ranks among which the model, its sequences or the global batch cannot be divided."""
        self.parallelism.check(world_size)
        self.parallelism.check_model(self.model)
        self.rows_per_rank(world_size)

    def validate(self, world_size: int) -> None:
        """Refuse what cannot run, before anything is loaded or generated."""
        if self.model is None:
            raise OLMoConfigurationError("the config has no block 'model'")
        self.model.build_model(device="meta")  # checks every block of the model config and takes no memory
        self.adapted_parts()
        if self.ema is not None:
            self.ema.validate()
        self.nonfinite.validate()
        self.stability.validate()
        if self.hang_timeout is not None and not self.hang_timeout > 0:
            raise OLMoConfigurationError(f"hang_timeout={self.hang_timeout}: must be above 0, or null for no limit")
        self.data.check()
        self.evaluation.check()
        self.check_ranks(world_size)
        self.duration.check(self)
        length, limit = self.data.sequence_length, self.model.llm.max_sequence_length
        if length is not None and length > limit:
            raise OLMoConfigurationError(f"data.sequence_length {length} is more than model.llm.max_sequence_length {limit}")
        positive = {
            "device_train_microbatch_size": self.device_train_microbatch_size,
            "console_log_interval": self.console_log_interval,
            "speed_monitor.window_size": self.speed_monitor.window_size,
            "save_interval": self.save_interval,
            "save_interval_ephemeral": self.save_interval_ephemeral,
            "gen1_gc_interval": self.gen1_gc_interval,
            "wandb.log_interval": self.wandb.log_interval if self.wandb is not None else None,
            "tensorboard.log_interval": self.tensorboard.log_interval if self.tensorboard is not None else None,
        }
        for key, value in positive.items():
            if value is not None and value < 1:
                raise OLMoConfigurationError(f"{key}={value}: must be at least 1")
        if is_url(self.save_folder):
            raise OLMoConfigurationError(
                f"save_folder={self.save_folder}: logs need a folder on a disk; give the URL as checkpoint_folder, and a folder here"
            )
        if self.save_failures_allowed < 0:
            raise OLMoConfigurationError(f"save_failures_allowed={self.save_failures_allowed}: must be 0 or more")
        if self.save_num_checkpoints_to_keep < -1:
            raise OLMoConfigurationError(
                f"save_num_checkpoints_to_keep={self.save_num_checkpoints_to_keep}: must be -1 (all), 0 (none) or more"
            )
