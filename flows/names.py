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
)

#: The work pool that ``reelstore deploy`` creates and workers poll.
WORK_POOL = "reelstore"
