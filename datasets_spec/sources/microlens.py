"""MicroLens: short videos with titles, covers and comments (Ni et al., arXiv:2309.15379).

The official copies of MicroLens-50k are pinned by SHA-256. With ``source=`` another copy is asked for, so the pins do
not apply: a ``SHA256SUMS`` at that source is then the authority, where it has one.

``microlens-small`` and ``microlens-big`` are recipes over the files of ``microlens-50k`` and ``microlens-100k``: the
subsets of MealRec (arXiv 2603.01926), as near as they could be made out. The paper prints their sizes and "4-core"; a
plain 4-core of neither file has these sizes, so a sample came before it, which the paper does not describe.
"""

from pathlib import Path

import polars as pl

from datasets_spec.microlens_format import LAYOUTS, MicroLensLayout
from datasets_spec.microlens_site import acquire_site, acquire_site_media, parse_site
from datasets_spec.schema import BadRow, RawTables
from datasets_spec.spec import DatasetSpec, Licence, PrepareConfig, Progress, PublishedCounts

_RAW = {"microlens-small": "microlens-50k", "microlens-big": "microlens-100k"}  # recipes: whose files they are over
NAMES = (*LAYOUTS, *_RAW)

_SITE = "https://recsys.westlake.edu.cn"
_TITLES = {
    "microlens-50k": "MicroLens-50k: 50,000 users, 19,220 videos, 359,708 interactions",
    "microlens-100k": "MicroLens-100k: 100,000 users, 19,738 videos, 719,405 interactions",
    "microlens-1m": "MicroLens-1M: 1,000,000 users, 9,095,620 interactions; titles in Chinese, no media",
    "microlens-small": "MicroLens-small of MealRec, as near as it could be made out: a sample of MicroLens-50k",
    "microlens-big": "MicroLens-big of MealRec, as near as it could be made out: a sample of MicroLens-100k",
}
_CONFIGS = {
    "microlens-small": PrepareConfig(k_user=3, k_item=3, sample_users=9_000, last_n=15),
    "microlens-big": PrepareConfig(k_user=3, k_item=3, sample_users=86_100, last_n=15),
}
_PLAIN_CONFIG = PrepareConfig(k_user=4, k_item=4)
_TABLE = "MealRec (arXiv 2603.01926), Table 1"
_PUBLISHED = {
    "microlens-small": PublishedCounts(_TABLE, users=8_694, items=8_265, interactions=50_838),
    "microlens-big": PublishedCounts(_TABLE, users=86_073, items=18_700, interactions=597_104),
}
_ACCESS = (
    "Files lie below {base}. Covers and videos are taken one by one from {prefix}_covers/ID.jpg and "
    "{prefix}_videos/ID.mp4, or, where these are not there, out of {prefix}_covers.zip and {prefix}_videos.zip (split "
    "into .z01, .z02 and so on; only the bytes of the wanted files are fetched). The site moves now and then: set "
    "base_url or mirrors, or place the files, zipped or not, in a folder and pass source=FOLDER."
)
_LICENCE = Licence(
    name="none stated",
    url="https://github.com/westlake-repl/MicroLens",
    note="The publisher prohibits modified secondary downloads: download for yourself, do not pass the files on.",
)


def match(name: str) -> bool:
    """Whether this module serves `name`."""
    return name in NAMES


def spec(name: str) -> DatasetSpec:
    """The member of the family called `name`."""
    raw = _RAW.get(name)
    layout = LAYOUTS[raw or name]
    base = f"{_SITE}/{layout.prefix}-Dataset"
    return DatasetSpec(
        name=name,
        title=_TITLES[name],
        licence=_LICENCE,
        access=_ACCESS.format(base=base, prefix=layout.prefix),
        files=layout.files(),
        media=() if name == "microlens-1m" else ("video", "image"),
        config=_CONFIGS.get(name, _PLAIN_CONFIG).model_copy(update={"base_url": base}),
        published=(_PUBLISHED[name],) if name in _PUBLISHED else (),
        raw=raw,
    )


def acquire(
    spec: DatasetSpec, config: PrepareConfig, raw_dir: Path, *, source: str | None, progress: Progress | None
) -> None:
    """Download the tables, or point to the folder that holds them."""
    acquire_site(spec, config, raw_dir, source=source, progress=progress)


def parse(spec: DatasetSpec, config: PrepareConfig, raw_dir: Path) -> RawTables:  # noqa: ARG001 (signature of a source)
    """Read pairs, titles and what else there is."""
    return parse_site(spec, _layout(spec), raw_dir)


def acquire_media(
    spec: DatasetSpec,
    config: PrepareConfig,
    raw_dir: Path,
    items: pl.DataFrame,
    *,
    source: str | None,
    progress: Progress | None,
) -> tuple[pl.DataFrame, list[BadRow]]:
    """Download covers and videos of these items."""
    layout = _layout(spec)
    return acquire_site_media(
        *(spec, config, raw_dir, items),
        patterns=layout.media,
        archives=layout.archives,
        source=source,
        progress=progress,
    )


def _layout(spec: DatasetSpec) -> MicroLensLayout:
    return LAYOUTS[spec.raw or spec.name]
