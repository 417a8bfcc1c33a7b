"""Every named equation, for every dtype, on every backend, against the oracle."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from expressions import EXPRESSIONS, arguments, random_operands
from oracle import CPU_ONLY_DTYPES, DTYPES, assert_agrees, reference

import gpueinsum as ge


@pytest.mark.parametrize("name", EXPRESSIONS)
def test_named_equation_in_every_dtype(einsum_on: Callable[..., Any], name: str) -> None:
    agrees_in_each(DTYPES, einsum_on, name)


@pytest.mark.parametrize("name", EXPRESSIONS)
def test_named_equation_in_the_dtypes_of_the_cpu(name: str) -> None:
    agrees_in_each(CPU_ONLY_DTYPES, ge.einsum, name)


@pytest.mark.parametrize("name", EXPRESSIONS)
def test_named_equation_in_another_order(einsum_on: Callable[..., Any], name: str) -> None:
    args = arguments_of(name, np.dtype("int16"))
    for optimize in (False, "optimal", "random-greedy"):
        assert_agrees(einsum_on(*args, optimize=optimize), reference(*args))


@pytest.mark.parametrize("name", EXPRESSIONS)
def test_named_equation_into_out(einsum_on: Callable[..., Any], name: str) -> None:
    args = arguments_of(name, np.dtype("float64"))
    expected = reference(*args)
    out = np.full(expected.value.shape, np.nan)
    assert einsum_on(*args, out=out) is out
    assert_agrees(out, expected)


def agrees_in_each(dtypes: tuple[np.dtype, ...], einsum: Callable[..., Any], name: str) -> None:
    failures = {}
    for dtype in dtypes:
        args = arguments_of(name, dtype)
        try:
            assert_agrees(einsum(*args), reference(*args))
        except Exception as error:
            failures[str(dtype)] = error
    assert not failures, "\n".join(f"{dtype}: {error!r}" for dtype, error in failures.items())


def arguments_of(name: str, dtype: np.dtype) -> tuple[Any, ...]:
    subscripts, shapes = EXPRESSIONS[name]
    return arguments(subscripts, random_operands(shapes, dtype))


def test_the_table_has_distinct_equations() -> None:
    assert len(EXPRESSIONS) >= 60
    assert len(set(map(repr, EXPRESSIONS.values()))) == len(EXPRESSIONS)
