"""Offsets in one workspace: nothing that lives at once overlaps, and little is wasted."""

import itertools

import pytest

from gpueinsum.backends.cuda.workspace import ALIGNMENT, Lifetime, offsets


def overlaps(lifetimes, starts):
    """Pairs that live at once in the same bytes."""
    placed = [*zip(lifetimes, starts, strict=True)]
    return [
        (one, other)
        for (one, start), (other, begin) in itertools.combinations(placed, 2)
        if one.first <= other.last
        and other.first <= one.last
        and start < begin + other.bytes
        and begin < start + one.bytes
    ]


def random_lifetimes(rng, count):
    sizes, firsts, lengths = rng.integers(1, 5000, count), rng.integers(0, count, count), rng.integers(0, 7, count)
    return [
        Lifetime(*map(int, (size, first, first + length)))
        for size, first, length in zip(sizes, firsts, lengths, strict=True)
    ]


@pytest.mark.parametrize("count", [0, 1, 2, 29, 113])
def test_what_lives_at_once_lies_apart_aligned_and_inside(rng, count):
    lifetimes = random_lifetimes(rng, count)
    starts, nbytes = offsets(lifetimes)
    assert not overlaps(lifetimes, starts)
    assert all(start % ALIGNMENT == 0 for start in starts)
    assert all(start + life.bytes <= nbytes for start, life in zip(starts, lifetimes, strict=True))
    most = max((sum(x.bytes for x in lifetimes if x.first <= turn <= x.last) for turn in range(count + 7)), default=0)
    assert most <= nbytes <= 1.3 * most + count * ALIGNMENT


def test_the_check_finds_an_overlap():
    lifetimes = [Lifetime(300, 0, 1), Lifetime(300, 1, 2)]
    assert overlaps(lifetimes, [0, 256])
    assert not overlaps(lifetimes, [0, 512])


def test_a_chain_takes_turns_in_two_places():
    starts, nbytes = offsets([Lifetime(1000, turn, turn + 1) for turn in range(9)])
    assert set(starts) == {0, 1024}
    assert nbytes == 2048


def test_the_tightest_gap_is_taken():
    around = [
        Lifetime(5000, 0, 9),
        Lifetime(4900, 0, 1),
        Lifetime(4000, 0, 9),
        Lifetime(600, 0, 1),
        Lifetime(500, 0, 9),
    ]
    starts, nbytes = offsets([*around, Lifetime(300, 5, 6)])
    assert starts[-1] == starts[3]  # the gap of 768 bytes, not the one of 5,120
    assert nbytes == starts[-2] + 512
