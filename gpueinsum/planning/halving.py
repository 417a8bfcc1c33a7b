"""The blocks of labels that suit a limit of memory.

Blocks are halved one by one, each time those that cost the least time for the memory that they save, or by chance
others nearly as good, many times over; of all that comes out the fastest is taken, and its blocks grow again where they
can. That is `SliceFinder` of cotengra's (Gray and Kourtis, "Hyper-optimized tensor network contraction", 2021), whose
slices have one value of a label each, by price.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import cached_property, partial
from random import Random
from typing import Any

import numpy as np

from gpueinsum.language.subscripts import Label
from gpueinsum.planning.blocks import BlockModel, Copy, State

_Floats = np.ndarray[Any, np.dtype[np.float64]]

_WEIGHED = 6  # slices whose peak on the device is computed, for each share
# How often halving begins anew, with fewer turns for long plans, and how much chance has a part in it. Of a tree of 962
# tensors 32 turns took 1 to 2 s, and found slices of 0.1 to 0.25 of the predicted time of those without chance.
_TRIALS, _TRIAL_STEPS, _TRIAL_SECONDS = 24, 20_000, 1e-4
_HEATS = (0.01, 0.1)
_NOTHING = 1e-9
_MOST_SLICES = 1 << 40  # nobody waits for more: of a microsecond each they take twelve days
# The least memory that is worth it: slices of one element each would save the last bytes, and take for ever.
_ABOUT = 1.05


class Halving:
    """The search for blocks of a plan, by its model, and by that of what its steps copy once this is known."""

    def __init__(self, model: BlockModel) -> None:
        self.model = self._first = model

    def learn(self, copies: Sequence[Copy]) -> None:
        """Take what steps copy into account from now on."""
        self.model = self._first.with_copies([*self._first.copies, *copies])

    def choose(self, limit: int, runs: int) -> list[State]:
        """Blocks that keep to the limit, the fastest first."""
        if self._least > limit:
            return []
        found = self._fastest(limit, runs)
        if not found and self.model is not self._first:
            self.model = self._first  # steps of smaller slices may copy less
            found = self._fastest(limit, runs)
        return found

    def _fastest(self, limit: int, runs: int) -> list[State]:
        rng = Random(0)
        found = [self._halve(limit, measure, _silence) for measure in _MEASURES]
        for trial in range(min(_TRIALS, _TRIAL_STEPS // max(1, len(self.model.is_pair)))):
            fastest = min([state.total for state in found if state is not None], default=0.0)
            if runs * fastest < trial * len(self.model.is_pair) * _TRIAL_SECONDS:
                break  # to search on takes longer than it could save
            measure, heat = _MEASURES[trial % 2], _HEATS[trial // 2 % len(_HEATS)]
            found.append(self._halve(limit, measure, partial(_noise, rng, heat)))
        fitting = sorted([state for state in found if state is not None], key=lambda state: state.total)[:_WEIGHED]
        grown = [self._grow(state, limit) for state in fitting]
        distinct = {frozenset(state.blocks.items()): state for state in grown}
        return sorted(distinct.values(), key=lambda state: state.total)

    def smallest(self) -> State:
        """The largest blocks of about the least memory: of all labels halved together, of many labels one by one."""
        self.model = self._first
        few = [state for state in self._in_halves if state.number <= _MOST_SLICES]
        found, bound = next((state for state in few if state.peak <= _ABOUT * self._least), None), max(1.0, self._least)
        while found is None:
            bound *= _ABOUT
            found = self._halve(bound, _peak, _silence)
        return found

    @cached_property
    def _least(self) -> float:
        return min([state.peak for state in self._in_halves])

    @cached_property
    def _in_halves(self) -> list[State]:
        """The states in which the blocks of all labels are halved so and so often."""
        model, states = self._first, [self._first.start]
        state, size = states[0], model.size
        labels = [label for label in size if model.plan.steps and size[label] > 1 and label in model.sliceable]
        while any(model.block(state, label) > 1 for label in labels):
            for label in labels:
                if (block := model.block(state, label)) > 1:
                    state = model.with_block(state, label, _half(size[label], block))
            states.append(state)
        return states

    def _halve(self, limit: float, measure: _Measure, noise: Callable[[], float]) -> State | None:
        state = self.model.start
        while state.peak > limit:
            halved = self._halved(state, limit, measure, noise)
            if halved is None or halved.number > _MOST_SLICES:
                return None
            state = halved
        return state

    def _halved(self, state: State, limit: float, measure: _Measure, noise: Callable[[], float]) -> State | None:
        """The state with one block halved: what costs least for what it saves; None if there is none to halve."""
        before, best, lowest = measure(state.alive, limit), None, (math.inf, math.inf)
        for label in self._candidates(state):
            trial = self.model.with_block(state, label, _half(self.model.size[label], self.model.block(state, label)))
            saved, cost = before - measure(trial.alive, limit), math.log(trial.total / state.total)
            score = ((cost / saved if saved > _NOTHING else math.inf) + noise(), cost)
            if score < lowest:
                best, lowest = trial, score
        return best

    def _candidates(self, state: State) -> list[Label]:
        """The labels of the largest arrays that are in memory when most is."""
        model, number = self.model, np.arange(len(state.bytes))
        if not len(number):
            return []
        at = int(state.alive.argmax())
        own = np.where((number <= at) & (model.ends >= at) | state.kept, state.bytes, 0.0)
        copies = np.where((model.copied_at == at) | (model.copied_at == len(number)), state.copied, 0.0)
        least = max(own.max(), copies.max(initial=0.0)) / 4
        large = model.out[own >= least].any(axis=0) | model.copied[copies >= least].any(axis=0)
        return [
            label
            for label, number in model.labels.items()
            if large[number] and model.block(state, label) > 1 and label in model.sliceable
        ]

    def _grow(self, state: State, limit: float) -> State:
        """The state with each block as large as the limit allows, those of most parts first."""
        for label in sorted(state.blocks, key=lambda label: state.blocks[label] / self.model.size[label]):
            grown = self._largest(state, label, limit)
            state = grown if grown.total < state.total else state
        return state

    def _largest(self, state: State, label: Label, limit: float) -> State:
        """The fewest blocks of a label that keep to the limit, all of about one length."""
        size, best = self.model.size[label], state
        low, high = 0, -(-size // state.blocks[label])  # numbers of blocks: too few, enough
        while high - low > 1:
            middle = (low + high) // 2
            trial = self.model.with_block(state, label, -(-size // middle))
            if trial.peak <= limit:
                best, high = trial, middle
            else:
                low = middle
        return best


def _half(size: int, block: int) -> int:
    """About half a block: what divides the size if that is near, so that few slices differ in size from the others."""
    half = -(-block // 2)
    return next((smaller for smaller in range(half, max(half // 2, half - 32), -1) if size % smaller == 0), half)


def _silence() -> float:
    return 0.0


def _noise(rng: Random, heat: float) -> float:
    """With which the least of several scores is chosen by Boltzmann's rule (Gumbel's trick)."""
    return heat * math.log(-math.log(rng.random()))


def _excess(alive: _Floats, limit: float) -> float:
    """By how much the bytes in memory exceed the limit, over all steps, in logarithms."""
    over = alive[alive > limit]
    return float(np.log(over / max(limit, 1.0)).sum())


def _peak(alive: _Floats, limit: float) -> float:
    """By how much the most bytes in memory exceed the limit, in logarithms."""
    return math.log(max(float(alive.max(initial=0.0)), limit, 1.0))


_Measure = Callable[[_Floats, float], float]
_MEASURES: tuple[_Measure, ...] = (
    _excess,
    _peak,
)  # of a contraction tree of 962 tensors now one was best, now the other
