"""Any sequence of runs leaves the store as a dictionary would be left."""

import tempfile
from pathlib import Path

import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from feature_store import EmptySnapshotError, FeatureStore

IDS = [f"i{number}" for number in range(6)]
CATALOGUES = st.dictionaries(st.sampled_from(IDS), st.sampled_from(["x", "y", "z"]), max_size=6)
RUNS = st.lists(
    st.tuples(CATALOGUES, st.sets(st.sampled_from(IDS), max_size=2), st.booleans(), st.sampled_from([1, 4])),
    min_size=1,
    max_size=5,
)


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(runs=RUNS)
def test_a_store_behaves_like_a_dictionary(toy, runs):
    """``live`` is what must be readable; ``failed`` what was tried in vain and not since encoded."""
    with tempfile.TemporaryDirectory() as folder:
        store = FeatureStore.open(Path(folder) / "d" / "f", create=True)
        live, failed, encoded, history = {}, {}, set(), []
        for contents, bad, drop_gone, shard_rows in runs:
            encoded_now = {pair for pair in contents.items() if pair not in encoded and failed.get(pair[0]) != pair[1]}
            try:
                plan, snapshot = toy.extract(store, contents, bad=bad, drop_gone=drop_gone, shard_rows=shard_rows)
            except EmptySnapshotError:
                plan = snapshot = None
            if plan:
                assert set(plan.todo) == {item_id for item_id, _ in encoded_now}
            encoded |= {(item_id, text) for item_id, text in encoded_now if item_id not in bad}
            failed |= {item_id: text for item_id, text in encoded_now if item_id in bad}
            kept = {} if drop_gone else {item_id: text for item_id, text in live.items() if item_id not in contents}
            wanted = kept | {item_id: text for item_id, text in contents.items() if (item_id, text) in encoded}
            if snapshot is None:
                assert wanted == {}
                continue
            # A commit forgets failures of planned items whose content is another one, or that have features.
            failed = {
                item_id: text
                for item_id, text in failed.items()
                if item_id not in contents or (contents[item_id] == text and item_id not in wanted)
            }
            if wanted != live:
                history.append(dict(wanted))
            live = wanted
            assert snapshot.version == len(history)
            assert store.quarantined()["item_id"].to_list() == sorted(failed)
            again = store.plan(toy.SPEC, toy.catalogue(contents))
            assert again.todo == []
            assert store.commit(again, drop_gone=drop_gone).version == snapshot.version
        for version, expected in enumerate(history, start=1):
            matrix = store.at(version).matrix(IDS)
            assert matrix.present.tolist() == [item_id in expected for item_id in IDS]
            for row, item_id in zip(matrix.values, IDS, strict=True):
                reference = toy.vector(toy.digest(expected[item_id])) if item_id in expected else np.zeros(toy.DIM)
                np.testing.assert_array_equal(row, reference)
        assert store.verify() == []
