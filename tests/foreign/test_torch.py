"""torch's einsum tests as tables, through its drop-in: equations, shapes and errors, compared with torch.einsum.

The tables are those of test_einsum and its like in test/test_linalg.py in pytorch/pytorch (BSD licence); the code is
ours. Gradients are compared, too, and the same calls go through `gpueinsum.einsum`.
"""

from random import Random
from typing import Any

import pytest

import gpueinsum as ge

torch = pytest.importorskip("torch", reason="torch is not installed: its tests are not run")

from gpueinsum.torch import einsum  # noqa: E402  # which needs torch

X, Y, A, B, C, D, E = (5,), (7,), (3, 5), (2, 5), (2, 3, 5), (2, 5, 7), (7, 9)
F, G, H, I, L, R, W = (2, 3, 3, 5), (5, 4, 6), (4, 4), (2, 3, 2), (5, 10), (5, 20), (15, 10, 20)  # noqa: E741
EQUATIONS: list[tuple[Any, ...]] = [
    # vectors
    ("i->", X), ("i,i->", X, X), ("i,i->i", X, X), ("i,j->ij", X, Y),
    # matrices
    ("ij->ji", A), ("ij->j", A), ("ij->i", A), ("ij,ij->ij", A, A), ("ij,j->i", A, X), ("ij,kj->ik", A, B),
    ("ij,ab->ijab", A, E),
    # tensors
    ("Aij,Ajk->Aik", C, D), ("ijk,jk->i", C, A), ("aij,jk->aik", D, E), ("abCd,dFg->abCFg", F, G),
    ("ijk,jk->ik", C, A), ("ijk,jk->ij", C, A), ("ijk,ik->j", C, B), ("ijk,ik->jk", C, B),
    # diagonals
    ("ii", H), ("ii->i", H), ("iji->j", I), ("ngrg...->nrg...", (2, 1, 3, 1, 4)),
    # ellipses
    ("i...->...", H), ("ki,...k->i...", A[::-1], B), ("k...,jk->...", A[::-1], B), ("...ik, ...j -> ...ij", C, X),
    ("Bik,k...j->i...j", C, (5, 3)), ("i...j, ij... -> ...ij", C, (2, 5, 2, 3)),
    # many
    ("bn,anm,bm->ba", L, W, R), ("...,be,b...,beg,gi,bc...->bi...", A, B, C, D, E, F),
]  # fmt: skip
SUBLISTS: list[tuple[Any, ...]] = [
    (X, [0]), (X, [0], []), (X, [0], Y, [1], [0, 1]), (A, [0, 1], [1, 0]), (A, [0, 1], X, [1], [0]),
    (A, [0, 1], B, [2, 1]), (A, [0, 1], B, [2, 1], [0, 2]),
    ((2, 1, 3, 1, 4), [0, 1, 2, 1, Ellipsis], [0, 2, 1, Ellipsis]), (A[::-1], [0, 1], B, [Ellipsis, 0]),
    (A[::-1], [0, 1], B, [Ellipsis, 0], [1, Ellipsis]), (A[::-1], [0, Ellipsis], B, [1, 0], [Ellipsis]),
    (L, [40, 41], W, [2, 41, 50], R, [40, 50], [40, 2]),
]  # fmt: skip
CORNERS: list[tuple[Any, ...]] = [
    (" ", 1), (" -> ", 1), (" , ", 2, 2), (" , , ", 2, 2, 2), (" , -> ", 2, 2), (" i ", [1]), (" i -> ", [1]),
    (" i -> i ", [1]), (" i , i ", [2], [2]), (" i , i -> i ", [2], [2]),
    # sizes of 0
    ("i", []), (" i j -> j", [[], []]), ("ij->i", [[], []]), (" i j k  ,  k  -> i j ", [[[], []], [[], []]], []),
    # broadcasting
    ("i,j", [2], [1, 2]), ("i,ij->ij", [1, 2], [[1, 2, 3], [2, 3, 4]]),
    # ellipses
    ("...", 1), ("...->", 1), ("...->...", 1), ("i...->i", [1]), ("i...->...i", [1]), ("...a->", [[2], [4]]),
    ("a...b->ab", [[[1], [2]], [[3], [4]]]),
]  # fmt: skip
FLOATING = (torch.float64, torch.complex64, torch.complex128)
V, M = torch.ones(2), torch.ones(2, 3)
REJECTED: list[tuple[Any, ...]] = [
    ("", []), (". ..", [V]), ("... ...", [V]), ("1", [V]), (",", [V]), ("", [V, V]), ("", [V]), ("ai", [V]),
    ("ai...", [V]), ("a->... .", [V]), ("a->..", [V]), ("a->1", [V]), ("a->i", [V]), ("aa", [M]), ("...,...", [V, M]),
    ("a,a", [V, torch.ones(3)]), ("a, ba", [V, M]),
]  # fmt: skip


def compare(*args: Any) -> None:
    """Values and gradients are torch's, of the drop-in and of `gpueinsum.einsum`."""
    wrt = [arg.requires_grad_() for arg in args if isinstance(arg, torch.Tensor) and arg.dtype in FLOATING]
    values = [function(*args) for function in (torch.einsum, einsum, ge.einsum)]
    expected, *ours = values
    for value in ours:
        torch.testing.assert_close(value, expected)
    if wrt:
        wanted, *gradients = [torch.autograd.grad(value, wrt, expected.detach().cos()) for value in values]
        for found in gradients:
            torch.testing.assert_close(found, wanted)


def tensors(args: tuple[Any, ...], dtype: Any = torch.float64, strided: bool = False) -> list[Any]:
    """Random ones in the place of the shapes, perhaps every other element of larger ones."""
    torch.manual_seed(0)
    made = []
    for arg in args:
        if isinstance(arg, tuple):
            step = 2 if strided else 1
            arg = torch.randn([step * size for size in arg], dtype=dtype)[tuple([slice(None, None, step)] * len(arg))]
        made.append(arg)
    return made


@pytest.mark.parametrize("args", EQUATIONS, ids=lambda args: args[0])
def test_equations(args: tuple[Any, ...]) -> None:
    compare(*tensors(args))
    compare(*tensors(args, strided=True))
    compare(*tensors(args, torch.complex128))


@pytest.mark.parametrize("args", SUBLISTS, ids=str)
def test_sublists(args: tuple[Any, ...]) -> None:
    compare(*tensors(args))
    compare(*tensors(args, torch.complex128))


@pytest.mark.parametrize("args", CORNERS, ids=lambda args: args[0])
def test_corner_cases(args: tuple[Any, ...]) -> None:
    equation, *values = args
    for dtype in (torch.float64, torch.int64, torch.complex64):
        compare(equation, *[torch.tensor(value, dtype=dtype) for value in values])


@pytest.mark.parametrize("seed", range(100))
def test_random_equations(seed: int) -> None:
    """As torch's: random labels, some operands with an ellipsis or a size of 1 that is broadcast, as text and lists."""
    rng = Random(seed)
    labels = rng.sample(range(52), rng.randint(1, 5))
    size = {label: rng.randint(1, 4) for label in labels}
    hidden = [rng.randint(1, 3) for _ in range(rng.randint(0, 2))]
    terms: list[list[Any]] = []
    shapes = []
    for _ in range(rng.randint(1, 3)):
        term: list[Any] = [rng.choice(labels) for _ in range(rng.randint(1, 4))]
        own = {label: 1 if rng.random() < 0.1 else size[label] for label in term}
        shape = [own[label] for label in term]
        if rng.random() < 0.5:
            at = rng.randint(0, len(term))
            kept = hidden[rng.randint(0, len(hidden)) :]
            term.insert(at, Ellipsis)
            shape[at:at] = [1 if rng.random() < 0.2 else each for each in kept]
        terms.append(term)
        shapes.append(shape)
    present = sorted({label for term in terms for label in term if label is not Ellipsis})
    output: list[Any] = rng.sample(present, rng.randint(0, len(present)))
    if any(Ellipsis in term for term in terms):
        output.insert(rng.randint(0, len(output)), Ellipsis)
    torch.manual_seed(seed)
    operands = [torch.randn(shape, dtype=torch.float64) for shape in shapes]
    paired = [each for pair in zip(operands, terms, strict=True) for each in pair]
    compare(*paired, output)
    compare(*paired)
    inputs = ",".join(map(as_text, terms))
    compare(f"{inputs}->{as_text(output)}", *operands)
    compare(inputs, *operands)


def as_text(term: list[Any]) -> str:
    letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"  # in torch's order
    return "".join("..." if label is Ellipsis else letters[label] for label in term)


@pytest.mark.parametrize("args", REJECTED, ids=lambda args: args[0])
def test_what_torch_rejects(args: tuple[Any, ...]) -> None:
    """torch raises RuntimeErrors, which name no place; ours are ValueErrors, as numpy's."""
    with pytest.raises((RuntimeError, ValueError)):
        torch.einsum(*args)
    with pytest.raises(ge.SubscriptsError, match=r"\w+ \w+"):
        einsum(*args)


def test_what_torch_rejects_and_we_do() -> None:
    """An output that repeats a label embeds, as in JAX; labels are any hashable values, not those from 0 to 51."""
    assert torch.equal(einsum("a->aa", [V]), torch.eye(2))
    for label in (-1, 52, "row"):
        assert torch.equal(einsum(M, [label, 0], [0, label]), M.T)
    assert torch.equal(einsum("αβ->βα", M), M.T)
    assert einsum("ij,jk->ik", M, torch.ones(3, 2, dtype=torch.float64)).dtype is torch.float64
    for args in (("a->aa", V), (M, [52, 0]), ("ij,jk->ik", M, torch.ones(3, 2, dtype=torch.float64))):
        with pytest.raises((RuntimeError, ValueError)):
            torch.einsum(*args)


def test_the_layout_of_results() -> None:
    """Whatever needs no copy, as of torch; in C order where that is asked for."""
    x, w = torch.randn(2, 3, 5), torch.randn(5, 3)
    for equation in ("bid,di->bi", "bid,dj->jbi", "bid,di->dbi"):
        result = ge.einsum(equation, x, w, order="C")
        assert result.is_contiguous()
        torch.testing.assert_close(result, torch.einsum(equation, x, w))
