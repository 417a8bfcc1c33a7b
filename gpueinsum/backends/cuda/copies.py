"""From strided arrays to the launches of copies, products, sums of arrays and diagonals."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache

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
from gpueinsum.backends.cuda.source import Kernel, job, nest
from gpueinsum.backends.cuda.tiles import permute, transpose
from gpueinsum.language.plan import HALVES
from gpueinsum.language.strides import Axis, axes, fuse, label_strides, points
from gpueinsum.language.subscripts import Label, Term
from gpueinsum.schedule.gemm import Product


def product(
    sources: tuple[Source, ...],
    out: Term,
    size: Mapping[Label, int],
    dtype: str,
    processors: int,
    lacks: tuple[str, ...] = (),
) -> Launch:
    """A product with nothing to sum, of one array a copy; by tiles where that reads across the result.

    Halves are copied as integers: nothing is rounded.
    """
    if len(sources) == 1:
        [source], dtype = sources, "uint16" if dtype in HALVES else dtype
        for by_tiles in (transpose, permute):
            tiled = by_tiles(source, out, size, dtype, processors)
            if tiled is not None and f"kernel {tiled.kernel.name}" not in lacks:
                return tiled
    return _map("multiply", sources, out, size, dtype, processors)


def _map(
    name: str, sources: tuple[Source, ...], out: Term, size: Mapping[Label, int], dtype: str, processors: int
) -> Launch:
    """A kernel that makes each element of the result from one element of each source."""
    walked = [label_strides(source.term, source.strides) for source in sources]
    kept, outputs = fuse(axes(out, size, *walked)), points(out, size)
    packed, packs = in_packs(kept, [], dtype), NO_PACKS
    if packed is not None:
        kept, packs, outputs = packed[0], (1, packed[1]), outputs // pack_width(dtype)
    loops = nest(*nest_columns(kept, len(sources)), [], [[] for _ in sources])
    numbers = outputs, conjugated_bits(sources), *packs
    return Launch(Kernel(name, dtype, dtype, len(sources)), blocks_for(outputs, processors), job(loops, *numbers))


@lru_cache(maxsize=4096)
def add(sources: tuple[Source, ...], out: Term, sizes: Sizes, dtype: str, processors: int) -> Launch:
    """`out[...] = the sum of the sources`, C-ordered; all are of the term."""
    return _map("add", sources, out, dict(sizes), dtype, processors)


def expand(
    term: Term, out: Term, strides: tuple[int, ...], size: Mapping[Label, int], dtype: str, processors: int
) -> Launch:
    """`term->out` where the result repeats or gains labels, C-ordered."""
    source, apart = label_strides(term, strides), _apart(out, size)
    walked = [source.pop(label, 0) for label in out]  # along the first of each label's loops
    strided = zip(out, zip(walked, apart, strict=True), strict=True)
    loops = fuse([Axis(size[label], both) for label, both in strided])
    last = loops.pop() if loops else Axis(1, (0, 0))
    is_packed = last.size % pack_width(dtype) == 0
    width = pack_width(dtype) if is_packed else 1
    packs = Axis(last.size // width, tuple([stride * width for stride in last.strides]))
    nested, outputs = nest(*nest_columns([*loops, packs], 2), [], [[], []]), points(out, size) // width
    numbers = outputs, 0, int(is_packed), -1, *last.strides
    return Launch(Kernel("expand", dtype, dtype), blocks_for(outputs, processors), job(nested, *numbers))


def _apart(term: Term, size: Mapping[Label, int]) -> list[int]:
    """Strides of a number that is 0 only where all loops of each label stand at the same place.

    It has a digit for every loop that repeats a label: how far that loop stands from the label's first, which is less
    than the label's size either way. So no other digits make up for one, and it is less than the points of the term.
    """
    strides, weight = [0] * len(term), 1
    for place, label in enumerate(term):
        first = term.index(label)
        if first < place:
            strides[first] -= weight
            strides[place] += weight
            weight *= size[label]
    return strides


def pointers(product: Product, item: int, processors: int) -> Launch:
    """Three arrays of pointers, one behind the other: to the matrices of lhs, of rhs and of out of a product."""
    loops = [Axis(axis.size, tuple([stride * item for stride in axis.strides])) for axis in product.numbered]
    numbers = product.number, product.each, product.slots, product.calls * product.slots
    matrices = job(nest(*nest_columns(loops, 3), [], [[]] * 3), *numbers)
    return Launch(Kernel("pointers", "uint8", "uint64", 3), blocks_for(product.number, processors), matrices)
