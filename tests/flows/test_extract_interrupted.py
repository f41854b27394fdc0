"""``reelstore extract`` as a real process that is killed or interrupted: nothing lives on, nothing is lost."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import psutil
import pytest
from PIL import Image

from feature_store import FeatureStore, NoSnapshotError

PICTURES = 200
INTERRUPTED = 130


@pytest.fixture
def folder(tmp_path):
    """Pictures of noise, a page that is none, and a pipe."""
    covers = tmp_path / "covers"
    covers.mkdir()
    rng = np.random.default_rng(0)
    for number in range(PICTURES):
        pixels = rng.integers(0, 256, (4, 3, 3), dtype=np.uint8).repeat(10, 0).repeat(10, 1)
        Image.fromarray(pixels).save(covers / f"{number:03}.png")
    (covers / "page.png").write_text("<html>502 Bad Gateway</html>")
    os.mkfifo(covers / "pipe.png")
    return covers


@pytest.fixture
def start(tmp_path):
    """Start ``reelstore extract`` on a folder; whatever still runs at the end of a test is killed."""
    started = []

    def run(folder, feature="vit"):
        settings = ["--features", feature, "checkpoint=tiny", "batch_size=1", "shard_size=4"]
        words = ["--root", str(tmp_path / "data"), "--json", "extract", str(folder), *settings]
        process = subprocess.Popen(
            [sys.executable, "-m", "flows.cli", *words],
            env={**os.environ, "REELSTORE_WORKERS": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,  # as from a terminal: a group of its own, so that a signal reaches the children too
        )
        started.append(process)
        return process

    yield run
    for process in started:
        process.kill()
        process.communicate()


def decoders_of(pid):
    """Decode processes that were started by ``pid``, whether or not it still runs."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                words = (entry / "cmdline").read_bytes().split(b"\0")
            except OSError:
                continue
            if b"extractors.pool_worker" in words and str(pid).encode() in words[-2:]:
                found.append(int(entry.name))
    return found


def shards(root):
    return len(list((root / "stores" / "covers" / "vit" / "shards").glob("*.parquet")))


def wait_until(condition, process=None, seconds=180):
    end = time.monotonic() + seconds
    while not condition():
        assert process is None or process.poll() is None, process.communicate()
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.01)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_killed_then_interrupted_then_finished(tmp_path, folder, start):
    root = tmp_path / "data"
    store = root / "stores" / "covers" / "vit"

    killed = start(folder)
    wait_until(lambda: shards(root) >= 2, killed)
    assert decoders_of(killed.pid)
    killed.kill()
    killed.communicate(timeout=60)
    wait_until(lambda: not decoders_of(killed.pid))
    after_kill = shards(root)
    with pytest.raises(NoSnapshotError):
        FeatureStore.open(store).latest()
    assert FeatureStore.open(store).verify() == []

    interrupted = start(folder)
    wait_until(lambda: shards(root) >= after_kill + 2, interrupted)
    os.killpg(interrupted.pid, signal.SIGINT)
    _, errors = interrupted.communicate(timeout=60)
    assert interrupted.returncode == INTERRUPTED
    assert b"the same command goes on from there" in errors
    assert b"Traceback" not in errors
    assert decoders_of(interrupted.pid) == []
    assert FeatureStore.open(store).verify() == []
    finished = shards(root)

    last = start(folder)
    printed, errors = last.communicate(timeout=240)
    assert last.returncode == 0, errors
    assert decoders_of(last.pid) == []
    (report,) = json.loads(printed)["features"]
    assert report["reused"] >= 4 * (finished - 1)
    assert report["encoded"] + report["reused"] == PICTURES
    opened = FeatureStore.open(store)
    bad = dict(opened.quarantined().select("item_id", "reason").iter_rows())
    assert bad == {"page": "unreadable", "pipe": "unreadable"}
    assert len(opened.latest()) + len(bad) == len(list(folder.iterdir()))
    vectors = opened.latest().matrix([f"{number:03}" for number in range(PICTURES)])
    assert vectors.present.all()
    assert len(np.unique(vectors.values, axis=0)) == PICTURES
    assert opened.verify() == []


def test_interrupted_while_it_reads_a_large_file(tmp_path, start):
    folder = tmp_path / "clips"
    folder.mkdir()
    large = folder / "large.mp4"
    with large.open("wb") as stream:
        stream.truncate(1 << 38)  # 256 GiB that are not on disk: minutes of hashing
    process = start(folder, "videomae")

    reader = psutil.Process(process.pid)
    wait_until(lambda: str(large) in {file.path for file in reader.open_files()}, process)
    os.killpg(process.pid, signal.SIGINT)
    process.communicate(timeout=60)
    assert process.returncode == INTERRUPTED
