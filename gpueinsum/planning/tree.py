"""A contraction tree: an order of contraction as nodes, the labels of each as bits of an integer, priced by pairs."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache

from gpueinsum.language.subscripts import Label, Term
from gpueinsum.planning.path import Path

Labels = int  # a set of labels, a bit for each
Price = Callable[[int, int, int, int], float]  # seconds of a pair by its sizes of batch, rows, columns and sum
PairSeconds = Callable[[Labels, Labels, Labels], float]  # of both sides and the result

KEPT = 1 << 16  # pairs whose seconds are remembered, and sizes of pairs
_MOST = 1 << 200  # elements that a role counts as; a float holds the product of three


class Tree:
    """Node k is operand k for k < `operands`; any other is the result of its two `children`; the last is the root.

    `labels` are those of each node that the rest of the network, or the output, still needs. `pair_seconds` prices a
    pair by the labels of its sides and of its result.
    """

    def __init__(
        self, inputs: Sequence[Term], output: Term, sizes: Mapping[Label, int], path: Path, price: Price
    ) -> None:
        """The tree of a path over all operands; a step over more than two of them goes in pairs from the left."""
        bits = {label: 1 << k for k, label in enumerate(dict.fromkeys("".join(inputs)))}
        self.operands = len(inputs)
        self.children: list[tuple[int, int]] = [(-1, -1)] * self.operands
        left = list(range(self.operands))
        for step in path:
            node, *others = (left[position] for position in step)
            for position in sorted(step, reverse=True):
                del left[position]
            for other in others:
                self.children.append((node, other))
                node = len(self.children) - 1
            left.append(node)
        terms = [sum(bits[label] for label in term) for term in inputs]
        self.labels = _needed_labels(terms, sum(bits.get(label, 0) for label in output), self.children)
        self._groups = _labels_by_size({bit: sizes[label] for label, bit in bits.items()})
        self._price = price
        self.pair_seconds: PairSeconds = lru_cache(KEPT)(self._pair_seconds)

    @property
    def root(self) -> int:
        return len(self.children) - 1

    def is_operand(self, node: int) -> bool:
        return node < self.operands

    def node_seconds(self, node: int) -> float:
        """Of the pair that makes a node."""
        lhs, rhs = self.children[node]
        return self.pair_seconds(self.labels[lhs], self.labels[rhs], self.labels[node])

    def seconds(self) -> float:
        return sum(map(self.node_seconds, range(self.operands, len(self.children))))

    def downward(self) -> list[int]:
        """The nodes that are no operands, parents before children."""
        found, stack = [], [self.root]
        while stack:
            node = stack.pop()
            if node >= self.operands:
                found.append(node)
                stack += self.children[node]
        return found

    def path(self) -> Path:
        """The pairs from the operands up, and of each pair that side first by which less memory is needed at a time.

        That is counted in elements of results, since operands are there all the time.
        """
        kept = [0 if self.is_operand(node) else self.size(labels) for node, labels in enumerate(self.labels)]
        peak = [0] * len(kept)
        first = self.children.copy()
        for node in reversed(self.downward()):
            x, y = self.children[node]
            x_first, y_first = max(peak[x], kept[x] + peak[y]), max(peak[y], kept[y] + peak[x])
            first[node] = (x, y) if x_first <= y_first else (y, x)
            peak[node] = max(min(x_first, y_first), kept[x] + kept[y] + kept[node])
        return _path_of(first, self.operands)

    def size(self, labels: Labels) -> int:
        number = 1
        for size, group in self._groups:
            number *= size ** (labels & group).bit_count()
        return min(number, _MOST)

    def _pair_seconds(self, lhs: Labels, rhs: Labels, out: Labels) -> float:
        shared = lhs & rhs
        roles = shared & out, lhs ^ shared, rhs ^ shared, shared & ~out
        return self._price(*map(self.size, roles))


def _needed_labels(terms: Sequence[Labels], output: Labels, children: Sequence[tuple[int, int]]) -> list[Labels]:
    """A node needs, of the labels of the operands below it, those that its parent needs and those of its sibling."""
    below = list(terms)
    for lhs, rhs in children[len(terms) :]:  # children come before parents
        below.append(below[lhs] | below[rhs])
    needed = [output] * len(below)
    for node in reversed(range(len(terms), len(below))):
        lhs, rhs = children[node]
        needed[lhs], needed[rhs] = needed[node] | below[rhs], needed[node] | below[lhs]
    return [labels & wanted for labels, wanted in zip(below, needed, strict=True)]


def _labels_by_size(sizes: Mapping[Labels, int]) -> list[tuple[int, Labels]]:
    """Each size above 1, with all labels of it."""
    groups: dict[int, Labels] = {}
    for label, size in sizes.items():
        if size > 1:
            groups[size] = groups.get(size, 0) | label
    return list(groups.items())


def _path_of(children: Sequence[tuple[int, int]], operands: int) -> Path:
    """The pairs of a tree from the operands up, first children first, as positions among the operands left."""
    if operands == 1:
        return ((0,),)
    path: list[tuple[int, ...]] = []
    made = list(range(len(children)))  # when each node is there; results are numbered as they are made
    left = list(range(operands))
    stack = [(len(children) - 1, False)]
    while stack:
        node, has_children = stack.pop()
        if node < operands:
            continue
        if not has_children:
            x, y = children[node]
            stack += [(node, True), (y, False), (x, False)]
            continue
        first, last = sorted(bisect_left(left, made[child]) for child in children[node])
        path.append((first, last))
        del left[last], left[first]
        made[node] = operands + len(path) - 1
        left.append(made[node])
    return tuple(path)
