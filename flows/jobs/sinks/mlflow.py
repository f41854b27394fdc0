"""MLflow: one MLflow run per run id, at the tracking server of the environment or in a database below the root."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from flows.settings import Settings

if TYPE_CHECKING:
    from mlflow import MlflowClient

PACKAGE = "mlflow"

#: Where MLflow's own ``MLFLOW_EXPERIMENT_NAME`` names no other experiment.
EXPERIMENT = "reelstore"
RUN_ID_TAG = "reelstore.run_id"


class MlflowSink:
    """Logs to one MLflow run."""

    def __init__(self, client: MlflowClient, mlflow_run: str) -> None:
        self.client, self.mlflow_run = client, mlflow_run

    def epoch(self, number: int, scalars: Mapping[str, float]) -> None:
        """Log the figures of an epoch in one call."""
        from mlflow.entities import Metric

        now = time.time_ns() // 1_000_000
        metrics = [Metric(metric_name(name), value, now, number) for name, value in scalars.items()]
        self.client.log_batch(self.mlflow_run, metrics=metrics)

    def close(self, *, failed: bool) -> None:
        """End the MLflow run."""
        self.client.set_terminated(self.mlflow_run, "FAILED" if failed else "FINISHED")


def open_sink(settings: Settings, *, run_id: str, config: Mapping[str, Any]) -> MlflowSink:
    """Begin an MLflow run, or go on with the one that has the tag ``reelstore.run_id``."""
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # read when mlflow is imported
    import mlflow
    from mlflow import MlflowClient
    from mlflow.entities import Param

    client = MlflowClient(tracking_uri=None if mlflow.is_tracking_uri_set() else _local_database(settings))
    experiment = _experiment(client)
    found = client.search_runs([experiment], filter_string=f"tags.`{RUN_ID_TAG}` = '{run_id}'", max_results=1)
    if found:
        client.update_run(found[0].info.run_id, status="RUNNING")
        return MlflowSink(client, found[0].info.run_id)
    begun = client.create_run(experiment, run_name=run_id, tags={RUN_ID_TAG: run_id}).info.run_id
    parameters = [Param(name, value) for name, value in flatten(config).items()]
    client.log_batch(begun, params=parameters)
    return MlflowSink(client, begun)


def _experiment(client: MlflowClient) -> str:
    """Id of the MLflow experiment, which is made when it is not there."""
    from mlflow.environment_variables import MLFLOW_EXPERIMENT_NAME

    name = str(MLFLOW_EXPERIMENT_NAME.get() or EXPERIMENT)
    found = client.get_experiment_by_name(name)
    return client.create_experiment(name) if found is None else found.experiment_id


def metric_name(name: str) -> str:
    """MLflow takes no ``@``: ``valid/hr@10`` is ``valid/hr_at_10`` there."""
    return re.sub(r"[^\w./ -]", "_", name.replace("@", "_at_"))


def flatten(config: Mapping[str, Any]) -> dict[str, str]:
    """``{"training": {"epochs": 3}}`` as ``{"training.epochs": "3"}``."""
    flat: dict[str, str] = {}
    for name, value in config.items():
        if isinstance(value, Mapping):
            flat |= {f"{name}.{inner}": text for inner, text in flatten(value).items()}
        else:
            flat[name] = str(value)
    return flat


def _local_database(settings: Settings) -> str:
    """A SQLite file: MLflow's stores of plain files are no longer written by default."""
    folder = settings.root / "mlflow"
    folder.mkdir(parents=True, exist_ok=True)
    return f"sqlite:///{folder / 'mlflow.db'}"
