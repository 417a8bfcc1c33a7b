"""What gpueinsum's speed is measured on, how, and against whom: `python -m benchmarks`."""
