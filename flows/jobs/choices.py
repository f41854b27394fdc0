"""What a call of ``extract`` chooses: settings of the extraction, of its audit, and of each encoder."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import date, datetime
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from extractors import registry
from extractors.resize import ResizeMode
from feature_store import Gates
from flows.config import merge, read_toml
from flows.errors import CallError
from flows.jobs.shards import SHARDS_PATTERN
from flows.parameters import DAY_PATTERN
from flows.settings import Settings
from models.config import StrictModel, parse_strict, suggest

#: Table of a feature's configuration that holds the limits of its figures.
GATES = "gates"


def _number_as_text(value: Any) -> Any:
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


def _day(value: Any) -> Any:
    """A day as the command line (a date) or a flow (its text) has it; no numbers, which would count as seconds."""
    is_day = isinstance(value, date) and not isinstance(value, datetime)
    if value is None or is_day or (isinstance(value, str) and re.match(DAY_PATTERN, value)):
        return value
    raise ValueError("expected a day such as 2026-11-01")


class ExtractConfig(StrictModel):
    """Settings of an extraction that are not those of one encoder.

    Attributes:
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``; several, separated by commas, share each batch.
        workers: Decoding processes; None for the machine's setting.
        deadline_seconds: Longest time for one file; a file that takes longer goes to quarantine.
        memory_limit_mb: How much a decoding process may grow for one file.
        text: Item columns that make up an item's text; None for title, brand and category where there are any.
        task_size: Items in one shard, which is what one task of a flow encodes.
        task_timeout_seconds: Longest time for one shard in a flow; what it has written by then is kept, and a retry
            goes on from there.
        device_lock: Whether to lock the device, so that no two extractions encode on it at once; None for a GPU only.
        lock_folder: Where the machine's locks lie; None for its folder of temporary files.
        only: ``failed`` retries what is in quarantine and does nothing else.
        shards: Numbers of the shards to do, such as ``3``, ``3..7`` or ``3,5..9``; None for all.
        since: Only items whose file was modified on that day (UTC) or later.
        keep_frames: Geometries (``centre_crop``, ``squash``) in which the sampled frames are kept, in the store
            ``frames224``. What is in that store is not decoded again, whether this is set or not.
    """

    device: str = "auto"
    workers: int | None = None
    deadline_seconds: float = 60.0
    memory_limit_mb: int = 2048
    text: tuple[str, ...] | None = None
    task_size: int = Field(default=1024, ge=1)
    task_timeout_seconds: float = Field(default=3600.0, gt=0)
    device_lock: bool | None = None
    lock_folder: Path | None = None
    only: Literal["failed"] | None = None
    shards: Annotated[str | None, BeforeValidator(_number_as_text), Field(pattern=SHARDS_PATTERN)] = None
    since: Annotated[date | None, BeforeValidator(_day)] = None
    keep_frames: tuple[ResizeMode, ...] = ()


class AuditConfig(StrictModel):
    """Settings of the audit after an extraction.

    Attributes:
        verify: Part of the distinct videos to decode again in full, 0 to 1.
    """

    verify: float = Field(default=0.0, ge=0.0, le=1.0)


def split_audit(overrides: Mapping[str, Any]) -> tuple[AuditConfig, dict[str, Any]]:
    """Settings of the audit, and all the others.

    Raises:
        ConfigError: For an impossible value.
    """
    asked = {key: value for key, value in overrides.items() if key in AuditConfig.model_fields}
    rest = {key: value for key, value in overrides.items() if key not in asked}
    return parse_strict(AuditConfig, asked, where="extract"), rest


def feature_config(settings: Settings, name: str, overrides: Mapping[str, Any]) -> dict[str, Any]:
    """The encoder's file in ``configs/features`` with overrides applied.

    Another checkpoint does not inherit the pinned revision of the configured one.
    """
    path = settings.configs / "features" / f"{name}.toml"
    base = read_toml(path, what="feature configuration") if path.is_file() else {}
    if "checkpoint" in overrides:
        base.pop("revision", None)
        overrides = {"revision": None, **overrides}
    return merge(base, overrides)


def parse_gates(values: Any, feature: str) -> Gates:
    """The table ``[gates]`` of a feature's configuration.

    Raises:
        CallError: When it is no table.
        ConfigError: For unknown gates, with the near name, and impossible limits.
    """
    if not isinstance(values, Mapping):
        raise CallError(f"{feature}: {GATES} is a table of limits, got {values!r}; such as {GATES}.min_coverage=0.9")
    return parse_strict(Gates, values, where=f"{feature}: {GATES}")


def split_overrides(
    names: Sequence[str], overrides: Mapping[str, Any]
) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
    """Settings of the extraction, and settings by encoder.

    ``<encoder>.<key>`` goes to that encoder, ``gates.<key>`` to all of them; a bare key to the extraction if it has
    it, else to all encoders that do.

    Raises:
        CallError: For a key that nobody has, with the near name.
    """
    own: dict[str, Any] = {}
    per_encoder: dict[str, dict[str, Any]] = {name: {} for name in names}
    known = {name: set(registry.load(name).Config.model_fields) for name in names}
    for key, value in overrides.items():
        encoder, dot, inner = key.partition(".")
        of_one = bool(dot) and encoder in known
        readers = [encoder] if of_one else [name for name in names if encoder == GATES or key in known[name]]
        if key in ExtractConfig.model_fields:
            listed = key in {"text", "keep_frames"} and isinstance(value, str)
            own[key] = tuple(part.strip() for part in value.split(",")) if listed else value
        elif not readers:
            everything = sorted({*ExtractConfig.model_fields, *set[str]().union(*known.values())})
            raise CallError(f"{key}: neither the extraction nor {', '.join(names)} has it; {suggest(key, everything)}")
        for name in readers:
            per_encoder[name][inner if of_one else key] = value
    return own, per_encoder
