"""numpy's loops in blocks and parts: the same numbers as its plain ones, for every layout and number of threads."""

import itertools

import numpy as np
import pytest
from layouts import strided
from numpy.lib.stride_tricks import as_strided

import gpueinsum as ge
from gpueinsum.backends.cpu import loops, threads


@pytest.fixture(params=[1, 3])
def shared(request, monkeypatch):
    """Loops that block and share what is small, too, on one thread and on three."""
    monkeypatch.setattr(threads, "_threads", request.param)
    threads._executor.cache_clear()
    for name, value in {"_LARGE": 256, "_BLOCK": 256, "_LONG_ROW": 256, "_SHARE": 1}.items():
        monkeypatch.setattr(loops, name, value)


def factors(shapes, rng):
    return [rng.integers(1, 5, shape).astype(float) for shape in shapes]


@pytest.mark.parametrize(
    "shapes",
    [
        [(17, 1), (1, 19)],
        [(17, 1), (17, 19), (1, 19)],
        [(3, 5, 7), (1, 5, 1), (3, 1, 7), (1, 1, 7)],
        [(2, 3, 1, 1), (1, 1, 5, 307)],
        [(1, 3, 1, 40), (2, 3, 5, 40)],
        [(1, 1000), (3, 1), (3, 1000)],
        [(5,), (5,)],
        [(31, 1, 8), (1, 48, 8)],
        [(31, 1, 8), (31, 48, 8), (1, 1, 8), (31, 1, 1)],
        [(31, 1, 8), (1, 47, 8)],
        [(31, 1, 8), (1, 48, 1)],
    ],
)
def test_products_are_those_of_numpy_in_every_layout(shapes, shared, rng):
    arrays = factors(shapes, rng)
    expected = arrays[0]
    for factor in arrays[1:]:
        expected = expected * factor
    for layouts in itertools.islice(itertools.product(*map(strided, arrays)), 64):
        out = np.full(expected.shape, np.nan)
        loops.product(out, layouts)
        np.testing.assert_array_equal(out, expected)


def test_numpys_buffer_is_left_as_it_was(rng):
    before = np.getbufsize()
    loops.product(np.empty((300, 400)), [rng.random((300, 1)), rng.random((1, 400))])
    assert np.getbufsize() == before
    with np.errstate(over="raise"), pytest.raises(FloatingPointError):
        loops.product(np.empty((300, 400)), [np.full((300, 1), 1e300), np.full((1, 400), 1e300)])
    assert np.getbufsize() == before


@pytest.mark.parametrize(
    "expression", ["i,j->ij", "i,ij,j->ij", "ij,ij,j->ij", "ik,jk->ijk", "ij,kj->ikj", "ij,kl->ikjl", "ij,ji->ij"]
)
@pytest.mark.parametrize("dtype", ["bool", "int32", "float16", "float64", "complex64"])
def test_large_products_with_nothing_summed_agree_with_numpys_einsum(expression, dtype, rng):
    size = {"i": 37, "j": 29, "k": 41, "l": 31} if "k" in expression else {"i": 211, "j": 283}
    terms = expression.split("->")[0].split(",")
    operands = [rng.integers(-2, 3, [size[label] for label in term]).astype(dtype) for term in terms]
    expected = np.einsum(expression, *operands)
    for arrays in zip(*(itertools.islice(itertools.cycle(strided(x)), 12) for x in operands), strict=True):
        result = ge.einsum(expression, *arrays)
        assert result.dtype == expected.dtype
        np.testing.assert_array_equal(result, expected)


SUMS = ["ij->i", "ij->j", "ij->", "aibi->ab", "aibi->ba", "bii->i", "bii->bi", "iijj->ij", "ij,jk->ki", "k,ij,i->ik"]


@pytest.mark.parametrize("dtype", ["bool", "int32", "float64"])
@pytest.mark.parametrize("expression", SUMS)
def test_sums_are_those_of_numpy_in_every_layout(expression, dtype, shared, rng):
    size = {"a": 13, "b": 11, "i": 17, "j": 5, "k": 2}
    terms = expression.split("->")[0].split(",")
    arrays = [rng.integers(0, 3, [size[label] for label in term]).astype(dtype) for term in terms]
    expected = np.einsum(expression, *arrays)
    out = expression.split("->")[1]
    shared = (out[-1], 3) if out else ()
    run = loops.einsum_loop(expression, [size[label] for label in out], 1 << 20, *shared)
    for operands in itertools.product(*map(strided, arrays)):
        result = run(*operands)
        assert result.dtype == expected.dtype
        np.testing.assert_array_equal(result, expected)


@pytest.mark.parametrize("expression", ["xyij,ij->xy", "xyij,ij->yx", "xyij,ji->xy", "ij,xyij->xy", "xiyj,ij->xy"])
def test_patches_that_overlap_agree_with_numpys_einsum(expression, rng):
    image = rng.integers(-3, 4, (262, 244)).astype("float32")
    patches = as_strided(image, (256, 240, 7, 5), image.strides * 2)
    terms = expression.split("->")[0].split(",")
    weights = rng.integers(-3, 4, (7, 5)).astype("float32")
    operands = [
        patches.transpose(["xyij".index(label) for label in term])
        if len(term) == 4
        else weights.T
        if term == "ji"
        else weights
        for term in terms
    ]
    np.testing.assert_array_equal(ge.einsum(expression, *operands), np.einsum(expression, *operands))
