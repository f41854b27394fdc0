"""The flow ``prepare-dataset``."""

from __future__ import annotations

from typing import Any

from prefect import flow, get_run_logger

from flows import settings as settings_module
from flows.jobs.prepare import prepare_dataset as prepare_job


@flow(name="prepare-dataset")
def prepare_dataset(dataset: str, source: str | None = None, options: dict[str, Any] | None = None) -> dict[str, Any]:
    """Download, parse, clean, filter and split one dataset.

    Args:
        dataset: Dataset name, such as ``microlens-50k``.
        source: Path or URL that replaces the official place of the raw files.
        options: Further fields of ``PrepareConfig``, such as ``{"limit": 200}``.

    Returns:
        Name, path, version and statistics.
    """
    settings = settings_module.load()
    overrides = dict(options or {}) | ({"source": source} if source else {})
    prepared = prepare_job(settings, dataset, overrides)
    get_run_logger().info("%s prepared: version %s", dataset, prepared.version[:12])
    return {
        "dataset": dataset,
        "path": str(prepared.path),
        "version": prepared.version,
        "statistics": prepared.manifest["stats"],
    }
