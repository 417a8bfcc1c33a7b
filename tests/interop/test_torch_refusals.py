"""What is refused of torch's tensors, and in which words: carets as for numpy's arrays, and what to do about it."""

import numpy as np
import pytest

import gpueinsum as ge

torch = pytest.importorskip("torch", reason="torch is not installed: no tensors are refused")

from gpueinsum.torch import einsum as drop_in  # noqa: E402  # which needs torch

X, W = torch.ones(3, 5), torch.ones(5, 7)
LEAF, NUMBERS = torch.ones(3, 5, requires_grad=True), torch.arange(15).reshape(3, 5)
META, OUT = torch.ones(5, 7, device="meta"), torch.zeros(3, 7)
CARETS = "label 'j' is 5 in operand 0 but 3 in operand 1\n    ij,jk->ik\n     ^ ^"


def times(x, w, **options):
    return ge.einsum("ij,jk->ik", x, w, **options)


REFUSED = {
    "sizes": (lambda: times(X, X), ge.SubscriptsError, CARETS),
    "sizes, followed": (lambda: times(LEAF, X), ge.SubscriptsError, CARETS),
    "sizes in a vmap": (lambda: torch.func.vmap(lambda x: times(x, x))(X[None]), ge.SubscriptsError, CARETS),
    "sizes without values": (lambda: times(X.to("meta"), X.to("meta")), ge.SubscriptsError, CARETS),
    "a diagonal": (
        lambda: ge.einsum("ii->i", X),
        ge.SubscriptsError,
        "label 'i' is both 3 and 5 in operand 0\n    ii->i\n    ^^",
    ),
    "operands": (lambda: ge.einsum("ij,jk->ik", X), ge.SubscriptsError, "2 terms but 1 operand\n    ij,jk->ik"),
    "no operand": (lambda: drop_in("ij"), ge.SubscriptsError, "at least one operand"),
    "no tensor": (lambda: drop_in("i->", np.ones(2)), ge.OperandError, "none of the operands is a tensor"),
    "no array": (lambda: times(X, None), ge.OperandError, "operand 1 is no array"),
    "a text": (lambda: times(X, "W"), ge.OperandError, "operand 1 is no array"),
    "devices": (lambda: times(X, META), ge.OperandError, "operand 1 is on meta, but operand 0 is on cpu: move one"),
    "devices, followed": (lambda: times(LEAF, META), ge.OperandError, "operand 1 is on meta, but operand 0 is on cpu"),
    "devices, meta first": (
        lambda: ge.einsum("jk,ij->ik", META, X),
        ge.OperandError,
        "operand 1 is on cpu, but operand 0 is on meta",
    ),
    "sparse": (lambda: times(X.to_sparse(), W), ge.OperandError, "convert it first (x.to_dense())"),
    "sparse, followed": (
        lambda: times(LEAF.to_sparse(), W),
        ge.OperandError,
        "a tensor of layout torch.sparse_coo is no dense array",
    ),
    "eight bits": (
        lambda: ge.einsum("ij->", X.to(torch.float8_e4m3fn)),
        ge.DtypeError,
        "tensors of dtype torch.float8_e4m3fn cannot be computed with: convert it first",
    ),
    "a cast": (
        lambda: times(X, W, dtype=torch.float16),
        ge.DtypeError,
        "operand 0 is float32, which casting='safe' does not cast to float16",
    ),
    "a cast, followed": (
        lambda: times(LEAF, W, dtype=torch.float16),
        ge.DtypeError,
        "operand 0 is float32, which casting='safe' does not cast to float16",
    ),
    "numpy's dtype": (lambda: times(X, W, dtype=np.longdouble), ge.DtypeError, "torch has no dtype"),
    "another backend": (
        lambda: times(X, W, backend="cuda"),
        ge.OperandError,
        "tensors on cpu are computed with there, not on backend='cuda'",
    ),
    "a limit": (lambda: drop_in("ij->i", LEAF, memory_limit="x"), ge.PlanError, "memory_limit='x' is no number"),
    "a small limit": (lambda: drop_in("ij->i", LEAF, memory_limit=3), ge.PlanError, "memory_limit of 3 B is too small"),
    # out=
    "out's shape": (
        lambda: times(X, W, out=OUT.T),
        ge.OutError,
        "out has shape (7, 3), but the result has (3, 7)",
    ),
    "out's dtype": (
        lambda: times(X.double(), W, out=OUT),
        ge.DtypeError,
        "the result is float64, which casting='safe' does not cast to out's float32",
    ),
    "out of numpy's": (lambda: times(X, W, out=OUT.numpy()), ge.OperandError, "out is of type ndarray, not a tensor"),
    "out of numpy's operands": (
        lambda: ge.einsum("ij->ij", X.numpy(), out=OUT),
        ge.OperandError,
        "out is of type Tensor, not an array",
    ),
    "out's device": (lambda: times(X, W, out=META), ge.OutError, "out is on meta, but the operands are on cpu"),
    "out of a followed call": (lambda: times(LEAF, W, out=OUT), ge.OutError, "out= takes no part in autograd"),
    "a followed out": (lambda: ge.einsum("ij->ij", X, out=LEAF), ge.OutError, "out= takes no part in autograd"),
    # derivatives
    "integers": (lambda: ge.vjp("ij->i", NUMBERS), ge.DtypeError, "operand 0 is int64, which has no derivative"),
    "integers beside": (lambda: ge.vjp("ij,ij->i", LEAF, NUMBERS), ge.DtypeError, "operand 1 is int64, which has no"),
    "wrt": (lambda: ge.vjp("ij->i", LEAF, wrt=1), ge.OperandError, "wrt=1 names an operand that is not there"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_calls(name):
    call, kind, words = REFUSED[name]
    with pytest.raises(kind) as caught:
        call()
    assert words in str(caught.value)


GRADIENTS = ge.einsum_plan("ij,jk->ik", X, W).vjp()
DERIVATIVES = {
    "cotangent's shape": (
        lambda x: ge.vjp("ij->i", x)[1](X),
        ge.OperandError,
        "the cotangent has shape (3, 5), but the value has (3,)",
    ),
    "cotangent's dtype": (
        lambda x: ge.vjp("ij->i", x)[1](X[:, 0] * 1j),
        ge.DtypeError,
        "the cotangent is complex64, but the value is float32",
    ),
    "no cotangent": (lambda x: ge.vjp("ij->i", x)[1](None), ge.OperandError, "the cotangent"),
    "cotangent's device": (lambda x: ge.vjp("ij->i", x)[1](META[:3, 0]), ge.OperandError, "is on meta, but"),
    "too few cotangents": (
        lambda x: ge.vjp(GRADIENTS, x, W, OUT)[1]((X,)),
        ge.OperandError,
        "2 cotangents are needed, not 1",
    ),
    "batches of two sizes": (
        lambda x: ge.vjp(GRADIENTS, x, W, OUT)[1]((torch.ones(4, 3, 5), torch.ones(6, 5, 7))),
        ge.OperandError,
        "cotangents are batches of one size or none is: their first axes are {0: (4,), 1: (6,)}",
    ),
    "a batch and none": (
        lambda x: ge.vjp(GRADIENTS, x, W, OUT)[1]((torch.ones(4, 3, 5), W)),
        ge.OperandError,
        "cotangents are batches of one size or none is: their first axes are {0: (4,), 1: ()}",
    ),
    "tangent of integers": (
        lambda x: ge.jvp("ij,ij->i", (x, NUMBERS), (None, NUMBERS)),
        ge.DtypeError,
        "operand 1 is int64, which has no derivative",
    ),
    "tangent's shape": (
        lambda x: ge.jvp("ij->i", (x,), (W,)),
        ge.OperandError,
        "tangent 0 has shape (5, 7), but its operand has (3, 5)",
    ),
    "tangent's dtype": (
        lambda x: ge.jvp("ij->i", (x,), (X * 1j,)),
        ge.DtypeError,
        "tangent 0 is complex64, but its operand is float32",
    ),
}


@pytest.mark.parametrize("operand", [X, LEAF], ids=["followed by nobody", "followed by autograd"])
@pytest.mark.parametrize("name", DERIVATIVES)
def test_derivatives(name, operand):
    call, kind, words = DERIVATIVES[name]
    with pytest.raises(kind) as caught:
        call(operand)
    assert words in str(caught.value)
