"""Amazon Reviews 2023.

Source: Hou, Li, He, Yan, Chen, McAuley, «Bridging language and items for retrieval and recommendation», 2024
(arXiv:2403.03952). Two datasets per category:

* ``amazon-2023-<category>`` reads all reviews, ``{Category}.jsonl.gz``.
* ``amazon-2023-<category>-5core`` reads the release's own 5-core, ``{Category}.csv.gz``, a hundredth of the bytes.

Products come from ``meta_{Category}.jsonl.gz`` in both; that file may be missing, titles are null then. Differences to
the release of 2018: an item is a ``parent_asin`` (``asin`` is one of its variants), times are in milliseconds, the
brand is called ``store``, images are objects with several sizes of which the variant ``MAIN`` is taken, and
``categories`` is empty for some categories (``main_category`` stands in).

``require=image`` asks for an address; see :mod:`datasets_spec.images` for items whose image cannot be fetched. Images
are fetched on request only (``media=image``).
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import polars as pl

from datasets_spec.amazon_format import Release, read_products, read_ratings, read_reviews
from datasets_spec.images import fetch_item_images
from datasets_spec.products import clean_brand, clean_category, main_image, parse_price
from datasets_spec.raw import acquire_files, raw_file
from datasets_spec.schema import BadRow, RawTables
from datasets_spec.spec import DatasetSpec, Licence, PrepareConfig, Progress, RemoteFile

_log = logging.getLogger(__name__)

#: The 34 categories of the release, as its files spell them.
CATEGORIES = (
    "All_Beauty",
    "Amazon_Fashion",
    "Appliances",
    "Arts_Crafts_and_Sewing",
    "Automotive",
    "Baby_Products",
    "Beauty_and_Personal_Care",
    "Books",
    "CDs_and_Vinyl",
    "Cell_Phones_and_Accessories",
    "Clothing_Shoes_and_Jewelry",
    "Digital_Music",
    "Electronics",
    "Gift_Cards",
    "Grocery_and_Gourmet_Food",
    "Handmade_Products",
    "Health_and_Household",
    "Health_and_Personal_Care",
    "Home_and_Kitchen",
    "Industrial_and_Scientific",
    "Kindle_Store",
    "Magazine_Subscriptions",
    "Movies_and_TV",
    "Musical_Instruments",
    "Office_Products",
    "Patio_Lawn_and_Garden",
    "Pet_Supplies",
    "Software",
    "Sports_and_Outdoors",
    "Subscription_Boxes",
    "Tools_and_Home_Improvement",
    "Toys_and_Games",
    "Unknown",
    "Video_Games",
)
_PREFIX = "amazon-2023-"
_CORE = "-5core"
_BY_NAME = {f"{_PREFIX}{category.lower().replace('_', '-')}": category for category in CATEGORIES}

NAMES: tuple[str, ...] = tuple(_BY_NAME)

BASE = "https://mcauleylab.ucsd.edu/public_datasets/data/amazon_2023"
MIRRORS = ("https://datarepo.eng.ucsd.edu/mcauley_group/data/amazon_2023",)
_LICENCE = Licence(
    name="none stated",
    url="https://amazon-reviews-2023.github.io/",
    note="For research; cite Hou et al. (arXiv:2403.03952). Do not redistribute.",
)
#: SHA-256 on which two independent holders of copies agree; only the official addresses are bound to them.
_DIGESTS = {
    "All_Beauty.jsonl.gz": "ee00e66835567c3f12fde6a482f8d7055c22cac2d0924f677263affdd8a0e349",
    "meta_All_Beauty.jsonl.gz": "51f8255c2794afd60e274c10d3e2d09dc1f671eba4ba35f74f748d8631216d05",
}

_RELEASE = Release(
    title="Amazon Reviews 2023",
    user="user_id",
    item="parent_asin",
    time="timestamp",
    milliseconds=1,
    first=10**11,  # March 1973: seconds taken for milliseconds lie before it
    last=2**32 * 1000,  # year 2106; the release ends in 2023
)
_HEADER = "user_id,parent_asin,rating,timestamp"
_ITEMS: dict[str, pl.DataType] = {
    "item_id": pl.String(),
    "title": pl.String(),
    "brand": pl.String(),
    "category": pl.String(),
    "price": pl.Float64(),
    "image_url": pl.String(),
}


def match(name: str) -> bool:
    """Whether ``name`` is a category of this release, or its 5-core."""
    return name.removesuffix(_CORE) in _BY_NAME


def spec(name: str) -> DatasetSpec:
    """The dataset of one category.

    Raises:
        ValueError: The release has no such category.
    """
    category = _BY_NAME.get(name.removesuffix(_CORE))
    if category is None:
        raise ValueError(f"not a dataset of Amazon Reviews 2023: {name!r}")
    core = name.endswith(_CORE)
    reviews = f"{category}.csv.gz" if core else f"{category}.jsonl.gz"
    metadata = f"meta_{category}.jsonl.gz"
    other = "" if core else f" The release's own 5-core is a small download: {name}{_CORE}."
    return DatasetSpec(
        name=name,
        title=f"Amazon Reviews 2023, {category.replace('_', ' ')}{', official 5-core' if core else ''}",
        licence=_LICENCE,
        access=(
            f"Free download of {reviews} and {metadata}; source= takes a folder that holds both. The metadata file may "
            f"be missing; then items have no title. Images: media=image.{other}"
        ),
        files=(
            _remote(reviews, "benchmark/5core/rating_only" if core else "raw/review_categories", required=True),
            _remote(metadata, "raw/meta_categories", required=False),
        ),
        media=("image",),
        config=PrepareConfig(media=(), base_url=BASE, mirrors=MIRRORS),
    )


def _remote(path: str, folder: str, *, required: bool) -> RemoteFile:
    return RemoteFile(path, f"{folder}/{path}", sha256=_DIGESTS.get(path), required=required)


def acquire(
    spec: DatasetSpec, config: PrepareConfig, raw_dir: Path, *, source: str | None, progress: Progress | None
) -> None:
    """Download both files, or point to a folder that holds them."""
    for failure in acquire_files(spec, config, raw_dir, source=source, progress=progress):
        _log.info("%s: without %s: %s", spec.name, failure.file.path, failure.detail)


def parse(spec: DatasetSpec, config: PrepareConfig, raw_dir: Path) -> RawTables:
    """Read reviews or ratings, and the metadata of the reviewed items."""
    del config
    reviews, metadata = (raw_file(raw_dir, file.path) for file in spec.files)
    bad_rows: list[BadRow] = []
    if spec.name.endswith(_CORE):
        interactions = read_ratings(reviews, _RELEASE, bad_rows, header=_HEADER)
    else:
        interactions = read_reviews(reviews, _RELEASE, bad_rows)
    if not metadata.is_file():
        note = f"the metadata file {metadata.name} is missing: titles, brands, categories and images are null"
        return RawTables(interactions, pl.DataFrame(schema=_ITEMS), bad_rows, (reviews,), (note,))
    wanted = set(interactions["item_id"].unique())
    items, notes = read_products(metadata, _RELEASE, wanted, _fields, _ITEMS, bad_rows)
    return RawTables(interactions, items, bad_rows, (reviews, metadata), notes)


def _fields(raw: dict[str, Any]) -> dict[str, Any]:
    return {
        "brand": clean_brand(raw.get("store")),
        "category": clean_category(raw.get("categories")) or clean_category([raw.get("main_category")]),
        "price": parse_price(raw.get("price")),
        "image_url": main_image(raw.get("images")),
    }


acquire_media = fetch_item_images
