"""What becomes of items that a feature store has no row for.

Neither torch nor polars is loaded for the names of the policies: the command line reads them with the configuration.

Shape legend: n items, r interactions.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import reduce
from operator import and_
from typing import TYPE_CHECKING, Literal

from models.errors import MissingFeatureError

if TYPE_CHECKING:
    import polars as pl
    from torch import Tensor

    from models.interface import FeatureTables

#: ``zero``: their rows are zeros. ``mean``: their rows are the mean of the others. ``drop``: they leave the catalogue
#: and every history, see :func:`drop_items`. ``error``: there may be none.
MissingPolicy = Literal["zero", "mean", "drop", "error"]

_LISTED = 10


def present_items(table: Tensor) -> Tensor:
    """Flags bool ``[n + 1]``: the items that a table ``[n + 1, *shape]`` has a row for; never the padding.

    A row of zeros is an absent one: no store holds it as a feature.
    """
    present = table.flatten(1).ne(0).any(dim=1)
    present[0] = False
    return present


def apply_missing(tables: FeatureTables, policy: MissingPolicy, *, item_ids: list[str]) -> dict[str, Tensor]:
    """Feature tables in which missing rows are what the policy says.

    With ``drop`` the items must have been taken out before the tables were made: what is still missing is an error, as
    with ``error``.

    Args:
        tables: float ``[n + 1, *shape]`` by name, zeros where a row is missing.
        policy: See :data:`MissingPolicy`.
        item_ids: The n ids by item number, from 1, for the message.

    Returns:
        The tables; those that are changed are copies.

    Raises:
        MissingFeatureError: With the number of items without a feature and the first ten of them.
    """
    filled: dict[str, Tensor] = {}
    for name, table in tables.items():
        present = present_items(table)
        absent = (~present[1:]).nonzero().flatten()
        if len(absent) and policy in ("drop", "error"):
            raise MissingFeatureError(_absent(name, [item_ids[number] for number in absent.tolist()], len(item_ids)))
        filled[name] = _with_mean(name, table, present) if policy == "mean" and len(absent) else table
    return filled


def complete_items(tables: Mapping[str, Tensor]) -> Tensor:
    """Flags bool ``[n + 1]``: the items that have a row in every table; the padding has none.

    Raises:
        ValueError: For no tables.
    """
    if not tables:
        raise ValueError("tables: expected at least one")
    return reduce(and_, (present_items(table) for table in tables.values()))


def drop_items(interactions: pl.DataFrame, items: pl.DataFrame, kept: Tensor) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Take items out of a prepared dataset and number the rest anew, in the same order.

    A user's other rows stay, whatever their split; a user whose target is gone is not evaluated on that split.

    Args:
        interactions: Rows with the column ``item``, 1..n.
        items: One row per item, with the column ``item``.
        kept: bool ``[n + 1]``, such as :func:`complete_items` of the tables.

    Returns:
        Interactions and items with ``item`` from 1 to the number of items that are kept.

    Raises:
        MissingFeatureError: When nothing is kept.
    """
    import polars as pl

    numbers = kept.nonzero().flatten().numpy()
    if not len(numbers):
        raise MissingFeatureError(f"missing = 'drop' would take out all {len(kept) - 1} items: none has every feature")
    dtype = items.schema["item"]
    new = pl.DataFrame({"item": numbers, "new": range(1, len(numbers) + 1)}, schema={"item": dtype, "new": dtype})
    frames = [
        frame.join(new, on="item", how="inner", maintain_order="left")
        .with_columns(item=pl.col("new").cast(frame.schema["item"]))
        .drop("new")
        for frame in (interactions, items)
    ]
    return frames[0], frames[1]


def _absent(name: str, ids: list[str], n_items: int) -> str:
    listed = ", ".join(ids[:_LISTED]) + (", …" if len(ids) > _LISTED else "")
    return (
        f"feature table {name!r} has no row for {len(ids)} of {n_items} items: {listed}; extract them, or choose "
        f"missing = 'zero', 'mean' or 'drop'"
    )


def _with_mean(name: str, table: Tensor, present: Tensor) -> Tensor:
    if not bool(present.any()):
        raise MissingFeatureError(f"feature table {name!r}: no item has a row, so there is no mean to put in")
    filled = table.clone()
    absent = ~present
    absent[0] = False
    filled[absent] = table[present].double().mean(dim=0).to(table.dtype)
    return filled
