"""A pair as one product of numpy's: of views as a mapping says, or of arrays of any strides."""

import itertools

import numpy as np
import pytest
from layouts import strided

import gpueinsum as ge
from gpueinsum.backends.cpu import gemm, threads


@pytest.fixture(params=[1, 3])
def shared(request, monkeypatch):
    """Batches of what is small are shared, too, on one thread and on three."""
    monkeypatch.setattr(threads, "_threads", request.param)
    threads._executor.cache_clear()
    monkeypatch.setattr(gemm, "_SHARE", 64)


@pytest.mark.parametrize("dtype", ["float32", "float64", "complex64"])
@pytest.mark.parametrize("expression", ["ij,ji->", "ij,ji->i", "ij,ji->j", "ij,ij->i", "ij,ij->", "ji,ij->i"])
def test_sums_along_rows_of_one_and_columns_of_the_other_are_right_in_every_layout(expression, dtype, rng):
    size = {"i": 520, "j": 530}
    terms = expression.split("->")[0].split(",")
    x, y = (rng.integers(-3, 4, [size[label] for label in term]).astype(dtype) for term in terms)
    expected = np.einsum(expression, x, y)
    for u, v in itertools.product(strided(x), strided(y)):
        np.testing.assert_array_equal(ge.einsum(expression, u, v), expected)


def test_long_dots_of_a_row_and_a_column_are_right(rng):
    x, y = rng.integers(-3, 4, (1, 300_000)).astype(float), rng.integers(-3, 4, (300_000, 1)).astype(float)
    np.testing.assert_array_equal(ge.einsum("ij,jk->ik", x, y), x @ y)
    np.testing.assert_array_equal(ge.einsum("ij,jk->", x, y), (x @ y)[0, 0])
    np.testing.assert_array_equal(ge.einsum("ij,ji->i", x, y), (x @ y)[0])


@pytest.mark.parametrize(
    "shapes",
    [
        ((4099, 4, 4), (4099, 4, 4)),
        ((2, 2), (67, 2, 256)),
        ((1, 3, 5), (7001, 5, 1)),
        ((3, 500, 2, 6), (3, 500, 6, 7)),
        ((5, 31, 37), (5, 37, 41)),
        ((0, 4, 4), (0, 4, 4)),
        ((4, 4), (4, 4)),
    ],
)
@pytest.mark.parametrize("dtype", ["float32", "complex128"])
def test_batches_of_small_matrices_are_numpys(shapes, dtype, shared, rng):
    x, y = (rng.integers(-5, 5, shape).astype(dtype) for shape in shapes)
    expected = np.matmul(x, y)
    out, batch = np.full(expected.shape, np.nan, dtype), expected.shape[:-2]
    gemm._matmul(out, np.broadcast_to(x, (*batch, *x.shape[-2:])), np.broadcast_to(y, (*batch, *y.shape[-2:])))
    np.testing.assert_array_equal(out, expected)
