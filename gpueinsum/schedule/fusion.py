"""Plan to plan, just before it is bound: neighbouring steps, and tiny products, become one `Fused` pass each."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cache

from gpueinsum.costs.profile import Profile
from gpueinsum.costs.seconds import pass_seconds
from gpueinsum.language.plan import Plan
from gpueinsum.language.steps import Contract, Fused, Reduce, Step, distinct, renumbered
from gpueinsum.language.strides import points
from gpueinsum.language.subscripts import Label, Term
from gpueinsum.schedule.predict import ideal_seconds, is_tiny, step_seconds

Sizes = Mapping[Label, int]
_Factor = tuple[int, Term, bool]  # a register, the term by which it is read, whether as its conjugate

_MOST_OPERANDS = 4  # of one pass: those of a CUDA kernel (`launch.py`)
_MOST_LABELS = 52  # those for which np.einsum's loop has letters; a kernel runs 64 loops
# Where one pass makes more products than the steps apart, each result sums so many at the most: on a GPU one thread may
# have to do it alone, some 10 ns for each, while a launch takes 4 us.
_MOST_SUMMED = 256
# A tiny product stays one if a pass takes more times as long as it would if it read everything once.
_MOST_AGAIN = 2.0


def fused(plan: Plan, profile: Profile) -> Plan:
    """The same outputs by fewer passes.

    A step that only one other reads is joined with it, `i,ij->ij` and `ij,j->ij` to `i,ij,j->ij`, if by the profile one
    pass over the index points of both takes less time than two with an array between them, and if no more memory is
    alive at once. On a GPU tiny products of matrices are passes, too.
    """
    if plan.dtype == "object":
        return plan
    operands = len(plan.inputs)
    uses = Counter(source for step in plan.steps for source in step.sources)
    once = {register for register, count in uses.items() if count == 1 and register >= operands}.difference(
        plan.outputs
    )
    size = dict(plan.sizes)
    tiny = {step for step in plan.steps if isinstance(step, Contract) and is_tiny(step, size, plan.dtype, profile)}
    if not once and not tiny:
        return plan

    @cache
    def price(step: Step) -> float:
        return step_seconds(step, size, plan.dtype, profile)

    memory: _Memory | None = None  # for most plans have nothing to join
    steps: dict[int, Step] = {}  # those that are left, by the register that each writes
    for register, step in enumerate(plan.steps, operands):
        waiting = once.intersection(step.sources)
        while waiting:
            source = max(waiting)
            waiting.remove(source)
            first, is_next = steps[source], next(reversed(steps)) == source
            if not _may_join(first, step, size, first in tiny):
                continue
            apart = price(first) + price(step)
            if apart < pass_seconds(profile, 0, arrays=len(first.sources) + len(step.sources) - 1):
                continue  # as small matrix products on a CPU are
            whole = _joined(first, source, step)
            if whole is not None and price(whole) <= apart:
                memory = memory or _Memory(plan)
                if memory.allows(first, source, register, is_next):
                    memory.join(first, register)
                    del steps[source]
                    step = whole
                    waiting = once.intersection(step.sources)  # with a wider pass others may go, too
        steps[register] = step
    for register, step in steps.items():
        if step in tiny and (factors := _factors(step)):
            whole = _pass(factors, step.out)
            if whole is not None and price(whole) <= _MOST_AGAIN * ideal_seconds(step, size, plan.dtype, profile):
                steps[register] = whole
    if tuple(steps.values()) == plan.steps:
        return plan
    number = {register: position for position, register in enumerate([*range(operands), *steps])}
    return replace(
        plan,
        steps=tuple(renumbered(step, number) for step in steps.values()),
        outputs=tuple(number[output] for output in plan.outputs),
    )


def _may_join(first: Step, second: Step, size: Sizes, is_tiny: bool) -> bool:
    """Whether one pass could be worth it; what costs most to find out comes later.

    A view costs nothing, and stays; but one of what a pass writes, or a tiny product, may as well be written at once.
    """
    if first.is_view(size) or (second.is_view(size) and not (isinstance(first, Fused) or is_tiny)):
        return False
    one, other, inner = (points(labels, size) for labels in (first.out, second.out, first.summed))
    outer = points(second.summed, size)
    grows = other * outer * inner > max(one * inner, other * outer)
    return not grows or inner * outer <= _MOST_SUMMED


def _joined(first: Step, register: int, second: Step) -> Fused | None:
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
    return _pass([*outer[:place], *put, *outer[place + 1 :]], second.out)


def _pass(factors: Sequence[_Factor], out: Term) -> Fused | None:
    """The sum of these factors' products; None of too many labels."""
    sources, terms, conjugated = zip(*factors, strict=True)
    return Fused(sources, terms, out, conjugated) if len(set("".join(terms))) <= _MOST_LABELS else None


def _factors(step: Step) -> list[_Factor] | None:
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

    def allows(self, first: Step, between: int, second: int, is_next: bool) -> bool:
        """Whether no more is alive at once if the second step does what the first does, which writes to `between`.

        What the first reads lives on till then, in the place of the array between them, unless the second gives a view
        of that, which lives on itself. Next to each other, the second's result may take that place, too.
        """
        held = {self._owners[source] for source in first.sources}
        longer = sum(self._elements[owner] for owner in held if owner >= self._operands and self._end[owner] < second)
        gone = self._elements[between] if self._owners[second] == second else 0
        return longer <= gone or (is_next and self._elements[second] <= self._elements[between])

    def join(self, first: Step, second: int) -> None:
        """What the first step reads is needed until the second."""
        for source in first.sources:
            owner = self._owners[source]
            self._end[owner] = max(self._end[owner], second)
