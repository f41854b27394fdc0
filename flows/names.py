"""Names that several flows, the deployment file and the plugin share."""

from __future__ import annotations

#: Every deployment; its flow has the same name.
DEPLOYMENTS = (
    "extract-microlens",
    "extract-shortvideo",
    "extract-amazon",
    "prepare-dataset",
    "train-mealrec",
    "train-imecd",
    "train-dimerec",
    "pipeline",
    "reconcile",
    "check-freshness",
    "gc-stores",
    "rerun-crashed",
    "encode-shards",
)

#: The work pool that ``reelstore deploy`` creates and workers poll.
WORK_POOL = "reelstore"

#: Tag of every deployment, and so of its runs: automations look after these runs and no others.
TAG = "reelstore"

#: Tag of runs that are started again when they crash.
RERUN_TAG = "reelstore-rerun"

#: Before the number of the attempt, as a tag of a run that was started again.
ATTEMPT_TAG = "reelstore-attempt:"

#: Emitted when a check finds a store too old.
STALE_EVENT = "featurestore.stale"

#: Label of that event's resource that names the dataset.
DATASET_LABEL = "featurestore.dataset"

#: Seconds between the signs of life of a run, and without one after which it counts as crashed.
HEARTBEAT_SECONDS = 30
HEARTBEAT_PATIENCE_SECONDS = 90
