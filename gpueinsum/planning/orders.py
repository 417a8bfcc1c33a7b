"""Orders of contraction for networks of many operands: ever other good ones, until a search has taken its time."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from random import Random
from time import perf_counter

from gpueinsum.language.subscripts import Label, Term
from gpueinsum.planning.path import Path
from gpueinsum.planning.refine import OUTER, anneal, refine_tree
from gpueinsum.planning.starts import greedy_path, linear_path
from gpueinsum.planning.tree import KEPT, Price, Tree

# Moves at each node in the first round, and how many times as many each round has: of a circuit of 207 tensors the best
# order of a search of 1, 3 and 10 s took 3.0, 2.5 and 2.1 s.
_SWEEPS, _GROWTH = 250, 1.4
_FRESH = 4  # one in so many rounds starts anew, the others from the best order so far


def orders(
    inputs: Sequence[Term],
    output: Term,
    sizes: Mapping[Label, int],
    price: Price,
    end: float,
    seed: int = 0,
    start: Path | None = None,
) -> Iterator[Path]:
    """Paths of few seconds by `price`, a pair's by its sizes of batch, rows, columns and sum; not the best first.

    Terms have distinct labels. The first path is `start` refined. The search ends at `end`, a time of
    `time.perf_counter`, but gives one path at least. What it gives by then is the same for the same seed.
    """
    rng, best, fewest = Random(seed), start or Path(), math.inf
    price = lru_cache(KEPT)(price)
    fresh = _fresh_paths(inputs, output, sizes, rng, start)
    sweeps, pace, refining = float(_SWEEPS), 0.0, 0.0  # the seconds of a sweep and of the last refinement
    for number in itertools.count():
        is_fresh, is_last = number < 2 or number % _FRESH == 0, False
        tree = Tree(inputs, output, sizes, next(fresh) if is_fresh else best, price)
        begin = perf_counter()
        if number > 1:
            affordable = (end - begin - refining) / pace if pace else math.inf
            is_last = affordable < sweeps
            anneal(tree, rng, int(min(sweeps, affordable)), end)
            pace = (perf_counter() - begin) / sweeps
            sweeps *= _GROWTH
        annealed = perf_counter()
        refine_tree(tree, end)
        refining = perf_counter() - annealed
        path, seconds = tree.path(), tree.seconds()
        if seconds < fewest:
            best, fewest = path, seconds
        yield path
        if is_last or perf_counter() > end or len(inputs) <= OUTER:
            return  # a tree of few leaves is solved


def _fresh_paths(
    inputs: Sequence[Term], output: Term, sizes: Mapping[Label, int], rng: Random, start: Path | None
) -> Iterator[Path]:
    yield start or greedy_path(inputs, output, sizes, 1.0)
    while True:
        yield linear_path(inputs, output, sizes, rng)
        yield greedy_path(inputs, output, sizes, rng.random(), 10 ** rng.uniform(-3, 0), rng)
