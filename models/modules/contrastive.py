"""Losses between the rows of a batch: repulsion of predictions (IMECD, eq. 15), agreement of two views (SimCLR).

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


def nt_xent_loss(
    first: Tensor, second: Tensor, *, temperature: float = 1.0, cosine: bool = False, same: Tensor | None = None
) -> Tensor:
    """Cross-entropy of a view's partner among all other views of the batch (Chen et al. 2020, eq. 1).

    Mean over the 2 b views of ``-log(exp(s(z, z+) / temperature) / sum exp(s(z, z') / temperature))``, where z' runs
    over the 2 b - 1 other views.

    Args:
        first: float ``[b, d]``, one view of every row.
        second: float ``[b, d]``, the other view.
        temperature: Divides the similarities.
        cosine: s is the cosine, as in SimCLR; otherwise the inner product, as in CL4SRec.
        same: int64 ``[b]`` labels; other rows with the same label are no negatives. None: all others are.

    Returns:
        Scalar; ``log(2 b - 1)`` when all similarities are equal, 0 for a row without negatives.
    """
    views = torch.cat((first, second))  # [2 b, d]
    views = F.normalize(views, dim=1) if cosine else views
    row = torch.arange(len(first), device=first.device)
    partner = torch.cat((row + len(first), row))  # [2 b]
    left_out = torch.eye(len(views), dtype=torch.bool, device=first.device)
    if same is not None:
        labels = same.repeat(2)
        left_out = left_out | (labels.unsqueeze(0) == labels.unsqueeze(1)).scatter(1, partner.unsqueeze(1), value=False)
    logits = views @ views.T / temperature
    return F.cross_entropy(logits.masked_fill(left_out, float("-inf")), partner)
