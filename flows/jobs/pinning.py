"""Which versions of dataset and stores an experiment reads; the run's id follows from them."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from flows.config import ExperimentConfig
from flows.errors import CallError
from flows.settings import Settings
from models import registry
from models.evaluation.record import StoreVersion

if TYPE_CHECKING:
    from datasets_spec.prepare import PreparedDataset
    from feature_store import Snapshot


@dataclass(frozen=True)
class Pinned:
    """An experiment with the exact inputs that it reads; ``run_id`` is a function of them."""

    config: ExperimentConfig
    dataset_version: str
    stores: tuple[StoreVersion, ...]

    @property
    def digest(self) -> str:
        """Eight hexadecimal digits: the hash of configuration and inputs."""
        facts = {
            "config": self.config.model_dump(mode="json", exclude={"stores"}),
            "dataset": self.dataset_version,
            "stores": [str(store) for store in self.stores],
        }
        return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:8]

    @property
    def run_id(self) -> str:
        """``<model>-<dataset>-s<seed>-<digest>``."""
        return f"{self.config.model}-{self.config.dataset}-s{self.config.seed}-{self.digest}"

    @property
    def resolved(self) -> dict[str, Any]:
        """The configuration with the version of every store that is read, as plain values."""
        stores = {store.name.split("/")[-1]: store.version for store in self.stores}
        return self.config.model_copy(update={"stores": stores}).model_dump(mode="json")


def pin(settings: Settings, config: ExperimentConfig, prepared: PreparedDataset) -> tuple[Pinned, dict[str, Snapshot]]:
    """Choose the version of each store that the model needs: the configured one, else the latest.

    Returns:
        The pinned experiment and the opened snapshot of each feature.

    Raises:
        CallError: When a version is configured for a store that the model does not read.
        StoreError: When a store or the version of it is not there.
    """
    from feature_store import FeatureStore

    features = stores_read(config)
    unread = sorted(set(config.stores) - set(features))
    if unread:
        raise CallError(f"stores: {config.model} reads {', '.join(features) or 'no features'}, not {', '.join(unread)}")
    snapshots: dict[str, Snapshot] = {}
    for feature in features:
        store = FeatureStore.open(settings.store(config.dataset, feature))
        snapshots[feature] = store.at(config.stores[feature]) if feature in config.stores else store.latest()
    versions = tuple(
        StoreVersion(name=f"{config.dataset}/{feature}", version=snapshot.version)
        for feature, snapshot in snapshots.items()
    )
    return Pinned(config, prepared.version, versions), snapshots


def tables_read(config: ExperimentConfig) -> tuple[str, ...]:
    """Names of the feature tables that an experiment's model reads, see :data:`models.interface.FeatureTables`."""
    parameters = registry.parse_config(config.model, config.parameters)
    return registry.load(config.model).required_features(parameters)


def stores_read(config: ExperimentConfig) -> list[str]:
    """Features whose stores an experiment reads."""
    return sorted({table.split(".")[0] for table in tables_read(config)})


def missing_stores(settings: Settings, config: ExperimentConfig) -> list[str]:
    """``<dataset>/<feature>`` of each store that an experiment reads and in which nothing was committed yet."""
    from feature_store import FeatureStore, NoSnapshotError, StoreNotFoundError

    missing: list[str] = []
    for feature in stores_read(config):
        try:
            FeatureStore.open(settings.store(config.dataset, feature)).latest()
        except (NoSnapshotError, StoreNotFoundError):
            missing.append(f"{config.dataset}/{feature}")
    return missing
