"""Versioned Parquet feature stores: immutable shards, numbered manifests, quarantine.

``FeatureStore.open("data/stores/<dataset>/<feature>").latest().matrix(item_ids)`` is all that a reader needs.
"""

from feature_store.errors import (
    CommitConflictError,
    DamagedStoreError,
    EmptySnapshotError,
    NoSnapshotError,
    ShardError,
    SpecError,
    StoreError,
    StoreNotFoundError,
    UnknownColumnError,
    UnknownVersionError,
)
from feature_store.maintenance import Damage, Difference, Garbage
from feature_store.manifest import Manifest, ShardInfo
from feature_store.plan import Plan
from feature_store.quality import Quality
from feature_store.quarantine import QuarantineRow
from feature_store.shard import FeatureShard, split_finite
from feature_store.snapshot import FeatureMatrix, Snapshot
from feature_store.store import FeatureStore, list_stores

__all__ = [
    "CommitConflictError",
    "Damage",
    "DamagedStoreError",
    "Difference",
    "EmptySnapshotError",
    "FeatureMatrix",
    "FeatureShard",
    "FeatureStore",
    "Garbage",
    "Manifest",
    "NoSnapshotError",
    "Plan",
    "Quality",
    "QuarantineRow",
    "ShardError",
    "ShardInfo",
    "Snapshot",
    "SpecError",
    "StoreError",
    "StoreNotFoundError",
    "UnknownColumnError",
    "UnknownVersionError",
    "list_stores",
    "split_finite",
]
