"""Gradients that can be written down by hand, and the words in which others are refused."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from conftest import REAL
from gradient_checkers import assert_own_memory, use
from random_gradients import operands_of

import gpueinsum as ge

ZERO_TO_17 = np.arange(18.0).reshape(3, 3, 2)
SPREAD = np.array([[1.0, 9, 2, 9], [9, 9, 9, 9], [3, 9, 4, 9]])
X = np.array([2.0, 3.0])

# name: (arguments, cotangent, gradients)
NAMED: dict[str, tuple[tuple[Any, ...], Any, tuple[Any, ...]]] = {
    "trace": (("ii->", [[1.0, 2], [3, 4]]), 10.0, ([[10, 0], [0, 10]],)),
    "diagonal": (("ii->i", [[1.0, 2], [3, 4]]), [5.0, 7.0], ([[5, 0], [0, 7]],)),
    "diagonal times matrix": (
        ("ii,ij->j", [[2.0, 7], [9, 3]], [[1.0, 2, 3], [4, 5, 6]]),
        [1.0, 10.0, 100.0],
        ([[321, 0], [0, 654]], [[2, 20, 200], [3, 30, 300]]),
    ),
    "one against many, summed": (("i,i->", [3.0], [1.0, 2, 3, 4, 5, 6, 7]), 2.0, ([56], [6] * 7)),
    "one against many, kept": (
        ("ij,ij->ij", [[1.0, 2]], [[3.0], [4], [5]]),
        [[1.0, 10], [100, 1000], [10000, 100000]],
        ([[50403, 504030]], [[21], [2100], [210000]]),
    ),
    "a singleton mode": (("ij,j->i", [[1.0], [2]], [3.0]), [1.0, 10.0], ([[3], [30]], [21])),
    "a singleton mode, and a lonely one": (
        ("aib,jb->ij", [[[2.0]]], [[3.0], [5]]),
        [[1.0, 10]],
        ([[[53]]], [[2], [20]]),
    ),
    "one against none": (
        ("ij,jk->ik", np.ones((3, 1)), np.ones((0, 5))), np.ones((3, 5)), ([[0]] * 3, np.ones((0, 5))),
    ),
    "embedding": (("i->ii", [5.0, 6.0]), [[1.0, 2], [3, 4]], ([1, 4],)),
    "embedding of a transpose": (("ij->jji", np.ones((2, 3))), ZERO_TO_17, ([[0, 8, 16], [1, 9, 17]],)),
    "embedding of a product": (("i,i->ii", [5.0, 6.0], [7.0, 8.0]), [[1.0, 2], [3, 4]], ([7, 32], [5, 24])),
    "strided, reversed and transposed": (
        ("ij,jk->ik", SPREAD[::2, ::2], np.array([[5.0, 7], [6, 8]]).T),
        np.eye(4)[::-3, ::-3],
        ([[5, 7], [6, 8]], [[1, 3], [2, 4]]),
    ),
    "one number, seen three times": (
        ("i,i->i", np.broadcast_to(2.0, 3), [1.0, 2, 3]),
        np.broadcast_to(10.0, 3),
        ([10, 20, 30], [20, 20, 20]),
    ),
    "sum": (("ij->", np.ones((2, 3))), 3.0, ([[3] * 3] * 2,)),
    "lonely labels": (
        ("ij,k->i", [[1.0, 2], [3, 4]], [5.0, 6, 7]), [1.0, 10.0], ([[18, 18], [180, 180]], [73] * 3),
    ),
    "transpose": (("ij->ji", np.ones((2, 3))), np.arange(6.0).reshape(3, 2), ([[0, 2, 4], [1, 3, 5]],)),
    "identity": (("i->i", [1.0, 2.0]), [3.0, 4.0], ([3, 4],)),
    "an array times itself": (("i,i->", X, X), 5.0, ([10, 15], [10, 15])),
    "a quadratic form of one vector": (
        ("i,ij,j->", X, [[1.0, 2], [3, 4]], X), 1.0, ([8, 18], [[4, 6], [6, 9]], [11, 16]),
    ),
    "hyperedge": (("i,i,i->", [2.0], [3.0], [5.0]), 7.0, ([105], [70], [42])),
    "factors of zero": (
        ("i,i,i->i", [0.0, 2, 0], [0.0, 3, 4], [5.0, 7, 6]), [1.0, 1, 1], ([0, 21, 24], [0, 14, 0], [0, 6, 0]),
    ),
    "scalars": ((",->", 2.0, 3.0), 10.0, (30, 20)),
    "scalar times matrix": ((",ij->ji", 2.0, [[1.0, 2, 3]]), [[1.0], [10], [100]], (321, [[2, 20, 200]])),
    "sum of nothing": (("ij->i", np.ones((2, 0))), [1.0, 1.0], (np.ones((2, 0)),)),
    "product over nothing": (
        ("ij,jk->ik", np.ones((2, 0)), np.ones((0, 3))), np.ones((2, 3)), (np.ones((2, 0)), np.ones((0, 3))),
    ),
    "product with nothing": (("i,j->i", [1.0, 2.0], np.ones(0)), [1.0, 1.0], ([0, 0], np.ones(0))),
    "ellipsis, summed where it was broadcast": (
        ("...i,...->...i", [[1.0, 2]], [3.0, 4]),
        [[1.0, 10], [100, 1000]],
        ([[403, 4030]], [21, 2100]),
    ),
    "labels of any kind": (
        ([[1.0, 2]], [None, "b"], [3.0, 4], ["b"], [None]), [10.0], ([[30, 40]], [10, 20]),
    ),
    "complex": (("i,i->", [1 + 2j], [3 + 4j]), 1j, ([4 + 3j], [2 + 1j])),
    "complex, and only one": (("i->", [1 + 2j]), 3 - 1j, ([3 - 1j],)),
    "complex, three": (("i,i,i->", [1j], [2 + 0j], [1 + 1j]), 1 + 0j, ([2 - 2j], [-1 - 1j], [-2j])),
    "real times complex": (("i,i->", [2.0], [3 + 4j]), 1 + 1j, ([7], [2 + 2j])),
    "real, as complex": (("i->i", [2.0]), [1 + 1j], ([1],)),
}  # fmt: skip


@pytest.mark.parametrize("device", ["cpu", "simulated", REAL])
@pytest.mark.parametrize("name", NAMED)
def test_named_gradients_are_as_written(name: str, device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if device != "cpu":
        use(device, monkeypatch)
    args, cotangent, expected = NAMED[name]
    dtype = {"dtype": "complex128"} if name == "real, as complex" else {}
    value, pullback = ge.vjp(*args, **dtype, backend="cpu" if device == "cpu" else "cuda")
    assert np.array_equal(value, ge.einsum(*args, **dtype))
    gradients = pullback(cotangent)
    for gradient, right, operand in zip(gradients, expected, operands_of(args), strict=True):
        assert np.asarray(gradient).dtype == np.asarray(operand).dtype
        assert np.shape(gradient) == np.shape(right)
        assert np.array_equal(gradient, right), f"{gradient}, not {right}"


def test_each_gradient_of_one_operand_asked_for_twice_is_its_own() -> None:
    _, pullback = ge.vjp("i->i", np.array([1.0, 2.0]), wrt=(0, 0))
    cotangent = np.array([3.0, 4.0])
    first, second = pullback(cotangent)
    assert first.tolist() == second.tolist() == [3, 4]
    assert_own_memory([first, second], [cotangent])


def test_no_gradient_is_an_empty_tuple() -> None:
    value, pullback = ge.vjp("i->", [1.0, 2.0], wrt=())
    assert value == 3
    assert pullback(1.0) == ()


REFUSED: dict[str, tuple[Callable[[], Any], type[Exception], str]] = {
    "trace of a matrix that is not square": (lambda: ge.vjp("ii->", np.ones((2, 3))), ge.SubscriptsError, "i"),
    "tangent of the same": (
        lambda: ge.jvp("ii->", [np.ones((2, 3))], [np.ones((2, 3))]), ge.SubscriptsError, "i",
    ),
    "gradient of integers": (lambda: ge.vjp("i,i->", [1.0], [1]), ge.DtypeError, "operand 1"),
    "gradient of bools": (lambda: ge.vjp("i,i->", [True], [1.0], wrt=0), ge.DtypeError, "operand 0"),
    "tangent of integers": (lambda: ge.jvp("i,i->", ([1.0], [1]), ([1.0], [1])), ge.DtypeError, "operand 1"),
    "cotangent of another shape": (lambda: ge.vjp("i->", [1.0])[1]([[1.0]]), ge.OperandError, r"\(1, 1\)"),
    "cotangent that would broadcast": (lambda: ge.vjp("i->i", [1.0, 2.0])[1](1.0), ge.OperandError, r"\(2,\)"),
    "tangent of another shape": (lambda: ge.jvp("i->", ([1.0],), ([1.0, 2.0],)), ge.OperandError, r"\(2,\)"),
    "too few tangents": (lambda: ge.jvp("i,i->", ([1.0], [1.0]), ([1.0],)), ge.OperandError, "2"),
    "position of no operand": (lambda: ge.vjp("i->", [1.0], wrt=1), ge.OperandError, "1"),
    "complex cotangent of a real value": (lambda: ge.vjp("i->", [1.0])[1](1j), ge.DtypeError, "complex128"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_refusals_say_what_is_wrong(name: str) -> None:
    call, error, words = REFUSED[name]
    with pytest.raises(error, match=words):
        call()
