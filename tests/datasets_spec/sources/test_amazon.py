"""Amazon Reviews v2: names, and two real files whose figures are known."""

import polars as pl
import pytest

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
