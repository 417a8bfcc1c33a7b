"""Lanes: what must not overtake what, what waits for what, and where launches side by side are predicted to pay."""

import itertools

import numpy as np
import pytest

from gpueinsum.backends.cuda import lanes
from gpueinsum.backends.cuda.lanes import LANES, Item, Use, hazards, side_by_side, starts

LAUNCH = 4e-6


def random_uses(rng, count, memories=2, length=20):
    """What so many launches touch: up to three stretches of a few bytes."""
    found = []
    for _ in range(count):
        uses = []
        for _ in range(rng.integers(1, 4)):
            start, end = sorted(map(int, rng.choice(length, 2, replace=False)))
            uses.append(Use(int(rng.integers(memories)), start, end, bool(rng.random() < 0.4)))
        found.append(uses)
    return found


def conflicts(uses):
    """All pairs of launches that touch a byte which one of them writes."""
    return {
        (earlier, later)
        for earlier, later in itertools.combinations(range(len(uses)), 2)
        for one, other in itertools.product(uses[earlier], uses[later])
        if one.memory == other.memory and (one.is_written or other.is_written)
        if one.start < other.end and other.start < one.end
    }


def certain(edges, count):
    """All pairs of launches of which one comes after the other, given such pairs."""
    before = [set() for _ in range(count)]
    for later in range(count):
        for one, other in edges:
            if other == later:
                before[later] |= {one} | before[one]
    return {(one, other) for other in range(count) for one in before[other]}


def in_lanes(found):
    """What is certain by the lanes' own order and by what they wait for."""
    edges = {(other, number) for number, start in enumerate(found) for other in start.after}
    edges |= {(a, b) for a, b in itertools.combinations(range(len(found)), 2) if found[a].lane == found[b].lane}
    return edges


@pytest.mark.parametrize("seed", range(20))
def test_hazards_order_what_touches_the_same_bytes_and_nothing_else(seed):
    uses = random_uses(np.random.default_rng(seed), 30)
    pairs, found = conflicts(uses), hazards(uses)
    direct = {(other, number) for number, before in enumerate(found) for other in before}
    assert direct <= pairs <= certain(direct, len(uses))


def test_reads_may_overtake_each_other_and_parts_apart_may_be_written_at_once():
    assert hazards([[Use(0, 0, 8, False)], [Use(0, 0, 8, False)]]) == [[], []]
    assert hazards([[Use(0, 0, 8, True)], [Use(0, 8, 16, True)], [Use(1, 0, 8, True)]]) == [[], [], []]
    assert hazards([[Use(0, 0, 8, True)], [Use(0, 8, 16, True)], [Use(0, 7, 9, False)]]) == [[], [], [0, 1]]


def test_a_launch_that_adds_to_a_memory_comes_after_who_wrote_it():
    both = [Use(0, 0, 8, False), Use(0, 0, 8, True)]
    assert hazards([[Use(0, 0, 8, True)], both, both]) == [[], [0], [1]]


@pytest.mark.parametrize("seed", range(20))
def test_waits_make_every_hazard_certain_and_none_is_idle(seed):
    rng = np.random.default_rng(seed)
    after, lane_of = hazards(random_uses(rng, 30, memories=4)), [int(lane) for lane in rng.integers(0, LANES, 30)]
    wanted = {(other, number) for number, before in enumerate(after) for other in before}
    found, ended = starts(after, lane_of)
    assert [start.lane for start in found] == lane_of
    edges = in_lanes(found)
    pairs = certain(edges, 30)
    assert wanted <= pairs
    for number, start in enumerate(found):
        for other in start.after:
            assert lane_of[other] != start.lane
            assert not wanted <= certain(edges - {(other, number)}, 30)
    for number, last in enumerate(ended):
        known = {(other, number) for lane in range(LANES) for other in range(last[lane] + 1) if lane_of[other] == lane}
        assert known == {pair for pair in pairs if pair[1] == number}


# ---- Which lanes


def independent(count, seconds=1e-5, share=0.1):
    return [Item(seconds, share, ()) for _ in range(count)]


def lanes_of(items, launch=LAUNCH):
    found = side_by_side(items, launch)
    return len(set(found.lanes)) if found else 1


def test_branches_that_leave_room_run_side_by_side():
    assert lanes_of(independent(8, seconds=1e-4)) == LANES
    assert lanes_of(independent(2, seconds=1e-4)) == 2
    assert lanes_of(independent(8, seconds=1e-4, share=0.4)) == 2
    found = side_by_side(independent(8, seconds=1e-4), LAUNCH)
    assert sorted(found.order) == [*range(8)]
    assert [found.lanes.count(lane) for lane in range(LANES)] == [2] * LANES


@pytest.mark.parametrize(
    "items",
    [
        [],
        independent(1),
        [Item(1e-4, 0.1, [number - 1] if number else []) for number in range(9)],
        independent(8, seconds=1e-4, share=1.0),
        independent(8, seconds=1e-4, share=0.6),
        [Item(1e-2, 1.0, ()), *independent(8)],
    ],
    ids=["nothing", "one launch", "a chain", "all of the device each", "more than half each", "one long and full"],
)
def test_there_is_one_lane_where_others_save_nothing(items):
    for launch in (0.0, LAUNCH):
        assert side_by_side(items, launch) is None


def test_launches_shorter_than_the_hosts_part_gain_only_within_a_graph():
    short = independent(12, seconds=LAUNCH / 2)
    assert lanes_of(short) == 1
    assert lanes_of(short, 0.0) == LANES
    assert lanes_of(independent(12, seconds=LAUNCH * 9)) == LANES


def test_lanes_must_save_a_tenth(monkeypatch):
    work = [Item(1e-3, 1.0, ()), *independent(2, seconds=1.2e-4)]
    assert lanes_of(work) == 1
    monkeypatch.setattr(lanes, "MUST_SAVE", 0.93)
    assert lanes_of(work) == 2


def scheduled(items, launch):
    return lanes._scheduled(items, lanes._seconds_to_the_end(items), launch)


def test_the_host_takes_as_long_for_forks_waits_and_joins_as_for_launches():
    apart = independent(2, seconds=1e-4)
    found, seconds = scheduled(apart, LAUNCH)
    assert found.lanes == (0, 1)
    assert seconds == pytest.approx(4 * LAUNCH + 1e-4 + lanes._HANDOVER)  # launch, fork and launch, join
    found, seconds = scheduled([*apart, Item(1e-4, 0.1, [0, 1])], LAUNCH)
    assert found.lanes == (0, 1, 1)
    assert seconds == pytest.approx(4 * LAUNCH + 2e-4 + lanes._HANDOVER)
    _, seconds = scheduled([*apart, Item(1e-4, 0.1, [0, 1])], 0.0)
    assert seconds == pytest.approx(2e-4 + 2 * lanes._HANDOVER)


def test_what_ends_before_the_next_is_issued_needs_no_other_lane():
    found, seconds = scheduled(independent(5, seconds=LAUNCH / 2), LAUNCH)
    assert found.lanes == (0,) * 5
    assert seconds == pytest.approx(5.5 * LAUNCH)


def test_each_launch_follows_on_the_lane_of_what_it_needs():
    chains = [Item(1e-4, 0.2, [number - 3] if number >= 3 else []) for number in range(12) if number != 9]
    chains[3] = Item(1e-4, 0.2, [])  # of which one ends sooner, and one begins later
    found = side_by_side(chains, LAUNCH)
    lane_of = dict(zip(found.order, found.lanes, strict=True))
    for first in (1, 2):
        assert len({lane_of[number] for number in range(first, 9, 3)}) == 1
    place = found.order.index
    waits, _ = starts([sorted(map(place, chains[number].after)) for number in found.order], found.lanes)
    assert not any(start.after for start in waits[:9])


def test_the_longest_chain_goes_first():
    short, chain = independent(3, seconds=1e-4), [Item(1e-4, 0.5, [n - 1] if n > 3 else []) for n in range(3, 7)]
    found, seconds = scheduled([*short, *chain], 0.0)
    assert found.order[0] == 3
    assert 4e-4 <= seconds < 4.2e-4
    root, leaf = Item(1e-4, 1.0, []), Item(1e-4, 0.9, [0])
    found, _ = scheduled([root, leaf, *[Item(1e-4, 0.6, [max(0, n - 1) if n > 2 else 0]) for n in range(2, 5)]], 0.0)
    assert found.order[:2] == (0, 2)


@pytest.mark.parametrize("launch", [0.0, LAUNCH])
@pytest.mark.parametrize("seed", range(20))
def test_orders_keep_to_what_must_come_after_what_and_predictions_to_their_bounds(seed, launch):
    rng = np.random.default_rng(seed)
    after = hazards(random_uses(rng, 40, memories=5))
    items = [Item(float(rng.exponential(3e-5)), float(rng.random() ** 2), before) for before in after]
    ahead = lanes._seconds_to_the_end(items)
    found, seconds = lanes._scheduled(items, ahead, launch)
    assert sorted(found.order) == [*range(40)]
    turn = {number: turn for turn, number in enumerate(found.order)}
    assert all(turn[other] < turn[number] for number, item in enumerate(items) for other in item.after)
    assert set(found.lanes) <= set(range(LANES))
    assert seconds >= max(*ahead, sum(item.seconds * item.share for item in items), launch * 40)
