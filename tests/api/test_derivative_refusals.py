"""What `vjp` and `jvp` refuse and what they say then, and how a limit of memory is written."""

import numpy as np
import pytest
from conftest import simulated_backend

import gpueinsum as ge
import gpueinsum.backends.select
from gpueinsum.api.arguments import bytes_limit
from gpueinsum.api.limits import room_on

A, B = np.ones((2, 3)), np.ones((3, 5))
GRADIENTS = ge.einsum_plan("ij,jk->ik", A, B).vjp()
REFUSED = [
    (lambda: ge.vjp("ij->i", np.ones((2, 3), int)), ge.DtypeError, "operand 0 is int64, which has no derivative"),
    (lambda: ge.vjp("ij,jk->ik", A, B.astype(bool)), ge.DtypeError, "operand 1 is bool, which has no derivative"),
    (lambda: ge.vjp("ij,jk->ik", A, B.astype(object)), ge.DtypeError, "operand 1 is object"),
    (lambda: ge.vjp("ij->i", A, dtype=int, casting="unsafe"), ge.DtypeError, "the value is int64"),
    (lambda: ge.vjp("ii->", A), ge.SubscriptsError, "label 'i' is both 2 and 3 in operand 0\n    ii->\n    ^^"),
    (
        lambda: ge.vjp("ij,jk->ik", A, B, wrt=2),
        ge.OperandError,
        "wrt=2 names an operand that is not there: the positions are 0 to 1",
    ),
    (lambda: ge.vjp("ij,jk->ik", A, B, wrt=[-1]), ge.OperandError, "0 to 1"),
    (lambda: ge.vjp("ij,jk->ik", A, B, wrt="0"), ge.OperandError, "wrt='0' does not list positions"),
    (
        lambda: ge.vjp("ij,jk->ik", A, B, wrt=[True, False]),
        ge.OperandError,
        "wrt=[True, False] does not list positions",
    ),
    (lambda: ge.vjp("ij,jk->ik", A, B, wrt=np.array([True, False])), ge.OperandError, "does not list positions"),
    (lambda: ge.vjp("ij,jk->ik", A, B, wrt=b"\0"), ge.OperandError, "does not list positions"),
    (lambda: ge.vjp(GRADIENTS), ge.PlanError, "takes operands of shapes"),
    (lambda: ge.jvp("i", (), ()), ge.SubscriptsError, "at least one operand"),
    (lambda: ge.jvp([], (A,), (A,)), ge.OperandError, "[] is neither a text nor a list of labels for each operand"),
    (lambda: ge.jvp(None, (A,), (A,)), ge.OperandError, "None is neither"),
    (lambda: ge.jvp([[0, 1], [1, 2], [0, 2], [5]], (A, B), (A, B)), ge.OperandError, "is neither a text nor"),
    (lambda: ge.vjp("ij->i", A, memory_limit=1j), ge.PlanError, "is no number of bytes"),
    (lambda: ge.vjp(GRADIENTS, A, B, A @ B, casting="X"), ValueError, "casting='X' is none of"),
    (lambda: ge.vjp("ij,jk->ik", A, B, wrt={0, 1}), ge.OperandError, "wrt={0, 1} does not list positions"),
    (lambda: ge.einsum_plan("ij,jk->ik", A, B).vjp([]), ge.OperandError, "wrt=[] lists no operand"),
    (lambda: ge.run_plan(GRADIENTS, [A, B], A @ B), ge.OperandError, "operands are passed one by one, *operands"),
    (lambda: ge.einsum_plan("ij->i", A, largest_intermediate="4GiB"), ge.PlanError, "number of elements, -1, None"),
    (
        lambda: ge.vjp("ij->i", A)[1](np.ones(3)),
        ge.OperandError,
        r"the cotangent has shape (3,), but the value has (2,)",
    ),
    (
        lambda: ge.vjp("ij->i", A)[1](np.ones(2) * 1j),
        ge.DtypeError,
        "the cotangent is complex128, but the value is float64",
    ),
    (lambda: ge.vjp("ij->i", A)[1](None), ge.OperandError, "the cotangent"),
    (lambda: ge.vjp(GRADIENTS, A, B, A @ B)[1](A), ge.OperandError, "cotangents come as a tuple"),
    (lambda: ge.vjp(GRADIENTS, A, B, A @ B)[1]((A,)), ge.OperandError, "2 cotangents are needed, not 1"),
    (
        lambda: ge.vjp(ge.einsum_plan("ij->i", A), A.T),
        ge.PlanError,
        "takes operands of shapes ((2, 3),), not ((3, 2),)",
    ),
    (
        lambda: ge.vjp(ge.einsum_plan("ij->i", A), A, dtype="f4"),
        ge.PlanError,
        "given with a plan, which has one: float64",
    ),
    (lambda: ge.jvp("ij->i", A, A), ge.OperandError, "operands come as a tuple, (a, b, ...), not as ndarray"),
    (lambda: ge.jvp("ij->i", (A,), (A, B)), ge.OperandError, "1 tangents are needed, not 2"),
    (
        lambda: ge.jvp("ij,jk->ik", (A, B), (None, A)),
        ge.OperandError,
        "tangent 1 has shape (2, 3), but its operand has (3, 5)",
    ),
    (lambda: ge.jvp("ij->i", (A,), (A * 1j,)), ge.DtypeError, "tangent 0 is complex128, but its operand is float64"),
    (lambda: ge.jvp("ij->i", (A.astype(int),), (A,)), ge.DtypeError, "operand 0 is int64, which has no derivative"),
    (lambda: ge.vjp("ij->i", A, memory_limit="1e999999999"), ge.PlanError, "is no number of bytes"),
    (lambda: ge.einsum_plan("ij,jk->ik", A, B).vjp(optimize=5), ge.OptimizerError, "optimize=5"),
    (lambda: ge.einsum_plan("ij->i", A).vjp(memory_limit="50%"), ge.PlanError, "a plan has none: give bytes"),
    (
        lambda: ge.vjp("ij->i", A, memory_limit="4 apples"),
        ge.PlanError,
        "memory_limit='4 apples' is no number of bytes",
    ),
    (lambda: ge.vjp("ij->i", A, memory_limit=-1), ge.PlanError, "memory_limit=-1 is no number of bytes"),
]


@pytest.mark.parametrize(("call", "kind", "words"), REFUSED)
def test_what_is_wrong_is_said_at_the_door(call, kind, words):
    with pytest.raises(kind) as caught:
        call()
    assert words in str(caught.value)


def test_integers_that_are_not_asked_for_are_fine(rng):
    x, n = rng.random((2, 3)), np.arange(3)
    y, pullback = ge.vjp("ij,j->i", x, n, wrt=0)
    np.testing.assert_allclose(pullback(np.ones(2))[0], np.broadcast_to(n, (2, 3)))
    np.testing.assert_allclose(ge.jvp("ij,j->i", (x, n), (x, None))[1], y)
    assert ge.jvp("ij,j->i", (x, n), (None, None))[1].tolist() == [0, 0]


@pytest.mark.parametrize(
    ("written", "number"),
    [
        ("4GiB", 4 << 30),
        ("1.5 kB", 1500),
        ("2e9", 2 * 10**9),
        ("7", 7),
        (10.0, 10),
        ("1TiB", 1 << 40),
        ("3 MB", 3_000_000),
    ],
)
def test_bytes_are_written_as_people_write_them(written, number):
    assert bytes_limit(written) == number


def test_a_share_of_memory_is_that_of_the_device():
    memory = simulated_backend().memory_bytes()
    assert room_on(simulated_backend(), "12.5%", ()).bytes == memory // 8
    assert room_on(simulated_backend(), "auto", [((3, 5), np.dtype("f4"))]).bytes == int(0.8 * memory - 60)
    assert 0 < room_on(gpueinsum.backends.select.HOST, "100%", ()).bytes <= 1 << 50
    for nonsense in ("%", "x%", "nan%", "-1%", "1e999%", "automatic"):
        with pytest.raises(ge.PlanError, match="is no number of bytes"):
            room_on(simulated_backend(), nonsense, ())
