"""Strict configuration: pydantic models that refuse unknown keys and say which key was meant.

No torch here: the command line reads configurations before it pays for heavy imports.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from models.errors import ConfigError


class StrictModel(BaseModel):
    """Base of every configuration class: frozen, unknown keys refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())


SchemaT = TypeVar("SchemaT", bound=BaseModel)


def parse_strict(schema: type[SchemaT], data: Mapping[str, Any], *, where: str) -> SchemaT:
    """Validate ``data`` against ``schema``.

    Args:
        schema: The configuration class.
        data: Parsed TOML or command-line values.
        where: What the message names as the place of the fault, such as a file name.

    Returns:
        The validated, frozen configuration.

    Raises:
        ConfigError: One line per fault, with the dotted key, the value that came and, for an unknown key, the
            near name.
    """
    try:
        return schema.model_validate(dict(data))
    except ValidationError as error:
        lines = [_describe(schema, fault) for fault in error.errors()]
        raise ConfigError("\n".join(f"{where}: {line}" for line in lines)) from None


def _describe(schema: type[BaseModel], fault: Any) -> str:
    location = tuple(str(part) for part in fault["loc"])
    key = ".".join(location)
    if fault["type"] != "extra_forbidden":
        return f"{key}: {fault['msg']} (got {fault.get('input')!r})"
    known = sorted(_fields_at(schema, location[:-1]))
    return f"{key}: unknown key (got {fault.get('input')!r}); {suggest(location[-1], known)}"


def _fields_at(schema: type[BaseModel], path: tuple[str, ...]) -> list[str]:
    """Names of the fields of the (possibly nested) model that ``path`` leads to."""
    current: Any = schema
    for part in path:
        field = current.model_fields.get(part) if _is_model(current) else None
        if field is None:
            return []
        current = field.annotation
    return list(current.model_fields) if _is_model(current) else []


def _is_model(candidate: Any) -> bool:
    return isinstance(candidate, type) and issubclass(candidate, BaseModel)


def suggest(name: str, known: list[str]) -> str:
    """The tail of a message about an unknown name: the near name, or all the names there are."""
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
    if near:
        return f"did you mean {near[0]!r}?"
    return f"expected one of: {', '.join(known)}"
