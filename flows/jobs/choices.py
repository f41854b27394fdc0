"""What a call of ``extract`` chooses: settings of the extraction, of its audit, and of each encoder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import Field

from extractors import registry
from extractors.resize import ResizeMode
from feature_store import Gates
from flows.config import merge, read_toml
from flows.errors import CallError
from flows.settings import Settings
from models.config import StrictModel, parse_strict, suggest

#: Table of a feature's configuration that holds the limits of its figures.
GATES = "gates"


class ExtractConfig(StrictModel):
    """Settings of an extraction that are not those of one encoder.

    Attributes:
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``; several, separated by commas, share each batch.
        workers: Decoding processes; None for the machine's setting.
        deadline_seconds: Longest time for one file; a file that takes longer goes to quarantine.
        memory_limit_mb: How much a decoding process may grow for one file.
        text: Item columns that make up an item's text; None for title, brand and category where there are any.
        task_size: Items in one task of a flow.
        keep_frames: Geometries (``centre_crop``, ``squash``) in which the sampled frames are kept, in the store
            ``frames224``. What is in that store is not decoded again, whether this is set or not.
    """

    device: str = "auto"
    workers: int | None = None
    deadline_seconds: float = 60.0
    memory_limit_mb: int = 2048
    text: tuple[str, ...] | None = None
    task_size: int = 1024
    keep_frames: tuple[ResizeMode, ...] = ()


class AuditConfig(StrictModel):
    """Settings of the audit after an extraction.

    Attributes:
        verify: Part of the distinct videos to decode again in full, 0 to 1.
    """

    verify: float = Field(default=0.0, ge=0.0, le=1.0)


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
