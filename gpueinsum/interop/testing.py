"""Tests of users' code on every backend at hand: a pytest fixture, and a comparison with tolerances by dtype."""

from __future__ import annotations

import importlib
from typing import Any

import numpy as np
import pytest

from gpueinsum.backends.operands import host_array, on_device
from gpueinsum.backends.select import cuda_backend
from gpueinsum.errors import DeviceError

Array = np.ndarray[Any, Any]

# At least twenty times the largest error of two products in a row, sums of up to 30,000 elements, relative to the
# largest element of the result: float16 2.0e-4, bfloat16 1.7e-3, float32 4.1e-7, float64 6.3e-16. Others are exact.
TOLERANCES = {
    "float16": 5e-3,
    "bfloat16": 4e-2,
    **dict.fromkeys(("float32", "complex64"), 1e-5),
    **{np.dtype(name).name: 1e-12 for name in ("float64", "complex128", "longdouble", "clongdouble")},
}


@pytest.fixture(scope="session", params=["numpy", "cupy"])  # hypothesis refuses fixtures that are made for each test
def xp(request: pytest.FixtureRequest) -> Any:
    """The module that makes a test's arrays: numpy, then CuPy, which is skipped where no GPU can be used."""
    if request.param == "cupy":
        try:
            cuda_backend()
        except DeviceError as error:
            pytest.skip(f"no GPU: {error}")
    return importlib.import_module(request.param)


def assert_allclose(actual: Any, expected: Any, *, rtol: float | None = None, atol: float | None = None) -> None:
    """Check that |actual - expected| <= atol + rtol * |expected| for every element, and that shapes and dtypes agree.

    Args:
        actual, expected: Arrays of any library that `einsum` takes, on any device, or lists and numbers, which have no
            dtype to compare.
        rtol: By default 5e-3 for float16, 4e-2 for bfloat16, 1e-5 for float32 and complex64, 1e-12 for float64 and
            complex128, and 0 for all others; the larger one if a list is compared with an array.
        atol: By default rtol times the largest finite |expected|: terms of a sum may cancel.

    Infinities equal infinities of the same sign, and nan equals nan.

    Raises AssertionError, which names the element that is off most.

    >>> assert_allclose(np.float32([1.0, 2.0]), [1.0, 2.001])
    Traceback (most recent call last):
    AssertionError: element [1] is 2.0, not 2.001: off by 0.001, but only 4e-05 is allowed; 1 of 2 elements differ
    """
    __tracebackhide__ = True  # pytest shows the caller's line
    got, wanted = to_host(actual), to_host(expected)
    if got.shape != wanted.shape:
        raise AssertionError(f"shape {got.shape}, not {wanted.shape}")
    if got.dtype.name != wanted.dtype.name and hasattr(actual, "dtype") and hasattr(expected, "dtype"):
        raise AssertionError(f"dtype {got.dtype.name}, not {wanted.dtype.name}")
    if rtol is None:
        rtol = max(TOLERANCES.get(array.dtype.name, 0.0) for array in (got, wanted))
    size = np.abs(_wide(wanted))
    if atol is None:
        atol = rtol * float(size[np.isfinite(size)].max(initial=0))
    is_equal = (got == wanted) | ((got != got) & (wanted != wanted))
    with np.errstate(invalid="ignore", over="ignore"):
        error = np.abs(_wide(got) - _wide(wanted))
        allowed = np.where(np.isfinite(size), atol + rtol * size, 0.0)
        is_close = is_equal | (error <= allowed) if rtol or atol else is_equal  # large integers are no float64
        excess = np.where(is_close, -1, np.nan_to_num(error - allowed, nan=np.inf))
    if not is_close.all():
        at = np.unravel_index(int(excess.argmax()), got.shape)
        where = f"element [{', '.join(map(str, at))}]" if at else "the value"
        bound = f"only {allowed[at]:.3g} is allowed" if allowed[at] else "they must be equal"
        raise AssertionError(
            f"{where} is {got[at]}, not {wanted[at]}: off by {error[at]:.3g}, but {bound}; "
            f"{np.count_nonzero(~is_close)} of {got.size} elements differ"
        )


def to_host(array: Any) -> Array:
    """An array of any library, on any device, as numpy's."""
    if hasattr(array, "detach"):  # a tensor of PyTorch's, which may be conjugated, negated or differentiated later
        array = array.detach().cpu().resolve_conj().resolve_neg()
        if str(array.dtype) == "torch.bfloat16":  # numpy gets the bits, as it has no such dtype of its own
            bfloat16 = importlib.import_module("ml_dtypes").bfloat16
            return to_host(array.view(importlib.import_module("torch").int16)).view(bfloat16)
    if on_device(array):
        backend = cuda_backend()
        return np.asarray(backend.hand_back(backend.asarray(array), stays=False))
    return host_array(array)


def _wide(array: Array) -> Array:
    """In a dtype in which differences do not overflow."""
    if array.dtype.kind == "c":
        return array.astype(np.result_type(array.dtype, np.complex128))
    return array.astype(np.longdouble if array.dtype.char == "g" else np.float64)
