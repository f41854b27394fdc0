"""Amazon Reviews v2: names, and two real files whose figures are known."""

import gzip
import io
import json

import polars as pl
import pytest
from PIL import Image

from datasets_spec.errors import EmptyResultError, MissingSourceError, SchemaError
from datasets_spec.kcore import k_core
from datasets_spec.prepare import prepare
from datasets_spec.sources import amazon
from datasets_spec.spec import PrepareConfig


@pytest.mark.parametrize(
    ("name", "category"),
    [
        ("amazon-toys", "Toys_and_Games"),
        ("amazon-games", "Video_Games"),
        ("amazon-instruments", "Musical_Instruments"),
        ("amazon-food", "Grocery_and_Gourmet_Food"),
        ("amazon-gift-cards", "Gift_Cards"),
        ("amazon-all-beauty", "All_Beauty"),
        ("amazon-cds-and-vinyl", "CDs_and_Vinyl"),
        ("amazon-amazon-fashion", "AMAZON_FASHION"),
        ("amazon-movies-and-tv", "Movies_and_TV"),
        ("amazon-garden-gnomes-and-more", "Garden_Gnomes_and_More"),
    ],
)
def test_names_become_file_names(name, category):
    assert amazon.match(name)
    reviews, metadata = amazon.spec(name).files
    assert (reviews.path, reviews.required) == (f"{category}_5.json.gz", True)
    assert (metadata.path, metadata.required) == (f"meta_{category}.json.gz", False)
    assert reviews.url == f"categoryFilesSmall/{category}_5.json.gz"
    assert metadata.url == f"metaFiles2/meta_{category}.json.gz"


@pytest.mark.parametrize(
    "name", ["amazon-2023-toys", "amazon-2023", "amazon-toy", "amazon-gift-card", "amazon", "movielens-10m"]
)
def test_other_names_are_left_to_others(name):
    assert not amazon.match(name)


def test_the_four_recipes_require_both_modalities_and_the_others_none():
    required = {name for name in amazon.NAMES if amazon.spec(name).config.require == ("text", "image")}
    assert required == {"amazon-toys", "amazon-games", "amazon-instruments", "amazon-food"}
    assert all(amazon.spec(name).config.media == () for name in amazon.NAMES)
    assert len(amazon.NAMES) == len(amazon.CATEGORIES) == 29


@pytest.fixture(scope="module")
def gift_cards(shared_data, tmp_path_factory):
    source = shared_data / "amazon_v2_gift_cards"
    return prepare("amazon-gift-cards", root=tmp_path_factory.mktemp("root"), source=str(source))


def test_gift_cards_real(gift_cards):
    # Figures of the raw files: 2,972 rows, 458 users, 148 items, 7 repeated pairs; measured by other programs.
    first, second, third = gift_cards.manifest["steps"]
    assert (first["rows"], first["users"], first["items"]) == (2972, 458, 148)
    assert second["rows"] == 2972 - 7
    assert (third["rows"], third["users"], third["items"]) == (2941, 453, 147)
    assert (gift_cards.interactions.height, gift_cards.n_users, gift_cards.n_items) == (2941, 453, 147)
    assert gift_cards.manifest["raw"][0]["sha256"].startswith("41e1f0e50d3c1c9d")
    assert gift_cards.manifest["stats"]["first"].startswith("2012-01-31")
    assert gift_cards.manifest["stats"]["last"].startswith("2018-08-22")


def test_gift_cards_real_is_a_core_and_holds_no_pair_twice(gift_cards):
    rows = gift_cards.interactions
    assert rows.select("user", "item").is_duplicated().sum() == 0
    mask, report = k_core(rows["user"], rows["item"], k_user=5, k_item=5)
    assert mask.all()
    assert report.rounds == []
    assert rows.group_by("user").len()["len"].min() == 5
    assert rows.equals(rows.sort("user", "timestamp", "item_id"))


def test_gift_cards_real_texts_are_clean(gift_cards):
    titles = gift_cards.items["title"]
    assert titles.null_count() == 0
    assert not titles.str.contains(r"&#|&amp;|<span").any()
    assert gift_cards.items["price"].dtype == pl.Float64
    assert gift_cards.items["rank"].null_count() < 147


def test_gift_cards_real_with_images_required(shared_data, tmp_path):
    source = str(shared_data / "amazon_v2_gift_cards")
    config = PrepareConfig(require=("text", "image"))
    dataset = prepare("amazon-gift-cards", root=tmp_path, config=config, source=source)
    required = next(step for step in dataset.manifest["steps"] if step["name"] == "require")
    assert required["items"] == 148 - 32  # 32 of the reviewed items have no image
    assert dataset.items["image_url"].null_count() == 0
    assert dataset.n_items <= 116


def test_all_beauty_real_without_metadata(shared_data, tmp_path):
    source = str(shared_data / "amazon_v2_all_beauty")
    dataset = prepare("amazon-all-beauty", root=tmp_path, source=source)
    first, second, _ = dataset.manifest["steps"]
    assert (first["rows"], first["users"], first["items"]) == (5269, 991, 85)
    assert second["rows"] == 5269 - 1177
    assert (dataset.interactions.height, dataset.n_users, dataset.n_items) == (686, 137, 24)
    assert "meta_All_Beauty.json.gz is missing" in dataset.manifest["notes"][0]


def test_a_smoke_run_of_real_data(shared_data, tmp_path):
    source = str(shared_data / "amazon_v2_gift_cards")
    dataset = prepare(
        "amazon-gift-cards", root=tmp_path, config=PrepareConfig(k_user=3, k_item=3, limit=40), source=source
    )
    assert 0 < dataset.n_items <= 40


def write(folder, category, reviews, products=None):
    """A folder with the files of a category: reviews (user, item, day) and products as objects."""
    folder.mkdir()
    rows = [{"reviewerID": u, "asin": i, "unixReviewTime": 86_400 * day} for u, i, day in reviews]
    files = {f"{category}_5.json.gz": rows}
    if products is not None:
        files[f"meta_{category}.json.gz"] = products
    for name, objects in files.items():
        (folder / name).write_bytes(gzip.compress("\n".join(json.dumps(row) for row in objects).encode()))
    return str(folder)


def test_items_without_a_modality_leave_before_the_core(tmp_path):
    # u0..u4 have all of a..f, u5 has all but e: 30 + 5 rows, a 5-core. f has no image, so u5 is left with a..d and
    # leaves; u0..u4 and a..e remain, 25 rows. If f left after the core, 29 rows of 6 users would remain.
    reviews = [(f"u{u}", item, 10) for u in range(5) for item in "abcdef"] + [("u5", item, 10) for item in "abcdf"]
    products = [{"asin": item, "title": item.upper(), "imageURL": [f"http://h/{item}.jpg"]} for item in "abcde"]
    products.append({"asin": "f", "title": "F", "imageURL": []})
    source = write(tmp_path / "source", "Toys_and_Games", reviews, products)
    plain = prepare("amazon-toys", root=tmp_path / "a", config=PrepareConfig(), source=source)
    assert (plain.interactions.height, plain.n_users, plain.n_items) == (35, 6, 6)
    recipe = prepare("amazon-toys", root=tmp_path / "b", source=source)
    assert [step["rows"] for step in recipe.manifest["steps"]] == [35, 35, 29, 25]
    assert (recipe.n_users, recipe.n_items) == (5, 5)
    products[0]["title"] = (
        '<span class="a-size-medium a-color-secondary"'  # a broken title is none: its 6 rows leave too
    )
    broken = write(tmp_path / "broken", "Toys_and_Games", reviews, products)
    with pytest.raises(EmptyResultError, match="require: 23 rows, 6 users, 4 items"):
        prepare("amazon-toys", root=tmp_path / "c", source=broken)


def test_an_item_whose_image_cannot_be_fetched_stays(tmp_path, server):
    buffer = io.BytesIO()
    Image.new("RGB", (8, 6)).save(buffer, "JPEG")
    for item in "abde":
        server.put(f"{item}.jpg", buffer.getvalue())
    reviews = [(f"u{u}", item, 10) for u in range(5) for item in "abcde"]
    products = [{"asin": item, "title": item, "imageURL": [f"{server.url}/{item}.jpg"]} for item in "abcde"]
    source = write(tmp_path / "source", "Video_Games", reviews, products)
    config = PrepareConfig(require=("text", "image"), media=("image",))
    dataset = prepare("amazon-games", root=tmp_path / "root", config=config, source=source)
    assert dataset.interactions.height == 25
    assert dataset.items.filter(pl.col("image").is_null())["item_id"].to_list() == ["c"]
    assert dataset.quarantine.select("item_id", "stage", "reason").rows() == [("c", "media", "not_found")]


def test_times_of_a_day_break_by_item_id_and_of_a_repeated_pair_the_first_stays(tmp_path):
    reviews = [("u", "0000000009", 5), ("u", "B2", 3), ("u", "0000000010", 5), ("u", "B2", 9), ("u", "B1", 3)]
    config = PrepareConfig(k_user=1, k_item=1)
    for name, rows in (("a", reviews), ("b", reviews[::-1]), ("c", [*reviews, *reviews])):
        source = write(tmp_path / name, "Books", rows)
        dataset = prepare("amazon-books", root=tmp_path / f"root-{name}", config=config, source=source)
        assert dataset.interactions["item_id"].to_list() == ["B1", "B2", "0000000009", "0000000010"]


def test_a_folder_may_hold_ratings_in_place_of_reviews(tmp_path):
    folder = tmp_path / "source"
    folder.mkdir()
    lines = [f"B00000000{item},A{user}ABCDEFGHIJ,5.0,{86_400 * (1 + item)}" for user in range(5) for item in range(5)]
    (folder / "Books.csv").write_text("\n".join(lines))
    dataset = prepare("amazon-books", root=tmp_path / "root", source=str(folder))
    assert (dataset.interactions.height, dataset.n_users, dataset.n_items) == (25, 5, 5)
    assert dataset.manifest["notes"][0].startswith("read from Books.csv: the ratings of the whole category")
    assert [file["file"] for file in dataset.manifest["raw"]] == ["Books.csv"]
    again = prepare("amazon-books", root=tmp_path / "root")  # the folder is remembered
    assert again.version == dataset.version
    (folder / "Books.csv").unlink()
    with pytest.raises(MissingSourceError, match=r"expected Books_5.json.gz in .*Books.csv \(ratings"):
        prepare("amazon-books", root=tmp_path / "other", source=str(folder))


def test_files_of_another_release_are_refused(tmp_path):
    folder = tmp_path / "source"
    folder.mkdir()
    (folder / "Books_5.json.gz").write_bytes(gzip.compress(b"{'reviewerID': 'A1', 'asin': 'B1'}\n"))
    with pytest.raises(SchemaError, match=r"Books_5.json.gz: .*Python literal.*the 2014 release"):
        prepare("amazon-books", root=tmp_path / "root", source=str(folder))


def test_the_papers_sizes_stand_beside_the_four_recipes():
    sizes = {name: printed for name in amazon.NAMES for printed in amazon.spec(name).published}
    # The average lengths in the paper's table follow from its sizes.
    averages = {name: round(printed.interactions / printed.users, 2) for name, printed in sizes.items()}
    assert averages == {"amazon-toys": 8.54, "amazon-games": 8.62, "amazon-instruments": 8.07, "amazon-food": 8.83}
