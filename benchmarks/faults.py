"""Kill a process at every point of every operation on a feature store, and see what is left.

``python -m benchmarks.faults [N]``: N runs per operation and point at most, spread over the times that the operation
comes by; all of them without N; one run per point, in the first operation that comes by, with N = 0. Every operation
is killed twice over: on a store on disk, and on one behind the requests of an object store (put, put-if-absent,
delete), which a folder answers here. Each run starts from the same store of five versions, kills a process with
SIGKILL, and then checks in another one that

* every version that was readable is so, with the same manifest byte for byte, intact shards and the same rows;
* a version that the killed process published holds exactly what it should;
* the operation, run again, ends where an undisturbed one does: each row once, none missing, nothing left to do.

Processes are forks of this one, so that none has to import anything. The last line is JSON. Exit code 1 where
anything was lost.
"""

import hashlib
import itertools
import json
import os
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import numpy as np
import pandas  # noqa: F401  # pyarrow imports it when it first converts an array: here once, not in every fork
from obstore.store import LocalStore

from feature_store import FeatureShard, FeatureStore, QuarantineRow, faults
from feature_store.files import ObjectFiles

SPEC = {"encoder": "toy"}
DIM = 4

FIRST = {f"i{number}": f"text {number}" for number in range(7)}
SECOND = FIRST | {"i1": "changed", "new": "new"}
THIRD = SECOND | {"i2": "changed", "x": "bad"}
FOURTH = THIRD | {"late": "late", "y": "bad"}
FIFTH = FOURTH | {"later": "later"}
#: What the base store was interrupted in, and what the killed extraction brings it to.
SIXTH = FIFTH | {f"z{number}": f"more {number}" for number in range(8)} | {"i5": "changed", "x": "repaired", "w": "bad"}
HISTORY = (FIRST, SECOND, THIRD, FOURTH, FIFTH)


def digest(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()


def good(contents: dict[str, str]) -> dict[str, str]:
    """What must be readable: all items that can be encoded."""
    return {item_id: text for item_id, text in contents.items() if text != "bad"}


def shard(ids: list[str], contents: dict[str, str]) -> FeatureShard:
    """The vector of an item is made of the first bytes of its content's hash, exact in float16."""
    hashes = [digest(contents[item_id]) for item_id in ids]
    vectors = np.stack([np.frombuffer(content, np.uint8)[:DIM] for content in hashes])
    return FeatureShard(ids, hashes, (vectors / 16).astype(np.float16))


def extract(store: FeatureStore, contents: dict[str, str], *, rows: int = 3) -> None:
    """A whole run: plan, shards of a few rows, quarantine, commit."""
    plan = store.plan(SPEC, {item_id: digest(text) for item_id, text in contents.items()})
    todo = [item_id for item_id in plan.todo if contents[item_id] != "bad"]
    for start in range(0, len(todo), rows):
        store.write_shard(shard(todo[start : start + rows], contents), plan)
    failed = [item_id for item_id in plan.todo if contents[item_id] == "bad"]
    store.quarantine([QuarantineRow(item, "decode", "bad", "no", digest("bad")) for item in failed], plan)
    store.commit(plan)


def make_base(root: Path) -> None:
    """Five versions, two tags, a quarantine, a finished shard that was never committed, a torn file; all of it old."""
    store = FeatureStore.open(root, create=True)
    for contents in HISTORY:
        extract(store, contents)
    store.tag("paper", 1)
    store.tag("release", 5)
    plan = store.plan(SPEC, {item_id: digest(text) for item_id, text in SIXTH.items()})
    store.write_shard(shard(["z0", "z1"], SIXTH), plan)
    (root / "shards" / ".torn.parquet.1-a.tmp").write_bytes(b"PAR1")
    old = time.time() - 10 * 86_400
    for path in root.rglob("*"):
        os.utime(path, (old, old))


OPERATIONS: dict[str, Callable[[FeatureStore], object]] = {
    "extract": lambda store: extract(store, SIXTH, rows=1),
    "retry": lambda store: store.retry(),
    "compact": lambda store: store.compact(target_bytes=2 * DIM * 2),
    "gc": lambda store: store.gc(1, timedelta(days=1)),
    "tag": lambda store: store.tag("new", 2),
    "move": lambda store: store.tag("paper", 2, move=True),
    "remove": lambda store: store.untag("release") if "release" in store.tags() else None,
}
#: How the same folder is opened.
STORAGES: dict[str, Callable[[Path], FeatureStore]] = {
    "disk": FeatureStore.open,
    "objects": lambda root: FeatureStore(ObjectFiles(LocalStore(root), root.as_uri()), "run/toy"),
}
#: Versions that an operation may remove.
REMOVABLE = {"gc": {2, 3, 4}}
TAGS = {"tag": {"new": 2}, "move": {"paper": 2}}


def rows_of(store: FeatureStore, version: int) -> Counter[tuple[str, bytes, bytes]]:
    """Every row of a version as a reader sees it: id, content, vector."""
    snapshot = store.at(version)
    vectors = snapshot.matrix(snapshot.item_ids).values
    contents = snapshot.index["content_sha256"].to_list()
    return Counter(zip(snapshot.item_ids, contents, (vector.tobytes() for vector in vectors), strict=True))


def expected_rows(contents: dict[str, str]) -> Counter[tuple[str, bytes, bytes]]:
    kept = good(contents)
    made = shard(list(kept), kept)
    vectors = (vector.tobytes() for vector in made.embedding.astype(np.float32))
    return Counter(zip(made.item_ids, made.content_sha256, vectors, strict=True))


class Check:
    """Counts rows, and collects what is wrong."""

    def __init__(self) -> None:
        self.rows = self.lost = self.extra = 0
        self.problems: list[str] = []

    def version(self, store: FeatureStore, version: int, contents: dict[str, str]) -> None:
        """Compare the rows of a version with what they should be."""
        found, wanted = rows_of(store, version), expected_rows(contents)
        self.rows += wanted.total()
        self.lost += (wanted - found).total()
        self.extra += (found - wanted).total()

    def true(self, fact: object, problem: str) -> None:
        """Note the problem unless it is so."""
        if not fact:
            self.problems.append(problem)


def check(base: Path, root: Path, operation: str, storage: str) -> Check:
    """What the killed process left, and what the operation makes of it when it is run again."""
    result, store = Check(), STORAGES[storage](root)
    removable = REMOVABLE.get(operation, set())
    _check_versions(result, store, base, root, operation)
    missing = set(range(1, 6)) - set(store.versions())
    result.true(missing <= removable, f"versions {missing} are gone")
    OPERATIONS[operation](store)
    again = STORAGES[storage](root)
    result.true(again.verify() == [], f"damage: {again.verify()}")  # shards and manifests are what they were
    last = 6 if operation in ("extract", "compact") else 5
    result.true(again.versions() == [v for v in range(1, last + 1) if v not in removable], f"{again.versions()}")
    tags = {name: tag.version for name, tag in again.tags().items()}
    wanted = {"paper": 1, "release": 5} | TAGS.get(operation, {})
    if operation == "remove":
        del wanted["release"]
    result.true(tags == wanted, f"tags {tags}")
    latest = SIXTH if operation == "extract" else FIFTH
    result.version(again, last, latest)
    plan = again.plan(SPEC, {item_id: digest(text) for item_id, text in latest.items()})
    bad = sorted(set(latest) - set(good(latest)))
    tried = plan.todo if operation == "retry" else plan.known_bad
    result.true(sorted(tried) == bad, f"quarantine {plan}")
    result.true(operation == "retry" or not plan.changed, f"work is left: {plan}")
    return result


def _check_versions(result: Check, store: FeatureStore, base: Path, root: Path, operation: str) -> None:
    for version in store.versions():
        name = f"manifests/{version:08d}.json"
        if version <= 5:
            result.true((root / name).read_bytes() == (base / name).read_bytes(), f"{name} changed")
            result.version(store, version, HISTORY[version - 1])
        else:
            result.version(store, version, SIXTH if operation == "extract" else FIFTH)
    result.true(store.verify() == [], f"damage: {store.verify()}")


def forked(work: Callable[[], object]) -> tuple[int, bytes]:
    """Run in a copy of this process; its wait status, and its result as JSON."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        code = 1
        try:
            os.write(writer, json.dumps(work(), default=vars).encode())
            code = 0
        except BaseException:
            traceback.print_exc()
        os._exit(code)
    os.close(writer)
    with os.fdopen(reader, "rb") as stream:
        said = stream.read()
    return os.waitpid(child, 0)[1], said


def points_of(root: Path, operation: str, storage: str) -> dict[str, int]:
    """How often an undisturbed operation comes by each point."""

    def work() -> dict[str, int]:
        seen: Counter[str] = Counter()
        faults.reached = lambda point: seen.update([point])  # type: ignore[assignment]
        OPERATIONS[operation](STORAGES[storage](root))
        return seen

    status, said = forked(work)
    if status:
        raise SystemExit(f"{operation} failed undisturbed on {storage}")
    return json.loads(said)


def killed(root: Path, operation: str, storage: str, point: str, count: int) -> bool:
    """Whether the process died at the point."""

    def work() -> None:
        os.environ[faults.VARIABLE] = f"{point}:{count}"
        OPERATIONS[operation](STORAGES[storage](root))

    return forked(work)[0] == signal.SIGKILL


def spread(times: int, most: int | None) -> list[int]:
    """At most ``most`` of 1..times (one for 0), the first and the last among them."""
    most = 1 if most == 0 else most
    if most is None or times <= most:
        return list(range(1, times + 1))
    return sorted({round(value) for value in np.linspace(1, times, most).tolist()})


def main() -> int:
    """Print a line per storage, operation and point."""
    most = int(sys.argv[1]) if len(sys.argv) > 1 else None
    memory = Path("/dev/shm")  # a killed process loses nothing that the kernel has
    total, reached = Counter[str](), set[str]()
    with tempfile.TemporaryDirectory(dir=memory if os.access(memory, os.W_OK) else None) as folder:
        base, root = Path(folder) / "base" / "toy", Path(folder) / "run" / "toy"
        if forked(lambda: make_base(base))[0]:
            raise SystemExit("the base store could not be made")

        def fresh() -> Path:
            shutil.rmtree(root, ignore_errors=True)
            shutil.copytree(base, root)  # with times
            return root

        for storage, operation in itertools.product(STORAGES, OPERATIONS):
            for point, times in points_of(fresh(), operation, storage).items():
                if most == 0 and point in reached:
                    continue
                sums = Counter[str]()
                for count in spread(times, most):
                    sums += run(fresh(), base, operation, storage, point=point, count=count)
                reached.add(point)
                total += sums
                print(f"{storage:7} {operation:8} {point:18} {times:3} times {describe(sums)}", flush=True)
    total["points"] = len(reached)
    total["unreached"] = len(set(faults.POINTS) - reached)
    print(f"all: {describe(total)}; {len(reached)} of {len(faults.POINTS)} points")
    print(json.dumps({key: total[key] for key in ("runs", "points", "unreached", "rows", "lost", "extra", "problems")}))
    return 1 if total["lost"] or total["extra"] or total["problems"] or total["unreached"] else 0


def run(root: Path, base: Path, operation: str, storage: str, *, point: str, count: int) -> Counter[str]:
    """One kill and the checks after it."""
    sums = Counter({"runs": 1})
    if not killed(root, operation, storage, point, count):
        print(f"{operation} on {storage} was not killed at {point}:{count}")
        sums["problems"] += 1
        return sums
    status, said = forked(lambda: check(base, root, operation, storage))
    result = json.loads(said) if status == 0 else {"problems": [f"the check failed with status {status}"]}
    for problem in result["problems"]:
        print(f"{operation} on {storage} killed at {point}:{count}: {problem}")
    sums["problems"] += len(result["problems"])
    for key in ("rows", "lost", "extra"):
        sums[key] += result.get(key, 0)
    return sums


def describe(sums: Counter[str]) -> str:
    return (
        f"{sums['runs']} runs, {sums['rows']} rows checked, lost rows: {sums['lost']}, "
        f"extra rows: {sums['extra']}, problems: {sums['problems']}"
    )


if __name__ == "__main__":
    sys.exit(main())
