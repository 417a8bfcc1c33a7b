"""Plan to plan, for a device: the term of every intermediate chosen for its consumer, so that little is copied.

A term is a layout, so a pair that writes another order of labels may spare the next one a copy. For each result a few
terms are weighed, with the cheapest way to get there: dynamic programming from the operands to the outputs.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import NamedTuple

from gpueinsum.costs.counts import item_bytes
from gpueinsum.costs.profile import Profile
from gpueinsum.language.plan import Plan
from gpueinsum.language.steps import Contract, Expand, Reduce, Step, within, without
from gpueinsum.language.strides import contiguous, points
from gpueinsum.language.subscripts import Label, Term
from gpueinsum.schedule.mapping import Case, Route, cheapest, orders, routes
from gpueinsum.schedule.predict import case_of, ideal_seconds, is_product, is_tiny, plan_seconds, step_seconds, way_of

# Pairs of smaller arrays keep their terms: to weigh others takes about a millisecond, as long as to run them.
_LARGE = 4 << 20  # bytes
_GOOD = 1.05  # a plan that takes no more of what it would with every side as its product wants it is left alone
_WEIGHED = 3  # terms of a result that its reader may choose from: those that promise most
_MOST_AXES = 24  # of both sides, or the orders that need no copy are too many to look for


class _Option(NamedTuple):
    """A term that a register may have: the seconds until then, and the terms of the sources that this takes."""

    seconds: float
    sources: tuple[Term, ...]


def arranged(plan: Plan, profile: Profile) -> Plan:
    """The same steps, with the terms of large pairs and their intermediates chosen by their price on a device.

    Outputs keep their terms, by a view where a pair writes another order.
    """
    size = dict(plan.sizes)
    large = [step for step in plan.steps if isinstance(step, Contract) and _is_weighed(step, size, plan.dtype, profile)]
    found = [_taken(step, size, plan.dtype, profile) for step in large]
    ideal = sum(ideal_seconds(step, size, plan.dtype, profile) for step in large)
    if not any(copies for _, copies in found) and sum(seconds for seconds, _ in found) <= _GOOD * ideal:
        return plan
    chosen = _rebuilt(plan, _Weighing(plan, profile).chosen)
    return chosen if plan_seconds(chosen, profile) < plan_seconds(plan, profile) else plan


def is_large(step: Contract, size: Mapping[Label, int], dtype: str, profile: Profile) -> bool:
    """Whether a pair is a product whose terms are chosen; what no memory holds is none."""
    return _moves_much(step, size, dtype, profile) and is_product(step, size, dtype, profile)


def _is_weighed(step: Contract, size: Mapping[Label, int], dtype: str, profile: Profile) -> bool:
    """Whether the term of a pair's result is chosen: of a product's, and of a pass that stands for a tiny one."""
    return _moves_much(step, size, dtype, profile) and (
        is_product(step, size, dtype, profile) or is_tiny(step, size, dtype, profile)
    )


def _moves_much(step: Contract, size: Mapping[Label, int], dtype: str, profile: Profile) -> bool:
    moved = sum(points(term, size) for term in (step.lhs_term, step.rhs_term, step.out)) * item_bytes(dtype)
    return _LARGE <= moved <= profile.memory_bytes


def _taken(step: Contract, size: Mapping[Label, int], dtype: str, profile: Profile) -> tuple[float, bool]:
    """Seconds that a pair takes as it is, and whether it copies a side first."""
    if is_tiny(step, size, dtype, profile):
        return step_seconds(step, size, dtype, profile), False
    way = way_of(step, size, dtype, profile)
    return way.seconds, way.copies > 0


Chooser = Callable[[Case], Route]  # such as `route_for`


def route_for(case: Case) -> Route:
    """The cheapest way to run a pair.

    Where its terms were chosen, and the sides lie as they say, the result is written as its term says, too: its reader
    counts on that. Else in any order.
    """
    return cheapest(case, _is_planned(case))


def routes_for(case: Case) -> list[Route]:
    """Every way that `route_for` chooses from, by price."""
    return routes(case, _is_planned(case))


def _is_planned(case: Case) -> bool:
    size = dict(case.sizes)
    planned = case_of(case.step, size, case.dtype, case.profile)
    lies_so = (planned.lhs, planned.rhs) == (case.lhs, case.rhs)
    return lies_so and is_large(case.step, size, case.dtype, case.profile)


class _Weighing:
    """The terms of every register that cost the least.

    A register that one pair alone reads leaves the choice to it; any other gets the one that promises most.
    """

    def __init__(self, plan: Plan, profile: Profile) -> None:
        self.plan, self.profile, self.size = plan, profile, dict(plan.sizes)
        self.chosen: dict[int, Term] = {}
        self.options: list[dict[Term, _Option]] = [{term: _Option(0.0, ())} for term in plan.inputs]
        self.readers: dict[int, list[Step]] = {}
        for step in plan.steps:
            for source in set(step.sources):
                self.readers.setdefault(source, []).append(step)
        for register, step in enumerate(plan.steps, len(plan.inputs)):
            self.options.append(self._options(register, step))
            if not self._is_open(register):
                term, option = next(iter(self.options[register].items()))
                self._settle(register, term)
                self.options[register] = {term: _Option(0.0, option.sources)}

    def _is_open(self, register: int) -> bool:
        match self.readers.get(register, []):
            case [Contract(lhs, rhs)] if register not in self.plan.outputs:
                return lhs != rhs
        return False

    def _options(self, register: int, step: Step) -> dict[Term, _Option]:
        """The terms that a step may write, and the cheapest way to each; those that promise most first."""
        if not (isinstance(step, Contract) and _is_weighed(step, self.size, self.plan.dtype, self.profile)):
            terms = tuple(map(self._cheapest, step.sources))
            before = sum(self.options[source][term].seconds for source, term in zip(step.sources, terms, strict=True))
            return {step.out: _Option(before, terms)}
        readers = [reader for reader in self.readers.get(register, []) if isinstance(reader, Contract)]
        found: dict[Term, _Option] = {}
        promise: dict[Term, float] = {}
        sides = itertools.product(self.options[step.lhs].items(), self.options[step.rhs].items())
        for (x_term, x), (y_term, y) in sorted(sides, key=lambda both: both[0][1].seconds + both[1][1].seconds):
            pair = _reading(step, self.plan, x_term, y_term)
            for out in self._terms(pair, readers):
                taken, copies = _taken(replace(pair, out=out), self.size, self.plan.dtype, self.profile)
                seconds = x.seconds + y.seconds + taken
                if out not in found or seconds < found[out].seconds:
                    found[out] = _Option(seconds, (x_term, y_term))
                    then, at_best = self._then(register, out, readers)
                    promise[out] = seconds + then
                    is_good = taken + then <= _GOOD * (self._ideal_seconds(pair) + at_best)
                    if len(found) == 1 and is_good and not copies:
                        return found
        return {term: found[term] for term in sorted(found, key=promise.__getitem__)[:_WEIGHED]}

    def _then(self, register: int, term: Term, readers: list[Contract]) -> tuple[float, float]:
        """Seconds that the readers take if their other sides keep their terms, and those that they take at best."""
        then = at_best = 0.0
        for reader in filter(self._is_large, readers):
            terms = (term if source == register else self.plan.term(source) for source in reader.sources)
            pair = _reading(reader, self.plan, *terms)
            then += way_of(pair, self.size, self.plan.dtype, self.profile, as_planned=False).seconds
            at_best += self._ideal_seconds(pair)
        return then, at_best

    def _terms(self, pair: Contract, readers: list[Contract]) -> list[Term]:
        """Terms for the result of a pair: its own, those that its readers would like, those that need no copy.

        A reader fuses what it sums, or what it does not, if they are neighbours: all of them, or those of either side
        where the sides meet, which leaves each side in one piece.
        """
        terms = [pair.out]
        if is_tiny(pair, self.size, self.plan.dtype, self.profile):
            terms.append(_in_place(pair, self.size))
        for reader in readers:
            batch, summed = within(pair.out, reader.batch), within(pair.out, reader.summed)
            free = without(pair.out, batch + summed)
            terms += [batch + free + summed, batch + summed + free]
            for first, second in ((pair.left, pair.right), (pair.right, pair.left)):
                outer, inner = without(first, summed), within(first, summed)
                terms.append(pair.batch + outer + inner + within(second, summed) + without(second, summed))
                terms.append(pair.batch + inner + outer + without(second, summed) + within(second, summed))
        if len(pair.lhs_term + pair.rhs_term) <= _MOST_AXES:
            terms += orders(pair, contiguous(pair.lhs_term, self.size), contiguous(pair.rhs_term, self.size))
        return list(dict.fromkeys(terms))

    def _settle(self, register: int, term: Term) -> None:
        """Give a register this term, and what it is made of the terms that this takes."""
        operands, waiting = len(self.plan.inputs), [(register, term)]
        while waiting:
            register, term = waiting.pop()
            if register >= operands and register not in self.chosen:
                self.chosen[register] = term
                sources = self.plan.steps[register - operands].sources
                waiting += zip(sources, self.options[register][term].sources, strict=True)

    def _cheapest(self, register: int) -> Term:
        options = self.options[register]
        return min(options, key=lambda term: options[term].seconds)

    def _is_large(self, step: Contract) -> bool:
        return is_large(step, self.size, self.plan.dtype, self.profile)

    def _ideal_seconds(self, step: Contract) -> float:
        return ideal_seconds(step, self.size, self.plan.dtype, self.profile)


def _in_place(pair: Contract, size: Mapping[Label, int]) -> Term:
    """The result's labels as they lie in the larger side, what is gained in the place of what is summed: `aib` of
    `ij,ajb`, so that a pass reads both sides as they lie.
    """
    larger = max(pair.lhs_term, pair.rhs_term, key=lambda term: points(term, size))
    gained = iter(without(pair.out, larger))
    kept = [next(gained, "") if label in pair.summed else label for label in larger]
    return "".join([*gained, *kept])


def _reading(step: Contract, plan: Plan, x_term: Term, y_term: Term) -> Contract:
    """The pair with sides in these orders of their registers' labels, which the step may call by other names."""
    lhs_term = _renamed(step.lhs_term, plan.term(step.lhs), x_term)
    return replace(step, lhs_term=lhs_term, rhs_term=_renamed(step.rhs_term, plan.term(step.rhs), y_term))


def _renamed(side: Term, own: Term, term: Term) -> Term:
    return side if term == own else "".join(side[own.index(label)] for label in term)


def _rebuilt(plan: Plan, chosen: Mapping[int, Term]) -> Plan:
    """The plan with these terms, and views where the plan's own is wanted."""
    operands = len(plan.inputs)
    steps: list[Step] = []
    number = list(range(operands))  # of each register of the plan
    term = list(plan.inputs)  # of each register of the new one

    def append(step: Step) -> int:
        steps.append(step)
        term.append(step.out)
        return operands + len(steps) - 1

    def seen(register: int) -> int:
        """A register of the plan, seen in the plan's own order."""
        new, own = number[register], plan.term(register)
        return new if term[new] == own else append(Reduce(new, term[new], own))

    for register, step in enumerate(plan.steps, operands):
        match step:
            case Contract():
                lhs, rhs = number[step.lhs], number[step.rhs]
                pair = _reading(step, plan, term[lhs], term[rhs])
                number.append(append(replace(pair, lhs=lhs, rhs=rhs, out=chosen.get(register, step.out))))
            case Reduce() if step.out == term[number[step.source]] and step.term == plan.term(step.source):
                number.append(number[step.source])  # what it would permute is written so
            case Reduce() | Expand() if step.term == plan.term(step.source):  # of any order
                source = number[step.source]
                number.append(append(replace(step, source=source, term=term[source])))
            case _:
                number.append(append(step.reading(*map(seen, step.sources))))
    outputs = tuple(map(seen, plan.outputs))
    return replace(plan, steps=tuple(steps), outputs=outputs)
