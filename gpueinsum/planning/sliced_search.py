"""Second stage within a limit of memory: orders of contraction and slices that suit each other, searched together."""

from __future__ import annotations

from contextlib import suppress
from functools import partial
from time import perf_counter

import opt_einsum

from gpueinsum.costs.seconds import pair_seconds
from gpueinsum.errors import LimitError
from gpueinsum.language.plan import Plan
from gpueinsum.language.subscripts import Subscripts, Term
from gpueinsum.planning.lower import contraction_pairs, lower
from gpueinsum.planning.orders import orders
from gpueinsum.planning.path import Path
from gpueinsum.planning.refine import refine
from gpueinsum.planning.slicing import Room, slice_plan

# Of the limit that slices keep to while an order is refined for them.
_STAGES = (64, 8, 1)
_PATIENCE, _MOST_SECONDS = 0.1, 10.0  # of so many runs the share that a search may take, and seconds


def cheapest_in_slices(
    subscripts: Subscripts,
    plan: Plan,
    room: Room,
    runs: int,
    search_seconds: float | None = None,
) -> Plan:
    """`slice_plan` of the plan of an expression, or of another order of it that is predicted faster in slices.

    An order is refined for the slices that bring it near the limit, in stages, and sliced anew. The search takes no
    longer, by the clock, than a share of so many `runs`, or `search_seconds`.
    """
    start = perf_counter()
    best = slice_plan(plan, room, runs)
    if not best.sliced or len(plan.inputs) <= 2:
        return best
    fewest, network = room.seconds(best), _Network(subscripts, plan)
    share = min(_PATIENCE * runs * fewest, _MOST_SECONDS) if search_seconds is None else search_seconds
    size, end = dict(subscripts.sizes), start + share
    price = partial(pair_seconds, room.profile, plan.dtype)
    path: Path | None = network.first
    others = orders(network.inputs, network.output, size, price, end, start=path)
    while path is not None and perf_counter() < end:
        with suppress(LimitError):  # another order may not fit in any slices
            for factor in _STAGES:
                halfway = slice_plan(network.plan(path), room.roughly(factor), runs=0)
                path = refine(network.inputs, network.output, size | dict(halfway.sliced), path, price, end)
            trial = slice_plan(network.plan(path), room, runs)
            if (taken := room.seconds(trial)) < fewest:
                best, fewest = trial, taken
        path = next(others, None)
    return best


class _Network:
    """The operands and the output of an expression as searches for an order take them, and plans by paths."""

    def __init__(self, subscripts: Subscripts, plan: Plan) -> None:
        self._subscripts, self._dtype = subscripts, plan.dtype
        self.first: Path = tuple(map(tuple, opt_einsum.paths.ssa_to_linear(contraction_pairs(plan))))
        self.plan(self.first)

    def plan(self, path: Path) -> Plan:
        def order(inputs: tuple[Term, ...], output: Term) -> Path:
            self.inputs, self.output = inputs, output
            return path

        return lower(self._subscripts, order, self._dtype)
