"""Published config keys that a run of this package has no use for.

They are accepted where ignoring them changes nothing, with one line that says so, and refused where it would.
"""

import copy
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from olmo.config import build_config
from olmo.exceptions import OLMoConfigurationError

log = logging.getLogger(__name__)


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
    "parallelism.context_parallel_config.attention_type": Retired(("ulysses",)),
    "parallelism.context_parallel_config.mode": Retired(("ulysses",)),
    "parallelism.context_parallel_config.load_balancer": Retired(("ulysses",)),
    "parallelism.context_parallel_config.head_stride": Retired((1,)),
    "parallelism.data_parallel_shard_degree": Retired((-1,), "what the replicas and sequences leave is sharded"),
    "parallelism.fsdp_reshard_after_forward": _ANY,
    "parallelism.enable_compiled_autograd": Retired((False,)),
    "parallelism.context_parallel_rotate_method": _ANY,
    "parallelism.tensor_parallel_config.degree": Retired((1,), "weights are not split over devices within a layer"),
    "parallelism.tensor_parallel_config": _ANY,
    "parallelism.data_parallel_config": _ANY,
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
    "data.packing.cp_world_size": _ANY,
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


@dataclass
class _Value:
    value: Any = None


def without_retired(raw: dict[str, Any]) -> dict[str, Any]:
    """A copy of a config file's mapping without these keys."""
    raw, dropped = copy.deepcopy(raw), []
    for key, rule in RETIRED.items():
        block, name = _parent(raw, key)
        if block is not None and name in block:
            rule.check(key, block.pop(name))
            dropped.append(key)
    if dropped:
        log.info("config keys without effect here: %s", ", ".join(dropped))
    return raw


def overrides_without_retired(overrides: Sequence[str]) -> list[str]:
    """The `key=value` overrides of other keys."""
    kept = []
    for item in overrides:
        key, _, text = item.partition("=")
        rule = next((r for k, r in RETIRED.items() if key == k or key.startswith(f"{k}.")), None)
        if rule is None:
            kept.append(item)
        else:
            rule.check(key, build_config(_Value, {}, [f"value={text}"]).value)
            log.info("--%s has no effect here", key)
    return kept


def _parent(raw: dict[str, Any], key: str) -> tuple[dict[str, Any] | None, str]:
    """The mapping that would hold dotted `key`, and its last part."""
    *path, name = key.split(".")
    for part in path:
        raw = raw.get(part)
        if not isinstance(raw, dict):
            return None, name
    return raw, name
