"""Amazon Reviews v2 (2018).

Source: Ni, Li, McAuley, «Justifying recommendations using distantly-labeled reviews and fine-grained aspects», EMNLP
2019. Files per category: ``{Category}_5.json.gz`` (reviews) and ``meta_{Category}.json.gz`` (products), one JSON
object a line. What the data really look like, and what is done about it:

* The "5-core" files repeat (user, item) pairs and are not strictly 5-core: duplicates leave, then the k-core is run.
* Times have the granularity of a day, so most users have ties: they break by item id.
* Item ids are texts: those of books are digits and may begin with 0.
* Titles may be a piece of HTML or of a script: they become null, and the row goes to quarantine. Entities are resolved.
* ``price`` may hold style sheets (then null), ``rank`` is a text or a list of texts, product rows repeat.
* The 2014 release (v1) has files of the same kind with other content; they are refused.

The metadata file may be missing: titles are null then. A local folder may hold the rating file ``{Category}.csv``
(item, user, rating, seconds; no header) in place of the reviews: it has the ratings of the whole category.

``require=image`` asks for an address; see :mod:`datasets_spec.images` for items whose image cannot be fetched. Images
are fetched on request only (``media=image``).
"""

from __future__ import annotations

import difflib
import logging
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import polars as pl

from datasets_spec.amazon_format import Release, read_products, read_ratings, read_reviews
from datasets_spec.download import DownloadFailure
from datasets_spec.errors import MissingSourceError
from datasets_spec.images import fetch_item_images
from datasets_spec.products import clean_brand, clean_category, first_image, parse_price, parse_rank
from datasets_spec.raw import acquire_files, raw_file
from datasets_spec.schema import BadRow, RawTables
from datasets_spec.spec import DatasetSpec, Licence, PrepareConfig, Progress, PublishedCounts, RemoteFile

_log = logging.getLogger(__name__)

#: The 29 categories of the release, as its files spell them.
CATEGORIES = (
    "AMAZON_FASHION",
    "All_Beauty",
    "Appliances",
    "Arts_Crafts_and_Sewing",
    "Automotive",
    "Books",
    "CDs_and_Vinyl",
    "Cell_Phones_and_Accessories",
    "Clothing_Shoes_and_Jewelry",
    "Digital_Music",
    "Electronics",
    "Gift_Cards",
    "Grocery_and_Gourmet_Food",
    "Home_and_Kitchen",
    "Industrial_and_Scientific",
    "Kindle_Store",
    "Luxury_Beauty",
    "Magazine_Subscriptions",
    "Movies_and_TV",
    "Musical_Instruments",
    "Office_Products",
    "Patio_Lawn_and_Garden",
    "Pet_Supplies",
    "Prime_Pantry",
    "Software",
    "Sports_and_Outdoors",
    "Tools_and_Home_Improvement",
    "Toys_and_Games",
    "Video_Games",
)
#: The four that the IMECD paper uses, under the names it gives them.
SHORT = {
    "toys": "Toys_and_Games",
    "games": "Video_Games",
    "instruments": "Musical_Instruments",
    "food": "Grocery_and_Gourmet_Food",
}
_BY_SLUG = {category.lower().replace("_", "-"): category for category in CATEGORIES} | SHORT

NAMES: tuple[str, ...] = tuple(
    f"amazon-{slug}" for slug, category in _BY_SLUG.items() if slug in SHORT or category not in SHORT.values()
)

BASE = "https://mcauleylab.ucsd.edu/public_datasets/data/amazon_v2"
MIRRORS = (
    "https://datarepo.eng.ucsd.edu/mcauley_group/data/amazon_v2",
    "https://jmcauley.ucsd.edu/data/amazon_v2",
)
_LICENCE = Licence(
    name="none stated",
    url="https://cseweb.ucsd.edu/~jmcauley/datasets/amazon_v2/",
    note="For research; cite Ni, Li and McAuley (EMNLP 2019). Do not redistribute.",
)
#: Size and SHA-256 as published by people who hold copies; only the official addresses are bound to them.
_DIGESTS = {
    "Musical_Instruments_5.json.gz": (39_353_085, "e3ae8a3f0d70bf63242a49539a8847d30216a3aa2938c049c7f43d0473fef1bc"),
    "All_Beauty_5.json.gz": (634_283, "8e49737fefaec9290187c69bf92889452df8be0ab5e36c9476520d6639683279"),
    "meta_All_Beauty.json.gz": (10_329_961, "7eddc73258980e454601d2300433c4ec66cc2ac9dcd4146b101696c8f924c2e3"),
}

#: Table I of the IMECD paper.
_PUBLISHED = {
    "amazon-toys": (147_356, 49_637, 1_258_412),
    "amazon-games": (39_828, 11_364, 343_349),
    "amazon-instruments": (18_870, 6_619, 152_271),
    "amazon-food": (107_203, 32_896, 946_309),
}

_RELEASE = Release(
    title="Amazon Reviews v2 (2018)",
    user="reviewerID",
    item="asin",
    time="unixReviewTime",
    milliseconds=1000,
    first=1,
    last=2**32 - 1,  # year 2106; the release ends in 2018
)
_ITEMS: dict[str, pl.DataType] = {
    "item_id": pl.String(),
    "title": pl.String(),
    "brand": pl.String(),
    "category": pl.String(),
    "price": pl.Float64(),
    "rank": pl.Int64(),
    "image_url": pl.String(),
}
_NAME = re.compile(r"amazon-(?!2023(?:-|$))([a-z0-9]+(?:-[a-z0-9]+)*)(?<!-2014)")


def match(name: str) -> bool:
    """Whether ``name`` is a category of this release; ``amazon-2023-…`` and ``amazon-…-2014`` belong to others."""
    return _category(name) is not None


def _category(name: str) -> str | None:
    """``amazon-gift-cards`` -> ``Gift_Cards``.

    A category that is not known is taken at its word; one that nearly is a known one is a slip of the keyboard.
    """
    found = _NAME.fullmatch(name)
    if found is None:
        return None
    slug = found[1]
    if slug in _BY_SLUG:
        return _BY_SLUG[slug]
    if difflib.get_close_matches(slug, _BY_SLUG, n=1, cutoff=0.8):
        return None
    return "_".join(word if word == "and" else word.capitalize() for word in slug.split("-"))


def spec(name: str) -> DatasetSpec:
    """The dataset of one category."""
    category = _category(name)
    if category is None:
        raise ValueError(f"not a dataset of Amazon Reviews v2: {name!r}")
    recipe = name.removeprefix("amazon-") in SHORT
    printed = [PublishedCounts("IMECD, Table I", *_PUBLISHED[name])] if name in _PUBLISHED else []
    return DatasetSpec(
        name=name,
        title=f"Amazon Reviews v2 (2018), {category.replace('_', ' ')}",
        licence=_LICENCE,
        access=(
            f"Free download of {category}_5.json.gz and meta_{category}.json.gz; source= takes a folder that holds "
            f"both. The metadata file may be missing; then items have no title. {category}.csv (ratings of the whole "
            "category) is taken where a folder has no reviews. Images: media=image."
        ),
        files=(
            _remote(f"{category}_5.json.gz", "categoryFilesSmall", required=True),
            _remote(f"meta_{category}.json.gz", "metaFiles2", required=False),
        ),
        media=("image",),
        config=PrepareConfig(require=("text", "image") if recipe else (), media=(), base_url=BASE, mirrors=MIRRORS),
        published=tuple(printed),
    )


def _remote(path: str, folder: str, *, required: bool) -> RemoteFile:
    size, digest = _DIGESTS.get(path, (None, None))
    return RemoteFile(path, f"{folder}/{path}", digest, size, required)


def acquire(
    spec: DatasetSpec, config: PrepareConfig, raw_dir: Path, *, source: str | None, progress: Progress | None
) -> None:
    """Download both files, or point to a folder that holds them (or the rating file)."""
    try:
        failures = acquire_files(spec, config, raw_dir, source=source, progress=progress)
    except MissingSourceError as error:
        failures = _acquire_ratings(spec, config, raw_dir, source, error)
    for failure in failures:
        _log.info("%s: without %s: %s", spec.name, failure.file.path, failure.detail)


def _acquire_ratings(
    spec: DatasetSpec, config: PrepareConfig, raw_dir: Path, source: str | None, error: MissingSourceError
) -> list[DownloadFailure]:
    """Point to a folder that holds the rating file in place of the reviews; raises ``error`` when it does not."""
    reviews, metadata = spec.files
    ratings = RemoteFile(_ratings(reviews.path), _ratings(reviews.url))
    try:
        return acquire_files(replace(spec, files=(ratings, metadata)), config, raw_dir, source=source)
    except MissingSourceError:
        raise error from None


def _ratings(reviews: str) -> str:
    """``Books_5.json.gz`` -> ``Books.csv``."""
    return f"{reviews.removesuffix('_5.json.gz')}.csv"


def parse(spec: DatasetSpec, config: PrepareConfig, raw_dir: Path) -> RawTables:
    """Read reviews (or ratings), and the metadata of the reviewed items."""
    del config
    reviews, metadata = (raw_file(raw_dir, file.path) for file in spec.files)
    bad_rows: list[BadRow] = []
    notes: list[str] = []
    if reviews.is_file():
        interactions = read_reviews(reviews, _RELEASE, bad_rows)
    else:
        reviews = reviews.with_name(_ratings(reviews.name))
        interactions = read_ratings(reviews, _RELEASE, bad_rows, header=None)
        notes.append(f"read from {reviews.name}: the ratings of the whole category, not those of its 5-core file")
    if not metadata.is_file():
        notes.append(f"the metadata file {metadata.name} is missing: titles, brands, categories and images are null")
        return RawTables(interactions, pl.DataFrame(schema=_ITEMS), bad_rows, (reviews,), tuple(notes))
    wanted = set(interactions["item_id"].unique())
    items, more = read_products(metadata, _RELEASE, wanted, _fields, _ITEMS, bad_rows)
    return RawTables(interactions, items, bad_rows, (reviews, metadata), (*notes, *more))


def _fields(raw: dict[str, Any]) -> dict[str, Any]:
    return {
        "brand": clean_brand(raw.get("brand")),
        "category": clean_category(raw.get("category")),
        "price": parse_price(raw.get("price")),
        "rank": parse_rank(raw.get("rank")),
        "image_url": first_image(raw),
    }


acquire_media = fetch_item_images
