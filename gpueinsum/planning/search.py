"""Second and third stage by price: of the plans that several orders of contraction lead to, the fastest on a device."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from time import perf_counter

from gpueinsum.costs.profile import Profile
from gpueinsum.costs.seconds import pair_seconds
from gpueinsum.errors import PlanError
from gpueinsum.language.plan import Plan
from gpueinsum.language.steps import Contract
from gpueinsum.language.strides import points
from gpueinsum.language.subscripts import Label, Subscripts, Term
from gpueinsum.planning.lower import lower
from gpueinsum.planning.path import Path, all_paths, find_path, greedy_path, priced_path

Seconds = Callable[[Plan], float]  # predicted, of a plan on a device
Search = Callable[[Sequence[Term], Term, Mapping[Label, int]], Path]

# A search may take as long as so many runs could save, since a plan is made once and run over and over, but no more
# than so many seconds.
MANY_RUNS, _MOST_SECONDS = 100, 10.0
_MOST_ELEMENTS = 1 << 62  # of any array
# An expression of fewer index points than this takes some 10 us in any order; to price a plan takes 100 us.
_MANY_POINTS = 1 << 14
# Up to so many operands all 18 orders are weighed (of five there are 180); up to so many opt_einsum's dynamic
# programming is tried, which combines all that it has found in pairs; up to so many other greedy searches, but not
# beyond: 2000 matrices in a row are to be planned in less than twice the 40 ms that one search takes.
_ALL_ORDERS, _BY_PRICE, _GREEDY = 4, 24, 256
_WEIGHTS = (0.5, 0.0)  # of greedy searches other than opt_einsum's own
# Seconds, on one core of an AMD EPYC: to find, lower and price one order, for each operand (a greedy one of 24 took
# 0.9 ms); of each pair that dynamic programming weighs (5762 took 17 ms).
_ORDER_SECONDS, _PAIR_SECONDS = 3e-5, 3e-6
# Of its price, or the plan at hand stays: the prediction is not to be trusted with less.
_BETTER = 0.98


def cheapest_plan(
    subscripts: Subscripts, dtype: str, profile: Profile, seconds: Seconds, runs: int = MANY_RUNS
) -> Plan:
    """The plan of the least predicted time, of those that opt_einsum's "auto" and other searches lead to.

    `seconds` predicts a plan's. All orders of few operands are tried, of more greedy ones and one by price, as long as
    they take no longer, by the clock, than `runs` of the plan found could save.
    """
    size = dict(subscripts.sizes)
    operands = len(subscripts.inputs)
    start = perf_counter()

    def lower_by(search: Search) -> Plan:
        return lower(subscripts, lambda inputs, output: search(inputs, output, size), dtype)

    best = lower_by(find_path)
    if not 2 < operands <= _GREEDY or math.prod(size.values()) < _MANY_POINTS:
        return best
    if max(points(step.out, size) for step in best.steps) > _MOST_ELEMENTS:
        return best  # which nobody runs
    if runs * _ideal_seconds(best, profile) < operands * _ORDER_SECONDS:
        return best
    if operands > _BY_PRICE:  # to choose the layouts of the 196 arrays of a PEPS of 14 x 14 sites takes 7 s
        seconds = partial(_ideal_seconds, profile=profile)
    best_seconds = seconds(best)

    def time_left() -> float:
        worth = min(runs * (best_seconds - profile.launch * len(best.steps)), _MOST_SECONDS)
        return worth - (perf_counter() - start)

    def weigh(plan: Plan) -> None:
        """Take the plan if it is faster than the best so far; its ideal seconds rule most plans out."""
        nonlocal best, best_seconds
        limit = _BETTER * best_seconds
        if plan != best and _ideal_seconds(plan, profile) <= limit and (taken := seconds(plan)) < limit:
            best, best_seconds = plan, taken

    for search in _searches(operands):
        if time_left() < operands * _ORDER_SECONDS:
            break
        weigh(lower_by(search))
    if _ALL_ORDERS < operands <= _BY_PRICE and time_left() > operands**2 * _PAIR_SECONDS:
        price, end = partial(pair_seconds, profile, dtype), perf_counter() + time_left()
        with contextlib.suppress(PlanError):  # it finds nothing that is better, or not in time
            weigh(lower_by(partial(priced_path, pair_seconds=price, limit=_BETTER * best_seconds, end=end)))
    return best


def _searches(operands: int) -> Iterator[Search]:
    if operands <= _ALL_ORDERS:
        return (partial(find_path, optimize=path) for path in all_paths(operands))
    return (partial(greedy_path, weight=weight) for weight in _WEIGHTS)


def _ideal_seconds(plan: Plan, profile: Profile) -> float:
    """Predicted seconds of the pairs if every side lay as its product wants it."""
    size = dict(plan.sizes)
    pairs = (step for step in plan.steps if isinstance(step, Contract))
    roles = ((step.batch, step.left, step.right, step.summed) for step in pairs)
    return sum(pair_seconds(profile, plan.dtype, *[points(labels, size) for labels in each]) for each in roles)
