"""Every row of the suite runs and is right beside every peer, and a result that is wrong is found."""

import math
from importlib.util import find_spec

import numpy as np
import pytest

import gpueinsum as ge
from benchmarks import check, gradients, measure, peers
from benchmarks import run as suite
from benchmarks.check import expected, reference
from benchmarks.devices import Host
from benchmarks.gradients import FORWARD, SEPARATE, TENSORS, by_hand
from benchmarks.measure import Peer
from benchmarks.peers import Job
from benchmarks.results import FLOOR, OURS, Ceilings
from benchmarks.suite import EINSUMS, GRADIENTS
from benchmarks.tccg import TCCG
from benchmarks.workloads import Workload, numpy_dtype, random_array
from gpueinsum.costs.counts import total_flops
from gpueinsum.costs.profile import profile
from gpueinsum.schedule.schedule import schedule


def on(kind, rows):
    return [pytest.param(row.tiny(), id=f"{row.name}, {row.precision or row.dtype}") for row in rows if row.on(kind)]


TINY, TINY_GRADIENTS = on("cpu", EINSUMS), on("cpu", GRADIENTS)
PLACE = Host()
NONE = Ceilings((), (), ())


def tiny(name):
    return next(row.tiny() for row in (*EINSUMS, *GRADIENTS) if row.name == name)


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
        assert operands < 6e9, row.name
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
    assert [stride // 4 for stride in patches.strides] == list(tiny("convolution").strides[0])
    deep, _ = tiny("convolution, channels").operands()  # nxyijc
    assert deep.strides[1:3] == deep.strides[3:5]
    assert np.shares_memory(deep[0, 1, 0, 0], deep[0, 0, 0, 1])


@pytest.mark.parametrize("kind", ["cpu", "cuda"])
def test_an_unfolded_view_is_never_copied(kind):
    """Nothing is allocated but the result, which is a part of the view's size."""
    row = next(row for row in EINSUMS if row.name == "unfolded view").on(kind)
    assert row.strides[0][-2:] == (1, 1)
    made = schedule(peers.plan_of(row), profile("h200" if kind == "cuda" else "cpu"), row.strides)
    assert made.peak_bytes == 4 * math.prod(row.result_shape)


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


@pytest.mark.parametrize("workload", TINY)
@pytest.mark.usefixtures("_short")
def test_every_peer_that_is_installed_is_right(workload):
    """But for bfloat16, which numpy's einsum does not know, and half precision sums of numpy's."""
    row = suite.measure_row("einsum", workload, PLACE, NONE, seconds=0)
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


# ---------------------------------------------------------------- gradients


@pytest.mark.parametrize("workload", TINY_GRADIENTS)
@pytest.mark.usefixtures("_short")
def test_every_peer_that_is_installed_has_the_right_gradients(workload):
    row = suite.measure_row("gradients", workload, PLACE, NONE, seconds=0)
    assert row.faults == {}
    installed = {name for name in ("torch", "jax") if find_spec(name)}
    of_torch = {TENSORS} if "torch" in installed else set()
    assert row.seconds.keys() == {OURS, FORWARD, SEPARATE, FLOOR} | installed | of_torch
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
