"""The kernels that add, multiply, expand, permute and write pointers, on a device, against numpy: every type."""

import itertools

import numpy as np
import pytest
from kernel_launches import (
    BFLOAT16,
    DTYPES,
    as_dtype,
    assert_same_floats,
    empty,
    expand_on_device,
    launch,
    loops_of,
    numpy_einsum,
    numpy_expand,
    operands,
    values,
)
from simulated import host

from gpueinsum.backends.cuda import tiles
from gpueinsum.backends.cuda.geometry import Source
from gpueinsum.backends.cuda.source import THREADS, Kernel, job, kernel_text, nest
from gpueinsum.backends.cuda.tiles import permute, transpose

EXPANSIONS = ["i->ii", "ij->jiij", "i->jiki", "->ii", "->j", "ij->ji", "i->iii", "->", "ij->ijijk"]


def map_on_device(runtime, name, subscripts, *arrays, out=None, conjugated=0, blocks=2, threads=37):
    """multiply or add of device arrays, into a new one or one of them."""
    kept, strides, _, _ = loops_of(subscripts, arrays)
    out = empty(runtime, kept, arrays[0].dtype) if out is None else out
    loops = nest(kept, strides, [], [[] for _ in arrays])
    dtype = arrays[0].dtype.name
    kernel = Kernel(name, dtype, dtype, len(arrays))
    launch(runtime, kernel, blocks, threads, job(loops, out.size, conjugated, 0, -1), *arrays, out)
    return runtime.to_host(out)


def add_on_device(runtime, *arrays, out=None, blocks=2, threads=37):
    term = "ijkl"[: arrays[0].ndim]
    subscripts = f"{','.join([term] * len(arrays))}->{term}"
    return map_on_device(runtime, "add", subscripts, *arrays, out=out, blocks=blocks, threads=threads)


def numpy_add(lhs, rhs):
    """numpy's own sum: of halves in float32, and rounded once; of booleans of any byte."""
    if lhs.dtype.kind == "b":
        return (lhs.view(np.uint8) != 0) | (rhs.view(np.uint8) != 0)
    wide = np.float32 if lhs.dtype.itemsize == 2 and lhs.dtype.kind in "fV" else lhs.dtype
    return (lhs.astype(wide) + rhs.astype(wide)).astype(lhs.dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(), (7,), (5, 7), (3, 5, 7)], ids=str)
def test_arrays_are_added_whatever_their_strides(runtime, rng, dtype, shape):
    x, y = (values(rng, shape, dtype) for _ in "xy")
    transposed = runtime.to_device(np.array(y.T, order="C")).T
    for blocks, threads in ((1, 1), (3, 64)):
        result = add_on_device(runtime, runtime.to_device(x), transposed, blocks=blocks, threads=threads)
        np.testing.assert_array_equal(result, numpy_add(x, y))


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_sum_may_be_written_where_an_operand_is_read(runtime, rng, dtype):
    x, y = (values(rng, (5, 7), dtype) for _ in "xy")
    total = runtime.to_device(x)
    np.testing.assert_array_equal(add_on_device(runtime, total, runtime.to_device(y), out=total), numpy_add(x, y))
    np.testing.assert_array_equal(add_on_device(runtime, total, total, out=total), numpy_add(*[numpy_add(x, y)] * 2))


def test_broadcast_arrays_and_backward_ones_are_added(runtime, rng):
    x, y = values(rng, (5, 7), "int16"), values(rng, (7,), "int16")
    wide = runtime.strided(runtime.to_device(y), (5, 7), (0, 2))
    result = add_on_device(runtime, runtime.to_device(x)[::-1, ::-1], wide)
    np.testing.assert_array_equal(result, x[::-1, ::-1] + y)


@pytest.mark.parametrize("half", [np.dtype(np.float16), BFLOAT16], ids=lambda dtype: dtype.name)
def test_every_half_is_added_in_float32_and_rounded_once(runtime, rng, half):
    x, y = np.arange(2**16, dtype=np.uint16), rng.permutation(2**16).astype(np.uint16)
    x, y = x.view(half), y.view(half)
    with np.errstate(all="ignore"):
        expected = numpy_add(x, y)
    on_device = runtime.to_device(x), runtime.to_device(y)
    assert_same_floats(add_on_device(runtime, *on_device, blocks=8, threads=256), expected)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("subscripts", EXPANSIONS)
def test_expand_broadcasts_and_embeds_on_the_diagonal(runtime, rng, subscripts, dtype):
    (array,) = operands(rng, subscripts, dtype)
    device = runtime.to_device(array)
    if array.dtype == bool:
        array = array.view(np.uint8) != 0
    for threads in (1, 64):
        result = expand_on_device(runtime, subscripts, device, threads=threads)
        np.testing.assert_array_equal(result, numpy_expand(subscripts, array))


def test_expand_reads_backwards(runtime, rng):
    array = values(rng, (5, 7), "int32")
    result = expand_on_device(runtime, "ij->jiij", runtime.to_device(array)[::-1, ::-1])
    np.testing.assert_array_equal(result, numpy_expand("ij->jiij", array[::-1, ::-1]))


@pytest.mark.parametrize("sizes", [(1,), (5,), (3, 7), (2, 3, 257)], ids=str)
@pytest.mark.parametrize(("blocks", "threads"), [(1, 1), (3, 64), (2, 256)])
def test_pointers_are_written_for_every_matrix_of_every_array(runtime, rng, sizes, blocks, threads):
    arrays = [runtime.to_device(np.zeros(16, np.uint8)) for _ in "abc"]
    strides = rng.integers(0, 1 << 40, (3, len(sizes))).tolist()
    number, turns = int(np.prod(sizes)), sizes[0]
    each = number // turns
    slots = each + each % 2  # so that every turn's begin at a multiple of 16 bytes
    numbers = job(nest(sizes, strides, [], [[], [], []]), number, each, slots, turns * slots)
    out = empty(runtime, (3, turns, slots), np.dtype(np.uint64))
    launch(runtime, Kernel("pointers", "uint8", "uint64", 3), blocks, threads, numbers, *arrays, out)
    expected = [
        [runtime.pointer(array) + int(np.dot(place, steps)) for place in np.ndindex(*sizes)]
        for array, steps in zip(arrays, strides, strict=True)
    ]
    written = runtime.to_host(out)[..., :each].reshape(3, number)
    np.testing.assert_array_equal(written, np.array(expected, np.uint64))


# ---- Permuting copies


@pytest.fixture
def any_gain(monkeypatch):
    """Tiles of several axes are also taken where they gain nothing."""
    monkeypatch.setattr(tiles, "_GAIN", 0)


def copy_on_device(runtime, make, subscripts, sizes, array, blocks, conjugated=False):
    """A copy of a device array by tiles, as `make` launches it."""
    term, out = subscripts.split("->")
    strides = tuple(stride // array.dtype.itemsize for stride in array.strides)
    made = make(Source(term, strides, conjugated), out, sizes, array.dtype.name, 1)
    result = empty(runtime, [sizes[label] for label in out], array.dtype)
    launch(runtime, made.kernel, blocks, THREADS, made.job, array, result)
    return runtime.to_host(result)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("make", "subscripts", "sizes"),
    [
        (transpose, "ij->ji", {"i": 67, "j": 131}),
        (transpose, "ij->ji", {"i": 32, "j": 64}),
        (transpose, "bij->jbi", {"b": 2, "i": 64, "j": 96}),
        (transpose, "ji->kij", {"i": 67, "j": 41, "k": 3}),  # an axis that is not read
        (permute, "ij->ji", {"i": 67, "j": 131}),
        (permute, "ij->ji", {"i": 1310, "j": 7}),
        (permute, "abc->cab", {"a": 3, "b": 37, "c": 41}),
        (permute, "abcdef->fbdcea", {"a": 3, "b": 5, "c": 3, "d": 5, "e": 3, "f": 5}),
        (permute, "abcdefghijk->kjihgfedcba", dict.fromkeys("abcdefghijk", 2)),
        (permute, "abcd->dbca", {"a": 9, "b": 5, "c": 7, "d": 11}),
        (permute, "acb->bac", {"a": 37, "b": 41, "c": 3}),
        (permute, "ji->ijk", {"i": 67, "j": 41, "k": 3}),
    ],
)
@pytest.mark.usefixtures("any_gain")
def test_tiles_are_copied(runtime, rng, dtype, make, subscripts, sizes):
    term, out = subscripts.split("->")
    host_array = values(rng, [sizes[label] for label in term], dtype)
    array, ones = runtime.to_device(host_array), np.ones([sizes[label] for label in out], as_dtype(dtype))
    for blocks, conjugated in (1, False), (3, True):
        read = host_array.conj() if conjugated and host_array.dtype.kind == "c" else host_array
        result = copy_on_device(runtime, make, subscripts, sizes, array, blocks, conjugated)
        np.testing.assert_array_equal(result, numpy_einsum(f"{term},{out}->{out}", read, ones, dtype=dtype))
        assert result.dtype.kind != "b" or set(result.view(np.uint8).ravel()) <= {0, 1}


@pytest.mark.usefixtures("any_gain")
def test_tiles_of_a_view_are_copied(runtime, rng):
    x, sizes = values(rng, (90, 1, 82), "int32"), {"i": 45, "j": 1, "k": 41}
    view = runtime.to_device(x)[::-2, :, ::2]
    result = copy_on_device(runtime, permute, "ijk->kji", sizes, view, 2)
    np.testing.assert_array_equal(result, x[::-2, :, ::2].T)


@pytest.mark.parametrize(
    ("make", "barriers", "without"), [*((transpose, 2, n) for n in range(2)), *((permute, 3, n) for n in range(3))]
)
def test_tiles_without_one_of_their_barriers_go_wrong(rng, make, barriers, without):
    made = make(Source("ij", (67, 1)), "ji", {"i": 131, "j": 67}, "float32", 1)
    parts, entry = kernel_text(made.kernel).rsplit("__syncthreads();", barriers), made.kernel.entry
    assert len(parts) == barriers + 1
    kept = ["__syncthreads();"] * barriers
    kept[without] = ""
    text = "".join(itertools.chain(*zip(parts, [*kept, ""], strict=True)))
    run, _ = host.bind(host.compile_kernels(text, {f"specialised_{entry}": entry}), entry)
    x, wrong = rng.random((131, 67), np.float32), []
    for last_thread_first in (False, True):
        out = np.zeros((67, 131), np.float32)
        run(1, THREADS, (made.job, host.address(x), host.address(out)), last_thread_first)
        wrong.append(not np.array_equal(out, x.T))
    assert any(wrong)
