"""The rows of the suite: what is measured, at which sizes on a CPU and on a GPU, and where each comes from."""

from __future__ import annotations

import string
from collections.abc import Iterator, Sequence
from itertools import pairwise

import opt_einsum

from benchmarks.tccg import TCCG
from benchmarks.workloads import Workload


def _dtypes(row: Workload, *dtypes: str) -> list[Workload]:
    """The row in each of these dtypes; "tf32" is float32 at that precision, on a GPU."""
    return [
        row.but(dtype="float32", precision="tf32", where="cuda") if dtype == "tf32" else row.but(dtype=dtype)
        for dtype in dtypes
    ]


def _chain(family: str, name: str, length: int, sizes: Sequence[int], source: str, dtype: str) -> Workload:
    """A product of matrices, whose sizes are these over and over."""
    labels = string.ascii_letters[: length + 1]
    terms = ",".join(labels[i : i + 2] for i in range(length))
    named = " ".join(f"{label}={sizes[i % len(sizes)]}" for i, label in enumerate(labels))
    return Workload(family, name, f"{terms}->{labels[0]}{labels[-1]}", named, source, dtype)


def _grid(name: str, rows: int, columns: int, source: str, dtype: str, bond: int, large: int) -> Workload:
    """A closed network on a square grid: a tensor at each site, a label on each edge."""
    edges: dict[tuple[int, int, str], str] = {}
    terms = []
    for y in range(rows):
        for x in range(columns):
            around = [(y, x - 1, "right"), (y - 1, x, "down"), (y, x, "right"), (y, x, "down")]
            inside = [edge for edge in around if edge[0] >= 0 <= edge[1] and _is_inside(edge, rows, columns)]
            terms.append("".join(edges.setdefault(edge, opt_einsum.get_symbol(len(edges))) for edge in inside))
    small, wide = (" ".join(f"{label}={size}" for label in edges.values()) for size in (bond, large))
    return Workload("MPS and PEPS", name, f"{','.join(terms)}->", small, source, dtype, wide)


def _is_inside(edge: tuple[int, int, str], rows: int, columns: int) -> bool:
    y, x, way = edge
    return x + 1 < columns if way == "right" else y + 1 < rows


def _circuit(name: str, qubits: int, depth: int, source: str, is_closed: bool) -> Workload:
    """A brickwork of two-qubit gates on qubits that start in a state each: all amplitudes, or one."""
    symbols: Iterator[str] = map(opt_einsum.get_symbol, range(10**6))
    wires = [next(symbols) for _ in range(qubits)]
    terms = list(wires)
    for layer in range(depth):
        for first in range(layer % 2, qubits - 1, 2):
            outputs = [next(symbols), next(symbols)]
            terms.append("".join([*outputs, *wires[first : first + 2]]))
            wires[first : first + 2] = outputs
    if is_closed:
        terms += wires
    result = "" if is_closed else "".join(wires)
    labels = dict.fromkeys("".join(terms))
    sizes = " ".join(f"{label}=2" for label in labels)
    return Workload("circuits", name, f"{','.join(terms)}->{result}", sizes, source, "complex64")


def _mps_overlap(name: str, bonds: Sequence[int], source: str) -> Workload:
    """The overlap of two matrix product states whose bonds have these sizes, with two levels at each site."""
    sites = len(bonds) + 1
    labels = iter(string.ascii_letters)
    physical, ket, bra = ([next(labels) for _ in range(count)] for count in (sites, sites - 1, sites - 1))
    terms = [
        term
        for bond in (ket, bra)
        for term in (
            physical[0] + bond[0],
            *(left + site + right for site, (left, right) in zip(physical[1:], pairwise(bond), strict=False)),
            bond[-1] + physical[-1],
        )
    ]
    sizes = dict.fromkeys(physical, 2) | dict(zip(ket + bra, 2 * list(bonds), strict=True))
    named = " ".join(f"{label}={size}" for label, size in sizes.items())
    return Workload("MPS and PEPS", name, f"{','.join(terms)}->", named, source, "complex128")


_PLAIN = "the plain GEMM"
_VASWANI = "Vaswani et al. 2017; heads as flax lays them out"
_KOLDA = "Kolda and Bader 2009"
_TINY = "matrices of 2 x 3, 3 x 4, 4 x 2, ...: nothing but the overhead of a call"
_SCHOLLWOECK = "Schollwöck 2011"
_DEEP_LINEAR = "a deep linear network, the product of its layers' weights; Saxe, McClelland and Ganguli 2014"
_STANTON = "Stanton, Gauss, Watts and Bartlett 1991"
_BORN = "Boixo et al. 2018: a brickwork of random two-qubit gates"

_MATMUL = Workload("GEMM", "matmul", "ij,jk->ik", "i=768 j=768 k=768", _PLAIN, large="i=8192 j=8192 k=8192")
_SCORES = Workload(
    "attention",
    "attention scores",
    "bqhd,bkhd->bhqk",
    "b=2 q=384 k=384 h=8 d=64",
    f"{_VASWANI}: queries times keys",
    large="b=8 q=2048 k=2048 h=16 d=64",
)
_VALUES = Workload(
    "attention",
    "attention values",
    "bhqk,bkhd->bqhd",
    "b=2 q=384 k=384 h=8 d=64",
    f"{_VASWANI}: weights times values",
    large="b=8 q=2048 k=2048 h=16 d=64",
)
_MTTKRP = Workload(
    "CP and Tucker",
    "MTTKRP",
    "ijk,jr,kr->ir",
    "i=160 j=144 k=128 r=32",
    f"the kernel of CP decomposition; {_KOLDA}",
    "float64",
    "i=640 j=576 k=512 r=64",
)
_TUCKER = Workload(
    "CP and Tucker",
    "Tucker",
    "abc,ai,bj,ck->ijk",
    "a=24 b=20 c=16 i=128 j=112 k=96",
    f"a core tensor times a factor per mode; {_KOLDA}",
    "float64",
    "a=64 b=56 c=48 i=640 j=576 k=512",
)
_OVERLAP = _mps_overlap(
    "MPS overlap",
    (2, 4, 8, 16, 32, 64, 32, 16, 8, 4, 2),
    f"of two states of twelve sites, each bond as large as the state may need; {_SCHOLLWOECK}",
)

EINSUMS: tuple[Workload, ...] = (
    *_dtypes(_MATMUL, "float32", "float64", "tf32"),
    *_dtypes(_MATMUL.but(sizes="i=512 j=512 k=512", large="i=6144 j=6144 k=6144"), "complex64", "complex128"),
    *_dtypes(_MATMUL.but(sizes="i=256 j=256 k=256"), "float16", "bfloat16"),
    _MATMUL.but(
        name="integer matmul",
        sizes="i=128 j=96 k=112",
        large="i=2048 j=1792 k=1536",
        source="counting paths in a graph: no BLAS has the type",
        dtype="int64",
    ),
    Workload(
        "GEMM",
        "transposed output",
        "ij,jk->ki",
        "i=768 j=512 k=640",
        "a GEMM whose result is wanted transposed, as in column-major code",
        "float64",
        "i=6144 j=4096 k=5120",
    ),
    *_dtypes(
        Workload(
            "GEMM",
            "linear layer",
            "bsi,oi->bso",
            "b=4 s=128 i=512 o=768",
            "Vaswani et al. 2017: the projections of a transformer, weights as PyTorch lays them out",
            large="b=8 s=2048 i=4096 o=4096",
        ),
        *("float32", "bfloat16"),
    ),
    *_dtypes(
        Workload(
            "batched GEMM",
            "batched matmul",
            "bij,bjk->bik",
            "b=32 i=128 j=96 k=112",
            "a layer applied per head or per expert",
            large="b=256 i=512 j=384 k=448",
        ),
        *("float32", "float64", "complex64"),
    ),
    Workload(
        "batched GEMM",
        "batch of outer axes",
        "ibj,jbk->bik",
        "b=32 i=128 j=96 k=112",
        "the same with the batch in the middle, as time-major code has it",
        large="b=256 i=512 j=384 k=448",
    ),
    *_dtypes(_SCORES, "float32", "bfloat16", "tf32"),
    *_dtypes(_VALUES, "float32", "float16"),
    *TCCG,
    Workload(
        "matrix-vector",
        "matrix-vector",
        "ij,j->i",
        "i=4096 j=3072",
        "a step of an iterative solver",
        "float64",
        "i=16384 j=14336",
    ),
    Workload(
        "matrix-vector",
        "batched matrix-vector",
        "bij,bj->bi",
        "b=256 i=64 j=64",
        "one linear map per sample",
        large="b=65536 i=64 j=64",
    ),
    Workload(
        "matrix-vector",
        "exchange matrix",
        "prqs,rs->pq",
        "p=56 q=56 r=56 s=56",
        "K of Hartree-Fock from the two-electron integrals and the density; Szabo and Ostlund 1996",
        "float64",
        "p=112 q=112 r=112 s=112",
    ),
    _MTTKRP,
    Workload(
        "CP and Tucker",
        "MTTKRP, four modes",
        "ijkl,jr,kr,lr->ir",
        "i=48 j=40 k=36 l=32 r=24",
        f"CP decomposition of four modes; {_KOLDA}",
        large="i=160 j=144 k=128 l=112 r=32",
    ),
    _TUCKER,
    Workload(
        "CP and Tucker",
        "Tucker, to the core",
        "ijk,ia,jb,kc->abc",
        "i=128 j=112 k=96 a=24 b=20 c=16",
        f"a tensor projected on a factor per mode, the step of HOOI; {_KOLDA}",
        large="i=640 j=576 k=512 a=64 b=56 c=48",
    ),
    Workload(
        "bilinear",
        "bilinear layer",
        "bi,oij,bj->bo",
        "b=64 o=48 i=96 j=80",
        "PyTorch's nn.Bilinear",
        large="b=512 o=256 i=512 j=384",
    ),
    Workload(
        "bilinear",
        "biaffine scores",
        "bxi,oij,byj->boxy",
        "b=4 x=48 y=48 o=16 i=64 j=64",
        "Dozat and Manning 2017: every word with every word",
        large="b=32 x=128 y=128 o=48 i=256 j=256",
    ),
    Workload(
        "bilinear",
        "bilinear pooling",
        "nxyc,nxyd->ncd",
        "n=4 x=24 y=24 c=128 d=96",
        "Lin, RoyChowdhury and Maji 2015: products of all pairs of features, summed over an image",
        large="n=64 x=28 y=28 c=512 d=512",
    ),
    Workload(
        "convolution",
        "convolution",
        "xyij,ij->xy",
        "x=256 y=240 i=7 j=5",
        "patches seen through strides, times a filter",
        large="x=4096 y=4000 i=7 j=5",
        patches="xi yj",
    ),
    Workload(
        "convolution",
        "convolution, channels",
        "nxyijc,ijco->nxyo",
        "n=2 x=24 y=24 i=3 j=3 c=32 o=48",
        "a layer of a convolutional network by its patches, channels last",
        large="n=32 x=56 y=56 i=3 j=3 c=64 o=64",
        patches="xi yj",
    ),
    Workload(
        "batched dots",
        "batched dots",
        "bi,bi->b",
        "b=8192 i=128",
        "similarity of paired embeddings",
        large="b=2097152 i=128",
    ),
    Workload(
        "batched dots",
        "short dots",
        "bc,bc->b",
        "b=262144 c=3",
        "of vectors in space: normals times light",
        large="b=67108864 c=3",
    ),
    Workload("batched dots", "inner product", "i,i->", "i=4000000", "of two vectors", "float64", "i=67108864"),
    *_dtypes(
        Workload(
            "small matrices",
            "batch of 4 x 4",
            "bij,bjk->bik",
            "b=32768 i=4 j=4 k=4",
            "poses times poses in graphics and robotics",
            large="b=2097152 i=4 j=4 k=4",
        ),
        *("float32", "float64"),
    ),
    Workload(
        "small matrices",
        "one-qubit gate",
        "ij,ajb->aib",
        "i=2 j=2 a=512 b=1024",
        "on one qubit of a state of 20; of 28 on a GPU",
        "complex64",
        "i=2 j=2 a=8192 b=16384",
    ),
    Workload(
        "small matrices",
        "quadratic forms",
        "bi,ij,bj->b",
        "b=16384 i=8 j=8",
        "Mahalanobis distances of a batch",
        large="b=4194304 i=8 j=8",
    ),
    Workload(
        "diagonals and traces",
        "partial trace",
        "aibi->ab",
        "a=64 b=64 i=64",
        "a reduced density matrix",
        "float64",
        "a=256 b=256 i=64",
    ),
    Workload(
        "diagonals and traces",
        "sum of diagonals",
        "bii->i",
        "b=2048 i=64",
        "the mean variances of a batch of covariance matrices",
        "float64",
        "b=65536 i=64",
    ),
    Workload(
        "diagonals and traces",
        "trace of a product",
        "ij,ji->",
        "i=2048 j=1792",
        "an expectation value from operator and density matrix",
        "float64",
        "i=8192 j=7168",
    ),
    Workload(
        "diagonals and traces",
        "diagonal of a product",
        "ij,ji->i",
        "i=2048 j=1792",
        "variances of predictions, without the product",
        large="i=16384 j=14336",
    ),
    Workload(
        "permuted sums",
        "sum of leading axes",
        "ijk->k",
        "i=160 j=192 k=128",
        "the gradient of a bias",
        large="i=1024 j=1024 k=512",
    ),
    Workload(
        "permuted sums",
        "sum of the middle axis",
        "ijk->ik",
        "i=160 j=192 k=128",
        "a mean over time",
        large="i=1024 j=1024 k=512",
    ),
    Workload(
        "permuted sums",
        "sum and transpose",
        "ijkl->lj",
        "i=40 j=48 k=36 l=56",
        "a marginal of a joint distribution",
        "float64",
        "i=160 j=144 k=128 l=112",
    ),
    Workload(
        "outer and Hadamard",
        "outer product",
        "i,j->ij",
        "i=1600 j=1800",
        "a rank-one update",
        "float64",
        "i=16384 j=16384",
    ),
    Workload(
        "outer and Hadamard",
        "Hadamard, broadcast",
        "bhqk,bqk->bhqk",
        "b=4 h=8 q=160 k=160",
        "an attention mask, the same for all heads",
        large="b=16 h=16 q=1024 k=1024",
    ),
    Workload(
        "outer and Hadamard",
        "rows and columns scaled",
        "i,ij,j->ij",
        "i=1500 j=1600",
        "a graph's normalised adjacency; Kipf and Welling 2017",
        large="i=16384 j=16384",
    ),
    Workload(
        "outer and Hadamard",
        "Khatri-Rao product",
        "ir,jr->ijr",
        "i=256 j=192 r=32",
        _KOLDA,
        "float64",
        "i=2048 j=1536 r=64",
    ),
    Workload(
        "outer and Hadamard",
        "Kronecker product",
        "ij,kl->ikjl",
        "i=48 j=40 k=44 l=36",
        "an operator on two systems from one on each",
        "complex128",
        "i=128 j=112 k=120 l=96",
    ),
    _OVERLAP,
    Workload(
        "MPS and PEPS",
        "DMRG, two sites",
        "aud,upqv,vrsw,bwe,dqse->aprb",
        "a=48 b=48 d=48 e=48 u=5 v=5 w=5 p=2 q=2 r=2 s=2",
        f"the effective Hamiltonian times the state; {_SCHOLLWOECK}",
        "float64",
        "a=768 b=768 d=768 e=768 u=5 v=5 w=5 p=2 q=2 r=2 s=2",
    ),
    _grid(
        "PEPS, 4 x 4",
        4,
        4,
        "a network on a grid, closed: one amplitude of a PEPS; Verstraete and Cirac 2004",
        "float64",
        8,
        24,
    ),
    _circuit("circuit, 6 qubits", 6, 6, f"{_BORN}; one amplitude", is_closed=True),
    _circuit("circuit, 14 qubits", 14, 8, f"{_BORN}; all amplitudes", is_closed=False),
    Workload("tiny", "tiny pair", "ij,jk->ik", "i=2 j=3 k=4", "2 x 3 times 3 x 4: the overhead of a call", "float64"),
    _chain("tiny", "tiny chain 10", 10, (2, 3, 4), _TINY, "float64"),
    _chain("tiny", "tiny chain 20", 20, (2, 3, 4), _TINY, "float64"),
)

GRADIENTS: tuple[Workload, ...] = tuple(
    row.but(family="gradients")
    for row in (
        _chain("", "matrix chain 3", 3, (512,), _DEEP_LINEAR, "float32"),
        _chain("", "matrix chain 10", 10, (256, 288, 320), _DEEP_LINEAR, "float64"),
        _chain("", "matrix chain 20", 20, (256, 288, 320), _DEEP_LINEAR, "float32"),
        _chain(
            "",
            "complex chain 5",
            5,
            (192, 224),
            "a product of propagators, whose gradients steer a quantum system; Khaneja et al. 2005 (GRAPE)",
            "complex128",
        ),
        *_dtypes(_SCORES, "float32", "bfloat16"),
        _VALUES,
        Workload(
            "",
            "CCSD ladder",
            "abcd,ijcd->ijab",
            "a=30 b=30 c=30 d=30 i=10 j=10",
            f"the particle-particle ladder of the T2 equations; {_STANTON}",
            "float64",
            "a=96 b=96 c=96 d=96 i=24 j=24",
        ),
        Workload(
            "",
            "CCSD ring",
            "klcd,acik,dblj->abij",
            "a=30 b=30 c=30 d=30 i=10 j=10 k=10 l=10",
            "the ring term of the T2 equations, quadratic in T2; Crawford and Schaefer 2000",
            "float64",
            "a=96 b=96 c=96 d=96 i=24 j=24 k=24 l=24",
        ),
        Workload(
            "",
            "CCSD hole ladder",
            "mnef,ijef,mnab->ijab",
            "a=30 b=30 e=30 f=30 i=10 j=10 m=10 n=10",
            f"the hole-hole ladder of the T2 equations, quadratic in T2; {_STANTON}",
            "float64",
            "a=96 b=96 e=96 f=96 i=24 j=24 m=24 n=24",
        ),
        Workload(
            "",
            "CCSD singles",
            "mbej,ie,ma->ijab",
            "a=30 b=30 e=30 i=10 j=10 m=10",
            f"the term of the T2 equations that is quadratic in T1; {_STANTON}",
            "float64",
            "a=96 b=96 e=96 i=24 j=24 m=24",
        ),
        _MTTKRP,
        _TUCKER,
        _OVERLAP,
    )
)
