"""What the papers print: one TOML file per paper in the folder ``published``, each value with its table."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from pydantic import Field, model_validator

from models.config import StrictModel, parse_strict

FOLDER = Path(__file__).with_name("published")

#: The complete model, as :meth:`Paper.variant_of` calls it.
FULL = "full"


class Sizes(StrictModel):
    """What a paper says of a dataset after its own preparation."""

    users: int
    items: int
    interactions: int


class Row(StrictModel):
    """One row of a printed table.

    Attributes:
        name: As printed.
        model: Name in ``models/recommenders``; None where the model is not built here.
        values: By metric, as printed.
        deviations: Standard deviations, where they are printed.
        parameters: Settings of ``model`` that make the row; none for the complete model.
        doubt: Why the values cannot be trusted; empty where nothing speaks against them.
    """

    name: str
    model: str | None = None
    values: tuple[float, ...]
    deviations: tuple[float, ...] = ()
    parameters: dict[str, Any] = Field(default_factory=dict)
    doubt: str = ""


class ResultTable(StrictModel):
    """The part of a printed table that is about one dataset.

    Attributes:
        table: Its number, such as ``Table 2``.
        dataset: Name of the dataset here.
        called: Its name in the paper.
        sizes: None where they are not printed.
        metrics: Columns.
        percent: The values are printed in per cent.
        rows: In the printed order.
    """

    table: str
    dataset: str
    called: str
    sizes: Sizes | None = None
    metrics: tuple[str, ...]
    percent: bool = False
    rows: tuple[Row, ...]

    @model_validator(mode="after")
    def _one_value_per_metric(self) -> ResultTable:
        for row in self.rows:
            if len(row.values) != len(self.metrics) or len(row.deviations) not in (0, len(self.metrics)):
                raise ValueError(f"{self.table}, {row.name}: expected {len(self.metrics)} values")
        return self

    def share(self, value: float) -> float:
        """A printed value as a share of 1."""
        return value / 100 if self.percent else value


class CostRow(StrictModel):
    """What one model costs: seconds of an epoch's training and evaluation, and memory."""

    name: str
    model: str | None = None
    train_seconds: float
    evaluate_seconds: float
    memory_mb: float


class CostTable(StrictModel):
    """A printed table of costs on one dataset and machine."""

    table: str
    dataset: str
    machine: str
    rows: tuple[CostRow, ...]


class Paper(StrictModel):
    """One paper.

    Attributes:
        name: Of its model, as printed.
        model: The same in ``models/recommenders``.
        source: Authors, place, identifier.
        notes: What a reader of its tables has to know.
        full: Each setting that an ablation changes, as the complete model has it.
        variants: Changed settings by the name of the ablation, in the printed order.
        tables: Results.
        costs: Costs.
    """

    name: str
    model: str
    source: str
    notes: tuple[str, ...] = ()
    full: dict[str, Any]
    variants: dict[str, dict[str, Any]]
    tables: tuple[ResultTable, ...]
    costs: tuple[CostTable, ...] = ()

    def variant_of(self, parameters: Mapping[str, Any]) -> str | None:
        """``FULL``, the name of an ablation, or None; a setting that is not named counts as the complete model's."""
        state = {key: parameters.get(key, value) for key, value in self.full.items()}
        if state == self.full:
            return FULL
        return next((name for name, change in self.variants.items() if state == {**self.full, **change}), None)

    def is_row(self, row: Row, parameters: Mapping[str, Any]) -> bool:
        """Whether a model with these parameters is the one of a row; of the paper's own model."""
        wanted = {**self.full, **row.parameters}
        return all(parameters.get(key, self.full.get(key)) == value for key, value in wanted.items())


@cache
def papers() -> tuple[Paper, ...]:
    """All papers, by file name."""
    return tuple(read(path) for path in sorted(FOLDER.glob("*.toml")))


def read(path: Path) -> Paper:
    """Read the file of one paper.

    Raises:
        ConfigError: For unknown keys, or rows of the wrong length.
    """
    return parse_strict(Paper, tomllib.loads(path.read_text(encoding="utf-8")), where=path.name)
