"""What a plan is made of: four kinds of steps, closed under differentiation; each can say which small einsum it is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Self, assert_never

from gpueinsum.language.subscripts import Label, Term


@dataclass(frozen=True, slots=True)
class _OfOneArray:
    source: int
    term: Term
    out: Term

    def __str__(self) -> str:
        return self.equation

    @property
    def sources(self) -> tuple[int, ...]:
        return (self.source,)

    def with_sources(self, *sources: int) -> Self:
        """The same step of other registers."""
        [source] = sources
        return replace(self, source=source)

    @property
    def equation(self) -> str:
        return f"{self.term}->{self.out}"

    @property
    def summed(self) -> Term:
        return without(distinct(self.term), self.out)

    def is_view(self, size: Mapping[Label, int]) -> bool:
        """Whether the result is the source's memory seen through other strides, for labels of these sizes."""
        gained = without(self.out, self.term)
        repeats = len(set(self.out)) < len(self.out)
        return not repeats and all(size[label] == 1 for label in self.summed + gained)


@dataclass(frozen=True, slots=True)
class Reduce(_OfOneArray):
    """Diagonal, trace, sum and permutation of one array in one pass, e.g. `iijk->kj`."""


@dataclass(frozen=True, slots=True)
class Expand(_OfOneArray):
    """The transpose of `Reduce`: embed on the diagonal and broadcast, e.g. `j->jjk`, zero off the diagonal."""


@dataclass(frozen=True, slots=True)
class Contract:
    """The pair: a batched matrix product, e.g. `bij,bjk->bik`. No term repeats a label.

    Its labels have four roles: `batch` is in both sides and the result, `summed` in both sides only, `left` in the left
    side and the result, `right` in the right side and the result. Either side may enter as its complex conjugate, shown
    as `ij*`.
    """

    lhs: int
    rhs: int
    lhs_term: Term
    rhs_term: Term
    out: Term
    conj_lhs: bool = False
    conj_rhs: bool = False

    def __str__(self) -> str:
        return f"{self.lhs_term}{'*' * self.conj_lhs},{self.rhs_term}{'*' * self.conj_rhs}->{self.out}"

    @property
    def sources(self) -> tuple[int, ...]:
        return (self.lhs, self.rhs)

    def with_sources(self, *sources: int) -> Self:
        """The same step of other registers."""
        lhs, rhs = sources
        return replace(self, lhs=lhs, rhs=rhs)

    def is_view(self, size: Mapping[Label, int]) -> bool:
        return False

    @property
    def equation(self) -> str:
        return f"{self.lhs_term},{self.rhs_term}->{self.out}"

    @property
    def batch(self) -> Term:
        return roles(self.lhs_term, self.rhs_term, self.out)[0]

    @property
    def left(self) -> Term:
        return roles(self.lhs_term, self.rhs_term, self.out)[1]

    @property
    def right(self) -> Term:
        return roles(self.lhs_term, self.rhs_term, self.out)[2]

    @property
    def summed(self) -> Term:
        return roles(self.lhs_term, self.rhs_term, self.out)[3]


@lru_cache(maxsize=4096)
def roles(lhs: Term, rhs: Term, out: Term) -> tuple[Term, Term, Term, Term]:
    """The labels of a pair that are batch, left, right, summed: asked for some 20 times until a plan is bound."""
    both = within(lhs, rhs)
    return within(both, out), without(lhs, rhs), without(rhs, lhs), without(both, out)


@dataclass(frozen=True, slots=True)
class Add:
    """The elementwise sum of arrays of one term, `ij+ij->ij`; that of no arrays is zeros."""

    sources: tuple[int, ...]
    out: Term

    def __str__(self) -> str:
        return self.equation

    def with_sources(self, *sources: int) -> Self:
        """The same step of other registers."""
        return replace(self, sources=sources)

    @property
    def equation(self) -> str:
        return f"{'+'.join([self.out] * len(self.sources)) or '0'}->{self.out}"

    @property
    def summed(self) -> Term:
        return ""

    def is_view(self, size: Mapping[Label, int]) -> bool:
        return False


Step = Reduce | Expand | Contract | Add


def renumber(step: Step, number: Sequence[int] | Mapping[int, int]) -> Step:
    """The step of the registers that have these numbers elsewhere."""
    return step.with_sources(*[number[source] for source in step.sources])


def reduces(term: Term, out: Term) -> bool:
    """Whether `out` has labels of the term only, once each."""
    return len(set(out)) == len(out) and set(out) <= set(term)


def rearrange(source: int, term: Term, out: Term) -> Reduce | Expand:
    """`term->out` as the step that it is."""
    return (Reduce if reduces(term, out) else Expand)(source, term, out)


def sides(step: Step) -> list[tuple[int, Term]]:
    """Each register that a step reads, and the term by which it does."""
    match step:
        case Contract():
            return [(step.lhs, step.lhs_term), (step.rhs, step.rhs_term)]
        case Add():
            return [(source, step.out) for source in step.sources]
        case Reduce() | Expand():
            return [(step.source, step.term)]
        case _:
            assert_never(step)


def distinct(term: Term) -> Term:
    """Each label of a term once."""
    return "".join(dict.fromkeys(term))


def within(term: Term, other: Term) -> Term:
    """The labels of a term that another has, in its order."""
    return "".join([label for label in term if label in other])


def without(term: Term, other: Term) -> Term:
    """The labels of a term that another lacks, in its order."""
    return "".join([label for label in term if label not in other])
