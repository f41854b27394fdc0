"""Frozen content features of the catalogue.

Shape legend: n items, b batch.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


class FeatureTable(nn.Module):
    """A frozen table of content vectors, standardised column by column over the items that have the feature.

    Encoders differ in scale by orders of magnitude, and some columns of a transformer's output are a hundred times
    larger than the rest; diffusion adds noise of variance 1. Rows of zeros (padding, items without the feature)
    stay zero, which after standardising is the mean of the catalogue. Columns that are constant become zero.

    The table is a non-persistent buffer: it moves with the model and is not written into checkpoints.

    Attributes:
        shape: Shape of one item's feature.
    """

    values: Tensor

    def __init__(self, table: Tensor, *, dtype: torch.dtype = torch.float32, noise_std: float = 0.0) -> None:
        """Standardise ``table``.

        Args:
            table: float ``[n + 1, *shape]``; the last dimension holds the columns.
            dtype: Type in which the table is kept; rows are returned as float32.
            noise_std: Deviation of Gaussian noise added once to every present row, drawn from torch's default
                generator (the robustness experiment of MealRec, Fig. 5); fork it where weights should not depend on it.
        """
        super().__init__()
        present = table.flatten(1).ne(0).any(dim=1)
        rows = table[present].double()
        columns = rows.flatten(0, -2) if rows.ndim > 2 else rows  # [present * .., d]
        standard = torch.zeros(table.shape, dtype=torch.float32)
        if len(columns):
            mean, std = columns.mean(dim=0), columns.std(dim=0, unbiased=False)
            floor = 1e-6 * columns.abs().amax(dim=0).clamp(min=1e-12)  # a constant column is rounding, not content
            scaled = torch.where(std > floor, (rows - mean) / std.clamp(min=1e-30), torch.zeros_like(rows)).float()
            standard[present] = scaled + noise_std * torch.randn(scaled.shape) if noise_std else scaled
        self.shape = tuple(table.shape[1:])
        self.register_buffer("values", standard.to(dtype), persistent=False)

    @property
    def table(self) -> Tensor:
        """float32 ``[n + 1, *shape]``: all rows."""
        return self.values.float()

    def forward(self, item_ids: Tensor) -> Tensor:
        """float32 ``[..., *shape]`` of int64 ids ``[...]``."""
        return self.values[item_ids].float()
