"""What einsum and its kin refuse, with which error and which words."""

import itertools

import numpy as np
import pytest

import gpueinsum as ge


class Sparse:
    """As SciPy's: a shape and arithmetic, but no array."""

    shape = (2, 3)
    __mul__ = __add__ = toarray = lambda self, *other: self


REFUSED = [
    (lambda: ge.einsum("ij,jk", np.ones((2, 3)), np.ones((5, 2))), ValueError, "label 'j' is 3 in operand 0 but 5"),
    (
        lambda: ge.einsum("i", np.ones(3), out=np.ones(2)),
        ValueError,
        r"out has shape \(2,\), but the result has \(3,\)",
    ),
    (lambda: ge.einsum("i", np.ones(3), out=[1, 2, 3]), TypeError, "out is of type list, not an array"),
    (lambda: ge.einsum("i", np.ones(3), out=np.broadcast_to(0.0, 3)), ValueError, "out is read-only"),
    (lambda: ge.einsum("i", np.ones(3), out=np.ones(3, int)), TypeError, "the result is float64, which casting='safe'"),
    (
        lambda: ge.einsum("i", np.ones(3), dtype="f4"),
        TypeError,
        "operand 0 is float64, which casting='safe' does not cast",
    ),
    (lambda: ge.einsum("i", np.ones(3), dtype="apple"), TypeError, "dtype='apple' is no dtype"),
    (lambda: ge.einsum("i", np.array(["a"])), TypeError, "operand 0: elements of dtype <U1 cannot be multiplied"),
    (lambda: ge.einsum("i", np.array(["2026-11-22"], "M8[D]")), TypeError, "cannot be multiplied"),
    (lambda: ge.einsum("i", np.ones(3), order="Z"), ValueError, "order='Z' is none of"),
    (lambda: ge.einsum("i", np.ones(3), backend="tpu"), ValueError, "backend='tpu' is none of"),
    (lambda: ge.einsum("i", np.ones(3), precision="low"), ValueError, "precision='low' is none of"),
    (lambda: ge.einsum("i", np.ones(3), deterministic="yes"), ValueError, "deterministic='yes' is none of"),
    (
        lambda: ge.einsum("i", np.ones(3), optimize_seconds="1 h"),
        ValueError,
        "optimize_seconds='1 h' is no number of seconds",
    ),
    (lambda: ge.einsum("i", np.ones(3), optimize_seconds=-1), ValueError, "optimize_seconds=-1 is no number"),
    (
        lambda: ge.einsum("i", np.ones(3), optimize_seconds=1, deterministic=True),
        ValueError,
        "optimize_seconds=1 searches by the clock.* deterministic=True refuses",
    ),
    (
        lambda: ge.contract("i,i,i", *[np.ones(3)] * 3, optimize=[(0, 1), (0, 1)], optimize_seconds=1),
        ValueError,
        "optimize_seconds=1 is for optimize='auto'",
    ),
    (
        lambda: ge.einsum_plan("i", (3,), optimize_seconds=1, largest_intermediate=9),
        ValueError,
        "optimize_seconds= and largest_intermediate= are for different searches",
    ),
    (
        lambda: ge.vjp(ge.einsum_plan("i,i", (3,), (3,)), np.ones(3), np.ones(3), optimize_seconds=1),
        ValueError,
        "optimize_seconds=1 is given with a plan",
    ),
    (lambda: ge.contract_expression("i", (3,), graph="yes"), ValueError, "graph='yes' is none of"),
    (lambda: ge.contract_expression("i", (3,), graph=True, deterministic=True), ValueError, "graph=True may give"),
    (lambda: ge.einsum("i", np.ones(3), optimize="fastest"), KeyError, "optimize='fastest'"),
    (lambda: ge.einsum("i,i,i", *[np.ones(3)] * 3, optimize=[(0, 3), (0, 1)]), RuntimeError, "path step 0"),
    (lambda: ge.einsum(np.ones((1,) * 40), range(40), np.ones((1,) * 40), range(40, 80)), ValueError, "80 dimensions"),
    (lambda: ge.einsum("i\n,i", np.ones(2), np.ones(3)), ValueError, r"i ,i\n    \^  \^"),
    (lambda: ge.einsum("i"), ValueError, "at least one operand"),
    (lambda: ge.einsum("i", np.ones(3), optimize={}), ValueError, "optimize={} is no path, no optimizer"),
    (lambda: ge.einsum_plan("i", (-3,)), TypeError, r"shape \(-3,\) has a negative size"),
    (lambda: ge.einsum_plan("i", (3,), dtype="M8[s]"), TypeError, "cannot be multiplied and added"),
    (lambda: ge.tensordot(np.ones((2, 2)), np.ones((2, 2)), ([0, 0], [0, 0])), ValueError, "name an axis twice"),
    (lambda: ge.einsum("i,i", np.ones(2), None), TypeError, "operand 1: a NoneType is no array of numbers"),
    (lambda: ge.einsum("ij", {1: 2}), TypeError, "operand 0: a dict is no array of numbers"),
    (lambda: ge.einsum("ij->ji", Sparse()), TypeError, r"a Sparse is no array .* convert it first \(x.toarray\(\)\)"),
    (lambda: ge.einsum("ij", [[1, 2], [3]]), ValueError, "operand 0 is no array: setting an array element"),
    (lambda: ge.einsum("ij,j", [np.ones((2, 3)), np.ones(3)]), TypeError, r"passed one by one, \*operands"),
    (lambda: ge.einsum("i,i", np.ones(2), ["a", "b"]), TypeError, "operand 1: elements of dtype <U1"),
    (lambda: ge.einsum(np.ones(2), [0], np.ones(2)), TypeError, "the last argument, needs a list of hashable|1 labels"),
    (lambda: ge.einsum(np.ones((2, 2)), [0, 1], np.ones((2, 2))), TypeError, "each operand is followed by its labels"),
    (lambda: ge.einsum(np.ones((2, 2)), np.array([0.0, 1.0])), TypeError, "operand 0 needs a list of hashable labels"),
    (lambda: ge.einsum(None, np.ones((2, 2)), [0, 1]), TypeError, "operand 0 needs a list of hashable labels"),
    (lambda: ge.einsum("i,i,i", *[np.ones(2)] * 3, optimize=1), ValueError, "optimize=1 is no path"),
    (lambda: ge.einsum("i", np.ones(3), order=["C"]), ValueError, r"order=\['C'\] is none of"),
    (lambda: ge.contract("i", np.ones(3), memory_limit=[1]), ValueError, r"memory_limit=\[1\] is no number of bytes"),
    (lambda: ge.contract("i", np.ones(3), largest_intermediate=[1]), ValueError, "is not a number of elements"),
    (
        lambda: ge.contract("i,i", np.ones(3), np.ones(3), largest_intermediate="10GB"),
        ValueError,
        "largest_intermediate='10GB'",
    ),
    (lambda: ge.contract("i,i", np.ones(3), np.ones(3), memory_limit=float("nan")), ValueError, "memory_limit=nan"),
    (lambda: ge.einsum("i", np.ones(3), dtype="f4,("), TypeError, r"dtype='f4,\(' is no dtype"),
    (lambda: ge.einsum("i", np.ones(3), dtype="float8_e5m2"), TypeError, "is no dtype|cannot be multiplied"),
    (lambda: ge.einsum("\ud83dj", np.ones((2, 3))), ValueError, "cannot be a label"),
    (lambda: ge.run_plan("ij->ji", np.ones((2, 3))), ValueError, "'ij->ji' is no Plan: einsum_plan makes one"),
    (lambda: ge.explain("ij->ji"), ValueError, "'ij->ji' is no Plan"),
    (lambda: ge.tensordot(np.ones(2), np.ones(2), "ij"), ValueError, "axes='ij' is neither"),
    (lambda: ge.tensordot(np.ones(2), np.ones(2), [1]), ValueError, r"axes=\[1\] is neither"),
    (lambda: ge.contract_path("i,i", 2, 3, shapes=True), TypeError, "2 is no shape, a tuple of integers"),
    (lambda: ge.contract_expression("i,i", (2,), (-2,)), TypeError, r"shape \(-2,\) has a negative size"),
    (lambda: ge.einsum(np.ones(3)), ValueError, "the first argument is neither subscripts nor an operand"),
    (lambda: ge.einsum(np.ones(3), 0), TypeError, "operand 0 needs a list of hashable labels, not 0"),
    (lambda: ge.einsum(np.ones(3), [[]]), TypeError, "operand 0 needs a list of hashable labels"),
    (lambda: ge.tensordot(np.ones((2, 3)), np.ones((2, 3)), 1), ValueError, "axis -1 of x is 3 but axis 0 of y is 2"),
    (lambda: ge.tensordot(np.ones(2), np.ones(2), ([0], [3])), ValueError, "name an axis twice|out of range"),
]


@pytest.mark.parametrize(("call", "error", "message"), REFUSED)
def test_a_bad_call_is_refused_at_the_door(call, error, message):
    with pytest.raises(error, match=message):
        call()


def test_an_error_in_a_long_expression_shows_its_surroundings():
    labels = [chr(0x1200 + i) for i in range(300)]
    text = ",".join(a + b for a, b in itertools.pairwise(labels))
    shapes = [(2, 2)] * 298 + [(3, 2)]
    with pytest.raises(ge.SubscriptsError) as caught:
        ge.einsum_plan(text, *shapes)
    message, excerpt, carets = str(caught.value).splitlines()
    assert message == f"label {labels[298]!r} is 2 in operand 297 but 3 in operand 298"
    assert len(excerpt) < 120
    assert excerpt.startswith("     … ")
    assert [excerpt[at] for at, mark in enumerate(carets) if mark == "^"] == [labels[298]] * 2


def test_an_error_at_a_term_without_labels_is_shown_in_a_long_expression_too():
    with pytest.raises(ge.SubscriptsError, match="operand 0 has 1 dimension, but its term has 0 labels"):
        ge.einsum_plan("," * 200, (2,), *[()] * 200)


def test_unicode_white_space_may_be_a_label():
    assert ge.einsum("a\u1680,\u1680b->ab", np.ones((2, 3)), np.ones((3, 5))).shape == (2, 5)
    assert ge.einsum(b"ij->ji", np.ones((2, 3))).shape == (3, 2)  # and numpy takes bytes


def test_nothing_is_written_when_a_call_is_refused():
    out = np.zeros((2, 2))
    with pytest.raises(ge.SubscriptsError):
        ge.einsum("ij,jk->ik", np.ones((2, 3)), np.ones((5, 2)), out=out)
    assert not out.any()
