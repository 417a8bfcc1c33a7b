"""From strided arrays to the launches of a sum: which kernel, and how threads share its outputs and terms."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

from gpueinsum.backends.cuda.copies import product
from gpueinsum.backends.cuda.geometry import (
    NO_PACKS,
    Sizes,
    Source,
    blocks_for,
    conjugated_bits,
    in_packs,
    nest_columns,
    pack_width,
)
from gpueinsum.backends.cuda.program import Launch
from gpueinsum.backends.cuda.source import THREADS, Kernel, Struct, accumulator, job, nest, walk
from gpueinsum.costs.counts import item_bytes
from gpueinsum.language.strides import Axis, axes, fuse, label_strides, points
from gpueinsum.language.subscripts import Term

# Threads by which sums fill a multiprocessor: blocks in whole turns, whether it holds 2 or 3 of them at once, as of the
# kernels' RESIDENT.
_BUSY = 6 * THREADS
_WARP = 32
_LINE, _SECTOR = 128, 32  # bytes of memory that belong together
# Of a sum along rows, at the least. In a cycle-level simulator, where a copy makes 14.2 bytes a cycle: 1024 neighbours
# of float32 5.3 by 256 lanes, 13.1 by 8; 151 neighbours, no packs, 3.7 by 32 lanes, 5.6 by 8, in shared memory 5.2.
_LANES = 8
_MANY_TERMS = 32  # that a thread has at the least where a sum is cut
# A row of fewer terms is short, of packs or of single elements. The latter begin anywhere in a sector, so that 8 lanes
# of 39 terms of float32 touch 1.85 times the sectors that they use, rows in shared memory 1.2 times.
_SHORT = {True: 32, False: 128}
_AT_ONCE = 4  # terms that a thread reads at once, as in kernels/sums.cuh


class Sum(NamedTuple):
    """The launches of a sum.

    Where threads alone would not fill the device, the first writes partial sums into so many bytes of `scratch`, and
    the second adds them up.
    """

    first: Launch
    second: Launch | None = None
    scratch: int = 0


@lru_cache(maxsize=4096)
def sum_products(
    sources: tuple[Source, ...], out: Term, sizes: Sizes, dtype: str, processors: int, lacks: tuple[str, ...] = ()
) -> Sum:
    """`out[...] = sum of the product of the sources`, C-ordered, on so many multiprocessors; at least one element.

    The device `lacks` some ways to compute, as a profile lists them.
    """
    size = dict(sizes)
    outputs, terms = points(out, size), points((label for label in size if label not in out), size)
    if terms == 1:
        return Sum(product(sources, out, size, dtype, processors, lacks))
    walked = [label_strides(source.term, source.strides) for source in sources]
    # The largest array's neighbours lie along the innermost loop; a sum does not mind the order.
    largest = max(range(len(sources)), key=lambda number: points(walked[number], size))
    strides = walked[largest]
    summed = sorted((label for label in size if label not in out), key=lambda label: -abs(strides.get(label, 0)))
    kept, inner, wide = fuse(axes(out, size, *walked)), fuse(axes(summed, size, *walked)), accumulator(dtype)
    shared = _share(kept, inner, largest, dtype, processors, lacks)
    first = _launch(shared, dtype, dtype if shared.chunks == 1 else wide, conjugated_bits(sources), processors)
    if shared.chunks == 1:
        return Sum(first)
    return add_chunks(first, shared.chunks, outputs, wide, dtype, processors, lacks)


def add_chunks(
    first: Launch, chunks: int, outputs: int, wide: str, dtype: str, processors: int, lacks: tuple[str, ...]
) -> Sum:
    """The launch, and the one that adds up so many chunks of outputs that it writes, of the type `wide`."""
    kept, inner = fuse([Axis(outputs, (1,))]), [Axis(chunks, (outputs,))]
    rest = _share(kept, inner, 0, wide, processors, lacks)._replace(chunks=1)
    return Sum(first, _launch(rest, wide, dtype, 0, processors), outputs * chunks * item_bytes(wide))


def zeros(outputs: int, dtype: str, processors: int) -> Launch:
    """A sum of no terms, which reads nothing."""
    nothing = Shared("reduce", [Axis(outputs, (0,))], [Axis(0, (0,))], 1, 1, 1, NO_PACKS)
    return _launch(nothing, dtype, dtype, 0, processors)


class Shared(NamedTuple):
    """A sum's loops, in packs if so, and how its work is shared among threads, as kernels/sums.cuh explains it."""

    kernel: str
    kept: list[Axis]
    summed: list[Axis]
    lanes: int
    beside: int
    chunks: int
    packs: tuple[int, int]  # whether packs are read, and by a bit per array which has neighbours in them

    @property
    def outputs(self) -> int:
        return _points(self.kept)

    @property
    def terms(self) -> int:
        return _points(self.summed)


def sum_job(shared: Shared, conjugated: int, arrays: int) -> Struct:
    """`struct SumOf<N>`."""
    summed = nest_columns(shared.summed, arrays)
    loops, steps = nest(*nest_columns(shared.kept, arrays), *summed), walk(*summed, shared.lanes)
    counts = shared.outputs, shared.terms, shared.lanes, shared.beside, shared.chunks
    return job(loops, steps, *counts, conjugated, *shared.packs)


def _launch(shared: Shared, source: str, result: str, conjugated: int, processors: int) -> Launch:
    arrays = len((*shared.kept, *shared.summed)[0].strides)
    if shared.kernel == "reduce_rows":
        threads = shared.outputs * shared.terms // _AT_ONCE
    else:
        at_once = THREADS // (shared.lanes * shared.beside) * shared.beside  # results of a block
        threads = -(-shared.outputs * shared.chunks // at_once) * THREADS
    kernel = Kernel(shared.kernel, source, result, arrays)
    return Launch(kernel, blocks_for(threads, processors), sum_job(shared, conjugated, arrays))


# ---------------------------------------------------------------- sharing


def _share(
    kept: list[Axis], summed: list[Axis], largest: int, dtype: str, processors: int, lacks: tuple[str, ...]
) -> Shared:
    """By the array that has the most elements: whether its neighbours lie along the sum or along the result."""
    if "kernel reduce_columns" in lacks or "kernel reduce_rows" in lacks:
        return _by_lanes(kept, summed, NO_PACKS, dtype, processors)
    along_sum, is_short = _lies_along_sum(kept, summed, largest), _points(summed) < _MANY_TERMS
    packed = in_packs(kept, summed, dtype) if is_short or not along_sum else None
    if packed is not None:
        return _by_columns(packed[0], summed, (1, packed[1]), dtype, processors)
    if not along_sum:
        return _by_columns(kept, summed, NO_PACKS, dtype, processors)
    packed = in_packs(summed, kept, dtype)
    if packed is not None:
        return _by_rows(kept, packed[0], (1, packed[1]), dtype, processors)
    return _by_rows(kept, summed, NO_PACKS, dtype, processors)


def _by_columns(kept: list[Axis], summed: list[Axis], packs: tuple[int, int], dtype: str, processors: int) -> Shared:
    """Neighbouring threads have neighbouring outputs; where these are few, a block reads several rows of them."""
    outputs, terms, across = _points(kept), _points(summed), kept[-1].size
    item = item_bytes(dtype) * (pack_width(dtype) if packs[0] else 1)
    beside = min(across, _WARP)
    wanted = max(_LINE // (item * across), processors * _BUSY // outputs)
    lanes = max(1, min(wanted, THREADS // beside, terms // _AT_ONCE))
    chunks = _chunks(outputs * lanes, terms // lanes, processors)
    return Shared("reduce_columns", kept, summed, lanes, beside if lanes > 1 else 1, chunks, packs)


def _by_rows(kept: list[Axis], summed: list[Axis], packs: tuple[int, int], dtype: str, processors: int) -> Shared:
    """Neighbouring threads have neighbouring terms; so few lanes of an output that each has several of them."""
    outputs, terms = _points(kept), _points(summed)
    if len(summed) == 1 < terms < _SHORT[bool(packs[0])] and outputs >= THREADS:
        return Shared("reduce_rows", kept, summed, 1, 1, 1, packs)
    return _by_lanes(kept, summed, packs, dtype, processors)


def _by_lanes(kept: list[Axis], summed: list[Axis], packs: tuple[int, int], dtype: str, processors: int) -> Shared:
    outputs, terms = _points(kept), _points(summed)
    item = item_bytes(dtype) * (pack_width(dtype) if packs[0] else 1)
    wanted = max(_LANES, _SECTOR // item, processors * _BUSY // outputs)
    lanes = 1 << max(1, min(wanted, THREADS, terms // _AT_ONCE)).bit_length() - 1  # a power of two
    return Shared("reduce", kept, summed, lanes, 1, _chunks(outputs * lanes, terms // lanes, processors), packs)


def _chunks(threads: int, terms: int, processors: int) -> int:
    """Into how many parts sums are cut to fill the device, where so many threads have so many terms each."""
    return max(1, min(processors * _BUSY // threads, terms // _MANY_TERMS))


def _lies_along_sum(kept: list[Axis], inner: list[Axis], array: int) -> bool:
    """Whether the array's neighbours lie along the sum alone; of overlapping windows they lie along the result, too."""
    return not inner or not kept or abs(kept[-1].strides[array]) != 1


def _points(loops: Sequence[Axis]) -> int:
    total = 1
    for loop in loops:
        total *= loop.size
    return total
