"""The rows of many operands: chains of matrices, matrix product states, grids, circuits, each made from its shape."""

from __future__ import annotations

import string
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from random import Random

import opt_einsum

from benchmarks.workloads import Workload

_SEED = 20261130
_SCHOLLWOECK = "Schollwöck 2011"
_TINY = "matrices of 2 x 3, 3 x 4, 4 x 2, ...: nothing but the overhead of a call"
_DEEP_LINEAR = "a deep linear network, the product of its layers' weights; Saxe, McClelland and Ganguli 2014"
_GRAPE = "a product of propagators, whose gradients steer a quantum system; Khaneja et al. 2005 (GRAPE)"
_BORN = "Boixo et al. 2018: a brickwork of random two-qubit gates"


def chain(family: str, name: str, length: int, sizes: Sequence[int], source: str, dtype: str) -> Workload:
    """A product of matrices, whose sizes are these over and over."""
    labels = string.ascii_letters[: length + 1]
    terms = ",".join(labels[i : i + 2] for i in range(length))
    named = {label: sizes[i % len(sizes)] for i, label in enumerate(labels)}
    return Workload(family, name, f"{terms}->{labels[0]}{labels[-1]}", _text(named), source, dtype)


def mps_overlap(name: str, bonds: Sequence[int], source: str) -> Workload:
    """The overlap of two matrix product states whose bonds have these sizes, with two levels at each site."""
    labels = iter(string.ascii_letters)
    counts = (len(bonds) + 1, len(bonds), len(bonds))
    physical, ket, bra = ([next(labels) for _ in range(count)] for count in counts)
    terms = []
    for bond in (ket, bra):
        inner = zip(physical[1:], pairwise(bond), strict=False)
        terms += [physical[0] + bond[0], *(left + site + right for site, (left, right) in inner)]
        terms.append(bond[-1] + physical[-1])
    sizes = dict.fromkeys(physical, 2) | dict(zip(ket + bra, 2 * list(bonds), strict=True))
    return Workload("MPS and PEPS", name, f"{','.join(terms)}->", _text(sizes), source, "complex128")


def grid(name: str, rows: int, columns: int, source: str, bond: int, large: int) -> Workload:
    """A closed network on a square grid: a tensor at each site, a label on each edge."""
    edges: dict[tuple[int, int, str], str] = {}
    terms = []
    for y in range(rows):
        for x in range(columns):
            around = [(y, x - 1, "right"), (y - 1, x, "down"), (y, x, "right"), (y, x, "down")]
            inside = [edge for edge in around if edge[0] >= 0 <= edge[1] and _is_inside(edge, rows, columns)]
            terms.append("".join(edges.setdefault(edge, opt_einsum.get_symbol(len(edges))) for edge in inside))
    small, wide = (_text(dict.fromkeys(edges.values(), size)) for size in (bond, large))
    return Workload("MPS and PEPS", name, f"{','.join(terms)}->", small, source, "float64", wide)


def _is_inside(edge: tuple[int, int, str], rows: int, columns: int) -> bool:
    y, x, way = edge
    return x + 1 < columns if way == "right" else y + 1 < rows


def circuit(name: str, qubits: int, depth: int, source: str, is_closed: bool) -> Workload:
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
    sizes = _text(dict.fromkeys("".join(terms), 2))
    result = "" if is_closed else "".join(wires)
    return Workload("circuits", name, f"{','.join(terms)}->{result}", sizes, source, "complex64")


def permuted_state(name: str, qubits: int, source: str, where: str) -> Workload:
    """A tensor of three legs, two of which are summed with those of a state; the result's are in random order."""
    state = string.ascii_letters[:qubits][::-1]  # the first letter's leg is the fastest, as in Julia
    kept = [label for label in state if label not in "im"] + ["A"]
    result = "".join(Random(_SEED).sample(kept, len(kept)))
    sizes = _text(dict.fromkeys(f"{state}A", 2))
    return Workload("user reports", name, f"{state},iAm->{result}", sizes, source, where=where)


def _text(sizes: Mapping[str, int]) -> str:
    return " ".join(f"{label}={size}" for label, size in sizes.items())


_OVERLAP = mps_overlap(
    "MPS overlap",
    (2, 4, 8, 16, 32, 64, 32, 16, 8, 4, 2),
    f"of two states of twelve sites, each bond as large as the state may need; {_SCHOLLWOECK}",
)
_PEPS = "a network on a grid, closed: one amplitude of a PEPS; Verstraete and Cirac 2004"

_PERMUTED = "under-Peter/OMEinsum.jl#133: 62 ms by cuTENSOR"

NETWORKS = (
    _OVERLAP,
    grid("PEPS, 4 x 4", 4, 4, _PEPS, 8, 24),
    circuit("circuit, 6 qubits", 6, 6, f"{_BORN}; one amplitude", is_closed=True),
    circuit("circuit, 14 qubits", 14, 8, f"{_BORN}; all amplitudes", is_closed=False),
    permuted_state("permuted state", 20, f"{_PERMUTED}, with 26 qubits", "cpu"),
    permuted_state("permuted state", 26, _PERMUTED, "cuda"),
    chain("tiny", "tiny chain 10", 10, (2, 3, 4), _TINY, "float64"),
    chain("tiny", "tiny chain 20", 20, (2, 3, 4), _TINY, "float64"),
    chain("gradients", "matrix chain 3", 3, (512,), _DEEP_LINEAR, "float32"),
    chain("gradients", "matrix chain 10", 10, (256, 288, 320), _DEEP_LINEAR, "float64"),
    chain("gradients", "matrix chain 20", 20, (256, 288, 320), _DEEP_LINEAR, "float32"),
    chain("gradients", "complex chain 5", 5, (192, 224), _GRAPE, "complex128"),
    _OVERLAP.but(family="gradients"),
)
