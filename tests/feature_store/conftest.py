"""A small extraction: the vector of an item is made of the first bytes of its content's hash."""

import hashlib
from types import SimpleNamespace

import numpy as np
import pytest

from feature_store import FeatureShard, FeatureStore, QuarantineRow

DIM = 4
SPEC = {"encoder": "toy", "dim": DIM, "dtype": "float16", "recorded": {"library": "1.0"}}


def digest(text):
    return hashlib.sha256(text.encode()).digest()


def catalogue(contents):
    """item id -> text becomes item id -> sha256."""
    return {item_id: digest(text) for item_id, text in contents.items()}


def vector(content, dim=DIM):
    """dim numbers in [0, 255/16], exact in float16."""
    return np.frombuffer(content, np.uint8)[:dim].astype(np.float32) / 16


def shard(ids, items, *, dim=DIM, dtype=np.float16):
    embedding = np.stack([vector(items[item_id], dim) for item_id in ids]).astype(dtype)
    return FeatureShard(list(ids), [items[item_id] for item_id in ids], embedding)


def extract(store, contents, *, spec=SPEC, bad=(), shard_rows=3, **options):
    """A whole run: plan, write shards of a few rows, quarantine, commit. Returns the plan and the snapshot."""
    items = catalogue(contents)
    plan = store.plan(spec, items)
    good = [item_id for item_id in plan.todo if item_id not in bad]
    for start in range(0, len(good), shard_rows):
        store.write_shard(shard(good[start : start + shard_rows], items), plan)
    failed = [item_id for item_id in plan.todo if item_id in bad]
    store.quarantine([QuarantineRow(item, "decode", "no_video", "no stream", items[item]) for item in failed], plan)
    return plan, store.commit(plan, **options)


@pytest.fixture
def toy():
    """The functions above."""
    return SimpleNamespace(
        DIM=DIM, SPEC=SPEC, digest=digest, catalogue=catalogue, vector=vector, shard=shard, extract=extract
    )


@pytest.fixture
def store(tmp_path):
    """An empty store on disk."""
    return FeatureStore.open(tmp_path / "stores" / "tiny" / "toy", create=True)


@pytest.fixture
def root(tmp_path):
    """The folder of ``store``."""
    return tmp_path / "stores" / "tiny" / "toy"
