"""Single kernels on a device, launched on arrays of every element type, and what numpy makes of the same."""

import ml_dtypes
import numpy as np

from gpueinsum.backends.cuda.copies import expand
from gpueinsum.backends.cuda.program import Address, Launch
from gpueinsum.backends.cuda.source import KERNELS, Kernel, accumulator
from gpueinsum.backends.cuda.sums import Shared, sum_job
from gpueinsum.language.strides import Axis

BFLOAT16 = np.dtype(ml_dtypes.bfloat16)
DTYPES = [kernel.source for kernel in KERNELS if kernel.name == "expand"]
SIZES = {"i": 5, "j": 7, "k": 3, "l": 2}
SHARINGS = [  # lanes, chunks, blocks, threads
    (1, 1, 1, 1),
    (1, 1, 3, 37),
    (1, 5, 2, 64),
    (4, 1, 2, 32),
    (8, 3, 1, 96),
    (32, 1, 2, 64),
    (64, 2, 3, 128),
]


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


def sum_on_device(runtime, subscripts, *arrays, result=None, sharing=SHARINGS[0], conjugated=0, kernel="reduce"):
    """A sum of device arrays, by the strides of their labels; `sharing` may name outputs beside each other, too."""
    kept, kept_strides, summed, summed_strides = loops_of(subscripts, arrays)
    source = arrays[0].dtype.name
    result = result or source
    lanes, chunks, blocks, threads, beside = (*sharing, 1)[:5]
    outer, inner = axes_of(kept, kept_strides), axes_of(summed, summed_strides)
    shared = Shared(kernel, outer, inner, lanes, beside, chunks, (0, -1))
    out = empty(runtime, kept, as_dtype(result))
    numbers = sum_job(shared, conjugated, len(arrays))
    if chunks == 1:
        launch(runtime, Kernel(kernel, source, result, len(arrays)), blocks, threads, numbers, *arrays, out)
        return runtime.to_host(out)
    wide = accumulator(result)
    parts = empty(runtime, (chunks, shared.outputs), as_dtype(wide))
    launch(runtime, Kernel(kernel, source, wide, len(arrays)), blocks, threads, numbers, *arrays, parts)
    outer, inner = [Axis(shared.outputs, (1,))], [Axis(chunks, (shared.outputs,))]
    added = sum_job(Shared(kernel, outer, inner, 1, 1, 1, (0, -1)), 0, 1)
    launch(runtime, Kernel(kernel, wide, result), blocks, threads, added, parts, out)
    return runtime.to_host(out)


def axes_of(sizes, strides):
    """Loops as `sums` takes them, given one list of strides per array."""
    return [Axis(size, steps) for size, steps in zip(sizes, zip(*strides, strict=True), strict=True)]


def element_stride(array, term, label):
    """How many elements apart the neighbours along a label lie; a repeated label walks a diagonal."""
    return sum(stride for stride, own in zip(array.strides, term, strict=True) if own == label) // array.dtype.itemsize


def operands(rng, subscripts, dtype):
    terms = subscripts.split("->")[0].split(",")
    return [values(rng, [SIZES[label] for label in term], dtype) for term in terms]


def assert_same_floats(result, expected):
    """Bit for bit, -0 included; one NaN is as good as another."""
    result_nan, expected_nan = (np.isnan(x.astype(np.float32)) for x in (result, expected))
    np.testing.assert_array_equal(result_nan, expected_nan)
    bits = np.dtype(f"u{expected.itemsize}")
    np.testing.assert_array_equal(result.view(bits)[~result_nan], expected.view(bits)[~expected_nan])


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
