import math

import numpy as np
import pytest
from scipy import stats

from models.evaluation.comparison import compare_seeds, compare_users, holm, holm_within

OURS, THEIRS = [0.081, 0.084, 0.080, 0.083, 0.082], [0.079, 0.080, 0.079, 0.081, 0.080]


def test_seeds_equal_scipy():
    found = compare_seeds(OURS, THEIRS)
    oracle = stats.ttest_rel(OURS, THEIRS)
    interval = oracle.confidence_interval(0.95)
    assert (found.t, found.p, found.df, found.n) == pytest.approx((oracle.statistic, oracle.pvalue, 4, 5))
    assert (found.low, found.high) == pytest.approx((interval.low, interval.high))
    assert found.difference == pytest.approx(0.0022)
    assert found.relative == pytest.approx(0.0022 / 0.0798)


def test_users_equal_scipy_and_bootstrap_the_interval():
    generator = np.random.default_rng(0)
    first, second = generator.random(400), generator.random(400)
    found = compare_users(first, second, generator=np.random.default_rng(1))
    oracle = stats.ttest_rel(first, second)
    assert (found.t, found.p) == pytest.approx((oracle.statistic, oracle.pvalue))
    half = 1.96 * np.std(first - second, ddof=1) / math.sqrt(400)  # the normal interval of a mean of many values
    assert found.low == pytest.approx(found.difference - half, abs=0.15 * half)
    assert found.high == pytest.approx(found.difference + half, abs=0.15 * half)
    assert compare_users(first, second, generator=np.random.default_rng(1)) == found


def test_no_spread_is_not_a_division_by_zero():
    same = compare_seeds(OURS, OURS)
    assert (same.t, same.p, same.difference) == (0.0, 1.0, 0.0)
    assert math.isnan(compare_seeds([1.0, 2.0], [0.0, 0.0]).relative)


@pytest.mark.parametrize(
    ("first", "second", "difference"),
    [
        ([1.0, 2.0], [0.5, 1.5], 0.5),
        ([200 / 859, 230 / 859], [190 / 859, 220 / 859], 10 / 859),  # the two differences are not the same number
    ],
)
def test_one_difference_for_all_pairs_is_not_tested(first, second, difference):
    over_users = compare_users(first, second, generator=np.random.default_rng(0))
    for found in (compare_seeds(first, second), over_users):
        assert found.difference == pytest.approx(difference, rel=1e-12)
        assert all(math.isnan(value) for value in (found.t, found.p, found.low, found.high))


def test_a_difference_that_is_rounding_is_none():
    """(0.1 + 0.2) - 0.3 is 5.6e-17 in doubles."""
    found = compare_seeds([0.1 + 0.2] * 3, [0.3] * 3)
    assert (found.difference, found.t, found.p, found.low, found.high) == (0.0, 0.0, 1.0, 0.0, 0.0)


def test_a_spread_above_rounding_is_tested():
    first, second = [0.5, 0.5 + 1e-12], [0.25, 0.25]
    oracle = stats.ttest_rel(first, second)
    found = compare_seeds(first, second)
    assert (found.t, found.p) == pytest.approx((oracle.statistic, oracle.pvalue), rel=1e-9)


@pytest.mark.parametrize(("first", "second"), [([1.0], [1.0]), ([1.0, 2.0], [1.0]), ([[1.0, 2.0]], [[1.0, 2.0]])])
def test_unpaired_values_are_refused(first, second):
    with pytest.raises(ValueError, match="same length >= 2"):
        compare_seeds(first, second)


def test_holm_by_hand():
    """Sorted .01, .03, .04 times 3, 2, 1 give .03, .06, .04; the running maximum makes the last .06."""
    assert holm([0.04, 0.01, 0.03]) == pytest.approx([0.06, 0.03, 0.06])
    assert holm([0.6, 0.5]) == [1.0, 1.0]


def test_holm_within_families_by_hand():
    """Family a: .01 twice over, .04; family b: .03 alone."""
    found = holm_within(["a", "b", "a"], [0.04, 0.03, 0.01])
    assert found == pytest.approx([0.04, 0.03, 0.02])
    assert holm_within([], []) == []


def test_holm_does_not_count_what_was_not_tested():
    """Two tests, times 2 and 1."""
    assert holm([math.nan, 0.04, 0.03]) == pytest.approx([math.nan, 0.06, 0.06], nan_ok=True)
    assert holm([0.01, math.nan]) == pytest.approx([0.01, math.nan], nan_ok=True)
    assert holm([]) == []
