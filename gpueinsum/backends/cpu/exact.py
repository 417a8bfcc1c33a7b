"""Products of integers and bools by those of floats, wherever that gives the same bits."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from gpueinsum.schedule.cpu import exact_floats

Array = np.ndarray[Any, Any]
Pair = Callable[[Array, Array], Array]


def by_floats(
    product: Callable[[Array, Array, np.dtype[Any]], Array], loop: Pair, dtype: np.dtype[Any], terms: int
) -> Pair:
    """The product of integers or bools by `product` in floats if these hold every sum of so many terms, else `loop`."""
    name, largest = exact_floats(dtype.name, terms)
    floats = np.dtype(name)
    if dtype.kind == "b":
        return lambda x, y: product(x, y, floats) != 0

    def multiply(x: Array, y: Array) -> Array:
        if largest is not None and _magnitude(x) * _magnitude(y) * terms > largest:
            return loop(x, y)
        sums = product(x, y, floats)
        return sums.astype(np.int64).astype(dtype, copy=False)  # which wraps, as a float does not

    return multiply


def _magnitude(x: Array) -> int:
    return max(int(x.max()), -int(x.min()))
