"""Second stage within a limit of memory: orders of contraction and slices that suit each other, searched together."""

from __future__ import annotations

import contextlib
import itertools
import math
from collections.abc import Iterator, Mapping
from functools import lru_cache, partial
from random import Random
from time import perf_counter

import opt_einsum

from gpueinsum.costs import counts
from gpueinsum.costs.seconds import pair_seconds
from gpueinsum.errors import LimitError
from gpueinsum.language.plan import Plan
from gpueinsum.language.strides import points
from gpueinsum.language.subscripts import Label, Subscripts, Term
from gpueinsum.planning.lower import contraction_pairs, lower
from gpueinsum.planning.path import Path
from gpueinsum.planning.refine import OUTER, anneal, refine, refine_tree
from gpueinsum.planning.slicing import Room, slice_plan
from gpueinsum.planning.starts import greedy_path, linear_path
from gpueinsum.planning.tree import KEPT, Price, Tree

# Of the limit that slices keep to while an order is annealed and refined for them.
_STAGES = (64, 8, 1)
# Moves at each node in each stage. A circuit of 207 tensors under 4 MiB took, by orders of 10 s of search with 30, 100
# and 300 of them in one stage, 3.5, 3.3 and 5.0 s; under 256 KiB 25, 26 and 50 s.
_SWEEPS = 50
_STARTS, _FRESH = 2, 4  # the first rounds start anew, and then one in so many; the others from the best order so far
_ATTEMPTS = 4  # at orders, whatever the time, if the first fits in no slices
_PATIENCE, _MOST_SECONDS = 0.1, 10.0  # of so many runs the share that a search may take, and seconds


def cheapest_in_slices(
    subscripts: Subscripts,
    plan: Plan,
    room: Room,
    runs: int,
    search_seconds: float | None = None,
) -> Plan:
    """`slice_plan` of the plan of an expression, or of another order of it that is predicted faster in slices.

    An order is annealed and refined for the slices that bring it near the limit, in stages, and sliced anew. The order
    that is fastest without slices may be a bad start: of an Ising model of 16 x 16 spins under 1 MiB it led to 1e10 s,
    greedy ones to 4e2 to 2e4. The search takes about as long as a share of so many `runs`, or `search_seconds`.
    """
    start, best, refused = perf_counter(), None, None
    try:
        best = slice_plan(plan, room, runs=0)
    except LimitError as error:
        if points(subscripts.output, dict(subscripts.sizes)) * counts.item_bytes(plan.dtype) > room.bytes - room.taken:
            raise  # for the result alone
        refused = error
    if best is not None and not best.sliced:
        return best
    fewest = math.inf if best is None else room.seconds(best)
    share = min(_PATIENCE * runs * fewest, _MOST_SECONDS) if search_seconds is None and runs else search_seconds or 0.0
    network, rng, end, size = _Network(subscripts, plan), Random(0), start + share, dict(subscripts.sizes)
    price = lru_cache(KEPT)(partial(pair_seconds, room.profile, plan.dtype))
    fresh, best_path = _fresh_paths(network, size, price, rng, end), network.first
    for number in itertools.count():
        is_over = perf_counter() > end and (best is not None or number > _ATTEMPTS)
        if is_over or len(network.inputs) <= (OUTER if number else 2):
            break  # a tree of few leaves is solved
        is_fresh = best is None or number < _STARTS or number % _FRESH == 0
        path = next(fresh) if is_fresh else best_path
        with contextlib.suppress(LimitError):  # of an order that takes more in any slices
            for factor in _STAGES:
                halfway = slice_plan(network.plan(path), room.roughly(factor), runs=0, in_loops=False)
                tree = Tree(network.inputs, network.output, size | dict(halfway.sliced), path, price)
                anneal(tree, rng, 0 if is_fresh else _SWEEPS, end)
                refine_tree(tree, end)
                path = tree.path()
            trial = slice_plan(network.plan(path), room, runs=0)
            if (taken := room.seconds(trial)) < fewest:
                best, fewest, best_path = trial, taken, path
                end = end if search_seconds is not None else min(end, start + _PATIENCE * runs * fewest)
    if best is None:
        assert refused is not None
        raise refused
    return min(best, slice_plan(best.unsliced(), room, runs), key=room.seconds)


def reorder(subscripts: Subscripts, plan: Plan) -> Plan:
    """The plan of an expression with the same pairs, in the order in which they need the least memory at a time."""
    if len(contraction_pairs(plan)) < max(2, len(plan.inputs) - 1):  # a sum of nothing multiplies nothing
        return plan
    network = _Network(subscripts, plan)
    tree = Tree(network.inputs, network.output, dict(subscripts.sizes), network.first, lambda *_: 0.0)
    found = network.plan(tree.path())
    return found if counts.peak_bytes(found) < counts.peak_bytes(plan) else plan


def _fresh_paths(network: _Network, size: Mapping[Label, int], price: Price, rng: Random, end: float) -> Iterator[Path]:
    """The order of the plan, a greedy one, and then ever other ones, greedy or along the network."""
    yield network.first
    terms = network.inputs, network.output, size
    yield refine(*terms, greedy_path(*terms, 1.0), price, end)
    while True:
        yield linear_path(*terms, rng)
        path = greedy_path(*terms, rng.random(), 10 ** rng.uniform(-3, 0), rng)
        yield refine(*terms, path, price, end)


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
