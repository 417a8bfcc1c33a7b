"""The memory and the time of a plan by how many values of each label a slice has, and the blocks that suit a limit.

Blocks of labels are halved one by one, each time those that cost the least time for the memory that they save, or by
chance others nearly as good, many times over; of all that comes out the fastest is taken, and its blocks grow again
where they can. That is `SliceFinder` of cotengra's (Gray and Kourtis, "Hyper-optimized tensor network contraction",
2021), whose slices have one value of a label each, by price.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping
from functools import cache, cached_property, lru_cache, partial
from random import Random
from typing import Any, NamedTuple

import numpy as np

from gpueinsum.costs.counts import item_bytes
from gpueinsum.costs.profile import Profile
from gpueinsum.costs.seconds import pair_seconds, pass_seconds
from gpueinsum.errors import PlanError
from gpueinsum.language.dependence import dependences
from gpueinsum.language.plan import Plan
from gpueinsum.language.steps import Contract, Step
from gpueinsum.language.strides import points
from gpueinsum.language.subscripts import Label, Term

_Floats = np.ndarray[Any, np.dtype[np.float64]]
_Bools = np.ndarray[Any, np.dtype[np.bool_]]
_Counts = np.ndarray[Any, np.dtype[np.intp]]

# Seconds of Python for each slice beside its steps: a slice of one product of 3 by 3 x 7 took 4.8 us, the product 0.5.
_SLICE = 4e-6
_WEIGHED = 6  # slices whose peak on the device is computed, for each share
# How often halving begins anew, with fewer turns for long plans, and how much chance has a part in it. Of a tree of 962
# tensors 32 turns took 1 to 2 s, and found slices of 0.1 to 0.25 of the predicted time of those without chance.
_TRIALS, _TRIAL_STEPS, _TRIAL_SECONDS = 24, 20_000, 1e-4
_HEATS = (0.01, 0.1)
_NOTHING = 1e-9
_MOST_SLICES = 1 << 40  # nobody waits for more: of a microsecond each they take twelve days
# The least memory that is worth it: slices of one element each would save the last bytes, and take for ever.
_ABOUT = 1.05


class State(NamedTuple):
    """A plan in some blocks, as the model sees it."""

    blocks: dict[Label, int]  # of the sliced labels
    bytes: _Floats  # of each step's result in one slice
    dims: _Floats  # of each step its sizes in one slice: a pair's four roles; else points read and written
    seconds: _Floats  # of each step in one slice
    above: _Counts  # on how many sliced labels each step depends
    kept: _Bools  # what is computed before the slices, and stays
    alive: _Floats  # bytes when each step runs, and before the slices
    number: float  # of slices
    total: float  # seconds

    @property
    def peak(self) -> float:
        """Bytes."""
        return float(self.alive.max(initial=0.0))


class BlockModel:
    """The memory and the time of a plan by the sizes of its labels: arrays lie as each step wants them."""

    def __init__(self, plan: Plan, profile: Profile, cast: Collection[int] = ()) -> None:
        self.plan, self.profile = plan, profile
        self.cast = [
            plan.inputs[operand] for operand in sorted(cast)
        ]  # the terms of which copies are alive, part by part
        self.item = item_bytes(plan.dtype)
        self.size = dict(plan.sizes)
        self.operands, steps = len(plan.inputs), len(plan.steps)
        self.labels = {label: number for number, label in enumerate(self.size)}
        parts = [_parts(step, self.plan) for step in plan.steps]
        self.roles = np.array([[self._has(labels) for labels in part] for part in parts], bool)
        self.is_pair = [isinstance(step, Contract) for step in plan.steps]
        self.is_view = [step.is_view(self.size) for step in plan.steps]
        self.out = np.array([self._has(step.out) for step in plan.steps], bool)
        self.above = self._above()
        self.ends = self._ends()
        self.is_output = np.zeros(steps, bool)
        self.is_output[[output - self.operands for output in plan.outputs if output >= self.operands]] = True
        reads = [(number, source - self.operands) for number, step in enumerate(plan.steps) for source in step.sources]
        self.readers, self.sources = np.array([pair for pair in reads if pair[1] >= 0], int).reshape(-1, 2).T
        self._pair = lru_cache(maxsize=None)(partial(pair_seconds, profile, plan.dtype))

    @cached_property
    def start(self) -> State:
        """Without slices."""
        dims = np.array([[float(points(part, self.size)) for part in _parts(s, self.plan)] for s in self.plan.steps])
        nbytes = np.array(
            [
                0.0 if view else points(step.out, self.size) * float(self.item)
                for step, view in zip(self.plan.steps, self.is_view, strict=True)
            ]
        )
        seconds = np.array([self._seconds(number, own) for number, own in enumerate(dims)])
        return self._complete({}, nbytes, dims, seconds, np.zeros(len(seconds), int))

    @property
    def peak(self) -> float:
        """Bytes without slices."""
        return self.start.peak

    def choose(self, limit: int, runs: int) -> list[dict[Label, int]]:
        """Blocks that keep to the limit, the fastest first."""
        if self._least > limit:
            return []
        rng = Random(0)
        found = [self._halve(limit, measure, _silence) for measure in _MEASURES]
        for trial in range(min(_TRIALS, _TRIAL_STEPS // max(1, len(self.is_pair)))):
            fastest = min([state.total for state in found if state is not None], default=0.0)
            if runs * fastest < trial * len(self.is_pair) * _TRIAL_SECONDS:
                break  # to search on takes longer than it could save
            measure, heat = _MEASURES[trial % 2], _HEATS[trial // 2 % len(_HEATS)]
            found.append(self._halve(limit, measure, partial(_noise, rng, heat)))
        fitting = sorted([state for state in found if state is not None], key=lambda state: state.total)[:_WEIGHED]
        grown = sorted([self._grow(state, limit) for state in fitting], key=lambda state: state.total)
        return [state.blocks for state in grown]

    def smallest(self) -> dict[Label, int]:
        """The largest blocks of about the least memory: of all labels halved together, of many labels one by one."""
        few = [state for state in self._in_halves if state.number <= _MOST_SLICES]
        found, bound = next((state for state in few if state.peak <= _ABOUT * self._least), None), max(1.0, self._least)
        while found is None:
            bound *= _ABOUT
            found = self._halve(bound, _peak, _silence)
        return found.blocks

    @cached_property
    def _least(self) -> float:
        return min([state.peak for state in self._in_halves])

    @cached_property
    def _in_halves(self) -> list[State]:
        """The states in which the blocks of all labels are halved so and so often."""
        states, state = [self.start], self.start
        labels = [label for label, size in self.size.items() if self.plan.steps and size > 1 and self._can_slice(label)]
        while any(self._block(state, label) > 1 for label in labels):
            for label in labels:
                if (block := self._block(state, label)) > 1:
                    state = self._with(state, label, _half(self.size[label], block))
            states.append(state)
        return states

    def _block(self, state: State, label: Label) -> int:
        """How many values of a label a slice has."""
        return state.blocks.get(label, self.size[label])

    def _halve(self, limit: float, measure: _Measure, noise: Callable[[], float]) -> State | None:
        state = self.start
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
            if not self._can_slice(label):
                continue
            trial = self._with(state, label, _half(self.size[label], self._block(state, label)))
            saved, cost = before - measure(trial.alive, limit), math.log(trial.total / state.total)
            score = ((cost / saved if saved > _NOTHING else math.inf) + noise(), cost)
            if score < lowest:
                best, lowest = trial, score
        return best

    def _candidates(self, state: State) -> list[Label]:
        """The labels of the largest arrays that are in memory when most is."""
        if not self.plan.steps:
            return []
        at = int(state.alive.argmax())
        number = np.arange(len(state.bytes))
        own = np.where((number <= at) & (self.ends >= at) | state.kept, state.bytes, 0.0)
        copies = self._copied(state.blocks)
        least = max(own.max(), *copies, 0.0) / 4
        large = self.out[own >= least].any(axis=0)
        copied = "".join([term for term, nbytes in zip(self.cast, copies, strict=True) if nbytes >= least])
        return [
            label
            for label, number in self.labels.items()
            if (large[number] or label in copied) and self._block(state, label) > 1
        ]

    def _copied(self, blocks: Mapping[Label, int]) -> list[float]:
        """Bytes of the casts of parts of operands."""
        part = self.size | dict(blocks)
        return [points(term, part) * float(self.item) for term in self.cast]

    def _grow(self, state: State, limit: float) -> State:
        """The state with each block as large as the limit allows, those of most parts first."""
        for label in sorted(state.blocks, key=lambda label: state.blocks[label] / self.size[label]):
            grown = self._largest(state, label, limit)
            state = grown if grown.total < state.total else state
        return state

    def _largest(self, state: State, label: Label, limit: float) -> State:
        """The fewest blocks of a label that keep to the limit, all of about one length."""
        size, best = self.size[label], state
        low, high = 0, -(-size // state.blocks[label])  # numbers of blocks: too few, enough
        while high - low > 1:
            middle = (low + high) // 2
            trial = self._with(state, label, -(-size // middle))
            if trial.peak <= limit:
                best, high = trial, middle
            else:
                low = middle
        return best

    # ------------------------------------------------------------ what a block of another length changes

    def _with(self, state: State, label: Label, block: int) -> State:
        number, size, before = self.labels[label], self.size[label], self._block(state, label)
        factor = block / before
        nbytes = np.where(self.out[:, number], state.bytes * factor, state.bytes)
        dims = np.where(self.roles[:, :, number], state.dims * factor, state.dims)
        seconds = state.seconds.copy()
        for step in self._touched(number):
            seconds[step] = self._seconds(step, dims[step])
        above = state.above + (int(block < size) - int(before < size)) * self.above[:, number]
        blocks = {each: length for each, length in state.blocks.items() if each != label}
        return self._complete(blocks | ({label: block} if block < size else {}), nbytes, dims, seconds, above)

    def _complete(
        self, blocks: dict[Label, int], nbytes: _Floats, dims: _Floats, seconds: _Floats, above: _Counts
    ) -> State:
        """The state of these sizes, with the bytes that are alive when each step runs, and all seconds."""
        count = math.prod([float(-(-self.size[label] // block)) for label, block in blocks.items()])
        depends = above > 0
        whole, results = ~depends, self.is_output & depends
        is_read = np.zeros(len(depends), bool)
        is_read[self.sources[depends[self.readers]]] = True
        kept = whole & (self.is_output | is_read)
        in_slices = np.where(depends, self._alive(np.where(depends, nbytes, 0.0)) + nbytes[kept].sum(), 0.0)
        before = self._alive(np.where(whole & ~kept, nbytes, 0.0))
        first = np.where(whole, before + np.cumsum(np.where(kept, nbytes, 0.0)), 0.0)
        adding = sum(pass_seconds(self.profile, 3 * part) for part in nbytes[results])
        each = seconds[depends].sum() + adding + _SLICE if depends.any() else 0.0
        total = float(seconds[whole].sum() + (count * each if each else 0.0))
        alive = in_slices + first + self._result_bytes[results].sum() + sum(self._copied(blocks))
        return State(blocks, nbytes, dims, seconds, above, kept, alive, count, max(total, 1e-12))

    def _alive(self, nbytes: _Floats) -> _Floats:
        """Of results of these bytes those that are in memory when each step runs."""
        gone = np.bincount(self.ends + 1, nbytes, len(nbytes) + 1)[: len(nbytes)]
        return np.cumsum(nbytes - gone)

    @cached_property
    def _result_bytes(self) -> _Floats:
        return np.array([points(step.out, self.size) * float(self.item) for step in self.plan.steps])

    @cache  # noqa: B019  # a model lives as long as a search
    def _touched(self, number: int) -> list[int]:
        """The steps that have the label of this number."""
        found: list[int] = np.flatnonzero(self.roles[:, :, number].any(axis=1)).tolist()
        return found

    def _seconds(self, number: int, dims: _Floats) -> float:
        if self.is_view[number]:
            return 0.0
        if self.is_pair[number]:
            return self._pair(*dims.tolist())
        return pass_seconds(self.profile, float(dims.sum()) * self.item)

    # ------------------------------------------------------------ what never changes

    def _has(self, labels: Term) -> list[bool]:
        return [label in labels for label in self.labels]

    def _above(self) -> _Bools:
        """The labels on which each step's result depends: those of the operands that it is made of."""
        found = [np.array(self._has(term), bool) for term in self.plan.inputs]
        for step in self.plan.steps:
            mine = np.array(self._has(step.out), bool)
            for source in step.sources:
                mine = mine | found[source]
            found.append(mine)
        return np.array(found[self.operands :], bool)

    def _ends(self) -> _Counts:
        """For each step the last one during which its result is in memory: where it or a view of it is read last."""
        plan, operands, count = self.plan, self.operands, len(self.plan.steps)
        owners, ends = plan.owners(), np.arange(count)
        last = {register: at for at, done in enumerate(plan.last_uses()) for register in done}
        for register in range(operands, operands + count):
            owner = owners[register] - operands
            if owner >= 0:
                ends[owner] = max(ends[owner], last.get(register, count - 1))
        return ends

    @cache  # noqa: B019
    def _can_slice(self, label: Label) -> bool:
        try:
            dependences(self.plan, label)
        except PlanError:
            return False
        return True


def _parts(step: Step, plan: Plan) -> tuple[Term, Term, Term, Term]:
    """Labels whose sizes decide how long a step takes: a pair's roles; of others those of their source and result."""
    if isinstance(step, Contract):
        return step.batch, step.left, step.right, step.summed
    sources = [plan.term(source) for source in step.sources]
    return sources[0] if sources else "", step.out, "", ""


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
