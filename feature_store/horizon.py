"""``gc.json``: which versions garbage collection removed, and which it is about to remove."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, ValidationError

from feature_store.errors import DamagedStoreError
from feature_store.files import Files

HORIZON = "gc.json"


class Horizon(BaseModel):
    """What garbage collection says about itself.

    Attributes:
        oldest: The version from which on none may be missing; of those before only tagged ones are left.
        removing: Versions that are being removed; left over by a crash, the next run removes them.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    oldest: int = 1
    removing: tuple[int, ...] = ()


def read(files: Files) -> Horizon:
    """What is recorded; nothing was removed where nothing is.

    Raises:
        DamagedStoreError: When the file cannot be read.
    """
    try:
        return Horizon.model_validate_json(files.read(HORIZON))
    except FileNotFoundError:
        return Horizon()
    except ValidationError:
        raise DamagedStoreError(f"{HORIZON}: not readable; the next `gc` writes it anew") from None


def write(files: Files, horizon: Horizon) -> None:
    """Record it."""
    files.put(HORIZON, horizon.model_dump_json().encode())
