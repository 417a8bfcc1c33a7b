"""The benchmarks measure what they say: every row runs and is right, and what is wrong is shown, never timed."""

import json
import math
import os
import platform
import re
import sys
import types
from dataclasses import replace
from importlib.util import find_spec

import numpy as np
import opt_einsum
import pytest
from simulated.cupy import stand_in

import gpueinsum as ge
from benchmarks import __main__ as command
from benchmarks import ceilings as limits
from benchmarks import check, devices, gradients, libraries, measure, peers, results, table
from benchmarks import run as suite
from benchmarks.check import expected, reference
from benchmarks.devices import Host, device, input_sets
from benchmarks.gradients import FORWARD, SEPARATE, by_hand
from benchmarks.measure import Peer, Times
from benchmarks.peers import Job
from benchmarks.results import FLOOR, OURS, Ceilings, CopyCeiling, GemmCeiling
from benchmarks.suite import EINSUMS, GRADIENTS
from benchmarks.tccg import TCCG
from benchmarks.workloads import Workload, numpy_dtype, random_array
from gpueinsum.costs.counts import total_flops
from gpueinsum.errors import DeviceError


def on(kind, rows):
    return [pytest.param(row.tiny(), id=f"{row.name}, {row.precision or row.dtype}") for row in rows if row.on(kind)]


TINY, TINY_GRADIENTS = on("cpu", EINSUMS), on("cpu", GRADIENTS)
PLACE = Host()
FAST = Ceilings(  # a machine on which 8 operations take as long as a byte moved
    tuple(GemmCeiling(dtype, "large", 1, 1, 1, 1, 8, (1.0,)) for dtype in ("float32", "float64", "complex128")),
    (CopyCeiling("memory", 1, (1.0,)),),
    (),
)


def tiny(name):
    return next(row.tiny() for row in (*EINSUMS, *GRADIENTS) if row.name == name)


@pytest.fixture
def _short(monkeypatch):
    """Samples as short as can be."""
    monkeypatch.setattr(measure, "_SAMPLE", 1e-5)
    monkeypatch.setattr(measure, "_SETTLING", 0)
    for name in ("SECONDS", "QUICK_SECONDS", "_CEILING_SECONDS", "_QUICK_CEILING_SECONDS"):
        monkeypatch.setattr(suite, name, 0)


@pytest.fixture
def _alone(monkeypatch):
    """As where neither PyTorch nor JAX nor cotengra is installed; what measures none of them is quicker so."""
    for name in ("torch", "jax", "cotengra"):
        monkeypatch.setattr(libraries, name, lambda: None)


# ---------------------------------------------------------------- the rows


@pytest.mark.parametrize("kind", ["cpu", "cuda"])
def test_rows_are_told_apart_by_name_and_dtype(kind):
    for rows in (EINSUMS, GRADIENTS):
        keys = [(row.name, row.precision or row.dtype) for row in rows if row.on(kind)]
        assert len(set(keys)) == len(keys)


@pytest.mark.parametrize("workload", TINY + TINY_GRADIENTS)
def test_every_row_is_planned_from_its_shapes(workload):
    plan = peers.plan_of(workload)
    assert plan.dtype == workload.dtype
    assert [x.shape for x in workload.operands()] == list(workload.shapes)
    assert {x.dtype for x in workload.operands()} == {numpy_dtype(workload.dtype)}


@pytest.mark.parametrize("kind", ["cpu", "cuda"])
def test_every_row_is_planned_at_its_own_size_and_fits(kind):
    """Operands and what the plan keeps, in the memory of a machine with 16 GB, or a GPU with 24."""
    for row in filter(None, (row.on(kind) for row in (*EINSUMS, *GRADIENTS))):
        plan = ge.einsum_plan(row.equation, *row.shapes, dtype=row.dtype)
        operands = sum(map(math.prod, row.shapes)) * numpy_dtype(row.dtype).itemsize
        assert operands < 4e9, row.name
        assert total_flops(plan) < (4e11 if kind == "cpu" else 5e12), row.name


@pytest.mark.parametrize("kind", ["cpu", "cuda"])
def test_all_dtypes_are_there(kind):
    found = {row.precision or row.dtype for row in EINSUMS if row.on(kind)}
    wanted = {"float32", "float64", "complex64", "complex128", "float16", "bfloat16", "int64"}
    assert found == wanted | ({"tf32"} if kind == "cuda" else set())


@pytest.mark.parametrize("kind", ["cpu", "cuda"])
def test_tccg_is_whole_and_as_published(kind):
    rows = [row.on(kind) for row in TCCG if row.on(kind)]
    assert len({row.name for row in rows}) == len(rows) == 48
    for row in rows:
        result, left, right = row.name.split("-")
        assert row.equation == f"{left[::-1]},{right[::-1]}->{result[::-1]}"  # first label the fastest
        largest = max(math.prod(row.size[label] for label in term) for term in row.terms)
        assert 200 <= 8 * largest / 2**20 <= 864  # in double precision
    assert {row.dtype for row in rows} == ({"float64"} if kind == "cuda" else {"float32"})


def test_the_labels_of_tccg_are_those_of_the_published_sizes():
    row, _ = (row for row in TCCG if row.name == "abcde-ecbfa-fd")
    assert row.size == {"a": 48, "b": 32, "c": 32, "d": 24, "e": 48, "f": 48}
    assert row.shapes == ((48, 48, 32, 32, 48), (24, 48))  # afbce and df


def test_patches_share_the_memory_of_their_image():
    patches, _ = tiny("convolution").operands()
    assert patches[0, 1, 0, 0] == patches[0, 0, 0, 1]
    assert patches.strides[:2] == patches.strides[2:]
    deep, _ = tiny("convolution, channels").operands()  # nxyijc
    assert deep.strides[1:3] == deep.strides[3:5]
    assert np.shares_memory(deep[0, 1, 0, 0], deep[0, 0, 0, 1])


def test_a_grid_has_an_edge_between_neighbours_and_a_circuit_a_wire_from_gate_to_gate():
    for name in ("PEPS, 4 x 4", "circuit, 6 qubits", "MPS overlap"):
        row = tiny(name)
        assert row.terms[-1] == ""
        assert {sum(label in term for term in row.terms) for label in row.size} == {2}
    grid = [len(term) for term in tiny("PEPS, 4 x 4").terms[:-1]]
    assert grid == [2, 3, 3, 2, 3, 4, 4, 3, 3, 4, 4, 3, 2, 3, 3, 2]


def test_large_arrays_repeat_their_draws(monkeypatch):
    monkeypatch.setattr("benchmarks.workloads._DRAWS", 7)
    array = random_array(np.random.default_rng(0), (2, 5), "complex64").ravel()
    assert len(set(array)) == 7
    assert list(array[7:]) == list(array[:3])


# ---------------------------------------------------------------- right or wrong


# One loop over all labels of the chains and networks would take too long, even at these sizes.
@pytest.mark.parametrize("workload", [row for row in TINY if row.values[0].points <= 10**5])
def test_the_reference_is_the_sum_over_every_label(workload):
    operands = workload.operands()
    wide = [x.astype(np.complex128) for x in operands]
    summed = np.einsum(workload.equation, *wide, optimize=False)
    np.testing.assert_allclose(reference(workload.equation, *operands), summed, rtol=1e-12, atol=1e-12)


BROKEN = {
    "one element": lambda c: np.where(np.arange(c.size).reshape(c.shape) == 17, c * 1.5, c),
    "axes in another order": lambda c: np.ascontiguousarray(c.swapaxes(0, 1)),
    "rows in another order": lambda c: np.roll(c, 1, axis=0),
    "a sign": lambda c: -c,
    "nothing written": lambda c: c * 0,
    "not a number": lambda c: np.where(np.arange(c.size).reshape(c.shape) == 17, np.nan, c),
    "half precision": lambda c: c + np.abs(c) * 1e-3,
}


@pytest.mark.parametrize("is_large", [False, True])
@pytest.mark.parametrize("dtype", ["float32", "float64", "complex64", "complex128"])
@pytest.mark.parametrize("how", BROKEN)
def test_what_is_wrong_is_found_in_small_results_and_in_large_ones(monkeypatch, how, dtype, is_large):
    if is_large:
        monkeypatch.setattr(check, "_MOST_ELEMENTS", 1)
    row = Workload("-", "-", "bij,bjk->bik", "b=5 i=5 j=7 k=5", "-", dtype)
    operands = row.operands()
    want = expected(row, row.equation, operands)
    assert (want.whole is None) == is_large
    right = np.einsum(row.equation, *operands)
    assert want.fault(right, dtype) is None
    broken = BROKEN[how](right).astype(dtype)
    assert "off by" in want.fault(broken, dtype)


@pytest.mark.parametrize(("array", "dtype"), [(np.ones((2, 5)), "float64"), (np.ones((5, 2)), "float32")])
def test_another_shape_or_dtype_is_wrong(array, dtype):
    row = Workload("-", "-", "ij,jk->ik", "i=2 j=3 k=5", "-")
    assert ", not float32 (2, 5)" in expected(row, row.equation, row.operands()).fault(array, dtype)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64", "complex64", "complex128"])
@pytest.mark.parametrize("is_large", [False, True])
def test_rounding_is_accepted(monkeypatch, dtype, is_large):
    if is_large:
        monkeypatch.setattr(check, "_MOST_ELEMENTS", 1)
    row = Workload("-", "-", "ij,jk->ik", "i=64 j=400 k=64", "-", dtype)
    operands = row.operands()
    want = expected(row, row.equation, operands)
    assert want.fault(ge.einsum(row.equation, *operands), dtype) is None


@pytest.mark.parametrize("is_large", [False, True])
def test_integers_are_exact(monkeypatch, is_large):
    if is_large:
        monkeypatch.setattr(check, "_MOST_ELEMENTS", 1)
    row = tiny("integer matmul")
    want = expected(row, row.equation, row.operands())
    right = np.einsum(row.equation, *row.operands())
    assert want.fault(right, "int64") is None
    assert want.fault(right + (np.arange(right.size).reshape(right.shape) == 3), "int64")


# ---------------------------------------------------------------- the times


@pytest.mark.parametrize("workload", TINY)
@pytest.mark.usefixtures("_short")
def test_every_peer_that_is_installed_is_right(workload):
    """But for bfloat16, which numpy's einsum does not know, and half precision sums of numpy's."""
    row = suite.measure_row("einsum", workload, PLACE, FAST, seconds=0)
    assert set(row.faults) <= (
        {"numpy", "numpy optimized", "opt_einsum", "cotengra"} if "16" in workload.dtype else set()
    )
    assert row.seconds.keys() >= {OURS, FLOOR}
    installed = {name for name in ("torch", "jax", "cotengra") if find_spec(name)}
    assert {*row.seconds, *row.faults, *row.left_out} >= installed
    assert len({len(times) for times in row.seconds.values()}) == 1
    assert row.flops > 0
    assert row.best() in row.peers or not row.peers  # of bfloat16 without PyTorch and JAX


def _timed(call, want=()):
    return measure.measure({OURS: Peer([call], want)}, PLACE, 0)


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
    workload = tiny("matmul")
    want = [expected(workload, workload.equation, workload.operands())]
    times = _timed(lambda: wrong(*workload.operands()), want)
    assert times.faults[OURS].startswith(fault)
    assert times.seconds == {}
    who = peers.Peers({}, {}, peers.plan_of(workload))
    row = suite._as_row("einsum", workload, who, FAST, 1, times)
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
        *(f"numpy.{f}" for f in ("add", "matmul", "einsum")),
        "gpueinsum.einsum",
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


# ---------------------------------------------------------------- gradients


@pytest.mark.parametrize("workload", TINY_GRADIENTS)
@pytest.mark.usefixtures("_short")
def test_every_peer_that_is_installed_has_the_right_gradients(workload):
    row = suite.measure_row("gradients", workload, PLACE, FAST, seconds=0)
    assert row.faults == {}
    installed = {name for name in ("torch", "jax") if find_spec(name)}
    assert row.seconds.keys() == {OURS, FORWARD, SEPARATE, FLOOR} | installed
    assert set(row.peers) == installed


@pytest.mark.parametrize("workload", [row for row in TINY_GRADIENTS if "16" not in row.values[0].dtype])
def test_the_reference_is_the_gradient(workload):
    """dL = Re sum conj(y') dy = Re sum conj(x') dx: y is linear in each x, so that any change dx will do."""
    job = Job(workload, PLACE, 1, with_cotangent=True)
    *operands, cotangent = job.host
    _, *found = by_hand(job, reference)(*operands, cotangent)
    for position, gradient in enumerate(found):
        change = np.roll(operands[position], 1)
        changed = [*operands[:position], change, *operands[position + 1 :]]
        along = np.vdot(cotangent, reference(workload.equation, *changed))
        magnitude = np.linalg.norm(gradient) * np.linalg.norm(change)
        np.testing.assert_allclose(np.vdot(gradient, change), along, rtol=0, atol=1e-13 * magnitude)


@pytest.mark.parametrize("dtype", ["float64", "complex128"])
@pytest.mark.parametrize(
    ("wrong", "fault"),
    [
        (lambda y, x1, x2: (y, x1, 1.001 * x2), "WRONG: off by"),
        (lambda y, x1, x2: (y, x2, x1), "WRONG: off by"),
        (lambda y, x1, x2: (1.001 * y, x1, x2), "WRONG: off by"),
        (lambda y, x1, x2: (y, x1, x2 * np.nan), "WRONG: off by nan"),
        (lambda y, x1, x2: (y, x1), "WRONG: 2 arrays, not 3"),
        (lambda y, x1, x2: (y, x1, x2.T[:2]), "WRONG: "),
        (lambda y, x1, x2: (y, x1, x2.astype("complex64")), "WRONG: complex64"),
        (lambda y, x1, x2: (y, x1, x2[9]), "FAILED: IndexError"),
    ],
)
@pytest.mark.usefixtures("_short", "_alone")
def test_a_wrong_gradient_is_shown_and_not_timed(wrong, fault, dtype):
    job = Job(Workload("-", "square", "ij,jk->ik", "i=3 j=3 k=3", "-", dtype), PLACE, 1, with_cotangent=True)
    ours = gradients.peers(job).peers[OURS]
    right = ours.calls[0]()
    times = _timed(lambda: wrong(*right), ours.expected)
    assert times.faults[OURS].startswith(fault)
    assert times.seconds == {}


@pytest.mark.parametrize("peer", [OURS, SEPARATE, "torch", "jax"])
@pytest.mark.usefixtures("_short")
def test_a_forgotten_conjugate_is_wrong(peer):
    job = Job(tiny("complex chain 5"), PLACE, 1, with_cotangent=True)
    found = gradients.peers(job).peers
    if peer not in found:
        pytest.skip(f"{peer} is not installed")
    value, *gradient = found[peer].calls[0]()
    forgetful = [x.resolve_conj().conj() if hasattr(x, "resolve_conj") else x.conj() for x in gradient]
    times = _timed(lambda: (value, *forgetful), found[peer].expected)
    assert "in array 1 of 6" in times.faults[OURS]


def test_the_joint_plan_takes_three_times_the_operations():
    """A product of n x n matrices takes n^2 (2n - 1), a chain of three two of them, and their gradients four."""
    job = Job(Workload("-", "-", "ab,bc,cd->ad", "a=7 b=7 c=7 d=7", "-", "float64"), PLACE, 1, with_cotangent=True)
    assert total_flops(gradients.joint_plan(job)) == 3 * total_flops(peers.plan_of(job.workload)) == 6 * 49 * 13


# ---------------------------------------------------------------- the command


def tiny_run(*arguments):
    return command.main(["--tiny", "--quick", *arguments])


@pytest.mark.usefixtures("_short", "_alone")
def test_a_run_prints_a_line_for_each_row_and_leaves_all_files(tmp_path, capsys):
    pytest.importorskip("matplotlib")
    assert tiny_run("--backend", "cpu", "--only", "MPS overlap", "GEMM", "--out", str(tmp_path / "new")) == 0
    printed = capsys.readouterr().out
    assert "matmul                   complex128" in printed
    assert printed.count("MPS overlap ") == 2  # a row of each table
    assert "∇ MPS overlap" in printed
    assert "as long as gpueinsum (geometric mean)" in printed
    names = sorted(re.sub(r"\d{4}-\d\d-\d\d", "DATE", path.name) for path in (tmp_path / "new").iterdir())
    assert names == [
        f"cpu-DATE{end}" for end in ("-ratios.png", "-ratios.svg", "-roofline.png", "-roofline.svg", ".html", ".json")
    ]
    [path] = (tmp_path / "new").glob("*.json")
    run = results.read(path)
    assert run.device["kind"] == "cpu"
    assert run.versions["numpy"] == np.__version__
    assert {row.table for row in run.rows} == {"einsum", "gradients"}
    assert run.method["rows_planned"] == run.method["rows_measured"] == len(run.rows) == 12
    assert {gemm.dtype for gemm in run.ceilings.gemm} >= {"float32", "complex128"}


def test_a_run_can_be_read_again_and_compared_with_an_older_one(tmp_path, capsys):
    slow, fast = (measured(ours=time) for time in (2.0, 1.0))
    for name, run in (("slow", slow), ("fast", fast)):
        results.write(run, tmp_path / f"{name}.json")
    assert command.main(["--read", str(tmp_path / "fast.json"), "--compare", str(tmp_path / "slow.json")]) == 0
    assert command.main(["--read", str(tmp_path / "slow.json"), "--compare", str(tmp_path / "fast.json")]) == 1
    assert "matmul" in capsys.readouterr().out


def measured(ours):
    """A run of one row, in which ours takes so many seconds, and numpy's three."""
    times = {OURS: (ours,) * 9, "numpy": (3.0,) * 9, FLOOR: (0.5,) * 9}
    workload = tiny("matmul")
    row = suite._as_row("einsum", workload, peers.Peers({}, {}, peers.plan_of(workload)), FAST, 1, Times(times, {}))
    return results.Run(
        "2026-11-22T00:00:00+00:00", PLACE.facts(), libraries.versions(PLACE), {"quick": False}, FAST, (row,)
    )


@pytest.mark.usefixtures("_short", "_alone")
def test_a_wrong_result_of_ours_is_an_exit_status(monkeypatch, capsys):
    monkeypatch.setattr(peers.ge, "einsum", lambda equation, *operands, **options: operands[0])
    monkeypatch.setattr(limits, "_calls", lambda place: {})
    assert tiny_run("--backend", "cpu", "--only", "integer matmul") == 1
    assert "wrong: einsum: integer matmul, int64" in capsys.readouterr().out


@pytest.mark.usefixtures("_short", "_alone")
def test_a_row_that_cannot_begin_is_shown_and_the_next_is_measured(monkeypatch, capsys):
    def no_memory(workload, equation, operands):
        if workload.name == "matmul":
            raise MemoryError("of 3 TB")
        return expected(workload, equation, operands)

    monkeypatch.setattr(peers, "expected", no_memory)
    assert tiny_run("--backend", "cpu", "--only", "matmul", "integer matmul") == 1
    printed = capsys.readouterr().out
    assert "gpueinsum: FAILED: MemoryError: of 3 TB" in printed
    assert "wrong: einsum: matmul, float32" in printed
    assert "wrong: einsum: integer matmul" not in printed


@pytest.mark.usefixtures("_short", "_alone")
def test_a_peer_that_breaks_before_its_first_call_is_shown(monkeypatch):
    monkeypatch.setattr(libraries, "cotengra", lambda: types.SimpleNamespace())
    row = suite.measure_row("einsum", tiny("matmul"), PLACE, FAST, 0)
    assert row.faults["cotengra"].startswith("FAILED: AttributeError")
    assert row.left_out["torch"] == "not installed"
    assert OURS in row.seconds


@pytest.mark.usefixtures("_short", "_alone")
def test_when_its_minutes_are_over_what_there_is_is_kept(tmp_path):
    assert tiny_run("--backend", "cpu", "--only", "GEMM", "--minutes", "1e-9", "--out", str(tmp_path)) == 0
    [path] = tmp_path.glob("*.json")
    assert results.read(path).method["rows_measured"] == 1
    [page] = tmp_path.glob("*.html")
    assert "The run ended after 1 of 10 rows" in page.read_text("utf-8")
    place = Host()
    runs = list(suite.run(place, suite.rows_of(place, ["GEMM"], tiny=True), quick=True, tiny=True))
    assert [run.method["rows_measured"] for run in runs] == [1, 2, 3, 4, 5, 6, 7, 8, 9, 10]


def test_with_minutes_every_family_has_its_turn():
    rows = suite.rows_of(PLACE)
    turned = suite.families_in_turn(rows)
    assert sorted(map(id, turned)) == sorted(map(id, rows))
    families = list(dict.fromkeys(row.family for _, row in rows))
    assert [row.family for _, row in turned[: len(families)]] == families


@pytest.mark.usefixtures("_short", "_alone")
def test_without_any_ceiling_rows_are_measured_all_the_same():
    row = suite._row("einsum", tiny("matmul"), PLACE, Ceilings((), (), ()), 0)
    assert OURS in row.seconds
    assert row.bound == "copy"


def test_a_quick_look_has_a_row_of_every_family_and_no_long_ones():
    rows = suite.rows_of(PLACE, quick=True)
    assert {row.family for _, row in rows} == {row.family for row in (*EINSUMS, *GRADIENTS)}
    assert max(total_flops(peers.plan_of(row)) for _, row in rows) <= 4e9
    assert len(rows) < len(suite.rows_of(PLACE))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--only", "nothing of the kind"], "'nothing of the kind' is none of GEMM"),
        (["--read", "missing.json"], "missing.json"),
        (["--compare", "missing.json"], "missing.json"),
        (["--backend", "cuda"], "CUDA needs"),
    ],
)
def test_what_cannot_be_done_is_said(monkeypatch, capsys, arguments, words):
    def no_gpu():
        raise DeviceError("CUDA needs a GPU")

    monkeypatch.setattr(devices.backends, "cuda_backend", no_gpu)
    try:
        status = command.main(arguments)
    except SystemExit as end:
        status = end.code
    assert status == 2
    assert words in capsys.readouterr().err


def test_rows_that_the_device_has_not_are_refused(monkeypatch):
    elsewhere = [replace(row, where="cuda") for row in EINSUMS]
    monkeypatch.setattr(suite, "EINSUMS", elsewhere)
    monkeypatch.setattr(suite, "GRADIENTS", [])
    with pytest.raises(results.ResultsError, match="matmul: not measured on this kind of device, 'cpu'"):
        suite.rows_of(PLACE, ["matmul"])


def test_a_run_names_no_host_and_no_path():
    text = json.dumps([PLACE.facts(), libraries.versions(PLACE)])
    assert platform.node() not in text
    assert os.sep not in text


def test_threads_are_those_of_openblas_or_all_cores(monkeypatch):
    monkeypatch.setenv("OPENBLAS_NUM_THREADS", "3")
    assert PLACE.facts()["threads"] == 3
    monkeypatch.delenv("OPENBLAS_NUM_THREADS")
    assert PLACE.facts()["threads"] == PLACE.facts()["cores"]


# ---------------------------------------------------------------- on a GPU, simulated


@pytest.fixture
def gpu(monkeypatch, _short):
    """The simulated device, as the one that `device()` finds."""
    with stand_in(monkeypatch) as cupy:
        yield cupy


@pytest.fixture
def _nvidia(monkeypatch):
    """cuTENSOR, cuTensorNet and TF32 by what CuPy and cuQuantum call them, and what we ask of them on record."""
    settings = {"accelerators": [1], np.float32: 0}
    accelerator = types.ModuleType("cupy._core._accelerator")
    accelerator.get_routine_accelerators = lambda: list(settings["accelerators"])
    accelerator.set_routine_accelerators = lambda names: settings.update(accelerators=names)
    linalg = types.ModuleType("cupy._core._routines_linalg")
    linalg.COMPUTE_TYPE_TF32 = 4
    linalg.get_compute_type = settings.get
    linalg.set_compute_type = settings.__setitem__
    core = types.ModuleType("cupy._core")
    core._accelerator, core._routines_linalg = accelerator, linalg
    cupyx = types.ModuleType("cupyx")
    cupyx.cutensor = types.ModuleType("cupyx.cutensor")
    quantum = types.ModuleType("cuquantum")
    quantum.tensornet = types.ModuleType("cuquantum.tensornet")
    quantum.tensornet.Network = Network
    for module in (core, accelerator, linalg, cupyx, cupyx.cutensor, quantum, quantum.tensornet):
        monkeypatch.setitem(sys.modules, module.__name__, module)
    caches = libraries.cutensor, libraries.cutensornet
    for cached in caches:
        cached.cache_clear()
    yield settings
    for cached in caches:
        cached.cache_clear()


class Network:
    """cuQuantum's, as far as it is used."""

    living = 0

    def __init__(self, equation, *operands):
        self.arguments = equation, *operands

    def __enter__(self):
        Network.living += 1
        return self

    def __exit__(self, *error):
        Network.living -= 1

    def contract_path(self):
        self.is_planned = True

    def contract(self):
        assert self.is_planned
        return opt_einsum.contract(*self.arguments)


@pytest.mark.usefixtures("_alone")
def test_the_whole_suite_runs_on_the_simulated_device(gpu, _nvidia, tmp_path, capsys):  # noqa: PT019  # what it set
    assert device().kind == "cuda"
    assert command.main(["--tiny", "--out", str(tmp_path)]) == 0, capsys.readouterr().out
    [path] = tmp_path.glob("*.json")
    assert path.name.startswith("simulated-")
    run = results.read(path)
    assert run.device["name"] == "Simulated"
    assert run.device["driver_cuda"] == "13.1"
    assert run.versions["cuda"] == "13.0"
    assert len(run.rows) == len(suite.rows_of(device())) > 100
    for row in run.rows:
        assert not row.is_wrong, (row.key, row.faults)
        assert FLOOR in row.seconds, (row.key, row.faults)
        if row.table == "einsum" and row.dtype not in ("float16", "bfloat16", "int64"):  # numpy stands in for CuPy
            wanted = {"cupy"} if row.precision else {"cupy", "cupy cutensor", "opt_einsum", "cutensornet"}
            assert set(row.peers) >= wanted - row.left_out.keys(), (row.key, row.faults)
    assert {gemm.dtype for gemm in run.ceilings.gemm} >= {"tf32", "bfloat16", "float64"}
    assert {call.name for call in run.ceilings.overhead} >= {
        "launch of an empty kernel",
        "launch and wait",
        "cupy.einsum",
    }
    assert Network.living == 0
    assert _nvidia == {"accelerators": [1], np.float32: 0}  # as it was


@pytest.mark.usefixtures("_alone")
def test_precision_and_accelerators_are_set_for_their_own_calls_alone(gpu, _nvidia):  # noqa: PT019  # what it set
    place = device("cuda")
    row = next(row.tiny() for row in EINSUMS if row.precision)
    seen = []
    gpu.einsum = lambda *arguments, **options: seen.append(dict(_nvidia))
    with Job(row, place, 1) as job:
        peers._cupy(job)[0]()
        peers._cupy(Job(row.but(precision=None), place, 1))[0]()
        peers._cupy_cutensor(Job(row.but(precision=None), place, 1))[0]()
    assert [each[np.float32] for each in seen] == [4, 0, 0]
    assert [each["accelerators"] for each in seen] == [[1], [1], [1, "cutensor"]]


@pytest.mark.parametrize("table_name", ["einsum", "gradients"])
def test_torch_and_jax_are_measured_on_the_device(gpu, monkeypatch, table_name):
    torch, jax = pytest.importorskip("torch"), pytest.importorskip("jax")
    cpu = jax.devices("cpu")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.Tensor, "to", lambda self, place: self.clone() if place == "cuda" else 1 / 0)
    monkeypatch.setattr(jax, "devices", {"gpu": cpu}.get)
    rows = [row.tiny() for row in (GRADIENTS if table_name == "gradients" else EINSUMS)]
    for workload in rows:
        if workload.family in ("gradients", "GEMM", "convolution", "attention"):
            row = suite.measure_row(table_name, workload, device("cuda"), FAST, 0)
            assert set(row.seconds) >= {"torch", "jax"}, (row.key, row.faults, row.left_out)
            assert not row.is_wrong


def test_without_cuda_of_their_own_torch_and_jax_are_left_out(gpu):
    pytest.importorskip("torch")
    pytest.importorskip("jax")
    row = suite.measure_row("einsum", tiny("MTTKRP"), device("cuda"), FAST, 0)
    assert row.left_out["torch"] == "PyTorch finds no GPU"
    assert row.left_out["jax"].startswith("JAX finds no GPU: Unknown backend: 'gpu' requested")


def test_the_clock_is_that_of_events(gpu):
    times = iter([0.25, 0.75])

    class Event:
        def record(self, stream):
            self.time = next(times)

        def synchronize(self):
            pass

    gpu.cuda.Event = Event
    waited = []
    assert device("cuda").time(iter([int, str]), 2, waited.append) == 0.5
    assert waited == [""]  # for the last result


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64", "complex64", "complex128", "int64"])
def test_a_plain_product_on_the_device_is_one_gemm_of_row_major_matrices(gpu, dtype):
    place = device("cuda")
    place.gemm(dtype, "tf32" if dtype == "float32" else None, 2, 3, 5, 7)()
    [(name, compute, _)] = gpu.cublas.calls
    assert name == ("float64" if dtype == "int64" else dtype)
    assert (compute == 77) == (dtype == "float32")


def test_the_speed_of_a_row_that_fails_alone_is_unknown():
    run = measured(1.0)
    [row] = run.rows
    failed = replace(row, seconds={}, faults={OURS: "FAILED: out of memory"})
    assert "FAILED" in table.line(failed)
    assert "1 wrong" in table.summary(replace(run, rows=(failed,)))
