"""numpy's loop over a step: on how many threads it runs, along which label, and what it is predicted to take."""

from dataclasses import replace

import pytest

from gpueinsum.costs.profile import profile
from gpueinsum.language.steps import Contract, Reduce
from gpueinsum.schedule.candidate import Pass
from gpueinsum.schedule.predict import problem_of
from gpueinsum.schedule.select import candidates

CPU = profile("cpu")


def loop(step, size, dtype="float32", device=CPU):
    """The pass over a step, and its seconds."""
    _, found = candidates(problem_of(step, size, dtype, device))
    [taken] = [way for way in found if isinstance(way.way, Pass)]
    return taken.way, taken.seconds


@pytest.mark.parametrize(
    ("step", "size", "shared"),
    [
        (Reduce(0, "ijk", "ik"), {"i": 160, "j": 192, "k": 128}, "i"),
        (Reduce(0, "ijkl", "lj"), {"i": 40, "j": 48, "k": 36, "l": 560}, "j"),  # l is nearer
        (Contract(0, 1, "bi", "bi", "b"), {"b": 262144, "i": 3}, "b"),
        (Contract(0, 1, "rs", "prqs", "qp"), dict.fromkeys("pqrs", 56), "p"),
        (Reduce(0, "ij", "j"), {"i": 160, "j": 1 << 17}, "j"),  # each thread reads long runs
    ],
)
def test_threads_share_a_long_sum_along_the_label_that_is_farthest_apart(step, size, shared):
    way, seconds = loop(step, size)
    assert (way.threads, way.shared) == (2, shared)
    alone, longer = loop(step, size, device=replace(CPU, processors=1))
    assert (alone.threads, alone.shared) == (1, "")
    assert longer >= seconds


@pytest.mark.parametrize(
    ("step", "size"),
    [
        (Reduce(0, "ijk", "k"), {"i": 160, "j": 192, "k": 128}),  # runs of 256 bytes for each thread
        (Reduce(0, "ij", ""), {"i": 3000, "j": 3000}),
        (Reduce(0, "ij", "i"), {"i": 1, "j": 1 << 23}),
        (Reduce(0, "ij", "i"), {"i": 300, "j": 300}),
    ],
)
def test_one_thread_does_what_is_short_or_cannot_be_shared(step, size):
    assert loop(step, size)[0].threads == 1


def test_lines_that_are_lost_before_they_are_used_up_have_a_price():
    size = {"i": 2048, "j": 1792}
    assert loop(Contract(0, 1, "ij", "ji", "i"), size)[1] > 8e-3  # 19.5 ms on one thread, 10 on two
    assert loop(Contract(0, 1, "ij", "ji", "i"), {"i": 2049, "j": 1793})[1] < 8e-3  # rows begin in other sets
