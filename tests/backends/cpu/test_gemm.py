"""A pair as one product of numpy's: of views as a mapping says, or of arrays of any strides."""

import itertools

import numpy as np
import pytest
from layouts import strided

import gpueinsum as ge


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
