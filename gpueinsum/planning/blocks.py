"""The memory and the time of a plan by how many values of each label a slice has."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from functools import cache, cached_property, lru_cache, partial
from typing import Any, NamedTuple

import numpy as np

from gpueinsum.costs.counts import item_bytes
from gpueinsum.costs.profile import Profile
from gpueinsum.costs.seconds import pair_seconds, pass_seconds
from gpueinsum.language.dependence import sliceable_labels
from gpueinsum.language.plan import Plan
from gpueinsum.language.steps import Contract, Step
from gpueinsum.language.strides import points
from gpueinsum.language.subscripts import Label, Term

Copy = tuple[int | None, Term]
_Floats = np.ndarray[Any, np.dtype[np.float64]]
_Bools = np.ndarray[Any, np.dtype[np.bool_]]
_Counts = np.ndarray[Any, np.dtype[np.intp]]

# Seconds of Python for each slice beside its steps: a slice of one product of 3 by 3 x 7 took 4.8 us, the product 0.5.
_SLICE = 4e-6


class State(NamedTuple):
    """A plan in some blocks, as the model sees it."""

    blocks: dict[Label, int]  # of the sliced labels
    bytes: _Floats  # of each step's result in one slice
    copied: _Floats  # bytes of each copy
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
    """The memory and the time of a plan by the sizes of its labels.

    `copies` are terms of what is copied, part by part, each with the step for which it is; None for all steps. But for
    these, arrays lie as each step wants them.
    """

    def __init__(self, plan: Plan, profile: Profile, copies: Sequence[Copy] = ()) -> None:
        self.plan, self.profile, self.copies = plan, profile, copies
        self.item = item_bytes(plan.dtype)
        self.size = dict(plan.sizes)
        self.operands, steps = len(plan.inputs), len(plan.steps)
        self.labels = {label: number for number, label in enumerate(self.size)}
        parts = [_parts(step, self.plan) for step in plan.steps]
        self.roles = np.array([[self._has(labels) for labels in part] for part in parts], bool)
        self.is_pair = [isinstance(step, Contract) for step in plan.steps]
        self.is_view = [step.is_view(self.size) for step in plan.steps]
        self.out = np.array([self._has(step.out) for step in plan.steps], bool)
        self.copied, self.copied_at = self._places(copies)
        self.above = self._above()
        self.ends = self._ends()
        self.is_output = np.zeros(steps, bool)
        self.is_output[[output - self.operands for output in plan.outputs if output >= self.operands]] = True
        reads = [(number, source - self.operands) for number, step in enumerate(plan.steps) for source in step.sources]
        self.readers, self.sources = np.array([pair for pair in reads if pair[1] >= 0], int).reshape(-1, 2).T
        self.sliceable = sliceable_labels(plan)
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
        copied = np.where(self.copied, np.array([*self.size.values()], float), 1.0).prod(axis=1) * self.item
        return self._complete({}, nbytes, copied, dims, seconds, np.zeros(len(seconds), int))

    def with_copies(self, copies: Sequence[Copy]) -> BlockModel:
        """The model with these copies instead of its own."""
        made = copy.copy(self)
        made.copies = copies
        made.copied, made.copied_at = self._places(copies)
        made.__dict__.pop("start", None)
        return made

    def _places(self, copies: Sequence[Copy]) -> tuple[_Bools, _Counts]:
        """The labels of each copy, and its step, or the number of steps for a copy that is there for all of them."""
        labels = np.array([self._has(term) for _, term in copies], bool).reshape(len(copies), len(self.labels))
        return labels, np.array([len(self.plan.steps) if at is None else at for at, _ in copies], int)

    @property
    def peak(self) -> float:
        """Bytes without slices."""
        return self.start.peak

    def block(self, state: State, label: Label) -> int:
        """How many values of a label a slice has."""
        return state.blocks.get(label, self.size[label])

    def with_block(self, state: State, label: Label, block: int) -> State:
        """The state with a block of another length."""
        number, size, before = self.labels[label], self.size[label], self.block(state, label)
        factor = block / before
        nbytes = np.where(self.out[:, number], state.bytes * factor, state.bytes)
        copied = np.where(self.copied[:, number], state.copied * factor, state.copied)
        dims = np.where(self.roles[:, :, number], state.dims * factor, state.dims)
        seconds = state.seconds.copy()
        for step in self._touched(number):
            seconds[step] = self._seconds(step, dims[step])
        above = state.above + (int(block < size) - int(before < size)) * self.above[:, number]
        blocks = {each: length for each, length in state.blocks.items() if each != label}
        return self._complete(blocks | ({label: block} if block < size else {}), nbytes, copied, dims, seconds, above)

    def _complete(
        self,
        blocks: dict[Label, int],
        nbytes: _Floats,
        copied: _Floats,
        dims: _Floats,
        seconds: _Floats,
        above: _Counts,
    ) -> State:
        """The state of these sizes, with the bytes that are alive when each step runs, and all seconds."""
        count = math.prod([float(-(-self.size[label] // block)) for label, block in blocks.items()])
        depends = above > 0
        whole, results = ~depends, self.is_output & depends
        is_read = np.zeros(len(depends), bool)
        is_read[self.sources[depends[self.readers]]] = True
        kept = whole & (self.is_output | is_read)
        in_slices = np.where(depends, self.alive(np.where(depends, nbytes, 0.0)) + nbytes[kept].sum(), 0.0)
        before = self.alive(np.where(whole & ~kept, nbytes, 0.0))
        first = np.where(whole, before + np.cumsum(np.where(kept, nbytes, 0.0)), 0.0)
        adding = sum(pass_seconds(self.profile, 3 * part) for part in nbytes[results])
        each = seconds[depends].sum() + adding + _SLICE if depends.any() else 0.0
        total = float(seconds[whole].sum() + (count * each if each else 0.0))
        copies = np.bincount(self.copied_at, copied, len(depends) + 1)
        alive = in_slices + first + self._result_bytes[results].sum() + copies[:-1] + copies[-1]
        return State(blocks, nbytes, copied, dims, seconds, above, kept, alive, count, max(total, 1e-12))

    def alive(self, nbytes: _Floats) -> _Floats:
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


def _parts(step: Step, plan: Plan) -> tuple[Term, Term, Term, Term]:
    """Labels whose sizes decide how long a step takes: a pair's roles; of others those of their source and result."""
    if isinstance(step, Contract):
        return step.batch, step.left, step.right, step.summed
    sources = [plan.term(source) for source in step.sources]
    return sources[0] if sources else "", step.out, "", ""
