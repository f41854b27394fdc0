"""Study files: which runs make a figure or a table of a paper."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from flows.config import ExperimentConfig, read_toml
from flows.errors import CallError
from flows.jobs.pinning import stores_read
from flows.jobs.search import Choice, combinations
from flows.jobs.sweep_config import NO_AXIS, describe, different_seeds, quoted_keys, tryable
from flows.jobs.train import find_experiment
from flows.settings import Settings
from models.config import StrictModel, parse_strict, suggest
from models.errors import ConfigError
from models.evaluation.metrics import parse_metric

Figure = Literal["bars", "lines", "heatmap"]

#: Keys of the file that ``key=value`` on the command line replaces; all others are overrides of the experiment.
_OF_THE_FILE = ("experiment", "seeds")


class Variant(StrictModel):
    """One bar, or one line over an axis.

    Attributes:
        label: As the figure calls it.
        overrides: Of the study's experiment, by dotted key in quotes.
        experiment: Another one instead of the study's.
        model: Another model, trained as the experiment is.
        parameters: All parameters of ``model``; those of the experiment and of the study's ``base`` are not for it.
        against: Of a bar: the label that it is compared with; by default the first bar.
        constant: Of a line: the axis is none of its settings. It is trained once and drawn across.
    """

    label: str = Field(min_length=1)
    overrides: dict[str, Any] = Field(default_factory=dict)
    experiment: str | None = None
    model: str | None = None
    parameters: dict[str, Any] = Field(default_factory=dict)
    against: str | None = None
    constant: bool = False

    _quoted = field_validator("overrides", mode="before")(quoted_keys)

    @field_validator("overrides")
    @classmethod
    def _comparable(cls, overrides: dict[str, Any]) -> dict[str, Any]:
        for key in overrides:
            if key in NO_AXIS:
                raise ValueError(f"{key}: a variant with another one cannot be compared")
        return overrides

    @model_validator(mode="after")
    def _parameters_have_a_model(self) -> Variant:
        if self.parameters and self.model is None:
            raise ValueError("parameters are those of another model: set model, or use overrides")
        return self

    @property
    def changes(self) -> dict[str, Any]:
        """All overrides of the experiment."""
        other = {} if self.model is None else {"model": self.model, "parameters": self.parameters}
        return {**other, **self.overrides}


class StudyConfig(StrictModel):
    """One file of ``configs/studies``.

    Attributes:
        title: What is studied.
        source: Paper, with the number of its figure or table.
        experiment: Name of a file in ``configs/experiments``, or a path.
        seeds: Every point is trained once per seed.
        metrics: Test metrics that are drawn and compared.
        figure: ``bars`` has one bar per variant, ``lines`` one panel per axis and metric, along which the other axes
            stay as in the experiment, ``heatmap`` a cell for every combination of two axes.
        printed: Tables of the paper, as ``flows/reporting/published`` calls them, that are shown beside the results.
        base: Overrides of the experiment that all runs share, by dotted key in quotes.
        names: What the figure calls an axis.
        variants: The bars; the first is the reference.
        axes: Values by dotted key in quotes.
        series: The lines; by default one, of the experiment as it is.
    """

    title: str
    source: str
    experiment: str
    seeds: tuple[int, ...] = Field(min_length=1)
    metrics: tuple[str, ...] = Field(default=("hr@10", "ndcg@10"), min_length=1)
    figure: Figure
    printed: tuple[str, ...] = ()
    base: dict[str, Any] = Field(default_factory=dict)
    names: dict[str, str] = Field(default_factory=dict)
    variants: tuple[Variant, ...] = ()
    axes: dict[str, list[Any]] = Field(default_factory=dict)
    series: tuple[Variant, ...] = ()

    _different_seeds = field_validator("seeds")(different_seeds)
    _quoted = field_validator("base", "axes", "names", mode="before")(quoted_keys)
    _tryable = field_validator("axes")(tryable)

    @field_validator("metrics")
    @classmethod
    def _recorded(cls, metrics: tuple[str, ...]) -> tuple[str, ...]:
        for metric in metrics:
            if parse_metric(metric)[0] == "recall":
                raise ValueError(f"{metric}: with one target per user it is the hit rate; write hr@k")
        return metrics

    @model_validator(mode="after")
    def _fits_the_figure(self) -> StudyConfig:
        parts = {"variants": len(self.variants), "axes": len(self.axes), "series": len(self.series)}
        wanted = {
            "bars": "two or more [[variants]], no [axes] and no [[series]]",
            "lines": "one or more [axes] and no [[variants]]",
            "heatmap": "two [axes], no [[variants]] and no [[series]]",
        }[self.figure]
        fits = {
            "bars": parts["variants"] > 1 and not parts["axes"] and not parts["series"],
            "lines": parts["axes"] > 0 and not parts["variants"],
            "heatmap": parts["axes"] == 2 and not parts["variants"] and not parts["series"],
        }[self.figure]
        if not fits:
            got = ", ".join(f"{number} {name}" for name, number in parts.items())
            raise ValueError(f"figure '{self.figure}' expects {wanted}, got {got}")
        return self

    @model_validator(mode="after")
    def _consistent(self) -> StudyConfig:
        labels = [variant.label for variant in (*self.variants, *self.series)]
        for place, variant in enumerate((*self.variants, *self.series)):
            if variant.label in labels[:place]:
                raise ValueError(f"{variant.label}: two of them have this label")
            if variant.against is not None and (variant.against == variant.label or variant.against not in labels):
                raise ValueError(f"{variant.label}: against {variant.against!r}: {suggest(variant.against, labels)}")
            if (variant.against and self.figure != "bars") or (variant.constant and self.figure != "lines"):
                raise ValueError(f"{variant.label}: 'against' is for bars, 'constant' for lines")
            twice = sorted(set(variant.changes) & set(self.axes))
            if twice:
                raise ValueError(f"{variant.label}: {twice[0]} is an axis; leave it out of the overrides")
        unknown = sorted(set(self.names) - set(self.axes))
        if unknown:
            raise ValueError(f"names: {unknown[0]} is no axis")
        return self

    @property
    def points(self) -> list[Point]:
        """What is trained, once per seed."""
        if self.figure == "bars":
            return [Point(variant, {}) for variant in self.variants]
        if self.figure == "heatmap":
            return [Point(None, choice) for choice in combinations(self.axes)]
        alone = [{key: value} for key, values in self.axes.items() for value in values]
        return [
            Point(line, choice) for line in self.series or (None,) for choice in ([{}] if _is_flat(line) else alone)
        ]

    def reference_of(self, variant: Variant) -> str | None:
        """Label of what a bar is compared with; None for what others are compared with."""
        if variant.against is not None:
            return variant.against
        references = {self.variants[0].label, *(other.against for other in self.variants)}
        return None if variant.label in references else self.variants[0].label


def _digest(facts: str) -> str:
    return hashlib.sha256(facts.encode()).hexdigest()[:8]


def _is_flat(line: Variant | None) -> bool:
    return line is not None and line.constant


@dataclass(frozen=True)
class Point:
    """One bar, one point of a line, or one cell.

    Attributes:
        variant: The bar or the line; None for the experiment as it is.
        choice: The value of each axis that is set.
    """

    variant: Variant | None
    choice: Choice

    @property
    def label(self) -> str:
        """Of the bar or the line; empty for the experiment as it is."""
        return "" if self.variant is None else self.variant.label

    def __str__(self) -> str:
        """``− TCD, parameters.steps = 5``."""
        return ", ".join(part for part in (self.label, describe(self.choice)) if part)


@dataclass(frozen=True)
class Study:
    """A study file that was read, with the overrides of the command line.

    Attributes:
        path: Of the file.
        config: The file; its ``experiment``, ``seeds`` and ``base`` as the command line has them.
        settings: Places.
        overrides: Those of the command line.
    """

    path: Path
    config: StudyConfig
    settings: Settings
    overrides: Mapping[str, Any] = field(default_factory=dict[str, Any])

    @property
    def name(self) -> str:
        """Of the file, without its suffix."""
        return self.path.stem

    @property
    def listed(self) -> bool:
        """Whether the file is one of ``configs/studies``, which are called by their names."""
        return self.path.parent.resolve() == (self.settings.configs / "studies").resolve()

    @property
    def folder(self) -> Path:
        """Where the results are written: ``NAME``, and ``NAME--EXPERIMENT`` for one that the command line names.

        Eight hexadecimal digits are appended for other overrides, so that a trial leaves the study itself as it is, and
        for the folder of a file that is not in ``configs/studies``, which may have a name of those.
        """
        parts = [self.name]
        if "experiment" in self.overrides:
            parts.append(Path(self.config.experiment).stem)
        others = {key: value for key, value in self.overrides.items() if key != "experiment"}
        if others:
            parts.append(_digest(json.dumps(others, sort_keys=True, default=str)))
        if not self.listed:
            parts.append(_digest(str(self.path.parent.resolve())))
        return self.settings.root / "studies" / "--".join(parts)

    def experiment(self, point: Point, seed: int) -> ExperimentConfig:
        """The experiment of one run, checked down to the model's keys.

        Raises:
            ConfigError: For a point that the model or the trainer refuses.
        """
        variant = point.variant
        name = variant.experiment if variant is not None else None
        changes = {} if variant is None else variant.changes
        overrides = {**self.config.base, **changes, **point.choice, "seed": seed}
        return find_experiment(self.settings, name or self.config.experiment, overrides)


def find_study(settings: Settings, study: str, overrides: Mapping[str, Any]) -> Study:
    """Read a study by path, or by its name in ``configs/studies``, and check every run that it comes to.

    Args:
        settings: Places.
        study: Name or path.
        overrides: ``experiment`` and ``seeds`` replace those of the file; all others are of the experiment, for all
            runs, such as ``{"training.epochs": 3}``.

    Raises:
        CallError: When there is no such file, with the near name, an override is also an axis or of a variant, or a
            parameter that a variant with another model would not have; when ``missing = "drop"`` leaves the points
            different candidates.
        ConfigError: For unknown keys and impossible values in the file, the experiment or a point.
    """
    path = Path(study)
    if path.suffix != ".toml":
        path = settings.configs / "studies" / f"{study}.toml"
    config = _read(path, {key: overrides[key] for key in _OF_THE_FILE if key in overrides})
    own = {key: value for key, value in overrides.items() if key not in _OF_THE_FILE}
    _check_overrides(config, own, path.name)
    config = config.model_copy(update={"base": {**config.base, **own}})
    found = Study(path, config, settings, overrides)
    _check_points(found, path.name)
    return found


def list_studies(settings: Settings) -> list[Study]:
    """Every study of ``configs/studies`` by name, as its file has it; what its runs come to is not checked."""
    return [Study(path, _read(path, {}), settings) for path in sorted((settings.configs / "studies").glob("*.toml"))]


def _read(path: Path, replacing: Mapping[str, Any]) -> StudyConfig:
    return parse_strict(StudyConfig, {**read_toml(path, what="study"), **replacing}, where=path.name)


def _check_overrides(config: StudyConfig, overrides: Mapping[str, Any], where: str) -> None:
    """Refuse what would have no effect, or another one than was meant."""
    if "seed" in overrides or "seed" in config.base:
        raise CallError(f"{where}: a study sets the seed itself; name its seeds with 'seeds=[0, 1, 2]'")
    variants = (*config.variants, *config.series)
    others = [variant.label for variant in variants if variant.model is not None]
    parameters = [key for key in overrides if key.split(".")[0] == "parameters"]
    if others and parameters:
        raise CallError(
            f"{where}: {parameters[0]} would not reach {', '.join(others)}: a variant with a model of its own has all "
            f"its parameters in the study file; copy the file, set them there, and name the copy by its path"
        )
    varied = {*config.axes, *(key for variant in variants for key in variant.changes)}
    twice = sorted(set(overrides) & varied) or sorted(set(config.base) & set(config.axes))
    if twice:
        raise CallError(f"{where}: {twice[0]} is set for all runs, but the study varies it; leave one of them out")


def _check_points(study: Study, where: str) -> None:
    """Resolve every point; all must be on one dataset, have the same candidates and have the metrics."""
    config, first = study.config, None
    for point in config.points:
        try:
            found = study.experiment(point, config.seeds[0])
        except ConfigError as error:
            raise ConfigError(f"{where}: {point}: {error}") from None
        first = first or found
        if found.dataset != first.dataset:
            raise ConfigError(f"{where}: {point}: expected the dataset {first.dataset} as before, got {found.dataset}")
        if _needed(found) != _needed(first):
            raise CallError(
                f"{where}: {point}: missing = 'drop' leaves other candidates than before: the items in "
                f"{_named(found)}, before those in {_named(first)}; set missing=zero or missing=mean, or give what "
                f"reads the same stores a study of its own"
            )
        for metric in config.metrics:
            if parse_metric(metric)[1] not in found.training["cutoffs"]:
                raise ConfigError(
                    f"{where}: {point}: no {metric} with cutoffs {list(found.training['cutoffs'])}; set "
                    f'"training.cutoffs" in [base], or choose other metrics'
                )


def _needed(config: ExperimentConfig) -> list[str]:
    """Stores in which an item must be to be a candidate."""
    return stores_read(config) if config.missing == "drop" else []


def _named(config: ExperimentConfig) -> str:
    return ", ".join(_needed(config)) or "the dataset"
