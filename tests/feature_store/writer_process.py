"""A writer in its own process.

``python writer_process.py POINT ROOT CONTENTS`` runs an extraction and kills itself at POINT without any chance to
clean up; CONTENTS is JSON, id to text. Where POINT is ``environment``, ``REELSTORE_FAULT`` says where it dies.
``python writer_process.py race ROUNDS`` commits when it is told to; ROUNDS is JSON, a list of root and contents.
"""

import json
import os
import signal
import sys

from conftest import SPEC, catalogue, extract, shard

from feature_store import FeatureStore, StoreError


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
    "environment": lambda: None,
    "shard written under its temporary name": lambda: dies("replace", "/shards/"),
    "shard finished": lambda: dies("replace", "/shards/", after=True),
    "manifest written under its temporary name": lambda: dies("link", "/manifests/"),
    "manifest published": lambda: dies("link", "/manifests/", after=True),
    "quarantine written under its temporary name": lambda: dies("replace", "/quarantine/"),
    "quarantine written": lambda: dies("replace", "/quarantine/", after=True),
    "quarantine folded, old files still there": lambda: dies("unlink", "/quarantine/"),
}


def race(rounds):
    """Plan and write, say so, wait for a line on stdin, commit, say what came of it; then the next round."""
    for root, contents in rounds:
        store, items = FeatureStore.open(root, create=True), catalogue(contents)
        plan = store.plan(SPEC, items)
        if plan.todo:  # the other writer of the same items may have finished its shard already
            store.write_shard(shard(plan.todo, items), plan)
        say("ready")
        sys.stdin.readline()
        try:
            say(f"version {store.commit(plan).version}")
        except StoreError as error:
            say(f"{type(error).__name__}: {error}")


def say(line):
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def main():
    if sys.argv[1] == "race":
        race(json.loads(sys.argv[2]))
        return
    point, root, contents = sys.argv[1], sys.argv[2], json.loads(sys.argv[3])
    store = FeatureStore.open(root, create=True)
    POINTS[point]()
    extract(store, contents, bad=[item_id for item_id, text in contents.items() if text == "bad"])


if __name__ == "__main__":
    main()
