"""Amazon Reviews v2 (2018).

Source: Ni, Li, McAuley, «Justifying recommendations using distantly-labeled reviews and fine-grained aspects», EMNLP
2019. Files per category: ``{Category}_5.json.gz`` (reviews) and ``meta_{Category}.json.gz`` (products), one JSON
object a line. What the data really look like, and what is done about it:

* The "5-core" files repeat (user, item) pairs and are not strictly 5-core: duplicates leave, then the k-core is run.
* Times have the granularity of a day, so most users have ties: they break by item id.
* Titles may be a piece of HTML or of a script: they become null, and the row goes to quarantine.
* ``price`` may hold style sheets (then null), ``rank`` is a text or a list of texts, product rows repeat.

The metadata file may be missing: titles are null then. Images are fetched on request only (``media=image``).
"""

from __future__ import annotations

import difflib
import logging
import re
from pathlib import Path
from typing import Any

import polars as pl

from datasets_spec.images import fetch_images
from datasets_spec.lines import read_json_lines
from datasets_spec.products import clean_brand, clean_category, clean_title, first_image, parse_price, parse_rank
from datasets_spec.raw import acquire_files, raw_file
from datasets_spec.schema import TIME, BadRow, RawTables
from datasets_spec.spec import DatasetSpec, Licence, PrepareConfig, Progress, RemoteFile

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

_ITEMS: dict[str, pl.DataType] = {
    "item_id": pl.String(),
    "title": pl.String(),
    "brand": pl.String(),
    "category": pl.String(),
    "price": pl.Float64(),
    "rank": pl.Int64(),
    "image_url": pl.String(),
}
_NAME = re.compile(r"amazon-(?!2023(?:-|$))([a-z0-9]+(?:-[a-z0-9]+)*)")
_LAST_SECOND = 2**32  # year 2106; the release ends in 2018


def match(name: str) -> bool:
    """Whether ``name`` is a category of this release; ``amazon-2023-…`` belongs to another one."""
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
    return DatasetSpec(
        name=name,
        title=f"Amazon Reviews v2 (2018), {category.replace('_', ' ')}",
        licence=_LICENCE,
        access=(
            f"Free download of {category}_5.json.gz and meta_{category}.json.gz; source= takes a folder that holds "
            "both. The metadata file may be missing; then items have no title. Images: media=image."
        ),
        files=(
            _remote(f"{category}_5.json.gz", "categoryFilesSmall", required=True),
            _remote(f"meta_{category}.json.gz", "metaFiles2", required=False),
        ),
        media=("image",),
        config=PrepareConfig(require=("text", "image") if recipe else (), media=(), base_url=BASE, mirrors=MIRRORS),
    )


def _remote(path: str, folder: str, *, required: bool) -> RemoteFile:
    size, digest = _DIGESTS.get(path, (None, None))
    return RemoteFile(path, f"{folder}/{path}", digest, size, required)


def acquire(
    spec: DatasetSpec, config: PrepareConfig, raw_dir: Path, *, source: str | None, progress: Progress | None
) -> None:
    """Download both files, or point to a folder that holds them."""
    for failure in acquire_files(spec, config, raw_dir, source=source, progress=progress):
        _log.info("%s: without %s: %s", spec.name, failure.file.path, failure.detail)


def parse(spec: DatasetSpec, config: PrepareConfig, raw_dir: Path) -> RawTables:
    """Read reviews, and the metadata of the reviewed items."""
    del config
    reviews, metadata = (raw_file(raw_dir, file.path) for file in spec.files)
    bad_rows: list[BadRow] = []
    interactions = _read_reviews(reviews, bad_rows)
    if not metadata.is_file():
        note = f"the metadata file {metadata.name} is missing: titles, brands, categories and images are null"
        return RawTables(interactions, pl.DataFrame(schema=_ITEMS), bad_rows, (reviews,), (note,))
    items, notes = _read_metadata(metadata, set(interactions["item_id"].unique()), bad_rows)
    return RawTables(interactions, items, bad_rows, (reviews, metadata), notes)


def _read_reviews(path: Path, bad_rows: list[BadRow]) -> pl.DataFrame:
    users: list[str] = []
    items: list[str] = []
    seconds: list[int] = []
    for line, row in read_json_lines(path, bad_rows):
        user, item, time = row.get("reviewerID"), row.get("asin"), row.get("unixReviewTime")
        if not (isinstance(user, str) and user and isinstance(item, str) and item):
            detail = f"expected texts reviewerID and asin, got {user!r} and {item!r}"
            bad_rows.append(BadRow(path.name, line, None, "missing_id", detail))
        elif not isinstance(time, int) or isinstance(time, bool) or not 0 < time < _LAST_SECOND:
            detail = f"expected unixReviewTime in seconds, got {time!r}"
            bad_rows.append(BadRow(path.name, line, item, "bad_time", detail))
        else:
            users.append(user)
            items.append(item)
            seconds.append(time)
    columns = {"user_id": users, "item_id": items, "timestamp": [1000 * second for second in seconds]}
    frame = pl.DataFrame(columns, schema={"user_id": pl.String, "item_id": pl.String, "timestamp": pl.Int64})
    return frame.with_columns(pl.col("timestamp").cast(TIME), order=pl.lit(None, pl.Int64))


def _read_metadata(path: Path, wanted: set[str], bad_rows: list[BadRow]) -> tuple[pl.DataFrame, tuple[str, ...]]:
    rows: list[dict[str, Any]] = []
    for line, raw in read_json_lines(path, bad_rows):
        asin = raw.get("asin")
        if not isinstance(asin, str) or not asin:
            bad_rows.append(BadRow(path.name, line, None, "missing_id", f"expected a text asin, got {asin!r}"))
        elif asin in wanted:
            title, fault = clean_title(raw.get("title"))
            if fault is not None:
                bad_rows.append(BadRow(path.name, line, asin, "broken_title", fault))
            rows.append(_item(asin, title, raw))
    frame = pl.DataFrame(rows, schema=_ITEMS).unique()
    # Of different rows for one product the fullest stays; among equally full ones the first by content, not by line.
    missing = pl.sum_horizontal(pl.exclude("item_id").is_null()).alias("missing")
    ordered = frame.with_columns(missing).sort("item_id", "missing", *list(_ITEMS)[1:], nulls_last=True)
    unique = ordered.unique("item_id", keep="first", maintain_order=True).drop("missing")
    notes = list[str]()
    if frame.height > unique.height:
        notes.append(f"{frame.height - unique.height} differing metadata rows of the same item left out")
    absent = len(wanted) - unique.height
    if absent:
        notes.append(f"{absent} of {len(wanted)} reviewed items have no metadata row")
    return unique, tuple(notes)


def _item(asin: str, title: str | None, raw: dict[str, Any]) -> dict[str, Any]:
    return {
        "item_id": asin,
        "title": title,
        "brand": clean_brand(raw.get("brand")),
        "category": clean_category(raw.get("category")),
        "price": parse_price(raw.get("price")),
        "rank": parse_rank(raw.get("rank")),
        "image_url": first_image(raw),
    }


def acquire_media(
    spec: DatasetSpec,
    config: PrepareConfig,
    raw_dir: Path,
    items: pl.DataFrame,
    *,
    source: str | None,
    progress: Progress | None,
) -> tuple[pl.DataFrame, list[BadRow]]:
    """Fetch the product images of ``items``, when ``media`` asks for them."""
    del source  # remembered in the raw folder
    if "image" not in spec.media_for(config):
        return items, []
    return fetch_images(items, raw_dir, progress=progress)
