"""Train, validation and test: leave-one-out, users 8:1:1, or global time.

Each function labels the rows of a table that is sorted by (user, position); the label is a column, no prefixes are
written out. :func:`report` says how each split leaks, since every one of them does in its own way.

Leave-one-out ignores the global timeline: a model may learn from rows that are younger than the row it is tested on
(Ji et al., doi 10.1145/3569930). The temporal split does not, but tests items and users that training never saw.
"""

from __future__ import annotations

import hashlib
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from datasets_spec.errors import ConfigConflictError
from datasets_spec.spec import SplitName

NAMES = ("train", "valid", "test")
_MASK = (1 << 64) - 1


def label(interactions: pl.DataFrame, *, how: SplitName, seed: int) -> pl.Series:
    """Label the rows.

    Args:
        interactions: Sorted by (user, position); columns ``user``, ``user_id``, ``timestamp``, ``item_id``.
        how: The split.
        seed: Decides ``user_811``; the others draw nothing.

    Returns:
        String ``[rows]`` named ``split``: ``train``, ``valid`` or ``test``.

    Raises:
        ConfigConflictError: For a temporal split of rows without time.
    """
    if how == "leave_one_out":
        codes = leave_one_out(interactions["user"].to_numpy())
    elif how == "user_811":
        users = interactions.select("user_id").unique(maintain_order=True)["user_id"].to_list()
        by_user = pl.DataFrame({"user_id": users, "code": users_811(users, seed=seed)})
        codes = interactions.select("user_id").join(by_user, on="user_id", maintain_order="left")["code"].to_numpy()
    else:
        codes = temporal(interactions["timestamp"])
    return pl.Series("split", NAMES).gather(codes)


def leave_one_out(user: npt.NDArray[np.integer[Any]]) -> npt.NDArray[np.uint8]:
    """Last row of each user to test, the one before to validation.

    Args:
        user: int ``[rows]``, equal users adjacent, oldest row first.

    Returns:
        uint8 ``[rows]``: index into :data:`NAMES`. A user with two rows has no validation row, a user with one row
        is for training only.
    """
    if len(user) == 0:
        return np.zeros(0, dtype=np.uint8)
    begins = np.flatnonzero(np.r_[True, user[1:] != user[:-1]])
    lengths = np.diff(np.r_[begins, len(user)])
    from_end = np.repeat(begins + lengths, lengths) - np.arange(len(user))  # 1 = last row of its user
    length = np.repeat(lengths, lengths)
    codes = np.zeros(len(user), dtype=np.uint8)
    codes[(from_end == 1) & (length >= 2)] = 2
    codes[(from_end == 2) & (length >= 3)] = 1
    return codes


def users_811(user_ids: list[str], *, seed: int) -> npt.NDArray[np.uint8]:
    """Users 8:1:1, with all their rows.

    Users are ranked by a hash of their id and the seed, so that neither row order nor any library's generator has a
    say; the sizes are exact: ``n // 10`` for validation, ``n // 10`` for test, the rest for training.

    Args:
        user_ids: Distinct ids ``[n]``.
        seed: Another seed, another split.

    Returns:
        uint8 ``[n]``: index into :data:`NAMES`.
    """
    keys = [(_splitmix64(_id_hash(user) ^ _splitmix64(seed)), user) for user in user_ids]
    order = sorted(range(len(keys)), key=keys.__getitem__)
    tenth = len(order) // 10
    codes = np.zeros(len(order), dtype=np.uint8)
    codes[order[:tenth]] = 2
    codes[order[tenth : 2 * tenth]] = 1
    return codes


def _id_hash(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")


def _splitmix64(x: int) -> int:
    """One step of SplitMix64 (Steele, Lea, Flood, doi 10.1145/2660193.2660195)."""
    x = (x + 0x9E3779B97F4A7C15) & _MASK
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & _MASK
    return x ^ (x >> 31)


def temporal(timestamp: pl.Series) -> npt.NDArray[np.uint8]:
    """Rows by global time: the oldest eight tenths to training, one tenth to validation, the youngest to test.

    The two cuts are the times of the rows at 80 % and 90 %; rows of equal time always go to the same, younger side, so
    sizes may differ from the tenths where many rows share a time.

    Args:
        timestamp: Time ``[rows]`` without nulls.

    Returns:
        uint8 ``[rows]``: index into :data:`NAMES`.

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
    ordered = np.sort(times)
    first, second = ordered[len(times) * 8 // 10], ordered[len(times) * 9 // 10]
    return (times >= first).astype(np.uint8) + (times >= second).astype(np.uint8)


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


def report(interactions: pl.DataFrame, *, how: SplitName) -> SplitReport:
    """Count rows, users and leaks of labelled interactions.

    Args:
        interactions: Columns ``user``, ``item``, ``timestamp``, ``split``.
        how: The split that made the labels.

    Returns:
        The report.
    """
    parts = {name: interactions.filter(pl.col("split") == name) for name in NAMES}
    train, test = parts["train"], parts["test"]
    older = None
    if interactions["timestamp"].null_count() == 0:
        older = test.filter(pl.col("timestamp") < pl.lit(train["timestamp"].max())).height
    unseen = {column: test.join(train, on=column, how="anti")[column].n_unique() for column in ("item", "user")}
    rows = {name: part.height for name, part in parts.items()}
    time = "the rows have no time" if older is None else f"{older} are older than the newest training row"
    line = (
        f"{how}: {rows['train']} training, {rows['valid']} validation, {rows['test']} test rows. Leakage: of the test "
        f"rows {time}; {unseen['item']} items and {unseen['user']} users of the test rows have no training row; "
        "the k-core counted validation and test rows too."
    )
    users = {name: part["user"].n_unique() for name, part in parts.items()}
    return SplitReport(how, rows, users, older, unseen["item"], unseen["user"], line)
