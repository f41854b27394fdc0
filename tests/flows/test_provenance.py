"""What a run records of itself."""

import subprocess
import sys

MB = 10**6
PEAKS = """
import numpy as np
from flows.jobs.provenance import peak_memory, restart_peak_memory

restart_peak_memory("cpu")  # imports what it needs
big = np.ones(300 * 10**6, dtype=np.uint8)
print(peak_memory("cpu"))
del big
restart_peak_memory("cpu")
print(peak_memory("cpu"))
small = np.ones(100 * 10**6, dtype=np.uint8)
del small
print(peak_memory("cpu"))
"""


def test_the_peak_begins_anew_for_every_run():
    """300 MB that were given back before the restart do not count; 100 MB that were given back after it do.

    In a process of its own: here, what other tests left may be given back at any moment.
    """
    done = subprocess.run([sys.executable, "-c", PEAKS], capture_output=True, text=True, check=True)
    high, start, peak = (int(line) for line in done.stdout.split())
    assert high - start > 200 * MB
    assert 80 * MB < peak - start < 150 * MB
