"""Measuring: samples, rounds and ceilings are what they say, and what is wrong is shown and never timed."""

import types

import numpy as np
import pytest

from benchmarks import ceilings as limits
from benchmarks import measure, peers, table
from benchmarks import run as suite
from benchmarks.check import expected
from benchmarks.devices import Host, input_sets
from benchmarks.measure import Peer
from benchmarks.peers import Job
from benchmarks.results import OURS, Ceilings, CopyCeiling, GemmCeiling
from benchmarks.workloads import Workload

PLACE = Host()
FAST = Ceilings(  # a machine on which 8 operations take as long as a byte moved
    tuple(GemmCeiling(dtype, "large", 1, 1, 1, 1, 8, (1.0,)) for dtype in ("float32", "float64", "complex128")),
    (CopyCeiling("memory", 1, (1.0,)),),
    (),
)
MATMUL = Workload("GEMM", "matmul", "ij,jk->ik", "i=2 j=3 k=5", "-")


@pytest.mark.parametrize(
    ("wrong", "fault"),
    [
        (lambda a, b: a @ b * np.float32(1.001), "WRONG: off by"),
        (lambda a, b: a @ b * np.float32(np.nan), "WRONG: off by nan"),
        (lambda a, b: (a @ b).T, "WRONG: float32 (5, 2), not float32 (2, 5)"),
        (lambda a, b: a.astype(float) @ b, "WRONG: float64 (2, 5), not float32 (2, 5)"),
        (lambda a, b: (a @ b, a), "WRONG: 2 arrays, not 1"),
        (lambda a, b: a @ a, "FAILED: ValueError"),
    ],
)
@pytest.mark.usefixtures("_short")
def test_a_wrong_result_is_shown_and_not_timed(wrong, fault):
    want = [expected(MATMUL, MATMUL.equation, MATMUL.operands())]
    times = measure.measure({OURS: Peer([lambda: wrong(*MATMUL.operands())], want)}, PLACE, 0)
    assert times.faults[OURS].startswith(fault)
    assert times.seconds == {}
    who = peers.Peers({}, {}, peers.plan_of(MATMUL))
    row = suite._as_row("einsum", MATMUL, who, FAST, 1, times)
    first, second = table.line(row).splitlines()
    assert fault[:5] in first
    assert first.endswith("WRONG")
    assert f"{OURS}: {fault}" in second


def test_times_are_per_call_and_of_all_sets_in_turn():
    calls = []

    class Place:
        def time(self, sets, count, wait):
            for _ in range(count):
                next(sets)()
            wait(None)
            return count * 1e-3  # every call takes a millisecond

    sets = [lambda number=number: calls.append(number) for number in range(3)]
    times = measure.measure({OURS: Peer(sets)}, Place(), 0)
    assert set(times.seconds[OURS]) == {1e-3}
    assert len(times.seconds[OURS]) == 3
    assert len(calls) >= 3 * 5  # five calls are a sample of 5 ms
    assert calls[:7] == [0, 1, 2, 0, 1, 2, 0]


def test_a_call_that_takes_long_is_not_repeated_for_calibration():
    class Place:
        calls = 0

        def time(self, sets, count, wait):
            self.calls += count
            wait(None)
            return float(count)

    place = Place()
    times = measure.measure({OURS: Peer([int])}, place, 0)
    assert len(times.seconds[OURS]) == place.calls == 3  # the first is that whose result is checked


def test_what_is_hopelessly_slow_is_timed_once():
    class Place:
        def time(self, sets, count, wait):
            seconds = next(sets)()
            wait(None)
            return count * seconds

    peers = {
        name: Peer([lambda taken=taken: taken]) for name, taken in (("a", 0.1), ("b", 1.9), ("c", 2.1), (OURS, 9.0))
    }
    times = measure.measure(peers, Place(), 0, always=[OURS])
    assert times.seconds.keys() == {"a", "b", OURS}
    assert times.slow == {"c": "too slow: a call took 2.1 s, the fastest 0.1 s"}
    preparing = iter([9.0, *[0.2] * 99])
    peers = {"a": Peer([lambda: 0.1]), "b": Peer([lambda: next(preparing)])}
    assert measure.measure(peers, Place(), 0).slow == {}  # only the first call took long
    small = {name: Peer([lambda taken=taken: taken]) for name, taken in (("a", 1e-4), ("b", 0.1))}
    assert measure.measure(small, Place(), 0).slow == {}


def test_what_compiles_is_called_once_before():
    calls = []
    measure.measure(
        {OURS: Peer([lambda: calls.append(1)], compiles=True)}, types.SimpleNamespace(time=lambda *_: 1.0), 0
    )
    assert calls == [1]


def test_rounds_go_on_for_the_seconds_given_each_in_another_order(monkeypatch):
    turns = []
    now = iter(range(1000))
    monkeypatch.setattr(measure, "perf_counter", lambda: next(now))

    class Place:
        def time(self, sets, count, wait):
            wait(next(sets)())
            return 1.0

    three = {name: Peer([lambda name=name: turns.append(name)]) for name in "abc"}
    times = measure.measure(three, Place(), 7)
    assert len(times.seconds["a"]) == 9
    rounds = ["".join(turns[start : start + 3]) for start in range(0, len(turns), 3)]
    assert rounds[0] == "abc"  # the check
    assert {"".join(sorted(turn)) for turn in rounds} == {"abc"}
    assert len(set(rounds)) > 3


def test_operands_rotate_past_the_cache():
    place = types.SimpleNamespace(cache_bytes=10_000)
    row = Workload("-", "-", "ij,j->i", "i=20 j=20", "-", "float64")  # 3520 bytes, with those of the result
    assert input_sets(row, place) == 6
    assert input_sets(row.but(equation="i,j->ij", sizes="i=50 j=50"), place) == 1  # which writes more than the cache
    assert input_sets(row.but(sizes="i=200 j=200"), place) == 1
    assert input_sets(row.but(sizes="i=1 j=1"), place) == 64
    job = Job(row, PLACE, 3)
    assert len({array.__array_interface__["data"] for arrays in job.sets for array in arrays}) == 6


# ---------------------------------------------------------------- the ceilings


@pytest.mark.usefixtures("_short")
def test_ceilings_are_of_every_dtype_and_size_with_copies_and_calls():
    found = limits.ceilings(PLACE, 0, is_tiny=True)
    assert {gemm.dtype for gemm in found.gemm} == {"float32", "float64", "complex64", "complex128"}
    assert {gemm.size for gemm in found.gemm} == {"small", "medium", "large", "batched"}
    assert [gemm.flops for gemm in found.gemm if gemm.dtype == "complex64"][-1] == 8 * 2 * 7 * 5 * 3
    assert [copy.bytes_moved for copy in found.copy] == [128, 256]
    assert {call.name for call in found.overhead} == {
        *(f"numpy.{f}" for f in ("add", "matmul", "einsum", "sum", "empty")),
        *("gpueinsum.einsum", "gpueinsum.einsum, a sum"),
    }
    assert found.bytes_per_second == found.copy[-1].bytes_per_second


class Recorded:
    """A device that says which work it was asked for."""

    kind = "cpu"

    def __init__(self):
        self.work = []

    def gemm(self, *arguments):
        return lambda: self.work.append(arguments)

    def copy(self, nbytes):
        return lambda: self.work.append(nbytes)


def work_of(equation, dtype="float64", **size):
    row = Workload("-", "-", equation, " ".join(f"{label}={n}" for label, n in size.items()), "-", dtype)
    place, plan = Recorded(), peers.plan_of(row)
    limits.equal_work(plan, None, FAST, place)()
    return place.work, limits.bound(plan, None, FAST)


def test_a_rows_ceiling_is_its_plan_as_plain_products_and_copies():
    """On a machine where 8 operations take as long as a byte: a product of n x n float64 matrices takes n/12 a byte."""
    assert work_of("bij,bjk->kbi", b=3, i=200, j=300, k=400) == ([("float64", None, 3, 200, 400, 300)], "gemm")
    assert work_of("ij,j->i", i=300, j=400) == ([4 * (300 * 400 + 300 + 400)], "copy")
    assert work_of("iij->j", i=30, j=40) == ([4 * (30 * 40 + 40)], "copy")
    work, _ = work_of("ij,jk,kl->il", i=2, j=3, k=4, l=5)
    assert [sorted(product[3:]) for product in work] == [[2, 3, 4], [2, 4, 5]]  # tiny: bare products
    assert work_of("ij,jk->ik", "float16", i=300, j=400, k=500)[0] == [("float16", None, 1, 300, 500, 400)]
    assert work_of("ij,jk->ik", "int64", i=300, j=400, k=500)[0] == [("int64", None, 1, 300, 500, 400)]


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64", "complex64", "int64"])
def test_plain_work_on_the_host_can_be_called(dtype):
    assert PLACE.gemm(dtype, None, 2, 3, 5, 7)().shape == (2, 3, 5)
    assert PLACE.copy(100)() is None


@pytest.mark.usefixtures("_short")
def test_a_ceiling_that_cannot_be_measured_is_named(monkeypatch):
    def no_memory(dtype, *size):
        if dtype == "complex64":
            raise MemoryError("of 3 TB")
        return lambda: 1 / 0 if dtype == "float64" else None

    monkeypatch.setattr(PLACE, "gemm", no_memory, raising=False)
    found = limits.ceilings(PLACE, 0, is_tiny=True)
    assert {gemm.dtype for gemm in found.gemm} == {"float32", "complex128"}
    assert found.faults["small GEMM, float64"] == "FAILED: ZeroDivisionError: division by zero"
    assert found.faults["large GEMM, complex64"] == "FAILED: MemoryError: of 3 TB"
    assert len(found.copy) == 2
