"""`TrainConfig`: everything a run is made of, under the published names.

Published configs carry more keys than a run of this package has use for (`RETIRED` below). They are accepted where
ignoring them changes nothing, with one line that says so, and refused where it would.
"""

import copy
import logging
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import torch

from olmo.checkpoints.stores import is_url
from olmo.config import BaseConfig, StrEnum, build_config
from olmo.data.loader import DataLoaderConfig
from olmo.exceptions import OLMoCliError, OLMoConfigurationError
from olmo.models.model import build_model_config
from olmo.nn.flops_training import Trained
from olmo.nn.lora import LoraConfig
from olmo.train.optim import OptimizerConfig, adapt
from olmo.train.scheduler import SchedulerConfig

if TYPE_CHECKING:
    from olmo.eval.task import Task

log = logging.getLogger(__name__)


class Precision(StrEnum):
    """What the forward pass computes in; weights and optimiser state are always fp32."""

    amp_bf16 = "amp_bf16"
    fp32 = "fp32"


class FSDPPrecision(StrEnum):
    """What sharded parameters are gathered and gradients reduced in."""

    pure = "pure"
    mixed = "mixed"
    float = "float"


class ActivationCheckpointingMode(StrEnum):
    """What a recomputed block stores."""

    full = "full"
    selective = "selective"


@dataclass
class FSDPConfig(BaseConfig):
    """Sharding of parameters, gradients and optimiser state over the ranks."""

    precision: FSDPPrecision = FSDPPrecision.pure
    """pure: parameters and reductions in the precision of the run; mixed: reductions in fp32; float: both in fp32."""
    reduce_every_microbatch: bool = False
    """Reduce and shard gradients after every micro-batch; false does it once per step, which is faster, but every rank holds all
    gradients (in the precision of the reductions) while there are several micro-batches."""


@dataclass
class CompilerConfig(BaseConfig):
    """Arguments of `torch.compile` for what the model config wants compiled: blocks of the language model and of the ViT, the
    connector (CUDA devices only)."""

    mode: str | None = "default"
    """Compile mode."""
    fullgraph: bool = False
    """Refuse graph breaks."""
    dynamic: bool | None = False
    """Compile for dynamic shapes."""
    backend: str = "inductor"
    """Compiler backend."""


@dataclass
class WandbConfig(BaseConfig):
    """Weights & Biases: a second place for the metrics that `metrics.jsonl` always has.

    Used when a project is named, here or in WANDB_PROJECT (WANDB_MODE=offline then keeps it on this machine);
    `wandb: null` and WANDB_MODE=disabled switch it off. Nothing that fails here stops a run.
    """

    project: str | None = None
    """Project; null = environment variable WANDB_PROJECT."""
    entity: str | None = None
    """Team or user; null = environment variable WANDB_ENTITY."""
    group: str | None = None
    """Group of the run."""
    name: str | None = None
    """Name of the run; null = `run_name`."""
    tags: list[str] = field(default_factory=list)
    """Tags of the run."""
    log_interval: int = 20
    """Steps between two reports."""
    allow_resume: bool = False
    """Continue the same wandb run when training resumes (the id is kept in the checkpoint)."""
    finish_on_sigterm: bool = True
    """Mark the wandb run as failed when a signal stopped it before its last step."""


@dataclass
class SpeedMonitorConfig(BaseConfig):
    """Throughput numbers."""

    window_size: int = 20
    """Steps averaged over."""
    gpu_flops_available: float | None = None
    """Peak FLOP/s of one device, what MFU divides by; null = looked up by the device's name for bf16, no MFU where it is unknown."""


@dataclass
class EvaluationConfig(BaseConfig):
    """Evaluation while training, with the tasks and metrics of `launch_scripts/eval_molmo2.py`; none without `tasks`.

    Scores go to the log as `eval/<task>/<score>`, answers to `<save_folder>/inloop-predictions/step<N>-<task>-<split>`.
    """

    tasks: list[str] = field(default_factory=list)
    """Groups, `task[:split]` and .jsonl files, such as [moving_shapes, mvbench]."""
    interval: int = 1000
    """Steps between two evaluations."""
    max_examples: int = 64
    """Questions of each task, always the same ones."""
    device_batch_size: int = 4
    """Questions at a time on a device."""
    max_new_tokens: int | None = None
    """Longest answer; null = the task's."""

    def resolved(self) -> "list[Task]":
        """The task records."""
        from olmo.eval.tasks import resolve_tasks

        try:
            return resolve_tasks(self.tasks)
        except OLMoCliError as err:
            raise OLMoConfigurationError(f"evaluation.tasks: {str(err).removeprefix('--tasks: ')}") from None

    def check(self) -> None:
        """Refuse what cannot be run, as far as that shows without any data."""
        self.resolved()
        for key in ("interval", "max_examples", "device_batch_size", "max_new_tokens"):
            if (value := getattr(self, key)) is not None and value < 1:
                raise OLMoConfigurationError(f"evaluation.{key}={value}: must be at least 1")


@dataclass
class EmaConfig(BaseConfig):
    """A running average of the trained weights, saved beside them; `scripts/checkpoint.py ema` takes it out."""

    decay: float = 0.999
    """How much of the average stays at every step; it looks back over about 1 / (1 - decay) steps."""
    warmup: bool = True
    """Look back over fewer steps at first: the decay is at most (1 + step) / (10 + step)."""

    def validate(self) -> None:
        if not 0 < self.decay < 1:
            raise OLMoConfigurationError(f"ema.decay={self.decay}: must lie between 0 and 1")


@dataclass
class RuntimeData(BaseConfig):
    """Facts of the run, filled in when it starts and saved with every checkpoint."""

    args: str = ""
    """The command line."""
    hostname: str = ""
    """Machine of rank 0."""
    date: str = ""
    """When the run started."""
    version: str = ""
    """Version of this package."""
    world_size: int = 1
    """Number of ranks."""
    resuming_from: str | None = None
    """Checkpoint that the run continues."""
    wandb_id: str | None = None
    """Id of the wandb run."""
    wandb_url: str | None = None
    """Address of the wandb run."""


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
    """Optimiser steps of the whole run; also the length of the learning-rate schedule."""
    global_train_batch_size: int = 512
    """Sequences per optimiser step over all ranks."""
    device_train_microbatch_size: int = 16
    """Sequences per forward and backward pass on a device."""
    max_grad_norm: float | None = None
    """Each parameter group's gradient is clipped to this norm."""
    precision: Precision | None = None
    """amp_bf16: autocast on GPUs (CPUs always compute in fp32); null = fp32."""
    wandb: WandbConfig | None = field(default_factory=WandbConfig)
    """Weights & Biases."""
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
    softmax_auxiliary_loss: bool = False
    """Add the z-loss."""
    softmax_auxiliary_loss_scale: float = 1e-4
    """Weight of the z-loss."""
    time_limit: float | None = None
    """Seconds after which the run saves and stops."""
    stop_at: int | None = None
    """Step at which to stop; null = `max_duration`."""
    stop_after: int | None = None
    """Stop after so many steps of this start."""
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
        raw, dropped = copy.deepcopy(raw), []
        for key, rule in RETIRED.items():
            block, name = _parent(raw, key)
            if block is not None and name in block:
                rule.check(key, block.pop(name))
                dropped.append(key)
        raw.pop("runtime_data", None)
        if dropped:
            log.info("config keys without effect here: %s", ", ".join(dropped))
        return raw

    def with_overrides(self, overrides: Sequence[str]) -> "TrainConfig":
        kept = []
        for item in overrides:
            key, _, text = item.partition("=")
            rule = next((r for k, r in RETIRED.items() if key == k or key.startswith(f"{k}.")), None)
            if rule is None:
                kept.append(item)
            else:
                rule.check(key, build_config(_Value, {}, [f"value={text}"]).value)
                log.info("--%s has no effect here", key)
        return super().with_overrides(kept)

    @property
    def max_steps(self) -> int:
        """Length of the run and of the schedule in optimiser steps."""
        try:
            return int(self.max_duration)
        except ValueError:
            raise OLMoConfigurationError(f"max_duration={self.max_duration}: must be a number of optimiser steps") from None

    @property
    def last_step(self) -> int:
        """Step at which the loop ends."""
        return self.max_steps if self.stop_at is None else min(self.stop_at, self.max_steps)

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
        """How this run compiles on that device; None = not at all. Sequences without a fixed length need dynamic shapes."""
        if self.compile is None or device.type != "cuda":
            return None
        return self.compile if self.data.sequence_length is not None else replace(self.compile, dynamic=True)

    def rows_per_rank(self, world_size: int) -> int:
        """Sequences per optimiser step on one rank."""
        rows, rest = divmod(self.global_train_batch_size, world_size)
        if rest or rows < 1:
            raise OLMoConfigurationError(
                f"global_train_batch_size={self.global_train_batch_size} must be a multiple of the number of ranks, {world_size}"
            )
        return rows

    def validate(self, world_size: int) -> None:
        """Refuse what cannot run, before anything is loaded or generated."""
        if self.model is None:
            raise OLMoConfigurationError("the config has no block 'model'")
        self.model.build_model(device="meta")  # checks every block of the model config and takes no memory
        self.adapted_parts()
        if self.ema is not None:
            self.ema.validate()
        self.data.check()
        self.evaluation.check()
        self.rows_per_rank(world_size)
        length, limit = self.data.sequence_length, self.model.llm.max_sequence_length
        if length is not None and length > limit:
            raise OLMoConfigurationError(f"data.sequence_length {length} is more than model.llm.max_sequence_length {limit}")
        positive = {
            "device_train_microbatch_size": self.device_train_microbatch_size,
            "max_duration": self.max_steps,
            "console_log_interval": self.console_log_interval,
            "speed_monitor.window_size": self.speed_monitor.window_size,
            "save_interval": self.save_interval,
            "save_interval_ephemeral": self.save_interval_ephemeral,
            "gen1_gc_interval": self.gen1_gc_interval,
            "wandb.log_interval": self.wandb.log_interval if self.wandb is not None else None,
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


@dataclass
class _Value:
    value: Any = None


@dataclass(frozen=True)
class Retired:
    """A published key without effect here; `only` are the values at which that is the truth (None = any value)."""

    only: tuple[Any, ...] | None = None
    instead: str = ""

    def check(self, key: str, value: Any) -> None:
        if self.only is not None and value not in self.only:
            allowed = " or ".join("null" if v is None else str(v).lower() for v in self.only)
            raise OLMoConfigurationError(f"{key}={value} is not offered, only {allowed}{f': {self.instead}' if self.instead else ''}")


_ANY = Retired()
RETIRED = {
    "strict_initialization": _ANY,
    "catch_interrupts": _ANY,
    "dry_run": Retired((False,), "give --dry_run to the launcher"),
    "epoch": Retired((None,)),
    "fast_forward_batches": Retired((None, 0)),
    "evaluators": _ANY,
    "eval_interval": _ANY,
    "inf_evaluators": _ANY,
    "inf_eval_interval": _ANY,
    "eval_on_last_step": _ANY,
    "eval_on_load": _ANY,
    "eval_on": _ANY,
    "inf_eval_config": _ANY,
    "save_inloop_predictions": _ANY,
    "checkpointer_config": _ANY,
    "canceled_check_interval": _ANY,
    "beaker_log_interval": _ANY,
    "max_grad_norm_ratio": Retired((None,)),
    "batch_divisor": Retired(("global_batch",), "the loss is divided by the loss weight of the global batch"),
    "response_logits_only": Retired((True,), "logits are computed where the loss needs them"),
    "fused_loss": _ANY,
    "compile_loss": _ANY,
    "saliency_score_loss_wt": Retired((None,)),
    "frame_score_loss_wt": Retired((None,)),
    "frame_score_loss_type": _ANY,
    "frame_score_loss_target": _ANY,
    "extra_steps_after_cancel": Retired((0,)),
    "python_profiling": Retired((False,)),
    "torch_profiling": Retired((False,)),
    "parallelism.context_parallel_config.degree": Retired((1,), "sequences are not split over devices"),
    "parallelism": _ANY,
    "optimizer.learning_rate": _ANY,
    "optimizer.weight_decay": _ANY,
    "optimizer.betas": _ANY,
    "optimizer.eps": _ANY,
    "optimizer.metrics_log_interval": _ANY,
    "scheduler.units": Retired(("steps",), "warm-up and decay count optimiser steps"),
    "scheduler.t_warmup": _ANY,
    "data.max_text_seq_len": Retired((None,)),
    "data.persistent_workers": _ANY,
    "data.enable_variable_sized_token_pooling": _ANY,
    "data.packing.cp_world_size": Retired((1,), "sequences are not split over devices"),
    "data.packing.mode": Retired(("dynamic_solver",)),
    "data.packing.track_packing_state": _ANY,
    "fsdp.fsdp2": Retired((True,)),
    "fsdp.use_orig_params": _ANY,
    "fsdp.wrapping_strategy": _ANY,
    "fsdp.sharding_strategy": _ANY,
    "fsdp.hybrid_sharding_num_model_replicas": _ANY,
    "wandb.log_artifacts": Retired((False,)),
    "wandb.rank_zero_only": Retired((True,)),
}
"""Published keys that a run of this package does not need, most specific first."""


def _parent(raw: dict[str, Any], key: str) -> tuple[dict[str, Any] | None, str]:
    """The mapping that would hold dotted `key`, and its last part."""
    *path, name = key.split(".")
    for part in path:
        raw = raw.get(part)
        if not isinstance(raw, dict):
            return None, name
    return raw, name
