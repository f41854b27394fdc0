"""A process that is killed at any point loses nothing; a disk that is full, and files that were changed, are named."""

import json
import os
import resource
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from feature_store import DamagedStoreError, FeatureStore, StorageError, faults

REPOSITORY = Path(__file__).parents[2]
CONTENTS = {f"i{number}": f"text {number}" for number in range(6)}


def test_a_process_killed_at_every_point_loses_nothing():
    """Each point once; ``python -m benchmarks.faults`` kills in every operation, every time that it comes by."""
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.faults", "0"], cwd=REPOSITORY, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
    total = json.loads(done.stdout.splitlines()[-1])
    assert total["points"] == total["runs"] == len(faults.POINTS)
    assert total["rows"] > 50 * total["runs"]  # five versions of 7 to 11 rows, and the last again
    assert (total["lost"], total["extra"], total["problems"]) == (0, 0, 0)


def test_points_do_nothing_unless_told(monkeypatch):
    monkeypatch.delenv(faults.VARIABLE, raising=False)
    faults.reached("no such point")
    for value in ("commit.manifest", "nowhere:1", "commit.manifest:x"):
        monkeypatch.setenv(faults.VARIABLE, value)
        with pytest.raises(ValueError, match=r"expected <point>:<count>, points are put\.begin"):
            faults.reached("commit.manifest")


def limited(size):
    """Let this process write files of at most so many bytes."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # the write fails instead


FULL_DISK = """
import json, sys
sys.path.insert(0, {tests!r})
from conftest import SPEC, catalogue, shard
from feature_store import FeatureStore, StoreError
store = FeatureStore.open(sys.argv[1])
items = catalogue({{f"n{{number}}": str(number) for number in range(20_000)}} | json.loads(sys.argv[2]))
plan = store.plan(SPEC, items)
try:
    store.write_shard(shard(plan.todo, items), plan)
except StoreError as error:
    print(type(error).__name__, error)
"""


def write_on_a_full_disk(root, **options):
    code = FULL_DISK.format(tests=str(Path(__file__).parent))
    command = [sys.executable, "-c", code, str(root), json.dumps(CONTENTS)]
    return subprocess.run(command, capture_output=True, text=True, check=True, cwd=REPOSITORY, **options).stdout


def check_after_a_full_disk(said, root, toy):
    assert said.startswith("StorageError ")
    assert "bytes could not be written (" in said
    assert "Make room and run again" in said
    survivor = FeatureStore.open(root)
    assert not list(root.rglob("*.tmp"))
    assert survivor.verify() == []
    assert survivor.latest().matrix(list(CONTENTS)).present.all()
    plan, snapshot = toy.extract(survivor, CONTENTS | {"one": "more"})
    assert (plan.todo, snapshot.version) == (["one"], 2)


def test_a_file_that_may_not_grow_is_a_sentence_and_nothing_half_written(store, root, toy):
    toy.extract(store, CONTENTS)
    said = write_on_a_full_disk(root, preexec_fn=lambda: limited(100_000))
    check_after_a_full_disk(said, root, toy)


def test_a_full_disk_is_a_sentence_and_nothing_half_written(tmp_path, toy):
    """On a file system of 300 kB where this user may mount one; else the same by a limit on file sizes."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = os.geteuid() == 0 and not subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=300k", "none", str(disk)], capture_output=True, check=False
    ).returncode  # fmt: skip
    try:
        root = disk / "tiny" / "toy"
        toy.extract(FeatureStore.open(root, create=True), CONTENTS)
        said = write_on_a_full_disk(root, **({} if mounted else {"preexec_fn": lambda: limited(100_000)}))
        assert ("No space left on device" in said) == mounted
        check_after_a_full_disk(said, root, toy)
    finally:
        if mounted:
            subprocess.run(["umount", str(disk)], check=True)


def test_a_write_that_fails_keeps_the_cause(tmp_path, store, monkeypatch):
    def broken(descriptor):
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "fsync", broken)
    with pytest.raises(StorageError, match=r"could not be written \(Input/output error\)") as caught:
        store._files.put("shards/x", b"1")
    assert isinstance(caught.value.__cause__, OSError)


@pytest.fixture
def shard_path(store, root, toy):
    """The only shard of a store with one version and a tag."""
    toy.extract(store, CONTENTS, shard_rows=6)
    store.tag("paper")
    (path,) = (root / "shards").iterdir()
    return path


def test_every_bit_of_a_shard_counts(store, shard_path):
    """One bit in every 41st byte: verify names the file, and the plan does not build on a shard no manifest lists."""
    intact = shard_path.read_bytes()
    for position in range(0, len(intact), 41):
        data = bytearray(intact)
        data[position] ^= 1 << (position % 8)
        shard_path.write_bytes(data)
        assert [damage.path for damage in store.verify()] == [f"shards/{shard_path.name}"]
    shard_path.write_bytes(intact)
    assert store.verify() == []


@pytest.mark.parametrize("share", [0.0, 0.2, 0.5, 0.9, 0.999])
def test_a_truncated_shard_is_never_read(store, root, shard_path, share):
    intact = shard_path.read_bytes()
    shard_path.write_bytes(intact[: int(share * len(intact))])
    with pytest.raises(DamagedStoreError, match=shard_path.name):
        FeatureStore.open(root).latest().matrix(list(CONTENTS))
    assert [damage.path for damage in store.verify()] == [f"shards/{shard_path.name}"]


def test_a_deleted_shard_is_named_and_encoded_again(store, root, shard_path, toy):
    shard_path.unlink()
    with pytest.raises(DamagedStoreError, match="is missing"):
        store.latest().matrix(list(CONTENTS))
    with pytest.raises(DamagedStoreError, match="is missing"):
        store.compact()
    plan, snapshot = toy.extract(FeatureStore.open(root), CONTENTS, shard_rows=6)
    assert (plan.todo, snapshot.version) == (list(CONTENTS), 1)
    assert store.verify() == []


def test_foreign_parquet_among_the_shards_is_named_and_not_used(store, root, shard_path, toy, caplog):
    foreign = root / "shards" / f"{'0' * 64}.parquet"
    foreign.write_bytes(shard_path.read_bytes())
    assert [damage.path for damage in store.verify()] == [f"shards/{foreign.name}"]
    plan, snapshot = toy.extract(FeatureStore.open(root), CONTENTS)
    assert (plan.changed, snapshot.version) == (False, 1)
    assert "is left out: its bytes hash to" in caplog.text


def test_a_newer_format_stops_readers_and_writers(store, root, shard_path, toy):
    (root / "manifests" / "00000002.json").write_text('{"format": 2, "version": 2}')
    for call in (store.latest, store.compact, lambda: toy.extract(store, CONTENTS), lambda: store.tag("next")):
        with pytest.raises(DamagedStoreError, match="format 2, this program reads format 1; use a newer reelstore"):
            call()
    assert store.at(1).matrix(list(CONTENTS)).present.all()
