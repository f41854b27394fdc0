"""Several processes that train one model: who this one is, and what they exchange.

The processes are ranks of torch's default process group; a process that is alone exchanges nothing, and none of these
functions then costs anything.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor


@dataclass(frozen=True)
class Workers:
    """The place of this process among those that work together.

    Attributes:
        rank: 0 up to ``world - 1``; the first one writes files.
        world: Number of processes.
    """

    rank: int = 0
    world: int = 1

    @property
    def first(self) -> bool:
        """Whether this process writes."""
        return self.rank == 0

    def total(self, tensor: Tensor) -> Tensor:
        """The sum of every process's tensor of one shape."""
        if self.world > 1:
            tensor = tensor.clone()
            dist.all_reduce(tensor)
        return tensor

    def same(self, tensors: Iterable[Tensor]) -> None:
        """Overwrite the tensors with those of the first process."""
        if self.world > 1:
            for tensor in tensors:
                dist.broadcast(tensor, src=0)

    def gather(self, rows: Tensor) -> Tensor:
        """The rows of all processes, in the order of their ranks; no gradient passes.

        Args:
            rows: ``[r, *shape]``; ``r`` may differ from process to process, the rest may not.

        Returns:
            ``[sum of r, *shape]``.
        """
        if self.world == 1:
            return rows
        counts = self.counts(rows)
        longest = max(counts)
        padded = rows.new_zeros((longest, *rows.shape[1:]))
        padded[: len(rows)] = rows
        parts = [torch.empty_like(padded) for _ in counts]
        dist.all_gather(parts, padded)
        return torch.cat([part[:count] for part, count in zip(parts, counts, strict=True)])

    def wait(self) -> None:
        """Return when every process has come here."""
        if self.world > 1:
            dist.barrier()

    def counts(self, rows: Tensor) -> list[int]:
        """The number of rows of each process."""
        counts = torch.zeros(self.world, dtype=torch.int64, device=rows.device)
        counts[self.rank] = len(rows)
        dist.all_reduce(counts)
        return counts.tolist()


#: One process by itself.
ALONE = Workers()


def workers() -> Workers:
    """This process's place in torch's process group; :data:`ALONE` without one."""
    if not dist.is_available() or not dist.is_initialized():
        return ALONE
    return Workers(rank=dist.get_rank(), world=dist.get_world_size())


def gather_rows(rows: Tensor) -> Tensor:
    """The rows of all processes with their gradients, for losses that compare the examples of a batch.

    Contrast the own rows with these and return the mean over the own rows: the loop weighs each process's loss by its
    share of the batch, so the gradient is that of the whole batch in one process. Every process must call it.

    Args:
        rows: float ``[r, *shape]``; ``r`` may differ from process to process.

    Returns:
        float ``[sum of r, *shape]`` in the order of the ranks; ``rows`` itself when there is one process.
    """
    group = workers()
    return rows if group.world == 1 else _GatherRows.apply(rows, group)  # pyright: ignore[reportReturnType]


def own_rows(rows: Tensor) -> slice:
    """Where the rows that this process gave stand among those that :func:`gather_rows` returns."""
    return _own(workers(), rows)


def _own(group: Workers, rows: Tensor) -> slice:
    start = sum(group.counts(rows)[: group.rank]) if group.world > 1 else 0
    return slice(start, start + len(rows))


class _GatherRows(torch.autograd.Function):
    """Gather forwards; backwards, add what every process has to say about a row and keep the own rows."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, group: Workers) -> Tensor:
        ctx.group, ctx.own = group, _own(group, rows)
        return group.gather(rows)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor, None]:
        return ctx.group.total(grad_outputs[0].contiguous())[ctx.own], None
