"""Losses between the rows of a batch: repulsion of predictions (IMECD, eq. 15), agreement of two views (SimCLR).

Processes that share a batch compare their rows with those of all of them.

Shape legend: b batch, d width.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from models.distributed import gather_rows, own_rows, workers


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
    unit = F.normalize(predictions.float(), dim=1)
    everyone = gather_rows(unit)  # [c, d], the b rows of this process among them
    cosine = _products(unit, everyone) / temperature  # [b, c]
    itself = _itself(unit, len(everyone))
    left_out = itself if exclude_self else torch.zeros_like(itself)
    if same is not None:
        left_out = left_out | ((workers().gather(same).unsqueeze(0) == same.unsqueeze(1)) & ~itself)
    kept = ~left_out.all(dim=1)
    if not bool(kept.any()):
        return everyone.sum() * 0.0
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
    pairs = torch.stack((first, second), dim=1).float()  # [b, 2, d]
    pairs = F.normalize(pairs, dim=-1) if cosine else pairs
    views, everyone = pairs.flatten(0, 1), gather_rows(pairs).flatten(0, 1)  # [2 b, d], [2 c, d]
    itself = _itself(views, len(everyone))
    partner = itself.unflatten(1, (-1, 2)).flip(2).flatten(1)  # a view and its partner stand side by side
    left_out = itself
    if same is not None:
        labels = workers().gather(same).repeat_interleave(2)
        left_out = left_out | ((labels == same.repeat_interleave(2).unsqueeze(1)) & ~partner)
    logits = _products(views, everyone) / temperature
    return F.cross_entropy(logits.masked_fill(left_out, float("-inf")), partner.int().argmax(dim=1))


def _products(rows: Tensor, everyone: Tensor) -> Tensor:
    """Inner products ``[r, c]`` in float32, under autocast too: the temperature would magnify what bfloat16 drops."""
    with torch.autocast(rows.device.type, enabled=False):
        return rows @ everyone.T


def _itself(rows: Tensor, columns: int) -> Tensor:
    """Bool ``[r, columns]``: where each row of this process stands among the rows of all."""
    found = torch.zeros(len(rows), columns, dtype=torch.bool, device=rows.device)
    found[:, own_rows(rows)].fill_diagonal_(fill_value=True)
    return found
