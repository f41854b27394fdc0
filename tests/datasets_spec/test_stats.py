import numpy as np
import polars as pl
import pytest

from datasets_spec.schema import TIME
from datasets_spec.stats import describe, gini


def test_figures_of_a_table_that_a_person_can_check():
    rows = pl.DataFrame(
        {"user": [1, 1, 1, 2], "item": [1, 2, 3, 1], "timestamp": pl.Series([0, 1000, 2000, 86_400_000]).cast(TIME)}
    )
    found = describe(rows)
    assert (found.users, found.items, found.interactions) == (2, 3, 4)
    assert found.density == pytest.approx(4 / 6)
    assert (found.per_user.min, found.per_user.mean, found.per_user.median, found.per_user.max) == (1, 2.0, 2.0, 3)
    assert (found.per_item.min, found.per_item.median, found.per_item.max) == (1, 1.0, 2)
    assert (found.first, found.last) == ("1970-01-01T00:00:00+00:00", "1970-01-02T00:00:00+00:00")


def test_gini_equals_the_mean_difference_form():
    counts = np.random.default_rng(0).integers(1, 50, 40)
    differences = np.abs(counts[:, None] - counts[None, :]).sum()
    assert gini(counts) == pytest.approx(differences / (2 * len(counts) ** 2 * counts.mean()))
    assert gini(np.array([4, 4, 4])) == pytest.approx(0.0)
    assert gini(np.array([1, 3])) == pytest.approx(0.25)


def test_an_empty_table_has_no_figures():
    with pytest.raises(ValueError, match="empty interaction table"):
        describe(pl.DataFrame(schema={"user": pl.Int32, "item": pl.Int32, "timestamp": TIME}))
