"""How far vectors moved: cosines, norms and moments of small arrays worked out by hand."""

import numpy as np
import pytest

from feature_store import FeatureShard, drift
from feature_store.drift import Sample, compare


def test_figures_of_rotated_and_scaled_vectors():
    # Cosines 1, 1/2 and 0; the fourth item had no direction and has one now, the fifth has none in both.
    before = np.array([[2, 0], [2, 0], [0, 3], [0, 0], [0, 0]], np.float32)
    after = np.array([[4, 0], [1, np.sqrt(3)], [3, 0], [1, 0], [0, 0]], np.float32)
    figures, distances = compare(Sample(7, 9, np.arange(5), list("abcde"), before), after)
    assert (figures.version, figures.common, figures.compared) == (7, 9, 5)
    assert distances == pytest.approx([0, 0.5, 1, 1, 0])
    assert figures.distance == pytest.approx(0.5)
    assert figures.cosine["min"] == pytest.approx(0.0, abs=1e-6)
    assert figures.cosine["p50"] == pytest.approx(0.5)
    assert figures.norm_before["p50"] == 2.0  # of 0 0 2 2 3
    assert figures.norm_after["p50"] == pytest.approx(2.0)  # of 0 1 2 3 4
    # Means .8, .6 become 1.8, .3464; deviations sqrt(.96) and 1.2; variances .96, 1.44 become 2.16, .48.
    assert (figures.mean_shift, figures.mean_shift_dim) == (pytest.approx(1 / np.sqrt(0.96)), 0)
    assert figures.variance_ratio == pytest.approx({"min": 0.48 / 1.44, "max": 2.16 / 0.96})


def test_constant_dimensions_have_no_scale_to_judge_by():
    before = np.ones((3, 2), np.float32)
    figures, _ = compare(Sample(1, 3, np.arange(3), list("abc"), before), before * 2)
    assert (figures.mean_shift, figures.mean_shift_dim, figures.variance_ratio) == (0.0, -1, {})
    assert figures.distance == pytest.approx(0.0, abs=1e-12)


CONTENTS = {f"i{number}": f"text {number}" for number in range(8)}


def test_a_version_is_compared_with_the_one_before(store, toy):
    _, first = toy.extract(store, CONTENTS)
    assert first.quality.drift is None
    _, second = toy.extract(store, CONTENTS | {"i3": "changed", "new": "new"})
    figures = second.quality.drift
    assert (figures.version, figures.common, figures.compared) == (1, 8, 8)
    old, new = toy.vector(toy.digest("text 3")), toy.vector(toy.digest("changed"))
    cosine = float(old @ new / np.linalg.norm(old) / np.linalg.norm(new))
    assert figures.distance == pytest.approx((1 - cosine) / 8)
    assert figures.cosine["min"] == pytest.approx(cosine)
    assert figures.cosine["p50"] == pytest.approx(1.0)


def test_a_sample_is_evenly_spaced(store, toy, monkeypatch):
    monkeypatch.setattr(drift, "MAX_ITEMS", 3)
    _, first = toy.extract(store, CONTENTS)
    sample = drift.draw(first, ["new", *(f"i{number}" for number in range(8))])
    assert (sample.rows.tolist(), sample.ids, sample.common) == ([1, 4, 7], ["i0", "i3", "i6"], 8)
    np.testing.assert_array_equal(sample.before[1], toy.vector(toy.digest("text 3")))
    assert drift.draw(first, ["nobody"]) is None


def test_versions_of_different_width_are_not_compared(store, toy):
    toy.extract(store, CONTENTS)
    items = toy.catalogue(CONTENTS)
    plan = store.plan({**toy.SPEC, "dim": 2}, items)
    store.write_shard(toy.shard(list(items), items, dim=2), plan)
    assert store.commit(plan).quality.drift is None


def test_a_lost_shard_of_the_version_before_does_not_block_a_commit(store, toy, root, caplog):
    _, first = toy.extract(store, CONTENTS)
    (root / "shards" / f"{first.manifest.shards[0].sha256}.parquet").unlink()
    _, second = toy.extract(store, CONTENTS, spec={**toy.SPEC, "pooling": "cls"})
    assert (second.version, second.quality.drift) == (2, None)
    assert "no drift since version 1 is measured" in caplog.text


def test_drift_is_measured_over_several_blocks(store, toy):
    generator = np.random.default_rng(0)
    items = toy.catalogue({f"i{number:04d}": str(number) for number in range(50)})
    ids, contents = list(items), list(items.values())
    vectors = generator.standard_normal((50, 4)).astype(np.float32)
    for name, values in (("one", vectors), ("two", -vectors)):
        plan = store.plan({"name": name}, items)
        for rows in (slice(0, 20), slice(20, 50)):
            store.write_shard(FeatureShard(ids[rows], contents[rows], values[rows]), plan)
        snapshot = store.commit(plan)
    assert snapshot.quality.drift.distance == pytest.approx(2.0)
    assert snapshot.quality.drift.cosine == pytest.approx({"min": -1, "p01": -1, "p05": -1, "p50": -1})
