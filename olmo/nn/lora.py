"""Low-rank adapters (LoRA): a linear layer stays as it is, frozen, and a product of two small matrices is added to its result.

An adapter is a module `lora` inside the layer that it adapts, so that no other name changes: a checkpoint has
`...att_proj.weight` as always, and beside it `...att_proj.lora.a` and `...att_proj.lora.b`.
"""

import math
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import torch.nn.functional as F
from torch import Tensor, empty, nn

from olmo.config import BaseConfig
from olmo.exceptions import OLMoConfigurationError

ADAPTER = "lora"
"""Name of an adapter in its layer."""


@dataclass
class LoraConfig(BaseConfig):
    """Which linear layers get adapters, and how large these are."""

    targets: list[str] = field(default_factory=lambda: ["llm"])
    """Parts (llm, connector, vit, temporal_token_scorer) or regular expressions that are searched in the names of linear layers,
    such as `blocks.*att_proj`. Layers of which a side is no larger than `rank` are left out."""
    rank: int = 16
    """Width of an adapter."""
    alpha: float = 32.0
    """What an adapter adds is multiplied by alpha / rank."""
    dropout: float = 0.0
    """Dropout on what enters an adapter."""
    train_whole: list[str] = field(default_factory=list)
    """Parts (llm, connector, vit) that are trained whole beside the adapters. All others are frozen, but for a token scorer that has
    no adapters: it is always trained."""

    @property
    def scale(self) -> float:
        return self.alpha / self.rank

    def validate(self) -> None:
        if self.rank < 1:
            raise OLMoConfigurationError(f"lora.rank={self.rank}: must be at least 1")
        if not 0 <= self.dropout < 1:
            raise OLMoConfigurationError(f"lora.dropout={self.dropout}: must lie in [0, 1)")
        if not self.targets:
            raise OLMoConfigurationError("lora.targets is empty: name a part or a regular expression")


class Adapter(nn.Module):
    """x -> scale * B A dropout(x); zero at first, because B is."""

    def __init__(self, linear: nn.Linear, config: LoraConfig):
        super().__init__()
        self.scale, self.dropout = config.scale, config.dropout
        like = dict(dtype=linear.weight.dtype, device=linear.weight.device)
        self.a = nn.Parameter(empty(config.rank, linear.in_features, **like))
        self.b = nn.Parameter(empty(linear.out_features, config.rank, **like))

    def reset_parameters(self) -> None:
        nn.init.kaiming_uniform_(self.a, a=math.sqrt(5))  # as torch draws a linear layer
        nn.init.zeros_(self.b)

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(F.linear(F.dropout(x, self.dropout, self.training), self.a), self.b) * self.scale


class AdaptedLinear(nn.Linear):
    """A linear layer with an adapter; made from one that exists, whose parameters it takes over."""

    def __init__(self, linear: nn.Linear, config: LoraConfig):
        nn.Module.__init__(self)
        self.in_features, self.out_features = linear.in_features, linear.out_features
        self.weight, self.bias = linear.weight, linear.bias
        setattr(self, ADAPTER, Adapter(linear, config))

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) + getattr(self, ADAPTER)(x)


def add_adapters(model: nn.Module, config: LoraConfig, part_of: Callable[[str], str], parts: Iterable[str]) -> list[str]:
    """Adapt the layers that `config.targets` names, in place; returns their names.

    `part_of`: name of a parameter -> its part, one of `parts`. Every target must name at least one layer.
    """
    config.validate()
    parts = tuple(parts)
    linears = {n: m for n, m in model.named_modules() if isinstance(m, nn.Linear) and min(m.weight.shape) > config.rank}
    chosen: set[str] = set()
    for target in config.targets:
        if target in parts:
            found = {name for name in linears if part_of(f"{name}.weight") == target}
        else:
            found = {name for name in linears if _pattern(target).search(name)}
        if not found:
            raise OLMoConfigurationError(
                f"lora.targets: '{target}' names no linear layer of this model that is larger than rank {config.rank}; give a part "
                f"({', '.join(parts)}) or a regular expression for names such as {next(iter(linears), 'none')}"
            )
        chosen |= found
    for name in chosen:
        owner, _, leaf = name.rpartition(".")
        setattr(model.get_submodule(owner), leaf, AdaptedLinear(linears[name], config))
    return [name for name in linears if name in chosen]


def _pattern(target: str) -> re.Pattern:
    try:
        return re.compile(target)
    except re.error as err:
        raise OLMoConfigurationError(f"lora.targets: '{target}' is no part and no regular expression ({err})") from None


def is_adapter(name: str) -> bool:
    """Does the parameter `name` belong to an adapter?"""
    return ADAPTER in name.split(".")


def adapter_names(weight: str) -> tuple[str, str]:
    """Names of the two matrices that adapt the layer with this `weight`."""
    layer = weight.removesuffix(".weight")
    return f"{layer}.{ADAPTER}.a", f"{layer}.{ADAPTER}.b"


def merged(weight: Tensor, a: Tensor, b: Tensor, scale: float) -> Tensor:
    """The weight [out, in] of a plain layer that does what the adapted one does, summed in fp32 (fp64 for fp64), in its own dtype."""
    wide = weight.double() if weight.dtype.itemsize > 4 else weight.float()
    return (wide + scale * (b.to(wide.dtype) @ a.to(wide.dtype))).to(weight.dtype)


def draws_dropout(module: nn.Module) -> bool:
    """Whether some adapter below `module` drops at random."""
    return any(isinstance(m, Adapter) and m.dropout > 0 for m in module.modules())
