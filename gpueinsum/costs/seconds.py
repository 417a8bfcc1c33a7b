"""How long one pass over memory and one batch of products take: the model whose constants a device profile holds."""

from __future__ import annotations

import math

from gpueinsum.costs.counts import item_bytes, multiply_add_flops, product_flops
from gpueinsum.costs.profile import Profile

# numpy's calls are of three speeds: 3 x 3, float64, medians: np.dot 0.55 us, np.matmul 1.42 us, np.einsum's loop over
# two arrays 1.80 us and over three 2.71 us. In launches of a profile, which are np.matmul's:
_ONE_PRODUCT, _MANY_ARRAYS = 0.4, 1.5
# Of its rate that a CPU reaches, however narrow a product: 2 x 2 times 2 x 65536 took 19 us in float32, 49 in float64,
# 71 in complex64, which are 0.13, 0.11 and 0.13 of it (one core of an AMD EPYC), 2 x 65536 times 65536 x 2 0.03 to 0.1.
_LEAST_SHARE = 0.05
# Results of one multiprocessor's tile, and how much it sums for each before cuBLAS shares the sum with others: its
# smaller tiles are 64 x 64. By reasoning; not measured yet.
_TILE, _SPLIT = 64 * 64, 1024
# Arrays of fewer elements count as if every product took them as they lie: to find out would take longer than to copy.
SMALL = 1 << 15
# Of a product by tiles, as schedule/tiling.py prices gates and large products: the time of so many products of float32
# for each element that is read or written, and for each product of real numbers. Seconds until it is under way: 4,000
# to 12,000 cycles in a cycle-level simulator.
_GATHER, _MULTIPLY, TILES_START = 25, 2.5, 4e-6


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
    profile: Profile,
    dtype: str,
    batch: int,
    rows: int,
    columns: int,
    summed: int,
    bytes_moved: float,
    precision: str | None = None,
) -> float:
    """One launch that makes `batch` products of rows x summed and summed x columns, which move so many bytes.

    However few its results, on a GPU it takes as long as a multiprocessor takes for its tile of them. On a CPU a matrix
    times a vector waits for memory: 1000 x 1000, float64, took 84 us, predicted 84 by its bytes, 236 by its operations.
    """
    each = multiply_add_flops(dtype)
    flops = float(each) * batch * rows * columns * summed
    launch = profile.launch * (_ONE_PRODUCT if profile.kind == "cpu" and batch == 1 else 1.0)
    if not flops:
        return launch
    rate = profile.rate(dtype, precision)
    if rate is None:
        return launch + flops / profile.loop_flops_per_second
    share = rows / (rows + rate.rows) * columns / (columns + rate.columns) * summed / (summed + rate.summed)
    share = max(share, _LEAST_SHARE) if profile.kind == "cpu" else share
    bytes_rate = profile.bytes_per_second * (profile.cached if bytes_moved <= profile.cache_bytes else 1.0)
    busy = max(batch * profile.each, flops / (rate.flops_per_second * share))
    if profile.kind == "cpu" and min(rows, columns) == 1:
        read = item_bytes(dtype) * batch * rows * columns * summed
        busy = max(batch * profile.each, read / bytes_rate)
    if profile.kind == "cuda":
        alone = each * _TILE * (min(summed, _SPLIT) + rate.summed)
        busy = max(busy, alone / (rate.flops_per_second / profile.processors))
    return launch + max(busy, bytes_moved / bytes_rate)


def lines_conflict(stride: int, number: int) -> bool:
    """Whether so many lines of memory, so many bytes apart, fall into so few sets of a CPU's cache that it loses them.

    Of a second cache of 1 MiB with 16 lines in each of 1024 sets, half of which other arrays may take.
    """
    return number > 8 * min(1024, (1 << 16) // max(1, math.gcd(stride, 1 << 16)))


def floor_seconds(
    profile: Profile, dtype: str, bytes_moved: float, flops: float, precision: str | None = None
) -> float:
    """What no way to run a step takes less than: its bytes or its operations at the full rate, or a launch.

    On a GPU integers are multiplied at half the rate of float32, 4 instructions for each of 64 bits.
    """
    rate = profile.rate(dtype, precision)
    per_second = rate.flops_per_second if rate else profile.loop_flops_per_second
    if rate is None and profile.kind == "cuda" and (whole := profile.rate("float32")):
        per_second = whole.flops_per_second / (8 if item_bytes(dtype) == 8 else 2)
    try:
        return max(profile.launch, bytes_moved / profile.bytes_per_second, flops / per_second)
    except OverflowError:  # more than a float can tell
        return math.inf


def pair_seconds(profile: Profile, dtype: str, batch: int, rows: int, columns: int, summed: int) -> float:
    """Of a pair by its sizes alone, of sides that lie as it wants them: a product, or a pass if that is faster.

    What has a single row, column or element to sum may be either; what is of a dtype for which the device has no
    library is a pass. On a GPU a product of large arrays may be one by tiles.
    """
    moved = item_bytes(dtype) * batch * (rows * summed + summed * columns + rows * columns)
    results = batch * rows * columns
    by_pass = pass_seconds(profile, moved, product_flops(dtype, results * summed, results), arrays=2)
    if summed == 1 or profile.rate(dtype) is None:
        return by_pass
    by_product = product_seconds(profile, dtype, batch, rows, columns, summed, moved)
    if min(rows, columns) == 1:
        return min(by_product, by_pass)
    if profile.kind == "cpu" or moved < SMALL * item_bytes(dtype):
        return by_product
    return min(by_product, tiled_seconds(profile, dtype, batch, rows, columns, summed))


def tiled_seconds(profile: Profile, dtype: str, batch: int, rows: int, columns: int, summed: int) -> float:
    """Of a product by tiles whose sizes fill them.

    It is for what cuBLAS is slow at. cuBLAS computes whole tiles of rows, columns and sums, for each product of a batch
    anew. Of tall and skinny matrices it reaches a part of memory's rate (Ernst et al., "Performance engineering for
    real and complex tall & skinny matrix multiplication kernels on GPUs", 2020, on a V100).
    """
    elements = batch * (rows * summed + summed * columns + rows * columns)
    products = batch * rows * columns * summed * multiply_add_flops(dtype) // 2
    busy = _GATHER * elements + _MULTIPLY * products
    rate = profile.rate("float32")
    begun = rate.flops_per_second / 2 if rate else profile.loop_flops_per_second
    moving = elements * item_bytes(dtype) / profile.bytes_per_second
    return profile.launch + TILES_START + max(moving, busy / begun)
