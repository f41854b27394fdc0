"""Sweep files: which settings of one experiment to try over which seeds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast

from pydantic import Field, field_validator

from flows.config import ExperimentConfig, read_toml
from flows.errors import CallError
from flows.jobs.search import Choice, combinations
from flows.jobs.train import find_experiment
from flows.settings import Settings
from models.config import StrictModel, parse_strict
from models.errors import ConfigError

#: Values of the choice would not be comparable, or are counted by ``seeds``.
NO_AXIS = ("seed", "dataset", "training.select", "training.cutoffs")


def different_seeds(seeds: tuple[int, ...]) -> tuple[int, ...]:
    """Refuse negative seeds, and one that is given twice."""
    if min(seeds) < 0 or len(set(seeds)) < len(seeds):
        raise ValueError("expected different seeds of 0 or more")
    return seeds


def quoted_keys(table: Any) -> Any:
    """Refuse dotted keys without quotes, which TOML reads as tables."""
    entries = cast("dict[str, Any]", table) if isinstance(table, dict) else {}
    inner = [f"{key}.{name}" for key, value in entries.items() if isinstance(value, dict) for name in value]
    if inner:
        raise ValueError(f'write the dotted key in quotes: "{inner[0]}" = …')
    return table


def tryable(axes: dict[str, list[Any]]) -> dict[str, list[Any]]:
    """Refuse axes whose runs could not be compared, and values that are given twice."""
    for key, values in axes.items():
        if key in NO_AXIS:
            raise ValueError(f"{key} cannot be an axis: runs with different ones cannot be compared")
        if not values or any(value in values[:place] for place, value in enumerate(values)):
            raise ValueError(f"{key}: expected one or more different values, got {values}")
    return axes


class SweepConfig(StrictModel):
    """One file of ``configs/sweeps``.

    Attributes:
        experiment: Name of a file in ``configs/experiments``, or a path. Its ``training.select`` is the metric that
            chooses.
        method: ``grid`` tries every combination of the axes; ``coordinate`` one axis after the other, each at the best
            values of the others so far.
        seeds: Every combination is trained once per seed; the mean over them is compared.
        rounds: Of the coordinate search, over all axes; it ends sooner when a round changes nothing.
        base: Overrides of the experiment that all runs share, by dotted key in quotes.
        axes: Values to try by dotted key in quotes, in the order in which they are walked.
    """

    experiment: str
    method: Literal["grid", "coordinate"] = "grid"
    seeds: tuple[int, ...] = Field(min_length=1)
    rounds: int = Field(default=2, ge=1)
    base: dict[str, Any] = Field(default_factory=dict)
    axes: dict[str, list[Any]] = Field(min_length=1)

    _different_seeds = field_validator("seeds")(different_seeds)
    _quoted = field_validator("base", "axes", mode="before")(quoted_keys)
    _tryable = field_validator("axes")(tryable)


@dataclass(frozen=True)
class Sweep:
    """A sweep file that was read, with the overrides of the command line.

    Attributes:
        name: Of the file; also of the folder of its results.
        config: The file; ``config.base`` holds the command line's overrides too.
        settings: Places.
    """

    name: str
    config: SweepConfig
    settings: Settings

    @property
    def folder(self) -> Path:
        """Where the results are written."""
        return self.settings.root / "sweeps" / self.name

    def experiment(self, choice: Mapping[str, Any], seed: int) -> ExperimentConfig:
        """The experiment of one run, checked down to the model's keys.

        Raises:
            ConfigError: For a combination that the model or the trainer refuses.
        """
        overrides = {**self.config.base, **choice, "seed": seed}
        return find_experiment(self.settings, self.config.experiment, overrides)


def find_sweep(settings: Settings, sweep: str, overrides: Mapping[str, Any]) -> Sweep:
    """Read a sweep by path, or by its name in ``configs/sweeps``, and check the runs that it comes to.

    Args:
        settings: Places.
        sweep: Name or path.
        overrides: Of the experiment, for all runs, such as ``{"training.epochs": 3}``.

    Raises:
        CallError: When there is no such file, with the near name, or an override is also an axis.
        ConfigError: For unknown keys and impossible values in the file, the experiment or a combination.
    """
    path = Path(sweep)
    if path.suffix != ".toml":
        path = settings.configs / "sweeps" / f"{sweep}.toml"
    config = parse_strict(SweepConfig, read_toml(path, what="sweep"), where=path.name)
    config = config.model_copy(update={"base": {**config.base, **overrides}})
    twice = sorted(set(config.base) & {*config.axes, "seed"})
    if twice:
        raise CallError(f"{path.name}: {twice[0]} is set for all runs, but the sweep varies it; leave one of them out")
    found = Sweep(path.stem, config, settings)
    for choice in _reachable(config):
        try:
            found.experiment(choice, config.seeds[0])
        except ConfigError as error:
            raise ConfigError(f"{path.name}: {describe(choice)}: {error}") from None
    return found


def _reachable(config: SweepConfig) -> list[Choice]:
    """What a grid comes to; of a coordinate search, which goes its own way, every value beside the first ones."""
    if config.method == "grid":
        return combinations(config.axes)
    first = {name: values[0] for name, values in config.axes.items()}
    return [{**first, name: value} for name, values in config.axes.items() for value in values]


def describe(choice: Mapping[str, Any]) -> str:
    """``training.learning_rate = 0.001, parameters.dropout = 0.5``."""
    return ", ".join(f"{name} = {value}" for name, value in choice.items())
