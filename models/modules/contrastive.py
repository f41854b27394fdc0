"""Repulsion between the predictions of a batch (IMECD, eq. 15).

Shape legend: b batch, d width.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def repulsion_loss(
    predictions: Tensor,
    *,
    temperature: float = 1.0,
    exclude_self: bool = False,
    same: Tensor | None = None,
) -> Tensor:
    """Mean over rows of ``log sum exp(cos / temperature)`` over the rows of the batch (IMECD eq. 15).

    With temperature 1 the value lies between ``log(e + (b - 1) e^(-1/(b - 1)))`` and ``1 + log b``.

    Args:
        predictions: float ``[b, d]``.
        temperature: Divides the cosines; the paper prints none.
        exclude_self: Leave out the row itself, whose cosine is the constant 1.
        same: int64 ``[b]`` labels; other rows with the same label are left out. None: nothing is.

    Returns:
        Scalar; 0 when no row has anything to be pushed from.
    """
    rows = predictions.shape[0]
    unit = F.normalize(predictions, dim=1)
    cosine = unit @ unit.T / temperature  # [b, b]
    itself = torch.eye(rows, dtype=torch.bool, device=predictions.device)
    left_out = itself if exclude_self else torch.zeros_like(itself)
    if same is not None:
        left_out = left_out | ((same.unsqueeze(0) == same.unsqueeze(1)) & ~itself)
    kept = ~left_out.all(dim=1)
    if not bool(kept.any()):
        return predictions.sum() * 0.0
    return torch.logsumexp(cosine.masked_fill(left_out, float("-inf"))[kept], dim=1).mean()
