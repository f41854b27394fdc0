"""Ranking losses over the catalogue. Padding is never a class.

Shape legend: m predictions, n items, d width, k negatives.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn import LinearCrossEntropyOptions

#: Predictions scored at once on a CPU: keeps the logits in cache-sized pieces (measured: 1.4 to 3.5 times less time
#: than the whole ``[m, n]`` product at 12,000 to 19,000 items, and a fraction of the memory).
CPU_CHUNK = 256

#: Bytes of logits above which a CPU takes fewer: with large catalogues they would be most of a step's memory.
CPU_LOGIT_BYTES = 40 * 2**20

#: Bytes of logits above which an accelerator, too, works in pieces.
DEVICE_LOGIT_BYTES = 4 * 2**30
DEVICE_CHUNK = 2048


def full_softmax_loss(h: Tensor, table: Tensor, target: Tensor, *, temperature: float = 1.0) -> Tensor:
    """Mean cross-entropy of the target among all items: ``-log softmax(h E^T / temperature)[target]``.

    The logits are made in pieces (``linear_cross_entropy``), so that memory does not grow with m · n. There is no
    second derivative through the pieces.

    Args:
        h: float ``[m, d]``.
        table: float ``[n + 1, d]``; row 0, padding, is left out of the softmax.
        target: int64 ``[m]``, 1..n.
        temperature: Divides the logits.

    Returns:
        Scalar.
    """
    if temperature != 1.0:
        h = h / temperature
    chunk = _chunk(h, n_items=table.shape[0] - 1)
    options = LinearCrossEntropyOptions(batch_chunk_size=chunk) if chunk < h.shape[0] else None
    return F.linear_cross_entropy(h, table[1:], target - 1, options=options)


def sampled_softmax_loss(
    h: Tensor, table: Tensor, target: Tensor, negatives: Tensor, *, log_q: Tensor | None = None
) -> Tensor:
    """Mean cross-entropy of the target among itself and sampled negatives (Bengio & Senécal 2008).

    A negative that equals the target of its row is left out.

    Args:
        h: float ``[m, d]``.
        table: float ``[n + 1, d]``.
        target: int64 ``[m]``, 1..n.
        negatives: int64 ``[m, k]`` (per row) or ``[k]`` (shared), 1..n.
        log_q: float ``[n + 1]``, log-probability with which each item is drawn, subtracted from its logit; None for
            a uniform draw, where it is a constant.

    Returns:
        Scalar.
    """
    positive, others = _sampled_logits(h, table, target, negatives)
    if log_q is not None:
        positive, others = positive - log_q[target].unsqueeze(1), others - log_q[negatives]
    return F.cross_entropy(torch.cat((positive, others), dim=1), torch.zeros_like(target))


def gbce_loss(
    h: Tensor, table: Tensor, target: Tensor, negatives: Tensor, *, n_items: int, calibration: float = 0.75
) -> Tensor:
    """Generalised binary cross-entropy (gBCE of Petrov & Macdonald, RecSys 2023, arXiv 2308.07192).

    With few negatives plain binary cross-entropy overrates every item. Here the target's probability is raised to the
    power beta = alpha · (t · (1 - 1/alpha) + 1/alpha), alpha = k / (n - 1) being the share of the other items that is
    drawn: t = 0 is plain binary cross-entropy, t = 1 estimates the softmax's probabilities.

        L = -1/(k + 1) · mean (beta · log sigmoid(s_target) + sum log(1 - sigmoid(s_negative)))

    The paper's code transforms the target's logit in float64, so that its sigmoid becomes sigmoid(s)^beta. The
    logarithm of that power is a product, which needs neither. A negative that equals the target of its row is left
    out.

    Args:
        h: float ``[m, d]``.
        table: float ``[n + 1, d]``.
        target: int64 ``[m]``, 1..n.
        negatives: int64 ``[m, k]`` (per row) or ``[k]`` (shared), drawn uniformly from 1..n.
        n_items: n.
        calibration: t, from 0 to 1.

    Returns:
        Scalar.
    """
    positive, others = _sampled_logits(h, table, target, negatives)
    count = negatives.shape[-1]
    beta = calibration * (count / (n_items - 1) - 1.0) + 1.0  # the same as above, without the division by alpha
    total = beta * F.logsigmoid(positive.squeeze(1)) + F.logsigmoid(-others).sum(dim=1)
    return -total.mean() / (count + 1)


def _sampled_logits(h: Tensor, table: Tensor, target: Tensor, negatives: Tensor) -> tuple[Tensor, Tensor]:
    """Logits of the targets ``[m, 1]`` and of the negatives ``[m, k]``, ``-inf`` where those are the target."""
    positive = (h * F.embedding(target, table)).sum(dim=1, keepdim=True)
    vectors = F.embedding(negatives, table)
    others = h @ vectors.T if negatives.ndim == 1 else torch.einsum("md,mkd->mk", h, vectors)
    return positive, others.masked_fill(negatives == target.unsqueeze(1), float("-inf"))


def _chunk(h: Tensor, *, n_items: int) -> int:
    """Predictions per piece; at least as many as there are when one piece is best."""
    if h.device.type == "cpu":
        return max(1, min(CPU_CHUNK, CPU_LOGIT_BYTES // (n_items * h.element_size())))
    fits = h.shape[0] * n_items * h.element_size() <= DEVICE_LOGIT_BYTES
    return h.shape[0] if fits else DEVICE_CHUNK
