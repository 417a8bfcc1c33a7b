"""Neighbouring steps of a plan become one pass over memory each, where a device is faster so."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cache
from typing import Self

from gpueinsum.costs.profile import Profile
from gpueinsum.costs.seconds import pass_seconds
from gpueinsum.language.plan import Plan
from gpueinsum.language.steps import Contract, Reduce, Step, distinct, without
from gpueinsum.language.strides import points
from gpueinsum.language.subscripts import Label, Term

Sizes = Mapping[Label, int]
_Factor = tuple[int, Term, bool]  # a register, the term by which it is read, whether as its conjugate

_MOST_OPERANDS = 4  # of one pass: those of a CUDA kernel (`backends/cuda/source.py`)
_MOST_LABELS = 52  # those for which np.einsum's loop has letters; a kernel runs 64 loops
# Where one pass makes more products than the steps apart, each result sums so many at the most: on a GPU one thread may
# have to do it alone, some 10 ns for each, while a launch takes 4 us.
_MOST_SUMMED = 256


@dataclass(frozen=True, slots=True)
class Fused:
    """The sum of the products of several arrays in one pass over their index points, e.g. `ij,ij,j->ij`.

    No term repeats a label; `conjugated` says which arrays enter as their conjugates.
    """

    sources: tuple[int, ...]
    terms: tuple[Term, ...]
    out: Term
    conjugated: tuple[bool, ...]

    def __str__(self) -> str:
        terms = (f"{term}{'*' * mark}" for term, mark in zip(self.terms, self.conjugated, strict=True))
        return f"{','.join(terms)}->{self.out}"

    def with_sources(self, *sources: int) -> Self:
        """The same step of other registers."""
        return replace(self, sources=sources)

    @property
    def summed(self) -> Term:
        return without(distinct("".join(self.terms)), self.out)

    def is_view(self, size: Sizes) -> bool:
        return False


def fuse(
    plan: Plan, profile: Profile, price: Callable[[Step | Fused], float]
) -> tuple[tuple[Step | Fused, ...], tuple[int, ...]]:
    """Steps that give the plan's outputs by fewer passes, and the registers of the outputs; `price` is in seconds.

    A step that only one other reads is joined with it, `i,ij->ij` and `ij,j->ij` to `i,ij,j->ij`, if one pass over the
    index points of both takes less time than two with an array between them, and if no more memory is alive at once.
    """
    operands = len(plan.inputs)
    uses = Counter(source for step in plan.steps for source in step.sources)
    once = {register for register, count in uses.items() if count == 1 and register >= operands}.difference(
        plan.outputs
    )
    if not once or plan.dtype == "object":
        return plan.steps, plan.outputs
    size = dict(plan.sizes)
    price = cache(price)
    memory: _Memory | None = None  # for most plans have nothing to join
    steps: dict[int, Step | Fused] = {}  # those that are left, by the register that each writes
    for register, original in enumerate(plan.steps, operands):
        step: Step | Fused = original
        waiting = once.intersection(step.sources)
        while waiting:
            source = max(waiting)
            waiting.remove(source)
            first, is_next = steps[source], next(reversed(steps)) == source
            if not _may_join(first, step, size, plan.dtype, profile):
                continue
            whole = _join(first, source, step)
            if whole is None:
                continue
            apart = price(first) + price(step)
            if apart < pass_seconds(profile, 0, arrays=len(whole.sources)):
                continue  # as small matrix products on a CPU are
            if price(whole) <= apart:
                memory = memory or _Memory(plan)
                if memory.allows(first, source, register, is_next):
                    memory.join(first, register)
                    del steps[source]
                    step = whole
                    waiting = once.intersection(step.sources)  # with a wider pass others may go, too
        steps[register] = step
    if len(steps) == len(plan.steps):
        return plan.steps, plan.outputs
    number = {register: position for position, register in enumerate([*range(operands), *steps])}
    return tuple(step.with_sources(*[number[source] for source in step.sources]) for step in steps.values()), tuple(
        number[output] for output in plan.outputs
    )


def _may_join(first: Step | Fused, second: Step | Fused, size: Sizes, dtype: str, profile: Profile) -> bool:
    """Whether one pass could be worth it; what costs most to find out comes later.

    A view costs nothing, and stays; but one of what a pass writes may as well be written at once.
    """
    if first.is_view(size):
        return False
    if second.is_view(size) and not isinstance(first, Fused):
        return False
    one, other, inner = (points(labels, size) for labels in (first.out, second.out, first.summed))
    outer = points(second.summed, size)
    grows = other * outer * inner > max(one * inner, other * outer)
    return not grows or (inner * outer <= _MOST_SUMMED and profile.kind == "cuda")


def _join(first: Step | Fused, register: int, second: Step | Fused) -> Fused | None:
    """`second` with what `first` writes to `register` put in its place; None where that is no one pass.

    A label that `first` sums may mean nothing else in `second`.
    """
    inner, outer = _factors(first), _factors(second)
    if inner is None or outer is None or not 2 <= len(inner) + len(outer) - 1 <= _MOST_OPERANDS:
        return None
    [(place, term, mark)] = [(i, term, mark) for i, (source, term, mark) in enumerate(outer) if source == register]
    if term != first.out or set(first.summed) & set("".join([term for _, term, _ in outer])):
        return None
    put = [(source, term, conjugated != mark) for source, term, conjugated in inner]
    factors = [*outer[:place], *put, *outer[place + 1 :]]
    sources, terms, conjugated = zip(*factors, strict=True)
    return Fused(sources, terms, second.out, conjugated) if len(set("".join(terms))) <= _MOST_LABELS else None


def _factors(step: Step | Fused) -> list[_Factor] | None:
    """What a step multiplies, to sum the products; None if it does something else, or walks a diagonal."""
    match step:
        case Contract():
            return [(step.lhs, step.lhs_term, step.conj_lhs), (step.rhs, step.rhs_term, step.conj_rhs)]
        case Fused():
            return [*zip(step.sources, step.terms, step.conjugated, strict=True)]
        case Reduce() if distinct(step.term) == step.term:
            return [(step.source, step.term, False)]
    return None


class _Memory:
    """What is alive how long, while steps are joined."""

    def __init__(self, plan: Plan) -> None:
        size = dict(plan.sizes)
        self._operands = len(plan.inputs)
        self._owners = plan.owners()
        self._elements = [points(plan.term(register), size) for register in range(len(self._owners))]
        self._end = [0] * len(self._owners)  # of each owner's memory: the last step that needs it
        for step, done in enumerate(plan.last_uses(), self._operands):
            for register in done:
                self._end[self._owners[register]] = step
        for register in plan.outputs:
            self._end[self._owners[register]] = len(self._owners)

    def allows(self, first: Step | Fused, between: int, second: int, is_next: bool) -> bool:
        """Whether no more is alive at once if the second step does what the first does, which writes to `between`.

        What the first reads lives on till then, in the place of the array between them, unless the second gives a view
        of that, which lives on itself. Next to each other, the second's result may take that place, too.
        """
        held = {self._owners[source] for source in first.sources}
        longer = sum(self._elements[owner] for owner in held if owner >= self._operands and self._end[owner] < second)
        gone = self._elements[between] if self._owners[second] == second else 0
        return longer <= gone or (is_next and self._elements[second] <= self._elements[between])

    def join(self, first: Step | Fused, second: int) -> None:
        """What the first step reads is needed until the second."""
        for source in first.sources:
            owner = self._owners[source]
            self._end[owner] = max(self._end[owner], second)
