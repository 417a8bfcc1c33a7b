"""CuPy's and JAX's einsum tests as tables: their equations, shapes and expected errors, against the oracle.

Equations and shapes are those of tests/cupy_tests/linalg_tests/test_einsum.py in cupy/cupy (MIT licence) and of
tests/lax_numpy_einsum_test.py in jax-ml/jax (Apache licence 2.0; some are dask's, TensorFlow's and Stack
Overflow's there). The code is ours.
"""

from collections.abc import Callable
from itertools import product
from typing import Any

import numpy as np
import pytest
from expressions import random_operands
from oracle import BFLOAT16, DTYPES, assert_agrees, reference

import gpueinsum as ge

Einsum = Callable[..., Any]
Shape = tuple[int, ...]

CUPY_UNARY: list[tuple[str, Shape]] = [
    ("ij", (2, 3)), ("...", (2, 3)), ("ji", (2, 3)), ("ii->i", (3, 3)), ("jii->ij", (3, 3, 3)),
    ("iji->ij", (3, 3, 3)), ("...ii->...i", (3, 3, 3)), ("iii->i", (3, 3, 3)), ("ijk->jik", (2, 3, 4)),
    ("ijk->kij", (2, 3, 4)), ("ijk->ikj", (2, 3, 4)), ("kji->ikj", (2, 3, 4)), ("j...i->i...j", (2, 3, 4)),
    ("i->", (3,)), ("ii", (3, 3)), ("ijkj->kij", (2, 2, 2, 2)), ("ijij->ij", (2, 2, 2, 2)),
    ("jiji->ij", (2, 2, 2, 2)), ("ii...->...", (2, 2, 2, 2)), ("i...i->...", (2, 2, 2, 2)),
    ("...ii->...", (2, 2, 2, 2)), ("j...i->...", (2, 2, 2, 2)),
]  # fmt: skip
CUPY_BINARY: list[tuple[str, Shape, Shape]] = [
    ("i,j", (2,), (3,)), ("ij,j", (2, 3), (3,)), ("ij,i", (2, 3), (2,)), ("ij,jk", (2, 3), (3, 4)),
    ("ijk, jil -> kl", (3, 4, 2), (4, 3, 2)), ("i...,...k->ki...", (3, 4, 2), (4, 2, 3)),
    ("ij...,ji...->i...", (3, 4, 2), (4, 3, 2)), ("ijil,jkk->kj", (2, 3, 2, 4), (3, 2, 2)),
    ("i...ij,ji...->...j", (2, 4, 2, 3), (3, 2, 4)), ("ij...,j...->ij...", (2, 3, 4), (3,)),
    ("ij...,...j->ij...", (2, 3, 4), (3,)), ("ij...,j->ij...", (2, 3, 4), (3,)),
    ("ik...,k...->i...", (4, 3), (3, 2)), ("ik...,...kj->i...j", (4, 3), (3, 2)), ("...k,kj", (4, 3), (3, 2)),
    ("ik,k...->i...", (4, 3), (3, 2)), ("ijkl,k", (2, 3, 4, 5), (4,)), ("...kl,k", (2, 3, 4, 5), (4,)),
    ("...kl,k...", (2, 3, 4, 5), (4,)), ("...lmn,lmno->...o", (1, 1, 1, 2, 3, 4), (2, 3, 4, 2)),
]  # fmt: skip
CUPY_TERNARY: list[tuple[str, Shape, Shape, Shape]] = [
    ("ij,jk,kl", (2, 3), (3, 4), (4, 5)), ("ij,ik,i->ijk", (2, 4), (2, 3), (2,)),
    ("ij,ki,i->jk", (2, 4), (3, 2), (2,)), ("i...,i,...i->...i", (2, 3, 4), (2,), (3, 4, 2)),
]  # fmt: skip
JAX: list[tuple[str, tuple[Shape, ...]]] = [
    ("i,j,k->ijk", ((3,), (4,), (5,))), ("ij,j->i", ((3, 4), (4,))), ("ijk,j->i", ((3, 4, 5), (4,))),
    ("iji,i->j", ((3, 4, 3), (3,))), ("ij,ij->", ((3, 4), (3, 4))), ("nij,jk->nik", ((10, 2, 3), (3, 4))),
    ("sa,shb->shab", ((2, 1), (2, 3, 4))), ("ijk->j", ((3, 4, 5),)), ("ijk->kij", ((3, 4, 5),)),
    ("ijk->ki", ((3, 4, 5),)), ("...ijk->...ki", ((2, 3, 4, 5),)), ("...ijk->ki", ((3, 4, 5),)),
    ("ii->", ((3, 3),)), ("ij->", ((3, 3),)), ("iii->", ((3, 3, 3),)), ("ii->i", ((3, 3),)),
    ("iij->i", ((3, 3, 4),)), ("iii->i", ((3, 3, 3),)), ("iijkk->i", ((3, 3, 5, 4, 4),)),
    ("iijkk->ik", ((3, 3, 5, 4, 4),)), ("iijkl->il", ((3, 3, 5, 4, 4),)), ("ij->ij", ((3, 3),)),
    ("ij...,jk...->ik...", ((2, 3, 5, 1), (3, 4, 5, 1))), ("ijj,k->ik", ((2, 3, 3), (4,))),
    ("ij,ij,jk->ik", ((2, 3), (2, 3), (3, 4))), ("ijkl,ijml->ijkm", ((1, 8, 20, 4), (1, 8, 20, 4))),
    ("ntk,kd,dc->nc", ((2, 6, 5), (5, 4), (4, 3))), ("cij,cjk->cik", ((3, 4, 5), (3, 1, 6))),
    ("cij,cjk->cik", ((1, 4, 5), (3, 5, 6))), ("cij,cjk->cik", ((1, 4, 5), (3, 1, 6))),
    ("...ij,...j", ((2, 1, 3, 3), (2, 4, 3))),
]  # fmt: skip
JAX_FROM_DASK = (
    "abc,bad->abcd", "abcdef,bcdfg->abcdeg", "ea,fb,abcd,gc,hd->efgh", "ab,b", "aa", "a,a->", "a,a->a", "a,a",
    "a,b", "a,b,c", "a", "ba,b", "ba,b->", "defab,fedbc->defac", "ab...,bc...->ac...", "a...a", "abc...->cba...",
    "...ab->...a", "a...a->a...", "...abc,...abcd->...d", "ab...,b->ab...", "aa->a", "ab,ab,c->c", "aab,bc->ac",
    "aab,bcc->ac", "fdf,cdd,ccd,afe->ae", "fff,fae,bef,def->abd",
)  # fmt: skip
JAX_OPTIMIZED: list[tuple[str, tuple[Shape, ...]]] = [
    ("i->", ((3,),)), ("ii->i", ((4, 4),)), ("ij,jk", ((3, 4), (4, 3))), ("ij,jkl,klm", ((2, 2), (2, 3, 4), (3, 4, 2))),
]  # fmt: skip

PAIR, CUBE, MATRIX = np.array([0, 0]), np.zeros((2, 2, 2)), np.arange(6).reshape(2, 3)
# From CuPy's tests, and from those of numpy's and opt_einsum's that fail as a whole for one line in them.
REJECTED: list[tuple[type[Exception], tuple[Any, ...]]] = [
    (ValueError, ("..", CUBE)), (ValueError, ("...i...", CUBE)), (ValueError, ("i...->...i...", CUBE)),
    (ValueError, ("",)), (TypeError, (0, 0)), (ValueError, ("", 0, 0)), (ValueError, ("i,j", PAIR, PAIR, PAIR)),
    (ValueError, (",", 0)), (ValueError, ("i", 0)), (ValueError, ("ij", PAIR)), (ValueError, ("ijk...->...", MATRIX)),
    (ValueError, ("i->i", MATRIX)), (ValueError, ("i%", PAIR)), (ValueError, ("j$", PAIR)),
    (ValueError, ("i->&", PAIR)),
    (ValueError, ("i->ij", PAIR)), (ValueError, ("ij->i,j", CUBE[0])), (ValueError, ("ii", MATRIX)),
    (ValueError, ("ii->", MATRIX)), (ValueError, ("i-i", PAIR)), (ValueError, ("i>i", PAIR)),
    (ValueError, ("i->->i", PAIR)), (ValueError, ("i-", PAIR)), (TypeError, (None,) * 63),
    (ValueError, (",", 0, [0], [0])), (ValueError, (",", [0])), (ValueError, ("...i", 0)),
    (ValueError, ("i...j", [0, 0])), (ValueError, ("i...", 0)), (ValueError, ("ij...", [0, 0])),
    (ValueError, ("i..", [0, 0])), (ValueError, (".i...", [0, 0])), (ValueError, ("j->..j", [0, 0])),
    (ValueError, ("j->.j...", [0, 0])), (ValueError, ("i%...", [0, 0])), (ValueError, ("...j$", [0, 0])),
    (ValueError, ("ii->i", MATRIX)), (ValueError, ("i", MATRIX)), (ValueError, ("->,->", 0, 5)),
    (ValueError, ("&,a->", 0, 5)), (ValueError, ("a,a->&", 0, 5)), (TypeError, (CUBE, [..., 0], [..., ["a"]])),
    (TypeError, (CUBE, [..., {}], [..., "a"])),
]  # fmt: skip


def aranges(shapes: tuple[Shape, ...], dtypes: tuple[np.dtype, ...]) -> list[np.ndarray]:
    """CuPy's operands: 1, 2, 3, ... in the dtype."""
    return [
        np.arange(1, np.prod(shape, dtype=int) + 1).reshape(shape).astype(dtype)
        for shape, dtype in zip(shapes, dtypes, strict=True)
    ]


@pytest.mark.parametrize(("subscripts", "shape"), CUPY_UNARY)
def test_cupys_unary_calls(einsum_on: Einsum, subscripts: str, shape: Shape) -> None:
    for dtype in DTYPES:
        args = (subscripts, *aranges((shape,), (dtype,)))
        assert_agrees(einsum_on(*args), reference(*args))


@pytest.mark.parametrize(("subscripts", "left", "right"), CUPY_BINARY)
def test_cupys_binary_calls(einsum_on: Einsum, subscripts: str, left: Shape, right: Shape) -> None:
    for dtypes in product([dtype for dtype in DTYPES if dtype != BFLOAT16], repeat=2):
        args = (subscripts, *aranges((left, right), dtypes))
        assert_agrees(einsum_on(*args), reference(*args))


def test_cupys_calls_with_a_scalar(einsum_on: Einsum) -> None:
    for dtype in DTYPES[:-1]:
        (vector,) = aranges(((2,),), (dtype,))
        for args in ((",i->", 3, vector), ("i,->", vector, 4)):
            try:
                expected = reference(*args)
            except TypeError:  # bfloat16 and int64 have no common type
                assert dtype == BFLOAT16
                with pytest.raises(TypeError):
                    einsum_on(*args)
            else:
                assert_agrees(einsum_on(*args), expected)


@pytest.mark.parametrize(("subscripts", "a", "b", "c"), CUPY_TERNARY)
def test_cupys_ternary_calls(einsum_on: Einsum, subscripts: str, a: Shape, b: Shape, c: Shape) -> None:
    for dtype in DTYPES:
        args = (subscripts, *aranges((a, b, c), (dtype,) * 3))
        assert_agrees(einsum_on(*args), reference(*args))


@pytest.mark.parametrize(("subscripts", "shapes"), JAX)
def test_jaxs_calls(einsum_on: Einsum, subscripts: str, shapes: tuple[Shape, ...]) -> None:
    args = (subscripts, *random_operands(shapes, np.dtype("float64")))
    assert_agrees(einsum_on(*args), reference(*args))


@pytest.mark.parametrize("subscripts", JAX_FROM_DASK)
def test_jaxs_calls_from_dask(einsum_on: Einsum, subscripts: str) -> None:
    terms = subscripts.split("->")[0].replace("...", "01").split(",")
    labels = dict.fromkeys("".join(terms))
    sizes = {label: 2 + i % 3 for i, label in enumerate(labels)}
    shapes = [tuple(sizes[label] for label in term) for term in terms]
    for dtype in ("float32", "int32", "complex64", "bool"):
        args = (subscripts, *random_operands(shapes, np.dtype(dtype)))
        assert_agrees(einsum_on(*args), reference(*args))


@pytest.mark.parametrize("optimize", [True, False, "optimal", "auto", "greedy", "eager"])
@pytest.mark.parametrize(("subscripts", "shapes"), JAX_OPTIMIZED)
def test_jaxs_optimization_modes(einsum_on: Einsum, subscripts: str, shapes: tuple[Shape, ...], optimize: Any) -> None:
    args = (subscripts, *random_operands(shapes, np.dtype("float32")))
    assert_agrees(einsum_on(*args, optimize=optimize), reference(*args))
    path, _ = ge.einsum_path(*args, optimize=optimize)
    assert_agrees(einsum_on(*args, optimize=path), reference(*args))


def test_a_step_over_three_operands_is_ours_to_do(einsum_on: Einsum) -> None:
    """JAX raises NotImplementedError here."""
    args = ("ij,ik,il->jkl", *random_operands(((2, 3), (2, 4), (2, 5)), np.dtype("float32")))
    assert_agrees(einsum_on(*args, optimize=[(0, 1, 2)]), reference(*args))


def test_every_pair_of_dtypes_promotes_as_in_numpy(einsum_on: Einsum) -> None:
    for dtypes in product(DTYPES, repeat=2):
        args = ("a,a->a", *aranges(((10,), (10,)), dtypes))
        try:
            expected = reference(*args)
        except TypeError:
            with pytest.raises(TypeError):
                einsum_on(*args)
        else:
            assert_agrees(einsum_on(*args), expected)


def test_infinities_stay_on_their_diagonal(einsum_on: Einsum) -> None:
    """A diagonal is no product with an identity matrix: no 0 * inf."""
    x = np.array([[[np.inf, np.inf], [1.0, 1.0]]])
    assert np.array_equal(einsum_on("baa->ba", x), [[np.inf, 1.0]])
    assert np.array_equal(einsum_on("i->ii", x[0, 0]), [[np.inf, 0.0], [0.0, np.inf]])
    assert np.array_equal(einsum_on("baa->b", x), [np.inf])


@pytest.mark.parametrize(("error", "args"), REJECTED)
def test_what_cupy_numpy_and_opt_einsum_reject(
    einsum_on: Einsum, error: type[Exception], args: tuple[Any, ...]
) -> None:
    for call in (einsum_on, ge.contract, ge.einsum_path, ge.contract_path):
        for optimize in (True, False):
            with pytest.raises(error, match=r"\w+ \w+"):
                call(*args, optimize=optimize)


def test_the_error_names_the_label_that_does_not_fit(einsum_on: Einsum) -> None:
    """numpy's gh-11221: 'c' appeared in the message."""
    with pytest.raises(ValueError, match="'b'"):
        einsum_on("aabcb,abc", np.ones((3, 3, 4, 5, 6)), np.ones((3, 4, 5)))


def test_casting_by_same_value_is_rejected(einsum_on: Einsum) -> None:
    with pytest.raises((ValueError, TypeError)):
        einsum_on("ij->j", np.ones((2, 3)), casting="same_value")


def test_no_arguments_are_rejected(einsum_on: Einsum) -> None:
    for call in (einsum_on, ge.einsum_path):
        with pytest.raises(ValueError, match="operand"):
            call()


def test_what_they_reject_and_we_do(einsum_on: Einsum) -> None:
    """An ellipsis can be summed away; a repeated output label embeds."""
    for args in (("...->", CUBE), ("ij->jij", CUBE[0])):
        assert_agrees(einsum_on(*args), reference(*args))
