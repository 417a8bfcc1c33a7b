"""What runs plans: numpy on the CPU, CuPy on CUDA."""
