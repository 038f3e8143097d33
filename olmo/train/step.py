"""One optimiser step: micro-batches, exact loss normalisation over the global batch, clipping, update.

The loss is sum(weight * CE) / sum(weight) over all rows of all micro-batches of all ranks, however they are split: the
divisor is known before the first forward pass, because the loss weights come with the batch. Sharded training averages
gradients over ranks, hence the factor `world_size`.

A step whose loss or gradient is no finite number updates nothing. All ranks see that in numbers which they have in common anyway, on the
device, before the update; the host learns it with the rest of the step's numbers.
"""

import math
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import nn
from torch.distributed.fsdp import FSDPModule
from torch.profiler import record_function

from olmo.batch import EXAMPLE_STRIDE, SHARED_PREFIX, Batch
from olmo.distributed import World, all_reduce_sum
from olmo.exceptions import OLMoDataError, OLMoEnvironmentError, OLMoError, first_line
from olmo.nn.flops import flops_for_batch
from olmo.nn.flops_training import StepFlops, step_flops
from olmo.train.bad_batches.dump import TERMS, BadStep, dump, short_list
from olmo.train.config import TrainConfig
from olmo.train.config_blocks import NonFinitePolicy
from olmo.train.optim import clip_gradients, update_if
from olmo.train.saving.checkpoint import random_state
from olmo.train.scheduler import Scheduler


class TrainingDiverged(OLMoError):
    """The loss or a gradient is no number any more."""


@dataclass
class StepResult:
    """What one optimiser step did, summed over all ranks; plain numbers, equal on every rank."""

    metrics: dict[str, float]
    """`train/*` and `optim/*` values."""
    tokens: int
    """Positions that the language model computed, padding included."""
    loss_tokens: int
    """Positions with a loss weight."""
    frames: int
    """Frames and crops, without padding."""
    examples: int
    """Rows."""
    stop: bool
    """Some rank asked to stop."""
    flops: StepFlops | None = None
    """Of forward and backward passes; None where nobody asked for them."""
    extra: dict[str, list] = field(default_factory=dict)
    """What the model reports besides the loss: one value per micro-batch of this rank, still on the device (`mean_metrics`)."""
    metadata: list[dict[str, Any]] = field(default_factory=list)
    """Of this rank's rows."""
    trouble: str | None = None
    """Why nothing was updated in this step; None = it was an ordinary one."""


_SUMS = (
    *TERMS,
    *("tokens", "before", "after", "cells", "loss_tokens", "frames", "examples", "packed", "branches", "stop"),
    *("model_flops", "hardware_flops"),
)
_TERM_METRICS = ("train/CrossEntropyLoss", "train/ZLoss", "train/Accuracy", "train/AuxLoss")
"""What the `TERMS` are called in the record."""


def batch_counts(batch: Batch) -> dict[str, int]:
    """Host-side counts of a batch that is still on the host."""
    packed = branches = len(batch)
    if batch.subsegment_ids is not None:
        ids = [row[row >= 0].unique() for row in batch.subsegment_ids]
        packed = sum(int((row // EXAMPLE_STRIDE).unique().numel()) for row in ids)
        branches = sum(int((row % EXAMPLE_STRIDE != SHARED_PREFIX).sum()) for row in ids)
    return {
        "examples": len(batch),
        "before": sum(row.num_tokens + row.num_spared for row in batch.layout),
        "cells": sum(row.num_pooled + row.num_spared for row in batch.layout),
        "loss_tokens": sum(row.num_loss_tokens for row in batch.layout),
        "frames": sum(row.num_frames for row in batch.layout),
        "packed": packed,
        "branches": branches,
    }


def trim_padding(batch: Batch) -> Batch:
    """Cut the columns in which every row is padding (rows are padded for the whole batch, and before pruning)."""
    longest = max(row.num_tokens for row in batch.layout)
    names = ("input_ids", "position_ids", "labels", "loss_masks", "subsegment_ids")
    return replace(batch, **{n: t[:, :longest] for n in names if (t := getattr(batch, n)) is not None})


def loss_weight(batch: Batch) -> torch.Tensor:
    """Total loss weight of a batch (0-d fp64): what the loss is divided by, before any forward pass."""
    return batch.loss_masks.double().clamp(min=0.0).masked_fill(batch.labels < 0, 0.0).sum()


class TrainStep:
    """Runs optimiser steps on a model that is already sharded, compiled and on its device."""

    def __init__(self, cfg: TrainConfig, model: nn.Module, optimizer: torch.optim.Optimizer, scheduler: Scheduler, world: World):
        self.cfg, self.model, self.optimizer, self.scheduler, self.world = cfg, model, optimizer, scheduler, world
        compiler = cfg.compiler(world.device)
        self.pad_to = cfg.data.sequence_length if compiler is not None and not compiler.dynamic else None
        """Static length of the language model's sequences, where compiled code wants one shape; None = the longest row."""
        self.trained = cfg.trained
        self.degree = cfg.parallelism.context_parallel_config.degree
        """Ranks that have the same rows and share the work on them."""
        self.count_flops = False
        """Whether results carry FLOPs; counting reads every id of the batch on the host."""
        self.z_scale = cfg.softmax_auxiliary_loss_scale if cfg.softmax_auxiliary_loss else 0.0
        self.progress: Callable[[str], None] = lambda what: None
        """Told what begins, for whoever watches that something happens."""

    def micro_batches(self, batch: Batch) -> Iterator[Batch]:
        """The rank's rows in equal chunks; every rank makes the same number of them."""
        size = self.cfg.device_train_microbatch_size
        for start in range(0, len(batch), size):
            yield batch.rows(start, min(start + size, len(batch)))

    def forward(self, batch: Batch):
        """The model's loss terms, under autocast on GPUs."""
        with torch.autocast("cuda", dtype=torch.bfloat16) if self.cfg.uses_bf16(self.world.device) else nullcontext():
            return self.model(batch, compute_loss=True, pad_to=self.pad_to)

    def backward(self, out, factor: torch.Tensor | float, passes: int) -> torch.Tensor:
        """Backward pass of one of `passes` micro-batches; `factor` turns sums into the mean over the global batch. Returns `TERMS`
        of the micro-batch, [4] fp64 on the device."""
        terms = out.loss
        loss = (terms.ce + self.z_scale * terms.z) * factor
        aux = out.aux_loss if out.aux_loss is not None else terms.ce.detach() * 0.0
        with record_function("backward"):
            (loss + aux / passes).backward()
        return torch.stack([v.detach().double() for v in (terms.ce, terms.z, terms.correct, aux)])

    def _reduce_gradients(self, last: bool) -> None:
        """Ranks add up their gradients after the last micro-batch, in one reduction per sharded unit."""
        if isinstance(self.model, FSDPModule) and not self.cfg.fsdp.reduce_every_microbatch:
            self.model.set_requires_gradient_sync(last)
            self.model.set_is_last_backward(last)

    def __call__(self, batch: Batch, step: int, wish: Callable[[], bool] = lambda: False) -> StepResult:
        """One step on this rank's rows. `step` counts from 1; `wish` says whether this rank wants to stop, the result
        whether any does."""
        self.progress(f"the start of step {step}")
        random = random_state()
        self.model.train()
        self.optimizer.zero_grad(set_to_none=True)
        if self.degree > 1:
            self.model.context.check_same(batch, self.world.device)
        total = all_reduce_sum(loss_weight(batch).to(self.world.device)) / self.degree
        micro = list(self.micro_batches(batch))
        sums = torch.zeros(len(_SUMS), dtype=torch.float64, device=self.world.device)
        host = dict.fromkeys(_SUMS, 0)
        host |= batch_counts(batch)
        if self.count_flops:
            flops = step_flops(flops_for_batch(self.cfg.model, batch), self.cfg.model, self.trained, self.cfg.recompute)
            host |= {"model_flops": flops.model, "hardware_flops": flops.hardware}
        extra: dict[str, list] = {}
        own: list[torch.Tensor] = []
        for number, part in enumerate(micro, 1):
            self.progress(f"micro-batch {number} of {len(micro)} of step {step}")
            self._reduce_gradients(number == len(micro))
            with record_function("forward"):
                out = self.forward(trim_padding(part).to(self.world.device))
            own.append(self.backward(out, self.world.size / total, len(micro)))
            sums[: len(TERMS)] += own[-1]
            host["after"] += sum(out.tokens_after)
            host["tokens"] += len(part) * (self.pad_to or max(out.tokens_after))
            for key, value in out.metrics.items():
                extra.setdefault(key, []).append(value)
        norms = clip_gradients(self.optimizer.param_groups, self.scheduler.max_grad_norm(self.cfg.max_grad_norm, step))
        for group in self.optimizer.param_groups:
            peak = self.cfg.optimizer.peak_learning_rate(group["group_name"])
            group["lr"] = self.scheduler.learning_rate(group["group_name"], peak, step)
        host["stop"] = int(wish())
        sums = all_reduce_sum(sums + self._on_device([host[k] for k in _SUMS]))
        sums[len(TERMS) :] /= self.degree  # what the ranks counted of rows that they share; of the terms each had a part
        common = torch.stack([*sums[: len(TERMS)], *(n.detach().double() for n in norms.values())])
        with record_function("optimizer"):
            update_if(self.optimizer, common.isfinite().all())
        # Everything is under way on the device; from here on the host may wait for it.
        self.progress(f"the end of step {step}")
        packed = torch.cat([sums, total[None], common[len(TERMS) :], *own]).tolist()
        result = self._read(packed, list(norms), len(micro), step, extra)
        result.metadata = batch.metadata
        decisive = dict(zip(_TERM_METRICS, packed, strict=False)) | {k: v for k, v in result.metrics.items() if k.endswith("_grad_norm")}
        if bad := tuple(name for name, value in decisive.items() if not math.isfinite(value)):
            own_terms = packed[-len(TERMS) * len(micro) :]
            terms = [own_terms[i : i + len(TERMS)] for i in range(0, len(own_terms), len(TERMS))]
            self._trouble(result, BadStep(step, bad, batch, random, packed[len(_SUMS)], terms))
        return result

    def _on_device(self, values: list[float]) -> torch.Tensor:
        """Host numbers (fp64), copied without waiting for the device."""
        tensor = torch.tensor(values, dtype=torch.float64)
        if self.world.device.type == "cuda":
            tensor = tensor.pin_memory()
        return tensor.to(self.world.device, non_blocking=True)

    def _trouble(self, result: StepResult, bad: BadStep) -> None:
        """Keep the batch, and go on or not: the same on all ranks."""
        more = f", nor {'is' if len(bad.not_finite) == 2 else 'are'} {short_list(bad.not_finite[1:], 4)}" if len(bad.not_finite) > 1 else ""
        result.trouble = f"step {bad.step}: {bad.not_finite[0]} is not finite{more}; {dump(bad, self.cfg, self.world)}"
        if self.cfg.nonfinite.policy == NonFinitePolicy.stop:
            raise TrainingDiverged(
                f"{result.trouble}; the run stops here, and the last checkpoint is from before (nonfinite.policy=skip leaves such batches "
                "out; if the weights are to blame, lower the learning rates or max_grad_norm)"
            )

    def _read(self, packed: list[float], norms: list[str], num_micro: int, step: int, extra: dict[str, list]) -> StepResult:
        """The step's numbers as metrics. `packed`: the sums, the loss weight, the norms, and more."""
        values = dict(zip(_SUMS, packed, strict=False))
        weight, norm_values = packed[len(_SUMS)], packed[len(_SUMS) + 1 :][: len(norms)]
        passes = num_micro * self.world.size
        if not weight:
            raise OLMoDataError(
                f"step {step}: no row of the global batch has a token with a loss weight, so there is nothing to learn from"
            )
        metrics = {"train/CrossEntropyLoss": values["ce"] / weight}
        if self.z_scale:
            metrics["train/ZLoss"] = self.z_scale * values["z"] / weight
        metrics["train/Accuracy"] = values["correct"] / weight
        metrics["train/AuxLoss"] = values["aux"] / passes
        metrics["train/kept_fraction"] = 1 - (values["before"] - values["after"]) / values["cells"] if values["cells"] else 1.0
        metrics |= {
            "batch/non_masked_tokens": values["after"] / values["examples"],
            "batch/per_non_masked_tokens": values["after"] / values["tokens"],
            "batch/loss_tokens": values["loss_tokens"] / values["examples"],
            "batch/per_loss_tokens": values["loss_tokens"] / values["after"],
            "batch/tokens_before_pruning": values["before"] / values["examples"],
            "batch/n_packed": values["packed"] / values["examples"],
            "batch/n_segments": values["branches"] / values["examples"],
        }
        for name, norm in zip(norms, norm_values, strict=True):
            metrics[f"optim/{name}_grad_norm"] = norm
        for group in self.optimizer.param_groups:
            metrics[f"optim/{group['group_name']}_lr"] = group["lr"]
        return StepResult(
            metrics=metrics,
            tokens=int(values["tokens"]),
            loss_tokens=int(values["loss_tokens"]),
            frames=int(values["frames"]),
            examples=int(values["examples"]),
            stop=values["stop"] > 0,
            flops=StepFlops(values["model_flops"], values["hardware_flops"]) if self.count_flops else None,
            extra=extra,
        )


def mean_metrics(extra: dict[str, list]) -> dict[str, float]:
    """Read the model's own metrics from the device; called on log steps only."""
    return {key: _mean(values) for key, values in extra.items()}


def _mean(values: list) -> float:
    """Mean over micro-batches of a metric given as a number, a 0-d tensor or a (sum, weight) pair."""
    pairs = [(float(v[0]), float(v[1])) if isinstance(v, tuple) else (float(v), 1.0) for v in values]
    weight = sum(w for _, w in pairs)
    return sum(v for v, _ in pairs) / weight if weight else 0.0


def out_of_memory(err: torch.OutOfMemoryError) -> OLMoEnvironmentError:
    """The one line that a run prints when the device is too small."""
    return OLMoEnvironmentError(
        "the device ran out of memory; lower --device_batch_size, --seq_len or --model.mm_preprocessor.max_frames "
        f"({first_line(err).split('. ')[0]})"
    )
