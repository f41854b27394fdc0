"""The whole of ``prepare`` by size: CPU seconds, wall time, peak memory, from a Parquet file to the written tables.

``python -m benchmarks.prepare [rows …]``; default 1,000,000 and 10,000,000. Each size runs in a process of its own:
read Parquet (integer ids, seconds), remove duplicates, 5-core, leave-one-out, digests, write. The input, a power law
over users and items, is made before, piece by piece, and not measured. 100,000,000 rows need about 6 GB of disk in
the temporary folder (``TMPDIR``).
"""

import math
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from datasets_spec.dataset import PreparedDataset

SIZES = (1_000_000, 10_000_000)
_PIECE = 5_000_000
_RUN = """
import sys
from pathlib import Path
from datasets_spec.prepare import prepare
prepare("custom-bench", root=Path(sys.argv[1]), source=sys.argv[2])
peak = next(line for line in open("/proc/self/status") if line.startswith("VmHWM"))
print(int(peak.split()[1]) / 1e6)
"""


def write_rows(path: Path, rows: int) -> None:
    """Users by a Pareto law, items by a Zipf law, days at random; about 2 % of the rows are there twice."""
    generator = np.random.default_rng(0)
    n_users, n_items = rows // 8, rows // 50
    names = {"user": generator.permutation(n_users), "item": generator.permutation(n_items)}
    schema = pa.schema({"user_id": pa.int64(), "item_id": pa.int64(), "timestamp": pa.int64()})
    with pq.ParquetWriter(path, schema) as writer:
        for start in range(0, rows, _PIECE):
            size = min(_PIECE, rows - start)
            users = names["user"][np.minimum(generator.pareto(1.05, size) * n_users / 40, n_users - 1).astype(np.int64)]
            items = names["item"][np.minimum(generator.pareto(0.9, size) * n_items / 80, n_items - 1).astype(np.int64)]
            times = 1_500_000_000 + generator.integers(0, 10**8, size)
            twice = size // 50
            for column in (users, items):
                column[:twice] = column[-twice:]
            writer.write_table(pa.table([users, items, times], schema=schema))


def measure(folder: Path, rows: int) -> tuple[float, float, float, PreparedDataset]:
    """CPU seconds, wall seconds and peak gigabytes of one run, and what it made."""
    source = folder / "source"
    source.mkdir()
    write_rows(source / "interactions.parquet", rows)
    before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    command = [sys.executable, "-c", _RUN, str(folder), str(source)]
    peak = float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    after, wall = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter() - started
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return cpu, wall, peak, PreparedDataset.open(folder / "prepared" / "custom-bench")


def main() -> None:
    """Print a line for each size, and how CPU time grows from the first to the last."""
    sizes = [int(size) for size in sys.argv[1:]] or list(SIZES)
    seconds: list[float] = []
    for rows in sizes:
        with tempfile.TemporaryDirectory() as folder:
            cpu, wall, peak, made = measure(Path(folder), rows)
        seconds.append(cpu)
        kept = made.manifest["stats"]["interactions"]
        print(f"{rows:>11,} rows: {cpu:7.1f} CPU-s {wall:7.1f} s {peak:6.2f} GB peak; {kept:,} rows stay", flush=True)
    if len(sizes) > 1:
        exponent = math.log(seconds[-1] / seconds[0]) / math.log(sizes[-1] / sizes[0])
        print(f"CPU time grows as rows^{exponent:.2f}")


if __name__ == "__main__":
    main()
