"""What a model of a pinned experiment reads, in its own numbering of the items.

With ``missing = "drop"`` the catalogue of a model is smaller than the prepared dataset's and its items are numbered
anew. Everything that a model touches comes from :func:`read_inputs`; everything that is written about items carries
their ids or the prepared dataset's numbers.

Shape legend: n items of the model, u users.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray
from torch import Tensor

from flows.errors import CallError
from flows.jobs.pinning import Pinned, tables_read
from models import registry
from models.errors import MissingFeatureError
from models.evaluation.ranking import RankTable
from models.missing import MissingPolicy, apply_missing, complete_items, drop_items, present_items
from models.sequences.dataset import SequenceData

if TYPE_CHECKING:
    from datasets_spec.prepare import PreparedDataset
    from feature_store import Snapshot
    from models.interface import Recommender

_LISTED = 10


@dataclass(frozen=True)
class RunInputs:
    """A prepared dataset and feature tables as a model sees them.

    Attributes:
        items: One row per item of the model, in the order of its numbers: ``item`` is 1..n.
        data: The interactions, with these numbers.
        tables: Feature tables float32 ``[n + 1, *shape]`` by name, after the policy for missing rows.
        numbers: int64 ``[n + 1]``: the prepared dataset's number of each item; 0 for the padding.
        missing: The policy and what it met: ``policy``, ``dropped`` (items that were taken out) and ``tables`` (by
            name: how many items of the dataset have no row, and the ids of the first ten).
    """

    items: pl.DataFrame
    data: SequenceData
    tables: dict[str, Tensor]
    numbers: NDArray[np.int64]
    missing: dict[str, Any]

    @property
    def item_ids(self) -> list[str]:
        """The n ids by item number, from 1."""
        return self.items["item_id"].to_list()

    def with_dataset_numbers(self, ranks: RankTable) -> RankTable:
        """A model's ranks with the prepared dataset's numbers of the targets: what ``ranks.parquet`` holds."""
        return replace(ranks, target=self.numbers[ranks.target].astype(np.int32))

    def with_model_numbers(self, ranks: RankTable) -> RankTable:
        """The other way round."""
        return replace(ranks, target=np.searchsorted(self.numbers, ranks.target).astype(np.int32))


def read_inputs(pinned: Pinned, prepared: PreparedDataset, snapshots: Mapping[str, Snapshot]) -> RunInputs:
    """Read tables and interactions and apply the experiment's policy for items without features.

    Args:
        pinned: The experiment.
        prepared: The dataset at the pinned version.
        snapshots: The stores at the pinned versions, by feature.

    Raises:
        CallError: With the policy ``error``, when an item has no row: which, and what to do.
        MissingFeatureError: When a policy cannot be followed: nothing is left, or there is nothing to take a mean of.
        UnknownColumnError: When a store does not have the column that the model reads.
    """
    policy = pinned.config.missing
    items, interactions = prepared.items.sort("item"), prepared.interactions
    item_ids = items["item_id"].to_list()
    tables = feature_tables(snapshots, tables_read(pinned.config), item_ids)
    absent = {name: _absent(table, item_ids) for name, table in tables.items()}
    numbers = torch.arange(len(item_ids) + 1)
    if policy == "drop" and any(absent.values()):
        kept = complete_items(tables)
        interactions, items = drop_items(interactions, items, kept)
        numbers = torch.cat([numbers[:1], numbers[kept]])
        tables = {name: table[numbers] for name, table in tables.items()}
    return RunInputs(
        items=items,
        data=SequenceData.from_frame(interactions, n_items=items.height),
        tables=_filled(tables, policy, items["item_id"].to_list(), dataset=pinned.config.dataset),
        numbers=numbers.numpy(),
        missing={
            "policy": policy,
            "dropped": len(item_ids) - items.height,
            "tables": {name: {"items": len(ids), "first": ids[:_LISTED]} for name, ids in absent.items()},
        },
    )


def feature_tables(
    snapshots: Mapping[str, Snapshot], required: Sequence[str], item_ids: list[str]
) -> dict[str, Tensor]:
    """Resident tables float32 ``[n + 1, *shape]``; row 0 and rows of items without the feature are zero."""
    tables: dict[str, Tensor] = {}
    for table in required:
        feature, _, column = table.partition(".")
        tables[table] = torch.from_numpy(snapshots[feature].table(item_ids, column or "embedding"))
    return tables


def build_model(pinned: Pinned, inputs: RunInputs) -> Recommender:
    """The freshly initialised model of a pinned experiment; initialisation is seeded by the experiment."""
    config = pinned.config
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        return registry.build(config.model, config.parameters, n_items=inputs.items.height, features=inputs.tables)


def _absent(table: Tensor, item_ids: list[str]) -> list[str]:
    """Ids of the items that a table has no row for."""
    return [item_ids[index] for index in (~present_items(table)[1:]).nonzero().flatten().tolist()]


def _filled(
    tables: Mapping[str, Tensor], policy: MissingPolicy, item_ids: list[str], *, dataset: str
) -> dict[str, Tensor]:
    try:
        return apply_missing(tables, policy, item_ids=item_ids)
    except MissingFeatureError as error:
        if policy != "error":
            raise
        raise CallError(
            f"missing = 'error': {error}; `reelstore store quarantine {dataset}/<feature>` says which items failed and "
            f"why"
        ) from None
