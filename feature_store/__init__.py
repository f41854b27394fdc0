"""Versioned Parquet feature stores: immutable shards, numbered manifests, quarantine.

``FeatureStore.open("data/stores/<dataset>/<feature>").latest().matrix(item_ids)`` is all that a reader needs.
"""

from feature_store.errors import (
    CommitConflictError,
    DamagedStoreError,
    EmptySnapshotError,
    ExportError,
    NoSnapshotError,
    QualityGateError,
    ShardError,
    SpecError,
    StorageError,
    StoreError,
    StoreNotFoundError,
    TagError,
    UnknownColumnError,
    UnknownVersionError,
)
from feature_store.export import Exported, export_snapshot
from feature_store.garbage import Garbage
from feature_store.gates import Gates
from feature_store.maintenance import Damage, Difference
from feature_store.manifest import Manifest, ShardInfo
from feature_store.plan import Plan
from feature_store.quality import Drift, Quality
from feature_store.quarantine import QuarantineRow
from feature_store.shard import FeatureShard, split_finite
from feature_store.snapshot import FeatureMatrix, Snapshot
from feature_store.store import FeatureStore, list_stores
from feature_store.tags import Tag

__all__ = [
    "CommitConflictError",
    "Damage",
    "DamagedStoreError",
    "Difference",
    "Drift",
    "EmptySnapshotError",
    "ExportError",
    "Exported",
    "FeatureMatrix",
    "FeatureShard",
    "FeatureStore",
    "Garbage",
    "Gates",
    "Manifest",
    "NoSnapshotError",
    "Plan",
    "Quality",
    "QualityGateError",
    "QuarantineRow",
    "ShardError",
    "ShardInfo",
    "Snapshot",
    "SpecError",
    "StorageError",
    "StoreError",
    "StoreNotFoundError",
    "Tag",
    "TagError",
    "UnknownColumnError",
    "UnknownVersionError",
    "export_snapshot",
    "list_stores",
    "split_finite",
]
