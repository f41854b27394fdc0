"""A root with a small prepared dataset, stores over its items, and experiments; commands run in this process.

25 users and 12 items ``i00`` to ``i11``. The stores have no row for three items, which are all that user ``u24`` had.
"""

import hashlib
import json
from datetime import UTC, datetime, timedelta

import numpy as np
import polars as pl
import pytest

from datasets_spec import registry
from datasets_spec.prepare import prepare
from datasets_spec.schema import RAW_INTERACTIONS, RawTables
from datasets_spec.spec import DatasetSpec, Licence, PrepareConfig
from feature_store import FeatureShard, FeatureStore
from flows import cli

DATASET = "synthetic"
IDS = [f"i{number:02d}" for number in range(12)]
ABSENT = ["i02", "i07", "i10"]
START = datetime(2024, 1, 1, tzinfo=UTC)

_MODELS = {
    "sasrec": "d = 8\nlayers = 1\ninner = 16\ndropout = 0.0\nmax_length = 5\n",
    "tedrec": "d = 8\nlayers = 1\ninner = 16\nexperts = 2\nmax_length = 5\n",
    "mealrec": "max_length = 5\nd = 8\ninner = 16\ncontent_width = 8\nunet_channels = 8\nsteps = 3\n",
    "popularity": "",
}
_TRAINING = '[training]\nepochs = 2\nbatch_size = 32\nmax_length = 5\nthreads = 1\ndevice = "cpu"\n'


def histories():
    """Item ids by user, oldest first: 5 to 7 different items each."""
    found = {
        f"u{user:02d}": [IDS[(user + (1, 5)[user % 2] * place) % 12] for place in range(5 + user % 3)]
        for user in range(24)
    }
    return {**found, "u24": list(ABSENT)}


class Source:
    """What a file of ``datasets_spec/sources`` does, without any download."""

    NAMES = (DATASET,)

    def acquire(self, spec, config, raw_dir, *, source, progress):
        raw_dir.mkdir(parents=True)
        (raw_dir / "pairs.csv").write_text("made up\n")

    def parse(self, spec, config, raw_dir):
        rows = [(user, item) for user, items in histories().items() for item in items]
        timed = [(user, item, START + timedelta(hours=n), n) for n, (user, item) in enumerate(rows)]
        items = pl.DataFrame(
            {
                "item_id": IDS,
                "title": [f"Clip {item}" for item in IDS],
                "category": [None if item == "i11" else f"c{int(item[1:]) % 3}" for item in IDS],
            }
        )
        frame = pl.DataFrame(timed, schema=RAW_INTERACTIONS, orient="row")
        return RawTables(frame, items, [], files=(raw_dir / "pairs.csv",))

    def acquire_media(self, spec, config, raw_dir, items, *, source, progress):
        return items, []


def make_lab(root, **preparation):
    """Prepare the dataset, as ``preparation`` says, commit the stores, write the experiments beside the root."""
    spec = DatasetSpec(DATASET, "Made-up pairs", Licence("none", "", "For tests."), "none", (), (), PrepareConfig())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(registry, "load", lambda name: (Source(), spec))
        prepared = prepare(DATASET, root=root, config=PrepareConfig(k_user=3, k_item=1, **preparation))
    make_store(root, "bert", width=4)
    make_store(root, "videomae", width=6, frames=3)
    for model, parameters in _MODELS.items():
        head = f'dataset = "{DATASET}"\nmodel = "{model}"\n[parameters]\n{parameters}'
        epochs = _TRAINING if model != "popularity" else "[training]\nepochs = 0\n"
        experiment(root, model).write_text(head + epochs)
    return prepared


def experiment(root, model):
    """The file of an experiment."""
    return root.parent / f"{model}.toml"


def vectors(feature, width, frames=None):
    """The rows of a store by item id: the embedding, or its frames."""
    rng = np.random.default_rng(len(feature))
    rows = rng.standard_normal((12, width)).astype(np.float32)
    if frames is not None:
        rows = rng.standard_normal((12, frames, width)).astype(np.float32)
    return {item: row for item, row in zip(IDS, rows, strict=True) if item not in ABSENT}


def make_store(root, feature, *, width, frames=None):
    """Commit a version without the rows of ``ABSENT``."""
    rows = vectors(feature, width)
    content = {item: hashlib.sha256(item.encode()).digest() for item in rows}
    store = FeatureStore.open(root / "stores" / DATASET / feature, create=True)
    plan = store.plan({"encoder": feature, "checkpoint": {"toy": True}}, content)
    parts = None if frames is None else np.stack(list(vectors(feature, width, frames).values()))
    store.write_shard(FeatureShard(list(content), list(content.values()), np.stack(list(rows.values())), parts), plan)
    return store.commit(plan)


def command(root, capsys, *words):
    """Exit code, the JSON object on stdout, and stderr of ``reelstore --json WORDS``."""
    capsys.readouterr()
    code = cli.main(["--root", str(root), "--json", *map(str, words)])
    written = capsys.readouterr()
    return code, json.loads(written.out), written.err


def train(root, capsys, model, *overrides):
    """The record of a run as the command prints it."""
    code, payload, err = command(root, capsys, "train", experiment(root, model), *overrides)
    assert code == 0, err
    return payload
