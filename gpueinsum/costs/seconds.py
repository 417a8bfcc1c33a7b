"""How long one pass over memory and one batch of products take: the model whose constants a device profile holds."""

from __future__ import annotations

from gpueinsum.costs.profile import Profile

# numpy's calls are of three speeds: 3 x 3, float64, medians: np.dot 0.55 us, np.matmul 1.42 us, np.einsum's loop over
# two arrays 1.80 us and over three 2.71 us. In launches of a profile, which are np.matmul's:
_ONE_PRODUCT, _MANY_ARRAYS = 0.4, 1.5
# Results of one multiprocessor's tile, and how much it sums for each before cuBLAS shares the sum with others: its
# smaller tiles are 64 x 64. By reasoning; not measured yet.
_TILE, _SPLIT = 64 * 64, 1024


def pass_seconds(
    profile: Profile, bytes_moved: float, flops: float = 0.0, permuted: float = 0.0, arrays: int = 1
) -> float:
    """One pass: the longer of reading and writing so many bytes and of computing so many operations, and its launch.

    So many bytes of those moved are `permuted`: they lie along another axis than the one that the pass goes along. It
    reads so many `arrays`.
    """
    rate = profile.bytes_per_second * (profile.cached if bytes_moved <= profile.cache_bytes else 1.0)
    launches = _MANY_ARRAYS if profile.kind == "cpu" and arrays > 2 else 1.0
    moving = (bytes_moved - permuted + permuted / profile.permuted) / rate
    return launches * profile.launch + max(moving, flops / profile.loop_flops_per_second)


def product_seconds(
    profile: Profile, dtype: str, batch: int, rows: int, columns: int, summed: int, bytes_moved: float
) -> float:
    """One launch that makes `batch` products of rows x summed and summed x columns, which move so many bytes.

    However few its results, on a GPU it takes as long as a multiprocessor takes for its tile of them.
    """
    each = 8.0 if dtype.startswith("complex") else 2.0
    flops = each * batch * rows * columns * summed
    launch = profile.launch * (_ONE_PRODUCT if profile.kind == "cpu" and batch == 1 else 1.0)
    if not flops:
        return launch
    rate = profile.rate(dtype)
    if rate is None:
        return launch + flops / profile.loop_flops_per_second
    share = rows / (rows + rate.rows) * columns / (columns + rate.columns) * summed / (summed + rate.summed)
    bytes_rate = profile.bytes_per_second * (profile.cached if bytes_moved <= profile.cache_bytes else 1.0)
    busy = max(batch * profile.each, flops / (rate.flops_per_second * share))
    if profile.kind == "cuda":
        alone = each * _TILE * (min(summed, _SPLIT) + rate.summed)
        busy = max(busy, alone / (rate.flops_per_second / profile.processors))
    return launch + max(busy, bytes_moved / bytes_rate)
