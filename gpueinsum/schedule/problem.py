"""What the choice of a way to run a step depends on: an einsum of arrays that lie so in memory, on one device."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import permutations

from gpueinsum.costs.profile import Profile
from gpueinsum.language.steps import distinct, roles, without
from gpueinsum.language.strides import points
from gpueinsum.language.subscripts import Label, Term, alphabet

Strides = tuple[int, ...]
Sizes = tuple[tuple[Label, int], ...]


@dataclass(frozen=True)
class Problem:
    """`terms -> out`, the sum of the products of arrays, some of which enter as their conjugates.

    `strides` are those of the arrays, in elements; arrays are `aligned` if they begin at multiples of 16 bytes. The
    result may lie in memory in any order of its labels, unless `is_ordered`: then in that of `out`.
    """

    terms: tuple[Term, ...]
    out: Term
    conjugated: tuple[bool, ...]
    strides: tuple[Strides, ...]
    sizes: Sizes
    dtype: str
    profile: Profile
    precision: str | None = None
    aligned: bool = True
    is_ordered: bool = False

    def __hash__(self) -> int:
        return self._hash

    @cached_property
    def _hash(self) -> int:
        return hash((self.terms, self.out, self.conjugated, self.strides, self.sizes, self.dtype, self.is_ordered))

    def __str__(self) -> str:
        terms = (f"{term}{'*' * mark}" for term, mark in zip(self.terms, self.conjugated, strict=True))
        return f"{','.join(terms)}->{self.out}"

    @cached_property
    def size(self) -> dict[Label, int]:
        return dict(self.sizes)

    @cached_property
    def summed(self) -> Term:
        return without(distinct("".join(self.terms)), self.out)

    @cached_property
    def is_pair(self) -> bool:
        """Whether it is a contraction: no term repeats a label, and each label is in two of lhs, rhs and result."""
        if len(self.terms) != 2 or any(len(set(term)) < len(term) for term in (*self.terms, self.out)):
            return False
        lhs, rhs = map(set, self.terms)
        return lhs ^ rhs <= set(self.out)

    @cached_property
    def roles(self) -> tuple[Term, Term, Term, Term]:
        """Of a pair: the labels that are batch, left, right and summed."""
        lhs, rhs = self.terms
        return roles(lhs, rhs, self.out)

    @cached_property
    def shape(self) -> tuple[int, int, int, int]:
        """Of a pair: how many matrix products, their rows, their columns, and the elements that each result sums."""
        batch, rows, columns, summed = (points(labels, self.size) for labels in self.roles)
        return batch, rows, columns, summed

    @cached_property
    def elements(self) -> tuple[int, ...]:
        """Of each array, and last of the result."""
        return tuple([points(term, self.size) for term in (*self.terms, self.out)])


@dataclass(frozen=True, slots=True)
class Spelling:
    """How a caller names and orders what a problem names and orders in one way only."""

    letters: dict[int, str]  # of `str.translate`, from the problem's labels to the caller's
    order: tuple[int, ...]  # of the caller's arrays


def canonical(problem: Problem) -> tuple[Problem, Spelling]:
    """The same problem in the spelling in which choices are made and kept: they do not depend on the caller's.

    The larger of two arrays comes first, and labels are named in the order in which that array's elements lie in
    memory, then as the others name them.
    """
    ranks = [_rank(problem, place) for place in range(len(problem.terms))]
    order = sorted(range(len(ranks)), key=ranks.__getitem__)
    if len(set(ranks)) == len(ranks):
        return _spell(problem, order)
    ranked = [ranks[place] for place in order]  # of equal ones, as in `ijk,kij->`, the order that is spelled first
    orders = [other for other in permutations(order) if [ranks[place] for place in other] == ranked]
    return min([_spell(problem, other) for other in orders], key=lambda found: _spelling_rank(found[0]))


def _spelling_rank(problem: Problem) -> tuple[object, ...]:
    return problem.terms, problem.out, problem.conjugated, problem.strides, problem.sizes


def _spell(problem: Problem, order: Sequence[int]) -> tuple[Problem, Spelling]:
    """The problem with its arrays in this order, its labels named accordingly."""
    terms = [problem.terms[place] for place in order]
    strides = [problem.strides[place] for place in order]
    named = "".join(map(_by_stride, terms, strides))
    table = dict(zip(dict.fromkeys(named + problem.out), _LETTERS, strict=False))
    letters = {ord(label): letter for label, letter in table.items()}
    same = replace(
        problem,
        terms=tuple([term.translate(letters) for term in terms]),
        out=problem.out.translate(letters),
        conjugated=tuple([problem.conjugated[place] for place in order]),
        strides=tuple(strides),
        sizes=tuple([(letter, problem.size[label]) for label, letter in table.items()]),
    )
    return same, Spelling({ord(letter): label for label, letter in table.items()}, tuple(order))


_LETTERS = "".join(letter for letter, _ in zip(alphabet(), range(256), strict=False))


def _rank(problem: Problem, place: int) -> tuple[object, ...]:
    """Larger arrays first; of equal ones that with the larger strides, then that whose labels come first in `out`."""
    term = problem.terms[place]
    return (
        -problem.elements[place],
        tuple([-abs(stride) for stride in sorted(problem.strides[place], key=abs, reverse=True)]),
        tuple([problem.out.find(label) for label in term]),
        problem.conjugated[place],
    )


def _by_stride(term: Term, strides: Sequence[int]) -> Term:
    pairs = sorted(zip(term, strides, strict=True), key=lambda pair: -abs(pair[1]))
    return "".join([label for label, _ in pairs])


def c_strides(term: Term, size: Mapping[Label, int]) -> Strides:
    """The element strides of a C-ordered array of this term."""
    strides, step = [], 1
    for label in reversed(term):
        strides.append(step)
        step *= size[label]
    return tuple(reversed(strides))


def dense_strides(term: Term, strides: Sequence[int], size: Mapping[Label, int]) -> Strides:
    """Of a copy without gaps, whose axes lie in memory in the order in which those of these strides do."""
    own, step = [0] * len(term), 1
    for axis in sorted(range(len(term)), key=lambda axis: -abs(strides[axis]))[::-1]:
        own[axis] = step
        step *= size[term[axis]]
    return tuple(own)


def axis_labels(term: Term, size: Mapping[Label, int]) -> tuple[Term, dict[Label, int]]:
    """A label of its own and a size for each axis of an array: a label that repeats in its term is two axes."""
    axes = "".join(letter for letter, _ in zip(alphabet(), term, strict=False))
    return axes, {axis: size[label] for axis, label in zip(axes, term, strict=True)}
