"""The optimiser: AdamW over the published parameter groups, each with its own learning rate, decay and clipping.

Order and names of the groups are part of the checkpoint format (`optim.param_groups.<i>.*`). Groups are split into a
decayed and a non-decayed half where weight decay is not zero; both halves keep the group's name and are clipped
together.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field

import torch
from torch import nn

from olmo.config import BaseConfig, StrEnum
from olmo.distributed import whole
from olmo.exceptions import OLMoConfigurationError
from olmo.models.model import GROUPS, ModelBase
from olmo.nn.lora import LoraConfig, add_adapters, is_adapter
from olmo.weights import SCORER

NO_DECAY = frozenset(
    "wte attn_norm ff_norm pre_attn_norm post_attn_norm pre_ff_norm post_ff_norm ln_f pre_ln attention_norm ffn_norm "
    "lambda1 lambda2 positional_embedding class_embedding patch_embedding".split()
)
"""A parameter with one of these among the components of its name is never decayed."""


class OptimizerType(StrEnum):
    adamw = "adamw"


@dataclass
class OptimizerConfig(BaseConfig):
    """Four numbers for each parameter group."""

    name: OptimizerType = OptimizerType.adamw
    """The optimiser."""
    connector_learning_rate: float = 1e-4
    """Peak learning rate of the connector (pooling, projector, embeddings of the added tokens)."""
    vit_learning_rate: float = 1e-4
    """Peak learning rate of the ViT."""
    llm_learning_rate: float = 1e-4
    """Peak learning rate of the language model."""
    frame_selector_learning_rate: float = 1e-4
    """Peak learning rate of a frame selector (no model of this package has one; published configs carry the key)."""
    temporal_token_scorer_learning_rate: float = 1e-4
    """Peak learning rate of the token scorer."""
    connector_weight_decay: float = 0.0
    """Weight decay of the connector."""
    vit_weight_decay: float = 0.0
    """Weight decay of the ViT."""
    llm_weight_decay: float = 0.0
    """Weight decay of the language model."""
    frame_selector_weight_decay: float = 0.0
    """Weight decay of a frame selector."""
    temporal_token_scorer_weight_decay: float = 0.0
    """Weight decay of the token scorer."""
    connector_betas: list[float] = field(default_factory=lambda: [0.9, 0.95])
    """AdamW betas of the connector."""
    vit_betas: list[float] = field(default_factory=lambda: [0.9, 0.95])
    """AdamW betas of the ViT."""
    llm_betas: list[float] = field(default_factory=lambda: [0.9, 0.95])
    """AdamW betas of the language model."""
    frame_selector_betas: list[float] = field(default_factory=lambda: [0.9, 0.95])
    """AdamW betas of a frame selector."""
    temporal_token_scorer_betas: list[float] = field(default_factory=lambda: [0.9, 0.95])
    """AdamW betas of the token scorer."""
    connector_eps: float = 1e-6
    """AdamW epsilon of the connector."""
    vit_eps: float = 1e-6
    """AdamW epsilon of the ViT."""
    llm_eps: float = 1e-6
    """AdamW epsilon of the language model."""
    frame_selector_eps: float = 1e-6
    """AdamW epsilon of a frame selector."""
    temporal_token_scorer_eps: float = 1e-6
    """AdamW epsilon of the token scorer."""

    def peak_learning_rate(self, group: str) -> float:
        return getattr(self, f"{group}_learning_rate")


def decays(name: str) -> bool:
    """Whether weight decay applies to the parameter called `name`."""
    return NO_DECAY.isdisjoint(name.split("."))


def build_param_groups(cfg: OptimizerConfig, groups: dict[str, list[tuple[str, nn.Parameter]]]) -> list[dict]:
    """The optimiser's groups, in the published order, sorted by name inside a group, trainable parameters only.

    Every entry keeps `group_name` and `param_names` (parallel to `params`), which checkpoints rely on.
    """
    assert tuple(groups) == GROUPS, f"parameter groups must be {GROUPS} in this order, not {tuple(groups)}"
    built, owner = [], {}
    for group, members in groups.items():
        members = sorted((name, p) for name, p in members if p.requires_grad)
        for name, p in members:
            assert id(p) not in owner, f"{name} is in two parameter groups: {owner.get(id(p))} and {group}"
            owner[id(p)] = group
        decay = getattr(cfg, f"{group}_weight_decay")
        betas = getattr(cfg, f"{group}_betas")
        if len(betas) != 2:
            raise OLMoConfigurationError(f"optimizer.{group}_betas must be two numbers, not {list(betas)}")
        if decay:
            halves = [([m for m in members if decays(m[0])], decay), ([m for m in members if not decays(m[0])], 0.0)]
        else:
            halves = [(members, 0.0)]
        for half, half_decay in halves:
            if half:
                built.append(
                    {
                        "params": [p for _, p in half],
                        "param_names": [n for n, _ in half],
                        "group_name": group,
                        "lr": cfg.peak_learning_rate(group),
                        "betas": tuple(betas),
                        "eps": getattr(cfg, f"{group}_eps"),
                        "weight_decay": half_decay,
                    }
                )
    return built


def build_optimizer(cfg: OptimizerConfig, model: nn.Module, *, fused: bool | None = None) -> torch.optim.AdamW:
    """AdamW over `model.parameter_groups()`; every trainable parameter must be in exactly one group.

    `fused`: update all parameters of a group in one kernel; None = where all of them are on a GPU. States of both kinds are the same
    tensors in checkpoints.
    """
    groups = build_param_groups(cfg, model.parameter_groups())
    if not groups:
        raise OLMoConfigurationError("nothing to train: ft_llm, ft_vit and ft_connector are all false and the model has no token scorer")
    grouped = {id(p) for g in groups for p in g["params"]}
    left_out = [name for name, p in model.named_parameters() if p.requires_grad and id(p) not in grouped]
    assert not left_out, f"trainable parameters in no group: {left_out[:5]}"
    if fused is None:
        fused = all(p.device.type == "cuda" for g in groups for p in g["params"])
    # where it is not fused, torch chooses between its other implementations as always
    return torch.optim.AdamW(groups, fused=True if fused else None)


def fresh_state(group: dict, param: nn.Parameter) -> dict[str, torch.Tensor]:
    """State of a parameter that was never updated."""
    moments = {key: torch.zeros_like(param) for key in ("exp_avg", "exp_avg_sq")}
    # the fused kernel counts steps where the parameters are, the others on the host
    return {"step": torch.zeros((), device=param.device if group["fused"] else "cpu"), **moments}


def update_if(optimizer: torch.optim.AdamW, finite: torch.Tensor) -> None:
    """One update where `finite` (0-d bool, where the parameters are) holds; else nothing changes, decay and counters included.

    The fused kernel looks at the flag itself, so the host does not wait for a GPU.
    """
    if all(group["fused"] for group in optimizer.param_groups):
        optimizer.found_inf = finite.logical_not().float()
        optimizer.step()
    elif bool(finite):
        optimizer.step()
    else:
        # A checkpoint of now should have a state for every parameter, as one of any other step.
        for group in optimizer.param_groups:
            for param in group["params"]:
                if not optimizer.state[param]:
                    optimizer.state[param] = fresh_state(group, param)


def freeze(model: nn.Module, *, ft_llm: bool, ft_vit: bool, ft_connector: bool, ft_embedding: str) -> None:
    """Switch off gradients of what is not trained.

    `ft_embedding` acts on the language model when it is trained: `all` trains everything, otherwise only the named one
    of {wte: input embedding, lm_head: output head and final norm, ln_f: final norm} of these three parts.
    """
    groups = model.parameter_groups()
    for group, train in (("llm", ft_llm), ("vit", ft_vit), ("connector", ft_connector)):
        for _, p in groups[group]:
            p.requires_grad_(train)
    if ft_embedding not in _EMBEDDING_PARTS:
        raise OLMoConfigurationError(f"ft_embedding must be one of {', '.join(_EMBEDDING_PARTS)}, not '{ft_embedding}'")
    trained = _EMBEDDING_PARTS[ft_embedding]
    if ft_llm:
        for name, p in groups["llm"]:
            part = _embedding_part(name)
            if part is not None:
                p.requires_grad_(part in trained)


def adapt(model: ModelBase, config: LoraConfig, ft_embedding: str) -> list[str]:
    """Put adapters into the layers that `config` names and freeze the rest as it says; returns the names of these layers."""
    whole = set(config.train_whole)
    if unknown := whole - {"llm", "connector", "vit"}:
        raise OLMoConfigurationError(f"lora.train_whole: '{min(unknown)}' must be one of llm, connector, vit")
    layers = add_adapters(model, config, model.group_of, GROUPS)
    adapted = {model.group_of(f"{layer}.weight") for layer in layers}
    if both := adapted & whole:
        raise OLMoConfigurationError(f"lora.train_whole: {min(both)} has adapters, and a layer with one is frozen")
    freeze(model, ft_llm="llm" in whole, ft_vit="vit" in whole, ft_connector="connector" in whole, ft_embedding=ft_embedding)
    for name, p in model.named_parameters():
        if is_adapter(name):
            p.requires_grad_(True)
        elif SCORER in adapted and model.group_of(name) == SCORER:
            p.requires_grad_(False)
    return layers


_EMBEDDING_PARTS = {"all": ("wte", "ff_out", "ln_f"), "lm_head": ("ff_out", "ln_f"), "ln_f": ("ln_f",), "wte": ("wte",)}


def _embedding_part(name: str) -> str | None:
    parts = name.split(".")
    if "blocks" in parts:
        return None
    return next((p for p in ("wte", "ff_out", "ln_f") if p in parts), None)


def clip_gradients(groups: Iterable[dict], max_norm: float | None) -> dict[str, torch.Tensor]:
    """Clip every group (by name) to `max_norm` on its own; returns the norms before clipping as 0-d tensors."""
    by_name: dict[str, list[torch.Tensor]] = {}
    params: dict[str, list[nn.Parameter]] = {}
    for group in groups:
        with_grad = [p for p in group["params"] if p.grad is not None]
        params.setdefault(group["group_name"], []).extend(with_grad)
        by_name.setdefault(group["group_name"], []).extend(p.grad for p in with_grad)
    norms = {}
    for name, grads in by_name.items():
        if not grads:
            continue
        norm = nn.utils.get_total_norm(grads)
        norms[name] = whole(norm)
        if max_norm is not None:
            nn.utils.clip_grads_with_norm_(params[name], max_norm, norms[name])
    return norms
