"""The benchmarks measure what they say: every row runs and is right, and what is wrong is shown, never timed."""

import json
import os
import platform
from importlib.util import find_spec
from types import SimpleNamespace

import numpy as np
import pytest

import gpueinsum as ge
from benchmarks import __main__ as einsums
from benchmarks import gradients
from benchmarks.__main__ import EINSUMS, OURS, TABLES, best, is_slower, main, report
from benchmarks.gradients import FORWARD, SEPARATE, VJP, by_hand, flops_ratio, is_gemm_bound
from benchmarks.measure import Peer, Result, clock_for, measure
from benchmarks.workloads import GRADIENTS, WORKLOADS, Workload, reference
from gpueinsum.cost import total_flops


def smallest(workloads):
    return [pytest.param(workload.tiny(), id=workload.name) for workload in workloads]


CLOCK = clock_for(np)
TINY, TINY_GRADIENTS = smallest(WORKLOADS), smallest(GRADIENTS)


def tiny(name):
    return next(workload.tiny() for workload in (*WORKLOADS, *GRADIENTS) if workload.name == name)


def measured(workload, peers=einsums.peers, **changed):
    """The workload measured as short as can be, with some peers' calls changed."""
    found = peers(workload, np)
    found |= {name: Peer(call, found[name].expected) for name, call in changed.items()}
    return measure(workload, found, CLOCK, seconds=0)


@pytest.fixture
def ours_alone(monkeypatch):
    """As where neither PyTorch nor JAX is installed; the tests that measure neither are quicker so."""
    monkeypatch.setattr(gradients, "_torch", lambda: None)
    monkeypatch.setattr(gradients, "_jax", lambda: None)


def ticking(workload):
    """A clock by which every call takes a second."""
    [peer] = [peer for name, peer in einsums.peers(workload, np).items() if name == OURS]
    return measure(workload, {OURS: peer}, lambda call, loops: loops, 0)


def test_names_are_distinct():
    workloads = {*WORKLOADS, *GRADIENTS}
    assert len({workload.name for workload in workloads}) == len(workloads)


@pytest.mark.parametrize("workload", TINY + TINY_GRADIENTS)
def test_every_workload_is_planned_from_its_shapes(workload):
    plan = ge.einsum_plan(workload.equation, *workload.shapes, dtype=workload.dtype)
    assert plan.dtype == workload.dtype
    assert [operand.shape for operand in workload.operands()] == list(workload.shapes)


@pytest.mark.parametrize("workload", TINY)
def test_every_peer_of_every_workload_is_right(workload):
    result = measured(workload)
    assert result.faults == {}
    assert best(result) in EINSUMS
    assert all(len(times) == len(result.rounds[OURS]) for times in result.rounds.values())


# One loop over all labels of the chains would take too long, even at these sizes.
@pytest.mark.parametrize("workload", [tiny for tiny in TINY if tiny.values[0].products <= 10**5])
def test_the_reference_is_the_sum_over_every_label(workload):
    operands = workload.operands()
    wide = [operand.astype(np.complex128) for operand in operands]
    expected = np.einsum(workload.equation, *wide, optimize=False)
    np.testing.assert_allclose(reference(workload.equation, *operands), expected, rtol=1e-12, atol=1e-12)


def test_patches_share_the_memory_of_their_image():
    patches, _ = tiny("convolution").operands()
    assert patches[0, 1, 0, 0] == patches[0, 0, 0, 1]
    assert patches.strides[:2] == patches.strides[2:]


@pytest.mark.parametrize(
    ("wrong", "fault"),
    [
        (lambda a, b: a @ b * np.float32(1.001), "WRONG: off by"),
        (lambda a, b: a @ b * np.float32(np.nan), "WRONG: off by nan"),
        (lambda a, b: (a @ b).T, "WRONG: float32 (5, 2), not float32 (2, 5)"),
        (lambda a, b: a.astype(float) @ b, "WRONG: float64 (2, 5), not float32 (2, 5)"),
        (lambda a, b: a @ a, "FAILED: ValueError"),
    ],
)
def test_a_wrong_result_is_shown_and_not_timed(wrong, fault):
    workload = tiny("matmul")
    result = measured(workload, **{OURS: lambda: wrong(*workload.operands())})
    assert result.faults[OURS].startswith(fault)
    assert OURS not in result.rounds
    assert result.quartiles("einsum", OURS) is None
    first, second = einsums.row(result).splitlines()
    assert fault[:5] in first
    assert f"{OURS}: {fault}" in second
    assert einsums.summary([result], np) == "nothing to compare"


def test_a_wrong_result_of_ours_is_an_exit_status(monkeypatch, capsys):
    monkeypatch.setattr("benchmarks.__main__.ge.einsum", lambda equation, *operands: operands[0])
    assert main(["--quick", "--only", "integer matmul"]) == 1
    assert "WRONG" in capsys.readouterr().out


def test_the_ratio_is_of_the_same_round_and_of_the_fastest_einsum():
    rounds = {OURS: (1.0, 2.0, 4.0), "einsum": (9.0, 9.0, 9.0), "einsum greedy": (2.0, 6.0, 4.0)}
    result = Result(tiny("matmul"), rounds)
    assert best(result) == "einsum greedy"
    assert result.ratios("einsum greedy", OURS) == (2.0, 3.0, 1.0)
    assert result.quartiles("einsum greedy", OURS) == (1.5, 2.0, 2.5)
    slow = Result(tiny("partial trace"), {OURS: (4.0, 4.0, 4.0), "einsum": (1.0, 2.0, 3.0)})
    assert is_slower(slow)
    assert "slower" in einsums.row(slow)
    printed = einsums.summary([result, slow], np)
    assert "takes 1.00 times" in printed  # the geometric mean of 2 and 1/2
    assert "slower by more than noise: partial trace" in printed


def test_times_are_per_call():
    assert set(ticking(tiny("matmul")).rounds[OURS]) == {1}


def test_a_quick_run_prints_a_table_and_writes_json(tmp_path, capsys):
    path = tmp_path / "times.json"
    assert main(["--quick", "--only", "matmul", "--json", str(path)]) == 0
    printed = capsys.readouterr().out
    assert "numpy.einsum" in printed
    assert "\nmatmul " in printed
    written = json.loads(path.read_text())
    assert set(written["machine"]) >= {"cpu", "cores"}
    assert written["versions"]["numpy"] == np.__version__
    assert written["gradients"] == {}
    [entry] = written["results"]["numpy"]
    assert entry["equation"] == "ij,jk->ik"
    assert entry["faults"] == {}
    assert len(entry["seconds"][OURS]) == len(entry["seconds"]["opt_einsum"]) >= 5


def test_a_report_names_no_host_and_no_path():
    text = json.dumps(report({table.key: {} for table in TABLES}, np))
    assert platform.node() not in text
    assert os.sep not in text


# ---------------------------------------------------------------- gradients


@pytest.mark.parametrize("workload", TINY_GRADIENTS)
def test_every_peer_that_is_installed_has_the_right_gradients(workload):
    result = measured(workload, gradients.peers)
    assert result.faults == {}
    installed = {name for name in ("torch", "jax") if find_spec(name)}
    assert result.rounds.keys() == {FORWARD, VJP, SEPARATE} | installed
    assert all(len(times) == len(result.rounds[VJP]) for times in result.rounds.values())


@pytest.mark.parametrize("workload", TINY_GRADIENTS)
def test_the_reference_is_the_gradient(workload):
    """dL = Re sum conj(y') dy = Re sum conj(x') dx: y is linear in each x, so that any change dx will do."""
    operands, cotangent = workload.operands(), workload.cotangent()
    _, *found = by_hand(workload, reference)(*operands, cotangent)
    for position, gradient in enumerate(found):
        change = np.roll(operands[position], 1)
        changed = [*operands[:position], change, *operands[position + 1 :]]
        expected = np.vdot(cotangent, reference(workload.equation, *changed))
        magnitude = np.linalg.norm(gradient) * np.linalg.norm(change)
        np.testing.assert_allclose(np.vdot(gradient, change), expected, rtol=0, atol=1e-13 * magnitude)


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
@pytest.mark.parametrize("peer", [VJP, SEPARATE])
@pytest.mark.usefixtures("ours_alone")
def test_a_wrong_gradient_is_shown_and_not_timed(peer, wrong, fault, dtype):
    workload = Workload("square", "ij,jk->ik", "i=3 j=3 k=3", "-", dtype)
    right = gradients.peers(workload, np)[peer].call()
    result = measured(workload, gradients.peers, **{peer: lambda: wrong(*right)})
    assert result.faults[peer].startswith(fault)
    assert peer not in result.rounds
    first, second = gradients.row(result).splitlines()
    assert fault[:5] in first
    assert f"{peer}: {fault}" in second


@pytest.mark.parametrize("peer", [VJP, SEPARATE, "torch", "jax"])
def test_a_forgotten_conjugate_is_wrong(peer):
    workload = tiny("complex chain 5")
    peers = gradients.peers(workload, np)
    if peer not in peers:
        pytest.skip(f"{peer} is not installed")
    value, *found = peers[peer].call()
    forgetful = Peer(lambda: (value, *(gradient.conj() for gradient in found)), peers[peer].expected)
    assert "in array 1 of 6" in measure(workload, {peer: forgetful}, CLOCK, seconds=0).faults[peer]


@pytest.mark.usefixtures("ours_alone")
def test_a_peer_that_is_not_installed_is_left_out():
    result = measured(tiny("MTTKRP"), gradients.peers)
    assert gradients.row(result).split()[-2:] == ["-", "-"]
    assert "no threads set" in gradients.header(np)


def test_the_title_says_how_many_threads_the_others_have(monkeypatch):
    monkeypatch.setenv("OPENBLAS_NUM_THREADS", "3")
    monkeypatch.setattr(gradients, "_torch", SimpleNamespace)
    monkeypatch.setattr(gradients, "_jax", SimpleNamespace)
    assert "torch.set_num_threads(3); NPROC=3 for XLA" in gradients.header(np)


def test_without_a_cuda_device_of_their_own_peers_are_left_out_on_a_gpu(monkeypatch):
    monkeypatch.setattr(gradients, "_torch", lambda: SimpleNamespace(cuda=SimpleNamespace(is_available=lambda: False)))
    monkeypatch.setattr(gradients, "_jax", lambda: SimpleNamespace(default_backend=lambda: "cpu"))
    cupy = SimpleNamespace(asarray=np.asarray, lib=np.lib)
    assert gradients.peers(tiny("MTTKRP"), cupy).keys() == {FORWARD, VJP, SEPARATE}


@pytest.mark.usefixtures("ours_alone")
def test_a_wrong_gradient_of_ours_is_an_exit_status(monkeypatch, capsys):
    right = ge.vjp

    def swapped(equation, *operands):
        value, pullback = right(equation, *operands)
        return value, lambda cotangent: pullback(cotangent)[::-1]

    monkeypatch.setattr("benchmarks.gradients.ge.vjp", swapped)
    assert main(["--quick", "--only", "CCSD singles"]) == 1
    assert "WRONG" in capsys.readouterr().out


def test_operations_backward_are_counted_from_the_plan():
    """A product of n x n matrices takes n^2 (2n - 1), a chain of three two of them, and their gradients four."""
    plan = ge.einsum_plan("ab,bc,cd->ad", *[(7, 7)] * 3)
    assert total_flops(plan) == 2 * 49 * 13
    assert flops_ratio(Workload("chain", "ab,bc,cd->ad", "a=7 b=7 c=7 d=7", "-", "float64")) == 3
    # ijk,j->ik takes 5 products and 4 sums for each ik; the gradients 5 products, and for each j 6 products and 5 sums
    assert flops_ratio(Workload("vector", "ijk,j->ik", "i=2 j=5 k=3", "-")) == 1 + (30 + 55) / 54


def test_rows_are_gemm_bound_by_operations_per_byte():
    bound = {workload.name for workload in GRADIENTS if is_gemm_bound(workload)}
    assert bound > {"matrix chain 3", "matrix chain 10", "matrix chain 20", "complex chain 5", "CCSD ladder"}
    assert bound.isdisjoint({"MTTKRP", "Tucker", "MPS overlap"})
    assert not is_gemm_bound(tiny("matrix chain 3"))


def test_the_summary_names_what_takes_too_long():
    slow, fast, small = (
        Result(next(workload for workload in GRADIENTS if workload.name == name), {FORWARD: (1.0,) * 5, VJP: times})
        for name, times in (
            ("CCSD ring", (3.4, 3.5, 3.6, 3.7, 3.8)),
            ("CCSD ladder", (2.8, 2.9, 3.0, 3.1, 3.2)),
            ("MPS overlap", (9.0,) * 5),  # which is not GEMM-bound
        )
    )
    text = "at most 3.60 times as long as the value (CCSD ring); above 3.3: CCSD ring"
    assert text in gradients.summary([slow, fast, small], np)
    assert "(CCSD ladder); above 3.3: none" in gradients.summary([fast], np)
    assert gradients.summary([small], np) == "no GEMM-bound row to compare"
    assert "CCSD ring *" in gradients.row(slow)
    assert "3.60  3.50-3.70" in gradients.row(slow)


@pytest.mark.usefixtures("ours_alone")
def test_a_name_of_both_tables_runs_both_and_json_has_a_key_for_each(tmp_path, capsys):
    path = tmp_path / "times.json"
    assert main(["--quick", "--only", "MPS overlap", "--json", str(path)]) == 0
    printed = capsys.readouterr().out
    assert "numpy.einsum" in printed
    assert "vjp/forward" in printed
    assert printed.count("\nMPS overlap ") == 2  # a row of each table
    written = json.loads(path.read_text())
    [einsum], [entry] = written["results"]["numpy"], written["gradients"]["numpy"]
    shared = {"name", "equation", "shapes", "dtype", "source", "median_seconds", "seconds", "faults", "ratio_quartiles"}
    assert einsum.keys() == shared | {"best"}
    assert entry.keys() == shared | {"flops_ratio", "flops_per_byte", "is_gemm_bound"}
    assert entry["seconds"].keys() >= {FORWARD, VJP, SEPARATE}
    assert entry["dtype"] == "complex128"


def test_an_unknown_name_is_refused(capsys):
    with pytest.raises(SystemExit):
        main(["--only", "nothing of the kind"])
    assert "matmul" in capsys.readouterr().err
