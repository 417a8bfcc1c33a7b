"""Single steps on the CPU: views, scatters, sums, conjugates, and more labels than there are letters."""

import itertools

import numpy as np
import pytest

import gpueinsum as ge
from gpueinsum.backends.select import HOST
from gpueinsum.language.plan import Plan
from gpueinsum.language.steps import Add, Contract, Expand, Reduce, sides

SIZES = {"i": 5, "j": 7, "k": 2, "u": 1}


def run(step, sizes, *arrays, dtype=None):
    """The result of one step of these arrays."""
    terms = dict(sides(step))
    inputs = tuple(terms[number] for number in range(len(terms)))
    own = tuple((label, size) for label, size in sizes.items() if label in "".join((*inputs, step.out)))
    return HOST.bind_single(Plan(inputs, (step,), (len(inputs),), own, dtype or arrays[0].dtype.name))(*arrays)


@pytest.mark.parametrize(
    ("step", "seen"),
    [
        (Reduce(0, "ij", "ji"), lambda x: x.T),
        (Reduce(0, "iij", "ji"), lambda x: np.einsum("iij->ji", x)),
        (Reduce(0, "uij", "ji"), lambda x: x[0].T),
        (Reduce(0, "u", ""), lambda x: x[0, ...]),
        (Expand(0, "ij", "jui"), lambda x: x.T[:, None]),
        (Expand(0, "", "u"), lambda x: x[None]),
    ],
    ids=lambda part: str(part) if isinstance(part, Reduce | Expand) else "",
)
def test_what_changes_only_strides_is_a_view(step, seen, rng):
    x = np.asarray(rng.random([SIZES[label] for label in step.term]))
    for array in (x, x.copy(order="F"), x[::-1] if x.ndim else x):
        result = run(step, SIZES, array)
        np.testing.assert_array_equal(result, seen(array))
        assert np.shares_memory(result, array)


@pytest.mark.parametrize("equation", ["i->ii", "ij->jiij", "i->jiki", "u->uu", "->ii", "ij->ijijk"])
def test_what_repeats_labels_is_written_to_diagonals(equation, rng):
    term, out = equation.split("->")
    x = rng.random([SIZES[label] for label in term])
    result = run(Expand(0, term, out), SIZES, x)
    for place in np.ndindex(result.shape):
        at = dict(zip(out, place, strict=True))
        is_diagonal = tuple(at[label] for label in out) == place
        assert result[place] == (x[tuple(at[label] for label in term)] if is_diagonal else 0)


@pytest.mark.parametrize("count", range(4))
@pytest.mark.parametrize("term", ["ij", "ijk", "ii", ""])
def test_sums_lie_in_memory_as_what_is_added_does(term, count, rng):
    sizes = {"i": 211, "j": 283, "k": 2}
    shape = [sizes[label] for label in term]
    arrays = [np.asarray(rng.random(shape[::-1])).T for _ in range(count)]
    total = run(Add(tuple(range(count)), term), sizes, *arrays, dtype="float64")
    np.testing.assert_allclose(total, sum(arrays, np.zeros(shape)))
    assert total.flags.writeable
    assert not any(np.shares_memory(total, array) for array in arrays)
    assert not count or total.strides == arrays[0].strides


@pytest.mark.parametrize("marks", [(True, False), (False, True), (True, True)])
@pytest.mark.parametrize("dtype", ["complex64", "complex128"])
def test_conjugates_of_large_arrays_with_gaps_are_multiplied(marks, dtype, rng):
    real, imag = rng.integers(-3, 4, (2, 199, 2, 223))
    x = (real + 1j * imag).astype(dtype)
    arrays = x[:, 0], x[::-1, 0], np.broadcast_to(x[:1, 0], (199, 223))
    for left, right in itertools.product(arrays, arrays):
        result = run(Contract(0, 1, "ij", "kj", "ik", *marks), {"i": 199, "j": 223, "k": 199}, left, right)
        u, v = (side.conj() if mark else side for side, mark in zip((left, right), marks, strict=True))
        np.testing.assert_array_equal(result, u @ v.T)


def test_steps_of_more_than_52_labels_are_summed_too(rng):
    shape = tuple(2 if n in (3, 41, 59) else 1 for n in range(60))
    x = rng.random(shape)
    labels = list(range(60))
    np.testing.assert_allclose(ge.einsum(x, labels, []), x.sum())
    np.testing.assert_allclose(ge.einsum(x, labels, x, labels, [41]), (x * x).sum(axis=(3, 59)).ravel())
    np.testing.assert_allclose(ge.einsum(x, labels, x, labels, labels[::-1]), (x * x).T)
    assert ge.einsum(x > 0.5, labels, [3]).dtype == bool


@pytest.mark.parametrize("flags", [(True, False), (False, True), (True, True)])
@pytest.mark.parametrize("equation", ["i,i->", ",->", "ij,jk->ik", "j,ij->i"])
def test_conjugates_of_every_dtype(equation, flags, rng):
    (x_term, y_term), out = equation.split("->")[0].split(","), equation.split("->")[1]
    step = Contract(0, 1, x_term, y_term, out, *flags)
    sizes = {label: size for label, size in (("i", 3), ("j", 5), ("k", 2)) if label in equation}
    for dtype in ("bool", "int32", "float32", "complex64", "complex128", "object"):
        x, y = (rng.integers(-3, 4, [sizes[label] for label in term]) for term in (x_term, y_term))
        if dtype.startswith("complex") or dtype == "object":
            x, y = x * (1 + 2j), y * (2 - 1j)
        x, y = np.asarray(x).astype(dtype), np.asarray(y).astype(dtype)
        result = run(step, sizes, x, y)
        u, v = (np.asarray(a).astype(complex) for a in (x, y))
        expected = np.einsum(equation, u.conj() if flags[0] else u, v.conj() if flags[1] else v)
        assert np.asarray(result).dtype == dtype
        expected = expected != 0 if dtype == "bool" else expected
        np.testing.assert_array_equal(np.asarray(result).astype(complex), expected)
