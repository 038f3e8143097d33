"""Initial weights: their distribution, and that a seed means the same ones everywhere."""

import pytest
import torch
from scipy import stats

from olmo.nn.init import truncated_normal_


@pytest.mark.parametrize(("std", "bound"), [(0.02, 0.06), (0.5, 0.5), (0.05, 2.0)])
def test_the_distribution(std, bound):
    """By Kolmogorov and Smirnov's distance of 100,000 numbers. Seen to fail with what lies outside moved to the bound."""
    weight = torch.empty(200, 500)
    truncated_normal_(weight, std, bound)
    assert weight.abs().max() <= bound
    expected = stats.truncnorm(-bound / std, bound / std, scale=std)
    assert stats.kstest(weight.flatten().double().numpy(), expected.cdf).statistic < 0.006


def test_a_seed_means_the_same_weights_under_every_torch():
    """Numbers drawn with torch 2.13, whose own function gives the same, and 2.10, whose own does not."""
    torch.manual_seed(0)
    weight = torch.empty(2, 16)
    truncated_normal_(weight, std=1.0, bound=1.0)
    first = [-0.613583, 0.031593, -0.250579, -0.433879, 0.84871, 0.692009, -0.316013, 0.441156]
    torch.testing.assert_close(weight.flatten()[:8], torch.tensor(first), rtol=0, atol=1e-5)
    torch.testing.assert_close(weight.sum().item(), 1.514036, rtol=0, atol=1e-5)


def test_weights_without_memory():
    truncated_normal_(torch.empty(3, 4, device="meta"), std=1.0, bound=0.1)
