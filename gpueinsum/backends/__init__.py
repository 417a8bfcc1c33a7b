"""What runs a plan: numpy on the CPU, CuPy on CUDA."""
