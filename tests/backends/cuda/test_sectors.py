"""How well kernels use memory, by the sectors that their warps touch; first, that the count finds what is wasted."""

import numpy as np
import pytest
from simulated import SimulatedRuntime, sectors

from benchmarks.suite import EINSUMS, GRADIENTS
from benchmarks.workloads import numpy_dtype
from gpueinsum.api.arguments import Options
from gpueinsum.api.dispatch import plan_for
from gpueinsum.backends.cuda.lower import assemble
from gpueinsum.backends.cuda.program import Address, Launch, Program, Span
from gpueinsum.backends.cuda.source import Kernel, job, nest
from gpueinsum.costs.profile import profile
from gpueinsum.planning.search import MANY_RUNS
from gpueinsum.schedule.schedule import schedule

SUM = Kernel("reduce", "float32", "float32")
COPY = Kernel("multiply", "float32", "float32")


def counted(kernel, argument, elements, outputs):
    """The loads and the stores of one launch of 256 threads, on float32 arrays of so many elements."""
    device = SimulatedRuntime()
    source, out = device.empty((elements,), np.float32), device.empty((outputs,), np.float32)
    source[...] = 1
    with sectors.count(device) as launches:
        device.launch(kernel, 1, 256, argument, device.pointer(source), device.pointer(out))
    [(launched, loads, stores, _)] = launches
    assert launched == kernel
    return loads, stores


def sum_of(kept, summed):
    """The argument of a sum along one loop over results and one over terms, each given as (size, stride)."""
    loops = nest([kept[0]], [[kept[1]]], [summed[0]], [[summed[1]]])
    return job(loops, kept[0], summed[0], 1, 1, 0, 0, -1)


def test_neighbours_fill_the_sectors_that_they_touch():
    loads, stores = counted(SUM, sum_of((256, 1), (3, 256)), 768, 256)
    assert loads == (3 * 32, 3 * 32, 3 * 32, 3 * 32, 4)
    assert stores == (32, 32, 32, 32, 4)


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
    loops = nest([256], [[8]], [8, 8], [[1, 2048]])  # 2048 sectors are read before any is read again
    loads, _ = counted(SUM, job(loops, 256, 64, 1, 1, 0, 0, -1), 16384, 256)
    assert loads.efficiency == loads.efficiency_behind_cache == 1 / 8


def test_loads_between_barriers_are_counted():
    loops, device = nest([64], [[64]], [64], [[1]]), SimulatedRuntime()
    source, out = device.empty((4096,), np.float32), device.empty((64,), np.float32)
    for lanes, nbytes in (1, 256), (16, 16), (64, 4):  # 4, 2 and 1 rows of 64 in turn; of 16 lanes each adds 4 up
        with sectors.count(device) as launches:
            job_of_lanes = job(loops, 64, 64, lanes, 1, 0, 0, -1)
            device.launch(SUM, 1, 64, job_of_lanes, device.pointer(source), device.pointer(out))
        assert launches[0].stretch == nbytes


def test_a_pack_is_one_access():
    loads, stores = counted(COPY, job(nest([64], [[4]], [], [[]]), 64, 0, 1, 1), 256, 256)
    assert loads == stores == (32, 32, 32, 32, 16)


def test_a_misaligned_row_touches_one_sector_more():
    loads, _ = counted(SUM, sum_of((31, 1), (8, 33)), 264, 31)
    assert loads[:2] == (8 * 4, 8 * 4 + 6)  # 124 bytes fill 4 sectors; they begin at each place of one


# ---- The rows of the suite, at their sizes on a GPU

H200 = profile("h200")
LEAST = 0.8  # of 32 floats that begin anywhere: they fill 4 sectors and touch 5
SHORT = H200.launch * H200.bytes_per_second  # bytes: what moves fewer takes no longer than its launch


def program_of(row, table="einsums"):
    """What an H200 runs for a row of the suite, or for the gradients of its result."""
    dtype = numpy_dtype(row.dtype)
    plan = plan_for(row.equation, row.shapes, dtype, Options(dtype, runs=MANY_RUNS), H200)
    if table == "gradients":
        return assemble(schedule(plan.vjp(), H200))
    operands = row.operands([np.empty(shape, dtype) for shape in row.stored_shapes])  # which nothing reads
    strides = [tuple([stride // dtype.itemsize for stride in operand.strides]) for operand in operands]
    return assemble(schedule(plan, H200, strides, row.precision))


def wasteful(program, least=LEAST):
    """The launches, but for the short ones, whose warps touch too many sectors for their bytes."""
    for launch, (kernel, loads, stores, _) in sectors.count_program(program, blocks=1):
        moved = launch.blocks * sectors.SECTOR * (loads.touched + stores.touched)
        if moved > SHORT and min(loads.efficiency, stores.efficiency) < least:
            yield f"{kernel.entry}: loads {loads.efficiency:.2f}, stores {stores.efficiency:.2f}"


def rows():
    for table, workloads in ("einsums", EINSUMS), ("gradients", GRADIENTS):
        for row in workloads:
            if (large := row.on("cuda")) is not None:
                yield pytest.param(table, large, id=f"{table}: {row.name}, {row.precision or row.dtype}")


@pytest.mark.parametrize(("table", "row"), [*rows()])
def test_no_launch_of_the_suite_wastes_sectors(table, row):
    is_diagonal = any(len(set(term)) < len(term) for term in row.terms)
    alone = numpy_dtype(row.dtype).itemsize / sectors.SECTOR  # an element of a diagonal has no neighbours there
    assert not [*wasteful(program_of(row, table), LEAST * (alone if is_diagonal else 1))]


@pytest.mark.parametrize(("stride", "is_wasteful"), [(1, False), (2, True)])
def test_a_launch_that_wastes_sectors_is_found(stride, is_wasteful):
    outputs, terms = 1 << 20, 8
    nbytes = 4 * stride * outputs * terms
    argument = sum_of((outputs, stride), (terms, stride * outputs))
    launch = Launch(SUM, 4096, argument).at(Address(0, 0), Address(1, 0))
    program = Program((launch,), (Span(0, nbytes, nbytes),), (4 * outputs,), 0, (), "float32")
    assert bool([*wasteful(program)]) == is_wasteful
