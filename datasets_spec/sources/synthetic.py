"""The made-up dataset: a site in the layout of MicroLens-50k that is written, served and downloaded on this machine.

Without ``source=`` the site is generated once below the raw folder and then fetched over local HTTP by the same code
as the real one. With ``source=`` it is read from there (a folder written by ``write_site``, or its address).
"""

from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import polars as pl

from datasets_spec.media_files import source_url
from datasets_spec.microlens_format import LAYOUTS
from datasets_spec.microlens_site import acquire_site, acquire_site_media, parse_site
from datasets_spec.raw import raw_root
from datasets_spec.schema import BadRow, RawTables
from datasets_spec.spec import DatasetSpec, Licence, PrepareConfig, Progress
from datasets_spec.synthetic.serve import serve
from datasets_spec.synthetic.site import ITEMS, USERS, write_site

NAMES = ("synthetic",)

_LAYOUT = replace(LAYOUTS["microlens-50k"], pins={})


def match(name: str) -> bool:
    """Whether this module serves `name`."""
    return name in NAMES


def spec(name: str) -> DatasetSpec:
    """The made-up dataset."""
    return DatasetSpec(
        name=name,
        title=f"Made-up MicroLens-shaped site: {USERS} users, {ITEMS} videos, some of them broken on purpose",
        licence=Licence("none needed", "", "Made on this machine from random numbers."),
        access="Generated on this machine, no network needed; source= takes another generated site, folder or address.",
        files=_LAYOUT.files(),
        media=("video", "image"),
        config=PrepareConfig(k_user=5, k_item=5),
    )


def acquire(
    spec: DatasetSpec, config: PrepareConfig, raw_dir: Path, *, source: str | None, progress: Progress | None
) -> None:
    """Generate and serve the site where no source is given, and download its tables."""
    if _elsewhere(config, raw_dir, source):
        acquire_site(spec, config, raw_dir, source=source, progress=progress)
        return
    with _served(config, raw_dir, progress) as local:
        acquire_site(spec, local, raw_dir, source=None, own_sums=True, progress=progress)


def parse(spec: DatasetSpec, config: PrepareConfig, raw_dir: Path) -> RawTables:  # noqa: ARG001 (signature of a source)
    """Read pairs, titles, likes and views."""
    return parse_site(spec, _LAYOUT, raw_dir)


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
    patterns = _LAYOUT.media
    if _elsewhere(config, raw_dir, source):
        return acquire_site_media(spec, config, raw_dir, items, patterns=patterns, source=source, progress=progress)
    with _served(config, raw_dir, progress) as local:
        return acquire_site_media(spec, local, raw_dir, items, patterns=patterns, source=None, progress=progress)


def _elsewhere(config: PrepareConfig, raw_dir: Path, source: str | None) -> bool:
    """Whether the files come from a source (given now or remembered) or a base address rather than the generator."""
    given = source is not None or config.base_url is not None or bool(config.mirrors)
    return given or source_url(raw_dir, None) is not None or raw_root(raw_dir) != raw_dir


@contextmanager
def _served(config: PrepareConfig, raw_dir: Path, progress: Progress | None) -> Generator[PrepareConfig]:
    """The configuration with the address of the generated site."""
    site = raw_dir / "site"
    write_site(site, progress=progress)
    with serve(site) as address:
        yield config.model_copy(update={"base_url": address, "mirrors": ()})
