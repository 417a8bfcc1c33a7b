"""cuBLAS and our kernels run plans."""
