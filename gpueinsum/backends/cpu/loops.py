"""numpy's loops over all index points of a few arrays, on all cores where they are long.

No `out` may share memory with what is read.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np

from gpueinsum.backends.cpu import pool, threads
from gpueinsum.language.subscripts import Label, Term

try:  # `np.einsum` without its dispatch in Python, which takes 0.6 us of the 1.5 us of a small call
    from numpy._core.multiarray import c_einsum as _c_einsum
except ImportError:
    _c_einsum = np.einsum
c_einsum = _c_einsum

Array = np.ndarray[Any, Any]

# `np.multiply` copies short rows to a buffer of 8192 elements, if no smaller one is asked for. That costs more than it
# spares where rows have so many bytes: `i,j->ij` with rows of 1600 took 0.45 ms and 0.13 ms (float32), 1.4 and 0.26
# (complex64); with rows of 32 0.57 and 1.64 (float32).
_LONG_ROW, _SMALLEST_BUFFER = 1024, 16
_LARGE = 1 << 17  # bytes of a product that may be worth a thread, or a smaller buffer
# Bytes of a product's part that stay in cache until all of its factors are in: `i,ij,j->ij` of 1500 x 1600, float32,
# took 0.73 ms on two threads with 128 KiB, 0.32 with 1 MiB, 0.69 at once.
_BLOCK = 1 << 20
_SHARE = 2 << 20  # bytes of a product that are worth a thread
_FEW_POINTS = 1 << 11  # index points of a sum that is soon done


def product(out: Array, factors: Sequence[Array]) -> None:
    """`out[...] = the product of the factors`, each with out's axes, of size 1 where it lacks them; C-ordered out."""
    if out.nbytes < _LARGE:
        _multiply(out, factors)
        return
    row = out.shape[-1] * out.itemsize
    buffer = np.getbufsize()
    try:
        if row >= _LONG_ROW:
            np.setbufsize(_SMALLEST_BUFFER)
        parts = threads.parts(out.nbytes, _SHARE)
        threads.in_turn(partial(_multiply_part, out, factors), out.shape[0], parts)
    finally:
        np.setbufsize(buffer)


def _multiply_part(out: Array, factors: Sequence[Array], part: slice) -> None:
    """Two factors at once; more in blocks that stay in cache."""
    rows = part.stop - part.start
    block = rows if len(factors) < 3 else max(1, rows * _BLOCK // max(1, out[part].nbytes))
    for start in range(part.start, part.stop, block):
        index = slice(start, min(start + block, part.stop))
        _multiply(out[index], [factor[index] if len(factor) > 1 else factor for factor in factors])


def _multiply(out: Array, factors: Sequence[Array]) -> None:
    if len(factors) == 1:
        np.copyto(out, factors[0])
        return
    np.multiply(factors[0], factors[1], out=out)
    for factor in factors[2:]:
        np.multiply(out, factor, out=out)


def einsum_loop(
    equation: str, shape: Sequence[int], points: int, label: Label = "", parts: int = 1
) -> Callable[..., Array]:
    """`np.einsum(equation, ...)` as a function of its operands, of so many index points, with a C-ordered result.

    Threads, if there are as many, share it in so many parts along a label of the result.

    A large one is written into an array: with `order="C"` numpy would nest the loops as they are written, and not as
    the operands lie.
    """
    if points < _FEW_POINTS or not shape:
        return partial(c_einsum, equation, order="C" if shape else "K")
    terms, _, out = equation.partition("->")
    parts = min(parts, threads.threads())
    places = [places_of(label, term) for term in (*terms.split(","), out)]

    def run(*arrays: Array) -> Array:
        result = pool.empty(shape, arrays[0].dtype)
        if parts == 1:
            c_einsum(equation, *arrays, out=result)
            return result

        def run_part(part: slice) -> None:
            *operands, target = [part_of(x, place, part) for x, place in zip((*arrays, result), places, strict=True)]
            c_einsum(equation, *operands, out=target)

        threads.in_turn(run_part, shape[out.index(label)], parts)
        return result

    return run


def places_of(label: Label, term: Term) -> tuple[bool, ...]:
    """Of each axis of an array whether it is this label's: a diagonal has several."""
    return tuple([own == label for own in term]) if label in term else ()


def part_of(x: Array, places: tuple[bool, ...], part: slice) -> Array:
    """The part of an array along a label, at these places; all of it if it lacks the label."""
    return x[tuple([part if place else slice(None) for place in places])] if places else x
