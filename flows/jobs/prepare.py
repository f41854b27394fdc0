"""Prepare a dataset: the configuration file, the overrides, then ``datasets_spec``."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from datasets_spec import registry
from datasets_spec.prepare import PreparedDataset, prepare
from datasets_spec.spec import PrepareConfig
from flows.config import merge, read_toml
from flows.errors import CallError
from flows.settings import Settings
from models.config import parse_strict

if TYPE_CHECKING:
    from datasets_spec.spec import DatasetSpec

ProgressCallback = Callable[[str, int, int | None], None]


def prepare_dataset(
    settings: Settings, name: str, overrides: Mapping[str, Any], *, progress: ProgressCallback | None = None
) -> PreparedDataset:
    """Download what is missing, parse, clean, filter, split and write ``prepared/<name>/``.

    Args:
        settings: Places.
        name: Dataset name.
        overrides: Fields of ``PrepareConfig``, and ``source`` (a path or URL that replaces the official place).
        progress: Called as ``progress(stage, done, total)``.

    Returns:
        The prepared dataset; the very same version when nothing changed.

    Raises:
        UnknownDatasetsError: With the near name.
        ConfigError: For an unknown key, with the near name.
        DatasetsError: When the work fails.
    """
    _, spec = registry.load(name)
    values = dict(overrides)
    source = values.pop("source", None)
    if source is not None and not isinstance(source, str):
        raise CallError(f"source: expected a path or a URL, got {source!r}")
    config = dataset_config(settings, spec, values)
    return prepare(name, root=settings.root, config=config, source=source, progress=progress)


def dataset_config(settings: Settings, spec: DatasetSpec, overrides: Mapping[str, Any]) -> PrepareConfig:
    """The dataset's file in ``configs/datasets`` (where it has one) with overrides applied."""
    path = settings.configs / "datasets" / f"{spec.name}.toml"
    base = read_toml(path, what="dataset configuration") if path.is_file() else spec.config.model_dump()
    values = merge(base, overrides)
    return parse_strict(PrepareConfig, values, where=f"dataset {spec.name}")


def open_prepared(settings: Settings, name: str) -> PreparedDataset:
    """Open a prepared dataset by name.

    Raises:
        UnknownDatasetsError: When no dataset has that name.
        DatasetsError: When it has not been prepared, with the command that does it.
    """
    registry.load(name)
    return PreparedDataset.open(settings.prepared(name))
