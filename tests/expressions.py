"""The one table of named equations: name → (subscripts, shapes). A bug's equation joins it.

The subscripts are text, or a tuple of sublists (one for each shape, and one more for an explicit output). Sizes of
labels are distinct primes, so that a swapped axis fails by its shape, but where broadcasting needs a 1 or where
primes would make the sum too long.
"""

from collections.abc import Hashable, Sequence
from typing import Any

import numpy as np

Subscripts = str | tuple[Sequence[Hashable], ...]

EXPRESSIONS: dict[str, tuple[Subscripts, tuple[tuple[int, ...], ...]]] = {
    # one operand: views
    "identity": ("ij->ij", ((2, 3),)),
    "transpose": ("ij->ji", ((2, 3),)),
    "permutation": ("ijkl->ljik", ((2, 3, 5, 7),)),
    "implicit transpose": ("ba", ((2, 3),)),
    "diagonal": ("ii->i", ((5, 5),)),
    "diagonal of three": ("iii->i", ((5, 5, 5),)),
    "batched diagonal": ("iij->ij", ((3, 3, 5),)),
    "two diagonals": ("ijij->ij", ((3, 5, 3, 5),)),
    "diagonal around an ellipsis": ("i...i->...i", ((3, 2, 5, 3),)),
    # one operand: sums
    "sum": ("ij->", ((3, 5),)),
    "row sums": ("ij->i", ((3, 5),)),
    "middle sum": ("ijk->ik", ((3, 5, 7),)),
    "sum and permutation": ("ijkl->lj", ((2, 3, 5, 7),)),
    "trace": ("ii", ((5, 5),)),
    "batched trace": ("iij->j", ((3, 3, 5),)),
    "partial trace": ("ijkj->ki", ((2, 3, 5, 3),)),
    "two traces": ("iijj->", ((3, 3, 5, 5),)),
    "ellipsis summed": ("i...->i", ((2, 3, 5),)),
    "everything but the ellipsis": ("ij...k->...", ((2, 3, 5, 7, 2),)),
    # one operand: embeddings
    "embedding": ("i->ii", ((5,),)),
    "embedding of rows": ("ij->iij", ((3, 5),)),
    "embedding three times": ("ij->jiij", ((3, 5),)),
    "diagonal embedded again": ("ii->ii", ((3, 3),)),
    "sum embedded": ("ij->ii", ((3, 5),)),
    "ellipsis embedded": ("i...->i...i", ((3, 2, 5),)),
    # pairs that are matrix products
    "matmul": ("ij,jk->ik", ((2, 3), (3, 5))),
    "matmul transposed": ("ji,kj->ki", ((3, 2), (5, 3))),
    "matrix vector": ("ij,j->i", ((3, 5), (5,))),
    "vector matrix": ("i,ij->j", ((3,), (3, 5))),
    "batched matmul": ("bij,bjk->bik", ((2, 3, 5), (2, 5, 7))),
    "batch last": ("ijb,jkb->ikb", ((3, 5, 2), (5, 7, 2))),
    "batch in the middle": ("ibj,jbk->kbi", ((3, 2, 5), (5, 2, 7))),
    "attention scores": ("bqhd,bkhd->bhqk", ((2, 3, 5, 11), (2, 7, 5, 11))),
    "attention values": ("bhqk,bkhd->bqhd", ((2, 5, 3, 7), (2, 7, 5, 11))),
    "two summed labels": ("aibj,jcbd->cida", ((2, 3, 5, 7), (7, 3, 5, 2))),
    "two summed labels, swapped": ("iajb,bkac->ijkc", ((2, 3, 5, 7), (7, 11, 3, 2))),
    "features": ("ijkm,ijkn->imn", ((2, 3, 5, 7), (2, 3, 5, 11))),
    "chain rule": ("nmkd,kdpq->nmpq", ((2, 3, 5, 7), (5, 7, 11, 2))),
    "chemistry": ("dfgb,geac->abcdef", ((2, 3, 5, 7), (5, 2, 3, 2))),
    # pairs that are none
    "inner product": ("i,i->", ((7,), (7,))),
    "batched dot": ("bc,bc->b", ((3, 7), (3, 7))),
    "Frobenius product, transposed": ("ij,ji->", ((3, 5), (5, 3))),
    "outer product": ("i,j->ij", ((3,), (5,))),
    "outer product, swapped": ("ab,cd->dbca", ((2, 3), (5, 7))),
    "Hadamard product": ("ij,ij->ij", ((3, 5), (3, 5))),
    "Hadamard product, transposed": ("ij,ji->ij", ((3, 5), (5, 3))),
    "scaled rows": ("ij,i->ij", ((3, 5), (3,))),
    "sum of one side first": ("ij,kl->il", ((2, 3), (5, 7))),
    "Khatri-Rao product": ("ia,ja->ija", ((2, 5), (3, 5))),
    "diagonal times matrix": ("ii,ij->j", ((3, 3), (3, 5))),
    "diagonal and trace": ("iij,jkk->i", ((3, 3, 5), (5, 7, 7))),
    "embedding of a product": ("ij,j->jji", ((3, 5), (5,))),
    "convolution by patches": ("xyij,ij->xy", ((7, 5, 2, 3), (2, 3))),
    "weight gradient": ("nijkde,node->oijk", ((2, 3, 5, 7, 4, 1), (2, 11, 4, 1))),
    # three and more
    "chain": ("ij,jk,kl->il", ((2, 3), (3, 5), (5, 7))),
    "chain, closed": ("ij,jk,ki->", ((2, 3), (3, 5), (5, 2))),
    "bilinear form": ("i,ij,j->", ((3,), (3, 5), (5,))),
    "hyperedge": ("ij,ij,j->ij", ((3, 5), (3, 5), (5,))),
    "CP decomposition": ("ai,bi,ci->abc", ((2, 7), (3, 7), (5, 7))),
    "MTTKRP": ("ijk,ja,ka->ia", ((2, 3, 5), (3, 7), (5, 7))),
    "Tucker decomposition": ("abc,ia,jb,kc->ijk", ((2, 3, 5), (7, 2), (11, 3), (13, 5))),
    "softmax Jacobian": ("jk,jk,ji->ijk", ((3, 2), (3, 2), (3, 3))),
    "matrix product state": ("ab,bic,cjd,dk->ijk", ((1, 3), (3, 2, 5), (5, 7, 2), (2, 11))),
    "expectation value": ("aib,cjd,ij,ac->bd", ((2, 3, 5), (2, 7, 5), (3, 7), (2, 2))),
    "five, with scalars": (",ij,,jk,->ik", ((), (2, 3), (), (3, 5), ())),
    # broadcasting of size 1
    "one against many, summed": ("i,i->", ((1,), (7,))),
    "one against many, kept": ("ij,ij->ij", ((1, 5), (3, 1))),
    "one against many in a batch": ("bij,bjk->bik", ((1, 3, 5), (2, 5, 7))),
    "one against many, contracted": ("bij,bjk->bik", ((2, 3, 1), (1, 5, 7))),
    "ones only": ("ij,jk->ik", ((1, 1), (1, 1))),
    "one against none": ("ij,jk->ik", ((3, 1), (0, 5))),
    # ellipsis
    "ellipsis as batch": ("...ij,...jk->...ik", ((2, 3, 5), (7, 2, 5, 3))),
    "ellipsis on the right": ("ij...,jk...->ik...", ((2, 3, 7), (3, 5, 7))),
    "ellipsis of two ranks": ("i...,...j->...ij", ((2, 3, 5), (5, 7))),
    "ellipsis broadcast": ("...i,...i->...", ((2, 1, 5), (3, 5))),
    "ellipsis in one operand": ("...k,kj", ((2, 3, 5), (5, 7))),
    "ellipsis contracted": ("i...,...j->ij", ((2, 3, 5), (3, 5, 7))),
    "implicit ellipsis": ("b...,b...", ((2, 3, 5), (2, 3, 5))),
    "empty ellipsis": ("...ij,jk...->ik...", ((2, 3), (3, 5))),
    # nothing there, or nothing but a number
    "sum of nothing": ("ij->i", ((3, 0),)),
    "product over nothing": ("ij,jk->ik", ((3, 0), (0, 5))),
    "product into nothing": ("ij,jk->ik", ((0, 3), (3, 5))),
    "embedding of nothing": ("ij->iij", ((0, 3),)),
    "scalar": ("->", ((),)),
    "scalars": (",->", ((), ())),
    "scalar times matrix": (",ij->ji", ((), (2, 3))),
    # spelling
    "white space": (" i j , jk -> i k ", ((2, 3), (3, 5))),
    "capitals sort first": ("aB,Bc,cA", ((2, 3), (3, 5), (5, 7))),
    "unicode": ("αβ,β你->你α", ((2, 3), (3, 5))),
    "interleaved": (((0, 1), (1, 2)), ((2, 3), (3, 5))),
    "interleaved names": ((("left", "bond"), ("bond", (7, "x")), ((7, "x"), "left")), ((2, 3), (3, 5))),
    "interleaved ellipsis": (((..., "a"), (..., "a"), (...,)), ((2, 3, 5), (3, 5))),
    # more labels than letters
    "sixty labels": (
        (range(40), range(20, 60), (*range(0, 20, 2), *range(20, 40, 3), *range(59, 40, -4))),
        (tuple(2 if i % 9 == 4 else 1 for i in range(40)), tuple(2 if i % 9 == 4 else 1 for i in range(20, 60))),
    ),
    "fifty-six kept labels": (
        ((*range(28),), (*range(28, 56),), (*range(55, -1, -1),)),
        (tuple(2 if i % 9 == 4 else 1 for i in range(28)), tuple(2 if i % 7 == 4 else 1 for i in range(28, 56))),
    ),
}  # fmt: skip


def arguments(subscripts: Subscripts, operands: Sequence[Any]) -> tuple[Any, ...]:
    """The positional arguments of einsum: text first, or sublists between the operands."""
    if isinstance(subscripts, str):
        return (subscripts, *operands)
    args = [arg for pair in zip(operands, subscripts, strict=False) for arg in pair]
    return (*args, *subscripts[len(operands) :])


def random_operands(shapes: Sequence[tuple[int, ...]], dtype: np.dtype, seed: int = 0) -> list[np.ndarray]:
    """Operands of small values; integers over their whole range, so that wrapping shows."""
    rng = np.random.default_rng(seed)
    return [random_operand(rng, shape, dtype) for shape in shapes]


def random_operand(rng: np.random.Generator, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    if dtype.kind == "b":
        return rng.random(shape) < 0.4
    if dtype.kind in "iu":
        info = np.iinfo(dtype)
        return rng.integers(info.min, info.max, shape, dtype, endpoint=True)
    if dtype.kind == "O":
        return rng.integers(-9, 9, shape).astype(object)
    values = rng.uniform(-1, 1, shape)
    if dtype.kind == "c":
        values = values + 1j * rng.uniform(-1, 1, shape)
    return np.asarray(values).astype(dtype)
