"""What a run records of itself."""

import numpy as np

from flows.jobs.provenance import peak_memory, restart_peak_memory

MB = 10**6


def test_the_peak_begins_anew_for_every_run():
    """300 MB that were given back before the restart do not count; 100 MB that were given back after it do."""
    big = np.ones(300 * MB, dtype=np.uint8)
    high = peak_memory("cpu")
    del big
    restart_peak_memory("cpu")
    start = peak_memory("cpu")
    small = np.ones(100 * MB, dtype=np.uint8)
    del small
    assert high - start > 200 * MB
    assert 80 * MB < peak_memory("cpu") - start < 150 * MB
