"""Train, validation and test: leave-one-out, users 8:1:1, or global time.

Each function labels the rows of a table that is sorted by (user, position); a label is an index into :data:`PARTS`, no
prefixes are written out. :func:`report` says how each split leaks, since every one of them does in its own way.

Leave-one-out ignores the global timeline: a model may learn from rows that are younger than the row it is tested on
(Ji et al., doi 10.1145/3569930). The temporal split does not, but tests items and users that training never saw.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from datasets_spec.errors import ConfigConflictError
from datasets_spec.idmap import draw_order
from datasets_spec.schema import PARTS, starts_of
from datasets_spec.spec import SplitName

Labels = npt.NDArray[np.uint8]


def label(interactions: pl.DataFrame, users: pl.Series, *, how: SplitName, seed: int) -> Labels:
    """Label the rows.

    Args:
        interactions: Sorted by (user, position); columns ``user`` (from 1) and ``timestamp``.
        users: String ``[users]`` id of user ``i + 1``.
        how: The split.
        seed: Decides ``user_811``; the others draw nothing.

    Returns:
        uint8 ``[rows]``: index into :data:`PARTS`.

    Raises:
        ConfigConflictError: For a temporal split of rows without time.
    """
    if how == "leave_one_out":
        return leave_one_out(interactions["user"].to_numpy())
    if how == "user_811":
        return users_811(users, seed=seed)[interactions["user"].to_numpy() - 1]
    return temporal(interactions["timestamp"])


def leave_one_out(user: npt.NDArray[np.integer[Any]]) -> Labels:
    """Last row of each user to test, the one before to validation.

    Args:
        user: int ``[rows]``, equal users adjacent, oldest row first.

    Returns:
        uint8 ``[rows]``: index into :data:`PARTS`. A user with two rows has no validation row, a user with one row
        is for training only.
    """
    starts = starts_of(user)
    lengths, ends = np.diff(starts), starts[1:]
    labels = np.zeros(len(user), dtype=np.uint8)
    labels[ends[lengths >= 2] - 1] = 2
    labels[ends[lengths >= 3] - 2] = 1
    return labels


def users_811(user_ids: pl.Series, *, seed: int) -> Labels:
    """Users 8:1:1, with all their rows.

    Users are ranked by a hash of their id and the seed, so that neither row order nor any library's generator has a
    say; the sizes are exact: ``n // 10`` for validation, ``n // 10`` for test, the rest for training.

    Args:
        user_ids: Distinct ids: String ``[n]``.
        seed: Another seed, another split.

    Returns:
        uint8 ``[n]``: index into :data:`PARTS`.
    """
    order = draw_order(user_ids, seed=seed, purpose="user_811")
    tenth = len(order) // 10
    labels = np.zeros(len(order), dtype=np.uint8)
    labels[order[:tenth]] = 2
    labels[order[tenth : 2 * tenth]] = 1
    return labels


def temporal(timestamp: pl.Series) -> Labels:
    """Rows by global time: the oldest eight tenths to training, one tenth to validation, the youngest to test.

    The two cuts are the times of the rows at 80 % and 90 %; rows of equal time always go to the same, younger side, so
    sizes may differ from the tenths where many rows share a time.

    Args:
        timestamp: Time ``[rows]`` without nulls.

    Returns:
        uint8 ``[rows]``: index into :data:`PARTS`.

    Raises:
        ConfigConflictError: When rows have no time.
    """
    if timestamp.null_count():
        raise ConfigConflictError(
            f"split=temporal needs a time in every row; {timestamp.null_count()} of {len(timestamp)} rows have none. "
            "Choose split=leave_one_out or split=user_811"
        )
    times = timestamp.to_physical().to_numpy()
    if len(times) == 0:
        return np.zeros(0, dtype=np.uint8)
    cuts = (len(times) * 8 // 10, len(times) * 9 // 10)
    first, second = np.partition(times, cuts)[list(cuts)]
    return (times >= first).astype(np.uint8) + (times >= second)


@dataclass(frozen=True)
class SplitReport:
    """Sizes and leaks of a split.

    Attributes:
        how: The split.
        rows: Rows of training, validation and test.
        users: Users with rows in each.
        test_before_train_end: Test rows older than the newest training row; None where there is no time.
        test_items_unseen: Items that occur in test rows and in no training row.
        test_users_unseen: Users with test rows and without training rows.
        line: All of it in one sentence.
    """

    how: SplitName
    rows: dict[str, int]
    users: dict[str, int]
    test_before_train_end: int | None
    test_items_unseen: int
    test_users_unseen: int
    line: str

    def as_dict(self) -> dict[str, Any]:
        """Plain values for the manifest."""
        return asdict(self)


def report(interactions: pl.DataFrame, labels: Labels, *, how: SplitName) -> SplitReport:
    """Count rows, users and leaks of labelled interactions.

    Args:
        interactions: Columns ``user`` and ``item`` (small numbers), ``timestamp``.
        labels: uint8 ``[rows]`` index into :data:`PARTS`.
        how: The split that made the labels.

    Returns:
        The report.
    """
    present = {side: _present(interactions[side].to_numpy(), labels) for side in ("user", "item")}
    unseen = {side: int(np.count_nonzero(found[2] & ~found[0])) for side, found in present.items()}
    rows: dict[str, int] = dict(zip(PARTS, np.bincount(labels, minlength=len(PARTS)).tolist(), strict=True))
    users: dict[str, int] = dict(zip(PARTS, np.count_nonzero(present["user"], axis=1).tolist(), strict=True))
    older = None
    if interactions["timestamp"].null_count() == 0:
        times = interactions["timestamp"].to_physical().to_numpy()
        newest = times.max(where=labels == 0, initial=np.iinfo(np.int64).min)
        older = int(np.count_nonzero(times[labels == 2] < newest))
    time = "the rows have no time" if older is None else f"{older} are older than the newest training row"
    line = (
        f"{how}: {rows['train']} training, {rows['valid']} validation, {rows['test']} test rows. Leakage: of the test "
        f"rows {time}; {unseen['item']} items and {unseen['user']} users of the test rows have no training row; "
        "the k-core counted validation and test rows too."
    )
    return SplitReport(how, rows, users, older, unseen["item"], unseen["user"], line)


def _present(numbers: npt.NDArray[np.integer[Any]], labels: Labels) -> npt.NDArray[np.bool_]:
    """Which numbers occur in which part: bool ``[parts, highest + 1]``."""
    found = np.zeros((len(PARTS), int(numbers.max(initial=0)) + 1), dtype=np.bool_)
    found[labels, numbers] = True
    return found
