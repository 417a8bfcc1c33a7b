"""Contractions that take far more memory than they may: an einsum, its operands, its limits, a value to check by."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property, partial, reduce
from pathlib import Path
from typing import Any

import numpy as np
import opt_einsum

import gpueinsum as ge
from benchmarks.instances import circuit, lattice
from gpueinsum.language.subscripts import Label
from gpueinsum.planning.lower import contraction_pairs

Array = np.ndarray[Any, Any]
Place = Mapping[Label, slice]  # the values of sliced labels in one slice
Error = Callable[[Array, Sequence[Place]], float]

_SEED, _RANK, _ROWS = 20261130, 2, 5


class Case:
    """An einsum within each of some limits; `error` is the relative one of the sum of the slices at some places."""

    def __init__(
        self, name: str, equation: str, operands: Sequence[Array], limits: Sequence[str], error: Error | None = None
    ) -> None:
        self.name, self.equation, self.operands, self.limits = name, equation, operands, limits
        self.error = error or self._by_opt_einsum

    @property
    def dtype(self) -> str:
        return self.operands[0].dtype.name

    def _by_opt_einsum(self, result: Array, places: Sequence[Place]) -> float:
        return relative(result, sum(map(self._part, places)) if any(places) else self._whole)

    def _part(self, place: Place) -> Array:
        """Of one slice, or of everything, by opt_einsum, in the order of the plan without a limit."""
        terms = self.equation.split("->")[0].split(",")
        places = [tuple([place.get(label, slice(None)) for label in term]) for term in terms]
        parts = [operand[at] for operand, at in zip(self.operands, places, strict=True)]
        return opt_einsum.contract(self.equation, *parts, optimize=self._path)

    @cached_property
    def _path(self) -> Any:
        plan = ge.einsum_plan(self.equation, *self.operands)
        return [*map(tuple, opt_einsum.paths.ssa_to_linear(contraction_pairs(plan)))]

    @cached_property
    def _whole(self) -> Array:
        return self._part({})


def relative(result: Any, expected: Any) -> float:
    """The largest difference by the largest element."""
    return float(np.max(np.abs(result - expected)) / np.max(np.abs(expected)))


def amplitude(rows: int, columns: int, depth: int, *limits: str) -> Case:
    """One of a random circuit on a grid of qubits."""
    instance = circuit(rows, columns, depth)
    return Case(instance.name, instance.equation, [x.astype(np.complex64) for x in instance.operands], limits)


def spins(rows: int, columns: int, *limits: str) -> Case:
    """The partition function of Ising's model on a torus, which is known."""
    coupling = 0.44
    instance, expected = lattice(rows, columns, coupling), ising(rows, columns, coupling)
    return Case(
        instance.name, instance.equation, instance.operands, limits, lambda result, _: relative(result, expected)
    )


def ising(rows: int, columns: int, coupling: float) -> float:
    """Kaufman, "Crystal statistics II", 1949: the eigenvalues of the transfer matrix, to the power of the rows."""
    double = 2 * coupling
    gammas = [
        double + math.log(math.tanh(coupling))
        if not k
        else math.acosh(math.cosh(double) / math.tanh(double) - math.cos(math.pi * k / columns))
        for k in range(2 * columns)
    ]
    products = [
        math.prod(2 * function(rows * gamma / 2) for gamma in gammas[first::2])
        for first in (0, 1)
        for function in (math.cosh, math.sinh)
    ]
    return (2 * math.sinh(double)) ** (rows * columns / 2) * sum(products) / 2


def quadratic_forms(rows: int, size: int, *limits: str) -> Case:
    """Twenty of each row; https://github.com/cupy/cupy/issues/4834."""
    rng = np.random.default_rng(_SEED)
    x, forms = rng.standard_normal((rows, size)), rng.standard_normal((20, size, size))
    listed = np.linspace(0, rows - 1, _ROWS, dtype=int)
    expected = np.einsum("ab,cbe,ae->ac", x[listed], forms, x[listed])
    name = f"quadratic forms of {rows:,} rows"
    return Case(name, "ab,cbe,ae->ac", [x, forms, x], limits, lambda result, _: relative(result[listed], expected))


def sixteen_features(batch: tuple[int, int, int], *limits: str) -> Case:
    """Two weights for all choices of one of two values, sixteen times; https://github.com/dgasmith/opt_einsum/issues/133."""
    rng, labels = np.random.default_rng(_SEED), "ijklmnopqrstuvwx"
    features, core = [rng.uniform(-1, 1, (*batch, 2)) for _ in labels], rng.standard_normal((2,) * 17)
    listed = tuple(rng.integers(size, size=_ROWS) for size in batch)
    rows = zip(*[x[listed] for x in features], strict=True)  # of each place the sixteen vectors
    expected = np.array([reduce(lambda left, vector: vector @ left, reversed(row), core) for row in rows])
    equation = f"{','.join(f'αβγ{label}' for label in labels)},{labels}ω->αβγω"
    name = f"sixteen features, {' x '.join(map(str, batch))}"
    return Case(name, equation, [*features, core], limits, lambda result, _: relative(result[listed], expected))


def four_tensors(size: int, *limits: str) -> Case:
    """Any two of which share a label."""
    equation = "abc,ade,bdf,cef->"
    known = LowRank(equation, dict.fromkeys("abcdef", size))
    operands = [known.fill(k, np.empty(known.shape(k), np.float32)) for k in range(4)]
    return Case(f"four tensors, n = {size}", equation, operands, limits, known.error)


def triples(occupied: int, virtual: int, folder: Path, *limits: str) -> Case:
    """A term of the energy of CCSD(T): products of amplitudes and integrals by denominators' Laplace transform.

    The eight points of the quadrature are q. The largest integrals are on disk. Häser and Almlöf, "Laplace transform
    techniques in Møller-Plesset perturbation theory", 1992.
    """
    equation = "ijad,bcdk,ilab,lcjk,qi,qj,qk,qa,qb,qc->"
    known = LowRank(equation, dict.fromkeys("ijkl", occupied) | dict.fromkeys("abcd", virtual) | {"q": 8})
    operands = [known.fill(k, np.empty(known.shape(k))) for k in range(10) if k != 1]
    path = folder / "integrals.npy"
    known.fill(1, np.lib.format.open_memmap(path, "w+", np.float64, known.shape(1))).flush()
    operands.insert(1, np.load(path, mmap_mode="r"))
    return Case(f"triples of {occupied} and {virtual} orbitals", equation, operands, limits, known.error)


class LowRank:
    """Operands that are sums of two outer products of vectors, so that any part of the sum over all labels is known."""

    def __init__(self, equation: str, sizes: Mapping[Label, int]) -> None:
        rng = np.random.default_rng(_SEED)
        self.terms, self.sizes = equation.removesuffix("->").split(","), sizes
        self.factors = [{label: rng.uniform(0.5, 1.5, (_RANK, sizes[label])) for label in term} for term in self.terms]

    def shape(self, number: int) -> tuple[int, ...]:
        return tuple([self.sizes[label] for label in self.terms[number]])

    def fill(self, number: int, operand: Array) -> Array:
        """The operand, which is filled."""
        first, *others = self.factors[number].values()
        rest = reduce(partial(np.einsum, "r...,rx->r...x"), others)
        for value, row in zip(first.T, operand, strict=True):
            np.einsum("r,r...->...", value, rest, out=row, casting="same_kind")
        return operand

    def value(self, place: Place) -> float:
        """The sum over the values of each label, for each choice of outer products of the operands; all of them."""
        sums: list[Any] = []
        for label in self.sizes:
            owners, values = [k for k, term in enumerate(self.terms) if label in term], place.get(label, slice(None))
            factors = [x for k in owners for x in (self.factors[k][label][:, values], [k, len(self.terms)])]
            sums += [np.einsum(*factors, owners), owners]
        return float(np.einsum(*sums, []))

    def error(self, result: Array, places: Sequence[Place]) -> float:
        return relative(result, sum(map(self.value, places)))
