"""Whether results on a device are numpy's: findings out, one for each dtype, and for the ways to compute on CUDA."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

import gpueinsum as ge
from gpueinsum.api.arguments import dtype_of
from gpueinsum.backends import select as backends
from gpueinsum.backends.base import RefusedError
from gpueinsum.errors import DeviceError, DtypeError
from gpueinsum.language.steps import Contract
from gpueinsum.schedule.mapping import Gemm
from gpueinsum.schedule.predict import problem_of
from gpueinsum.schedule.schedule import alone
from gpueinsum.schedule.select import candidates

OK, MISSING, WRONG = "ok", "missing", "WRONG"

DTYPES = (
    *("bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"),
    *("float16", "bfloat16", "float32", "float64", "complex64", "complex128"),
)


class Finding(NamedTuple):
    """The result of one check: `ok`, `missing` (and what to install) or `WRONG`."""

    status: str
    text: str

    def __str__(self) -> str:
        return f"{self.status:<7}  {self.text}"


def check_results(backend: str) -> Iterator[Finding]:
    """On "cpu" or "cuda"."""
    for dtype in DTYPES:
        yield from _results(dtype, backend)
    yield _true_float32(backend)
    if backend == "cuda":
        yield from _ways()


def first_line(error: BaseException) -> str:
    return str(error).strip().split("\n")[0] or type(error).__name__


def _einsum(equation: str, *operands: Any, backend: str) -> Any:
    return ge.einsum(equation, *operands, backend=backend)


def _copy(equation: str, operand: Any, backend: str) -> Any:
    """A permutation in C order, which is no view."""
    return ge.einsum(equation, operand, order="C", backend=backend)


def _gradients(equation: str, *arrays: Any, backend: str) -> Any:
    """The gradients of all arrays but the last, which is the cotangent, in one row."""
    *operands, cotangent = arrays
    _, pullback = ge.vjp(equation, *operands, backend=backend)
    return np.concatenate([gradient.ravel() for gradient in pullback(cotangent)])


def _tangent(equation: str, *operands: Any, backend: str) -> Any:
    """The tangent for operands that change by themselves."""
    return ge.jvp(equation, operands, operands, backend=backend)[1]


class Check(NamedTuple):
    """A call whose result is known: `compute(equation, *operands)`, and `expect` of the operands, or numpy's einsum."""

    what: str
    equation: str
    shapes: tuple[tuple[int, ...], ...]
    compute: Callable[..., Any] = _einsum
    expect: Callable[..., Any] | None = None


CHECKS = (
    Check("matrix product", "ij,jk->ik", ((67, 71), (71, 73))),
    Check("batched, transposed", "bji,kjb->bik", ((5, 31, 37), (41, 31, 5))),
    Check("batch of two axes", "bqhd,bkhd->bhqk", ((5, 17, 3, 24), (5, 29, 3, 24))),
    Check("large matrix product", "ij,jk->ik", ((131, 149), (149, 137))),
    Check("gate", "ajb,ij->aib", ((97, 3, 127), (2, 3))),
    Check("matrix times vector", "ij,j->i", ((211, 197), (197,))),
    Check("batched dot", "bi,bi->b", ((53, 101), (53, 101))),
    Check("long dot", "i,i->", ((70_001,), (70_001,))),
    Check("many short sums", "ij->i", ((509, 23),)),
    Check("outer product", "i,j->ji", ((61,), (59,))),
    Check("sum over a permutation", "ijk->ki", ((17, 43, 13),)),
    Check("trace and sum", "iij->j", ((29, 29, 11),)),
    Check("long sum", "ij->", ((251, 283),)),
    Check("transposed copy", "ij->ji", ((61, 67),), _copy),
    Check("copy of short axes", "abcd->dcba", ((5, 7, 11, 3),), _copy),
    Check("embedding", "ij->iji", ((19, 7),), expect=lambda x: x[:, :, None] * np.eye(19, dtype=x.dtype)[:, None, :]),
)
# For floating dtypes.
DERIVATIVE_CHECKS = (
    Check(
        "gradients",
        "ij,jk->ik",
        ((31, 37), (37, 41), (31, 41)),
        _gradients,
        lambda x, y, g: np.concatenate([(g @ y.conj().T).ravel(), (x.conj().T @ g).ravel()]),
    ),
    Check("gradient of a trace", "ii->", ((43, 43), ()), _gradients, lambda x, g: (g * np.eye(43)).ravel()),
    Check("tangent", "ij,jk->ik", ((31, 37), (37, 41)), _tangent, lambda x, y: 2 * (x @ y)),
)


def _results(dtype_name: str, backend: str) -> Iterator[Finding]:
    """Compare every check with numpy, on integers so small that all sums are exact: results equal to the last bit."""
    try:
        dtype = dtype_of(dtype_name)
    except DtypeError as error:  # bfloat16 without ml_dtypes
        yield Finding(MISSING, f"{dtype_name}: {first_line(error)}")
        return
    checks = CHECKS if dtype.kind in "biu" else CHECKS + DERIVATIVE_CHECKS
    faults = [(check, fault) for check in checks if (fault := _fault(check, dtype, backend))]
    for check, fault in faults:
        line = f"{dtype} on {backend}: {check.what} {check.equation}: {fault}"
        yield Finding(WRONG, f"{line}; please report it with this whole output")
    if not faults:
        yield Finding(OK, f"{dtype} on {backend}: {len(checks)} results equal numpy's")


def _fault(check: Check, dtype: np.dtype[Any], backend: str) -> str:
    """What is wrong with a result; nothing if it is right."""
    rng = np.random.default_rng(20261122)
    operands = [_integers(rng, shape, dtype) for shape in check.shapes]
    wide = np.int64 if dtype.kind in "biu" else np.complex128 if dtype.kind == "c" else np.float64
    exact = [operand.astype(wide) for operand in operands]
    expected = np.asarray(check.expect(*exact) if check.expect else np.einsum(check.equation, *exact)).astype(dtype)
    try:
        result = np.asarray(check.compute(check.equation, *operands, backend=backend))
    except Exception as error:  # whatever a broken device raises is the finding
        return f"{type(error).__name__}: {first_line(error)}"
    if result.shape != expected.shape or result.dtype != expected.dtype:
        return f"{result.dtype} {result.shape} instead of {expected.dtype} {expected.shape}"
    differ = int((result != expected).sum())
    return f"{differ} of {result.size} elements differ from numpy's" if differ else ""


def _integers(rng: np.random.Generator, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Any:
    """Small integers of any dtype; Gaussian ones for complex types, and -1 wraps to the largest unsigned one."""
    numbers = rng.integers(-1, 2, shape)
    if dtype.kind == "c":
        return (numbers + 1j * rng.integers(-1, 2, shape)).astype(dtype)
    return (numbers > 0 if dtype.kind == "b" else numbers).astype(dtype)


def _true_float32(backend: str) -> Finding:
    """Whether float32 products keep their 24 bits, where TF32 would keep 11."""
    rng, what = np.random.default_rng(20261122), f"precision of float32 on {backend}"
    x, y = (rng.standard_normal((256, 256)).astype(np.float32) for _ in range(2))
    exact = x.astype(float) @ y.astype(float)
    try:
        result = np.asarray(ge.einsum("ij,jk->ik", x, y, backend=backend))
    except Exception as error:  # whatever a broken device raises is the finding
        return Finding(WRONG, f"{what}: {type(error).__name__}: {first_line(error)}")
    error_norm = float(np.linalg.norm(result - exact) / np.linalg.norm(exact))
    if error_norm < 3e-6:  # about 2e-7 in true float32, 3e-4 in TF32; false for a norm that is no number
        return Finding(OK, f"{what}: relative error {error_norm:.1e}")
    return Finding(WRONG, f"{what}: relative error {error_norm:.1e}; is TF32 forced?")


# ---------------------------------------------------------------- ways to compute on CUDA


class Pair(NamedTuple):
    """A product that CUDA may compute in several ways."""

    equation: str
    shapes: tuple[tuple[int, ...], tuple[int, ...]]
    dtype: str
    precision: str | None = None


_HEADS, _MATRICES = ((3, 128, 5, 64), (3, 64, 5, 64)), ((67, 71), (73, 71))
PAIRS = (
    *(Pair("bqhd,bkhd->bhqk", _HEADS, dtype) for dtype in ("float16", "float32", "complex64")),
    *(Pair("ij,kj->ik", _MATRICES, dtype) for dtype in ("bfloat16", "float32", "float64", "complex64", "complex128")),
    *(Pair("ij,kj->ik", _MATRICES, "float32", precision) for precision in ("tf32", "bf16", "emulated")),
    Pair("ij,kj->ik", _MATRICES, "float64", "emulated"),
)


def _ways() -> Iterator[Finding]:
    """Each way to run some products, of the conjugate where there is one, beside numpy; and what the device refuses."""
    backend, right = backends.cuda_backend(), 0
    for pair in PAIRS:
        rng = np.random.default_rng(20261122)
        try:
            operands = [_integers(rng, shape, dtype_of(pair.dtype)) for shape in pair.shapes]
        except DtypeError:  # bfloat16 without ml_dtypes, which was said before
            continue
        expected = np.einsum(pair.equation, *[x.astype(complex) for x in (operands[0].conj(), operands[1])])
        plan = ge.einsum_plan(pair.equation, *operands)
        [step] = plan.steps
        assert isinstance(step, Contract)
        problem = problem_of(
            replace(step, conj_lhs=step.lhs == 0, conj_rhs=step.rhs == 0),
            dict(plan.sizes),
            pair.dtype,
            backend.profile,
            precision=pair.precision,
        )
        order, found = candidates(problem)
        known = backend.profile.lacks
        for way in found:
            name = f"{pair.equation} of {pair.dtype}{f' in {pair.precision}' * bool(pair.precision)}, {way.way.name}"
            try:
                arrays = [backend.asarray(operands[source]) for source in (step.lhs, step.rhs)]
                [result] = backend.load(alone(problem, order, way))(*arrays)
                if (backend.hand_back(result, stays=False) == expected).all():
                    right += 1
                else:
                    yield Finding(WRONG, f"{name}: not numpy's result; please report it with this whole output")
            except RefusedError as refused:
                try:
                    backend.refuse(refused, known)
                except DeviceError as error:  # as a batch of one it may be, since single products are plain enough
                    is_plain = not (isinstance(way.way, Gemm) and way.way.as_batch)
                    yield Finding(WRONG if is_plain else MISSING, f"{name}: {first_line(error)}")
            except DeviceError as error:  # a precision that this device lacks
                yield Finding(MISSING, f"{name}: {first_line(error)}")
            except Exception as error:  # whatever a broken device raises is the finding
                yield Finding(WRONG, f"{name}: {type(error).__name__}: {first_line(error)}")
    yield Finding(OK, f"{right} ways to run products on CUDA give numpy's results")
    for lacking in backend.profile.lacks:
        yield Finding(MISSING, f"{lacking}: this device refuses them, and computes in another way")
