"""Is a result right? Compared with a reference in double precision: each element, or the whole where it is large.

A large result is compared by a projection: summed with random weights along every axis, it is one number, which the
operands, summed with the same weights, give at the price of reading them once (Freivalds 1977). The weights are between
1/2 and 3/2, of either sign, so that no element is lost and no two cancel. An element that is off by e moves the
projection by about e, and rounding errors of n elements move it by about their size times √n.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import opt_einsum

import gpueinsum as ge
from benchmarks.workloads import Workload
from gpueinsum.costs.counts import total_flops

Host = np.ndarray[Any, Any]

# The error that we accept, as a part of the largest element of the result, or of its norm where it is projected:
# rounding of operands, result and intermediates, with long sums allowed for.
_TOLERANCE = {
    "float16": 4e-3,
    "bfloat16": 3e-2,
    "tf32": 4e-3,
    "float32": 1e-5,
    "complex64": 1e-5,
    "float64": 1e-11,  # a closed network may cancel five of its sixteen digits
    "complex128": 1e-11,
}
# Up to so many operations and elements the whole result is computed in double precision: about a tenth of a second.
_MOST_FLOPS, _MOST_ELEMENTS = 2 * 10**9, 10**7
_SEED = 19770101


@dataclass(frozen=True)
class Expected:
    """What a result has to be: all of it, or its projection by these weights."""

    shape: tuple[int, ...]
    dtype: str
    tolerance: float
    whole: Host | None = None
    weights: Sequence[Host] = ()  # of each axis
    projection: complex = 0

    def fault(self, array: Host, dtype: str) -> str | None:
        """What is wrong with a result, on the host and of this dtype where it was computed; None if it is right."""
        if array.shape != self.shape or dtype != self.dtype:
            return f"{dtype} {array.shape}, not {self.dtype} {self.shape}"
        if self.whole is not None:
            off = float(np.max(np.abs(array - self.whole), initial=0))
            allowed = self.tolerance * float(np.max(np.abs(self.whole), initial=0))
            how = ""
        else:
            found, norm = _projected(array, self.weights)
            off, allowed = abs(found - self.projection), self.tolerance * norm
            how = " in a projection"
        if not off <= allowed:  # which NaN is not
            return f"off by {off:.1e} where {allowed:.1e} is allowed{how}"
        return None


def expected(workload: Workload, equation: str, operands: Sequence[Host]) -> Expected:
    """What this equation of these operands, in the workload's dtype, has to be."""
    terms, result = equation.split("->")
    size = {
        label: n
        for term, x in zip(terms.split(","), operands, strict=True)
        for label, n in zip(term, x.shape, strict=True)
    }
    shape = tuple(size[label] for label in result)
    tolerance = _TOLERANCE.get(workload.precision or workload.dtype, 0.0)  # integers are exact
    if not result or _is_small(equation, operands, shape):
        return Expected(shape, workload.dtype, tolerance, whole=reference(equation, *operands))
    rng = np.random.default_rng(_SEED)
    weights = [rng.choice([-1.0, 1.0], length) * rng.uniform(0.5, 1.5, length) for length in shape]
    projection = complex(reference(f"{terms},{','.join(result)}->", *operands, *weights))
    tolerance = tolerance or _TOLERANCE["float64"]  # the projection of integers is not exact
    return Expected(shape, workload.dtype, tolerance, weights=weights, projection=projection)


def reference(equation: str, *operands: Host) -> Host:
    """The result in double precision, by numpy in opt_einsum's order."""
    wide = np.result_type(np.float64, *(x.dtype for x in operands if x.dtype.name != "bfloat16"))
    return np.asarray(opt_einsum.contract(equation, *(x.astype(wide) for x in operands), optimize="auto"))


def _is_small(equation: str, operands: Sequence[Host], shape: Sequence[int]) -> bool:
    if math.prod(shape) > _MOST_ELEMENTS:
        return False
    return total_flops(ge.einsum_plan(equation, *(x.shape for x in operands), dtype="float64")) <= _MOST_FLOPS


def _projected(array: Host, weights: Sequence[Host]) -> tuple[complex, float]:
    """Summed over all axes with these weights; and the norm. In double precision, some of the first axis at a time."""
    wide = np.result_type(np.float64, array.dtype if array.dtype.kind in "fc" else np.float64)
    rows = max(1, _AT_ONCE * len(array) // array.size)
    projection, squares = 0j, 0.0
    for first in range(0, len(array), rows):
        part = array[first : first + rows].astype(wide)
        squares += float(np.linalg.norm(part.ravel())) ** 2
        for axis in reversed(weights[1:]):
            part = part @ axis
        projection += complex(part @ weights[0][first : first + rows])
    return projection, math.sqrt(squares)


_AT_ONCE = 1 << 19  # elements, so that their doubles fit a processor's cache
