"""Rotary position embedding: default, llama3 and yarn frequencies, and layers that may use different ones.

The tables are computed from the position ids once per forward pass (S x head_dim numbers, nothing beside attention), so
there is no cache to size, no limit on positions and no buffer in the state dict.
"""

import math
from dataclasses import dataclass

import torch

from olmo.config import StrEnum
from olmo.exceptions import OLMoConfigurationError


class RopeType(StrEnum):
    default = "default"
    llama3 = "llama3"
    yarn = "yarn"


@dataclass(frozen=True)
class RopeSettings:
    """What determines the frequencies of one layer."""

    head_dim: int
    theta: float
    type: RopeType = RopeType.default
    factor: float | None = None
    low_freq_factor: float | None = None
    high_freq_factor: float | None = None
    original_max_positions: int | None = None
    attention_factor: float | None = None
    beta_fast: float | None = None
    beta_slow: float | None = None
    mscale: float | None = None
    mscale_all_dim: float | None = None
    truncate: bool = True
    """Round the ends of yarn's ramp outwards to whole dimensions."""


@dataclass(frozen=True)
class RopeTables:
    """Factors of one forward pass, fp32 [B, 1, S, head_dim]. Not a tensor container that wrappers would cast to bf16."""

    cos: torch.Tensor
    """Of a channel itself."""
    sin: torch.Tensor
    """Of its partner, half the channels away; negative in the first half."""


def rope_tables(settings: RopeSettings, position_ids: torch.Tensor) -> RopeTables:
    """Tables for `position_ids` [B, S]; padding (-1) reads position 0, nothing looks at its result."""
    frequencies, amplitude = inverse_frequencies(settings, position_ids.device)
    angles = position_ids.clamp(min=0).float()[:, None, :, None] * frequencies
    cos, sin = angles.cos() * amplitude, angles.sin() * amplitude
    return RopeTables(torch.cat([cos, cos], dim=-1), torch.cat([-sin, sin], dim=-1))


def apply_rope(x: torch.Tensor, tables: RopeTables, full_precision: bool = True) -> torch.Tensor:
    """Rotate x [B, H, S, hd], dimension j together with j + hd / 2."""
    cos, sin = (tables.cos, tables.sin) if full_precision else (tables.cos.to(x.dtype), tables.sin.to(x.dtype))
    # the partners come first: their layout, heads before tokens, is the one that attention reads fastest
    return (x.roll(x.shape[-1] // 2, dims=-1) * sin + x * cos).to(x.dtype)


def inverse_frequencies(s: RopeSettings, device: torch.device | str = "cpu") -> tuple[torch.Tensor, float]:
    """(fp32 [head_dim / 2] angle per position, factor on cos and sin)."""
    exponents = torch.arange(0, s.head_dim, 2, dtype=torch.float32, device=device) / s.head_dim
    plain = 1.0 / (s.theta**exponents)
    if s.type == RopeType.llama3:
        return _llama3(s, plain), 1.0
    if s.type == RopeType.yarn:
        return _yarn(s, plain), _yarn_amplitude(s)
    return plain, 1.0


def _require(s: RopeSettings, **values: float | None) -> None:
    missing = [f"llm.rope_{name}" for name, value in values.items() if value is None]
    if missing:
        raise OLMoConfigurationError(f"llm.rope_type '{s.type}' needs {' and '.join(missing)}")


def _llama3(s: RopeSettings, plain: torch.Tensor) -> torch.Tensor:
    _require(
        s,
        factor=s.factor,
        low_freq_factor=s.low_freq_factor,
        high_freq_factor=s.high_freq_factor,
        original_max_position_embeddings=s.original_max_positions,
    )
    turns = s.original_max_positions * plain / (2 * math.pi)  # rotations over the original context
    blend = ((turns - s.low_freq_factor) / (s.high_freq_factor - s.low_freq_factor)).clamp(0.0, 1.0)
    return blend * plain + (1.0 - blend) * plain / s.factor


def _yarn(s: RopeSettings, plain: torch.Tensor) -> torch.Tensor:
    _require(s, factor=s.factor, original_max_position_embeddings=s.original_max_positions)

    def dimension(rotations: float) -> float:
        return s.head_dim * math.log(s.original_max_positions / (rotations * 2 * math.pi)) / (2 * math.log(s.theta))

    low = dimension(32 if s.beta_fast is None else s.beta_fast)
    high = dimension(1 if s.beta_slow is None else s.beta_slow)
    if s.truncate:
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, s.head_dim - 1)
    steps = torch.arange(s.head_dim // 2, dtype=torch.float32, device=plain.device)
    slow = ((steps - low) / max(high - low, 0.001)).clamp(0.0, 1.0)  # 0: keep the frequency, 1: divide it by the factor
    return plain / s.factor * slow + plain * (1.0 - slow)


def _yarn_amplitude(s: RopeSettings) -> float:
    if s.attention_factor is not None:
        return s.attention_factor

    def mscale(weight: float) -> float:
        return 1.0 if s.factor <= 1 else 0.1 * weight * math.log(s.factor) + 1.0

    if s.mscale and s.mscale_all_dim:
        return mscale(s.mscale) / mscale(s.mscale_all_dim)
    return mscale(1.0)
