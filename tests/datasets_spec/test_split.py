from datetime import UTC, datetime

import numpy as np
import polars as pl
import pytest

from datasets_spec.errors import ConfigConflictError
from datasets_spec.schema import TIME
from datasets_spec.split import label, leave_one_out, report, temporal, users_811


def times(days):
    return pl.Series("timestamp", [None if day is None else datetime(2020, 1, day, tzinfo=UTC) for day in days], TIME)


def test_leave_one_out_of_users_of_every_length():
    user = np.array([1, 1, 1, 1, 2, 2, 3, 4, 4, 4])
    assert leave_one_out(user).tolist() == [0, 0, 1, 2, 0, 2, 0, 0, 1, 2]
    assert leave_one_out(user[:0]).tolist() == []


@pytest.mark.parametrize("n", [1, 9, 10, 19, 1000])
def test_users_811_has_exact_sizes(n):
    codes = users_811(pl.Series([f"user {i}" for i in range(n)]), seed=0)
    assert np.bincount(codes, minlength=3).tolist() == [n - 2 * (n // 10), n // 10, n // 10]


def test_users_811_does_not_depend_on_the_order_of_users_but_on_the_seed():
    users = pl.Series([f"user {i}" for i in range(200)])
    split = dict(zip(users, users_811(users, seed=0).tolist(), strict=True))
    backwards = dict(zip(users.reverse(), users_811(users.reverse(), seed=0).tolist(), strict=True))
    other = dict(zip(users, users_811(users, seed=1).tolist(), strict=True))
    assert backwards == split
    assert other != split


def test_temporal_cuts_at_the_tenths():
    codes = temporal(times([5, 3, 1, 2, 10, 4, 9, 8, 7, 6]))
    assert codes.tolist() == [0, 0, 0, 0, 2, 0, 1, 0, 0, 0]


def test_temporal_never_parts_rows_of_equal_time():
    days = [1] * 7 + [2] * 2 + [3]  # the 80 % cut falls into day 2
    assert temporal(times(days)).tolist() == [0] * 7 + [1] * 2 + [2]
    assert temporal(times([])).tolist() == []


def test_temporal_needs_times():
    with pytest.raises(ConfigConflictError, match="split=temporal needs a time in every row; 1 of 2 rows have none"):
        temporal(times([1, None]))


def interactions(user, item, days):
    return pl.DataFrame({"user": user, "item": item, "timestamp": times(days)})


def labels_and_report(rows, how, seed=0):
    users = pl.Series([f"u{number}" for number in range(1, rows["user"].to_numpy().max() + 1)])
    labels = label(rows, users, how=how, seed=seed)
    return labels, report(rows, labels, how=how)


def test_labels_of_a_table_and_its_leaks():
    rows = interactions([1, 1, 1, 2, 2, 2], [1, 2, 3, 1, 2, 9], [1, 2, 3, 4, 5, 6])
    labels, found = labels_and_report(rows, "leave_one_out")
    assert labels.tolist() == [0, 1, 2] * 2
    assert found.rows == {"train": 2, "valid": 2, "test": 2}
    assert found.test_before_train_end == 1  # user 1 is tested on day 3, user 2 trains on day 4
    assert found.test_items_unseen == 2  # 3 and 9
    assert found.test_users_unseen == 0
    assert "of the test rows 1 are older than the newest training row; 2 items and 0 users" in found.line


def test_users_keep_all_their_rows_in_one_split():
    user = np.repeat(np.arange(1, 31), 4).tolist()
    rows = interactions(user, [1] * 120, [1] * 120)
    labels, found = labels_and_report(rows, "user_811", seed=5)
    assert (labels.reshape(30, 4) == labels.reshape(30, 4)[:, :1]).all()
    assert found.users == {"train": 24, "valid": 3, "test": 3}
    assert found.rows == {"train": 96, "valid": 12, "test": 12}
    assert found.test_users_unseen == 3


def test_the_temporal_split_tests_nothing_older_than_training():
    rows = interactions([1] * 20, list(range(20)), list(range(1, 21)))
    _, found = labels_and_report(rows, "temporal")
    assert found.rows == {"train": 16, "valid": 2, "test": 2}
    assert found.test_before_train_end == 0


def test_without_times_the_report_says_so():
    rows = interactions([1, 1, 1], [1, 2, 3], [None] * 3)
    _, found = labels_and_report(rows, "leave_one_out")
    assert found.test_before_train_end is None
    assert "the rows have no time" in found.line
