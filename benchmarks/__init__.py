"""What gpueinsum's speed is measured on, how, and against whom: `python -m benchmarks`."""

import os

# OpenBLAS's threads spin for 2^26 cycles after a product, 26 ms on a core that the next library needs for its own: here
# for 2^20. It is read once, when numpy is imported.
os.environ.setdefault("OPENBLAS_THREAD_TIMEOUT", "20")
