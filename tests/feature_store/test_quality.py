"""Figures against values counted by hand."""

import numpy as np
import pytest

from feature_store.quality import measure


def content(*numbers):
    return [bytes([number]) * 32 for number in numbers]


def test_figures_of_a_small_table():
    # Norms 5, 5, 0, 13, 5, 5: median 5, deviations 0 0 5 8 0 0, their median 0.
    vectors = np.array([[3, 4, 7], [3, 4, 7], [0, 0, 7], [5, 12, 7], [4, 3, 7], [3, 4, 7]], np.float16)
    vectors[:, 2] = 0
    figures = measure([(vectors[:4], content(1, 1, 2, 3)), (vectors[4:], content(4, 5))], catalogue_size=8, present=6)
    assert (figures.rows, figures.dim, figures.zero_vectors, figures.constant_dims) == (6, 3, 1, 1)
    assert (figures.norm_median, figures.norm_mad, figures.norm_min, figures.norm_max) == (5.0, 0.0, 0.0, 13.0)
    assert figures.norm_outliers == 0
    assert (figures.duplicate_vectors, figures.suspicious_duplicates) == (2, 1)
    assert figures.coverage.model_dump() == {"catalogue": 8, "present": 6, "share": 0.75}


def test_norm_outliers_are_beyond_six_robust_deviations():
    # Norms 9, 10, 11, x: median 10.5 for x > 11, deviations 1.5, .5, .5, x - 10.5, MAD 1; limit 10.5 + 6 * 1.4826.
    for last, expected in ((19.3, 0), (19.5, 1)):
        vectors = np.array([[9.0], [10.0], [11.0], [last]], np.float32)
        figures = measure([(vectors, content(1, 2, 3, 4))], catalogue_size=4, present=4)
        assert figures.norm_mad == pytest.approx(1.0)
        assert figures.norm_outliers == expected


def test_the_norm_of_large_float16_vectors_does_not_overflow():
    figures = measure([(np.full((1, 4), 60_000, np.float16), content(1))], catalogue_size=0, present=0)
    assert figures.norm_max == pytest.approx(2 * float(np.float16(60_000)))
    assert figures.constant_dims == 0  # one row says nothing about constancy
    assert figures.coverage.share == 1.0


def test_nothing_to_measure_is_an_error():
    with pytest.raises(ValueError, match="expected at least one row to measure"):
        measure([], catalogue_size=1, present=0)
