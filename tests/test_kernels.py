"""The kernels on a device, against numpy: every element type, odd strides, any sharing of the work among threads."""

from itertools import product

import ml_dtypes
import numpy as np
import pytest

from gpueinsum.backends.launch import KERNELS, Kernel, accumulator, expand_nest, nest

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


def sum_on_device(runtime, subscripts, *arrays, result=None, sharing=SHARINGS[0], conjugated=0):
    """reduce or multiply_reduce of device arrays, by the strides of their labels."""
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
    loops = nest([sizes[label] for label in out], columns[0], [sizes[label] for label in summed], columns[1])
    outputs, many = (int(np.prod([sizes[label] for label in labels], dtype=int)) for labels in (out, summed))

    source = arrays[0].dtype.name
    result = result or source
    name = "reduce" if len(arrays) == 1 else "multiply_reduce"
    pointers = [runtime.pointer(x) for x in arrays]
    lanes, chunks, blocks, threads = sharing
    destination = runtime.empty([sizes[label] for label in out], as_dtype(result))
    if chunks == 1:
        runtime.launch(
            Kernel(name, source, result),
            blocks,
            threads,
            loops,
            *pointers,
            runtime.pointer(destination),
            outputs,
            many,
            lanes,
            1,
            conjugated,
        )
        return runtime.to_host(destination)
    wide = accumulator(result)
    parts = runtime.empty((outputs, chunks), as_dtype(wide))
    runtime.launch(
        Kernel(name, source, wide),
        blocks,
        threads,
        loops,
        *pointers,
        runtime.pointer(parts),
        outputs,
        many,
        lanes,
        chunks,
        conjugated,
    )
    added = nest([outputs], [[chunks]], [chunks], [[1]])
    runtime.launch(
        Kernel("reduce", wide, result),
        blocks,
        threads,
        added,
        runtime.pointer(parts),
        runtime.pointer(destination),
        outputs,
        chunks,
        1,
        1,
        0,
    )
    return runtime.to_host(destination)


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
    ("source", "result"), [(k.source, k.result) for k in KERNELS if k.name == "reduce" and k.source != k.result]
)
@pytest.mark.parametrize("subscripts", ["ijk->j", "i,j->ij", "kij,kij->k"])
def test_sums_convert_between_halves_and_float32(runtime, rng, subscripts, source, result):
    arrays = operands(rng, subscripts, source)
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


def add_on_device(runtime, lhs, rhs, out=None, blocks=2, threads=37):
    """add of two device arrays, into a new one or one of them."""
    out = runtime.empty(lhs.shape, lhs.dtype) if out is None else out
    strides = [[stride // x.dtype.itemsize for stride in x.strides] for x in (lhs, rhs)]
    loops = nest(lhs.shape, strides, [], [[], []])
    kernel = Kernel("add", lhs.dtype.name, lhs.dtype.name)
    runtime.launch(kernel, blocks, threads, loops, *map(runtime.pointer, (lhs, rhs, out)), out.size)
    return runtime.to_host(out)


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
    transposed = runtime.to_device(np.ascontiguousarray(y.T)).T
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


def expand_on_device(runtime, subscripts, array, sizes=SIZES, blocks=2, threads=37):
    """expand of a device array: a label's first place in the output carries the stride."""
    term, out = subscripts.split("->")
    sizes = sizes | dict(zip(term, array.shape, strict=True))
    same = [out.index(label) for label in out]
    strides = [element_stride(array, term, label) if same[d] == d else 0 for d, label in enumerate(out)]
    shape = [sizes[label] for label in out]
    destination = runtime.empty(shape, array.dtype)
    dtype = array.dtype.name
    arguments = (
        expand_nest(shape, strides, same),
        runtime.pointer(array),
        runtime.pointer(destination),
        destination.size,
    )
    runtime.launch(Kernel("expand", dtype, dtype), blocks, threads, *arguments)
    return runtime.to_host(destination)


def numpy_expand(subscripts, array):
    term, out = subscripts.split("->")
    expected = np.zeros([SIZES[label] for label in out], array.dtype)
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
    for blocks, threads in ((1, 1), (3, 64)):
        result = expand_on_device(runtime, subscripts, device, blocks=blocks, threads=threads)
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
    c = runtime.empty((batch, m, n), a.dtype)
    pointers = [runtime.pointer(x) for x in (a, b, c)]
    strides = [stride // x.dtype.itemsize for x in (a, b, c) for stride in x.strides]
    dtype = a.dtype.name
    runtime.launch(Kernel("integer_gemm", dtype, dtype), blocks, 256, *pointers, batch, m, n, k, *strides)
    return runtime.to_host(c)


def test_matrix_products_take_negative_and_zero_strides(runtime, rng):
    a, b = values(rng, (2, 5, 7), "int16"), values(rng, (7, 3), "int16")
    right = runtime.strided(runtime.to_device(b), (2, 7, 3), (0, 6, 2))
    result = product_on_device(runtime, runtime.to_device(a)[:, ::-1, ::-1], right, blocks=2)
    np.testing.assert_array_equal(result, np.einsum("bik,kj->bij", a[:, ::-1, ::-1], b))
