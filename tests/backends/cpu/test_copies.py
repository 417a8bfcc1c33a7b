"""Loops in blocks: the same numbers as numpy's plain ones, for every layout, on either side of every threshold."""

import itertools

import numpy as np
import pytest
from numpy.lib.stride_tricks import as_strided

import gpueinsum as ge
from gpueinsum.backends.cpu import loops, threads


@pytest.fixture(params=[1, 3])
def shared(request, monkeypatch):
    """Loops that tile, block and share what is small, too, on one thread and on three."""
    monkeypatch.setattr(threads, "_threads", request.param)
    monkeypatch.setattr(threads, "_queue", None)
    for name, value in {
        "_NEAR": 64,
        "_PLANE": 8,
        "_CONFLICT": 64,
        "_TILE": 8,
        "_SHARE": 1,
        "_SHARE_OF_PRODUCTS": 64,
        "_SHARE_OF_DIAGONAL": 1,
        "_BLOCK": 256,
        "_WIDE_ROW": 256,
    }.items():
        monkeypatch.setattr(loops, name, value)


def strided(array):
    """The same numbers along negative and wide strides, and in Fortran's order."""
    yield array
    yield np.asfortranarray(array)
    yield array[::-1].copy()[::-1]
    yield np.repeat(array, 2, axis=-1)[..., ::2]


@pytest.mark.parametrize(
    "shape", [(), (7,), (17, 19), (16, 32), (5, 1, 7), (2, 3, 5, 7), (4, 4, 4, 4), (3, 2, 2, 3, 2), (0, 3)]
)
def test_a_copy_holds_what_it_is_a_copy_of_in_every_order_of_axes(shape, shared, rng):
    for axes in itertools.permutations(range(len(shape))):
        for x in strided(rng.random(shape)) if shape else [rng.random(shape)]:
            source = x.transpose(axes)
            out = np.full(source.shape, np.nan)
            loops.copy_to(out, source)
            np.testing.assert_array_equal(out, source)


@pytest.mark.parametrize("dtype", ["bool", "int8", "float16", "complex128", "object"])
def test_a_copy_is_made_of_any_dtype(dtype, shared, rng):
    x = rng.integers(0, 100, (5, 7, 11)).astype(dtype).transpose(2, 1, 0)
    out = np.zeros(x.shape, dtype)
    loops.copy_to(out, x)
    np.testing.assert_array_equal(out, x)


def test_a_copy_of_a_broadcast_array_fills_every_axis(shared, rng):
    for shape, kept in [((5, 7, 11), (5, 1, 11)), ((5, 7, 11), (1, 7, 1)), ((5, 7), (1, 1))]:
        x = np.broadcast_to(rng.random(kept), shape).transpose()
        out = np.zeros(x.shape)
        loops.copy_to(out, x)
        np.testing.assert_array_equal(out, x)


def test_a_copy_goes_where_out_lies(shared, rng):
    x = rng.random((5, 7, 11))
    for axes in itertools.permutations(range(3)):
        out = np.zeros([x.shape[axis] for axis in axes]).transpose(np.argsort(axes))
        loops.copy_to(out, x)
        np.testing.assert_array_equal(out, x)
    wide = np.zeros((5, 7, 22))
    loops.copy_to(wide[..., ::2], x)
    np.testing.assert_array_equal(wide[..., ::2], x)
    assert not wide[..., 1::2].any()


@pytest.mark.parametrize(
    ("shape", "axes"), [((600, 610), (1, 0)), ((512, 512), (1, 0)), ((29, 31, 23, 37), (3, 2, 1, 0))]
)
def test_large_copies_are_right_as_they_are_tiled(shape, axes, rng):
    x = rng.random(shape).transpose(axes)
    out = np.empty(x.shape)
    loops.copy_to(out, x)
    np.testing.assert_array_equal(out, x)


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
        [(31, 1, 8), (1, 48, 8)],  # rows made wider, whole or in part
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
        result = loops.product(layouts, expected.shape)
        assert result.dtype == expected.dtype
        np.testing.assert_array_equal(result, expected)


def test_a_product_lies_as_its_largest_factors_do(rng):
    x, y = rng.random((40, 50, 60)), rng.random(60)
    assert loops.product([x, y[None, None]], x.shape).flags.c_contiguous
    assert loops.product([y[None, None], np.asfortranarray(x)], x.shape).flags.f_contiguous
    assert loops.product([y[:, None], rng.random((1, 70))], (60, 70)).flags.c_contiguous


def test_short_rows_are_made_wider_without_a_copy_of_the_result(rng):
    out, x, y = np.empty((31, 768, 8)), rng.random((31, 1, 8)), rng.random((1, 768, 8))
    wide, *factors = loops._widened(out, x, y)
    assert wide.shape == (31, 6, 1024)
    assert np.shares_memory(wide, out)
    loops._multiply_blocks(wide, *factors)
    np.testing.assert_array_equal(out, x * y)


def test_a_row_ends_where_a_factor_turns_back():
    out, x = np.empty((3, 5, 7)), np.empty((3, 5, 7))
    assert loops._row(out, x, x) == 105
    assert loops._row(out, x, np.empty((3, 1, 7))) == 7
    assert loops._row(out, x, np.empty((3, 1, 1))) == 35
    assert loops._row(out, x, np.empty((1, 5, 7))) == 35
    assert loops._row(out, x, np.empty((3, 7, 5)).swapaxes(1, 2)) == 7


def test_numpys_buffer_is_left_as_it_was(rng):
    before = np.getbufsize()
    loops.product([rng.random((300, 1)), rng.random((1, 400))], (300, 400))
    assert np.getbufsize() == before
    with np.errstate(over="raise"), pytest.raises(FloatingPointError):
        loops.product([np.full((300, 1), 1e300), np.full((1, 400), 1e300)], (300, 400))
    assert np.getbufsize() == before


@pytest.mark.parametrize("columns", [2, 3, 4, 7])
@pytest.mark.parametrize("rows", [1, 8, 4096, 10_007])
def test_short_dots_are_sums_of_columns(rows, columns, rng):
    u, v = rng.integers(-5, 5, (rows, columns)).astype(float), rng.integers(-5, 5, (rows, columns)).astype(float)
    out = np.full(rows, np.nan)
    loops.short_dots(u, v, out)
    np.testing.assert_array_equal(out, (u * v).sum(1))


@pytest.mark.parametrize("shape", [(17, 19), (8, 8), (1, 29), (128, 257), (300, 131)])
@pytest.mark.parametrize("dtype", ["float32", "float64", "complex128"])
def test_crossed_dots_are_those_of_rows(shape, dtype, shared, rng):
    x, y = (rng.integers(-5, 5, shape).astype(dtype) for _ in range(2))
    out = np.full(len(x), np.nan, dtype)
    loops.crossed_dots(x, np.asfortranarray(y), out)
    np.testing.assert_array_equal(out, (x * y).sum(1))


@pytest.mark.parametrize("dtype", ["float32", "float64", "complex64"])
@pytest.mark.parametrize("expression", ["ij,ji->", "ij,ji->i", "ij,ji->j", "ij,ij->i", "ij,ij->", "ji,ij->i"])
def test_large_crossed_dots_agree_with_numpys_einsum_in_every_layout(expression, dtype, rng):
    size = {"i": 520, "j": 530}
    terms = expression.split("->")[0].split(",")
    x, y = (rng.integers(-3, 4, [size[label] for label in term]).astype(dtype) for term in terms)
    expected = np.einsum(expression, x, y)
    for u, v in itertools.product(strided(x), strided(y)):
        np.testing.assert_array_equal(ge.einsum(expression, u, v), expected)


def test_a_long_dot_of_rows_and_columns_is_no_crossed_one(rng):
    x, y = rng.integers(-3, 4, (1, 300_000)).astype(float), rng.integers(-3, 4, (300_000, 1)).astype(float)
    np.testing.assert_array_equal(ge.einsum("ij,jk->ik", x, y), x @ y)
    np.testing.assert_array_equal(ge.einsum("ij,jk->", x, y), (x @ y)[0, 0])
    np.testing.assert_array_equal(ge.einsum("ij,ji->i", x, y), (x @ y)[0])


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
    out = np.full(expected.shape, np.nan, dtype)
    loops.matmul_to(out, x, y)
    np.testing.assert_array_equal(out, expected)


@pytest.mark.parametrize("dtype", ["bool", "int32", "float64"])
@pytest.mark.parametrize("expression", ["aibi->ab", "aibi->ba", "bii->i", "bii->bi", "iij->j", "iijj->ij"])
def test_large_diagonals_agree_with_numpys_einsum(expression, dtype, shared, rng):
    size = {"a": 43, "b": 41, "i": 89, "j": 47} if "jj" not in expression else {"i": 401, "j": 397}
    if expression.startswith(("bii", "iij-")):
        size = {"b": 43, "i": 67, "j": 2003}
    shape = [size[label] for label in expression.split("->")[0]]
    x = np.broadcast_to(rng.integers(0, 3, shape[-1]).astype(dtype), shape)
    np.testing.assert_array_equal(ge.einsum(expression, x), np.einsum(expression, x))


@pytest.mark.parametrize("dtype", ["complex64", "float64", "int8", "object"])
@pytest.mark.parametrize("axes", [6, 11, 14])
def test_arrays_of_many_short_axes_are_reshaped_as_numpy_does(axes, dtype, rng):
    shape = rng.integers(2, 4, axes) if axes < 14 else [2] * axes
    x = rng.integers(-9, 9, (*shape, 2)).astype(dtype)[..., 0]
    for _ in range(5):
        turned = x.transpose(rng.permutation(axes))
        wanted = turned.shape[0] * turned.shape[1], -1
        np.testing.assert_array_equal(loops.reshaped(turned, wanted), turned.reshape(wanted))
        flipped = turned[..., ::-1]
        np.testing.assert_array_equal(loops.reshaped(flipped, wanted), flipped.reshape(wanted))


def test_a_reshaping_that_takes_no_copy_is_a_view(rng):
    x = rng.random([2] * 12).transpose([*range(6, 12), *range(6)])
    assert np.shares_memory(loops.reshaped(x, (64, 64)), x)
    assert not np.shares_memory(loops.reshaped(x.transpose(rng.permutation(12)), (64, 64)), x)


@pytest.mark.parametrize("axes", [3, 8, 11, 14])
@pytest.mark.parametrize("kept", [0, 2, 4, 5])  # fastest axes that stay where they are: runs of 1 to 32 elements
def test_a_copy_of_any_axes_is_in_c_order(axes, kept, rng):
    moved = max(axes - kept, 0)
    x = rng.standard_normal((2,) * axes).transpose([*rng.permutation(moved), *range(moved, axes)])
    copy = loops.copied(x)
    np.testing.assert_array_equal(copy, x)
    assert copy.flags.c_contiguous
    assert not np.shares_memory(copy, x)
