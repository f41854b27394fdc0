"""Other views of a sequence: a part of it, some items hidden, a part shuffled (Xie et al., arXiv 2010.14395).

All rows are worked on at once, and every draw comes from the generator.

Shape legend: b batch, l sequence length.
"""

from __future__ import annotations

import torch
from torch import Tensor


def share_of(lengths: Tensor, ratio: float) -> Tensor:
    """``floor(ratio · length)`` of int64 lengths, as int64; 0.29 of 100 is 29, whatever the rounding error."""
    return (lengths * ratio + 1e-9).floor().long()


def crop(item_ids: Tensor, mask: Tensor, ratio: float, *, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Keep one contiguous run (item crop of CL4SRec): ``floor(ratio · n)`` of n items, at least one.

    Args:
        item_ids: int64 ``[b, l]``, padded on the right with 0.
        mask: bool ``[b, l]``, True on real items.
        ratio: eta, 0 to 1.
        generator: Draws where the run begins, every place equally likely.

    Returns:
        The run at the front of its row ``[b, l]``, padded on the right, and its mask. An empty row stays empty.
    """
    lengths = mask.sum(dim=1)
    kept = torch.minimum(share_of(lengths, ratio).clamp(min=1), lengths)
    start = _start(lengths, kept, generator=generator)
    place = torch.arange(mask.shape[1], device=mask.device)
    cropped = place < kept.unsqueeze(1)
    source = (start.unsqueeze(1) + place).clamp(max=mask.shape[1] - 1)
    return item_ids.gather(1, source) * cropped, cropped


def random_positions(mask: Tensor, count: Tensor, *, generator: torch.Generator) -> Tensor:
    """Choose exactly ``count`` real positions of every row, every set of them equally likely.

    Args:
        mask: bool ``[b, l]``, True on real items.
        count: int64 ``[b]``, at most the number of real items.
        generator: Source of the draws.

    Returns:
        bool ``[b, l]``.
    """
    noise = _uniform(mask.shape, mask, generator=generator).masked_fill(~mask, 2.0)
    rank = noise.argsort(dim=1, stable=True).argsort(dim=1)
    return rank < count.unsqueeze(1)


def reorder(item_ids: Tensor, mask: Tensor, ratio: float, *, generator: torch.Generator) -> Tensor:
    """Shuffle one contiguous run (item reorder of CL4SRec): ``floor(ratio · n)`` of n items.

    Args:
        item_ids: int64 ``[b, l]``, padded on the right.
        mask: bool ``[b, l]``, True on real items.
        ratio: beta, 0 to 1.
        generator: Draws where the run begins, every place equally likely, and its order, every one equally likely.

    Returns:
        int64 ``[b, l]``; everything outside the run stays where it is.
    """
    lengths = mask.sum(dim=1)
    count = share_of(lengths, ratio)
    start = _start(lengths, count, generator=generator).unsqueeze(1)
    place = torch.arange(mask.shape[1], device=mask.device)
    inside = (place >= start) & (place < start + count.unsqueeze(1))
    # Within the run any number between its ends, outside the place itself: sorting moves nothing across the ends.
    anywhere = start + count.unsqueeze(1) * _uniform(mask.shape, mask, generator=generator)
    return item_ids.gather(1, torch.where(inside, anywhere, place.double()).argsort(dim=1, stable=True))


def _start(lengths: Tensor, count: Tensor, *, generator: torch.Generator) -> Tensor:
    """Where runs of ``count`` of ``length`` items begin: int64 ``[b]``, uniform."""
    places = lengths - count + 1
    return torch.minimum((places * _uniform(lengths.shape, lengths, generator=generator)).long(), places - 1)


def _uniform(shape: torch.Size, like: Tensor, *, generator: torch.Generator) -> Tensor:
    """float64 on the device of ``like``, in [0, 1): wide enough that no two of a row are equal."""
    return torch.rand(shape, generator=generator, device=generator.device, dtype=torch.float64).to(like.device)
