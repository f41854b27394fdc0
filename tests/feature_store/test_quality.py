"""Figures against values counted by hand."""

import json

import numpy as np
import pytest

from feature_store.manifest import parse, render
from feature_store.measure import measure
from feature_store.quality import Coverage, Quality


class Table:
    """Vectors in memory, in blocks of a few rows."""

    def __init__(self, vectors, contents=None, block_rows=4):
        self.vectors = np.asarray(vectors)
        self.ids = [f"i{row}" for row in range(len(self.vectors))]
        numbers = range(len(self.vectors)) if contents is None else contents
        self.contents = [bytes([number % 256, number // 256]) * 16 for number in numbers]
        self._block_rows = block_rows

    def blocks(self):
        for start in range(0, len(self.vectors), self._block_rows):
            yield self.vectors[start : start + self._block_rows]

    def take(self, rows):
        return self.vectors[rows].astype(np.float32)


def figures_of(vectors, contents=None):
    return measure(Table(vectors, contents), catalogue_size=len(vectors), present=len(vectors)).quality


def test_figures_of_a_small_table():
    # Norms 5, 5, 0, 13, 5, 5: median 5, deviations 0 0 5 8 0 0, their median 0.
    vectors = np.array([[3, 4, 7], [3, 4, 7], [0, 0, 7], [5, 12, 7], [4, 3, 7], [3, 4, 7]], np.float16)
    vectors[:, 2] = 0
    measured = measure(Table(vectors, [1, 1, 2, 3, 4, 5]), catalogue_size=8, present=6, missing=["x"])
    figures = measured.quality
    assert (figures.rows, figures.dim, figures.zero_vectors, figures.constant_dims) == (6, 3, 1, 1)
    assert (figures.norm_median, figures.norm_mad, figures.norm_min, figures.norm_max) == (5.0, 0.0, 0.0, 13.0)
    assert figures.norm_outliers == 0
    assert (figures.duplicate_vectors, figures.suspicious_duplicates) == (2, 1)
    assert figures.coverage.model_dump() == {"catalogue": 8, "present": 6, "share": 0.75}
    assert figures.drift is None
    assert (measured.findings.zero, measured.findings.suspicious) == (["i2"], ["i5"])
    assert measured.findings.missing == ["x"]


def test_norm_outliers_are_beyond_six_robust_deviations():
    # Norms 9, 10, 11, x: median 10.5 for x > 11, deviations 1.5, .5, .5, x - 10.5, MAD 1; limit 10.5 + 6 * 1.4826.
    for last, expected in ((19.3, []), (19.5, ["i3"])):
        vectors = np.array([[9.0], [10.0], [11.0], [last]], np.float32)
        measured = measure(Table(vectors), catalogue_size=4, present=4)
        assert measured.quality.norm_mad == pytest.approx(1.0)
        assert measured.findings.norm_outliers == expected
        assert measured.quality.norm_outliers == len(expected)


def test_norms_that_differ_by_rounding_alone_have_no_outliers():
    """After a normalisation all norms are 8 but for rounding: deviations 0, 1, 1 and 9 times 1e-6, MAD 1e-6."""
    norms = [[8.0], [8.0 + 1e-6], [8.0 - 1e-6], [8.0 + 9e-6], [8.0 - 1e-6]]
    assert measure(Table(np.array(norms, np.float64)), catalogue_size=5, present=5).findings.norm_outliers == []
    norms[3] = [8.01]
    assert measure(Table(np.array(norms, np.float64)), catalogue_size=5, present=5).findings.norm_outliers == ["i3"]


def test_the_norm_of_large_float16_vectors_does_not_overflow():
    figures = measure(Table(np.full((1, 4), 60_000, np.float16)), catalogue_size=0, present=0).quality
    assert figures.norm_max == pytest.approx(2 * float(np.float16(60_000)))
    assert figures.constant_dims == 0  # one row says nothing about constancy
    assert figures.coverage.share == 1.0


def test_numbers_near_the_end_of_float32_are_measured():
    figures = figures_of(np.array([[3e38, 0], [0, 3e38], [1, 1]], np.float32))
    assert figures.norm_max == pytest.approx(float(np.float32(3e38)))
    assert figures.near_duplicates == 0


def test_nothing_to_measure_is_an_error():
    with pytest.raises(ValueError, match="expected at least one row to measure"):
        measure(Table(np.zeros((0, 3))), catalogue_size=1, present=0)


def test_a_manifest_of_before_a_figure_existed_is_read_and_written_as_it_was(store, toy, root):
    toy.extract(store, {"a": "a", "b": "b"})
    path = root / "manifests" / "00000001.json"
    body = json.loads(path.read_text())
    del body["quality"]["near_duplicates"]
    del body["sha256"]
    older = render(parse(path.read_bytes(), "it").model_copy(update={"quality": Quality(**body["quality"])}))
    assert "near_duplicates" not in older.decode()
    path.write_bytes(older)
    assert store.latest().quality.near_duplicates is None
    assert store.latest().quality.coverage == Coverage(catalogue=2, present=2, share=1.0)
