"""Normalisation layers, with the rounding order that published checkpoints were trained with."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from olmo.exceptions import OLMoConfigurationError


class _Norm(nn.Module):
    """Parameters common to all kinds: `weight` and `bias`, each optional."""

    def __init__(self, dim: int, eps: float, affine: bool = True, bias: bool = False):
        super().__init__()
        self.dim, self.eps = dim, eps
        self.weight = nn.Parameter(torch.ones(dim)) if affine else None
        self.bias = nn.Parameter(torch.zeros(dim)) if affine and bias else None

    def reset_parameters(self) -> None:
        if self.weight is not None:
            nn.init.ones_(self.weight)
        if self.bias is not None:
            nn.init.zeros_(self.bias)


class RMSNorm(_Norm):
    """Root-mean-square norm: computed in fp32, cast back to the input's dtype, and only then scaled by the weight."""

    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast(x.device.type, enabled=False):
            wide = x.float() if x.dtype in (torch.bfloat16, torch.float16) else x
            y = (wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + self.eps)).to(x.dtype)
        if self.weight is not None:
            y = y * self.weight
        return y if self.bias is None else y + self.bias


class LayerNorm(_Norm):
    """Layer norm; autocast runs it in fp32."""

    def forward(self, x: Tensor) -> Tensor:
        return F.layer_norm(x, (self.dim,), self.weight, self.bias, self.eps)


class LowPrecisionLayerNorm(_Norm):
    """Layer norm in the autocast dtype."""

    def forward(self, x: Tensor) -> Tensor:
        device = x.device.type
        dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else x.dtype
        with torch.autocast(device, enabled=False):
            weight, bias = (None if p is None else p.to(dtype) for p in (self.weight, self.bias))
            return F.layer_norm(x.to(dtype), (self.dim,), weight, bias, self.eps)


NORMS = {"rms": RMSNorm, "default": LayerNorm, "low_precision": LowPrecisionLayerNorm}


def build_norm(kind: str, dim: int, eps: float, affine: bool = True, bias: bool = False) -> nn.Module:
    """Build the norm named `kind` as in `layer_norm_type`."""
    if str(kind) not in NORMS:
        raise OLMoConfigurationError(f"layer_norm_type '{kind}' is unknown; known: {', '.join(NORMS)}")
    return NORMS[str(kind)](dim, eps, affine, bias)
