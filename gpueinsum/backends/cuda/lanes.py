"""Launches side by side: from what each takes and touches to its lane, its turn and what it waits for; holds no array.

A lane is a stream: lane 0 the caller's, and up to three more. Launches of one lane run in their order; one that needs
what another lane made waits for an event there.
"""

from __future__ import annotations

import heapq
from bisect import bisect_right
from collections.abc import Sequence
from typing import NamedTuple

LANES = 4
# Lanes must save a tenth of the time in turn: predictions are no better than that.
MUST_SAVE = 0.9
# Seconds by which a launch starts later if it waits for one of another lane and not of its own. By reasoning, a quarter
# of what an H200 takes for a launch (profiles/h200.json), since the device alone is at work; not measured yet.
_HANDOVER = 1e-6


class Item(NamedTuple):
    """A launch as far as its turn depends on it."""

    seconds: float  # on the device
    share: float  # of the device that it fills meanwhile, 1 for all of it
    after: Sequence[int]  # the launches that it must not overtake


class Lanes(NamedTuple):
    """The launches in the order in which they are issued, and the lane of each."""

    order: tuple[int, ...]
    lanes: tuple[int, ...]


class Start(NamedTuple):
    """Where and when a launch runs: its lane, and the launches of other lanes that it waits for."""

    lane: int
    after: tuple[int, ...]


class Use(NamedTuple):
    """Bytes of a memory that a launch reads or writes."""

    memory: int
    start: int
    end: int
    is_written: bool


# ---------------------------------------------------------------- what must come after what


def hazards(uses: Sequence[Sequence[Use]]) -> list[list[int]]:
    """Of each launch, those before it that it must not overtake: who wrote what it touches, who read what it writes.

    Only the last writer of a byte, and its readers since, are named: what came before is before them.

    >>> read, write = Use(0, 0, 8, False), Use(0, 0, 8, True)
    >>> hazards([[write], [read], [read], [write], [write]])
    [[], [0], [0], [0, 1, 2], [3]]
    """
    memories: dict[int, list[_Stretch]] = {}
    found = []
    for turn, touched in enumerate(uses):
        before: set[int] = set()
        for memory, start, end, is_written in touched:
            stretches = memories.setdefault(memory, [_Stretch(0, None, [])])
            first, last = _cut(stretches, start), _cut(stretches, end)
            for stretch in stretches[first:last]:
                if stretch.writer is not None:
                    before.add(stretch.writer)
                if is_written:
                    before.update(stretch.readers)
                else:
                    stretch.readers.append(turn)
            if is_written:
                stretches[first:last] = [_Stretch(start, turn, [])]
        before.discard(turn)  # a launch may read what it writes
        found.append(sorted(before))
    return found


class _Stretch(NamedTuple):
    """Bytes from here to the next stretch: who wrote them last, and who has read them since."""

    start: int
    writer: int | None
    readers: list[int]


def _cut(stretches: list[_Stretch], at: int) -> int:
    """The number of the stretch that begins there, which the one around it is cut in two for."""
    number = bisect_right(stretches, at, key=lambda stretch: stretch.start) - 1
    around = stretches[number]
    if around.start == at:
        return number
    stretches.insert(number + 1, around._replace(start=at, readers=[*around.readers]))
    return number + 1


def starts(after: Sequence[Sequence[int]], lanes: Sequence[int]) -> tuple[list[Start], list[tuple[int, ...]]]:
    """What each launch waits for on other lanes, so that it comes after those that it must not overtake.

    Beside it of each launch, by lane, the last launch that is certain to have ended before it starts (-1: none). It
    waits for nothing that is certain without: a launch of its lane, or one before another that it waits for.
    """
    found: list[Start] = []
    ended: list[tuple[int, ...]] = []
    last = [-1] * LANES
    for turn, (before, lane) in enumerate(zip(after, lanes, strict=True)):
        known = [-1] * LANES
        if last[lane] >= 0:
            known = [*ended[last[lane]]]
            known[lane] = last[lane]
        waits = []
        for other in sorted(before, reverse=True):  # the latest makes most others certain
            if known[lanes[other]] < other:
                waits.append(other)
                known = [*map(max, known, ended[other])]
                known[lanes[other]] = other
        found.append(Start(lane, tuple(sorted(waits))))
        ended.append(tuple(known))
        last[lane] = turn
    return found, ended


# ---------------------------------------------------------------- which lanes, in which order


def side_by_side(items: Sequence[Item], launch: float) -> Lanes | None:
    """The launches on lanes, where that saves a tenth of their time in turn; `launch` seconds are the host's for each.

    Within a CUDA graph the host takes none. Launches run side by side only as far as their shares add up to one: past
    that, each would take longer. None where one lane is as good.
    """
    must_take = MUST_SAVE * _seconds_in_turn(items, launch)
    ahead = _seconds_to_the_end(items)
    filled = sum(item.seconds * item.share for item in items)
    if not items or max(filled, launch * len(items), *ahead) > must_take:  # however they are scheduled
        return None
    lanes, seconds = _scheduled(items, ahead, launch)
    return lanes if seconds <= must_take and any(lanes.lanes) else None


def _seconds_in_turn(items: Sequence[Item], launch: float) -> float:
    issued = ended = 0.0
    for item in items:
        issued += launch
        ended = max(ended, issued) + item.seconds
    return ended


def _seconds_to_the_end(items: Sequence[Item]) -> list[float]:
    """Of each launch, the longest chain of launches that wait for each other from its start on."""
    ahead = [0.0] * len(items)
    for number in reversed(range(len(items))):
        ahead[number] += items[number].seconds
        for before in items[number].after:
            ahead[before] = max(ahead[before], ahead[number])
    return ahead


def _scheduled(items: Sequence[Item], ahead: Sequence[float], launch: float) -> tuple[Lanes, float]:
    """List scheduling: as soon as there is room, that launch which has the longest way to the end. And its seconds."""
    followers: list[list[int]] = [[] for _ in items]
    for number, item in enumerate(items):
        for before in item.after:
            followers[before].append(number)
    missing = [len(item.after) for item in items]
    ready = [(-ahead[number], number) for number, count in enumerate(missing) if not count]
    heapq.heapify(ready)
    running: list[tuple[float, int]] = []  # ends, launch
    ends, lane_of = [0.0] * len(items), [0] * len(items)
    latest: list[int | None] = [None] * LANES
    order: list[int] = []
    now = issued = filled = 0.0
    while len(order) < len(items):
        now = max(now, issued + launch)
        while running and running[0][0] <= now:
            _, ended = heapq.heappop(running)
            filled -= items[ended].share
            for follower in followers[ended]:
                missing[follower] -= 1
                if not missing[follower]:
                    heapq.heappush(ready, (-ahead[follower], follower))
        if not ready or (running and (filled + items[ready[0][1]].share > 1 or len(running) == LANES)):
            now = running[0][0]
            continue
        _, number = heapq.heappop(ready)
        item, busy = items[number], {lane_of[other] for _, other in running}
        lane = _lane(item, [lane for lane in range(LANES) if lane not in busy], latest, lane_of)
        across = [other for other in item.after if lane_of[other] != lane]
        events = len(across) + (lane > 0 and latest[lane] is None)  # each costs the host as much as a launch
        issued += launch * (1 + events)
        start = max(now, issued, *[ends[other] + _HANDOVER for other in across], _HANDOVER if events else 0.0)
        ends[number], lane_of[number], latest[lane] = start + item.seconds, lane, number
        heapq.heappush(running, (ends[number], number))
        filled += item.share
        order.append(number)
    joins = sum(last is not None for last in latest[1:])
    seconds = max(issued, *ends) + (launch * joins + _HANDOVER if joins else 0.0)
    return Lanes(tuple(order), tuple([lane_of[number] for number in order])), seconds


def _lane(item: Item, free: Sequence[int], latest: Sequence[int | None], lane_of: Sequence[int]) -> int:
    """The lane whose last launch this one needs, so that it waits for nothing; else the first that is free."""
    for before in sorted(item.after, reverse=True):
        if lane_of[before] in free and latest[lane_of[before]] == before:
            return lane_of[before]
    return free[0]
