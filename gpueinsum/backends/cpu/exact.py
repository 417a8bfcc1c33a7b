"""Integers, bools and float16 by the arithmetic of wider floats, wherever that gives the same bits."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from gpueinsum.backends.cpu import pool as memory
from gpueinsum.backends.cpu import threads

Array = np.ndarray[Any, Any]
_Product = Callable[[Array, Array], Array]

_EXACT = {"float32": 1 << 24, "float64": 1 << 53}  # all integers up to these are exact
_BLOCK = 1 << 15  # elements whose conversion stays in cache
# Fewer float16 are numpy's to cast, more all threads'. 2**18 took 0.43 ms to float32 by numpy, 0.16 ms by their bits,
# and back 0.66 and 0.55 ms, or 1.57 and 1.02 where they are subnormal (numpy 2.4, one thread, medians).
_FEWEST, _SHARE = 1 << 14, 1 << 16
_INFINITY = np.uint16(0x7C00)  # as bits of a float16, as those of a float32 below
_TOO_LARGE, _SMALLEST_NORMAL, _HALF = np.uint32(0x47800000), np.uint32(0x38800000), np.uint32(0x3F000000)


def by_floats(product: Callable[[str], _Product], loop: _Product, dtype: np.dtype[Any], terms: int) -> _Product:
    """The product of matrices of integers or bools as that of floats if these hold every sum of so many terms, else
    `loop`. `product` gives that of a dtype."""
    if dtype.kind == "b":  # a sum of ones and zeros is zero in any precision only if all are
        count = product("float32")
        return lambda x, y: count(x.astype(np.float32), y.astype(np.float32)) != 0
    info = np.iinfo(dtype)
    largest = max(-int(info.min), int(info.max)) ** 2 * terms
    known = next((name for name, exact in _EXACT.items() if largest <= exact), None)
    floats = product(known or "float64")

    def multiply(x: Array, y: Array) -> Array:
        if known is None and _magnitude(x) * _magnitude(y) * terms > _EXACT["float64"]:
            return loop(x, y)
        kind = known or "float64"
        sums = floats(x.astype(kind), y.astype(kind))
        return sums.astype(np.int64).astype(dtype, copy=False)  # which wraps, as a float does not

    return multiply


def _magnitude(x: Array) -> int:
    return max(int(x.max()), -int(x.min()))


def cast(x: Any, dtype: np.dtype[Any]) -> Any:
    """`x.astype(dtype, copy=False)`, of numpy's arrays and others; large ones from and to float16 by their bits."""
    convert = _BY_BITS.get((x.dtype.name, dtype.name)) if type(x) is np.ndarray and x.size >= _FEWEST else None
    if convert is None or not (x.flags.c_contiguous or x.flags.f_contiguous):
        return x.astype(dtype, copy=False)
    source = x if x.flags.c_contiguous else x.T
    out = memory.empty(source.shape, dtype)
    flat, target = source.reshape(-1), out.reshape(-1)

    def convert_part(part: slice) -> None:
        for start in range(part.start, part.stop, _BLOCK):
            block = slice(start, min(start + _BLOCK, part.stop))
            convert(flat[block], target[block])

    threads.in_turn(convert_part, flat.size, threads.parts(flat.size, _SHARE))
    return out if source is x else out.T


def _from_half(x: Array, out: Array) -> None:
    """A float16's exponent and mantissa, moved to where float32 has them, are 2**-112 times its value."""
    bits, wide = x.view(np.int16), out.view(np.uint32)
    if np.max(bits & 0x7FFF) >= _INFINITY:  # no such power of two has these
        np.copyto(out, x)
        return
    np.copyto(wide, bits, casting="unsafe")  # with the sign in all the upper bits
    np.left_shift(wide, 13, out=wide)
    np.bitwise_and(wide, np.uint32(0x8FFFE000), out=wide)
    np.multiply(out, np.float32(2.0**112), out=out)


def _to_half(x: Array, out: Array) -> None:
    """The other way, rounded to nearest even: half a unit of the last place is added, less one bit where that is even.

    What is subnormal as a float16 is rounded by adding 1/2, the unit of whose last place is that of the result.
    """
    bits = x.view(np.uint32)
    size = np.bitwise_and(bits, np.uint32(0x7FFFFFFF))
    if size.max() >= _TOO_LARGE:
        out[...] = x  # as numpy does it, with its warning
        return
    rounded = np.right_shift(size, 13)
    np.bitwise_and(rounded, 1, out=rounded)
    np.add(rounded, size, out=rounded)
    np.subtract(rounded, np.uint32((112 << 23) - 0xFFF), out=rounded)
    np.right_shift(rounded, 13, out=rounded)
    is_small = size < _SMALLEST_NORMAL
    if is_small.any():
        shifted = (size.view(np.float32) + np.float32(0.5)).view(np.uint32)
        np.copyto(rounded, np.subtract(shifted, _HALF, out=shifted), where=is_small)
    np.right_shift(bits, 16, out=size)
    np.bitwise_and(size, 0x8000, out=size)
    np.copyto(out.view(np.uint16), np.bitwise_or(rounded, size, out=rounded), casting="unsafe")


_BY_BITS: dict[tuple[str, str], Callable[[Array, Array], None]] = {
    ("float16", "float32"): _from_half,
    ("float32", "float16"): _to_half,
}
