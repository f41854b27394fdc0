"""The feature store against what its speed is made of: numpy, pandas, pyarrow and sha256 on the same bytes.

``python -m benchmarks.store [rows]``. CPU seconds of the process, medians of alternating repeats, ratios within this
run; peak memory from a process of its own. At the default 200,000 rows of 768 float32 it writes about 3 GB below the
temporary folder, and removes them.
"""

import gc
import hashlib
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from feature_store import FeatureShard, FeatureStore, Snapshot

DIM = 768
SHARD_ROWS = 25_000
GATHERED = 4096
PLANNED = 1_000_000
REPEATS = 7


def medians(*works: Callable[[], object], repeats: int = REPEATS) -> list[float]:
    """Median CPU seconds of each; they take turns, so that what else the machine does meets all of them."""
    seconds: list[list[float]] = [[] for _ in works]
    for _ in range(repeats):
        for work, taken in zip(works, seconds, strict=True):
            gc.collect()
            started = time.process_time()
            result = work()
            taken.append(time.process_time() - started)
            del result
    return [statistics.median(taken) for taken in seconds]


def print_row(name: str, ours: float, theirs: float, unit: str, ratio: float, target: str) -> None:
    print(f"{name:42} {ours:9.3f} {theirs:9.3f} {unit:6} {ratio:7.2f}  {target}", flush=True)


def item_ids(rows: int) -> list[str]:
    return [f"item-{number:08d}" for number in range(rows)]


def catalogue(ids: list[str]) -> dict[str, bytes]:
    return {item_id: hashlib.sha256(item_id.encode()).digest() for item_id in ids}


def shards(ids: list[str], items: dict[str, bytes], vectors: np.ndarray) -> list[FeatureShard]:
    starts = range(0, len(ids), SHARD_ROWS)
    return [
        FeatureShard(part, [items[item_id] for item_id in part], vectors[start : start + SHARD_ROWS])
        for start in starts
        for part in (ids[start : start + SHARD_ROWS],)
    ]


def write_plain(folder: Path, shard: FeatureShard) -> None:
    """What pyarrow alone does with the same columns: encode, and write; flushed to the device like ours."""
    vectors = pa.FixedSizeListArray.from_arrays(pa.array(shard.embedding.reshape(-1)), DIM)
    columns = {"item_id": shard.item_ids, "content_sha256": shard.content_sha256, "embedding": vectors}
    path = folder / "plain.parquet"
    pq.write_table(pa.table(columns), path, compression="none", use_dictionary=False, row_group_size=4096)
    with path.open("rb") as file:
        os.fsync(file.fileno())
    path.unlink()


def bench_write(folder: Path, ids: list[str], vectors: np.ndarray) -> None:
    """Writing shards, with their hash."""
    items = catalogue(ids)
    made = shards(ids, items, vectors)
    scratch = folder / "scratch"
    scratch.mkdir()

    def ours() -> None:
        store = FeatureStore.open(scratch / "bench" / "store", create=True)
        plan = store.plan({"encoder": "bench"}, items)
        writes.append(_timed(lambda: store.write_shard(made[0], plan)))
        shutil.rmtree(scratch / "bench")

    def plain() -> None:
        plains.append(_timed(lambda: write_plain(scratch, made[0])))

    writes: list[float] = []
    plains: list[float] = []
    medians(ours, plain)
    megabytes = made[0].embedding.nbytes / 1e6
    speed, reference = megabytes / statistics.median(writes), megabytes / statistics.median(plains)
    print_row("write / plain pyarrow", speed, reference, "MB/s", speed / reference, ">= 0.60, or 250 MB/s")


def _timed(work: Callable[[], object]) -> float:
    started = time.process_time()
    work()
    return time.process_time() - started


def bench_load(path: Path, folder: Path, ids: list[str]) -> None:
    """All rows into one torch tensor."""
    import pandas as pd
    import torch

    files = sorted((path / "shards").glob("*.parquet"))

    def ours() -> torch.Tensor:
        return torch.from_numpy(FeatureStore.open(path).latest().table(ids))

    def numpy() -> torch.Tensor:
        return torch.from_numpy(np.load(folder / "vectors.npy"))

    def pandas() -> torch.Tensor:
        frame = pd.concat(pd.read_parquet(file, columns=["embedding"]) for file in files)
        return torch.from_numpy(np.stack(frame["embedding"].to_list()))

    ours()
    load, reference = medians(ours, numpy)
    print_row("full load / np.load", load, reference, "CPU-s", load / reference, "<= 5")
    load, slow = medians(ours, pandas, repeats=3)
    print_row("full load / pandas + np.stack", load, slow, "CPU-s", load / slow, "<= 0.33")


def bench_memory(path: Path, rows: int) -> None:
    """Peak of resident memory while loading, over what the process had before, and the array."""
    command = [sys.executable, "-m", "benchmarks.store", "--peak", str(path), str(rows)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    peak, size = (float(word) for word in done.stdout.split())
    print_row("peak memory of the load / the tensor", peak, size, "MB", peak / size, "<= 1.25")


def print_peak(path: Path, rows: int) -> None:
    """In a process of its own: the peak that the load adds, and the bytes of its result."""
    ids = item_ids(rows)
    FeatureStore.open(path).latest().table(ids[:1])  # imports and first touches
    before = _status_kilobytes("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew from here
    table = FeatureStore.open(path).latest().table(ids)
    print((_status_kilobytes("VmHWM") - before) * 1024 / 1e6, table.nbytes / 1e6)


def _status_kilobytes(name: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(f"{name}:")).split()[1])


def bench_gather(snapshot: Snapshot, folder: Path, ids: list[str]) -> None:
    """Random rows, again and again, through the memory map: by item id, and by rows that were located once."""
    generator = np.random.default_rng(1)
    plain = np.load(folder / "vectors.npy", mmap_mode="r")
    draws = [generator.integers(0, len(ids), GATHERED) for _ in range(4)]
    named = [[ids[row] for row in rows] for rows in draws]
    located = [snapshot.locate(names) for names in named]
    for names, rows in zip(named, draws, strict=True):
        if not np.array_equal(snapshot.gather(names).values, plain[rows]):
            raise SystemExit("what was gathered is not what was written")
    by_id, by_row, reference = medians(
        lambda: [snapshot.gather(names).values for names in named],
        lambda: [snapshot.take(rows) for rows in located],
        lambda: [plain[rows] for rows in draws],
        repeats=25,
    )
    per_draw = 1000 / len(draws)
    for name, ours in (("4,096 rows by id", by_id), ("4,096 rows by row", by_row)):
        print_row(f"{name} / np.memmap", ours * per_draw, reference * per_draw, "ms", ours / reference, "<= 1.5")


def bench_verify(path: Path, store: FeatureStore) -> None:
    """Re-reading every byte; the reference hashes the same bytes, in memory already."""
    loaded = [file.read_bytes() for file in (path / "shards").iterdir()]
    ours, reference = medians(store.verify, lambda: [hashlib.sha256(data).digest() for data in loaded])
    megabytes = sum(map(len, loaded)) / 1e6
    speed = reference / ours
    print_row("verify / sha256 alone", megabytes / ours, megabytes / reference, "MB/s", speed, ">= 0.80")


def bench_plan(folder: Path) -> None:
    """A million items with nothing to do: the catalogue is compared with the store."""
    ids = item_ids(PLANNED)
    items = catalogue(ids)
    path = folder / "bench" / "planned"
    store = FeatureStore.open(path, create=True)
    plan = store.plan({"encoder": "plan"}, items)
    vectors = np.random.default_rng(2).standard_normal((PLANNED, 2), dtype=np.float32)
    for shard in shards(ids, items, vectors):
        store.write_shard(shard, plan)
    store.commit(plan)
    (taken,) = medians(lambda: _nothing_to_do(path, items), repeats=3)
    print_row("plan 1,000,000 items, nothing to do", taken, 3.0, "CPU-s", taken / 3.0, "< 3 CPU-s")


def _nothing_to_do(path: Path, items: dict[str, bytes]) -> None:
    plan = FeatureStore.open(path).plan({"encoder": "plan"}, items)
    if plan.todo or plan.changed:
        raise SystemExit(f"the plan finds work where there is none: {plan}")


def run(rows: int, folder: Path) -> None:
    """Build one store, and measure everything on it."""
    print(f"{rows} rows x {DIM} float32, medians of alternating repeats, {os.cpu_count()} cores")
    print(f"{'':42} {'ours':>9} {'theirs':>9} {'':6} {'ratio':>7}  target")
    ids = item_ids(rows)
    vectors = np.random.default_rng(0).standard_normal((rows, DIM), dtype=np.float32)
    bench_write(folder, ids, vectors)
    np.save(folder / "vectors.npy", vectors)
    path = folder / "bench" / "vectors"
    store = FeatureStore.open(path, create=True)
    items = catalogue(ids)
    plan = store.plan({"encoder": "bench"}, items)
    for shard in shards(ids, items, vectors):
        store.write_shard(shard, plan)
    started = time.process_time()
    snapshot = store.commit(plan)
    committed = time.process_time() - started
    if not np.array_equal(snapshot.table(ids)[1:], vectors):
        raise SystemExit("what was read is not what was written")
    del vectors
    bench_load(path, folder, ids)
    bench_memory(path, rows)
    bench_gather(snapshot, folder, ids)
    bench_verify(path, store)
    bench_plan(folder)
    print(f"commit with all figures: {committed:.2f} CPU-s")


def main() -> None:
    """Measure in a temporary folder that is removed in any case."""
    if sys.argv[1:2] == ["--peak"]:
        print_peak(Path(sys.argv[2]), int(sys.argv[3]))
        return
    rows = int(sys.argv[1]) if len(sys.argv) > 1 else 200_000
    with tempfile.TemporaryDirectory(prefix="reelstore-bench-") as folder:
        run(rows, Path(folder))


if __name__ == "__main__":
    main()
