"""k-core to the fixpoint: ours against the usual loop of group counts (polars) on a power-law bipartite graph.

``python -m benchmarks.kcore [rows]``. CPU seconds, median of 5, and the ratio within this run.
"""

import statistics
import sys
import time

import numpy as np
import polars as pl

from datasets_spec.kcore import k_core

K = 5
REPEATS = 5


def graph(rows: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Users by a Pareto law, items by a Zipf law."""
    generator = np.random.default_rng(seed)
    users = np.minimum(generator.pareto(1.05, rows) * rows / 200, rows // 4).astype(np.int64)
    items = np.minimum(generator.zipf(1.3, rows), rows // 10).astype(np.int64)
    return users, items


def polars_loop(users: np.ndarray, items: np.ndarray) -> np.ndarray:
    """Drop rows of light users and items until nothing changes."""
    frame = pl.DataFrame({"user": users, "item": items}).with_row_index()
    while True:
        kept = frame.filter(pl.len().over("user") >= K).filter(pl.len().over("item") >= K)
        if len(kept) == len(frame):
            mask = np.zeros(len(users), dtype=bool)
            mask[kept["index"].to_numpy()] = True
            return mask
        frame = kept


def cpu_seconds(work) -> float:
    """Median CPU seconds of the process over the repeats."""
    seconds = []
    for _ in range(REPEATS):
        started = time.process_time()
        work()
        seconds.append(time.process_time() - started)
    return statistics.median(seconds)


def main() -> None:
    """Print both times and their ratio; both must agree on every row."""
    rows = int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000
    users, items = graph(rows)
    mask, report = k_core(users, items, k_user=K, k_item=K)
    if not np.array_equal(mask, polars_loop(users, items)):
        raise SystemExit("the two methods disagree")
    ours = cpu_seconds(lambda: k_core(users, items, k_user=K, k_item=K))
    theirs = cpu_seconds(lambda: polars_loop(users, items))
    print(f"{rows} rows, k={K}: {mask.sum()} rows stay, {len(report.rounds)} rounds")
    print(f"ours {ours:.3f} CPU-s, polars loop {theirs:.3f} CPU-s, ratio {theirs / ours:.1f}")


if __name__ == "__main__":
    main()
