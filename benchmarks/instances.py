"""Seeded networks of many small tensors, for searches of orders and runs in slices: an equation and its operands."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
import opt_einsum

Array = np.ndarray[Any, Any]
Site = tuple[int, int]


class Instance(NamedTuple):
    """A network: the text of its einsum and its operands."""

    name: str
    equation: str
    operands: Sequence[Array]

    @property
    def shapes(self) -> list[tuple[int, ...]]:
        return [operand.shape for operand in self.operands]


def circuit(rows: int, columns: int, depth: int, seed: int = 0, open_qubits: int = 0) -> Instance:
    """An amplitude of a random circuit on a grid of qubits, or all amplitudes of the last so many qubits.

    Each layer has one of four patterns of couplings in the order ABCDCDAB. Each coupled pair gets a random square root
    of X, Y or X + Y on both qubits, and then fSim(pi/2, pi/6), as one tensor; Arute et al., "Quantum supremacy using a
    programmable superconducting processor", 2019. All qubits start as 0, and those measured are found as 0 or 1 by the
    seed.
    """
    rng = np.random.default_rng(seed)
    sites = list(itertools.product(range(rows), range(columns)))
    wires, labels = {site: number for number, site in enumerate(sites)}, itertools.count(len(sites))
    operands = [np.array([1, 0], complex) for _ in sites]
    terms: list[tuple[int, ...]] = [(wires[site],) for site in sites]
    for layer in range(depth):
        for pair in _couplings(rows, columns, "ABCDCDAB"[layer % 8]):
            one, two = (_ROOTS[rng.integers(len(_ROOTS))] for _ in pair)
            operands.append((_FSIM @ np.kron(one, two)).reshape(2, 2, 2, 2))
            before = [wires[site] for site in pair]
            wires |= {site: next(labels) for site in pair}
            terms.append((*(wires[site] for site in pair), *before))
    measured = sites[: len(sites) - open_qubits]
    operands += [np.eye(2, dtype=complex)[rng.integers(2)] for _ in measured]
    terms += [(wires[site],) for site in measured]
    output = [wires[site] for site in sites[len(measured) :]]
    return Instance(f"circuit {rows} x {columns}, depth {depth}", _equation(terms, output), operands)


def _couplings(rows: int, columns: int, pattern: str) -> list[tuple[Site, Site]]:
    """The pairs of neighbours that a pattern couples: every other of the vertical (A, B) or horizontal (C, D) ones."""
    down, right = pattern in "AB", pattern in "CD"
    pairs = (((y, x), (y + down, x + right)) for y in range(rows - down) for x in range(columns - right))
    return [(site, other) for site, other in pairs if sum(site) % 2 == (pattern in "BD")]


def _root(gate: Array) -> Array:
    """The square root of a gate that is its own inverse."""
    return ((1 + 1j) * np.eye(2) + (1 - 1j) * gate) / 2


_X, _Y = np.array([[0, 1], [1, 0]], complex), np.array([[0, -1j], [1j, 0]])
_ROOTS = (_root(_X), _root(_Y), _root((_X + _Y) / np.sqrt(2)))
_FSIM = np.array(
    [[1, 0, 0, 0], [0, 0, -1j, 0], [0, -1j, 0, 0], [0, 0, 0, np.exp(-1j * np.pi / 6)]],
)


def lattice(rows: int, columns: int, coupling: float = 0.44) -> Instance:
    """The partition function of Ising's model on a torus: a label of each spin, a Boltzmann factor of each bond."""
    spins = {site: k for k, site in enumerate(itertools.product(range(rows), range(columns)))}
    terms = [
        (spin, spins[other])
        for (y, x), spin in spins.items()
        for other in (((y + 1) % rows, x), (y, (x + 1) % columns))
    ]
    factor = np.exp(coupling * np.array([[1.0, -1.0], [-1.0, 1.0]]))
    return Instance(f"Ising {rows} x {columns}", _equation(terms), [factor] * len(terms))


def regular_graph(nodes: int, bond: int, seed: int = 0) -> Instance:
    """A random graph whose nodes have three edges each: a tensor at each node, a label on each edge."""
    rng = np.random.default_rng(seed)
    while True:  # the pairing model: most pairings have an edge to a node itself, or twice
        pairs = {
            tuple(sorted(pair)) for pair in rng.permutation(np.repeat(np.arange(nodes), 3)).reshape(-1, 2).tolist()
        }
        if len(pairs) == 3 * nodes // 2 and all(one != two for one, two in pairs):
            break
    edges = sorted(pairs)
    terms = [tuple(k for k, edge in enumerate(edges) if node in edge) for node in range(nodes)]
    return Instance(f"3-regular graph of {nodes}", _equation(terms), _random(rng, [(bond,) * 3] * nodes))


def peps(rows: int, columns: int, bond: int, seed: int = 0) -> Instance:
    """An amplitude of a projected entangled pair state: a tensor at each site of a grid, a label on each edge."""
    edges: dict[tuple[Site, Site], int] = {}
    terms = []
    for y, x in itertools.product(range(rows), range(columns)):
        around = (((y - 1, x), (y, x)), ((y, x - 1), (y, x)), ((y, x), (y, x + 1)), ((y, x), (y + 1, x)))
        inside = [(a, b) for a, b in around if min(*a, *b) >= 0 and b[0] < rows and b[1] < columns]
        terms.append(tuple(edges.setdefault(edge, len(edges)) for edge in inside))
    shapes = [(bond,) * len(term) for term in terms]
    operands = _random(np.random.default_rng(seed), shapes)
    return Instance(f"PEPS {rows} x {columns}, bond {bond}", _equation(terms), operands)


def _random(rng: np.random.Generator, shapes: Iterable[tuple[int, ...]]) -> list[Array]:
    """Normally distributed, so that a closed network's value is about 1."""
    return [rng.standard_normal(shape) / np.prod(shape) ** 0.25 for shape in shapes]


def _equation(terms: Iterable[Iterable[int]], output: Iterable[int] = ()) -> str:
    texts = ["".join(map(opt_einsum.get_symbol, term)) for term in (*terms, output)]
    return f"{','.join(texts[:-1])}->{texts[-1]}"
