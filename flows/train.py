"""The flows ``train-mealrec``, ``train-imecd`` and ``train-dimerec``.

A training pins the versions of the stores that it reads and is idempotent: the same configuration on the same data and
stores gives the same run id, a finished run is not repeated, and of two at once the second waits for the first. An
event may therefore start one too often without harm. One that comes too early, before another store that it needs,
ends as completed and says what it waits for: the commit of that store starts it again.
"""

from __future__ import annotations

import contextlib
from collections.abc import Generator
from typing import Annotated, Any

from prefect import State, flow, get_run_logger
from prefect.artifacts import create_table_artifact
from prefect.concurrency.sync import concurrency
from prefect.states import Completed
from pydantic import Field

from flows import settings as settings_module
from flows.errors import CallError
from flows.settings import resolve_device

# What trains is imported by the runs: until then, the way from an event to a running flow is all imports.

Experiment = Annotated[str, Field(min_length=1, max_length=500)]
Options = dict[str, Any] | None

#: Seconds after which the server gives a slot back whose holder no longer renews it; the shortest it takes.
SLOT_LEASE_SECONDS = 60


def train(experiment: str, options: Options, *, expect_model: str | None = None) -> dict[str, Any]:
    """Train one experiment and publish its figures as a table; the body of every training flow.

    Raises:
        CallError: When the experiment is for another model than the flow.
        StoreNotFoundError: When a store that the model reads does not exist.
        NoSnapshotError: When nothing was committed to it yet.
    """
    from flows.jobs.train import find_experiment, run_experiment

    settings = settings_module.load()
    config = find_experiment(settings, experiment, options or {})
    if expect_model is not None and config.model != expect_model:
        raise CallError(
            f"experiment {experiment!r} is for the model {config.model!r}, this flow trains {expect_model!r}"
        )
    with device_slot(str(config.training["device"])):
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


@contextlib.contextmanager
def device_slot(device: str) -> Generator[None]:
    """Hold the server's limit ``device-<device>`` while a GPU is in use, so that trainings on it take turns.

    Args:
        device: As in an experiment. On the CPU, and for a device without a limit, nothing is held.
    """
    name = resolve_device(device)
    if not name.startswith("cuda"):
        yield
        return
    limit = "device-" + (name if ":" in name else f"{name}:0").replace(":", "")
    with concurrency(limit, lease_duration=SLOT_LEASE_SECONDS):
        yield


def train_when_ready(experiment: str, options: Options, *, expect_model: str) -> dict[str, Any] | State[Any]:
    """:func:`train`, or a completed state that names the store that is not there yet."""
    from feature_store import NoSnapshotError, StoreNotFoundError
    from flows.jobs.pinning import missing_stores
    from flows.jobs.train import find_experiment

    try:
        return train(experiment, options, expect_model=expect_model)
    except (StoreNotFoundError, NoSnapshotError):
        settings = settings_module.load()
        missing = missing_stores(settings, find_experiment(settings, experiment, options or {}))
        if not missing:
            raise
        message = f"waiting for store {', '.join(missing)}"
        get_run_logger().warning("%s: %s; its first version starts this training again", experiment, message)
        return Completed(message=message)


@flow(name="train-mealrec")
def train_mealrec(
    experiment: Experiment = "mealrec-microlens-50k", options: Options = None
) -> dict[str, Any] | State[Any]:
    """Train MealRec.

    Args:
        experiment: Name of a file in ``configs/experiments``, or a path.
        options: Overrides by dotted key, such as ``{"seed": 3, "training.epochs": 20}``.
    """
    return train_when_ready(experiment, options, expect_model="mealrec")


@flow(name="train-imecd")
def train_imecd(experiment: Experiment = "imecd-amazon-toys", options: Options = None) -> dict[str, Any] | State[Any]:
    """Train IMECD; arguments as for ``train-mealrec``."""
    return train_when_ready(experiment, options, expect_model="imecd")


@flow(name="train-dimerec")
def train_dimerec(
    experiment: Experiment = "dimerec-microlens-50k", options: Options = None
) -> dict[str, Any] | State[Any]:
    """Train DimeRec; arguments as for ``train-mealrec``."""
    return train_when_ready(experiment, options, expect_model="dimerec")
