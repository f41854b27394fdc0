"""The folder ``encoders`` is the registry: file name = encoder name = name of its settings file.

A module in it holds ``Config`` (its settings), ``reads(config) -> Modality``, ``describe(config, *, toy_root) ->
EncoderSpec`` (the identity, without loading a model), ``build(config, *, device, toy_root) -> Encoder``, and
``ON_DEVICE``: whether a device makes any difference to it.
"""

from __future__ import annotations

import difflib
import importlib
import pkgutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any, ClassVar

from pydantic import ValidationError

from extractors import encoders
from extractors.errors import ExtractionError
from extractors.replicas import Replicas
from extractors.spec import Encoder, EncoderSpec, Modality, StrictModel


class UnknownEncoderError(ExtractionError, LookupError):
    """No encoder has that name."""

    usage: ClassVar[bool] = True


class EncoderConfigError(ExtractionError, ValueError):
    """Settings that an encoder cannot use: which key, what came, what was expected."""

    usage: ClassVar[bool] = True


def names() -> list[str]:
    """Names of all encoders; none of them is imported."""
    return sorted(module.name for module in pkgutil.iter_modules(encoders.__path__))


def load(name: str) -> ModuleType:
    """The module of one encoder.

    Raises:
        UnknownEncoderError: With the near name.
    """
    if name not in names():
        raise UnknownEncoderError(f"no encoder named {name!r}; {_suggest(name, names())}")
    return importlib.import_module(f"{encoders.__name__}.{name}")


def parse_config(name: str, config: Mapping[str, Any] | StrictModel | None = None) -> StrictModel:
    """Turn plain values into the encoder's ``Config``; a ready ``Config`` passes through.

    Raises:
        UnknownEncoderError: For an unknown encoder.
        EncoderConfigError: For unknown keys and impossible values, one line each.
    """
    schema: type[StrictModel] = load(name).Config
    if isinstance(config, schema):
        return config
    values = config.model_dump() if isinstance(config, StrictModel) else dict(config or {})
    try:
        return schema.model_validate(values)
    except ValidationError as error:
        lines = [_describe(fault, schema.model_fields) for fault in error.errors()]
        raise EncoderConfigError("\n".join(f"encoder {name}: {line}" for line in lines)) from None


def reads(name: str, config: Mapping[str, Any] | StrictModel | None = None) -> Modality:
    """What an encoder reads under its settings; no checkpoint is touched.

    Raises:
        UnknownEncoderError: For an unknown encoder.
        EncoderConfigError: For unknown keys and impossible values.
    """
    return load(name).reads(parse_config(name, config))


def describe(name: str, config: Mapping[str, Any] | StrictModel | None = None, *, toy_root: Path) -> EncoderSpec:
    """Identity of a feature; resolves (and, where needed, downloads) the checkpoint, and loads no model.

    Args:
        name: File name in ``extractors/encoders``.
        config: The encoder's ``Config``, plain values for it, or None for its defaults.
        toy_root: Folder in which ``checkpoint=tiny`` builds its checkpoint.

    Raises:
        UnknownEncoderError: For an unknown encoder.
        EncoderConfigError: For unknown keys and impossible values.
        CheckpointChoiceError: When the checkpoint is not pinned.
        CheckpointError: When its files cannot be had.
    """
    return load(name).describe(parse_config(name, config), toy_root=toy_root)


def build(
    name: str, config: Mapping[str, Any] | StrictModel | None = None, *, device: str = "cpu", toy_root: Path
) -> Encoder:
    """Load an encoder; see :func:`describe`.

    Args:
        name: File name in ``extractors/encoders``.
        config: The encoder's ``Config``, plain values for it, or None for its defaults.
        device: ``cpu``, ``cuda`` or ``cuda:N``; several, separated by commas, share each batch among them.
        toy_root: Folder in which ``checkpoint=tiny`` builds its checkpoint.

    Raises:
        ModelLoadError: When the weights do not fit the model; and the errors of :func:`describe`.
    """
    module, parsed = load(name), parse_config(name, config)
    devices = [part.strip() for part in device.split(",")]
    if len(devices) == 1 or not module.ON_DEVICE:
        return module.build(parsed, device=devices[0], toy_root=toy_root)
    return Replicas([module.build(parsed, device=each, toy_root=toy_root) for each in devices])


def _describe(fault: Any, known: Iterable[str]) -> str:
    key = ".".join(str(part) for part in fault["loc"])
    if fault["type"] == "extra_forbidden":
        return f"{key}: unknown key (got {fault.get('input')!r}); {_suggest(key, sorted(known))}"
    return f"{key}: {fault['msg']} (got {fault.get('input')!r})"


def _suggest(name: str, known: list[str]) -> str:
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
    return f"did you mean {near[0]!r}?" if near else f"expected one of: {', '.join(known)}"
