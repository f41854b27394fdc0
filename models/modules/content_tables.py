"""Feature tables of the shape that a model needs, taken out of those that it was given.

Shape legend: n items, f frames, w width of the vectors.
"""

from __future__ import annotations

from torch import Tensor

from models.errors import MissingFeatureError
from models.interface import FeatureTables


def vectors(features: FeatureTables, name: str) -> Tensor:
    """The table ``name``, float ``[n + 1, w]``.

    Raises:
        MissingFeatureError: When it does not hold one vector per item.
    """
    table = features[name]
    if table.ndim != 2:
        raise MissingFeatureError(
            f"feature table {name!r}: expected [items, width], got {list(table.shape)}; "
            f"name a feature with one vector per item"
        )
    return table


def central_frames(features: FeatureTables, name: str, frames: int) -> Tensor:
    """The ``frames`` vectors around the centre of each video of table ``name``, float ``[n + 1, f, w]``.

    Raises:
        MissingFeatureError: When the table does not hold that many vectors per item.
    """
    table = features[name]
    if table.ndim != 3 or table.shape[1] < frames:
        raise MissingFeatureError(
            f"feature table {name!r}: expected [items, frames >= {frames}, width], got {list(table.shape)}; "
            f"extract more frames or set frames={table.shape[1] if table.ndim == 3 else 1}"
        )
    first = (table.shape[1] - frames) // 2
    return table[:, first : first + frames]


def global_vectors(features: FeatureTables, name: str, *, frames_table: str) -> Tensor:
    """The table ``name``, float ``[n + 1, w]``, as wide as the table of frames.

    Raises:
        MissingFeatureError: When it does not hold one vector per item, or one of another width.
    """
    table, width = features[name], features[frames_table].shape[-1]
    if table.ndim != 2 or table.shape[1] != width:
        raise MissingFeatureError(
            f"feature table {name!r}: expected [items, {width}], as wide as {frames_table!r}, "
            f"got {list(table.shape)}; take both from one encoder"
        )
    return table
