"""Contractions within limits of memory: their values are known, and what is measured of them is what is said."""

import json

import pytest

import gpueinsum as ge
from benchmarks import markdown, memory
from benchmarks.instances import lattice
from benchmarks.limited import amplitude, four_tensors, ising, quadratic_forms, sixteen_features, spins, triples
from benchmarks.sliced import measure, sample

BUFFERS = 320 << 10  # bytes of numpy's own, and of Python's objects
TABLES = [(memory.LIMITED, memory.Limited, "limited"), (memory.GRADIENTS, memory.Gradients, "gradients")]
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
