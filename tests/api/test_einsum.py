"""The door: what einsum returns, in which memory, layout and dtype, and what it remembers."""

import gc
import itertools
import threading
import weakref

import numpy as np
import pytest

import gpueinsum as ge
from gpueinsum.api import plans


def test_a_batched_product_is_numpys(rng):
    a, b = rng.random((7, 2, 3)), rng.random((7, 3, 5))
    np.testing.assert_allclose(ge.einsum("bij,bjk->bik", a, b), a @ b)


@pytest.mark.parametrize("lhs", ["ij", "ji", "j"])
@pytest.mark.parametrize("rhs", ["jk", "kj", "j"])
def test_small_products_are_numpys_in_every_order_and_layout(lhs, rhs, rng):
    size = {"i": 2, "j": 3, "k": 5}
    kept = (set(lhs) | set(rhs)) - {"j"}
    x, y = (rng.random([2 * size[label] for label in term]) for term in (lhs, rhs))
    x = x[tuple(slice(None, None, -2) for _ in lhs)]
    y = np.broadcast_to(y[..., :1], y.shape)[tuple(slice(size[label]) for label in rhs)]
    for output in map("".join, itertools.permutations(sorted(kept))):
        expression = f"{lhs},{rhs}->{output}"
        np.testing.assert_allclose(ge.einsum(expression, x, y), np.einsum(expression, x, y))


# ---------------------------------------------------------------- views


@pytest.mark.parametrize("expression", ["ij->ji", "ij->ij", "ij", "ii->i", "...j->j...", "iji->ji"])
@pytest.mark.parametrize("dtype", [float, np.float16, int])
@pytest.mark.parametrize("writeable", [True, False])
def test_where_numpy_returns_a_view_so_do_we_writeable_alike(expression, dtype, writeable):
    x = np.arange(27).reshape(3, 3, 3)[: 3 if "iji" in expression else 1].astype(dtype)
    x = x if "iji" in expression else x[0]
    x.flags.writeable = writeable
    ours, numpys = ge.einsum(expression, x), np.einsum(expression, x)
    np.testing.assert_array_equal(ours, numpys)
    assert np.shares_memory(ours, x)
    assert ours is not x
    assert ours.flags.writeable == numpys.flags.writeable == writeable
    assert ours.strides == numpys.strides


@pytest.mark.parametrize(
    ("expression", "shape"), [("ij->i", (3, 1)), ("ij->", (1, 1)), ("i->ii", (3,)), ("ij->j", (3, 5))]
)
def test_where_numpy_returns_a_copy_so_do_we(expression, shape):
    x = np.ones(shape)
    assert not np.shares_memory(ge.einsum(expression, x), x)


def test_a_cast_is_a_copy():
    x = np.ones((2, 3), np.float32)
    result = ge.einsum("ij->ji", x, dtype=np.float64)
    assert result.dtype == np.float64
    assert not np.shares_memory(result, x)


def test_a_view_of_foreign_byte_order_is_a_view():
    x = np.zeros((3, 3), ">f8")
    ge.einsum("ii->i", x)[...] = 1
    assert np.trace(x) == 3
    assert ge.einsum("ij->i", x).dtype.isnative


# ---------------------------------------------------------------- out=


def test_out_receives_the_result_and_is_returned(rng):
    a, out = rng.random((3, 5)), np.empty((5, 3))
    assert ge.einsum("ij->ji", a, out=out) is out
    np.testing.assert_array_equal(out, a.T)


def test_out_may_be_an_operand(rng):
    a, b = rng.random((3, 3)), rng.random((3, 3))
    expected = a @ b
    ge.einsum("ij,jk->ik", a, b, out=a)
    np.testing.assert_allclose(a, expected)
    expected = b.T.copy()
    ge.einsum("ij->ji", b, out=b)
    np.testing.assert_array_equal(b, expected)


def test_out_may_have_any_strides_and_takes_part_in_the_dtype(rng):
    memory = np.zeros((6, 5))
    ge.einsum("i,j->ij", np.arange(3, dtype=np.int32), np.arange(5, dtype=np.int32), out=memory[::-2])
    np.testing.assert_array_equal(memory[::-2], np.outer(np.arange(3), np.arange(5)))
    assert ge.einsum("i,i->", *[np.full(3, 2**30, np.int32)] * 2, out=np.zeros(())) == 3 * 2.0**60


# ---------------------------------------------------------------- dtypes


def test_a_float16_sum_does_not_stop_at_2048():
    x = np.ones(5000, np.float16)
    assert ge.einsum("i->", x) == 5000
    assert ge.einsum("i,i->", x, x) == 5000
    assert ge.einsum("i,i->", x, x).dtype == np.float16


def test_bfloat16_is_known_by_name():
    bfloat16 = pytest.importorskip("ml_dtypes").bfloat16
    x = np.ones((3, 5), bfloat16)
    result = ge.einsum("ij,kj->ik", x, x)
    assert result.dtype == bfloat16
    assert ge.einsum_plan("ij,jk", (2, 3), (3, 5), dtype="bfloat16").dtype == "bfloat16"


def test_objects_and_long_doubles_are_summed_on_the_cpu():
    from fractions import Fraction

    thirds = np.full((2, 2), Fraction(1, 3), object)
    assert ge.einsum("ij,ij->", thirds, thirds) == Fraction(4, 9)
    assert ge.einsum("ij,jk->ik", thirds, thirds)[0, 0] == Fraction(2, 9)
    assert ge.einsum("ii->", thirds) == Fraction(2, 3)
    x = np.ones((2, 3), np.longdouble)
    assert ge.einsum("ij,kj->ik", x, x).dtype == np.longdouble


def test_a_scalar_result_is_a_scalar_as_numpys():
    assert type(ge.einsum("i->", np.ones(3))) is np.float64
    assert type(ge.einsum(",->", 2, 3)) is np.int64
    assert ge.einsum("i->", np.ones(3), out=np.zeros(())).shape == ()


# ---------------------------------------------------------------- order=


@pytest.mark.parametrize("order", ["C", "F", "A", "K"])
def test_the_layout_is_the_one_asked_for(order, rng):
    a, b = rng.random((3, 5)), np.asfortranarray(rng.random((5, 7)))
    result = ge.einsum("ij,jk->ki", a, b, order=order)
    np.testing.assert_allclose(result, (a @ b).T)
    assert result.flags.c_contiguous or order not in "CA"
    assert result.flags.f_contiguous or order != "F"
    a = np.asfortranarray(a)
    assert ge.einsum("ij,jk->ik", a, b, order="A").flags.f_contiguous


# ---------------------------------------------------------------- drop-ins, caches, threads


@pytest.mark.parametrize(
    ("x_shape", "y_shape", "axes"),
    [
        ((2, 3), (5, 7), 0),
        ((2, 3), (3, 5), 1),
        ((2, 3, 5), (3, 5, 7), 2),
        ((2, 3, 5), (5, 2, 7), ([0, 2], [1, 0])),
        ((2, 3), (5, 3), (-1, -1)),
        ((2,), (3,), ([], [])),
        ((2, 3), (2, 3), ([0, 1], [0, 1])),
        ((2, 3), (2, 3), (np.array([0, 1]), (0, 1))),
        ((2, 3), (3, 5), np.array(1)),
        ((2, 3), (5, 3), ({1}, {-1})),
    ],
)
def test_tensordot_is_numpys(x_shape, y_shape, axes, rng):
    x, y = rng.random(x_shape), rng.random(y_shape)
    expected = np.tensordot(x, y, axes)
    result = ge.tensordot(x, y, axes)
    assert type(result) is np.ndarray
    np.testing.assert_allclose(result, expected)


def test_transpose_is_numpys(rng):
    x = rng.random((2, 3, 5))
    assert ge.transpose(x).shape == (5, 3, 2)
    assert np.shares_memory(ge.transpose(x, (1, 0, 2)), x)


def test_a_second_call_plans_nothing(rng, monkeypatch):
    a, b = rng.random((2, 3)), rng.random((3, 5))
    ge.einsum("pq,qr->pr", a, b)
    monkeypatch.setattr(plans, "cheapest_plan", None)
    ge.einsum("pq,qr->pr", a, b)
    with pytest.raises(TypeError):
        ge.einsum("pq,qr->pr", a.astype(np.float32), b.astype(np.float32))  # another dtype is another plan


def test_the_caches_do_not_keep_an_optimizer_alive():
    class Search:
        __hash__ = None
        calls = 0

        def __call__(self, inputs, output, sizes, memory_limit=None):
            self.calls += 1
            return [(0, 1), (0, 1)]

    search = Search()
    for _ in range(3):
        ge.einsum("pq,qr,rs->ps", *[np.eye(2)] * 3, optimize=search)
    assert search.calls == 1  # and it is asked once
    other = Search()
    ge.einsum("pq,qr,rs->ps", *[np.eye(2)] * 3, optimize=other)
    assert other.calls == 1
    watched = weakref.ref(search)
    del search
    gc.collect()
    assert watched() is None


def test_half_precision_overflows_in_silence_as_numpys_does():
    h = np.full((4, 4), 60_000, np.float16)
    np.testing.assert_array_equal(ge.einsum("ij,jk->ik", h, h), np.einsum("ij,jk->ik", h, h))


def test_the_caches_may_be_used_from_many_threads(rng):
    a, b = rng.random((2, 3)), rng.random((3, 5))
    failures = []

    def work(seed):
        for i in range(200):
            text = f"{chr(192 + (i * seed) % 97)}j,jk"
            if not np.allclose(ge.einsum(text, a, b), a @ b if text[0] < "k" else (a @ b).T):
                failures.append(text)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(1, 9)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
