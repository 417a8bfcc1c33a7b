"""`vjp` and `jvp` as users call them: values and gradients, what is kept and for how long."""

import dataclasses
import gc
import pickle
import weakref

import ml_dtypes
import numpy as np
import pytest

import gpueinsum as ge
from gpueinsum.costs.counts import peak_bytes


@pytest.fixture
def chain(rng):
    return [rng.random(shape) for shape in ((2, 3), (3, 5), (5, 7))]


def test_gradients_have_the_shape_and_dtype_of_their_operands(rng):
    operands = rng.random((2, 3)).astype(np.float32), rng.random((3, 5)) + 1j, rng.random(5).astype(np.float16)
    value, pullback = ge.vjp("ij,jk,k->i", *operands)
    assert value.dtype == np.complex128
    for gradient, operand in zip(pullback(np.ones(2)), operands, strict=True):
        assert gradient.shape == operand.shape
        assert gradient.dtype == operand.dtype


def test_the_gradient_of_a_real_loss_points_the_way_of_its_steepest_ascent(rng):
    x, w = (rng.standard_normal(shape) + 1j * rng.standard_normal(shape) for shape in ((3, 5), (5, 7)))

    def loss(x):
        return np.sum(np.abs(x @ w) ** 2)

    y, pullback = ge.vjp("ij,jk->ik", x, w, wrt=0)
    [gradient] = pullback(2 * y)  # dL/d(Re y) + i dL/d(Im y)
    step = 1e-6
    for place in np.ndindex(x.shape):
        for direction in (1, 1j):
            moved = np.zeros_like(x)
            moved[place] = direction * step
            slope = (loss(x + moved) - loss(x - moved)) / (2 * step)
            assert np.isclose(slope, (np.conj(gradient[place]) * direction).real, rtol=1e-6)


def test_a_real_operand_of_a_complex_expression_has_the_real_part_for_a_gradient(rng):
    x, w, g = rng.random(3), rng.random(3) + 1j * rng.random(3), rng.random(3) + 1j * rng.random(3)
    _, pullback = ge.vjp("i,i->i", x, w)
    dx, dw = pullback(g)
    np.testing.assert_allclose(dx, (g * w.conj()).real)
    np.testing.assert_allclose(dw, g * x)


def test_wrt_lists_the_gradients_wanted(chain):
    y, pullback = ge.vjp("ij,jk,kl->il", *chain)
    da, db, dc = pullback(y)
    for wrt, wanted in (0, [da]), ([2, 0], [dc, da]), (np.array([1]), [db]), ((), []), ((1, 1), [db, db]):
        for got, expected in zip(ge.vjp("ij,jk,kl->il", *chain, wrt=wrt)[1](y), wanted, strict=True):
            np.testing.assert_allclose(got, expected)


def test_the_same_array_twice_has_a_gradient_per_position(rng):
    x = rng.random((3, 3))
    y, pullback = ge.vjp("ij,jk->ik", x, x)
    left, right = pullback(np.ones_like(y))
    np.testing.assert_allclose(left, np.ones((3, 3)) @ x.T)
    np.testing.assert_allclose(right, x.T @ np.ones((3, 3)))


def test_the_interleaved_form_has_gradients(rng):
    a, b = rng.random((2, 3)), rng.random((3, 5))
    _, pullback = ge.vjp(a, ["x", "y"], b, ["y", (7, 8)], ["x", (7, 8)])
    np.testing.assert_allclose(pullback(np.ones((2, 5)))[0], np.ones((2, 5)) @ b.T)
    y, dy = ge.jvp([["x", "y"], ["y", "z"], ["z", "x"]], (a, b), (a, None))
    np.testing.assert_allclose(dy, (a @ b).T)
    np.testing.assert_allclose(y, dy)
    np.testing.assert_allclose(ge.jvp([[0, 1], [1, 2]], (a, b), (None, b))[1], a @ b)


def test_positions_may_come_one_by_one(rng):
    a, b = rng.random((2, 3)), rng.random((3, 5))
    assert len(ge.vjp("ij,jk->ik", a, b, wrt=iter([1, 0]))[1](a @ b)) == 2
    assert ge.einsum_plan("ij,jk->ik", a, b).jvp(k for k in (0, 1)).equation == "ij,jk,ij,jk->ik"
    np.testing.assert_array_equal(ge.jvp(b"ij,jk->ik", (a, b), (a, None))[1], a @ b)


def test_tangents_that_are_none_are_zero(chain):
    value, tangent = ge.jvp("ij,jk,kl->il", chain, [None] * 3)
    assert not tangent.any()
    assert tangent.shape == value.shape == (2, 7)


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16])
def test_half_precision_is_rounded_once(dtype, rng):
    x, w = (rng.random(shape).astype(dtype) for shape in ((3, 64), (64, 5)))
    y, pullback = ge.vjp("ij,jk->ik", x, w)
    dx, dw = pullback(np.ones(y.shape, dtype))
    assert y.dtype == dx.dtype == dw.dtype == dtype
    np.testing.assert_array_equal(dw, np.repeat(x.astype(np.float64).sum(0)[:, None], 5, 1).astype(dtype))
    assert ge.jvp("ij,jk->ik", (x, w), (x, w))[1].dtype == dtype


def test_options_are_those_of_einsum(chain):
    y, pullback = ge.vjp("ij,jk,kl->il", *chain, dtype="float32", casting="same_kind", order="F", optimize="dp")
    assert y.dtype == np.float32
    assert y.flags.f_contiguous
    gradients = pullback(np.ones((2, 7)))
    assert all(gradient.flags.f_contiguous and gradient.dtype == np.float64 for gradient in gradients)
    path = [(0, 1), (0, 1)]
    np.testing.assert_allclose(ge.vjp("ij,jk,kl->il", *chain, optimize=path, wrt=1)[1](y)[0], pullback(y)[1], rtol=1e-5)


# ---------------------------------------------------------------- plans and higher derivatives


def test_a_plan_can_be_differentiated_in_the_place_of_an_expression(chain):
    plan = ge.einsum_plan("ij,jk,kl->il", *chain)
    y, pullback = ge.vjp(plan, *chain)
    other, pull_other = ge.vjp("ij,jk,kl->il", *chain)
    np.testing.assert_array_equal(y, other)
    for got, expected in zip(pullback(y), pull_other(y), strict=True):
        np.testing.assert_array_equal(got, expected)
    for got, expected in zip(ge.run_plan(plan.vjp(), *chain, y), pullback(y), strict=True):
        np.testing.assert_array_equal(got, expected)


def test_a_hessian_times_a_vector_is_a_tangent_of_the_gradients(rng):
    x, a, v = rng.random(5), rng.random((5, 5)), rng.random(5)
    gradients = ge.einsum_plan("i,ij,j->", x, a, x).vjp(wrt=[0, 2])
    (left, right), (dleft, dright) = ge.jvp(gradients, (x, a, x, 1.0), (v, None, v, None))
    np.testing.assert_allclose(left + right, (a + a.T) @ x)
    np.testing.assert_allclose(dleft + dright, (a + a.T) @ v)


def test_a_hessian_times_a_vector_is_a_gradient_of_the_gradients(rng):
    x, a, v = rng.random(5), rng.random((5, 5)), rng.random(5)
    gradients = ge.einsum_plan("i,ij,j->", x, a, x).vjp(wrt=[0, 2])
    values, pullback = ge.vjp(gradients, x, a, x, 1.0, wrt=[0, 2])
    assert len(values) == 2
    np.testing.assert_allclose(sum(pullback((v, v))), (a + a.T) @ v)


# ---------------------------------------------------------------- what is kept


def test_a_pullback_can_be_called_again(chain):
    y, pullback = ge.vjp("ij,jk,kl->il", *chain)
    first = pullback(y)
    for gradient in first:
        gradient[...] = 7  # the caller's own
    second, third = pullback(y), pullback(2 * y)
    for once, twice in zip(second, third, strict=True):
        np.testing.assert_allclose(2 * once, twice)


def test_a_pullback_keeps_what_it_needs_and_nothing_else(chain):
    _, pullback = ge.vjp("ij,jk,kl->il", *chain, wrt=2)
    assert [array.shape for array in pullback._kept] == [(2, 5)]  # the product of the first two
    assert pullback.nbytes == 8 * 2 * 5
    assert ge.vjp("ij->i", chain[0])[1].nbytes == 0
    assert ge.vjp("ij,ji->", chain[0], chain[0].T)[1].nbytes == 2 * chain[0].nbytes
    cube = np.ones((5, 5, 5))
    assert ge.vjp("iij,jk->k", cube, np.ones((5, 7)), wrt=1)[1].nbytes == 8 * 5  # a sum over its diagonal
    assert ge.vjp("iij,jk->ik", cube, np.ones((5, 7)), wrt=1)[1].nbytes == cube.nbytes  # a view of it


def test_the_plan_of_a_pullback_is_that_of_both_passes(chain):
    y, pullback = ge.vjp("ij,jk,kl->il", *chain)
    assert pullback.plan.equation == "ij,jk,kl,il->il,ij,jk,kl"
    value, *gradients = ge.run_plan(pullback.plan, *chain, y)
    np.testing.assert_array_equal(value, y)
    for got, wanted in zip(gradients, pullback(y), strict=True):
        np.testing.assert_array_equal(got, wanted)


def test_a_pullback_cannot_be_pickled_but_its_plan_can_be_kept(chain):
    _, pullback = ge.vjp("ij,jk,kl->il", *chain)
    with pytest.raises(TypeError, match=r"its plan can be kept: pullback.plan.to_json\(\)"):
        pickle.dumps(pullback)
    assert ge.Plan.from_json(pullback.plan.to_json()) == pullback.plan


def test_a_cotangent_of_several_may_be_none_for_zero(chain):
    plan = ge.einsum_plan("ij,jk,kl->il", *chain).vjp()
    gradients, pullback = ge.vjp(plan, *chain, np.ones((2, 7)))
    zeros = tuple(np.zeros_like(gradient) for gradient in gradients[1:])
    for got, wanted in zip(pullback((chain[0], None, None)), pullback((chain[0], *zeros)), strict=True):
        np.testing.assert_array_equal(got, wanted)


def test_what_was_kept_is_released_when_the_pullback_goes():
    class Array(np.ndarray):
        """One that can be referred to weakly."""

    operands = [np.ones(shape).view(Array) for shape in ((2, 3), (3, 5), (5, 7))]
    _, pullback = ge.vjp("ij,jk,kl->il", *operands)
    kept = [weakref.ref(array) for array in pullback._kept]
    assert len(kept) == 4  # three operands, one intermediate
    operands.clear()
    gc.collect()
    assert all(reference() is not None for reference in kept)
    del pullback
    gc.collect()
    assert all(reference() is None for reference in kept)


def test_changing_the_value_does_not_change_the_gradients(rng):
    a, b, c = rng.random((2, 3)), rng.random((3, 5)), rng.random((5, 7))
    plan = ge.einsum_plan("ij,jk,kl->il", a, b, c, optimize=[(0, 1), (0, 1)])
    both = dataclasses.replace(plan, outputs=(3, 4))  # a b, which the gradients need, and a b c
    (ab, abc), pullback = ge.vjp(both, a, b, c)
    expected = pullback((ab, abc))
    ones, more = ab.copy(), abc.copy()
    ab[...] = 0
    for got, wanted in zip(pullback((ones, more)), expected, strict=True):
        np.testing.assert_array_equal(got, wanted)


@pytest.mark.parametrize("expression", ["ij->ij", "ij->ji", "ij->"])
def test_value_and_gradients_are_memory_of_their_own(expression, rng):
    x = rng.random((3, 5))
    value, pullback = ge.vjp(expression, x)
    cotangent = np.ones(np.shape(value))
    [gradient] = pullback(cotangent)
    assert not np.shares_memory(value, x)
    assert not np.shares_memory(gradient, cotangent)
    gradient[...] = 7
    assert (cotangent == 1).all()


def test_a_limit_of_memory_changes_no_gradient(rng):
    # Khatri-Rao products are larger than their factors.
    shapes = {"ia": (8, 6), "ja": (9, 6), "ka": (7, 6), "la": (5, 6)}
    operands = [rng.random(shape) for shape in shapes.values()]
    equation = ",".join(shapes) + "->ijkl"
    y, pullback = ge.vjp(equation, *operands, optimize=[(0, 1), (0, 1), (0, 1)])
    plan = ge.einsum_plan(equation, *operands, optimize=[(0, 1), (0, 1), (0, 1)])
    all_of_it = peak_bytes(plan.vjp()) + y.nbytes
    limited, pull_limited = ge.vjp(equation, *operands, optimize=[(0, 1), (0, 1), (0, 1)], memory_limit=all_of_it)
    kept = sum(array.nbytes for array in pullback._kept)
    assert sum(array.nbytes for array in pull_limited._kept) < kept
    assert not pullback.plan.duplicates()
    np.testing.assert_allclose(limited, y, rtol=1e-13)
    for got, wanted in zip(pull_limited(y), pullback(y), strict=True):
        np.testing.assert_allclose(got, wanted, rtol=1e-13)
    assert ge.vjp(equation, *operands, memory_limit="50%")[0].shape == y.shape
    plan = ge.einsum_plan("ij,jk,ki->i", *(rng.random((20, 20)) for _ in "xyz"), optimize=[(0, 1), (0, 1)])
    both = dataclasses.replace(plan, outputs=(3, 4))  # the first of which is kept, too: it must be copied
    with pytest.raises(ge.PlanError, match="too small"):
        ge.vjp(both, *(rng.random((20, 20)) for _ in "xyz"), memory_limit=8 * 400 * 3)  # less than value and gradients
    with pytest.raises(ge.PlanError, match="too small"):
        ge.vjp("ij->ij", operands[0], memory_limit=2 * operands[0].nbytes - 1)  # copies of value and gradient
    assert ge.vjp("ij->ij", operands[0], memory_limit=2 * operands[0].nbytes)[0].shape == (8, 6)
    with pytest.raises(ge.PlanError, match="too small"):
        ge.vjp(equation, *operands, memory_limit="1 kB")


def test_casts_of_operands_count_towards_the_limit():
    x, w = np.ones((64, 64), np.float16), np.ones((64, 64), np.float16)
    y, pullback = ge.vjp("ij,jk->ik", x, w)
    enough = (
        peak_bytes(pullback.plan) + 2 * 4 * 64 * 64 + 2 * 2 * 64 * 64
    )  # two operands in float32, gradients in halves
    assert ge.vjp("ij,jk->ik", x, w, memory_limit=enough)[0].shape == y.shape
    with pytest.raises(ge.PlanError, match="too small"):
        ge.vjp("ij,jk->ik", x, w, memory_limit=enough - 1)
