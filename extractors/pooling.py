"""From token vectors to one vector. Pure functions; ``b`` rows, ``l`` tokens, ``d`` width."""

from __future__ import annotations

import torch
from torch import Tensor


def cls(tokens: Tensor) -> Tensor:
    """The first token of each row.

    Args:
        tokens: ``[b, l, d]``.

    Returns:
        float32 ``[b, d]``.
    """
    return tokens[:, 0].float()


def masked_mean(tokens: Tensor, mask: Tensor) -> Tensor:
    """Mean over the real tokens of each row; padding has no influence.

    Args:
        tokens: ``[b, l, d]``.
        mask: ``[b, l]``, non-zero for a real token.

    Returns:
        float32 ``[b, d]``.

    Raises:
        ValueError: When a row has no real token: its mean does not exist.
    """
    weight = mask.bool()
    count = weight.sum(dim=1)
    if bool((count == 0).any()):
        row = int(torch.nonzero(count == 0)[0])
        raise ValueError(f"masked_mean: row {row} has no unmasked token")
    kept = tokens.float().masked_fill(~weight.unsqueeze(-1), 0.0)  # [b, l, d]; a NaN in padding does not spread
    return kept.sum(dim=1) / count.unsqueeze(-1)


def tubelet_means(tokens: Tensor, frames: int) -> Tensor:
    """Mean of the patch tokens of each tubelet.

    VideoMAE orders its tokens by tubelet first, so the tokens of one tubelet are neighbours.

    Args:
        tokens: ``[b, frames * p, d]`` with ``p`` patches a tubelet.
        frames: Number of tubelets, ``f``.

    Returns:
        float32 ``[b, f, d]``.

    Raises:
        ValueError: When the tokens do not divide into ``frames`` equal parts.
    """
    b, length, d = tokens.shape
    if length % frames:
        raise ValueError(f"tubelet_means: {length} tokens do not divide into {frames} tubelets")
    return tokens.float().reshape(b, frames, length // frames, d).mean(dim=2)
