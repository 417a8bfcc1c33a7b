"""Pullbacks of batches: cotangents with one more axis, their first, give gradients with that axis, in one pass."""

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest
from call_checks import assert_passes
from conftest import REAL, simulated_backend
from gradient_checkers import use
from long_runs import shorten
from random_gradients import Call, random_call

import gpueinsum as ge

BATCHES, BATCH = 6, 100


@pytest.mark.parametrize("round_", shorten(range(BATCHES)))
def test_random_batches_are_those_of_a_loop(round_: int) -> None:
    assert_passes(partial(check_batch, ge.vjp), range(round_ * BATCH, (round_ + 1) * BATCH), random_call)


@pytest.mark.parametrize("device", ["simulated", REAL])
def test_random_batches_on_a_device(device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    use(device, monkeypatch)

    def check(call: Call) -> None:
        if not call.cpu_only:
            check_batch(partial(ge.vjp, backend="cuda"), call)

    assert_passes(check, range(BATCH), random_call)


def check_batch(vjp: Callable[..., Any], call: Call) -> None:
    """Both cotangents of a call as a batch of three: the gradients are those of each, as far as roundoff allows."""
    try:
        _, pullback = vjp(*call.args, **call.of_vjp)
    except ge.PlanError:
        assert call.may_not_fit
        return
    one, two = (np.asarray(direction.cotangent) for direction in call.directions)
    cotangents = np.stack([one, two, one])
    try:
        gradients = pullback(cotangents)
    except ge.LimitError:  # of three gradients in the place of one
        assert call.may_not_fit
        return
    assert [x.shape for x in gradients] == [(3, *np.shape(call.operands[k])) for k in call.positions]
    assert pullback(cotangents[:0])[0].shape == (0, *gradients[0].shape[1:])
    singles = [pullback(cotangent) for cotangent in (one, two, one)]
    for k, gradient in enumerate(gradients):
        own = [single[k] for single in singles]
        dtype = np.asarray(call.operands[call.positions[k]]).dtype
        assert gradient.dtype == dtype
        scale = max((np.abs(np.asarray(x, np.result_type(dtype, np.float32))).max(initial=0) for x in own), default=0)
        for ours, right in zip(gradient, own, strict=True):
            wide = np.result_type(dtype, np.float64)
            error = np.abs(ours.astype(wide) - np.asarray(right).astype(wide)).max(initial=0)
            assert error <= 8 * call.tolerance(dtype) * scale, f"off by {error:.3g}, beside {scale:.3g}"


def test_a_jacobian_is_one_pass(rng: np.random.Generator) -> None:
    x, w = rng.random((3, 5)), rng.random((5, 7))
    y, pullback = ge.vjp("ij,jk->ik", x, w, wrt=1)
    [jacobian] = pullback(np.eye(y.size).reshape(-1, *y.shape))
    np.testing.assert_allclose(jacobian, np.einsum("ij,kl->ikjl", x, np.eye(7)).reshape(21, 5, 7))


def test_a_batch_launches_no_more_than_one_cotangent(monkeypatch: pytest.MonkeyPatch, rng: np.random.Generator) -> None:
    use("simulated", monkeypatch)
    calls = simulated_backend().runtime.calls
    operands = [rng.random(shape) for shape in ((67, 71), (71, 73), (73, 79))]
    y, pullback = ge.vjp("ij,jk,kl->il", *operands, backend="cuda")
    counts = []
    for cotangent in (y, np.stack([y] * 5)):
        calls.clear()
        pullback(cotangent)
        counts.append(len(calls))
    assert 0 < counts[1] <= counts[0]


def test_of_several_outputs_each_is_a_batch_or_none(rng: np.random.Generator) -> None:
    a, b, g = rng.random((2, 3)), rng.random((3, 5)), rng.random((2, 5))
    plan = ge.einsum_plan("ij,jk->ik", a, b).vjp()
    (da, db), pullback = ge.vjp(plan, a, b, g)
    many = rng.random((7, *da.shape)), rng.random((7, *db.shape))
    for given in (many, (many[0], None), (None, many[1])):
        gradients = pullback(given)
        for place in range(7):
            single = pullback(tuple(None if x is None else x[place] for x in given))
            for ours, right in zip(gradients, single, strict=True):
                np.testing.assert_allclose(ours[place], right, rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("memory_limit", [None, "1GiB"])
def test_a_batch_takes_integers_scalars_and_lists(memory_limit: str | None) -> None:
    _, pullback = ge.vjp("i,i->", [1.0, 2.0], [3.0, 4.0], memory_limit=memory_limit)
    for cotangents in ([1, 10], [1.0, 10.0], np.array([1, 10], np.int8)):
        assert [x.tolist() for x in pullback(cotangents)] == [[[3, 4], [30, 40]], [[1, 2], [10, 20]]]


def test_gradients_of_a_batch_are_memory_of_their_own(rng: np.random.Generator) -> None:
    cotangents = rng.random((4, 3, 5))
    [gradient] = ge.vjp("ij->ij", rng.random((3, 5)))[1](cotangents)
    assert not np.shares_memory(gradient, cotangents)
    assert gradient.flags.writeable
    [spread] = ge.vjp("ij->", rng.random((3, 5)))[1](cotangents[:, 0, 0])
    spread[0] = 7
    assert (spread[1] != 7).all()


A, B = np.ones((2, 3)), np.ones((3, 5))
REFUSED = [
    (ge.vjp("ij->i", A)[1], np.ones((4, 3)), "the cotangent has shape (4, 3), but the value has (2,)"),
    (ge.vjp("ij->i", A)[1], np.ones((4, 4, 2)), "the cotangent has shape (4, 4, 2), but the value has (2,)"),
    (ge.vjp("ij->", A)[1], np.ones((4, 1)), "the cotangent has shape (4, 1), but the value has ()"),
    (
        ge.vjp(ge.einsum_plan("ij,jk->ik", A, B).vjp(), A, B, A @ B)[1],
        (np.ones((4, 2, 3)), np.ones((5, 3, 5))),
        "cotangents are batches of one size or none is: their first axes are {0: (4,), 1: (5,)}",
    ),
    (
        ge.vjp(ge.einsum_plan("ij,jk->ik", A, B).vjp(), A, B, A @ B)[1],
        (np.ones((4, 2, 3)), np.ones((3, 5))),
        "cotangents are batches of one size or none is: their first axes are {0: (4,), 1: ()}",
    ),
]


@pytest.mark.parametrize(("pullback", "cotangents", "words"), REFUSED)
def test_what_is_no_batch_is_refused(pullback: ge.Pullback, cotangents: Any, words: str) -> None:
    with pytest.raises(ge.OperandError) as caught:
        pullback(cotangents)
    assert words in str(caught.value)


def test_the_checker_catches_a_batch_in_another_order() -> None:
    def reversed_vjp(*args: Any, **options: Any) -> Any:
        value, pullback = ge.vjp(*args, **options)
        return value, lambda g: tuple(x[[1, 0, 2]] if len(x) == 3 else x for x in pullback(g))

    with pytest.raises(AssertionError):
        assert_passes(partial(check_batch, reversed_vjp), range(20), random_call)
