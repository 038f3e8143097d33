"""The blocks of a training config, one dataclass each; `olmo/train/config.py` puts them together."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from olmo.config import BaseConfig, StrEnum
from olmo.exceptions import OLMoCliError, OLMoConfigurationError

if TYPE_CHECKING:
    from olmo.eval.task import Task


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
    `wandb: null` and WANDB_MODE=disabled switch it off. A missing package is an error at the start; what fails later stops no run.
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
class TensorboardConfig(BaseConfig):
    """TensorBoard event files, beside the `metrics.jsonl` that is always written. Nothing that fails here stops a run."""

    folder: str | None = None
    """Where they go; null = `tensorboard` in the save folder."""
    log_interval: int = 20
    """Steps between two reports."""


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


class NonFinitePolicy(StrEnum):
    """What a step does whose loss or gradient is no finite number."""

    stop = "stop"
    skip = "skip"


@dataclass
class NonFiniteConfig(BaseConfig):
    """Steps whose loss or gradient is no finite number. None of them changes weights, moments or averages, and each leaves its batch
    in `<save_folder>/bad_batches`, which `scripts/replay_batch.py` looks into."""

    policy: NonFinitePolicy = NonFinitePolicy.stop
    """stop: end the run with an error; skip: go on with the next batch. A skipped step counts, so data and schedule move on."""
    skips_in_a_row: int = 3
    """How many steps in a row may be skipped; one more ends the run."""
    skips_allowed: int = 20
    """How many steps of the whole run may be skipped; one more ends it."""

    def validate(self) -> None:
        for key in ("skips_in_a_row", "skips_allowed"):
            if getattr(self, key) < 1:
                raise OLMoConfigurationError(f"nonfinite.{key}={getattr(self, key)}: must be at least 1 (nonfinite.policy=stop skips none)")


@dataclass
class StabilityConfig(BaseConfig):
    """What counts as a spike of the loss or of a gradient norm: a value more than `sigmas` robust standard deviations above the median
    of the steps before it (1.4826 times the median distance from the median, at least a hundredth of the median)."""

    window_size: int = 128
    """Steps that a value is compared with; none is judged before there is a quarter of them."""
    sigmas: float = 6.0
    """How many deviations above the median a spike begins."""

    def validate(self) -> None:
        if self.window_size < 8:
            raise OLMoConfigurationError(f"stability.window_size={self.window_size}: must be at least 8")
        if not self.sigmas > 0:
            raise OLMoConfigurationError(f"stability.sigmas={self.sigmas}: must be above 0")


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
