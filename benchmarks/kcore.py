"""k-core to the fixpoint: ours against the usual loops of group counts and a compiled queue, on power-law graphs.

``python -m benchmarks.kcore [rows]``; default 1,000,000. CPU seconds, median of 3, and the ratios within this run; then
the worst case of round-based loops, a path of a million rows. The queue needs numba (``pip install numba``), which the
project does not; without it, that column is left out.
"""

import importlib
import statistics
import sys
import time
from collections.abc import Callable

import numpy as np
import pandas as pd
import polars as pl

from datasets_spec.kcore import k_core

K = 5
REPEATS = 3
PATH = 1_000_000

Method = Callable[[np.ndarray, np.ndarray], np.ndarray]


def graph(rows: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Rows per user by a Pareto law, items by a Zipf law, in random order."""
    generator = np.random.default_rng(seed)
    sizes = np.minimum(generator.pareto(1.05, rows // 4) + 1, 100_000).astype(np.int64)
    users = np.resize(np.repeat(generator.permutation(len(sizes)), sizes), rows)
    weights = np.cumsum(np.arange(1, rows // 8 + 1) ** -1.05)
    items = generator.permutation(len(weights))[np.searchsorted(weights / weights[-1], generator.random(rows))]
    order = generator.permutation(rows)
    return users[order], items[order]


def ours(users: np.ndarray, items: np.ndarray) -> np.ndarray:
    """The function under test."""
    return k_core(users, items, k_user=K, k_item=K)[0]


def polars_loop(users: np.ndarray, items: np.ndarray) -> np.ndarray:
    """Drop rows of light users and items until nothing changes."""
    frame = pl.DataFrame({"user": users, "item": items}).with_row_index()
    while True:
        kept = frame.filter(pl.len().over("user") >= K).filter(pl.len().over("item") >= K)
        if len(kept) == len(frame):
            return _mask(len(users), kept["index"].to_numpy())
        frame = kept


def pandas_loop(users: np.ndarray, items: np.ndarray) -> np.ndarray:
    """The same with ``groupby().transform("size")``."""
    frame = pd.DataFrame({"user": users, "item": items})
    while True:
        kept = frame[frame.groupby("user")["item"].transform("size") >= K]
        kept = kept[kept.groupby("item")["user"].transform("size") >= K]
        if len(kept) == len(frame):
            return _mask(len(users), kept.index.to_numpy())
        frame = kept


def _mask(rows: int, kept: np.ndarray) -> np.ndarray:
    mask = np.zeros(rows, dtype=bool)
    mask[kept] = True
    return mask


def numba_queue() -> Method | None:
    """A queue of nodes below their bound over an index of the rows of each, compiled; None without numba."""
    try:
        jit = importlib.import_module("numba").njit
    except ImportError:
        return None
    index, queue = jit(_index), jit(_queue)
    return lambda users, items: queue(index, users, items, int(users.max()) + 1, int(items.max()) + 1)


def _index(of_row, nodes):
    starts = np.zeros(nodes + 1, np.int64)
    for node in of_row:
        starts[node + 1] += 1
    starts = np.cumsum(starts)
    place = starts[:-1].copy()
    rows = np.empty(len(of_row), np.int32)
    for row in range(len(of_row)):
        rows[place[of_row[row]]] = row
        place[of_row[row]] += 1
    return starts, rows


def _queue(index, user, item, n_users, n_items):
    there = np.ones(len(user), np.bool_)
    user_starts, user_rows = index(user, n_users)
    item_starts, item_rows = index(item, n_items)
    degree = np.concatenate((np.diff(user_starts), np.diff(item_starts)))
    queue = np.empty(n_users + n_items, np.int64)
    light = np.flatnonzero(degree < K)
    head, tail = 0, len(light)
    queue[:tail] = light
    while head < tail:
        node = queue[head]
        head += 1
        if node < n_users:
            rows, partner, shift = user_rows[user_starts[node] : user_starts[node + 1]], item, n_users
        else:
            own = node - n_users
            rows, partner, shift = item_rows[item_starts[own] : item_starts[own + 1]], user, 0
        for row in rows:
            if there[row]:
                there[row] = False
                near = partner[row] + shift
                degree[near] -= 1
                if degree[near] == K - 1:
                    queue[tail] = near
                    tail += 1
    return there


def cpu_seconds(work: Callable[[], object]) -> float:
    """Median CPU seconds of the process over the repeats."""
    seconds = []
    for _ in range(REPEATS):
        started = time.process_time()
        work()
        seconds.append(time.process_time() - started)
    return statistics.median(seconds)


def main() -> None:
    """Print times and ratios; all methods must agree on every row."""
    rows = int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000
    users, items = graph(rows)
    methods: dict[str, Method] = {"ours": ours, "pandas loop": pandas_loop, "polars loop": polars_loop}
    queue = numba_queue()
    if queue is None:
        print("without numba: pip install numba to compare with a compiled queue")
    else:
        methods["numba queue"] = queue
    expected = ours(users, items)
    print(f"{rows:,} rows, k={K}: {expected.sum():,} stay")
    seconds = {}
    for name, method in methods.items():
        if not np.array_equal(method(users, items), expected):
            raise SystemExit(f"{name} disagrees")
        seconds[name] = cpu_seconds(lambda method=method: method(users, items))
        print(f"{name:<12} {seconds[name]:8.3f} CPU-s   {seconds[name] / seconds['ours']:6.2f} × ours", flush=True)
    path = np.arange(PATH)
    spent = cpu_seconds(lambda: k_core((path + 1) // 2, path // 2, k_user=2, k_item=2))
    print(f"a path of {PATH:,} rows, k=2: {spent:.2f} CPU-s")


if __name__ == "__main__":
    main()
