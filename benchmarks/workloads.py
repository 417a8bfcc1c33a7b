"""The rows of the tables: which contractions are measured, at which sizes, and where each comes from."""

from __future__ import annotations

import math
import string
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import reduce
from typing import Any

import numpy as np

Array = Any  # numpy's or CuPy's
_SEED = 20250817
_PRIMES = (2, 3, 5, 7, 11, 13, 17, 19, 23, 29, 31)


@dataclass(frozen=True, slots=True)
class Workload:
    """One row: an equation and the size of each of its labels, `"i=40 j=30"`.

    `plain(xp, *operands)` is the function of numpy that one would call without einsum. With `patches` the first
    operand, `xyij`, is the view of an image that holds the patch of i by j pixels at every pixel.
    """

    name: str
    equation: str
    sizes: str
    source: str
    dtype: str = "float32"
    plain: Callable[..., Array] | None = None
    patches: bool = False

    @property
    def size(self) -> Mapping[str, int]:
        return {label: int(size) for label, size in (item.split("=") for item in self.sizes.split())}

    @property
    def terms(self) -> tuple[str, ...]:
        """The labels of each operand, and last those of the result."""
        return tuple(self.equation.replace("->", ",").split(","))

    @property
    def shapes(self) -> tuple[tuple[int, ...], ...]:
        return tuple(tuple(self.size[label] for label in term) for term in self.terms[:-1])

    @property
    def products(self) -> int:
        """How many products one loop over all labels forms."""
        return math.prod(self.size.values())

    def tiny(self) -> Workload:
        """The same row at sizes that are distinct primes, but where it is as small already."""
        sizes = zip(self.size.items(), _PRIMES * 3, strict=False)
        return replace(self, sizes=" ".join(f"{label}={min(size, prime)}" for (label, size), prime in sizes))

    def transposed(self, position: int) -> str:
        """The equation of one operand's gradient, for a cotangent in its place: it and the result change places."""
        *inputs, output = self.terms
        inputs[position], output = output, inputs[position]
        return f"{','.join(inputs)}->{output}"

    def operands(self, xp: Any = np) -> list[Array]:
        """Seeded operands in the array library `xp`, the same numbers in every library."""
        rng = np.random.default_rng(_SEED)
        shapes = list(self.shapes)
        if self.patches:
            x, y, i, j = shapes[0]
            shapes[0] = (x + i - 1, y + j - 1)
        operands = [xp.asarray(_random(rng, shape, self.dtype)) for shape in shapes]
        if self.patches:
            image = operands[0]
            operands[0] = xp.lib.stride_tricks.as_strided(image, self.shapes[0], image.strides * 2)
        return operands

    def cotangent(self, xp: Any = np) -> Array:
        """Seeded, of the result's shape."""
        shape = tuple(self.size[label] for label in self.terms[-1])
        return xp.asarray(_random(np.random.default_rng(_SEED + 1), shape, self.dtype))


def reference(equation: str, *operands: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """The result in double precision, by numpy."""
    wide = np.result_type(np.float64, *operands)
    return np.asarray(np.einsum(equation, *(x.astype(wide) for x in operands), optimize="greedy"))


def _random(rng: np.random.Generator, shape: tuple[int, ...], dtype: str) -> np.ndarray[Any, Any]:
    if np.dtype(dtype).kind in "iu":
        return rng.integers(0, 8, shape).astype(dtype)
    values = rng.standard_normal(shape)
    if np.dtype(dtype).kind == "c":
        return (values + 1j * rng.standard_normal(shape)).astype(dtype)
    return values.astype(dtype)


def _chain(name: str, length: int, sizes: Sequence[int], source: str, dtype: str) -> Workload:
    """A product of matrices, whose sizes are these over and over."""
    labels = string.ascii_letters[: length + 1]
    terms = ",".join(labels[i : i + 2] for i in range(length))
    return Workload(
        name,
        f"{terms}->{labels[0]}{labels[-1]}",
        " ".join(f"{label}={sizes[i % len(sizes)]}" for i, label in enumerate(labels)),
        source,
        dtype,
        lambda xp, *matrices: reduce(xp.matmul, matrices),
    )


_TINY = "matrices of 2 x 3, 3 x 4, 4 x 2, ...: nothing but the overhead of a call"


WORKLOADS = (
    Workload(
        "matmul",
        "ij,jk->ik",
        "i=384 j=384 k=384",
        "the plain GEMM",
        plain=lambda xp, a, b: xp.matmul(a, b),
    ),
    Workload(
        "transposed output",
        "ij,jk->ki",
        "i=512 j=256 k=384",
        "a GEMM whose result is wanted transposed, as in column-major code",
        "float64",
        lambda xp, a, b: xp.matmul(a, b).T,
    ),
    Workload(
        "batched matmul",
        "bij,bjk->bik",
        "b=32 i=96 j=64 k=80",
        "a layer applied per head or per expert",
        plain=lambda xp, a, b: xp.matmul(a, b),
    ),
    Workload(
        "attention scores",
        "bqhd,bkhd->bhqk",
        "b=2 q=192 k=192 h=8 d=64",
        "Vaswani et al. 2017, queries times keys, heads as flax lays them out",
        plain=lambda xp, q, k: xp.matmul(q.transpose(0, 2, 1, 3), k.transpose(0, 2, 3, 1)),
    ),
    Workload(
        "attention values",
        "bhqk,bkhd->bqhd",
        "b=2 q=192 k=192 h=8 d=64",
        "Vaswani et al. 2017, weights times values",
        plain=lambda xp, w, v: xp.matmul(w, v.transpose(0, 2, 1, 3)).transpose(0, 2, 1, 3),
    ),
    Workload(
        "batched matrix-vector",
        "bij,bj->bi",
        "b=256 i=64 j=64",
        "one linear map per sample",
        plain=lambda xp, a, x: xp.matmul(a, x[..., None])[..., 0],
    ),
    Workload(
        "large matrix-vector",
        "bij,bj->bi",
        "b=128 i=256 j=192",
        "the same past the processor's caches",
        "float64",
        lambda xp, a, x: xp.matmul(a, x[..., None])[..., 0],
    ),
    Workload(
        "exchange matrix",
        "prqs,rs->pq",
        "p=56 q=56 r=56 s=56",
        "K of Hartree-Fock from the two-electron integrals and the density; Szabo and Ostlund 1996",
        "float64",
        lambda xp, eri, d: xp.tensordot(eri, d, ((1, 3), (0, 1))),
    ),
    Workload(
        "batched dots",
        "bi,bi->b",
        "b=4096 i=128",
        "similarity of paired embeddings",
        plain=lambda xp, x, y: xp.multiply(x, y).sum(-1),
    ),
    Workload(
        "Hadamard, broadcast",
        "bhqk,bqk->bhqk",
        "b=4 h=8 q=128 k=128",
        "an attention mask, the same for all heads",
        plain=lambda xp, w, mask: xp.multiply(w, mask[:, None]),
    ),
    Workload(
        "outer product",
        "i,j->ij",
        "i=1000 j=1200",
        "a rank-one update",
        "float64",
        lambda xp, x, y: xp.multiply.outer(x, y),
    ),
    Workload(
        "partial trace",
        "aibi->ab",
        "a=48 b=48 i=48",
        "a reduced density matrix",
        "float64",
        lambda xp, a: xp.trace(a, axis1=1, axis2=3),
    ),
    Workload(
        "sum of diagonals",
        "bii->i",
        "b=1024 i=64",
        "the mean variances of a batch of covariance matrices",
        "float64",
        lambda xp, a: xp.diagonal(a, axis1=1, axis2=2).sum(0),
    ),
    Workload(
        "permuted sum",
        "ijk->k",
        "i=128 j=160 k=96",
        "the gradient of a bias",
        plain=lambda xp, a: a.sum((0, 1)),
    ),
    Workload(
        "MTTKRP",
        "ijk,jr,kr->ir",
        "i=96 j=80 k=64 r=16",
        "the kernel of CP decomposition; Kolda and Bader 2009",
        "float64",
    ),
    Workload(
        "Tucker",
        "abc,ai,bj,ck->ijk",
        "a=24 b=20 c=16 i=64 j=56 k=48",
        "a core tensor times a factor per mode; Kolda and Bader 2009",
        "float64",
    ),
    Workload(
        "MPS overlap",
        "pa,aqb,brc,csd,dt,pe,eqf,frg,gsh,ht->",
        "p=2 q=2 r=2 s=2 t=2 a=24 b=32 c=32 d=24 e=24 f=32 g=32 h=24",
        "the overlap of two matrix product states of five sites; Schollwöck 2011",
        "complex128",
    ),
    Workload(
        "batch of 4 x 4",
        "bij,bjk->bik",
        "b=8192 i=4 j=4 k=4",
        "poses times poses in graphics and robotics",
        plain=lambda xp, a, b: xp.matmul(a, b),
    ),
    Workload(
        "integer matmul",
        "ij,jk->ik",
        "i=128 j=96 k=112",
        "counting paths in a graph: no BLAS has the type",
        "int64",
        lambda xp, a, b: xp.matmul(a, b),
    ),
    Workload(
        "convolution",
        "xyij,ij->xy",
        "x=128 y=120 i=7 j=5",
        "patches seen through strides, times a filter",
        plain=lambda xp, patches, kernel: xp.tensordot(patches, kernel),
        patches=True,
    ),
    _chain("chain 10", 10, (2, 3, 4), _TINY, "float64"),
    _chain("chain 20", 20, (2, 3, 4), _TINY, "float64"),
)

_NAMED = {workload.name: workload for workload in WORKLOADS}
_DEEP_LINEAR = "a deep linear network, the product of its layers' weights; Saxe, McClelland and Ganguli 2014"
_STANTON = "Stanton, Gauss, Watts and Bartlett 1991"

GRADIENTS = (
    _chain("matrix chain 3", 3, (512,), _DEEP_LINEAR, "float32"),
    _chain("matrix chain 10", 10, (256, 288, 320), _DEEP_LINEAR, "float64"),
    _chain("matrix chain 20", 20, (256, 288, 320), _DEEP_LINEAR, "float32"),
    _chain(
        "complex chain 5",
        5,
        (192, 224),
        "a product of propagators, whose gradients steer a quantum system; Khaneja et al. 2005 (GRAPE)",
        "complex128",
    ),
    _NAMED["attention scores"],
    _NAMED["attention values"],
    Workload(
        "CCSD ladder",
        "abcd,ijcd->ijab",
        "a=30 b=30 c=30 d=30 i=10 j=10",
        f"the particle-particle ladder of the T2 equations; {_STANTON}",
        "float64",
    ),
    Workload(
        "CCSD ring",
        "klcd,acik,dblj->abij",
        "a=30 b=30 c=30 d=30 i=10 j=10 k=10 l=10",
        "the ring term of the T2 equations, quadratic in T2; Crawford and Schaefer 2000",
        "float64",
    ),
    Workload(
        "CCSD hole ladder",
        "mnef,ijef,mnab->ijab",
        "a=30 b=30 e=30 f=30 i=10 j=10 m=10 n=10",
        f"the hole-hole ladder of the T2 equations, quadratic in T2; {_STANTON}",
        "float64",
    ),
    Workload(
        "CCSD singles",
        "mbej,ie,ma->ijab",
        "a=30 b=30 e=30 i=10 j=10 m=10",
        f"the term of the T2 equations that is quadratic in T1; {_STANTON}",
        "float64",
    ),
    _NAMED["MTTKRP"],
    _NAMED["Tucker"],
    _NAMED["MPS overlap"],
)
