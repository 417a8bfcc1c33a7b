"""Second and third stage by price: of the plans that several orders of contraction lead to, the fastest on a device."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from functools import partial
from time import perf_counter

from gpueinsum.costs.profile import Profile
from gpueinsum.costs.seconds import pair_seconds
from gpueinsum.language.plan import Plan
from gpueinsum.language.steps import Contract
from gpueinsum.language.strides import points
from gpueinsum.language.subscripts import Subscripts, Term
from gpueinsum.planning.lower import lower
from gpueinsum.planning.orders import orders
from gpueinsum.planning.path import Path, all_paths, find_path
from gpueinsum.planning.starts import greedy_path
from gpueinsum.progress import reports

Seconds = Callable[[Plan], float]  # predicted, of a plan on a device

# A search may take as long as so many runs could save, since a plan is made once and run over and over, but no more
# than so many seconds.
MANY_RUNS, _MOST_SECONDS = 100, 10.0
# It ends earlier if it has found nothing better for this share of those runs' time, and for that of finding so many
# orders in one pass each; or if it has found nothing better in so many refined orders.
_PATIENCE, _PATIENT, _IDLE = 0.1, 10, 8
_SHARES = (0.5, 0.0)  # of greedy searches other than opt_einsum's own
_MOST_ELEMENTS = 1 << 62  # of any array
# An expression of fewer index points than this takes some 10 us in any order; to price a plan takes 100 us.
_MANY_POINTS = 1 << 14
# Up to so many operands all 18 orders are weighed (of five there are 180). Up to so many an order that saves less than
# this share is priced with its layouts; beyond, by pairs alone: to choose the layouts of the 196 arrays of a PEPS of 14
# x 14 sites takes 7 s.
_ALL_ORDERS, _BY_PRICE, _LAYOUTS = 4, 24, 0.5
# Seconds, on one core of an AMD EPYC, to find, lower and price one order, for each operand: a greedy one of 24 took
# 0.9 ms.
_ORDER_SECONDS = 3e-5
# Of its price, or the plan at hand stays: the prediction is not to be trusted with less.
_BETTER = 0.98


def cheapest_plan(
    subscripts: Subscripts,
    dtype: str,
    profile: Profile,
    seconds: Seconds,
    runs: int = MANY_RUNS,
    search_seconds: float | None = None,
) -> Plan:
    """The plan of the least predicted time, of those that opt_einsum's "auto" and other searches lead to.

    `seconds` predicts a plan's. The search takes no longer, by the clock, than `runs` of the plan found could save, or
    `search_seconds` if they are given.
    """
    search = _Search(subscripts, dtype, profile, seconds, runs, search_seconds)
    if search.is_worth_it():
        search.run()
    return search.best


class _Search:
    """The best plan so far, its path and price, and the time at which it was found."""

    def __init__(
        self,
        subscripts: Subscripts,
        dtype: str,
        profile: Profile,
        seconds: Seconds,
        runs: int,
        search_seconds: float | None,
    ) -> None:
        self.subscripts, self.dtype, self.profile, self.seconds, self.runs = subscripts, dtype, profile, seconds, runs
        self.search_seconds = search_seconds
        self.start = self.gained = perf_counter()
        self.size = dict(subscripts.sizes)
        self.best = lower(subscripts, self._find_first, dtype)
        self.order_seconds = _ORDER_SECONDS * len(self.inputs)

    def _find_first(self, inputs: tuple[Term, ...], output: Term) -> Path:
        self.inputs, self.output, self.path = inputs, output, find_path(inputs, output, self.size)
        return self.path

    def is_worth_it(self) -> bool:
        """Whether there are other orders, and the runs take longer than to find one."""
        if len(self.inputs) <= 2 or points(self.best.term(self.best.outputs[0]), self.size) > _MOST_ELEMENTS:
            return False
        if self.search_seconds is not None:
            return self.search_seconds > 0
        many_points = math.prod(self.size.values()) >= _MANY_POINTS
        return many_points and self.runs * self._ideal_seconds(self.best) >= self.order_seconds

    def run(self) -> None:
        """Weigh few orders by their layouts, too, and of more those that the search begins and ends with."""
        first = self.best
        if len(self.inputs) <= _ALL_ORDERS:
            self._take_best(all_paths(len(self.inputs)), math.inf, has_layouts=True)
            return
        ideal = self._ideal_seconds(first)
        greedy = (greedy_path(self.inputs, self.output, self.size, share) for share in _SHARES)
        self._take_best(greedy, math.inf)
        self._take_best(self._refined(), _IDLE if self.search_seconds is None else math.inf)
        is_close = self.best != first and self.price > _LAYOUTS * ideal
        if is_close and len(self.inputs) <= _BY_PRICE and self.seconds(self.best) > _BETTER * self.seconds(first):
            self.best = first

    def _refined(self) -> Iterator[Path]:
        price = partial(pair_seconds, self.profile, self.dtype)
        yield from orders(self.inputs, self.output, self.size, price, self._end(), start=self.path)

    def _take_best(self, paths: Iterator[Path], most_idle: float, has_layouts: bool = False) -> None:
        """Take the fastest plan so far, until so many paths in a row led to none, or the time is over.

        A plan is priced with its layouts, if at all, where its pairs alone do not rule it out.
        """
        self.price = self.seconds(self.best) if has_layouts else self._ideal_seconds(self.best)
        idle, begin = 0, perf_counter()
        before = begin
        with reports(round(max(self._end() - begin, 0.0), 1), "s", None) as report:
            while idle < most_idle and self._end() - before > self.order_seconds:
                path = next(paths, None)
                if path is None:
                    return
                plan = lower(self.subscripts, lambda *_, path=path: path, self.dtype)
                limit, seconds = _BETTER * self.price, self._ideal_seconds(plan)
                if has_layouts and seconds < limit and plan != self.best:
                    seconds = self.seconds(plan)
                idle, now = idle + 1, perf_counter()
                if seconds < limit and plan != self.best:
                    self.path, self.best, self.price, self.gained, idle = path, plan, seconds, now, 0
                report(now - begin)
                before = now

    def _end(self) -> float:
        """The time at which the search is no longer worth what it could still save."""
        if self.search_seconds is not None:
            return self.start + self.search_seconds
        worth = self.runs * (self.price - self.profile.launch * len(self.best.steps))
        patience = max(_PATIENCE * worth, _PATIENT * self.order_seconds)
        return min(self.start + min(worth, _MOST_SECONDS), self.gained + patience)

    def _ideal_seconds(self, plan: Plan) -> float:
        """Predicted seconds of the pairs if every side lay as its product wants it."""
        pairs = (step for step in plan.steps if isinstance(step, Contract))
        roles = ((step.batch, step.left, step.right, step.summed) for step in pairs)
        sizes = ([min(points(labels, self.size), _MOST_ELEMENTS) for labels in each] for each in roles)
        return sum(pair_seconds(self.profile, plan.dtype, *each) for each in sizes)
