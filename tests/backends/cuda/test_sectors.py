"""How well kernels use memory, by the sectors that their warps touch; first, that the count finds what is wasted."""

import numpy as np
import pytest
from simulated import SimulatedRuntime, host, sectors

from benchmarks.suite import EINSUMS, GRADIENTS
from benchmarks.workloads import Workload, numpy_dtype
from gpueinsum.api.arguments import Options
from gpueinsum.api.plans import plan_for
from gpueinsum.backends.cuda.lower import assemble
from gpueinsum.backends.cuda.source import CONTRACTIONS
from gpueinsum.costs.profile import profile
from gpueinsum.planning.search import MANY_RUNS
from gpueinsum.schedule.schedule import schedule

TEXT = """namespace test {
struct alignas(16) Pack { float of[4]; };

extern "C" __global__ void sum(const float* src, float* out, long long stride, long long rows, long long row,
                               long long columns, long long column) {
  float sum = 0;
  for (long long i = 0; i < rows; ++i) {
    for (long long j = 0; j < columns; ++j) sum += src[threadIdx.x * stride + i * row + j * column];
    if (row == 0) __syncthreads();
  }
  out[threadIdx.x] = sum;
}

extern "C" __global__ void copy(const Pack* src, Pack* out) { out[threadIdx.x] = src[threadIdx.x]; }
}
"""


def counted(kernel, threads, *numbers):
    """What one block does with zeros: `sum` adds up rows x columns of them, of strides in elements, for each thread."""
    library = sectors.compile_hooked(TEXT, {"test": kernel})
    src, out = np.zeros(1 << 16, np.float32), np.zeros(1 << 12, np.float32)
    src, out = (array[-host.address(array) % 256 // 4 :] for array in (src, out))
    extents = [(host.address(array), host.address(array) + array.nbytes) for array in (src, out)]
    return sectors.counted(library, kernel, 1, threads, [extents[0][0], extents[1][0], *numbers], extents)


def test_neighbours_fill_the_sectors_that_they_touch():
    found = counted("sum", 256, 1, 1, 0, 3, 256)
    assert found.loads == (3 * 32, 3 * 32, 3 * 32, 3 * 32, 4)
    assert found.stores == (32, 32, 32, 32, 4)


@pytest.mark.parametrize(("stride", "efficiency"), [(2, 1 / 2), (8, 1 / 8), (64, 1 / 8)])
def test_a_strided_read_wastes_most_of_its_sectors(stride, efficiency):
    found = counted("sum", 256, stride, 1, 0, 3, 256 * stride)
    assert found.loads.efficiency == found.loads.efficiency_behind_cache == efficiency
    assert found.stores.efficiency == 1


def test_a_cache_keeps_what_the_same_block_reads_next():
    loads = counted("sum", 256, 8, 1, 0, 8, 1).loads
    assert loads.efficiency == 1 / 8
    assert loads.efficiency_behind_cache == 1


def test_a_cache_does_not_keep_what_is_read_too_much_later():
    loads = counted("sum", 256, 8, 8, 1, 8, 2048).loads  # 2048 sectors are read before any is read again
    assert loads.efficiency == loads.efficiency_behind_cache == 1 / 8


def test_a_pack_is_one_access():
    found = counted("copy", 64)
    assert found.loads == found.stores == (32, 32, 32, 32, 16)


def test_a_misaligned_row_touches_one_sector_more():
    loads = counted("sum", 31, 1, 1, 0, 8, 33).loads
    assert loads[:2] == (8 * 4, 8 * 4 + 6)  # 124 bytes fill 4 sectors; they begin at each place of one


def test_loads_between_barriers_are_counted():
    assert counted("sum", 64, 1, 5, 64, 8, 64).stretch == 5 * 8 * 4
    assert counted("sum", 64, 1, 5, 0, 8, 64).stretch == 8 * 4


@pytest.mark.parametrize("equation", ["ij->j", "ij,j->i", "i,j->ij"])
def test_the_blocks_of_a_program_do_what_they_do_when_it_runs(equation):
    row = Workload("", "", equation, "i=300 j=260", "")
    device = SimulatedRuntime(processors=4)
    program, operands = program_of(row, processors=4), [device.empty(shape, np.float32) for shape in row.shapes]
    memories = [*operands, *(device.empty((size,), np.uint8) for size in (*program.results, program.workspace))]
    with sectors.count(device) as launches:
        for work in program.work:
            device.prepare(work)([device.pointer(memory) for memory in memories])
    assert launches
    assert launches == [found for _, found in sectors.count_program(program, blocks=1 << 20)]


# ---- The rows of the suite, at their sizes on a GPU

H200 = profile("h200")
# Of the sectors that a launch touches or, where a block's cache holds what its warps read next, fetches. Rows of 19
# floats that begin anywhere fill 3 sectors, and touch 4: all others use 0.8 or more.
LEAST = 0.7  # a quarter of it for products by tiles, whose choice weighs sectors against instructions
SHORT = H200.launch * H200.bytes_per_second  # bytes: what moves fewer takes no longer than its launch


def program_of(row, table="einsums", processors=None):
    """What an H200 runs for a row of the suite, or for the gradients of its result."""
    dtype = numpy_dtype(row.dtype)
    plan = plan_for(row.equation, row.shapes, dtype, Options(dtype, runs=MANY_RUNS), H200)
    if table == "gradients":
        return assemble(schedule(plan.vjp(), H200), processors)
    operands = row.operands([np.empty(shape, dtype) for shape in row.stored_shapes])  # which nothing reads
    strides = [tuple([stride // dtype.itemsize for stride in operand.strides]) for operand in operands]
    return assemble(schedule(plan, H200, strides, row.precision), processors)


def is_wasteful(blocks, found, least=LEAST):
    """Whether the warps of a launch that is not short touch too many sectors for their bytes."""
    moved = blocks * sectors.SECTOR * (found.loads.touched + found.stores.touched)
    shares = [max(side.efficiency, side.efficiency_behind_cache) for side in (found.loads, found.stores)]
    return moved > SHORT and min(shares) < least


def rows():
    for table, workloads in ("einsums", EINSUMS), ("gradients", GRADIENTS):
        for row in workloads:
            if (large := row.on("cuda")) is not None:
                yield pytest.param(table, large, id=f"{table}: {row.name}, {row.precision or row.dtype}")


@pytest.mark.parametrize(("table", "row"), [*rows()])
def test_no_launch_of_the_suite_wastes_sectors(table, row):
    is_diagonal = any(len(set(term)) < len(term) for term in row.terms)
    alone = numpy_dtype(row.dtype).itemsize / sectors.SECTOR  # an element of a diagonal has no neighbours there
    least, launches = LEAST * (alone if is_diagonal else 1), sectors.count_program(program_of(row, table), blocks=1)
    for launch, found in launches:
        is_tiled = launch.kernel.name in CONTRACTIONS
        assert not is_wasteful(launch.blocks, found, least / 4 if is_tiled else least), found


def test_a_launch_that_wastes_sectors_is_found():
    good, bad = sectors.Traffic(700, 1000, 69, 100, 4), sectors.Traffic(699, 1000, 69, 100, 4)
    cached = sectors.Traffic(200, 1000, 70, 100, 4)
    for loads, stores in (good, bad), (bad, good):
        assert is_wasteful(1000, sectors.Counted("", loads, stores, 4))
        assert not is_wasteful(100, sectors.Counted("", loads, stores, 4))  # short
        assert not is_wasteful(1000, sectors.Counted("", loads, stores, 4), least=0.6)
    assert not is_wasteful(1000, sectors.Counted("", good, cached, 4))
