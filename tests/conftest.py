"""What holds for all tests."""

import os

# Models of test size gain nothing from more threads, and several processes with many threads each slow one another.
os.environ.setdefault("OMP_NUM_THREADS", "1")
