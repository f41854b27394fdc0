"""The whole way from raw files to a prepared folder, on small files of the Amazon form."""

import gzip
import io
import json
import random
from dataclasses import replace

import polars as pl
import pyarrow.parquet as pq
import pytest
from PIL import Image

import datasets_spec.dataset as dataset_module
from datasets_spec import registry
from datasets_spec.dataset import TABLES, PreparedDataset
from datasets_spec.errors import (
    ConfigConflictError,
    DamagedFileError,
    EmptyResultError,
    MissingSourceError,
    NotPreparedError,
    UnknownDatasetError,
)
from datasets_spec.prepare import prepare
from datasets_spec.schema import INTERACTIONS
from datasets_spec.spec import PrepareConfig, PublishedCounts

DAY = 86_400
SMALL = PrepareConfig(k_user=3, k_item=2)


def review(user, item, day):
    return json.dumps({"reviewerID": user, "asin": item, "unixReviewTime": day * DAY}).encode()


def product(item, **more):
    return json.dumps({"asin": item, "title": f"Title of {item}", "brand": "Acme", **more}).encode()


def dense(users, items, step=1):
    """Every user with every item; two items a day, so that there are ties."""
    return [review(f"U{u}", f"I{i}", 100 + u + i // 2 * step) for u in range(users) for i in range(items)]


def put(folder, reviews, products=None, category="Gift_Cards"):
    folder.mkdir(exist_ok=True)
    (folder / f"{category}_5.json.gz").write_bytes(gzip.compress(b"\n".join(reviews), mtime=0))
    if products is not None:
        (folder / f"meta_{category}.json.gz").write_bytes(gzip.compress(b"\n".join(products), mtime=0))
    return str(folder)


def make(tmp_path, reviews, products=None, *, config=SMALL, folder="src", root="root"):
    source = put(tmp_path / folder, reviews, products)
    return prepare("amazon-gift-cards", root=tmp_path / root, config=config, source=source)


def numbers(dataset, table="items", column="item_id"):
    return dict(getattr(dataset, table).select(column, column.removesuffix("_id")).iter_rows())


def test_tables_have_the_columns_types_and_order_of_the_contract(tmp_path):
    dataset = make(tmp_path, dense(5, 4), [product(f"I{i}") for i in range(4)])
    rows = pl.read_parquet(tmp_path / "root/prepared/amazon-gift-cards/interactions.parquet")
    assert rows.schema == INTERACTIONS
    assert rows.equals(rows.sort("user", "position"))
    assert rows["item"].min() == rows["user"].min() == 1
    first = rows.filter(pl.col("user_id") == "U0")
    assert first["item_id"].to_list() == ["I0", "I1", "I2", "I3"]  # ties in time by item id
    assert first["position"].to_list() == [0, 1, 2, 3]
    assert first["split"].to_list() == ["train", "train", "valid", "test"]
    assert dataset.items.columns[:3] == ["item", "item_id", "title"]
    assert dataset.items["item"].to_list() == [1, 2, 3, 4]
    assert dataset.users.row(0) == (1, "U0", 4)
    assert dataset.splits.row(0) == (1, 2, 1, 1)
    assert (dataset.n_users, dataset.n_items) == (5, 4)


def test_no_permutation_of_the_raw_rows_changes_anything(tmp_path):
    reviews = [*dense(6, 5), *dense(6, 5)[:7], review("U1", "I3", 90)]
    products = [product(f"I{i}", rank=f"{i} in X") for i in range(5)] + [product("I2", brand="Other"), product("I2")]
    straight = make(tmp_path, reviews, products)
    random.Random(0).shuffle(reviews)
    random.Random(1).shuffle(products)
    shuffled = make(tmp_path, reviews, products, folder="shuffled", root="other")
    assert shuffled.version == straight.version
    for table in TABLES:
        assert getattr(shuffled, table).equals(getattr(straight, table)), table


@pytest.mark.parametrize("split", ["leave_one_out", "user_811", "temporal"])
@pytest.mark.parametrize("more", [{}, {"dedupe": False}, {"sample_users": 20}, {"last_n": 4}, {"limit": 12}], ids=str)
def test_no_permutation_changes_anything_whatever_the_settings(tmp_path, split, more):
    generator = random.Random(3)
    rows = [
        review(f"U{generator.randrange(30)}", str(generator.randrange(25)), 100 + generator.randrange(6))
        for _ in range(600)
    ]
    config = PrepareConfig(k_user=2, k_item=2, split=split, **more)
    versions = set()
    for number in range(3):
        made = make(tmp_path, rows, config=config, folder=f"src{number}", root=f"root{number}")
        versions.add(made.version)
        generator.shuffle(rows)
    assert len(versions) == 1


def test_another_seed_is_another_sample_and_another_split(tmp_path):
    made = {}
    for settings in ({"split": "user_811"}, {"sample_users": 15}):
        for seed in (0, 1):
            config = PrepareConfig(k_user=3, k_item=2, seed=seed, **settings)
            made[str(settings), seed] = make(tmp_path, dense(30, 4), config=config, root=f"{len(made)}").version
    assert len(set(made.values())) == 4


def test_a_sample_and_the_youngest_rows_are_steps_of_the_manifest(tmp_path):
    dataset = make(tmp_path, dense(10, 6), config=PrepareConfig(k_user=1, k_item=1, sample_users=4, last_n=3))
    assert dataset.manifest["steps"] == [
        {"name": "parsed", "rows": 60, "users": 10, "items": 6, "note": ""},
        {"name": "sample_users", "rows": 24, "users": 4, "items": 6, "note": "4 of 10 users, seed=0"},
        {"name": "dedupe", "rows": 24, "users": 4, "items": 6, "note": ""},
        {"name": "last_n", "rows": 12, "users": 4, "items": 3, "note": "youngest 3 rows of each user"},
        {"name": "k_core", "rows": 12, "users": 4, "items": 3, "note": "k_user=1, k_item=1"},
    ]
    assert dataset.items["item_id"].to_list() == ["I3", "I4", "I5"]
    assert dataset.manifest["config"]["sample_users"] == 4


def test_positions_count_from_the_oldest_and_parts_from_the_youngest(tmp_path):
    reviews = [review(f"U{u}", f"I{i}", 200 - i) for u in range(4) for i in range(3 + u)]  # I0 is the youngest
    rows = make(tmp_path, reviews, config=PrepareConfig(k_user=1, k_item=1)).interactions
    for number in range(4):
        one = rows.filter(pl.col("user_id") == f"U{number}")
        length = 3 + number
        assert one["item_id"].to_list() == [f"I{i}" for i in reversed(range(length))]
        assert one["position"].to_list() == list(range(length))
        assert one["split"].to_list() == ["train"] * (length - 2) + ["valid", "test"]


def test_the_leakage_line_of_a_case_that_a_person_can_check(tmp_path):
    # U0 is tested on day 103, U1 on day 113; the newest training row is U1's of day 111.
    reviews = [review(f"U{u}", f"I{i}", 100 + 10 * u + i) for u in range(2) for i in range(4)]
    dataset = make(tmp_path, reviews, config=PrepareConfig(k_user=1, k_item=1))
    assert dataset.manifest["split"]["line"] == (
        "leave_one_out: 4 training, 2 validation, 2 test rows. Leakage: of the test rows 1 are older than the newest "
        "training row; 1 items and 0 users of the test rows have no training row; the k-core counted validation and "
        "test rows too."
    )


def test_published_sizes_stand_beside_ours_and_bind_nothing(tmp_path, monkeypatch, caplog):
    caplog.set_level("INFO")
    member, spec = registry.load("amazon-gift-cards")
    paper = PublishedCounts("Paper, table 1", 10, 4, 16)
    monkeypatch.setattr(registry, "load", lambda _: (member, replace(spec, published=(paper,))))
    dataset = make(tmp_path, dense(5, 4))
    assert dataset.manifest["published"] == [{"source": "Paper, table 1", "users": 10, "items": 4, "interactions": 16}]
    line = "Paper, table 1 prints 10 users, ours 5 (-50.0%); 4 items, ours 4 (+0.0%); 16 interactions, ours 20 (+25.0%)"
    assert f"amazon-gift-cards: {line}" in caplog.text
    assert make(tmp_path, dense(5, 4)).manifest == dataset.manifest


def test_a_recipe_may_share_the_raw_folder_of_another(tmp_path, monkeypatch):
    make(tmp_path, dense(5, 4))
    member, spec = registry.load("amazon-gift-cards")
    other = replace(spec, name="other", raw="amazon-gift-cards")
    monkeypatch.setattr(registry, "load", lambda _: (member, other))
    dataset = prepare("other", root=tmp_path / "root", config=SMALL)  # the source is remembered there
    assert dataset.path == tmp_path / "root/prepared/other"
    assert {path.name for path in (tmp_path / "root/raw").iterdir() if path.is_dir()} == {"amazon-gift-cards"}


def test_settings_that_did_not_exist_yet_do_not_change_numbers(tmp_path):
    before = make(tmp_path, [row for row in dense(6, 6) if b'"I0"' not in row])
    manifest = json.loads((before.path / "manifest.json").read_text())
    del manifest["config"]["sample_users"], manifest["config"]["last_n"]
    (before.path / "manifest.json").write_text(json.dumps(manifest))
    after = make(tmp_path, dense(6, 6), folder="more")
    assert numbers(before).items() <= numbers(after).items()


def test_rows_are_sorted_by_number_where_old_numbers_stay(tmp_path):
    make(tmp_path, [row for row in dense(6, 6) if b'"U0"' not in row])
    rows = make(tmp_path, dense(6, 6), folder="more").interactions
    assert rows["user_id"].unique(maintain_order=True).to_list() == ["U1", "U2", "U3", "U4", "U5", "U0"]
    assert rows.equals(rows.sort("user", "position"))
    assert rows.filter(pl.col("user_id") == "U0")["item_id"].to_list() == [f"I{i}" for i in range(6)]


def test_tables_are_written_in_row_groups(tmp_path, monkeypatch):
    whole = make(tmp_path, dense(7, 6))
    monkeypatch.setattr(dataset_module, "_ROW_GROUP", 10)
    pieces = make(tmp_path, dense(7, 6), root="pieces")
    assert pq.ParquetFile(pieces.path / "interactions.parquet").num_row_groups == 5
    assert pieces.interactions.equals(whole.interactions)
    assert pl.read_parquet_schema(pieces.path / "interactions.parquet") == INTERACTIONS


def test_unchanged_inputs_rewrite_nothing(tmp_path):
    first = make(tmp_path, dense(5, 4))
    before = {path.name: path.stat().st_ino for path in first.path.iterdir()}
    again = prepare("amazon-gift-cards", root=tmp_path / "root", config=SMALL)
    assert again.version == first.version
    assert again.manifest == first.manifest
    assert {path.name: path.stat().st_ino for path in first.path.iterdir()} == before


def test_another_configuration_replaces_the_folder_as_a_whole(tmp_path):
    first = make(tmp_path, dense(5, 4))
    again = make(tmp_path, dense(5, 4), config=PrepareConfig(k_user=3, k_item=2, split="temporal"))
    assert again.version != first.version
    assert again.manifest["config"]["split"] == "temporal"
    names = {path.name for path in again.path.iterdir()}
    assert names == {f"{table}.parquet" for table in TABLES} | {"manifest.json"}
    left = {path.name for path in again.path.parent.iterdir()}
    assert left == {"amazon-gift-cards", ".amazon-gift-cards.lock"}


def test_items_and_users_keep_their_numbers_when_rows_are_added(tmp_path):
    some = [row for row in dense(6, 6) if b'"I0"' not in row and b'"U0"' not in row]
    before = make(tmp_path, some)
    after = make(tmp_path, dense(7, 7), folder="more")
    assert after.n_items == 7
    for table, column in (("items", "item_id"), ("users", "user_id")):
        old, new = numbers(before, table, column), numbers(after, table, column)
        assert old.items() <= new.items()
        assert sorted(new.values()) == list(range(1, 8))
    assert after.manifest["id_map"]["items"] == {"kept": 5, "new": 2, "renumbered": False}
    fresh = make(tmp_path, dense(7, 7), folder="more", root="fresh")
    assert numbers(fresh) != numbers(after)  # I0 came late


def test_numbers_are_given_anew_when_an_item_is_gone(tmp_path):
    make(tmp_path, dense(5, 5))
    after = make(tmp_path, [row for row in dense(5, 5) if b'"I0"' not in row], folder="less")
    assert numbers(after) == {"I1": 1, "I2": 2, "I3": 3, "I4": 4}
    assert after.manifest["id_map"]["items"] == {"kept": 0, "new": 4, "renumbered": True}


def test_a_missing_metadata_file_is_allowed_and_said(tmp_path, caplog):
    dataset = make(tmp_path, dense(5, 4))
    assert dataset.items["title"].null_count() == 4
    note = "the metadata file meta_Gift_Cards.json.gz is missing"
    assert note in dataset.manifest["notes"][0]
    assert note in caplog.text
    assert dataset.texts() == []
    assert dataset.manifest["items_with"] == {"text": 0, "image": 0}


def test_bad_rows_are_quarantined_and_the_run_goes_on(tmp_path):
    reviews = dense(5, 4)
    reviews[3:3] = [b'{"reviewerID": "U0", ', b'{"asin": "I0", "unixReviewTime": 1}']
    reviews += [
        json.dumps({"reviewerID": "U", "asin": "I0", "unixReviewTime": time}).encode() for time in ("x", -1, True)
    ]
    products = [product(f"I{i}") for i in range(3)] + [product("I3", title='<span class="a-size-medium"')]
    dataset = make(tmp_path, reviews, products)
    assert dataset.manifest["bad_rows"] == {"bad_time": 3, "broken_title": 1, "malformed_json": 1, "missing_id": 1}
    rows = dataset.quarantine.select("file", "line", "item_id", "stage", "reason").rows()
    assert rows[0] == ("Gift_Cards_5.json.gz", 4, None, "parse", "malformed_json")
    assert rows[1] == ("Gift_Cards_5.json.gz", 5, None, "parse", "missing_id")
    assert rows[5] == ("meta_Gift_Cards.json.gz", 4, "I3", "parse", "broken_title")
    assert dataset.interactions.height == 20
    assert [item for item, _ in dataset.texts()] == ["I0", "I1", "I2"]


def test_a_truncated_raw_file_is_one_clear_error(tmp_path):
    source = tmp_path / "src"
    put(source, dense(40, 40))
    path = source / "Gift_Cards_5.json.gz"
    path.write_bytes(path.read_bytes()[:-500])
    with pytest.raises(DamagedFileError, match=r"Gift_Cards_5.json.gz: the gzip stream is truncated"):
        prepare("amazon-gift-cards", root=tmp_path / "root", config=SMALL, source=str(source))
    assert not (tmp_path / "root/prepared/amazon-gift-cards").exists()


def test_unknown_names_and_missing_sources(tmp_path):
    with pytest.raises(UnknownDatasetError, match="did you mean 'amazon-gift-cards'"):
        prepare("amazon-gift-crads", root=tmp_path)
    with pytest.raises(MissingSourceError, match="found nothing at"):
        prepare("amazon-gift-cards", root=tmp_path, source=str(tmp_path / "nowhere"))


def test_nothing_left_writes_nothing(tmp_path):
    make(tmp_path, dense(5, 4))
    with pytest.raises(EmptyResultError, match="Lower the bounds: k_user=4 k_item=5 leaves 20 rows"):
        make(tmp_path, dense(5, 4), config=PrepareConfig(k_user=9, k_item=5))
    assert PreparedDataset.open(tmp_path / "root/prepared/amazon-gift-cards").n_items == 4


def test_a_split_without_training_rows(tmp_path):
    reviews = [review(f"U{u}", f"I{i}", 7) for u in range(5) for i in range(4)]  # all on one day
    with pytest.raises(EmptyResultError, match="split=temporal leaves no training row of 20"):
        make(tmp_path, reviews, config=PrepareConfig(k_user=3, k_item=2, split="temporal"))


def test_images_on_request(server, tmp_path):
    buffer = io.BytesIO()
    Image.new("RGB", (9, 9)).save(buffer, "JPEG")
    server.put("I0.jpg", buffer.getvalue())
    products = [product(f"I{i}", imageURLHighRes=[f"{server.url}/I{i}.jpg"]) for i in range(2)] + [product("I2")]
    plain = make(tmp_path, dense(5, 3), products)
    assert server.requests == []
    dataset = make(tmp_path, dense(5, 3), products, config=PrepareConfig(k_user=3, k_item=2, media=("image",)))
    path = tmp_path / "root/raw/amazon-gift-cards/images/I0.jpg"
    assert dataset.media("image") == [("I0", path)]
    assert dataset.media("video") == []
    assert dataset.manifest["items_with"] == {"text": 3, "image": 2}
    assert dataset.quarantine.select("item_id", "stage", "reason").rows() == [("I1", "media", "not_found")]
    assert dataset.items["item_id"].equals(plain.items["item_id"])


def test_required_images_need_an_address_not_a_download(tmp_path):
    products = [product(f"I{i}", imageURL=["https://h/x.jpg"]) for i in range(3)] + [product("I3")]
    dataset = make(tmp_path, dense(5, 4), products, config=PrepareConfig(k_user=3, k_item=2, require=("image",)))
    assert dataset.items["item_id"].to_list() == ["I0", "I1", "I2"]


def test_texts_join_fields(tmp_path):
    dataset = make(tmp_path, dense(5, 3), [product("I0"), product("I1", title=""), product("I2", brand="")])
    assert dataset.texts(("title", "brand")) == [("I0", "Title of I0. Acme"), ("I1", "Acme"), ("I2", "Title of I2")]
    with pytest.raises(ConfigConflictError, match="items have no column colour; they have item, item_id, title"):
        dataset.texts(("colour",))


def test_steps_and_stages_are_told(tmp_path):
    seen = []
    source = put(tmp_path / "src", dense(5, 4))
    dataset = prepare(
        "amazon-gift-cards", root=tmp_path, config=SMALL, source=source, progress=lambda *step: seen.append(step)
    )
    assert [stage for stage, done, total in seen if done == total] == ["parse", "filter", "write"]
    assert [step["name"] for step in dataset.manifest["steps"]] == ["parsed", "dedupe", "k_core"]
    assert dataset.manifest["raw"][0]["file"] == "Gift_Cards_5.json.gz"
    assert repr(dataset).startswith("PreparedDataset('amazon-gift-cards', version=")


def test_opening_what_was_never_prepared(tmp_path):
    with pytest.raises(NotPreparedError, match=r"no prepared dataset at .*/toys; run: reelstore prepare toys"):
        PreparedDataset.open(tmp_path / "toys")


def test_opening_what_is_damaged(tmp_path):
    dataset = make(tmp_path, dense(5, 4))
    items = dataset.path / "items.parquet"
    size = items.stat().st_size
    items.write_bytes(items.read_bytes()[:-1])
    with pytest.raises(DamagedFileError, match=rf"items.parquet: expected {size} bytes, got {size - 1}; remove"):
        PreparedDataset.open(dataset.path)
    assert make(tmp_path, dense(5, 4)).version == dataset.version  # prepared anew
    (dataset.path / "items.parquet").write_bytes(bytes(size))
    with pytest.raises(DamagedFileError, match=r"items.parquet: cannot be read"):
        _ = PreparedDataset.open(dataset.path).items
    (dataset.path / "manifest.json").write_text("{")
    with pytest.raises(DamagedFileError, match=r"manifest.json: expected JSON"):
        PreparedDataset.open(dataset.path)


def test_a_crash_between_two_renames_is_undone(tmp_path):
    dataset = make(tmp_path, dense(5, 4))
    dataset.path.rename(dataset.path.with_name(".amazon-gift-cards.old"))
    (dataset.path.parent / ".amazon-gift-cards.tmp-x").mkdir()
    inode = (dataset.path.with_name(".amazon-gift-cards.old") / "manifest.json").stat().st_ino
    again = prepare("amazon-gift-cards", root=tmp_path / "root", config=SMALL)
    assert (again.path / "manifest.json").stat().st_ino == inode
    assert not (dataset.path.parent / ".amazon-gift-cards.tmp-x").exists()
