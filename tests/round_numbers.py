"""A GPU whose rates are round numbers, so that predictions can be made by hand."""

from gpueinsum.costs.profile import Profile, Rate

ROUND = Profile(
    **{"name": "round", "kind": "cuda", "device": "round numbers", "rates": (("float32", Rate(1e9, 1, 1, 1)),)},
    **{"bytes_per_second": 1e6, "permuted": 0.5, "cache_bytes": 1000, "cached": 10.0},
    **{"loop_flops_per_second": 1e6, "launch": 1.0, "each": 0.25, "memory_bytes": 10**9, "processors": 9},
)  # fmt: skip
