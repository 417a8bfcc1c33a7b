"""From a product by tiles to its launches: the loops over tiles, those over a tile as each array has it."""

from __future__ import annotations

import math

from gpueinsum.backends.cuda.geometry import nest_columns
from gpueinsum.backends.cuda.program import Launch
from gpueinsum.backends.cuda.source import Kernel, accumulator, job, nest
from gpueinsum.backends.cuda.sums import Sum, add_chunks
from gpueinsum.language.strides import Axis
from gpueinsum.schedule.orders import GROUP
from gpueinsum.schedule.tiled import BATCH, SUMMED, Cut, Tiled
from gpueinsum.schedule.units import WARP

# As in kernels/gather.cuh: the length of `beside`, what `access` may be.
_MOST_BESIDE = 4
_SINGLE, _SPREAD, _WHOLE = range(3)


def multiply(tiled: Tiled, conjugated: int, outputs: int, processors: int, lacks: tuple[str, ...] = ()) -> Sum:
    """The launches that write so many outputs; bits say which arrays enter as conjugates, that of the rows first.

    The device `lacks` some ways to compute, as a profile lists them.
    """
    first = contract(tiled, conjugated, outputs, processors)
    if tiled.chunks == 1:
        return Sum(first)
    dtype, wide = tiled.unit.dtype, accumulator(tiled.unit.dtype)
    return add_chunks(first, tiled.chunks, outputs, wide, dtype, processors, lacks)


def contract(tiled: Tiled, conjugated: int, outputs: int, processors: int) -> Launch:
    """The launch that writes `tiled.chunks` results of so many outputs, one after the other."""
    cuts, orders, listed = list[Cut](), list[int](), 0
    for along in tiled.axes:
        cuts += [cut for cut in along if cut.tiles > 1]
    loops = [Axis(cut.tiles, cut.strides) for cut in cuts]
    around, results = len(cuts), len(cuts) - sum(cut.tiles > 1 for cut in tiled.axes[SUMMED])
    last = [cut.tiles * cut.extent - cut.size if place < results else cut.is_ragged for place, cut in enumerate(cuts)]
    rest = next((cut.size % cut.extent for cut in tiled.axes[SUMMED] if cut.is_ragged), 0)
    unused = [0] * (WARP - around)
    for order in tiled.orders:
        each = -(-order.each // GROUP) * GROUP
        first, end = len(loops), len(loops) + len(order.loops)
        loops += order.loops
        pitch = each | 1  # so that threads that read their lines read from different banks
        orders += [order.columns, order.lines, order.step, each, first, end - order.inner, end, listed, pitch]
        beside = [place * tiled.unit.item for place in order.beside]
        access = _WHOLE if order.is_whole else _SPREAD if order.pack else _SINGLE
        orders += [access, *beside, *[0] * (_MOST_BESIDE - len(beside))]
        listed += order.step * pitch
    own, unit = tiled.share, tiled.unit
    steps, slots = tiled.tiles[SUMMED], math.prod(tiled.tiles[:SUMMED])
    numbers = [around, results, *[cut.extent for cut in cuts], *unused]
    numbers += [*last, *unused, steps, rest, *orders]
    numbers += [tiled.tile[SUMMED], own.lanes, own.down * own.across * tiled.tile[BATCH], own.across, own.down]
    numbers += [own.rows // unit.width, own.columns]
    numbers += [*tiled.pitches, *tiled.begins, int(tiled.keeps)]
    numbers += [slots, -(-steps // tiled.chunks), tiled.chunks, outputs, conjugated]
    kernel = Kernel(unit.kernel, unit.dtype, unit.dtype if tiled.chunks == 1 else accumulator(unit.dtype), 2)
    nested = nest(*nest_columns(loops, 3), [], [[]] * 3)
    blocks = min(slots * tiled.chunks, processors * unit.blocks)
    return Launch(kernel, blocks, job(nested, *map(int, numbers)), reads_packs=tiled.reads_packs)
