"""The order of the labels of each large intermediate, chosen for the steps that read it; from a plan to a plan."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

from gpueinsum.costs.counts import item_bytes
from gpueinsum.costs.profile import Profile
from gpueinsum.language.plan import Plan
from gpueinsum.language.steps import Contract, Expand, Reduce, Step, within, without
from gpueinsum.language.strides import label_strides, points
from gpueinsum.language.subscripts import Label, Term
from gpueinsum.schedule.candidate import Candidate
from gpueinsum.schedule.fusion import Fused
from gpueinsum.schedule.mapping import orders
from gpueinsum.schedule.predict import ideal_seconds, plan_seconds, problem_of
from gpueinsum.schedule.problem import Problem, Strides, c_strides
from gpueinsum.schedule.select import cheapest

# Pairs of smaller arrays keep their terms: to weigh others takes about a millisecond, as long as to run them.
_LARGE = 4 << 20  # bytes
_GOOD = 1.05  # a plan that takes no more of what it would with every side as its product wants it is left alone
_WEIGHED = 3  # terms of a result that its reader may choose from: those that promise most
_MOST_AXES = 24  # of both sides, or the orders that need no copy are too many to look for


class _Option(NamedTuple):
    """A term that a register may have: the seconds until then, and the terms of the sources that this takes."""

    seconds: float
    sources: tuple[Term, ...]


def choose_layouts(plan: Plan, profile: Profile, strides: Sequence[Strides] | None = None) -> Plan:
    """The same steps, with the terms of large pairs and their intermediates chosen by their price on a device.

    Operands have these strides in elements, by default those of the order of their terms. Outputs keep their terms, by
    a view where a pair writes another order.
    """
    prices = _Prices(plan, profile, strides)
    large = [step for step in plan.steps if isinstance(step, Contract) and prices.is_large(step)]
    found = [prices.taken(step, None) for step in large]
    ideal = sum(prices.ideal_seconds(step) for step in large)
    if not any(way.copies for way in found) and sum(way.seconds for way in found) <= _GOOD * ideal:
        return plan
    chosen = _rebuild(plan, _Weighing(plan, prices).chosen)
    return chosen if plan_seconds(chosen, profile, strides) < plan_seconds(plan, profile, strides) else plan


def is_large(step: Step | Fused, size: Mapping[Label, int], dtype: str, profile: Profile) -> bool:
    """Whether the term of a step's result is chosen: of a product of large arrays, but not of what no memory holds."""
    if not isinstance(step, Contract):
        return False
    moved = points(step.lhs_term, size) + points(step.rhs_term, size) + points(step.out, size)
    if not _LARGE <= moved * item_bytes(dtype) <= profile.memory_bytes:
        return False
    is_product = all(points(labels, size) > 1 for labels in (step.left, step.right, step.summed))
    return is_product and profile.rate(dtype) is not None


class _Prices:
    """The ways of a plan's pairs on a device, for sides in any order of their labels."""

    def __init__(self, plan: Plan, profile: Profile, strides: Sequence[Strides] | None) -> None:
        self.plan, self.profile, self.strides, self.size = plan, profile, strides, dict(plan.sizes)

    def problem(self, pair: Contract, is_ordered: bool) -> Problem:
        """A pair whose sides are operands as they lie, or lie in the order of their terms."""
        operands, strides = len(self.plan.inputs), None
        if self.strides is not None and min(pair.sources) < operands:
            sides = zip(pair.sources, (pair.lhs_term, pair.rhs_term), strict=True)
            strides = [
                self.strides[source] if source < operands else c_strides(term, self.size) for source, term in sides
            ]
        return problem_of(pair, self.size, self.plan.dtype, self.profile, strides, is_ordered=is_ordered)

    def taken(self, pair: Contract, out: Term | None, is_ordered: bool = True) -> Candidate:
        """The way to run a pair that writes its result in the order `out`; its own if that is None."""
        pair = pair if out is None else replace(pair, out=out)
        return cheapest(self.problem(pair, is_ordered))[1]

    def is_large(self, step: Contract) -> bool:
        return is_large(step, self.size, self.plan.dtype, self.profile)

    def ideal_seconds(self, step: Contract) -> float:
        return ideal_seconds(step, self.size, self.plan.dtype, self.profile)


class _Weighing:
    """The terms of every register that cost the least.

    A register that one pair alone reads leaves the choice to it; any other gets the one that promises most.
    """

    def __init__(self, plan: Plan, prices: _Prices) -> None:
        self.plan, self.prices, self.size = plan, prices, dict(plan.sizes)
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
        if not (isinstance(step, Contract) and self.prices.is_large(step)):
            terms = tuple(map(self._cheapest, step.sources))
            before = sum(self.options[source][term].seconds for source, term in zip(step.sources, terms, strict=True))
            return {step.out: _Option(before, terms)}
        readers = [reader for reader in self.readers.get(register, []) if isinstance(reader, Contract)]
        found: dict[Term, _Option] = {}
        promise: dict[Term, float] = {}
        sides = itertools.product(self.options[step.lhs].items(), self.options[step.rhs].items())
        for (x_term, x), (y_term, y) in sorted(sides, key=lambda both: both[0][1].seconds + both[1][1].seconds):
            pair = _read_as(step, self.plan, x_term, y_term)
            for out in self._terms(pair, readers):
                taken = self.prices.taken(pair, out)
                seconds = x.seconds + y.seconds + taken.seconds
                if out not in found or seconds < found[out].seconds:
                    found[out] = _Option(seconds, (x_term, y_term))
                    then, at_best = self._then(register, out, readers)
                    promise[out] = seconds + then
                    is_good = taken.seconds + then <= _GOOD * (self.prices.ideal_seconds(pair) + at_best)
                    if len(found) == 1 and is_good and not taken.copies:
                        return found
        return {term: found[term] for term in sorted(found, key=promise.__getitem__)[:_WEIGHED]}

    def _then(self, register: int, term: Term, readers: list[Contract]) -> tuple[float, float]:
        """Seconds that the readers take if their other sides keep their terms, and those that they take at best."""
        then = at_best = 0.0
        for reader in filter(self.prices.is_large, readers):
            terms = (term if source == register else self.plan.term(source) for source in reader.sources)
            pair = _read_as(reader, self.plan, *terms)
            then += self.prices.taken(pair, None, is_ordered=False).seconds
            at_best += self.prices.ideal_seconds(pair)
        return then, at_best

    def _terms(self, pair: Contract, readers: list[Contract]) -> list[Term]:
        """Terms for the result of a pair: its own, those that its readers would like, those that need no copy.

        A reader fuses what it sums, or what it does not, if they are neighbours: all of them, or those of either side
        where the sides meet, which leaves each side in one piece.
        """
        terms = [pair.out]
        for reader in readers:
            batch, summed = within(pair.out, reader.batch), within(pair.out, reader.summed)
            free = without(pair.out, batch + summed)
            terms += [batch + free + summed, batch + summed + free]
            for first, second in ((pair.left, pair.right), (pair.right, pair.left)):
                outer, inner = without(first, summed), within(first, summed)
                terms.append(pair.batch + outer + inner + within(second, summed) + without(second, summed))
                terms.append(pair.batch + inner + outer + without(second, summed) + within(second, summed))
        if len(pair.lhs_term + pair.rhs_term) <= _MOST_AXES:
            problem = self.prices.problem(pair, is_ordered=False)
            lhs, rhs = map(label_strides, problem.terms, problem.strides)
            terms += orders(problem, lhs, rhs)
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


def _read_as(step: Contract, plan: Plan, x_term: Term, y_term: Term) -> Contract:
    """The pair with sides in these orders of their registers' labels, which the step may call by other names."""
    lhs_term = _renamed(step.lhs_term, plan.term(step.lhs), x_term)
    return replace(step, lhs_term=lhs_term, rhs_term=_renamed(step.rhs_term, plan.term(step.rhs), y_term))


def _renamed(side: Term, own: Term, term: Term) -> Term:
    return side if term == own else "".join(side[own.index(label)] for label in term)


def _rebuild(plan: Plan, chosen: Mapping[int, Term]) -> Plan:
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
                pair = _read_as(step, plan, term[lhs], term[rhs])
                number.append(append(replace(pair, lhs=lhs, rhs=rhs, out=chosen.get(register, step.out))))
            case Reduce() if step.out == term[number[step.source]] and step.term == plan.term(step.source):
                number.append(number[step.source])  # what it would permute is written so
            case Reduce() | Expand() if step.term == plan.term(step.source):  # of any order
                source = number[step.source]
                number.append(append(replace(step, source=source, term=term[source])))
            case _:
                number.append(append(step.with_sources(*map(seen, step.sources))))
    outputs = tuple(map(seen, plan.outputs))
    return replace(plan, steps=tuple(steps), outputs=outputs)
