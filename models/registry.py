"""The folder ``recommenders`` is the registry: file name = model name = the name in experiment files."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Mapping
from types import ModuleType
from typing import TYPE_CHECKING, Any

from models import recommenders
from models.config import StrictModel, parse_strict, suggest
from models.errors import MissingFeatureError, UnknownModelError

if TYPE_CHECKING:
    from models.interface import FeatureTables, Recommender


def names() -> list[str]:
    """Names of all recommenders; none of them is imported."""
    return sorted(module.name for module in pkgutil.iter_modules(recommenders.__path__))


def load(name: str) -> ModuleType:
    """The module of one recommender: ``Config``, ``required_features``, ``build``.

    Raises:
        UnknownModelError: With the near name.
    """
    if name not in names():
        raise UnknownModelError(f"no model named {name!r}; {suggest(name, names())}")
    return importlib.import_module(f"{recommenders.__name__}.{name}")


def parse_config(name: str, config: Mapping[str, Any] | StrictModel | None) -> StrictModel:
    """Turn plain values into the model's ``Config``; a ready ``Config`` passes through.

    Raises:
        UnknownModelError: For an unknown model.
        ConfigError: For unknown keys or impossible values.
    """
    schema: type[StrictModel] = load(name).Config
    if isinstance(config, schema):
        return config
    values = config.model_dump() if isinstance(config, StrictModel) else dict(config or {})
    return parse_strict(schema, values, where=f"model {name}")


def build(
    name: str,
    config: Mapping[str, Any] | StrictModel | None = None,
    *,
    n_items: int,
    features: FeatureTables | None = None,
) -> Recommender:
    """Build a recommender.

    Args:
        name: File name in ``models/recommenders``.
        config: The model's ``Config``, plain values for it, or None for its defaults.
        n_items: Number of items; ids run from 1 to ``n_items``, 0 is padding.
        features: Tables ``[n_items + 1, *shape]`` by name, see :data:`models.interface.FeatureTables`.

    Returns:
        A freshly initialised recommender; initialisation draws from torch's default generator.

    Raises:
        UnknownModelError: For an unknown model.
        ConfigError: For unknown keys or impossible values.
        MissingFeatureError: When a table that the model needs is absent or has the wrong number of rows.
    """
    module = load(name)
    parsed = parse_config(name, config)
    tables = dict(features or {})
    check_features(name, module.required_features(parsed), tables, n_items=n_items)
    return module.build(parsed, n_items=n_items, features=tables)


def check_features(name: str, required: tuple[str, ...], tables: FeatureTables, *, n_items: int) -> None:
    """Refuse tables that are missing or do not have ``n_items + 1`` rows.

    Raises:
        MissingFeatureError: Naming the table and what was given.
    """
    for feature in required:
        if feature not in tables:
            given = ", ".join(sorted(tables)) or "none"
            raise MissingFeatureError(f"model {name} needs the feature table {feature!r}; given: {given}")
        rows = tables[feature].shape[0]
        if rows != n_items + 1:
            raise MissingFeatureError(
                f"feature table {feature!r}: expected {n_items + 1} rows (padding row 0 and {n_items} items), "
                f"got {rows}"
            )
