"""Several interests from one history: the guidance extractors of DimeRec (eq. 15-17).

Every extractor maps item vectors ``[b, l, d]`` and their mask ``[b, l]`` (True on real items, padded on the right) to
``[b, k, d]``.

Shape legend: b batch, l sequence length, d width, k interests.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.modules.length import check_length
from models.modules.transformer import init_linear


class SelfAttentiveInterests(nn.Module):
    """``A = softmax_l(W2 tanh(W1 (H + P)))``, ``g = A^T H`` (DimeRec eq. 16-17, ComiRec-SA).

    The softmax runs over the sequence, as in ComiRec; the paper does not name the axis. Values are the item vectors
    without positions. Positions count from the newest item back, so that attention can find it in histories of any
    length; ComiRec counts from the oldest.
    """

    def __init__(self, d: int, interests: int, *, max_length: int) -> None:
        """Build the two layers (d -> 4 d -> k) and the positions."""
        super().__init__()
        self.age = nn.Embedding(max_length, d)
        nn.init.normal_(self.age.weight, std=0.02)
        self.hidden = nn.Linear(d, 4 * d)
        self.out = nn.Linear(4 * d, interests, bias=False)  # the softmax over the sequence ignores a shift

    def weights(self, items: Tensor, mask: Tensor) -> Tensor:
        """A, float ``[b, l, k]``: sums to 1 over the real positions, 0 on padding (and for an empty history).

        Raises:
            ValueError: When the sequence is longer than the table of positions.
        """
        check_length(items.shape[1], self.age.num_embeddings)
        logits = self.out(torch.tanh(self.hidden(items + self.age(ages(mask)))))
        return masked_softmax(logits, mask.unsqueeze(-1), dim=1)

    def forward(self, items: Tensor, mask: Tensor) -> Tensor:
        """Weighted sums of the item vectors (eq. 17)."""
        return self.weights(items, mask).transpose(1, 2) @ items


class DynamicRouting(nn.Module):
    """Capsules by routing-by-agreement (ComiRec-DR; Sabour et al. 2017).

    Every pair of position and interest has a map of its own (``bilinear_type=2`` of the published code), through which
    an item votes for an interest. The share of each item is spread over the interests, equally at first, in three
    rounds, with a gradient through the last one only. Positions count from the newest item back, those of ComiRec from
    the oldest.
    """

    def __init__(self, d: int, interests: int, *, max_length: int, rounds: int = 3) -> None:
        """Build the maps, float ``[max_length, d, k d]``, uniform within 1/sqrt(d)."""
        super().__init__()
        self.rounds, self.interests = rounds, interests
        bound = 1.0 / math.sqrt(d)
        self.maps = nn.Parameter(torch.empty(max_length, d, interests * d).uniform_(-bound, bound))

    def forward(self, items: Tensor, mask: Tensor) -> Tensor:
        """Squashed capsules.

        Raises:
            ValueError: When the sequence is longer than there are maps.
        """
        votes = self._votes(items, mask)  # [b, l, k, d]
        frozen = votes.detach()
        logits = votes.new_zeros(votes.shape[:3])
        capsules = votes.new_zeros(())
        for step in range(self.rounds):
            last = step == self.rounds - 1
            coupling = torch.softmax(logits, dim=2) * mask.unsqueeze(-1)
            capsules = squash(torch.einsum("blk,blkd->bkd", coupling, votes if last else frozen))
            if not last:
                logits = logits + torch.einsum("blkd,bkd->blk", frozen, capsules)
        return capsules

    def _votes(self, items: Tensor, mask: Tensor) -> Tensor:
        """Float ``[b, l, k, d]``, the newest item first."""
        check_length(items.shape[1], self.maps.shape[0])
        newest_first = items.gather(1, ages(mask).unsqueeze(-1).expand_as(items))
        votes = newest_first.transpose(0, 1) @ self.maps[: items.shape[1]]  # [l, b, k d]
        return votes.transpose(0, 1).unflatten(2, (self.interests, -1))


class MlpInterests(nn.Module):
    """Mean of the item vectors through a network with one hidden layer of 4 d, split into k interests."""

    def __init__(self, d: int, interests: int) -> None:
        super().__init__()
        self.interests = interests
        self.layers = nn.Sequential(nn.Linear(d, 4 * d), nn.Tanh(), nn.Linear(4 * d, interests * d))
        self.layers.apply(init_linear)

    def forward(self, items: Tensor, mask: Tensor) -> Tensor:
        """``[b, l, d]`` -> ``[b, k, d]``."""
        mean = (items * mask.unsqueeze(-1)).sum(dim=1) / mask.sum(dim=1, keepdim=True).clamp(min=1)
        return self.layers(mean).unflatten(1, (self.interests, -1))


class RecentItems(nn.Module):
    """The vectors of the k latest items, oldest first (DimeRec eq. 15).

    Where the history is shorter, its oldest item stands in for what is missing: a vector of zeros would be the nearest
    interest of every target to which all items have a negative inner product.
    """

    def __init__(self, interests: int) -> None:
        super().__init__()
        self.interests = interests

    def forward(self, items: Tensor, mask: Tensor) -> Tensor:
        """``[b, l, d]`` -> ``[b, k, d]``."""
        lengths = mask.sum(dim=1, keepdim=True)
        index = (lengths - self.interests + torch.arange(self.interests, device=mask.device)).clamp(min=0)
        picked = items.gather(1, index.unsqueeze(-1).expand(-1, -1, items.shape[2]))
        return picked * (lengths > 0).unsqueeze(-1)


def ages(mask: Tensor) -> Tensor:
    """Items since each position, int64 ``[b, l]``: 0 at the newest item (and on padding)."""
    return (mask.sum(dim=1, keepdim=True) - 1 - torch.arange(mask.shape[1], device=mask.device)).clamp(min=0)


def nearest_interest(interests: Tensor, target: Tensor) -> Tensor:
    """The interest with the largest inner product with the target (DimeRec eq. 18): ``[b, k, d]``, ``[b, d]`` -> d."""
    best = torch.einsum("bkd,bd->bk", interests, target).argmax(dim=1)
    return interests[torch.arange(len(best), device=best.device), best]


def masked_softmax(logits: Tensor, mask: Tensor, *, dim: int) -> Tensor:
    """Softmax over the places where ``mask`` (broadcastable) is True; 0 elsewhere, and 0 where it is nowhere True."""
    return F.softmax(logits.masked_fill(~mask, torch.finfo(logits.dtype).min), dim=dim) * mask


def squash(x: Tensor) -> Tensor:
    """Shrink vectors ``[..., d]`` to a length below 1, keeping their direction (Sabour et al. 2017, eq. 1)."""
    square = x.square().sum(dim=-1, keepdim=True)
    return square / (1.0 + square) * x * torch.rsqrt(square + 1e-9)
