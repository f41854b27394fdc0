"""The flows ``train-mealrec``, ``train-imecd`` and ``train-dimerec``.

A training pins the versions of the stores that it reads and is idempotent: the same configuration on the same data and
stores gives the same run id, and a finished run is not repeated.
"""

from __future__ import annotations

from typing import Any

from prefect import flow, get_run_logger
from prefect.artifacts import create_table_artifact

from flows import settings as settings_module
from flows.errors import CallError
from flows.jobs.train import find_experiment, run_experiment


def train(experiment: str, options: dict[str, Any] | None, *, expect_model: str | None = None) -> dict[str, Any]:
    """Train one experiment and publish its figures as a table; the body of every training flow.

    Raises:
        CallError: When the experiment is for another model than the flow.
    """
    settings = settings_module.load()
    config = find_experiment(settings, experiment, options or {})
    if expect_model is not None and config.model != expect_model:
        raise CallError(
            f"experiment {experiment!r} is for the model {config.model!r}, this flow trains {expect_model!r}"
        )
    outcome = run_experiment(settings, config)
    record = outcome.record
    rows = [
        {"split": split, "history": history, **{key: round(value, 5) for key, value in figures.items()}}
        for split, metrics in record.metrics.items()
        for history, figures in metrics.model_dump().items()
    ]
    create_table_artifact(key=f"run-{record.model}", table=rows, description=record.run_id)
    get_run_logger().info("%s: test %s (%s)", record.run_id, outcome.headline, "trained" if outcome.fresh else "kept")
    figures = {name: round(value, 4) for name, value in record.metrics["test"].unmasked.items()}
    return {"run_id": record.run_id, "fresh": outcome.fresh, **figures}


@flow(name="train-mealrec")
def train_mealrec(experiment: str = "mealrec-microlens-50k", options: dict[str, Any] | None = None) -> dict[str, Any]:
    """Train MealRec.

    Args:
        experiment: Name of a file in ``configs/experiments``, or a path.
        options: Overrides by dotted key, such as ``{"seed": 3, "training.epochs": 20}``.
    """
    return train(experiment, options, expect_model="mealrec")


@flow(name="train-imecd")
def train_imecd(experiment: str = "imecd-amazon-toys", options: dict[str, Any] | None = None) -> dict[str, Any]:
    """Train IMECD; arguments as for ``train-mealrec``."""
    return train(experiment, options, expect_model="imecd")


@flow(name="train-dimerec")
def train_dimerec(experiment: str = "dimerec-microlens-50k", options: dict[str, Any] | None = None) -> dict[str, Any]:
    """Train DimeRec; arguments as for ``train-mealrec``."""
    return train(experiment, options, expect_model="dimerec")
