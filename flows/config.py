"""Strict TOML configurations and ``key=value`` overrides.

One file is one run; there is no inheritance. Defaults live in the configuration classes; a file holds what was chosen,
each value with its source.
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping, Sequence
from datetime import date, time
from pathlib import Path
from typing import Any, cast

from pydantic import Field

from flows.errors import CallError
from models.config import StrictModel, parse_strict, suggest
from models.missing import MissingPolicy


def read_toml(path: Path, *, what: str) -> dict[str, Any]:
    """Parse a TOML file.

    Raises:
        CallError: When the file is missing (with the files that are there) or is not TOML (with the line).
    """
    if not path.is_file():
        near = sorted(p.name for p in path.parent.glob("*.toml")) if path.parent.is_dir() else []
        hint = f"; {suggest(path.name, near)}" if near else ""
        raise CallError(f"no {what} at {path}{hint}")
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise CallError(f"{path}: not valid TOML: {error}") from None


def parse_overrides(pairs: Sequence[str]) -> dict[str, Any]:
    """Turn ``["training.epochs=3", "source=../x"]`` into ``{"training.epochs": 3, "source": "../x"}``.

    A value is read as TOML where it is one (numbers, booleans, quoted text, arrays) and as plain text otherwise.

    Raises:
        CallError: For an argument without ``=`` or given twice.
    """
    values: dict[str, Any] = {}
    for pair in pairs:
        key, separator, text = pair.partition("=")
        if not separator or not key:
            raise CallError(f"expected key=value, got {pair!r}")
        if key in values:
            raise CallError(f"{key} is given twice")
        values[key] = _value(text)
    return values


def _value(text: str) -> Any:
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


def merge(base: Mapping[str, Any], overrides: Mapping[str, Any]) -> dict[str, Any]:
    """``base`` with dotted overrides applied; neither argument is changed."""
    merged: dict[str, Any] = {key: dict(value) if isinstance(value, Mapping) else value for key, value in base.items()}
    for dotted, value in overrides.items():
        *path, last = dotted.split(".")
        place = merged
        for part in path:
            inner = place.get(part, {})
            if not isinstance(inner, Mapping):
                raise CallError(f"{dotted}: {part} holds the value {inner!r}, not a table")
            place[part] = dict(inner)
            place = place[part]
        place[last] = value
    return merged


class ExperimentConfig(StrictModel):
    """One training run.

    Attributes:
        dataset: Name of a prepared dataset.
        model: File name in ``models/recommenders``.
        seed: Seeds initialisation, data order and every noise draw.
        missing: What becomes of items without a row in a store that the model reads: ``zero`` and ``mean`` put that
            into their rows, ``drop`` takes the items out of the catalogue and of every history, ``error`` refuses.
        parameters: The model's own ``Config``.
        training: See ``models.training.config.TrainingConfig``.
        stores: Version of each feature store by feature name; a feature that is not named here is pinned to its
            latest version when the run starts, and recorded.
    """

    dataset: str
    model: str
    seed: int = Field(default=0, ge=0)
    missing: MissingPolicy = "zero"
    parameters: dict[str, Any] = Field(default_factory=dict)
    training: dict[str, Any] = Field(default_factory=dict)
    stores: dict[str, int] = Field(default_factory=dict)


def load_experiment(path: Path, overrides: Mapping[str, Any]) -> ExperimentConfig:
    """Read an experiment file, apply overrides, and check every key down to the model's and the trainer's.

    Raises:
        CallError: For a missing or malformed file.
        ConfigError: For unknown keys or impossible values, with the near name.
        UnknownModelError: For an unknown model.
    """
    values = merge(read_toml(path, what="experiment"), overrides)
    return check_experiment(values, where=path.name)


def check_experiment(values: Mapping[str, Any], *, where: str) -> ExperimentConfig:
    """Validate an experiment and write the defaults of the model and of the trainer into it."""
    from models import registry
    from models.training.config import TrainingConfig

    config = parse_strict(ExperimentConfig, values, where=where)
    model_schema = registry.load(config.model).Config
    parameters = parse_strict(model_schema, config.parameters, where=f"{where}: parameters")
    training = parse_strict(TrainingConfig, config.training, where=f"{where}: training")
    return config.model_copy(
        update={"parameters": parameters.model_dump(mode="json"), "training": training.model_dump(mode="json")}
    )


def dump_toml(values: Mapping[str, Any]) -> str:
    """Write plain values as TOML: scalars and arrays first, then tables. None is left out."""
    lines: list[str] = []
    _write_table(values, (), lines)
    return "\n".join(lines).strip() + "\n"


def _write_table(values: Mapping[str, Any], path: tuple[str, ...], lines: list[str]) -> None:
    tables = {key: value for key, value in values.items() if isinstance(value, Mapping)}
    if path:
        lines.extend(["", f"[{'.'.join(path)}]"])
    lines.extend(
        f"{key} = {toml_value(value)}" for key, value in values.items() if key not in tables and value is not None
    )
    for key, table in tables.items():
        _write_table(table, (*path, key), lines)


def toml_value(value: Any) -> str:
    """A value in one line of TOML; what TOML has no type for becomes its text."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, date | time):
        return value.isoformat()
    if isinstance(value, Mapping):
        table = cast("Mapping[str, Any]", value)
        return "{" + ", ".join(f"{toml_value(key)} = {toml_value(inner)}" for key, inner in table.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(toml_value(item) for item in cast("Sequence[Any]", value)) + "]"
    return json.dumps(str(value), ensure_ascii=False)  # TOML writes text as JSON does
