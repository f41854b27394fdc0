"""The test split of a run is opened once, for the epoch that validation chose, and never for another choice."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from models.errors import RecordError
from models.files import write_atomically

SEAL_FILE = "test_opened.json"


def open_test_split(run_dir: Path, *, selected_epoch: int, configuration: str) -> None:
    """Note that a run's test split is ranked for this choice; call it before the ranking.

    The same choice may be ranked again (after a crash, or to reproduce its figures).

    Args:
        run_dir: The run's folder.
        selected_epoch: The epoch whose weights are ranked.
        configuration: What tells configurations apart, such as the run's id or a hash.

    Raises:
        RecordError: When the split was opened for another epoch or configuration: a figure for this one would be the
            better of two tries.
    """
    now = {"selected_epoch": selected_epoch, "configuration": configuration}
    path = run_dir / SEAL_FILE
    if not path.is_file():
        write_atomically(path, lambda temporary: temporary.write_text(json.dumps(now) + "\n", encoding="utf-8"))
        return
    before = _read(path)
    if before != now:
        raise RecordError(
            f"{path}: the test split was opened for epoch {before.get('selected_epoch')} of "
            f"{before.get('configuration')}, now asked for epoch {selected_epoch} of {configuration}; choose by "
            f"validation and train into another run folder"
        )


def _read(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise RecordError(f"{path}: unreadable ({error}); it says which choice the test split was opened for") from None
    if not isinstance(found, dict):
        raise RecordError(f"{path}: expected an object, got {type(found).__name__}")
    return found
