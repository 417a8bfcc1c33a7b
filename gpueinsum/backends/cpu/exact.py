"""Products of integers and bools by those of floats, wherever that gives the same bits."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]
Pair = Callable[[Array, Array], Array]

_EXACT = {"float32": 1 << 24, "float64": 1 << 53}  # all integers up to these are exact


def by_floats(product: Pair, loop: Pair, dtype: np.dtype[Any], terms: int) -> Pair:
    """`product` of integers or bools, computed in floats if these hold every sum of so many terms, else `loop`."""
    if dtype.kind == "b":  # a sum of ones and zeros is zero in any precision only if all are
        return lambda x, y: product(x.astype(np.float32), y.astype(np.float32)) != 0
    info = np.iinfo(dtype)
    largest = max(-int(info.min), int(info.max)) ** 2 * terms
    known = next((name for name, exact in _EXACT.items() if largest <= exact), None)

    def multiply(x: Array, y: Array) -> Array:
        if known is None and _magnitude(x) * _magnitude(y) * terms > _EXACT["float64"]:
            return loop(x, y)
        kind = known or "float64"
        sums = product(x.astype(kind), y.astype(kind))
        return sums.astype(np.int64).astype(dtype, copy=False)  # which wraps, as a float does not

    return multiply


def _magnitude(x: Array) -> int:
    return max(int(x.max()), -int(x.min()))
