"""Arrays of any library that has array-API names, by the library that has nothing else: results are its arrays."""

import numpy as np
import pytest
from call_checks import assert_passes
from matrix_products import PRODUCTS
from random_gradients import Call, arguments_of, random_plain_call, wide

import gpueinsum as ge

strict = pytest.importorskip(
    "array_api_strict", reason="array-api-strict is not installed: its arrays are not computed with"
)


@pytest.fixture
def matrices(rng):
    return rng.standard_normal((2, 3)), rng.standard_normal((3, 5))


def assert_is(result, expected):
    assert type(result) is type(strict.ones(1))
    np.testing.assert_allclose(np.asarray(result), expected, rtol=1e-12)
    assert np.asarray(result).dtype == expected.dtype


@pytest.mark.parametrize("name", PRODUCTS)
def test_results_are_arrays_of_the_library(name, matrices):
    a, b = matrices
    assert_is(PRODUCTS[name](strict.asarray(a), strict.asarray(b)), a @ b)


def test_gradients_are_arrays_of_the_library(matrices):
    a, b = matrices
    value, pullback = ge.vjp("ij,jk->ik", strict.asarray(a), strict.asarray(b))
    for cotangent in (value, np.asarray(value)):
        for gradient, expected in zip(pullback(cotangent), (a @ b @ b.T, a.T @ a @ b), strict=True):
            assert_is(gradient, expected)


def test_the_library_promotes_dtypes(matrices):
    a, b = matrices
    single = strict.asarray(a.astype("f4"))
    assert_is(ge.einsum("ij,jk->ik", single, strict.asarray(b)), a.astype("f4") @ b)
    assert ge.einsum("ij,->ij", single, 2).dtype == strict.float32
    assert ge.einsum("ij,ij->ij", single, np.ones((2, 3), "f4")).dtype == strict.float32
    message = "array_api_strict has no dtype for all operands: .* cannot be type promoted together"
    with pytest.raises(ge.DtypeError, match=message):
        ge.einsum("ij,jk->ik", single, strict.ones((3, 5), dtype=strict.int64))
    with pytest.raises(ge.DtypeError, match="array_api_strict has no arrays of float16"):
        ge.einsum("ij->i", single, dtype="float16", casting="unsafe")


def test_what_the_library_cannot_do_is_refused(matrices):
    a, b = map(strict.asarray, matrices)
    with pytest.raises(ge.OutError, match="not for operands of array_api_strict"):
        ge.einsum("ij,jk->ik", a, b, out=strict.ones((2, 5)))
    there = strict.asarray(matrices[0], device=strict.Device("device1"))
    with pytest.raises(ge.OperandError, match=r"operand 0 is on .*device1.*, but operand 1 is on .*move them to one"):
        ge.einsum("ij,jk->ik", there, b)
    with pytest.raises(ge.OperandError, match="operand 0 is no array: Can't convert array on the"):
        ge.einsum("ij->i", there)


@pytest.mark.parametrize("library", ["jax.numpy", "torch"])
def test_two_libraries_are_refused(library, matrices):
    other = pytest.importorskip(library, reason=f"{library} is not installed: it meets no other library")
    name = library.partition(".")[0]
    mine, others = strict.ones(3), other.ones(3)
    for operands, message in (
        ((mine, others), f"operand 0 of array_api_strict and operand 1 of {name}: convert some"),
        ((np.ones(3), others, mine, others), f"operand 1 of {name} and operand 2 of array_api_strict"),
    ):
        with pytest.raises(ge.OperandError, match=message):
            ge.einsum(",".join("i" * len(operands)), *operands)
        with pytest.raises(ge.OperandError, match=message):
            ge.vjp(",".join("i" * len(operands)), *operands)


def test_random_calls_are_those_of_numpys_arrays():
    assert_passes(check, range(200), random_plain_call)


def check(call: Call) -> None:
    """Values and gradients of arrays of the library and of numpy's, as the caller has them."""
    cotangent = wide(call.directions[0].cotangent).astype(call.dtype)
    options = {**call.options, "wrt": call.positions}
    value, pullback = ge.vjp(*call.args, **options)
    mine = [strict.asarray(np.array(operand)) for operand in call.operands]
    ours, pull = ge.vjp(*arguments_of(call.subscripts, mine), **options)
    results = zip([ours, *pull(strict.asarray(cotangent))], [value, *pullback(cotangent)], strict=True)
    for got, expected in results:
        assert type(got) is type(strict.ones(1))
        assert (got.shape, np.asarray(got).dtype) == (expected.shape, expected.dtype)
        np.testing.assert_allclose(np.asarray(got), expected, rtol=1e-9, atol=1e-9)
