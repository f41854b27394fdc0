"""Items that fail: known bad until retried, counted, forgotten when they succeed."""

from datetime import UTC, datetime, timedelta

import polars as pl
import pytest

from feature_store import DamagedStoreError, FeatureStore, QuarantineRow, SpecError

CONTENTS = {"good": "good", "a": "text a", "b": "text b"}


def view(store, *columns):
    return store.quarantined().select(columns).rows()


def test_a_known_bad_item_is_not_planned_again(store, toy, root):
    toy.extract(store, CONTENTS, bad=["a", "b"])
    before = sorted((root / "quarantine").iterdir())
    plan, snapshot = toy.extract(FeatureStore.open(root), CONTENTS)
    assert (plan.todo, plan.known_bad, plan.reused, plan.changed) == ([], ["a", "b"], 1, False)
    assert snapshot.version == 1
    assert sorted((root / "quarantine").iterdir()) == before
    assert view(store, "item_id", "stage", "reason", "detail", "attempts", "retry") == [
        ("a", "decode", "no_video", "no stream", 1, False),
        ("b", "decode", "no_video", "no stream", 1, False),
    ]


def test_the_files_can_be_read_without_this_code(store, toy, root):
    plan, _ = toy.extract(store, CONTENTS, bad=["a", "b"])
    frame = pl.read_parquet(root / "quarantine" / "*.parquet")
    assert frame.columns[:6] == ["item_id", "stage", "reason", "detail", "attempts", "last_seen"]
    assert frame.schema["last_seen"] == pl.Datetime("us", "UTC")
    assert frame["item_id"].to_list() == ["a", "b"]
    assert frame["content_sha256"].to_list() == [toy.digest("text a"), toy.digest("text b")]
    assert set(frame["spec_hash"]) == {plan.spec_hash}
    assert abs(frame["last_seen"][0] - datetime.now(UTC)) < timedelta(minutes=5)


def test_retry_plans_again_and_attempts_count_up(store, toy, root):
    toy.extract(store, CONTENTS, bad=["a", "b"])
    assert store.retry() == 2
    assert store.retry() == 0
    again = FeatureStore.open(root)
    plan, _ = toy.extract(again, CONTENTS, bad=["a", "b"])
    assert (plan.todo, plan.known_bad) == (["a", "b"], [])
    assert view(again, "item_id", "attempts", "retry") == [("a", 2, False), ("b", 2, False)]
    again.retry()
    plan, snapshot = toy.extract(again, CONTENTS, bad=["b"])
    assert view(again, "item_id", "attempts") == [("b", 3)]
    assert sorted(snapshot.item_ids) == ["a", "good"]
    assert again.plan(toy.SPEC, toy.catalogue(CONTENTS)).known_bad == ["b"]


def test_retry_by_reason(store, toy):
    items = toy.catalogue(CONTENTS)
    plan = store.plan(toy.SPEC, items)
    rows = [
        QuarantineRow("a", "decode", "no_video", "", items["a"]),
        QuarantineRow("b", "pool", "timeout", "", items["b"]),
    ]
    store.quarantine(rows)
    assert store.retry("no_such_reason") == 0
    assert store.retry("timeout") == 1
    plan = store.plan(toy.SPEC, items)
    assert (plan.todo, plan.known_bad) == (["good", "b"], ["a"])
    assert view(store, "item_id", "retry") == [("a", False), ("b", True)]


def test_another_content_or_spec_is_a_first_attempt(store, toy):
    toy.extract(store, CONTENTS, bad=["a"])
    plan, _ = toy.extract(store, CONTENTS | {"a": "another"}, bad=["a"])
    assert plan.todo == ["a"]
    assert view(store, "attempts", "content_sha256") == [(1, toy.digest("another"))]
    spec = {**toy.SPEC, "pooling": "cls"}
    plan, _ = toy.extract(store, CONTENTS | {"a": "another"}, spec=spec, bad=["a"])
    assert "a" in plan.todo
    assert view(store, "attempts", "spec_hash") == [(1, plan.spec_hash)]


def test_a_repaired_item_leaves_the_quarantine(store, toy, root):
    toy.extract(store, CONTENTS, bad=["a", "b"])
    toy.extract(store, CONTENTS | {"a": "repaired"})
    assert view(store, "item_id") == [("b",)]
    assert len(list((root / "quarantine").iterdir())) == 1
    toy.extract(store, CONTENTS | {"a": "repaired", "b": "repaired too"})
    assert view(store, "item_id") == []
    assert list((root / "quarantine").iterdir()) == []


def test_content_that_cannot_be_read_has_no_hash_and_is_tried_when_it_can(store, toy):
    plan, _ = toy.extract(store, CONTENTS)
    for attempt in (1, 2):
        store.quarantine([QuarantineRow("lost", "read", "missing_file", "no such file", None)], plan)
        store.commit(plan)
        assert view(store, "item_id", "attempts", "content_sha256") == [("lost", attempt, None)]
    plan, _ = toy.extract(store, CONTENTS | {"lost": "found"})
    assert plan.todo == ["lost"]
    assert view(store, "item_id") == []


def test_several_rows_about_one_item_are_one_attempt(store, toy):
    items = toy.catalogue(CONTENTS)
    plan = store.plan(toy.SPEC, items)
    row = QuarantineRow("a", "decode", "no_video", "", items["a"])
    store.quarantine([row, QuarantineRow("a", "encode", "not_finite", "", items["a"])], plan)
    assert view(store, "item_id", "reason", "attempts") == [("a", "not_finite", 1)]
    store.quarantine([], plan)
    assert view(store, "attempts") == [(1,)]


def test_the_newest_row_counts_even_when_the_clock_was_set_back(store, toy, monkeypatch):
    import feature_store.quarantine as module

    class Clock(datetime):
        moment = datetime(2031, 5, 1, tzinfo=UTC)

        @classmethod
        def now(cls, tz=None):
            return cls.moment

    monkeypatch.setattr(module, "datetime", Clock)
    items = toy.catalogue(CONTENTS)
    plan = store.plan(toy.SPEC, items)
    store.quarantine([QuarantineRow("a", "decode", "first", "", items["a"])], plan)
    Clock.moment = datetime(2030, 5, 1, tzinfo=UTC)
    store.quarantine([QuarantineRow("a", "decode", "second", "", items["a"])], plan)
    assert view(store, "reason", "attempts", "last_seen") == [
        ("second", 2, datetime(2031, 5, 1, 0, 0, 0, 1, tzinfo=UTC)),
    ]


def test_the_view_survives_a_missing_shard(store, toy, root, caplog):
    toy.extract(store, CONTENTS, bad=["a"])
    for path in (root / "shards").iterdir():
        path.unlink()
    assert view(FeatureStore.open(root), "item_id") == [("a",)]
    assert "is missing; extract again" in caplog.text


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        (("", "decode", "r", "", None), "item ids to be non-empty strings"),
        (("a", "", "r", "", None), "item 'a': a quarantine row needs a stage and a reason"),
        (("a", "decode", "", "", None), "needs a stage and a reason"),
        (("a", "decode", "r", "", b"x"), "expected a 32-byte content hash or None"),
    ],
)
def test_malformed_rows_are_refused(parts, message):
    with pytest.raises(SpecError, match=message):
        QuarantineRow(*parts)


def test_quarantine_needs_a_plan(store):
    with pytest.raises(SpecError, match="tiny/toy: quarantine needs the plan"):
        store.quarantine([QuarantineRow("a", "decode", "r", "", None)])


def test_a_damaged_file_is_named(store, toy, root):
    toy.extract(store, CONTENTS, bad=["a"])
    (path,) = (root / "quarantine").iterdir()
    path.write_bytes(b"PAR1 no more")
    with pytest.raises(
        DamagedStoreError, match=f"quarantine/{path.name} is damaged .*; remove it, and the items it named"
    ):
        store.plan(toy.SPEC, toy.catalogue(CONTENTS))
    assert [damage.path for damage in store.verify()] == [f"quarantine/{path.name}"]


def test_the_row_of_an_item_whose_source_is_gone_stays(store, toy):
    """Rows and quarantine together are the catalogue, whatever vanishes, comes back or is dropped."""
    toy.extract(store, CONTENTS | {"late": "late"}, bad=["b"])
    items = toy.catalogue({"good": CONTENTS["good"]})
    vanished = ["a", "b", "late", "never seen"]
    plan = store.plan(toy.SPEC, items, vanished)
    assert (plan.source_gone, plan.todo, plan.gone, plan.changed) == (["a", "late"], [], 0, False)
    assert plan.items["a"] == toy.digest(CONTENTS["a"])
    lost = [QuarantineRow(item_id, "read", "missing_file", "gone", None) for item_id in ("b", "never seen")]
    store.quarantine(lost, plan)
    snapshot = store.commit(plan, drop_gone=True, catalogue_size=5)
    assert sorted(snapshot.item_ids) == ["a", "good", "late"]
    assert store.quarantined()["item_id"].to_list() == ["b", "never seen"]
    other = store.plan(toy.SPEC | {"dim": 5}, items, vanished)
    assert (other.source_gone, other.todo) == ([], ["good"])  # no row of that spec was ever made
    back = toy.catalogue({"a": "another text", "good": CONTENTS["good"]})
    again = store.plan(toy.SPEC, back, ["late"])
    assert (again.source_gone, again.todo) == (["late"], ["a"])
