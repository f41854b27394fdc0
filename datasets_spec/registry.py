"""The folder ``sources`` is the registry: each module in it serves one family of datasets.

A source module is a :class:`Source`. To add a dataset family, add a file; nothing else lists the members.
"""

from __future__ import annotations

import difflib
import importlib
import pkgutil
from pathlib import Path
from typing import Protocol, cast

import polars as pl

from datasets_spec import sources
from datasets_spec.errors import UnknownDatasetError
from datasets_spec.schema import BadRow, RawTables
from datasets_spec.spec import DatasetSpec, PrepareConfig, Progress


class Source(Protocol):
    """What a module in ``sources`` offers."""

    NAMES: tuple[str, ...]  #: The datasets it lists; :meth:`match` may take more.

    def match(self, name: str) -> bool:
        """Whether this module serves the dataset ``name``."""
        ...

    def spec(self, name: str) -> DatasetSpec:
        """The dataset ``name``, for which :meth:`match` is true."""
        ...

    def acquire(
        self, spec: DatasetSpec, config: PrepareConfig, raw_dir: Path, *, source: str | None, progress: Progress | None
    ) -> None:
        """Make the raw files available below ``raw_dir``; ``source`` is a folder or an address to take them from."""
        ...

    def parse(self, spec: DatasetSpec, config: PrepareConfig, raw_dir: Path) -> RawTables:
        """Read the raw files."""
        ...

    def acquire_media(
        self,
        spec: DatasetSpec,
        config: PrepareConfig,
        raw_dir: Path,
        items: pl.DataFrame,
        *,
        source: str | None,
        progress: Progress | None,
    ) -> tuple[pl.DataFrame, list[BadRow]]:
        """Fetch the media of ``items`` and fill the columns ``video`` and ``image``: absolute paths or null."""
        ...


def modules() -> list[str]:
    """Names of the source modules; none of them is imported."""
    return sorted(module.name for module in pkgutil.iter_modules(sources.__path__))


def source(module: str) -> Source:
    """Import one source module."""
    return cast("Source", importlib.import_module(f"{sources.__name__}.{module}"))


def names() -> list[str]:
    """Names of all listed datasets, sorted."""
    return sorted(name for module in modules() for name in source(module).NAMES)


def load(name: str) -> tuple[Source, DatasetSpec]:
    """Find the source module and the spec of a dataset.

    Args:
        name: Such as ``microlens-50k`` or ``amazon-gift-cards``.

    Returns:
        The module and the spec.

    Raises:
        UnknownDatasetError: With the near name, or all names.
    """
    for module in modules():
        member = source(module)
        if name in member.NAMES or member.match(name):
            return member, member.spec(name)
    known = names()
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
    hint = f"did you mean {near[0]!r}?" if near else f"expected one of: {', '.join(known)}"
    raise UnknownDatasetError(f"no dataset named {name!r}; {hint}")
