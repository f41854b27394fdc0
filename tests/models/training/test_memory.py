"""What a training holds of the main memory."""

import subprocess
import sys

MB = 10**6
# Blocks of 1 MB that fill the heap, every other one freed: none can leave by itself, for the last one stays.
HELD = """
import ctypes
from pathlib import Path
import torch
from models.training.runtime import Runtime

def held():
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096

libc = ctypes.CDLL(None)
assert libc.mallopt(-3, 32 * 2**20) == 1  # M_MMAP_THRESHOLD: blocks of this size come from the heap
blocks = [torch.ones(10**6, dtype=torch.uint8) for _ in range(200)]
blocks = blocks[1::2]
print(held())
Runtime(torch.device("cpu")).give_back_memory()
print(held())
"""


def test_freed_memory_between_blocks_in_use_is_given_back():
    done = subprocess.run([sys.executable, "-c", HELD], capture_output=True, text=True, check=True)
    before, after = (int(line) for line in done.stdout.split())
    assert 90 * MB < before - after < 110 * MB
