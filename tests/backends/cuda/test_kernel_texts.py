"""The kernels on a device, against numpy: every element type, odd strides, any sharing of the work among threads."""

from itertools import product

import ml_dtypes
import numpy as np
import pytest
from simulated import host

from gpueinsum.backends.cuda.kernels import expand
from gpueinsum.backends.cuda.program import Address, Launch
from gpueinsum.backends.cuda.source import KERNELS, MAX_OPERANDS, Kernel, accumulator, job, kernel_text, nest

BFLOAT16 = np.dtype(ml_dtypes.bfloat16)
DTYPES = [kernel.source for kernel in KERNELS if kernel.name == "expand"]
SIZES = {"i": 5, "j": 7, "k": 3, "l": 2}
SHARINGS = [  # lanes, chunks, blocks, threads
    (1, 1, 1, 1),
    (1, 1, 3, 37),
    (1, 5, 2, 64),
    (4, 1, 2, 30),
    (8, 3, 1, 96),
    (32, 1, 2, 64),
    (64, 2, 3, 128),
]

REDUCTIONS = [
    "ij->ji",
    "ii->i",
    "iij->j",
    "iii->",
    "ijk->j",
    "ijk->k",
    "jikj->ik",
    "iijj->ij",
    "ijkl->li",
    "i->i",
    "->",
]
PRODUCTS = [
    "i,j->ij",
    "ij,ij->ij",
    "kij,kij->k",
    "ij,j->i",
    "iij,jk->ki",
    "i,i->",
    "ij,kl->jl",
    ",i->i",
    ",->",
    "ii,jj->ij",
]
EXPANSIONS = ["i->ii", "ij->jiij", "i->jiki", "->ii", "->j", "ij->ji", "i->iii", "->", "ij->ijijk"]


def values(rng, shape, dtype):
    """Small whole floats, so that sums are exact in any order; integers of any size; booleans of any byte."""
    dtype = as_dtype(dtype)
    if dtype.kind in "iu":
        limits = np.iinfo(dtype)
        return rng.integers(limits.min, limits.max, shape, dtype, endpoint=True)
    if dtype.kind == "b":
        return rng.choice(np.array([0, 0, 0, 1, 2, 128, 255], np.uint8), shape).view(bool)
    real = rng.integers(-9, 10, shape)
    return (real + 1j * rng.integers(-9, 10, shape) if dtype.kind == "c" else real).astype(dtype)


def as_dtype(name):
    return BFLOAT16 if name == "bfloat16" else np.dtype(name)


def numpy_einsum(subscripts, *arrays, dtype):
    """numpy's own einsum; halves in float64, which holds these sums exactly, and rounded once."""
    if arrays[0].dtype.itemsize == 2 and arrays[0].dtype.kind in "fV":
        arrays = [array.astype(np.float64) for array in arrays]
    if arrays[0].dtype.kind == "b":
        arrays = [array.view(np.uint8) != 0 for array in arrays]
    return np.asarray(np.einsum(subscripts, *arrays)).astype(as_dtype(dtype))


def launch(runtime, kernel, blocks, threads, job, *arrays):
    """One kernel, prepared as a program's are, on the device's arrays; the last is written."""
    places = tuple(Address(number, 0) for number in range(len(arrays)))
    runtime.prepare(Launch(kernel, blocks, job, places, threads))([runtime.pointer(array) for array in arrays])


def empty(runtime, shape, dtype):
    """A C-ordered array on the device, not initialised."""
    strides = np.empty(shape, "V0").strides if 0 in shape else strides_of(shape, np.dtype(dtype).itemsize)
    nbytes = int(np.prod(shape, dtype=int)) * np.dtype(dtype).itemsize
    return runtime.array(tuple(shape), np.dtype(dtype), runtime.allocate(nbytes), strides)


def strides_of(shape, item):
    return tuple(item * int(np.prod(shape[axis + 1 :], dtype=int)) for axis in range(len(shape)))


def loops_of(subscripts, arrays):
    """The loops of an einsum of these arrays: sizes and strides of those kept, of those summed, and their products."""
    terms, out = subscripts.split("->")
    terms = terms.split(",")
    sizes = {
        label: size for term, x in zip(terms, arrays, strict=True) for label, size in zip(term, x.shape, strict=True)
    }
    summed = sorted(set("".join(terms)) - set(out))
    columns = [
        [[element_stride(x, term, label) for label in loops] for x, term in zip(arrays, terms, strict=True)]
        for loops in (out, summed)
    ]
    kept, many = ([sizes[label] for label in labels] for labels in (out, summed))
    return kept, columns[0], many, columns[1]


def sum_on_device(runtime, subscripts, *arrays, result=None, sharing=SHARINGS[0], conjugated=0):
    """reduce of device arrays, by the strides of their labels."""
    kept, kept_strides, summed, summed_strides = loops_of(subscripts, arrays)
    loops, outputs, terms = nest(kept, kept_strides, summed, summed_strides), int(np.prod(kept)), int(np.prod(summed))
    source = arrays[0].dtype.name
    result = result or source
    lanes, chunks, blocks, threads = sharing
    out = empty(runtime, kept, as_dtype(result))
    if chunks == 1:
        kernel = Kernel("reduce", source, result, len(arrays))
        launch(runtime, kernel, blocks, threads, job(loops, outputs, terms, lanes, 1, conjugated, 0, -1), *arrays, out)
        return runtime.to_host(out)
    wide = accumulator(result)
    parts = empty(runtime, (outputs, chunks), as_dtype(wide))
    kernel = Kernel("reduce", source, wide, len(arrays))
    first = job(loops, outputs, terms, lanes, chunks, conjugated, 0, -1)
    launch(runtime, kernel, blocks, threads, first, *arrays, parts)
    added = job(nest([outputs], [[chunks]], [chunks], [[1]]), outputs, chunks, 1, 1, 0, 0, -1)
    launch(runtime, Kernel("reduce", wide, result), blocks, threads, added, parts, out)
    return runtime.to_host(out)


def element_stride(array, term, label):
    """How many elements apart the neighbours along a label lie; a repeated label walks a diagonal."""
    return sum(stride for stride, own in zip(array.strides, term, strict=True) if own == label) // array.dtype.itemsize


def operands(rng, subscripts, dtype):
    terms = subscripts.split("->")[0].split(",")
    return [values(rng, [SIZES[label] for label in term], dtype) for term in terms]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("subscripts", REDUCTIONS + PRODUCTS)
def test_sums_agree_with_numpy_however_the_work_is_shared(runtime, rng, subscripts, dtype):
    arrays = operands(rng, subscripts, dtype)
    expected = numpy_einsum(subscripts, *arrays, dtype=dtype)
    on_device = [runtime.to_device(array) for array in arrays]
    for sharing in SHARINGS:
        result = sum_on_device(runtime, subscripts, *on_device, sharing=sharing)
        np.testing.assert_array_equal(result, expected, err_msg=f"lanes, chunks, blocks, threads = {sharing}")


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("subscripts", ["ij->ji", "iij->j", "i->", "->", "i,j->ij", "kij,kij->k", "ij,j->i", "i,i->"])
def test_sums_conjugate_either_side_and_real_ones_ignore_it(runtime, rng, subscripts, dtype):
    arrays = operands(rng, subscripts, dtype)
    on_device = [runtime.to_device(array) for array in arrays]
    for bits in range(1 << len(arrays)):
        factors = [
            array.conj() if bits >> side & 1 and array.dtype.kind == "c" else array for side, array in enumerate(arrays)
        ]
        expected = numpy_einsum(subscripts, *factors, dtype=dtype)
        for sharing in SHARINGS[:1] + SHARINGS[4:5]:
            result = sum_on_device(runtime, subscripts, *on_device, sharing=sharing, conjugated=bits)
            np.testing.assert_array_equal(result, expected, err_msg=f"conjugated = {bits}, {sharing}")


@pytest.mark.parametrize(
    ("source", "result"),
    [(k.source, k.result) for k in KERNELS if k.name == "reduce" and k.operands == 1 and k.source != k.result],
)
@pytest.mark.parametrize("subscripts", ["ijk->j", "i,j->ij", "kij,kij->k"])
def test_sums_convert_between_halves_and_float32(runtime, rng, subscripts, source, result):
    arrays = operands(rng, subscripts, source)
    if Kernel("reduce", source, result, len(arrays)) not in KERNELS:
        return  # of products, sums are only made wider
    on_device = [runtime.to_device(array) for array in arrays]
    expected = numpy_einsum(subscripts, *arrays, dtype=result)
    for sharing in SHARINGS[:2] + SHARINGS[3:4]:
        np.testing.assert_array_equal(
            sum_on_device(runtime, subscripts, *on_device, result=result, sharing=sharing), expected
        )


@pytest.mark.parametrize("lanes", [1, 8])
def test_strides_may_be_negative_zero_or_overlapping(runtime, rng, lanes):
    host = values(rng, (11, 13), "int64")
    device = runtime.to_device(host)
    views = {
        "backwards": (device[::-1, ::-2], host[::-1, ::-2]),
        "columns first": (device.T[3:], host.T[3:]),
        "broadcast": (runtime.strided(device, (11, 5), (0, 16)), np.broadcast_to(host[0, 0:10:2], (11, 5))),
        "sliding": (
            runtime.strided(device[0], (5, 7), (8, 8)),
            np.lib.stride_tricks.sliding_window_view(host[0, :11], 7),
        ),
    }
    for name, (on_device, array) in views.items():
        for subscripts in ("ij->ji", "ij->j", "ij->i", "ij->"):
            result = sum_on_device(runtime, subscripts, on_device, sharing=(lanes, 1, 2, 32))
            np.testing.assert_array_equal(result, np.einsum(subscripts, array), err_msg=f"{subscripts}, {name}")
        result = sum_on_device(runtime, "ij,ij->i", on_device, on_device, sharing=(lanes, 3, 2, 32))
        np.testing.assert_array_equal(result, np.einsum("ij,ij->i", array, array), err_msg=name)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("sharing", SHARINGS)
def test_a_sum_over_nothing_is_zero(runtime, dtype, sharing):
    nothing = runtime.to_device(np.empty((3, 0), as_dtype(dtype)))
    np.testing.assert_array_equal(
        sum_on_device(runtime, "ij->i", nothing, sharing=sharing), np.zeros(3, as_dtype(dtype))
    )
    assert sum_on_device(runtime, "ij->j", nothing, sharing=sharing).shape == (0,)


def test_any_grid_gives_the_same_bits(runtime, rng):
    device = runtime.to_device(rng.standard_normal((7, 1009), np.float32))
    for lanes, chunks in product((1, 16, 64), (1, 3)):
        results = [
            sum_on_device(runtime, "ij->i", device, sharing=(lanes, chunks, blocks, threads)).tobytes()
            for blocks, threads in ((1, 64), (5, 128), (3, 192))
        ]
        assert len(set(results)) == 1


def test_halves_are_multiplied_and_added_in_float32(runtime):
    ones = np.ones(4099, np.float16)  # counting by ones, float16 stops at 2048
    tiny = np.full(4099, 2.0**-14, np.float16)  # whose squares vanish in float16
    on_device = runtime.to_device(ones), runtime.to_device(tiny)
    assert sum_on_device(runtime, "i->", on_device[0]) == np.float16(4099)
    assert sum_on_device(runtime, "i,i->", on_device[1], on_device[1]) == np.float16(4099 * 2.0**-28)


@pytest.mark.parametrize("half", [np.dtype(np.float16), BFLOAT16], ids=lambda dtype: dtype.name)
def test_every_half_becomes_its_float32_and_back(runtime, half):
    patterns = np.arange(2**16, dtype=np.uint16).view(half)
    wide = sum_on_device(runtime, "i->i", runtime.to_device(patterns), result="float32")
    assert_same_floats(wide, patterns.astype(np.float32))
    assert_same_floats(sum_on_device(runtime, "i->i", runtime.to_device(wide), result=half.name), patterns)


@pytest.mark.parametrize("half", [np.dtype(np.float16), BFLOAT16], ids=lambda dtype: dtype.name)
def test_float32_rounds_to_the_nearest_half_ties_to_even(runtime, rng, half):
    halves = np.arange(2**16, dtype=np.uint16).view(half).astype(np.float32)
    finite = np.sort(halves[np.isfinite(halves)]).astype(np.float64)
    middles = ((finite[:-1] + finite[1:]) / 2).astype(np.float32)
    beside = [np.nextafter(middles, np.float32(side)) for side in (-np.inf, np.inf)]
    anything = rng.integers(0, 2**32, 100_003, np.uint32).view(np.float32)
    for floats in (middles, *beside, anything):
        with np.errstate(over="ignore", invalid="ignore"):
            expected = floats.astype(half)
        assert_same_floats(sum_on_device(runtime, "i->i", runtime.to_device(floats), result=half.name), expected)


def assert_same_floats(result, expected):
    """Bit for bit, -0 included; one NaN is as good as another."""
    result_nan, expected_nan = (np.isnan(x.astype(np.float32)) for x in (result, expected))
    np.testing.assert_array_equal(result_nan, expected_nan)
    bits = np.dtype(f"u{expected.itemsize}")
    np.testing.assert_array_equal(result.view(bits)[~result_nan], expected.view(bits)[~expected_nan])


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_copy_keeps_every_bit(runtime, dtype):
    bits = {"float32": np.uint32, "float64": np.uint64}[dtype]
    special = np.array([0.0, -0.0, np.inf, -np.inf, np.nan, np.finfo(dtype).smallest_subnormal], dtype)
    special[4:5].view(bits)[:] |= 77  # a payload
    device = runtime.to_device(special.reshape(2, 3))
    for result in (
        sum_on_device(runtime, "ij->ji", device).T,
        expand_on_device(runtime, "ij->jiji", device)[[0, 1, 2], :, [0, 1, 2], :][:, [0, 1], [0, 1]].T,
    ):
        np.testing.assert_array_equal(np.ascontiguousarray(result).view(bits).ravel(), special.view(bits))


def test_a_conjugate_differs_in_a_sign_and_nothing_else(runtime):
    parts = np.array([0.0, -0.0, np.inf, -np.inf, np.finfo(float).smallest_subnormal])
    numbers = np.empty((5, 5), complex)
    numbers.real, numbers.imag = parts[:, None], parts
    result = sum_on_device(runtime, "ij->ij", runtime.to_device(numbers), conjugated=1)
    np.testing.assert_array_equal(result.view(np.uint64), numbers.conj().view(np.uint64))


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


def expand_on_device(runtime, subscripts, array, sizes=SIZES, threads=37, shift=0):
    """expand of a device array as a device of one multiprocessor does it, from the `shift`th element of memory on."""
    term, out = subscripts.split("->")
    sizes = sizes | dict(zip(term, array.shape, strict=True))
    shape = [sizes[label] for label in out]
    memory = empty(runtime, (int(np.prod(shape)) + shift,), array.dtype)
    strides = tuple(stride // array.dtype.itemsize for stride in array.strides)
    made = expand(term, out, strides, sizes, array.dtype.name, 1)
    launch(runtime, made.kernel, made.blocks, threads, made.job, array, memory[shift:])
    return runtime.to_host(memory[shift:]).reshape(shape)


def numpy_expand(subscripts, array, sizes=SIZES):
    term, out = subscripts.split("->")
    expected = np.zeros([sizes[label] for label in out], array.dtype)
    for place in np.ndindex(expected.shape):
        at = dict(zip(out, place, strict=True))
        if all(at[label] == coordinate for label, coordinate in zip(out, place, strict=True)):
            expected[place] = array[tuple(at[label] for label in term)]
    return expected


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


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("batch", "m", "n", "k"), [(1, 1, 1, 1), (3, 5, 7, 11), (2, 67, 13, 19), (1, 3, 131, 17), (2, 5, 3, 0)]
)
def test_matrix_products_agree_with_numpy(runtime, rng, dtype, batch, m, n, k):
    a, b = values(rng, (batch, m, k), dtype), values(rng, (batch, k, n), dtype)
    expected = numpy_einsum("bik,bkj->bij", a, b, dtype=dtype)
    columns_first = [np.ascontiguousarray(x.swapaxes(1, 2)) for x in (a, b)]
    for blocks in (1, 3):
        for transposed in (False, True):
            left, right = (runtime.to_device(x) for x in (columns_first if transposed else (a, b)))
            if transposed:
                left, right = left.swapaxes(1, 2), right.swapaxes(1, 2)
            np.testing.assert_array_equal(product_on_device(runtime, left, right, blocks), expected)


def product_on_device(runtime, a, b, blocks):
    (batch, m, k), n = a.shape, b.shape[2]
    c, dtype = empty(runtime, (batch, m, n), a.dtype), a.dtype.name
    strides = [stride // x.dtype.itemsize for x in (a, b, c) for stride in x.strides]
    numbers = job(batch, m, n, k, *strides)
    launch(runtime, Kernel("integer_gemm", dtype, dtype, 2), blocks, 256, numbers, a, b, c)
    return runtime.to_host(c)


def test_matrix_products_take_negative_and_zero_strides(runtime, rng):
    a, b = values(rng, (2, 5, 7), "int16"), values(rng, (7, 3), "int16")
    right = runtime.strided(runtime.to_device(b), (2, 7, 3), (0, 6, 2))
    result = product_on_device(runtime, runtime.to_device(a)[:, ::-1, ::-1], right, blocks=2)
    np.testing.assert_array_equal(result, np.einsum("bik,kj->bij", a[:, ::-1, ::-1], b))


@pytest.mark.parametrize("sizes", [(1,), (5,), (3, 7), (2, 3, 257)], ids=str)
@pytest.mark.parametrize(("blocks", "threads"), [(1, 1), (3, 64), (2, 256)])
def test_pointers_are_written_for_every_matrix_of_every_array(runtime, rng, sizes, blocks, threads):
    arrays = [runtime.to_device(np.zeros(16, np.uint8)) for _ in "abc"]
    strides = rng.integers(0, 1 << 40, (3, len(sizes))).tolist()
    number = int(np.prod(sizes))
    numbers = job(nest(sizes, strides, [], [[], [], []]), number)
    out = empty(runtime, (3, number), np.dtype(np.uint64))
    launch(runtime, Kernel("pointers", "uint8", "uint64", 3), blocks, threads, numbers, *arrays, out)
    expected = [
        [runtime.pointer(array) + int(np.dot(place, steps)) for place in np.ndindex(*sizes)]
        for array, steps in zip(arrays, strides, strict=True)
    ]
    np.testing.assert_array_equal(runtime.to_host(out), np.array(expected, np.uint64))


# ---- Packs: several neighbours by one load


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


@pytest.mark.parametrize("dtype", PACKED)
@pytest.mark.parametrize("sharing", [sharing for sharing in SHARINGS if sharing[1] == 1])
def test_packs_are_summed_in_one_order_wherever_they_begin(runtime, rng, dtype, sharing):
    width, rows, packs = items(dtype), 3, 37
    lanes, _, blocks, threads = sharing
    x, y = values(rng, (2, rows, packs * width), dtype)
    x, y = (host // 16 if host.dtype.kind in "iu" else host for host in (x, y))
    expected = numpy_einsum("ij,ij->i", x, y, dtype=dtype)
    results = set()
    for shift in (0, 1):
        memory = [runtime.to_device(np.concatenate([host.ravel()[:shift], host.ravel()])) for host in (x, y)]
        arrays, out = [array[shift:] for array in memory], empty(runtime, (rows,), as_dtype(dtype))
        loops = nest([rows], [[packs * width]] * 2, [packs], [[width]] * 2)
        numbers = job(loops, rows, packs, lanes, 1, 0, 1, 3)
        launch(runtime, Kernel("reduce", dtype, dtype, 2), blocks, threads, numbers, *arrays, out)
        np.testing.assert_array_equal(runtime.to_host(out), expected)
        results.add(runtime.to_host(out).tobytes())
    assert len(results) == 1


@pytest.mark.parametrize("dtype", PACKED)
@pytest.mark.parametrize(("shift", "chunks", "blocks", "threads"), [(0, 1, 1, 7), (1, 1, 3, 32), (0, 5, 2, 64)])
@pytest.mark.parametrize("operands", range(1, MAX_OPERANDS + 1))
def test_packs_of_results_are_summed(runtime, rng, dtype, shift, chunks, blocks, threads, operands):
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
    line, item = packs * width, as_dtype(dtype).itemsize
    kept = [[terms * line, width if x.shape[2] > 1 else 0] for x in hosts]
    along = sum((x.shape[2] > 1) << number for number, x in enumerate(hosts))
    loops = nest([rows, packs], kept, [terms], [[line]] * operands)
    wide = accumulator(dtype) if chunks > 1 else dtype
    assert all(x.strides[1] == line * item for x in arrays)
    memory = empty(runtime, (rows * line * chunks + shift,), as_dtype(wide))
    numbers = job(loops, rows * packs, terms, 1, chunks, 0, 1, along)
    launch(runtime, Kernel("reduce_columns", dtype, wide, operands), blocks, threads, numbers, *arrays, memory[shift:])
    parts = runtime.to_host(memory[shift:]).reshape(rows, line, chunks)
    result = parts[..., 0] if chunks == 1 else sum_of([*np.moveaxis(parts, -1, 0)], wide).astype(as_dtype(dtype))
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


# ---- Permuting copies


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("sizes", [(1, 1, 1), (2, 67, 131), (3, 64, 32), (2, 31, 5)], ids=str)
@pytest.mark.parametrize("conjugated", [0, 1])
def test_tiles_are_transposed(runtime, rng, dtype, sizes, conjugated):
    turns, columns, rows = sizes
    source = values(rng, sizes, dtype)
    array, out = runtime.to_device(source), empty(runtime, (rows, turns, columns), as_dtype(dtype))
    around = nest([turns], [[columns * rows], [columns]], [], [[], []])
    numbers = job(around, turns, rows, columns, rows, turns * columns, conjugated)
    for blocks in (1, 3):
        launch(runtime, Kernel("permute", dtype, dtype), blocks, 256, numbers, array, out)
        expected = numpy_einsum("bcr->rbc", source, dtype=dtype)
        result = runtime.to_host(out)
        np.testing.assert_array_equal(result, expected.conj() if conjugated and source.dtype.kind == "c" else expected)
        assert source.dtype.kind != "b" or set(result.view(np.uint8).ravel()) <= {0, 1}


@pytest.mark.parametrize("barrier", [0, 1])
def test_tiles_without_one_of_their_barriers_go_wrong(rng, barrier):
    kernel = Kernel("permute", "float32", "float32")
    parts = kernel_text(kernel).rsplit("__syncthreads();", 2)
    assert len(parts) == 3
    kept = ["__syncthreads();"] * 2
    kept[barrier] = ""
    text = parts[0] + kept[0] + parts[1] + kept[1] + parts[2]
    run, _ = host.bind(host.compile_kernels(text, {f"specialised_{kernel.entry}": kernel.entry}), kernel.entry)
    x, wrong = rng.random((131, 67), np.float32), []
    for last_thread_first in (False, True):
        out = np.empty((67, 131), np.float32)
        numbers = job(nest([], [[], []], [], [[], []]), 1, 67, 131, 67, 131, 0)
        run(1, 256, (numbers, host.address(x), host.address(out)), last_thread_first)
        wrong.append(not np.array_equal(out, x.T))
    assert any(wrong)
