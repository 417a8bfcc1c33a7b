"""How well kernels use memory, by the sectors that their warps touch; first, that the count finds what is wasted."""

import numpy as np
import pytest
from simulated import SimulatedRuntime, sectors

from gpueinsum.backends.cuda.source import Kernel, job, nest
from gpueinsum.backends.cuda.sums import Shared, sum_job
from gpueinsum.language.strides import Axis

SUM = Kernel("reduce", "float32", "float32")
COPY = Kernel("multiply", "float32", "float32")


def counted(kernel, argument, elements, outputs):
    """The loads and the stores of one launch of 256 threads, on float32 arrays of so many elements."""
    device = SimulatedRuntime()
    source, out = device.empty((elements,), np.float32), device.empty((outputs,), np.float32)
    source[...] = 1
    with sectors.count(device) as launches:
        device.launch(kernel, 1, 256, argument, device.pointer(source), device.pointer(out))
    [(launched, loads, stores)] = launches
    assert launched == kernel
    return loads, stores


def sum_of(kept, summed):
    """The argument of a sum along one loop over results and one over terms, each given as (size, stride)."""
    return sum_job(
        Shared("reduce", [Axis(kept[0], (kept[1],))], [Axis(summed[0], (summed[1],))], 1, 1, 1, (0, -1)), 0, 1
    )


def test_neighbours_fill_the_sectors_that_they_touch():
    loads, stores = counted(SUM, sum_of((256, 1), (8, 256)), 2048, 256)
    assert loads == (8 * 32, 8 * 32, 8 * 32, 8 * 32)
    assert stores == (32, 32, 32, 32)


@pytest.mark.parametrize(("stride", "efficiency"), [(2, 1 / 2), (8, 1 / 8), (64, 1 / 8)])
def test_a_strided_read_wastes_most_of_its_sectors(stride, efficiency):
    loads, stores = counted(SUM, sum_of((256, stride), (3, 256 * stride)), 768 * stride, 256)
    assert loads.efficiency == loads.efficiency_behind_cache == efficiency
    assert stores.efficiency == 1


def test_a_cache_keeps_what_the_same_block_reads_next():
    loads, _ = counted(SUM, sum_of((256, 8), (8, 1)), 2048, 256)
    assert loads.efficiency == 1 / 8
    assert loads.efficiency_behind_cache == 1


def test_a_cache_does_not_keep_what_is_read_too_much_later():
    summed = [Axis(8, (1,)), Axis(8, (2048,))]  # 2048 sectors are read before any is read again
    loads, _ = counted(SUM, sum_job(Shared("reduce", [Axis(256, (8,))], summed, 1, 1, 1, (0, -1)), 0, 1), 16384, 256)
    assert loads.efficiency == loads.efficiency_behind_cache == 1 / 8


def test_a_pack_is_one_access():
    loads, stores = counted(COPY, job(nest([64], [[4]], [], [[]]), 64, 0, 1, 1), 256, 256)
    assert loads == stores == (32, 32, 32, 32)


def test_a_misaligned_row_touches_one_sector_more():
    loads, _ = counted(SUM, sum_of((31, 1), (8, 33)), 264, 31)
    assert loads[:2] == (8 * 4, 8 * 4 + 6)  # 124 bytes fill 4 sectors; they begin at each place of one
