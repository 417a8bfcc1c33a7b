"""How long one pass over memory and one batch of products take: the model whose constants a device profile holds."""

from __future__ import annotations

from gpueinsum.profile import Profile


def pass_seconds(profile: Profile, bytes_moved: float, flops: float = 0.0, permuted: bool = False) -> float:
    """One pass: the longer of reading and writing so many bytes and of computing so many operations, and its launch.

    A pass is `permuted` if it reads along another axis than it writes.
    """
    rate = profile.bytes_per_second
    if bytes_moved <= profile.cache_bytes:
        rate *= profile.cached
    if permuted:
        rate *= profile.permuted
    return profile.launch + max(bytes_moved / rate, flops / profile.loop_flops_per_second)


def product_seconds(
    profile: Profile, dtype: str, batch: int, rows: int, columns: int, summed: int, bytes_moved: float
) -> float:
    """One launch that makes `batch` products of rows x summed and summed x columns, which move so many bytes."""
    flops = (8.0 if dtype.startswith("complex") else 2.0) * batch * rows * columns * summed
    rate = profile.rate(dtype)
    if rate is None:
        return profile.launch + flops / profile.loop_flops_per_second
    share = rows / (rows + rate.rows) * columns / (columns + rate.columns) * summed / (summed + rate.summed)
    bytes_rate = profile.bytes_per_second * (profile.cached if bytes_moved <= profile.cache_bytes else 1.0)
    busy = max(batch * profile.each, flops / (rate.flops_per_second * share) if flops else 0.0)
    return profile.launch + max(busy, bytes_moved / bytes_rate)
