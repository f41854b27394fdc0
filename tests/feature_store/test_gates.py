"""Gates: what they let pass, what they say, and that a blocked commit costs no encoding."""

import numpy as np
import pytest
from pydantic import ValidationError

from feature_store import FeatureShard, FeatureStore, Gates, QualityGateError
from feature_store.gates import NAMED, check
from feature_store.measure import Findings, Measured
from feature_store.quality import Coverage, Drift, Quality

DRIFT = Drift(
    version=4,
    common=20,
    compared=10,
    distance=0.25,
    cosine={},
    norm_before={},
    norm_after={},
    mean_shift=0.0,
    mean_shift_dim=-1,
    variance_ratio={},
)
MEASURED = Measured(
    Quality(
        rows=40,
        dim=8,
        zero_vectors=2,
        norm_median=3.0,
        norm_mad=0.5,
        norm_min=0.0,
        norm_max=9.0,
        norm_outliers=1,
        duplicate_vectors=5,
        suspicious_duplicates=4,
        constant_dims=2,
        coverage=Coverage(catalogue=50, present=40, share=0.8),
        near_duplicates=3,
        drift=DRIFT,
    ),
    Findings(
        missing=["m1", "m2"],
        zero=["z1", "z2"],
        norm_outliers=["n1"],
        suspicious=["s1", "s2", "s3", "s4"],
        near=[("a", "b"), ("c", "d"), ("e", "b")],
        moved=[("x", 2.0), ("y", 0.5)],
    ),
)

#: The value that just passes, one that does not, and what is said then.
CASES = {
    "min_coverage": (0.8, 0.81, "40 of 50 items (80.00%) have features; 8 had nothing to encode; without: 'm1', 'm2'"),
    "max_zero": (0.05, 0.04, "2 of 40 rows (5.00%) are zero vectors: 'z1', 'z2'"),
    "max_norm_outliers": (0.025, 0.02, "1 of 40 rows (2.50%) have a norm far from the median 3 (MAD 0.5): 'n1'"),
    "max_suspicious_duplicates": (0.1, 0, "4 of 40 rows (10.00%) equal a row of other content bit by bit: 's1', 's2'"),
    "max_near_duplicates": (0.075, 0.07, "3 of 40 rows (7.50%) are near another row: 'a' (near 'b'), 'c' (near 'd')"),
    "max_constant_dims": (0.25, 0.2, "2 of 8 dimensions (25.00%) have the same number in every row"),
    "max_drift": (
        0.25,
        0.24,
        "10 common items moved by 0.25 on average (1 - cosine) since version 4; furthest: 'x' (2)",
    ),
}


@pytest.mark.parametrize("gate", CASES)
def test_a_gate_holds_at_its_limit_and_names_figures_and_items_beyond_it(gate):
    passes, fails, message = CASES[gate]
    check(Gates(**{gate: passes}), MEASURED, where="tiny/toy")
    with pytest.raises(QualityGateError) as caught:
        check(Gates(**{gate: fails}), MEASURED, where="tiny/toy")
    first, second = str(caught.value).split("\n")
    assert first.startswith("tiny/toy: nothing was published, for 1 of its quality gates did not hold")
    assert f"gates.{gate}=VALUE" in first
    assert second.startswith(f"  {gate} = {fails:g}: {message}")


def test_there_is_a_case_for_every_gate_and_without_limits_everything_passes():
    assert set(CASES) == set(Gates.model_fields)
    check(Gates(), MEASURED, where="tiny/toy")


def test_all_failures_are_said_at_once():
    with pytest.raises(QualityGateError, match=r"(?s)for 2 of its .*max_zero = 0: .*max_drift = 0\.1: "):
        check(Gates(max_zero=0, max_drift=0.1), MEASURED, where="tiny/toy")


def test_many_items_are_counted_instead_of_named():
    many = Findings(missing=[f"i{number}" for number in range(NAMED + 5)])
    with pytest.raises(QualityGateError, match=f"'i{NAMED - 1}' and 5 more$"):
        check(Gates(min_coverage=1), Measured(MEASURED.quality, many), where="tiny/toy")


@pytest.mark.parametrize(
    "values", [{"min_coverage": 1.1}, {"max_zero": -0.1}, {"max_zeros": 0.1}, {"max_drift": "far"}]
)
def test_impossible_limits_are_refused(values):
    with pytest.raises(ValidationError):
        Gates(**values)


CONTENTS = {f"i{number}": f"text {number}" for number in range(8)}


def test_a_blocked_commit_publishes_nothing_and_is_repeated_without_encoding(store, toy, root):
    gates = Gates(min_coverage=0.9)
    with pytest.raises(QualityGateError, match=r"7 of 8 items \(87\.50%\) have features; without: 'i5'"):
        toy.extract(store, CONTENTS, bad=["i5"], gates=gates)
    again = FeatureStore.open(root)
    assert again.versions() == []
    assert again.verify() == []
    plan = again.plan(toy.SPEC, toy.catalogue(CONTENTS))
    assert (plan.todo, plan.reused, plan.known_bad) == ([], 7, ["i5"])
    with pytest.raises(QualityGateError):
        again.commit(plan, gates=gates)
    assert again.commit(plan, gates=Gates(min_coverage=0.8)).rows == 7


def test_a_version_that_is_there_is_not_judged_again(store, toy):
    toy.extract(store, CONTENTS, bad=["i5"])
    assert toy.extract(store, CONTENTS, gates=Gates(min_coverage=1))[1].version == 1


def test_zero_and_equal_vectors_are_named(store, toy):
    items = toy.catalogue({name: name for name in "abcdef"})
    vectors = np.random.default_rng(0).standard_normal((6, 4)).astype(np.float32)
    vectors[2] = 0
    vectors[4] = vectors[1]
    plan = store.plan(toy.SPEC, items)
    store.write_shard(FeatureShard(list(items), list(items.values()), vectors), plan)
    with pytest.raises(QualityGateError, match=r"(?s)max_zero.*: 'c'\n.*max_suspicious_duplicates.*: 'e'$"):
        store.commit(plan, gates=Gates(max_zero=0, max_suspicious_duplicates=0))
