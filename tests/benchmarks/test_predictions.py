"""What was predicted beside what was measured: steps alone, whole plans, bytes; kept, and held against profiles."""

import json
from dataclasses import replace

import numpy as np
import pytest

import gpueinsum as ge
from benchmarks import predictions, results, timed
from benchmarks.devices import Host
from benchmarks.results import ResultsError
from benchmarks.suite import EINSUMS
from benchmarks.timed import TimedPlan, TimedStep, Timings
from gpueinsum.costs.profile import profile
from gpueinsum.language.plan import Plan
from gpueinsum.language.steps import Add, Contract, Expand, Reduce
from gpueinsum.schedule.fusion import Fused
from gpueinsum.schedule.predict import step_seconds
from gpueinsum.schedule.schedule import schedule

CPU = profile("cpu")
PRODUCT = TimedStep("Contract", "AB,BC->AC", {"A": 300, "B": 200, "C": 100}, 1)


@pytest.fixture
def _short(monkeypatch):
    monkeypatch.setattr(timed, "_SECONDS", 0.0)


def timings_of(*plans, kind="cuda"):
    return Timings(
        "2026-11-22T00:00:00+00:00", {"name": "a device", "kind": kind}, {}, json.loads(CPU.to_json()), plans
    )


def a_plan(row="einsum: some", seconds=(1e-3,), steps=(PRODUCT,), **fields):
    return TimedPlan(row, "float32", steps, seconds, 100, 100, **fields)


@pytest.mark.parametrize(
    "step",
    [
        Contract(0, 1, "AB", "BC", "AC"),
        Contract(0, 1, "AB", "BC", "CA", conj_lhs=True),
        Contract(0, 1, "AB", "BC", "CA", conj_rhs=True),
        Fused((0, 1, 2), ("A", "AB", "B"), "A", (True, False, True)),
        Reduce(0, "AAB", "B"),
        Expand(0, "A", "AAB"),
        Add((0, 1, 2), "AB"),
        Add((0,), "AB"),
        Add((), "AB"),
    ],
    ids=str,
)
def test_a_step_is_made_again_from_what_is_written_of_it(step):
    assert timed._step(type(step).__name__, str(step)) == step


@pytest.mark.parametrize(("kind", "equation"), [("Contract", "AB->A"), ("Reduce", "A,B->"), ("eval", "A->A")])
def test_what_is_no_step_is_refused(kind, equation):
    with pytest.raises(ResultsError, match="is no step"):
        timed._step(kind, equation)


def test_steps_that_differ_in_names_alone_are_one():
    plan = Plan(
        ("ij", "jk", "kl"),
        (
            Contract(0, 1, "ij", "jk", "ik"),
            Contract(3, 2, "ik", "kl", "il"),
            Reduce(4, "il", "li"),
            Reduce(5, "li", "l"),
        ),
        (6,),
        tuple({"i": 4, "j": 5, "k": 5, "l": 5}.items()),
        "float32",
    )
    product, total = timed._distinct(schedule(plan, CPU))
    assert product == TimedStep("Contract", "AB,BC->AC", {"A": 4, "B": 5, "C": 5}, 2)
    assert total == TimedStep("Reduce", "AB->A", {"A": 5, "B": 4}, 1)  # and no view


def test_a_step_is_predicted_by_any_profile():
    for name in ("cpu", "h200"):
        wanted = step_seconds(Contract(0, 1, "AB", "BC", "AC"), PRODUCT.sizes, "float32", profile(name))
        assert PRODUCT.predicted("float32", profile(name)) == wanted
    twice = replace(PRODUCT, times=2, seconds=(1.0, 3.0, 2.0))
    assert twice.ratio("float32", CPU) == 2.0 / PRODUCT.predicted("float32", CPU)
    assert a_plan(steps=(PRODUCT, twice)).predicted(CPU) == 3 * PRODUCT.predicted("float32", CPU)


@pytest.mark.parametrize("device", ["cpu", "h200"])
def test_what_is_predicted_of_a_pair_is_what_its_schedule_says(device):
    for row in EINSUMS:
        if (row := row.on("cpu")) is not None and len(row.shapes) == 2:
            made = schedule(ge.einsum_plan(row.equation, *row.shapes, dtype="float32"), profile(device))
            taken = a_plan(steps=timed._distinct(made))
            assert taken.predicted(profile(device)) == pytest.approx(made.seconds), row.name


@pytest.mark.usefixtures("_short")
def test_every_row_can_be_timed_and_read_again(tmp_path, capsys):
    kept = tmp_path / "kept.json"
    assert predictions.main(["--backend", "cpu", "--tiny", "--out", str(kept)]) == 0
    shown = capsys.readouterr().out
    found = results.read_as(Timings, predictions.SCHEMA, kept, timed.check)
    rows = [row.on("cpu") for row in EINSUMS]
    assert {plan.row for plan in found.plans} >= {
        f"einsum: {row.name}, float32" for row in rows if row and row.dtype == "float32"
    }
    assert all(plan.seconds and plan.bytes_taken for plan in found.plans)
    assert all(any(step.seconds for step in plan.steps) for plan in found.plans)
    assert "matrix chain 20" in shown
    assert f"{len(found.plans)} of {len(found.plans)} plans took no more bytes than predicted" in shown
    assert predictions.main(["--read", str(kept)]) == 0
    came, again = shown.splitlines(), capsys.readouterr().out.splitlines()
    assert [line.partition("  ")[0] for line in came[: len(found.plans)]] == [plan.row for plan in found.plans]
    assert len(again) == len(came) - len(found.plans)
    assert predictions.main(["--read", str(kept), "--profile", "h200", "a100"]) == 0
    again = capsys.readouterr().out
    assert "predicted by h200" in again
    assert "predicted by a100" in again


@pytest.mark.usefixtures("_short")
def test_a_plan_of_several_steps_is_timed_step_by_step():
    plan = ge.einsum_plan("ij,jk,kl->il", (64, 96), (96, 80), (80, 72), dtype="float32")
    found = timed._timed_plan("a chain", plan, Host(), CPU)
    assert [(step.kind, step.times) for step in found.steps] == [("Contract", 1)] * 2
    assert all(step.seconds for step in found.steps)
    assert found.bytes_taken >= 4 * 64 * 72


@pytest.mark.usefixtures("_short")
def test_a_plan_that_fails_is_told_of_and_the_others_are_measured(monkeypatch, capsys):
    def peak_bytes(place, call):
        raise MemoryError("too large")

    monkeypatch.setattr(Host, "peak_bytes", peak_bytes)
    assert predictions.main(["--backend", "cpu", "--tiny", "--only", "GEMM"]) == 1
    shown = capsys.readouterr().out
    assert "einsum: matmul, float32  FAILED: MemoryError: too large" in shown
    assert "plans could not be measured: einsum: matmul, float32; " in shown


def test_the_median_and_the_worst_are_reported():
    second = PRODUCT.predicted("float32", CPU)
    plans = [
        a_plan(row, seconds=(factor * second,), steps=(replace(PRODUCT, seconds=(factor * second,)),))
        for row, factor in (("slow", 4.0), ("even", 1.0), ("fast", 0.5), ("also even", 1.0), ("slower", 2.0))
    ]
    text = "\n".join(predictions.report(timings_of(*plans), CPU))
    wanted = (
        "took 1.00 times as long as predicted (median; quartiles 1.00–2.00), "
        "at the most 4.00 ({}), at the least 0.50 ({})"
    )
    assert "5 plans " + wanted.format("slow", "fast") in text
    assert "5 steps " + wanted.format("AB,BC->AC of slow", "AB,BC->AC of fast") in text


def test_each_family_is_judged_by_factors_in_either_direction():
    second = PRODUCT.predicted("float32", CPU)
    plans = [
        a_plan(f"einsum: {name}, float32", seconds=(factor * second,))
        for name, factor in (("matmul", 2.0), ("linear layer", 0.25), ("matmul", 8.0), ("MTTKRP", 1.0))
    ]
    lines = list(predictions.judgement(timings_of(*plans, a_plan("einsum: Tucker", seconds=(), fault="no")), CPU))
    assert [line.split()[-4:] for line in lines[1:]] == [
        ["3", "4.00", "6.96", "8.00"],  # logarithms of 2, 4 and 8: nine tenths of the way, 4 · 2^0.8
        ["1", "1.00", "1.00", "1.00"],
        ["4", "2.83", "6.50", "8.00"],
    ]
    assert [line[:3] for line in lines[1:]] == ["GEM", "CP ", "all"]


def test_equal_steps_of_other_sizes_all_count():
    steps = [replace(PRODUCT, sizes={"A": size, "B": 200, "C": 100}, seconds=(1.0,)) for size in (100, 200, 300)]
    assert "\n3 steps took " in "\n".join(predictions.report(timings_of(a_plan(steps=tuple(steps))), CPU))


def test_a_plan_that_takes_more_bytes_than_predicted_is_a_failure(tmp_path, capsys):
    path = tmp_path / "kept.json"
    more = replace(a_plan("greedy"), bytes_taken=100 + predictions._SLACK + 1)
    results.write_as(predictions.SCHEMA, timings_of(a_plan(), more), "plans", path)
    assert predictions.main(["--read", str(path)]) == 1
    assert "1 of 2 plans took no more bytes than predicted: all but greedy" in capsys.readouterr().out
    results.write_as(predictions.SCHEMA, timings_of(a_plan(), more, kind="cpu"), "plans", path)
    assert predictions.main(["--read", str(path)]) == 0  # where a pass has scratch


@pytest.mark.parametrize(
    "text", ["", "{}", '{"schema": "gpueinsum-predictions/1"}', '{"schema": "gpueinsum-benchmarks/1"}']
)
def test_what_is_no_file_of_ours_is_refused(tmp_path, capsys, text):
    path = tmp_path / "other.json"
    path.write_text(text)
    assert predictions.main(["--read", str(path)]) == 2
    assert str(path) in capsys.readouterr().err


@pytest.mark.parametrize(
    ("broken", "words"),
    [
        (replace(timings_of(a_plan()), device={}), "no kind or no name"),
        (timings_of(a_plan(seconds=())), "has times that are none"),
        (timings_of(a_plan(steps=(replace(PRODUCT, seconds=(-1.0,)),))), "has times that are none"),
        (timings_of(a_plan(steps=(replace(PRODUCT, sizes={"A": 2}),))), "does not fit its sizes"),
        (timings_of(a_plan(steps=(replace(PRODUCT, kind="exec"),))), "is no step"),
    ],
    ids=["device", "plan", "time", "sizes", "kind"],
)
def test_what_cannot_have_been_measured_is_refused(tmp_path, capsys, broken, words):
    path = tmp_path / "broken.json"
    results.write_as(predictions.SCHEMA, broken, "plans", path)
    assert predictions.main(["--read", str(path)]) == 2
    said = capsys.readouterr().err
    assert words in said
    assert str(path) in said


def test_an_unknown_profile_is_refused_before_anything_is_measured(capsys):
    assert predictions.main(["--profile", "h2000"]) == 2
    assert "there is no device profile 'h2000'" in capsys.readouterr().err


def test_rows_that_are_not_predicted_are_refused(capsys, monkeypatch):
    rows = [("einsum", row) for row in EINSUMS if row.precision]
    monkeypatch.setattr(predictions.suite, "rows_of", lambda *_: rows)
    assert predictions.main(["--backend", "cpu"]) == 2
    assert "prices know no precision" in capsys.readouterr().err


def test_the_bytes_of_a_call_are_those_of_its_arrays():
    def call():
        scratch = np.ones(1 << 20)
        del scratch
        return np.ones(3 << 20)

    assert 24 << 20 <= Host().peak_bytes(call) < (24 << 20) + 2**16
