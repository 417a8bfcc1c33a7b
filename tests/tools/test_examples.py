"""The worked examples, on every backend."""

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import gpueinsum as ge
from gpueinsum.tools.examples import EXAMPLES, relative_error, tolerance


@pytest.mark.parametrize("name", EXAMPLES)
def test_example_agrees_with_numpy(einsum_on: Callable[..., Any], name: str) -> None:
    result, expected = EXAMPLES[name](np, einsum_on)
    assert relative_error(result, expected) <= tolerance(result)


@pytest.mark.parametrize("name", EXAMPLES)
def test_example_runs_where_the_arrays_are(name: str) -> None:
    xp = ge.array_module()
    result, expected = EXAMPLES[name](xp)
    assert relative_error(result, expected) <= tolerance(result)


@pytest.mark.parametrize("name", EXAMPLES)
def test_a_wrong_einsum_is_noticed(name: str) -> None:
    def slightly_wrong(*args: Any) -> Any:
        return ge.einsum(*args) * (1 + 1e-3)

    result, expected = EXAMPLES[name](np, slightly_wrong)
    assert relative_error(result, expected) > tolerance(result)


def test_an_error_is_infinite_where_shapes_differ_and_nan_where_the_result_is() -> None:
    assert relative_error(np.ones(3), np.ones((3, 1))) == np.inf
    assert not relative_error(np.array([1.0, np.nan]), np.ones(2)) <= 1


def test_the_softmax_gradient_of_the_issue() -> None:
    result, expected = EXAMPLES["softmax Jacobian"](np)
    np.testing.assert_allclose(result, [[-0.8, 0.5], [0.5, 0.1], [0.3, -0.6]], atol=1e-15)
    np.testing.assert_allclose(expected, result, atol=1e-15)


def test_examples_take_any_einsum() -> None:
    for name in ("convolution", "matrix chain", "attention"):
        result, expected = EXAMPLES[name](np, functools.partial(np.einsum, optimize=True))
        assert relative_error(result, expected) <= tolerance(result)
