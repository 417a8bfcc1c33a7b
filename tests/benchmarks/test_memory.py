"""Contractions within limits of memory: their values are known, and what is measured of them is what is said."""

import json
from pathlib import Path

import pytest

import gpueinsum as ge
from benchmarks import markdown, memory, overhead
from benchmarks.instances import lattice
from benchmarks.limited import amplitude, four_tensors, ising, quadratic_forms, sixteen_features, spins, triples
from benchmarks.sliced import measure, sample

BUFFERS = 320 << 10  # bytes of numpy's own, and of Python's objects
TABLES = [(memory.LIMITED, memory.Limited, "limited"), (memory.GRADIENTS, memory.Gradients, "gradients")]
RUNS = [(overhead.COLUMNS, overhead.Run, "runs")]
ROOT = Path(__file__).parents[2]
CASES = {
    "four": lambda _: four_tensors(11, "10kB"),
    "quadratic": lambda _: quadratic_forms(600, 7, "100kB"),
    "sixteen": lambda _: sixteen_features((5, 3, 2), "20kB"),
    "circuit": lambda _: amplitude(3, 3, 8, "2kB", "1kB"),
    "spins": lambda _: spins(4, 5, "2kB"),
    "triples": lambda folder: triples(3, 5, folder, "5kB"),
}


@pytest.mark.parametrize("name", CASES)
def test_values_of_cases_are_known(name, tmp_path):
    case = CASES[name](tmp_path)
    result = ge.einsum(case.equation, *case.operands)
    tolerance = 1e-5 if case.dtype in ("float32", "complex64") else 1e-13
    assert case.error(result, [{}]) < tolerance
    assert case.error(1.01 * result, [{}]) > 0.005


@pytest.mark.parametrize("name", ["four", "circuit", "triples"])
def test_values_of_some_slices_are_known(name, tmp_path):
    case = CASES[name](tmp_path)
    plan = ge.einsum_plan(case.equation, *case.operands, memory_limit=case.limits[-1])
    assert plan.slices.number > 2
    found = measure(plan, case, 0)
    assert found.slices_run == 1
    assert found.error < 1e-5


@pytest.mark.parametrize("shape", [(3, 3), (3, 4), (5, 4)])
def test_the_partition_function_is_that_of_the_lattice(shape):
    _, equation, operands = lattice(*shape, 0.3)
    assert ising(*shape, 0.3) == pytest.approx(float(ge.einsum(equation, *operands)), rel=1e-13)


def test_a_share_of_slices_is_the_same_each_time():
    assert sample(7, 1.5) == range(7)
    some = sample(10**12, 1e-10)
    assert len(some) == 100
    assert some == sorted(set(some)) == sample(10**12, 1e-10)
    assert list(sample(5, 0)) == list(sample(5, 0.2))


def test_the_tables_are_those_of_the_file(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(memory, "CASES", CASES)
    monkeypatch.setattr(memory, "DERIVED", {"quadratic": lambda: quadratic_forms(1500, 30)})
    assert memory.main(["--only", "quadratic", "triples", "--out", str(tmp_path / "found.json")]) == 0
    found = json.loads((tmp_path / "found.json").read_text())
    shown = capsys.readouterr().out
    for columns, kind, name in TABLES:
        rows = [kind(**row) for row in found[name]]
        assert "\n".join(markdown.table(columns, rows)) in shown
        for row in rows:
            assert row.limit < row.whole_bytes
            assert row.bytes <= row.limit + BUFFERS
            assert row.error < 1e-12
    assert [len(found[name]) for _, _, name in TABLES] == [2, 1]


def test_overhead_is_that_of_the_plans(monkeypatch):
    monkeypatch.setattr(overhead, "SHARES", (2, 8))
    monkeypatch.setattr(overhead, "find_spec", lambda name: None)
    rows = list(overhead.runs(CASES["circuit"](None), 1.0))
    whole, half, eighth = rows
    assert whole.slices == 1
    assert whole.limit is None
    assert half.limit == whole.bytes // 2
    assert 1 < half.slices < eighth.slices
    assert all(row.error < 1e-5 for row in rows)
    assert all(row.bytes <= row.limit for row in rows[1:])
    assert f"| {eighth.slices} |" in [*markdown.table(overhead.COLUMNS, rows)][-1]


def test_overhead_is_measured_beside_cotengras(monkeypatch):
    pytest.importorskip("cotengra", reason="beside cotengra")
    monkeypatch.setattr(overhead, "SHARES", (8,))
    monkeypatch.setattr(overhead, "_LEAST_SEARCH", 0.1)
    rows = [row for row in overhead.runs(CASES["circuit"](None), 1.0) if row.library == "cotengra"]
    assert [row.slices > 1 for row in rows] == [False, True]
    assert rows[1].bytes <= rows[1].limit
    assert all(row.error < 1e-5 for row in rows)


@pytest.mark.parametrize(("module", "name", "tables"), [(memory, "memory", TABLES), (overhead, "overhead", RUNS)])
def test_committed_results_are_shown(module, name, tables):
    page = ROOT / "docs" / "performance.md"
    if not page.exists():
        pytest.skip("the pages are in a checkout only")
    newest = max((ROOT / "benchmarks" / "results").glob(f"{name}-*.json"))
    found = json.loads(newest.read_text(encoding="utf-8"))
    assert found["schema"] == module.SCHEMA
    for columns, kind, key in tables:
        assert "\n".join(markdown.table(columns, [kind(**row) for row in found[key]])) in page.read_text(
            encoding="utf-8"
        )
