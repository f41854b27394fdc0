"""The outcome of the last pipeline run of a dataset as a small file, for whoever started the run elsewhere."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from flows.errors import WorkError
from flows.settings import Settings
from models.files import write_atomically


def summary_path(settings: Settings, dataset: str) -> Path:
    """Where the summary of a dataset lies."""
    return settings.root / "pipelines" / f"{dataset}.json"


def write_summary(settings: Settings, dataset: str, summary: dict[str, Any]) -> Path:
    """Write the summary atomically."""
    path = summary_path(settings, dataset)
    path.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps(summary, indent=2, default=str) + "\n"
    write_atomically(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))
    return path


def read_summary(settings: Settings, dataset: str) -> dict[str, Any]:
    """Read the summary.

    Raises:
        WorkError: When no pipeline has finished for this dataset.
    """
    path = summary_path(settings, dataset)
    if not path.is_file():
        raise WorkError(f"{path}: no pipeline has finished for {dataset}")
    return json.loads(path.read_text(encoding="utf-8"))
