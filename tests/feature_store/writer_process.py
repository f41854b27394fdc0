"""A writer in its own process: ``python writer_process.py ROOT POINT CONTENTS``; CONTENTS is JSON, id to text.

POINT says where the process kills itself without any chance to clean up, or ``race``: plan, write, say that it is
ready, wait for a line on stdin, commit.
"""

import json
import os
import signal
import sys

from conftest import SPEC, catalogue, extract, shard

from feature_store import FeatureStore


def die():
    os.kill(os.getpid(), signal.SIGKILL)


def dies(name, path_part, *, after=False):
    """Let ``os.<name>`` kill the process before (or after) it touches a path with ``path_part`` in it."""
    original = getattr(os, name)

    def patched(*paths, **options):
        hit = any(path_part in str(path) for path in paths)
        if hit and not after:
            die()
        result = original(*paths, **options)
        if hit and after:
            die()
        return result

    setattr(os, name, patched)


POINTS = {
    "shard written under its temporary name": lambda: dies("replace", "/shards/"),
    "shard finished": lambda: dies("replace", "/shards/", after=True),
    "manifest written under its temporary name": lambda: dies("link", "/manifests/"),
    "manifest published": lambda: dies("link", "/manifests/", after=True),
    "quarantine written under its temporary name": lambda: dies("replace", "/quarantine/"),
    "quarantine written": lambda: dies("replace", "/quarantine/", after=True),
    "quarantine folded, old files still there": lambda: dies("unlink", "/quarantine/"),
}


def main():
    root, point, contents = sys.argv[1], sys.argv[2], json.loads(sys.argv[3])
    store = FeatureStore.open(root, create=True)
    if point == "race":
        items = catalogue(contents)
        plan = store.plan(SPEC, items)
        store.write_shard(shard(plan.todo, items), plan)
        sys.stdout.write("ready\n")
        sys.stdout.flush()
        sys.stdin.readline()
        snapshot = store.commit(plan)
        sys.stdout.write(f"version {snapshot.version}\n")
        return
    POINTS[point]()
    extract(store, contents, bad=[item_id for item_id, text in contents.items() if text == "bad"])


if __name__ == "__main__":
    main()
