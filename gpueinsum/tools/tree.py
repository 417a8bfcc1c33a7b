"""From a plan's registers to the lines of its contraction tree: children above their parent, side by side in lanes."""

from __future__ import annotations

from typing import NamedTuple

from gpueinsum.language.plan import Registers


class Line(NamedTuple):
    """A register, whether an earlier line shows it, the numbers of its sources' lines, and its lane."""

    register: int
    is_again: bool
    children: tuple[int, ...]
    lane: int


def tree(registers: Registers) -> list[Line]:
    """A line for each register, and one more for each time that it is read again: so every plan is a tree.

    Of a step's sources the one that needs most lanes comes first: a tree of pairs then needs log2(operands) lanes at
    the most, however deep it is (Sethi and Ullman, J. ACM 17, 1970).

    >>> from gpueinsum.api.einsum import einsum_plan
    >>> [(line.register, line.lane) for line in tree(einsum_plan("ij,jk,kl->il", (9, 9), (9, 8), (8, 7)))]
    [(1, 0), (2, 1), (3, 0), (0, 1), (4, 0)]
    """
    operands = len(registers.inputs)
    sources: list[tuple[int, ...]] = [*[()] * operands, *[step.sources for step in registers.steps]]
    lanes: list[int] = []  # that each register needs
    for read in sources:
        beside = enumerate(sorted([lanes[source] for source in read], reverse=True))
        lanes.append(max((number + needed for number, needed in beside), default=1))
    unread = {*range(len(sources))}.difference(*sources)
    lines: list[Line] = []
    shown: set[int] = set()
    ends: list[int] = []  # lines whose parents are to come, one in each lane
    waiting = [(register, False) for register in sorted(unread, key=lambda register: (register >= operands, -register))]
    while waiting:
        register, has_children = waiting.pop()
        is_again = register in shown
        if sources[register] and not (has_children or is_again):
            order = sorted(sources[register], key=lanes.__getitem__, reverse=True)
            waiting += [(register, True), *[(source, False) for source in reversed(order)]]
            continue
        lane = len(ends) - (len(sources[register]) if has_children else 0)
        lines.append(Line(register, is_again, tuple(ends[lane:]), lane))
        shown.add(register)
        del ends[lane:]
        if register not in unread:
            ends.append(len(lines) - 1)
    return lines
