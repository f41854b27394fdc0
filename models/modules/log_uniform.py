"""Negatives drawn by popularity rank: the log-uniform candidate sampler of TensorFlow.

The item of rank r (0 = most frequent) is drawn with probability ``log((r + 2) / (r + 1)) / log(n + 1)``, close to
Zipf's law, so that nothing but the order of the counts has to be known. The probabilities of 0..n-1 sum to 1.

Shape legend: n items, k negatives.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor


def by_frequency(counts: Tensor) -> Tensor:
    """Items in order of falling count, int64 ``[n]``, from int64 ``[n + 1]`` (entry 0, padding, is ignored).

    Of equal counts the smaller id comes first.
    """
    return counts[1:].argsort(descending=True, stable=True) + 1


def log_uniform_negatives(order: Tensor, count: int, *, generator: torch.Generator) -> Tensor:
    """Draw items with replacement.

    Args:
        order: int64 ``[n]``, the items, most frequent first.
        count: k.
        generator: Source of the draws.

    Returns:
        int64 ``[k]``.
    """
    uniform = torch.rand(count, generator=generator, device=generator.device, dtype=torch.float64).to(order.device)
    rank = torch.exp(uniform * math.log(len(order) + 1)).long() - 1  # the inverse of the distribution function
    return order[rank.clamp(max=len(order) - 1)]


def log_uniform_log_q(order: Tensor) -> Tensor:
    """Log-probability with which each item is drawn, float32 ``[n + 1]``; padding is never drawn: ``-inf``."""
    rank = torch.arange(len(order), device=order.device, dtype=torch.float64)
    log_q = torch.full((len(order) + 1,), float("-inf"), device=order.device)
    log_q[order] = (torch.log1p(1.0 / (rank + 1.0)).log() - math.log(math.log(len(order) + 1))).float()
    return log_q
