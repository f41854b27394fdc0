"""Many processes on one store, forked from this one; ``python writers.py ROOT KIND``.

``commit``: 8 writers, each adding items of its own in 2 commits. ``readers``: one process commits, compacts and
collects garbage while 3 others read. Prints one JSON object: what each process saw.
"""

import json
import os
import sys
import traceback
from datetime import timedelta
from pathlib import Path

import numpy as np
from conftest import SPEC, catalogue, extract, shard, vector

from feature_store import FeatureStore, StoreError

WRITERS, COMMITS = 8, 2
READERS, ROUNDS = 3, 6
KEPT = 6  # versions
BASE = {f"base-{number}": f"base {number}" for number in range(30)}


def commit(root, writer):
    """Numbers of the versions that this writer made."""
    store, made = FeatureStore.open(root), []
    for number in range(COMMITS):
        items = catalogue({f"w{writer}-{number}-{row}": f"{writer} {number} {row}" for row in range(2)})
        plan = store.plan(SPEC, items)
        store.write_shard(shard(plan.todo, items), plan)
        made.append(store.commit(plan).version)
    return made


def maintain(root, done):
    """Change, compact and clean up again and again; then tell the readers to stop."""
    store = FeatureStore.open(root)
    contents = dict(BASE)
    for number in range(ROUNDS):
        contents |= {"base-0": f"edition {number}", f"more-{number}": str(number)}
        extract(store, contents, shard_rows=10)
        store.compact(target_bytes=80)
        # Made to look old at once. A reader that a busy machine holds up can still be at one of them: see ``read``.
        for version in store.versions()[:-KEPT]:
            os.utime(f"{root}/manifests/{version:08d}.json", (0, 0))
        listed = {s.sha256 for version in store.versions()[-KEPT:] for s in store.at(version).manifest.shards}
        for entry in os.scandir(f"{root}/shards"):
            if entry.name.removesuffix(".parquet") not in listed:
                os.utime(entry.path, (0, 0))
        store.gc(KEPT, timedelta(hours=1))
    os.close(os.open(done, os.O_CREAT))
    return store.versions()


def read(root, done):
    """How often the latest version was read, from the first version to the last; every row was checked."""
    store, seen = FeatureStore.open(root), []
    expected = np.stack([vector(content) for content in catalogue(BASE).values()])[1:]
    last = False
    while not last:
        last = Path(done).exists()
        snapshot = store.latest()
        try:
            matrix = snapshot.matrix(list(BASE))
        except StoreError:
            if store.latest().version - snapshot.version < KEPT:
                raise
            continue
        assert matrix.present.all()
        assert (matrix.values[1:] == expected).all()
        seen.append(snapshot.version)
    return seen


def processes(*works):
    """What each returned."""
    pipes = []
    for work in works:
        reader, writer = os.pipe()
        if os.fork() == 0:
            code = 1
            try:
                os.write(writer, json.dumps(work()).encode())
                code = 0
            except BaseException:
                traceback.print_exc()
            finally:
                os._exit(code)
        os.close(writer)
        pipes.append(reader)
    said = [os.fdopen(reader, "rb").read() for reader in pipes]
    for _ in works:
        assert os.wait()[1] == 0
    return [json.loads(text) for text in said]


def main():
    root, kind = sys.argv[1:]
    if kind == "commit":
        result = processes(*(lambda writer=writer: commit(root, writer) for writer in range(WRITERS)))
    else:
        processes(lambda: extract(FeatureStore.open(root), BASE) and None)
        done = f"{root}/../done"
        result = processes(lambda: maintain(root, done), *[lambda: read(root, done)] * READERS)
    sys.stdout.write(json.dumps(result))


if __name__ == "__main__":
    main()
