"""The benchmarks measure what they say: every row runs and is right, and what is wrong is shown, never timed."""

import json
import math
import os
import platform

import numpy as np
import pytest

import gpueinsum as ge
from benchmarks.__main__ import main, report, row, summary
from benchmarks.measure import EINSUMS, OURS, Result, calls, clock_for, geometric_mean, measure
from benchmarks.workloads import WORKLOADS

TINY = [pytest.param(workload.tiny(), id=workload.name) for workload in WORKLOADS]
CLOCK = clock_for(np)


def tiny(name):
    return next(workload.tiny() for workload in WORKLOADS if workload.name == name)


def measured(workload, **changed):
    """The workload measured as short as can be, with some peers' calls changed."""
    operands = workload.operands()
    peers = calls(workload, np, operands) | changed
    return measure(workload, peers, workload.reference(operands), CLOCK, seconds=0)


def ticking(workload):
    """A clock by which every call takes a second."""
    reference = workload.reference(workload.operands())
    return measure(workload, {OURS: lambda: reference.astype(workload.dtype)}, reference, lambda call, loops: loops, 0)


def test_names_are_distinct():
    assert len({workload.name for workload in WORKLOADS}) == len(WORKLOADS)


@pytest.mark.parametrize("workload", TINY)
def test_every_workload_is_planned_from_its_shapes(workload):
    plan = ge.einsum_plan(workload.equation, *workload.shapes, dtype=workload.dtype)
    assert plan.dtype == workload.dtype
    assert [operand.shape for operand in workload.operands()] == list(workload.shapes)


@pytest.mark.parametrize("workload", TINY)
def test_every_peer_of_every_workload_is_right(workload):
    result = measured(workload)
    assert result.faults == {}
    assert result.best in EINSUMS
    assert all(len(times) == len(result.ratios) for times in result.rounds.values())


# One loop over all labels of the chains would take too long, even at these sizes.
@pytest.mark.parametrize("workload", [tiny for tiny in TINY if tiny.values[0].products <= 10**5])
def test_the_reference_is_the_sum_over_every_label(workload):
    operands = workload.operands()
    wide = [operand.astype(np.complex128) for operand in operands]
    expected = np.einsum(workload.equation, *wide, optimize=False)
    np.testing.assert_allclose(workload.reference(operands), expected, rtol=1e-12, atol=1e-12)


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
    assert result.quartiles is None
    first, second = row(result).splitlines()
    assert fault[:5] in first
    assert f"{OURS}: {fault}" in second
    assert summary([result], "numpy") == "nothing to compare"


def test_a_wrong_result_of_ours_is_an_exit_status(monkeypatch, capsys):
    monkeypatch.setattr("benchmarks.measure.ge.einsum", lambda equation, *operands: operands[0])
    assert main(["--quick", "--only", "integer matmul"]) == 1
    assert "WRONG" in capsys.readouterr().out


def test_the_ratio_is_of_the_same_round_and_of_the_fastest_einsum():
    rounds = {OURS: (1.0, 2.0, 4.0), "einsum": (9.0, 9.0, 9.0), "einsum greedy": (2.0, 6.0, 4.0)}
    result = Result(tiny("matmul"), rounds)
    assert result.best == "einsum greedy"
    assert result.ratios == (2.0, 3.0, 1.0)
    assert result.quartiles == (1.5, 2.0, 2.5)
    slow = Result(tiny("partial trace"), {OURS: (4.0, 4.0, 4.0), "einsum": (1.0, 2.0, 3.0)})
    assert "slower" in row(slow)
    assert "slower by more than noise: partial trace" in summary([result, slow], "numpy")
    assert math.isclose(geometric_mean([2.0, 0.5]), 1.0)


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
    [table] = written["results"]["numpy"]
    assert table["equation"] == "ij,jk->ik"
    assert table["faults"] == {}
    assert len(table["seconds"][OURS]) == len(table["seconds"]["opt_einsum"]) >= 5


def test_a_report_names_no_host_and_no_path():
    text = json.dumps(report({}, np))
    assert platform.node() not in text
    assert os.sep not in text


def test_an_unknown_name_is_refused(capsys):
    with pytest.raises(SystemExit):
        main(["--only", "nothing of the kind"])
    assert "matmul" in capsys.readouterr().err
