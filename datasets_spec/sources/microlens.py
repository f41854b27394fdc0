"""MicroLens: short videos with titles, covers and comments (Ni et al., arXiv:2309.15379).

The official copies of MicroLens-50k are pinned by SHA-256. With ``source=`` another copy is asked for, so the pins do
not apply: a ``SHA256SUMS`` at that source is then the authority, where it has one.
"""

from pathlib import Path

import polars as pl

from datasets_spec.microlens_format import LAYOUTS
from datasets_spec.microlens_site import acquire_site, acquire_site_media, parse_site
from datasets_spec.schema import BadRow, RawTables
from datasets_spec.spec import DatasetSpec, Licence, PrepareConfig, Progress

NAMES = tuple(LAYOUTS)

_SITE = "https://recsys.westlake.edu.cn"
_TITLES = {
    "microlens-50k": "MicroLens-50k: 50,000 users, 19,220 videos, 359,708 interactions",
    "microlens-100k": "MicroLens-100k: 100,000 users, 19,738 videos, 719,405 interactions",
    "microlens-1m": "MicroLens-1M: 1,000,000 users, 9,095,620 interactions; titles in Chinese, no media",
}
_ACCESS = (
    "Files lie below {base}, also per item: covers at {prefix}_covers/ID.jpg, videos at {prefix}_videos/ID.mp4. The "
    "site moves now and then: set base_url or mirrors, or place the files in a folder and pass source=FOLDER. Videos "
    "published as a split zip have to be unpacked first."
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
    layout = LAYOUTS[name]
    base = f"{_SITE}/{layout.prefix}-Dataset"
    return DatasetSpec(
        name=name,
        title=_TITLES[name],
        licence=_LICENCE,
        access=_ACCESS.format(base=base, prefix=layout.prefix),
        files=layout.files(),
        media=() if name == "microlens-1m" else ("video", "image"),
        config=PrepareConfig(k_user=4, k_item=4, base_url=base),
    )


def acquire(
    spec: DatasetSpec, config: PrepareConfig, raw_dir: Path, *, source: str | None, progress: Progress | None
) -> None:
    """Download the tables, or point to the folder that holds them."""
    acquire_site(spec, config, raw_dir, source=source, progress=progress)


def parse(spec: DatasetSpec, config: PrepareConfig, raw_dir: Path) -> RawTables:  # noqa: ARG001 (signature of a source)
    """Read pairs, titles and what else there is."""
    return parse_site(spec, LAYOUTS[spec.name], raw_dir)


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
    patterns = LAYOUTS[spec.name].media
    return acquire_site_media(spec, config, raw_dir, items, patterns=patterns, source=source, progress=progress)
