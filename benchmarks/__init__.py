"""What gpueinsum's speed is measured on, how, and against whom: `python -m benchmarks`."""

import os

# OpenBLAS's threads spin for 2^26 cycles after a product, 26 ms on a core that the next library needs for its own: here
# for 2^20. It is read once, when numpy is imported.
os.environ.setdefault("OPENBLAS_THREAD_TIMEOUT", "20")
# PyTorch's threads spin for 0.1 s and more, in which a loop of numpy's on the other of two cores takes 1.5 to 2 times
# its time: here for a millisecond. Read once as well, when PyTorch is imported.
os.environ.setdefault("GOMP_SPINCOUNT", "10000")
