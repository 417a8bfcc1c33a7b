"""The kernels on packs, several neighbours by one load, on a device against numpy, wherever the packs begin."""

from itertools import product

import numpy as np
import pytest
from kernel_launches import (
    DTYPES,
    SHARINGS,
    as_dtype,
    empty,
    expand_on_device,
    launch,
    numpy_einsum,
    numpy_expand,
    values,
)

from gpueinsum.backends.cuda.source import MAX_OPERANDS, Kernel, accumulator, job, nest
from gpueinsum.backends.cuda.sums import Shared, sum_job
from gpueinsum.language.strides import Axis


def items(dtype):
    return 16 // as_dtype(dtype).itemsize


PACKED = [dtype for dtype in DTYPES if as_dtype(dtype).itemsize < 16]


@pytest.mark.parametrize("dtype", PACKED)
@pytest.mark.parametrize("shift", [0, 1])
@pytest.mark.parametrize(
    ("name", "operands"), [*product(["multiply"], range(1, MAX_OPERANDS + 1)), *product(["add"], [2, 3, 4])]
)
def test_packs_are_read_and_written_wherever_they_begin(runtime, rng, dtype, shift, name, operands):
    width, rows, packs = items(dtype), 3, 5
    flat = [values(rng, rows * packs * width + shift, dtype) for _ in range(operands)]
    hosts, arrays = ([x[shift:].reshape(rows, -1) for x in memory] for memory in (flat, map(runtime.to_device, flat)))
    if operands > 1:
        for memory in (hosts, arrays):
            memory[-1] = memory[-1][:, :1]  # lacks the loop along which the packs lie
    strides = [[host.strides[0] // host.itemsize, width * (host.shape[1] > 1)] for host in hosts]
    along = sum((host.shape[1] > 1) << number for number, host in enumerate(hosts))
    loops = nest([rows, packs], strides, [], [[]] * operands)
    memory = empty(runtime, (rows * packs * width + shift,), as_dtype(dtype))
    out = memory[shift:]
    launch(runtime, Kernel(name, dtype, dtype, operands), 2, 32, job(loops, rows * packs, 0, 1, along), *arrays, out)
    wide = [np.broadcast_to(host, (rows, packs * width)) for host in hosts]
    if name == "add":
        expected = sum_of(wide, dtype)
    else:
        expected = numpy_einsum(f"{','.join(['ij'] * operands)}->ij", *wide, dtype=dtype)
    np.testing.assert_array_equal(runtime.to_host(out).reshape(rows, -1), expected)


def sum_of(arrays, dtype):
    """numpy's sum, of halves rounded once."""
    if as_dtype(dtype).kind == "b":
        return np.any([array.view(np.uint8) != 0 for array in map(np.ascontiguousarray, arrays)], axis=0)
    half = as_dtype(dtype).itemsize == 2 and as_dtype(dtype).kind in "fV"
    return sum(array.astype(np.float64 if half else array.dtype) for array in arrays).astype(as_dtype(dtype))


ROWS = [("reduce", *sharing) for sharing in SHARINGS if sharing[1] == 1]


@pytest.mark.parametrize("dtype", PACKED)
@pytest.mark.parametrize(
    ("kernel", "lanes", "chunks", "blocks", "threads"),
    [*ROWS, ("reduce_rows", 1, 1, 1, 30), ("reduce_rows", 1, 1, 2, 64)],
)
def test_packs_are_summed_in_one_order_wherever_they_begin(runtime, rng, dtype, kernel, lanes, chunks, blocks, threads):
    width, rows, packs = items(dtype), 3, 37 if kernel == "reduce" else 29
    x, y = values(rng, (2, rows, packs * width), dtype)
    x, y = (host // 16 if host.dtype.kind in "iu" else host for host in (x, y))
    expected = numpy_einsum("ij,ij->i", x, y, dtype=dtype)
    outer, inner = [Axis(rows, (packs * width,) * 2)], [Axis(packs, (width,) * 2)]
    numbers = sum_job(Shared(kernel, outer, inner, lanes, 1, chunks, (1, 3)), 0, 2)
    results = set()
    for shift in (0, 1):
        memory = [runtime.to_device(np.concatenate([host.ravel()[:shift], host.ravel()])) for host in (x, y)]
        arrays, out = [array[shift:] for array in memory], empty(runtime, (rows,), as_dtype(dtype))
        launch(runtime, Kernel(kernel, dtype, dtype, 2), blocks, threads, numbers, *arrays, out)
        np.testing.assert_array_equal(runtime.to_host(out), expected)
        results.add(runtime.to_host(out).tobytes())
    assert len(results) == 1


@pytest.mark.parametrize("dtype", PACKED)
@pytest.mark.parametrize(
    ("shift", "lanes", "beside", "chunks", "blocks", "threads"),
    [(0, 1, 1, 1, 1, 7), (1, 1, 1, 1, 3, 32), (0, 1, 1, 5, 2, 64), (0, 3, 3, 1, 2, 32), (1, 5, 2, 2, 1, 64)],
)
@pytest.mark.parametrize("operands", range(1, MAX_OPERANDS + 1))
def test_packs_of_results_are_summed(runtime, rng, dtype, shift, lanes, beside, chunks, blocks, threads, operands):
    width, rows, terms, packs = items(dtype), 2, 13, 3
    flat = [values(rng, rows * terms * packs * width + shift, dtype) for _ in range(operands)]
    flat = [x // 64 if x.dtype.kind in "iu" else x for x in flat]
    hosts, arrays = (
        [x[shift:].reshape(rows, terms, packs * width) for x in memory]
        for memory in (flat, map(runtime.to_device, flat))
    )
    if operands > 1:
        for memory in (hosts, arrays):
            memory[-1] = memory[-1][:, :, :1]
    line = packs * width
    across = tuple(width if x.shape[2] > 1 else 0 for x in hosts)
    along = sum((x.shape[2] > 1) << number for number, x in enumerate(hosts))
    outer, inner = [Axis(rows, (terms * line,) * operands), Axis(packs, across)], [Axis(terms, (line,) * operands)]
    wide = accumulator(dtype) if chunks > 1 else dtype
    memory = empty(runtime, (chunks * rows * line + shift,), as_dtype(wide))
    numbers = sum_job(Shared("reduce_columns", outer, inner, lanes, beside, chunks, (1, along)), 0, operands)
    launch(runtime, Kernel("reduce_columns", dtype, wide, operands), blocks, threads, numbers, *arrays, memory[shift:])
    parts = runtime.to_host(memory[shift:]).reshape(chunks, rows, line)
    result = parts[0] if chunks == 1 else sum_of([*parts], wide).astype(as_dtype(dtype))
    wide_hosts = [np.broadcast_to(x, (rows, terms, line)) for x in hosts]
    expected = numpy_einsum(f"{','.join(['bij'] * operands)}->bj", *wide_hosts, dtype=dtype)
    np.testing.assert_array_equal(result, expected)


@pytest.mark.parametrize("dtype", PACKED)
@pytest.mark.parametrize("shift", [0, 1])
@pytest.mark.parametrize("subscripts", ["i->ii", "j->iij", "ji->ijj", "ij->iji", "i->iij", "ki->ikik"])
def test_packs_are_expanded(runtime, rng, dtype, shift, subscripts):
    sizes = {"i": 2 * items(dtype), "j": items(dtype), "k": 3}
    term = subscripts.split("->")[0]
    shape = [sizes[label] for label in term]
    array = values(rng, int(np.prod(shape)) + shift, dtype)[shift:].reshape(shape)
    result = expand_on_device(runtime, subscripts, runtime.to_device(array), sizes, shift=shift)
    if array.dtype == bool:
        array = array.view(np.uint8) != 0
    np.testing.assert_array_equal(result, numpy_expand(subscripts, array, sizes))
