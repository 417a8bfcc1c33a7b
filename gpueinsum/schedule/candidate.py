"""A way to run one step, with its layout, scratch memory and price."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from gpueinsum.costs.counts import item_bytes
from gpueinsum.language.steps import distinct, within, without
from gpueinsum.language.strides import label_strides, points
from gpueinsum.language.subscripts import Label, Term
from gpueinsum.schedule.mapping import LINE, MEMORY_MUST_SAVE, Gemm
from gpueinsum.schedule.problem import Problem, Strides, c_strides
from gpueinsum.schedule.tiled import Tiled

_WARP = 32  # threads that read at once
LINE_BYTES = {"cpu": LINE, "cuda": 32}  # bytes that memory gives at once: a line of a cache, a sector of one


@dataclass(frozen=True, slots=True)
class View:
    """The source's memory seen through other strides; nothing is computed."""

    name = "view"


@dataclass(frozen=True, slots=True)
class Zeros:
    """A result of zeros: what is summed has no elements."""

    name = "zeros"


@dataclass(frozen=True, slots=True)
class Pass:
    """One loop over all labels, which are listed outermost first, the summed ones last.

    On the CPU so many `threads` share a sum, each a part of the range of the result's label `shared`. On a GPU arrays
    that lie across the others may be copied first, each to one of the terms `copies`.
    """

    loops: Term
    threads: int = 1
    shared: Label = ""
    copies: tuple[Term | None, ...] = ()

    @property
    def name(self) -> str:
        return "one pass after a copy" if any(self.copies) else "one pass"


@dataclass(frozen=True, slots=True)
class Matmul:
    """On the CPU: one `np.matmul` of arrays of any strides, each seen with one axis for each role, copied if need be.

    The result's labels are written in the order `out`. A product of integers is that of floats where these hold every
    sum, else a loop.
    """

    out: Term
    name = "one product"


@dataclass(frozen=True, slots=True)
class Scatter:
    """Zeros, and the source written along the diagonals of labels that the result repeats."""

    name = "scatter"


@dataclass(frozen=True, slots=True)
class Sum:
    """Arrays of one term added up, or zeros if there are none."""

    name = "sum"


@dataclass(frozen=True, slots=True)
class Blocks:
    """On the CPU: the step in blocks of a label's range, so that what each reads, copies and writes stays in cache.

    Each block is of `step` elements and run in the way `block`; the last may be shorter, and is run in the way `rest`.
    Blocks of a summed label add up.
    """

    label: Label
    step: int
    block: Way
    rest: Way | None

    @property
    def name(self) -> str:
        return f"in blocks, {self.block.name}"


Way = View | Zeros | Pass | Matmul | Gemm | Tiled | Blocks | Scatter | Sum


class Candidate(NamedTuple):
    """A way to run a step: the strides of its result in elements, bytes that it takes for itself, predicted seconds."""

    way: Way
    strides: Strides
    scratch: int
    seconds: float

    @property
    def copies(self) -> int:
        """How many sides are copied first, all at once or in blocks."""
        way = self.way.block if isinstance(self.way, Blocks) else self.way
        return sum(term is not None for term in way.copies) if isinstance(way, Gemm | Pass) else 0

    @property
    def weight(self) -> float:
        """Seconds, and more for what takes memory: a copy must save a twentieth of the time."""
        return self.seconds * MEMORY_MUST_SAVE**self.copies


def result_strides(problem: Problem, layout: Term) -> Strides:
    """Of a result whose labels lie in memory in this order, the outermost first."""
    return in_order(layout, problem.out, problem.size)


def in_order(layout: Term, out: Term, size: Mapping[Label, int]) -> Strides:
    own = c_strides(layout, size)
    if layout == out:
        return own
    strides = dict(zip(layout, own, strict=True))
    return tuple([strides[label] for label in out])


def pass_layouts(problem: Problem) -> list[Term]:
    """Orders in which a pass may write the result: as it is asked for; with the largest array's labels in the order in
    which they lie there; these last of all.
    """
    if problem.is_ordered:
        return [problem.out]
    # A problem's letters follow the memory of its largest array.
    own = "".join(sorted(within(problem.out, problem.terms[0])))
    turns = iter(own)
    merged = "".join([next(turns) if label in problem.terms[0] else label for label in problem.out])
    return list(dict.fromkeys([merged, without(problem.out, own) + own]))


def elements_moved(problem: Problem) -> int:
    """Elements of the arrays, diagonals counted once, and of the result."""
    return sum(points(distinct(term), problem.size) for term in problem.terms) + problem.elements[-1]


def read_beside(problem: Problem) -> int:
    """Elements that come from memory with those of a diagonal, which has no neighbours in a line of memory.

    `ijki->jk` of 128 each, float64, took 10 ms on a core of an AMD EPYC: predicted 1.3 without, 8.3 with these.
    """
    line, total = max(LINE_BYTES[problem.profile.kind] // item_bytes(problem.dtype), 1), 0
    for term, own in zip(problem.terms, problem.strides, strict=True):
        once = distinct(term)
        if len(once) < len(term):
            apart = min(map(abs, label_strides(term, own).values()))
            total += max(min(apart, line) - 1, 0) * points(once, problem.size)
    return total


def sectors_touched(loops: Sequence[tuple[int, int]], item: int, threads: int = _WARP) -> float:
    """The sectors of memory that elements lie in, over those that they would fill.

    Each of so many threads of a GPU reads one. Neighbouring threads go along loops of these sizes and strides, the
    innermost first.

    >>> sectors_touched([(100, 1), (100, 100)], 4), sectors_touched([(100, 100), (100, 1)], 4)
    (1.0, 8.0)
    """
    offsets, sector = [0], LINE_BYTES["cuda"]
    for size, stride in loops:
        offsets = [offset + step * stride for step in range(min(size, threads)) for offset in offsets][:threads]
        if len(offsets) == threads:
            break
    touched = {offset * item // sector for offset in offsets}
    return len(touched) / max(1, math.ceil(len({*offsets}) * item / sector))
