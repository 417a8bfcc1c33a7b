"""Plans that are run and timed, whole and step by step."""

import numpy as np
import pytest
from simulated import SimulatedRuntime

import gpueinsum as ge
import gpueinsum.backends.select
from gpueinsum.backends.cuda.backend import CudaBackend
from gpueinsum.language.plan import Plan
from gpueinsum.tools.profiler import measure

CHAIN = ge.einsum_plan("ij,jk,kl->li", (70, 300), (300, 110), (110, 20), dtype="float32")


@pytest.fixture
def device(monkeypatch: pytest.MonkeyPatch) -> SimulatedRuntime:
    """A simulated device that `backend="cuda"` finds, on which each launch takes a millisecond."""
    runtime = SimulatedRuntime()
    backend = CudaBackend(runtime)
    monkeypatch.setattr(gpueinsum.backends.select, "cuda_backend", lambda: backend)
    return runtime


def shapes(plan: Plan) -> list[tuple[int, ...]]:
    return [plan.shape(register) for register in range(len(plan.inputs))]


def test_predicted_seconds_stand_beside_measured_ones(rng: np.random.Generator) -> None:
    measured = measure(CHAIN, [rng.random(shape) for shape in shapes(CHAIN)], runs=3)
    assert len(measured.seconds) == len(measured.rows.steps) == 2
    assert all(0 < seconds < 1 for seconds in measured.seconds)
    head, _, headings, *steps = str(measured).splitlines()
    assert head == "ij,jk,kl->li  float32"
    assert {"predicted", "measured", "ratio", "share"} < {*headings.split()}
    assert [line.split()[0] for line in steps[:2]] == ["%3", "%4"]
    assert steps[1].endswith("ij,jl->li  one product")
    assert steps[3].startswith("all steps: predicted ")
    assert steps[4].startswith("whole call: ")
    assert steps[5] == "each is the fastest of 3 runs"


def test_on_a_gpu_it_times_launches(device: SimulatedRuntime) -> None:
    measured = measure(CHAIN, shapes(CHAIN), "cuda", runs=2)
    assert measured.seconds == pytest.approx([1e-3, 1e-3])
    assert measured.lines[1:] == ["whole call: 2.00 ms, 0.00 ns besides its steps", "each is the fastest of 2 runs"]
    assert measured.lines[0].startswith("all steps: predicted ")
    assert ", measured 2.00 ms, " in measured.lines[0]


def test_what_the_device_refuses_is_timed_as_it_is_run_instead(device: SimulatedRuntime) -> None:
    device.refuses = ("pointers",)
    plan = ge.einsum_plan("bqhd,bkhd->bhqk", (3, 2, 5, 7), (3, 11, 5, 7))
    with pytest.warns(RuntimeWarning, match="this device refuses pointers"):
        measured = measure(plan, shapes(plan), "cuda", runs=1)
    assert measured.lines[-1] == "each of one run"
    assert "pointers" not in str(measured)


def test_half_precision_is_timed_as_the_device_computes_it() -> None:
    plan = ge.einsum_plan("ij,jk->ik", (7, 5), (5, 3), dtype="float16")
    assert str(measure(plan, shapes(plan), "cpu", runs=1)).startswith("ij,jk->ik  float32\n")


def test_the_page_shows_both_seconds_and_the_whole_call() -> None:
    measured = measure(CHAIN, shapes(CHAIN), "cpu", runs=1)
    page = measured.page()
    assert all(f"<li>{line}</li>" in page for line in measured.lines)
    assert ">predicted<" in page
    assert ">of measured<" in page


def test_a_plan_of_no_steps_is_timed_as_a_whole() -> None:
    plan = ge.einsum_plan("ij->ij", (3, 5))
    measured = measure(plan, shapes(plan), "cpu", runs=1)
    assert measured.lines[0] == "all steps: predicted 0.00 ns, measured 0.00 ns"
    assert str(measured).startswith("ij->ij  float64\n\nall steps")
    assert "whole call" in measured.page()


def test_operands_that_are_not_the_plans_are_refused() -> None:
    with pytest.raises(ge.PlanError, match="takes operands of shapes"):
        measure(CHAIN, [np.ones((2, 3))] * 3)
    with pytest.raises(ge.PlanError, match="is no Plan"):
        measure("ij->i", [])  # type: ignore[arg-type]  # as a user might
