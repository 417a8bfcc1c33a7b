"""Better orders from an order: subtrees of a contraction tree solved exactly, and moves at random that get colder."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import lru_cache
from random import Random
from time import perf_counter

from gpueinsum.language.subscripts import Label, Term
from gpueinsum.planning.path import Path
from gpueinsum.planning.tree import KEPT, Labels, PairSeconds, Price, Tree

# Subtrees of 8 leaves took an Ising model of 288 tensors from 2.4 s to 0.24 s, in 0.8 s of search; of 6 to 0.28 s in
# 0.13 s, of 10 to 0.23 s in 2.8 s. Outer products between any leaves: half the speed, and no order that was better.
_LEAVES, OUTER = 8, 6
_NOISE = 1e-9  # of a sum in another order of the same seconds
# Of the temperature: from 0.5 to 0.1 gave the best orders of a circuit, a graph and a PEPS, beside 2, 1, 0.25 and 0.03.
_HOT, _COLD = 0.5, 0.1


def refine(
    inputs: Sequence[Term], output: Term, sizes: Mapping[Label, int], path: Path, price: Price, end: float
) -> Path:
    """A path that takes no more seconds by `price`, a pair's by its sizes of batch, rows, columns and sum.

    Terms have distinct labels. The search ends at `end`, a time of `time.perf_counter`, if not before.
    """
    tree = Tree(inputs, output, sizes, path, lru_cache(KEPT)(price))
    refine_tree(tree, end)
    return tree.path()


def refine_tree(tree: Tree, end: float, leaves: int = _LEAVES) -> None:
    """Replace subtrees of so many leaves by the best there are, until none is left that is worse, or until `end`."""
    solved: set[tuple[int, ...]] = set()
    is_better = True
    while is_better:
        is_better = False
        for root in sorted(tree.downward(), key=tree.node_seconds, reverse=True):
            if perf_counter() > end:
                return
            inner, cut = _subtree(tree, root, leaves)
            key = (tree.labels[root], *sorted(tree.labels[node] for node in cut))
            if key not in solved:
                is_better |= _solve(tree, inner, cut)
                solved.add(key)


def _subtree(tree: Tree, root: int, leaves: int) -> tuple[list[int], list[int]]:
    """The results and the leaves of a subtree: of its leaves that is opened which takes the most seconds."""
    inner, cut = [root], list(tree.children[root])
    while len(cut) < leaves:
        node = max((x for x in cut if not tree.is_operand(x)), key=tree.node_seconds, default=None)
        if node is None:
            break
        cut.remove(node)
        inner.append(node)
        cut += tree.children[node]
    return inner, cut


def _solve(tree: Tree, inner: Sequence[int], cut: Sequence[int]) -> bool:
    """Contract the leaves of a subtree, `cut`, in their best order; whether that is better than what was there."""
    labels = _labels_of_sets([tree.labels[node] for node in cut], tree.labels[inner[0]])
    limit = (1 - _NOISE) * sum(map(tree.node_seconds, inner))
    sides = _best_sides(labels, tree.pair_seconds, limit)
    root, *free = inner
    stack = [(root, len(labels) - 1)] if sides[-1] else []
    while stack:
        node, leaves = stack.pop()
        pair = []
        for part in (leaves ^ sides[leaves], sides[leaves]):
            if part & part - 1:
                pair.append(free.pop())
                stack.append((pair[-1], part))
            else:
                pair.append(cut[part.bit_length() - 1])
        tree.children[node], tree.labels[node] = (pair[0], pair[1]), labels[leaves]
    return bool(sides[-1])


def _labels_of_sets(leaves: Sequence[Labels], kept: Labels) -> list[Labels]:
    """Of the array that each set of these leaves, a bitmap, is contracted to, where all of them keep `kept`."""
    union: list[Labels] = [0]
    for labels in leaves:
        union += [labels | others for others in union]
    return [inside & (outside | kept) for inside, outside in zip(union, reversed(union), strict=True)]


def _best_sides(labels: Sequence[Labels], pair_seconds: PairSeconds, limit: float) -> list[int]:
    """Dynamic programming over sets of leaves: of each set one side of its best pair; 0 if none is within `limit`.

    Of many leaves that share labels no outer products are tried.
    """
    count = len(labels).bit_length() - 1
    has_outer = count <= OUTER or not _is_connected([labels[1 << leaf] for leaf in range(count)])
    seconds, sides = [math.inf] * len(labels), [0] * len(labels)
    for leaves in range(1, len(labels)):
        others = rhs = leaves & leaves - 1
        if not others:
            seconds[leaves] = 0.0
        while rhs:  # all subsets of the others
            lhs = leaves ^ rhs
            both = seconds[lhs] + seconds[rhs]
            least = min(limit, seconds[leaves])
            if both < least and (has_outer or labels[lhs] & labels[rhs]):
                both += pair_seconds(labels[lhs], labels[rhs], labels[leaves])
                if both < least:
                    seconds[leaves], sides[leaves] = both, rhs
            rhs = rhs - 1 & others
    return sides


def _is_connected(leaves: Sequence[Labels]) -> bool:
    """Whether each of these arrays shares labels with others, by which it is joined to all."""
    joined, *others = leaves
    while others:
        apart = [labels for labels in others if not labels & joined]
        if len(apart) == len(others):
            return False
        for labels in others:
            joined |= labels if labels & joined else 0
        others = apart
    return True


def anneal(tree: Tree, rng: Random, sweeps: int, end: float) -> None:
    """Exchange at random a node's sibling with one of its children, ever less often where that takes longer.

    Of ((x, y), z) are made ((x, z), y) and ((y, z), x).
    """
    children, labels, seconds_of = tree.children, tree.labels, tree.pair_seconds
    random = rng.random
    for sweep in range(sweeps):
        if perf_counter() > end:
            return
        temperature = _HOT * (_COLD / _HOT) ** (sweep / max(sweeps - 1, 1))
        for root in tree.downward():
            node, z = children[root]
            if node < tree.operands or (z >= tree.operands and random() < 0.5):
                node, z = z, node
            if node < tree.operands:
                continue
            x, y = children[node]
            if random() < 0.5:
                x, y = y, x
            top, lx, ly, lz = labels[root], labels[x], labels[y], labels[z]
            new = (lx | lz) & (ly | top)
            before = seconds_of(lx, ly, labels[node]) + seconds_of(labels[node], lz, top)
            after = seconds_of(lx, lz, new) + seconds_of(new, ly, top)
            if after <= before or random() < (before / after) ** (1 / temperature):
                children[node], children[root] = (x, z), (node, y)
                labels[node] = new
