"""Independent implementations with the same random weights, in fp32: the largest error of each is printed (`pytest -rP`)."""

import torch
from torch import Tensor, nn

HIDDEN, FEATURES, LOGITS = 5e-6, 2e-5, 1e-5
"""Allowed max|error| / max|reference|."""


def check_close(actual: Tensor, reference: Tensor, k: float, what: str) -> None:
    """max|error| <= k x max|reference|; the error is printed."""
    assert actual.shape == reference.shape, f"{what}: {tuple(actual.shape)} against {tuple(reference.shape)}"
    error, limit = (actual - reference).abs().max().item(), k * reference.abs().max().item()
    print(f"oracle {what}: error {error:.2e}, limit {limit:.2e}, used {error / limit if limit else float(error > 0):.3f}")
    assert error <= limit, f"{what}: {error:.3g} > {limit:.3g}"


def randomise(module: nn.Module) -> None:
    """Weights that keep the loudness of what passes, and vectors (norms, biases, scales) that are nowhere 0 or 1."""
    for parameter in module.parameters():
        if parameter.dim() <= 1:
            nn.init.normal_(parameter, mean=0.5, std=0.3)
        else:
            nn.init.normal_(parameter, std=parameter[0].numel() ** -0.5)


def no_grad(module: nn.Module) -> nn.Module:
    """Ready to be compared: random weights, evaluation mode."""
    torch.manual_seed(0)
    randomise(module)
    return module.eval().requires_grad_(False)
