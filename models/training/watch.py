"""The losses of an epoch: summed now and then, and checked when they are."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import polars as pl
import torch
from torch import Tensor

from models.distributed import Workers
from models.files import write_atomically
from models.sequences.batch import SequenceBatch

FAILED_BATCH_FILE = "failed_batch.parquet"

#: Steps between two looks at the losses: reading one from an accelerator waits for it.
CHECK_STEPS = 50


class LossWatch:
    """Holds the losses of the last steps on the device until they are looked at."""

    def __init__(self, workers: Workers) -> None:
        """Hold nothing yet."""
        self.workers = workers
        self.pending: list[dict[str, Tensor]] = []

    def add(self, losses: dict[str, Tensor]) -> bool:
        """Hold one step's losses; True when it is time to look at them."""
        self.pending.append(losses)
        return len(self.pending) == CHECK_STEPS

    def look(self, sums: dict[str, float]) -> tuple[int, dict[str, float]] | None:
        """Add what is held to ``sums``, of all processes together, and hold nothing.

        Returns:
            How many steps ago the first loss was that is not finite (1: the last step), with that step's losses, and
            ``sums`` as it was; None when all are finite.
        """
        if not self.pending:
            return None
        names = list(self.pending[0])
        table = torch.stack([torch.stack([row[name].double() for name in names]) for row in self.pending])
        values = self.workers.total(table).cpu()
        self.pending.clear()
        bad = (~values.isfinite()).any(dim=1).nonzero().flatten().tolist()
        if bad:
            return len(values) - bad[0], dict(zip(names, values[bad[0]].tolist(), strict=True))
        for row in values.tolist():
            for name, value in zip(names, row, strict=True):
                sums[name] = sums.get(name, 0.0) + value
        return None


def write_failed_batch(
    run_dir: Path, batch: SequenceBatch, *, epoch: int, step: int, losses: Mapping[str, float]
) -> Path:
    """Save the examples of a step whose loss is not finite, one row each.

    Columns: ``epoch``, ``step`` (from 1 within the epoch), ``user``, ``item_ids`` and ``targets`` (lists without the
    padding; with one prediction per example, ``targets`` holds one item) and each part of the loss of the whole batch.

    Returns:
        The file, ``failed_batch.parquet`` in the run's folder.
    """
    lengths = batch.lengths.tolist()
    ids = [row[:length] for row, length in zip(batch.item_ids.tolist(), lengths, strict=True)]
    if batch.targets is None:
        targets = [[target] for target in batch.target.tolist()]
    else:
        targets = [row[:length] for row, length in zip(batch.targets.tolist(), lengths, strict=True)]
    frame = pl.DataFrame(
        {"user": np.asarray(batch.user.cpu()), "item_ids": ids, "targets": targets},
        schema={"user": pl.Int64, "item_ids": pl.List(pl.Int64), "targets": pl.List(pl.Int64)},
    ).select(
        pl.lit(epoch).alias("epoch"),
        pl.lit(step).alias("step"),
        pl.all(),
        *(pl.lit(value, dtype=pl.Float64).alias(name) for name, value in losses.items()),
    )
    path = run_dir / FAILED_BATCH_FILE
    write_atomically(path, frame.write_parquet)
    return path
