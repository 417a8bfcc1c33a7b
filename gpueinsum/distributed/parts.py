"""What batches of slices give: the part of each result that is not zero, and the sums of these by a fixed tree."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from gpueinsum.language.slices import Slices
from gpueinsum.language.subscripts import Shape

Array = np.ndarray[Any, Any]
Node = tuple[int, int]  # level k and number j in the tree: the sum of the batches j * 2**k to (j + 1) * 2**k - 1


class Part(NamedTuple):
    """A box of a larger array that is zero around it: the index of its first element, and its values."""

    corner: tuple[int, ...]
    values: Array

    @property
    def box(self) -> tuple[slice, ...]:
        return tuple([slice(low, low + n) for low, n in zip(self.corner, self.values.shape, strict=True)])

    def whole(self, shape: Shape) -> Array:
        """The array of this shape that it is a part of."""
        if self.values.shape == shape:
            return np.require(self.values, requirements="W")  # engines may hand out memory that is read-only
        array = np.zeros(shape, self.values.dtype)
        array[self.box] = self.values
        return array


Parts = tuple[Part | None, ...]  # of each array; None of one that is all zeros


def summed_arrays(slices: Slices) -> list[tuple[Shape, np.dtype[Any]]]:
    """Shape and dtype of what batches give parts of: the results, and the outputs that are the same in all slices."""
    dtype = np.dtype(slices.zeros.dtype)
    results = [slices.zeros.shape(register) for register in slices.zeros.outputs]
    same = [slices.once.shape(register) for register in slices.once.outputs[slices.frontier :]]
    return [(shape, dtype) for shape in [*results, *same]]


def boxes(slices: Slices, numbers: range) -> Iterator[tuple[slice, ...] | None]:
    """The part of each result that these slices add to; None of one that they leave as it is."""
    values = slices.values_of(numbers) if numbers else {}
    size = dict(slices.zeros.sizes)
    for register, repeated in zip(slices.zeros.outputs, slices.repeated, strict=True):
        is_added = numbers and not any(values[label].start for label in repeated)
        term = slices.zeros.term(register)
        yield tuple([values.get(label, slice(0, size[label])) for label in term]) if is_added else None


def add(left: Parts, right: Parts) -> Parts:
    """The sums of arrays, of their parts."""
    return tuple([_add(*pair) for pair in zip(left, right, strict=True)])


def _add(left: Part | None, right: Part | None) -> Part | None:
    if left is None or right is None:
        return right if left is None else left
    corner = tuple(map(min, left.corner, right.corner))
    stops = [max(x.stop, y.stop) for x, y in zip(left.box, right.box, strict=True)]
    total = np.zeros([stop - low for low, stop in zip(corner, stops, strict=True)], left.values.dtype)
    for part in (left, right):
        inside = tuple([slice(x.start - low, x.stop - low) for x, low in zip(part.box, corner, strict=True)])
        total[inside] += part.values
    return Part(corner, total)


class Sums:
    """Partial sums of batches that come in any order: siblings in a binary tree are added as soon as both are there.

    The tree depends on the number of batches alone, and so do the bits of the sum. Of n batches that come about in
    their order no more than log2(n) sums are alive.
    """

    def __init__(self, batches: int) -> None:
        self.batches = batches
        self.nodes: dict[Node, Parts] = {}  # of which none is above another

    def insert(self, node: Node, parts: Parts) -> None:
        """A node, no part of which is there."""
        level, number = node
        while self._width(level) > 1:
            if number ^ 1 < self._width(level):  # else it has no sibling, and is the node above, too
                sibling = self.nodes.pop((level, number ^ 1), None)
                if sibling is None:
                    break
                parts = add(sibling, parts) if number & 1 else add(parts, sibling)
            level, number = level + 1, number >> 1
        self.nodes[level, number] = parts

    def _width(self, level: int) -> int:
        """How many nodes a level has."""
        return -(-self.batches >> level)

    def batches_of(self, node: Node) -> range:
        level, number = node
        return range(number << level, min((number + 1) << level, self.batches))

    def missing(self) -> list[int]:
        """The batches that are in no node."""
        there = {batch for node in self.nodes for batch in self.batches_of(node)}
        return [batch for batch in range(self.batches) if batch not in there]

    def total(self) -> Parts:
        """The sum of all batches, when all are there."""
        [parts] = self.nodes.values()
        return parts


def batch_of(slices: Slices, number: int, batches: int) -> range:
    """The numbers of the slices in one of so many batches."""
    return range(slices.count * number // batches, slices.count * (number + 1) // batches)


def count_slices(slices: Slices, sums: Sums) -> int:
    """How many slices are in the sums."""
    ends = [(inside[0], inside[-1]) for inside in map(sums.batches_of, sums.nodes)]
    return sum(
        batch_of(slices, last, sums.batches).stop - batch_of(slices, first, sums.batches).start for first, last in ends
    )
