"""Amazon Reviews 2023: names, and files in the form that the release documents."""

import gzip
import json
import tomllib
from pathlib import Path

import pytest

from datasets_spec import registry
from datasets_spec.errors import SchemaError, UnknownDatasetError
from datasets_spec.prepare import prepare
from datasets_spec.sources import amazon2023
from datasets_spec.spec import PrepareConfig


@pytest.mark.parametrize(
    ("name", "category"),
    [
        ("amazon-2023-all-beauty", "All_Beauty"),
        ("amazon-2023-amazon-fashion", "Amazon_Fashion"),
        ("amazon-2023-cds-and-vinyl", "CDs_and_Vinyl"),
        ("amazon-2023-movies-and-tv", "Movies_and_TV"),
        ("amazon-2023-unknown", "Unknown"),
    ],
)
def test_names_become_file_names(name, category):
    reviews, metadata = amazon2023.spec(name).files
    assert (reviews.path, reviews.required) == (f"{category}.jsonl.gz", True)
    assert (metadata.path, metadata.required) == (f"meta_{category}.jsonl.gz", False)
    assert reviews.url == f"raw/review_categories/{category}.jsonl.gz"
    assert metadata.url == f"raw/meta_categories/meta_{category}.jsonl.gz"
    ratings, same = amazon2023.spec(f"{name}-5core").files
    assert (ratings.path, ratings.url) == (f"{category}.csv.gz", f"benchmark/5core/rating_only/{category}.csv.gz")
    assert same == metadata


def test_the_release_has_33_categories_and_one_for_the_rest():
    assert len(set(amazon2023.NAMES)) == 34
    assert all(amazon2023.match(name) and amazon2023.match(f"{name}-5core") for name in amazon2023.NAMES)


@pytest.mark.parametrize(
    ("wrong", "near"),
    [
        ("amazon-2023-all-beuty", "amazon-2023-all-beauty"),
        ("amazon-2023-toys-and-game", "amazon-2023-toys-and-games"),
        ("amazon-2023-gift-card", "amazon-2023-gift-cards"),
        ("amazon-2023-All_Beauty", "amazon-2023-all-beauty"),
    ],
)
def test_a_name_that_is_none_is_met_with_the_near_one(wrong, near):
    with pytest.raises(UnknownDatasetError, match=f"did you mean '{near}'"):
        registry.load(wrong)


@pytest.mark.parametrize(
    "name", ["amazon-2023", "amazon-2023-", "amazon-2023-5core", "amazon-toys", "amazon-all-beauty"]
)
def test_other_names_are_left_to_others(name):
    assert not amazon2023.match(name)
    with pytest.raises(ValueError, match="not a dataset of Amazon Reviews 2023"):
        amazon2023.spec(name)


def review(user, item, ms, **more):
    shown = {"rating": 5.0, "title": "Nice", "text": "a\nb", "images": [], "asin": f"{item}-variant"}
    rest = {"helpful_vote": 0, "verified_purchase": True}
    return shown | {"parent_asin": item, "user_id": user, "timestamp": ms} | rest | more


def product(item, **more):
    picture = {
        "thumb": f"https://m/{item}._SS40_.jpg",
        "large": f"https://m/{item}.jpg",
        "variant": "MAIN",
        "hi_res": None,
    }
    shown = {"main_category": "All Beauty", "title": f"{item} &amp; co", "average_rating": 4.8, "rating_number": 10}
    lists = {
        "features": [],
        "description": [],
        "images": [picture],
        "videos": [],
        "categories": [],
        "details": {"a": "b"},
    }
    return shown | lists | {"price": None, "store": "Howard", "parent_asin": item, "bought_together": None} | more


def pack(path: Path, rows):
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(gzip.compress("".join(json.dumps(row) + "\n" for row in rows).encode()))


PRODUCTS = [
    product("a", price=9.99, categories=["Beauty", "Beauty", "Hair"]),
    product("b", price="from 14.99", images=[], store=None),
    product("c", title="", main_category=None),
    product("d", price="\u2014"),
]


def test_reviews_and_products(tmp_path):
    source = tmp_path / "source"
    base = 1_588_687_728_923
    rows = [review(f"u{u}", item, base + 10 * u + place) for u in range(5) for place, item in enumerate("badce")]
    rows.append(review("u0", "b", base - 1))  # another variant, earlier: this one stays
    pack(source / "All_Beauty.jsonl.gz", rows)
    pack(source / "meta_All_Beauty.jsonl.gz", [*PRODUCTS, *PRODUCTS[:2], product("never reviewed")])
    dataset = prepare("amazon-2023-all-beauty", root=tmp_path / "root", source=str(source))
    assert (dataset.interactions.height, dataset.n_users, dataset.n_items) == (25, 5, 5)
    first = dataset.interactions.filter(user_id="u0")
    assert first["item_id"].to_list() == list("badce")
    assert first["timestamp"].dt.epoch("ms").to_list() == [base - 1, base + 1, base + 2, base + 3, base + 4]
    columns = ["item_id", "title", "brand", "category", "price", "image_url"]
    assert dataset.items.sort("item_id").select(columns).rows() == [
        ("a", "a & co", "Howard", "Beauty > Hair", 9.99, "https://m/a.jpg"),
        ("b", "b & co", None, "All Beauty", None, None),
        ("c", None, "Howard", None, None, "https://m/c.jpg"),
        ("d", "d & co", "Howard", "All Beauty", None, "https://m/d.jpg"),
        ("e", None, None, None, None, None),
    ]
    assert dataset.manifest["notes"] == ["1 of 5 reviewed items have no metadata row"]


def test_required_modalities(tmp_path):
    source = tmp_path / "source"
    pack(source / "All_Beauty.jsonl.gz", [review("u", item, 10**12) for item in "abcde"])
    pack(source / "meta_All_Beauty.jsonl.gz", PRODUCTS)
    for require, left in ((("text",), "abd"), (("image",), "acd"), (("text", "image"), "ad")):
        config = PrepareConfig(k_user=1, k_item=1, require=require)
        dataset = prepare("amazon-2023-all-beauty", root=tmp_path / "root", config=config, source=str(source))
        assert sorted(dataset.items["item_id"]) == list(left)


def test_the_official_core_and_no_metadata(tmp_path):
    source = tmp_path / "source"
    source.mkdir()
    lines = ["user_id,parent_asin,rating,timestamp"]
    lines += [f"u{u},i{i},5.0,{10**12 + i}" for u in range(5) for i in range(5)]
    (source / "All_Beauty.csv.gz").write_bytes(gzip.compress("\n".join(lines).encode()))
    dataset = prepare("amazon-2023-all-beauty-5core", root=tmp_path / "root", source=str(source))
    assert (dataset.interactions.height, dataset.n_users, dataset.n_items) == (25, 5, 5)
    assert "meta_All_Beauty.jsonl.gz is missing" in dataset.manifest["notes"][0]
    assert [file["file"] for file in dataset.manifest["raw"]] == ["All_Beauty.csv.gz"]


def test_a_download_takes_the_two_files(tmp_path, server):
    pack(tmp_path / "made" / "reviews", [review(f"u{u}", f"i{i}", 10**12) for u in range(5) for i in range(5)])
    server.put("raw/review_categories/Gift_Cards.jsonl.gz", (tmp_path / "made" / "reviews").read_bytes())
    config = PrepareConfig(base_url=server.url)
    dataset = prepare("amazon-2023-gift-cards", root=tmp_path / "root", config=config)
    assert dataset.interactions.height == 25
    assert {request.path for request in server.requests} == {
        "/raw/review_categories/Gift_Cards.jsonl.gz",
        "/raw/meta_categories/meta_Gift_Cards.jsonl.gz",
    }


def test_files_of_2018_are_refused(tmp_path, shared_data):
    source = tmp_path / "source"
    source.mkdir()
    (source / "Gift_Cards.jsonl.gz").symlink_to(shared_data / "amazon_v2_gift_cards" / "Gift_Cards_5.json.gz")
    message = r"expected objects with user_id, parent_asin, timestamp, .*found .*reviewerID.*the 2018 release"
    with pytest.raises(SchemaError, match=message):
        prepare("amazon-2023-gift-cards", root=tmp_path / "root", source=str(source))


def test_the_configuration_file_is_the_default():
    path = Path(__file__).parents[3] / "configs" / "datasets" / "amazon-2023-all-beauty.toml"
    config = PrepareConfig.model_validate(tomllib.loads(path.read_text()))
    assert config == amazon2023.spec("amazon-2023-all-beauty").config
