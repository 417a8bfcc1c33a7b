"""The CPU backend's tools: each at sizes where it is chosen, on either side of its threshold, in odd layouts too."""

import itertools
import random
import tracemalloc

import numpy as np
import pytest
from numpy.lib.stride_tricks import as_strided

import gpueinsum as ge
from gpueinsum.backends.cpu import loops

TOOLS = [  # expression, shapes
    ("bi,bi->b", [(3, 67), (3, 67)]),  # long dots
    ("bi,bi->b", [(3, 61), (3, 61)]),
    ("bij,bij->b", [(3, 11, 7), (3, 11, 7)]),
    ("ib,bi->b", [(67, 3), (3, 67)]),
    ("bij,bjk->bik", [(3, 1, 67), (3, 67, 1)]),  # whose other labels are of size 1
    ("bji,jb->ib", [(3, 67, 1), (67, 3)]),
    ("i,j->ij", [(5,), (2741,)]),  # long rows
    ("i,j->ij", [(5,), (31,)]),
    ("i,j->ji", [(2741,), (5,)]),
    ("bi,bj->bij", [(2, 3), (2, 5)]),
    ("bij,bj->bi", [(3, 7, 11), (3, 11)]),  # matrix times vector
    ("bij,bj->bi", [(3, 5, 7), (3, 7)]),
    ("ijkl,kl->ij", [(5, 7, 11, 3), (11, 3)]),
    ("prqs,rs->pq", [(5, 7, 11, 3), (7, 3)]),
    ("ijk,kjl->li", [(5, 7, 3), (3, 7, 11)]),
    ("abij,jkb->kaib", [(2, 3, 5, 7), (7, 11, 3)]),
    ("ii->", [(67, 67)]),  # traces
    ("iij->j", [(5, 5, 7)]),
    ("ij,ij->", [(67, 5), (67, 5)]),
]


def layouts(array):
    """The same array in every order of its axes in memory, and with negative and with wide strides."""
    for order in itertools.permutations(range(array.ndim)):
        yield np.ascontiguousarray(array.transpose(order)).transpose(np.argsort(order))
    flipped = (slice(None, None, -1),) * array.ndim
    yield array[flipped].copy()[flipped]
    yield np.repeat(array, 2, axis=-1)[..., ::2]


@pytest.mark.parametrize("dtype", ["bool", "int32", "float16", "float32", "float64", "complex64"])
@pytest.mark.parametrize(("expression", "shapes"), TOOLS)
def test_every_tool_agrees_with_numpys_einsum_in_every_layout(expression, shapes, dtype, rng):
    operands = [rng.integers(-2, 3, shape).astype(dtype) for shape in shapes]
    expected = np.einsum(expression, *operands)
    for arrays in zip(*(itertools.islice(itertools.cycle(layouts(x)), 24) for x in operands), strict=True):
        result = ge.einsum(expression, *arrays)
        assert result.dtype == expected.dtype
        np.testing.assert_array_equal(result, expected)


@pytest.mark.parametrize("batch", range(8))
def test_pairs_on_either_side_of_every_threshold_agree_with_numpys_einsum(batch):
    for seed in range(batch * 50, batch * 50 + 50):
        choose = random.Random(seed)
        size = {label: choose.choice((1, 1, 2, 3, 7, 8, 9, 63, 64, 65, 2731)) for label in "abcd"}
        while np.prod(list(size.values())) > 300_000:
            size[max(size, key=size.get)] //= 5
        terms = ["".join(choose.sample("abcd", choose.randint(1, 4))) for _ in range(2)]
        out = "".join(label for label in choose.sample("abcd", 4) if label in "".join(terms) and choose.random() < 0.6)
        numbers = np.random.default_rng(seed)
        dtype = choose.choice(("float32", "float64", "complex64", "int16", "bool"))
        operands = [
            choose.choice(list(layouts(numbers.integers(-2, 3, [size[label] for label in term]).astype(dtype))))
            for term in terms
        ]
        expression = f"{','.join(terms)}->{out}"
        expected = np.einsum(expression, *operands)
        np.testing.assert_array_equal(ge.einsum(expression, *operands), expected, f"seed {seed}: {expression} {size}")


OBJECTS = ["->", ",->", "i->", "i,j->", "i,i->", "ii->", "ij->j", "i,j->i", "ij,jk->ik", "ba,,e->e", "i->ii"]


@pytest.mark.parametrize("expression", OBJECTS)
def test_python_integers_stay_exact(expression):
    terms, out = expression.split("->")
    operands = [np.full((2,) * len(term), 3**50, object) for term in terms.split(",")]
    result = ge.einsum(expression, *operands)
    summed = len(set(terms) - set(out) - {","})
    largest = result.max() if isinstance(result, np.ndarray) else result
    assert type(largest) is int
    assert largest == 2**summed * 3 ** (50 * len(operands))


@pytest.mark.parametrize("dtype", ["longdouble", "clongdouble"])
def test_products_of_long_doubles_are_numpys(dtype, rng):
    x, y = (rng.integers(-9, 9, (64, 67)).astype(dtype) for _ in "xy")
    result = ge.einsum("ij,kj->ik", x, y)
    assert result.dtype == dtype
    np.testing.assert_array_equal(result, np.einsum("ij,kj->ik", x, y))


def test_objects_may_be_arrays_themselves():
    objects = np.empty(2, object)
    objects[:] = [np.array([1, 2]), np.array([3, 4])]
    np.testing.assert_array_equal(ge.einsum("i->", objects), [4, 6])
    np.testing.assert_array_equal(ge.einsum("i,j->i", objects, objects)[1], [12, 24])


@pytest.mark.parametrize(
    ("expression", "shape"),
    [("prqs,rs->pq", (31, 29, 37, 23)), ("abc,b->ac", (101, 97, 89)), ("ijkl,kl->ij", (31, 29, 37, 23))],
)
def test_a_large_operand_is_not_copied_for_a_product_with_a_small_one(expression, shape, rng):
    terms = expression.split("->")[0].split(",")
    size = dict(zip(terms[0], shape, strict=True))
    x, y = rng.random(shape), rng.random([size[label] for label in terms[1]])
    for array in (x, x[::-1].copy()[::-1]):
        ge.einsum(expression, array, y)  # plans
        tracemalloc.start()
        result = ge.einsum(expression, array, y)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert peak < x.nbytes / 4
        np.testing.assert_allclose(result, np.einsum(expression, array, y), rtol=1e-12)


def test_the_c_loop_is_reached_through_einsum_where_numpy_hides_it(monkeypatch):
    monkeypatch.setattr(loops, "c_einsum", np.einsum)
    x = np.arange(12.0).reshape(3, 4)
    np.testing.assert_array_equal(ge.einsum("qz->z", x), x.sum(0))


@pytest.mark.parametrize(
    "expression", ["ij,j->i", "j,ij->i", "ij,ij->i", "ij,kj->ik", "bij,bj->bi", "ij,ij->", "ij->i", "jj->"]
)
@pytest.mark.parametrize("dtype", ["float32", "float64", "complex64"])
def test_an_empty_sum_is_zero_whatever_lies_where_its_operands_begin(expression, dtype, einsum_on):
    size = {"i": 3, "j": 0, "k": 5, "b": 2}
    poison = np.full(64, np.nan, dtype)
    terms = expression.split("->")[0].split(",")
    strides = (0, poison.itemsize)
    for steps in itertools.product(*(itertools.product(strides, repeat=len(term)) for term in terms)):
        operands = [as_strided(poison, [size[x] for x in term], step) for term, step in zip(terms, steps, strict=True)]
        result = einsum_on(expression, *operands)
        np.testing.assert_array_equal(result, np.zeros(result.shape))


@pytest.mark.parametrize("expression", ["i,j->i", "i,j->", "ik,j->ki", "i,j->ii", "ij,jk,kl->il", "ij,k->i"])
def test_an_empty_sum_is_zero_whatever_the_other_operands_hold(expression, einsum_on):
    size = {"i": 3, "j": 0, "k": 0 if expression == "ij,k->i" else 2, "l": 5}
    operands = [np.full([size[label] for label in term], np.nan) for term in expression.split("->")[0].split(",")]
    for optimize in ("auto", False):
        assert not einsum_on(expression, *operands, optimize=optimize).any()
