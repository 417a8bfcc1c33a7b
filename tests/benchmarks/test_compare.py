"""Comparing two runs: what moved beyond noise is marked, a loss is named, and nothing is dropped in silence."""

import pytest

from benchmarks.compare import compare
from benchmarks.results import Ceilings, ResultsError, Row, Run

DEVICE = {"kind": "cpu", "name": "a processor", "threads": 2}
WRONG = {"gpueinsum": "WRONG: off by 3"}
KEY = "einsum: matmul, float32"


def row(ours=1.0, scatter=0.02, name="matmul", seconds=None, **changed):
    """A row whose times scatter by so much around `ours`, and whose peers take two seconds."""
    times = {"gpueinsum": [ours * (1 + scatter * x) for x in (-1, -0.5, 0, 0.5, 1)], "numpy": [2.0] * 5}
    given = {"table": "einsum", "family": "GEMM", "name": name, "equation": "ij,jk->ik", "sizes": {"i": 2}}
    given |= {"dtype": "float32", "source": "", "flops": 60, "bytes_moved": 124, "bound": "gemm", "input_sets": 1}
    return Row(**(given | {"seconds": times if seconds is None else seconds} | changed))


def run(*rows, **changed):
    given = {"date": "a day", "device": DEVICE, "versions": {"numpy": "2.0"}, "method": {"seconds_taken": 1}}
    return Run(**(given | {"ceilings": Ceilings((), (), ()), "rows": rows} | changed))


def test_a_run_beside_itself_has_not_moved():
    found = compare(run(row()), run(row()))
    assert (list(found.rows["ratio"]), found.losses) == ([1.0], [])
    assert "0 losses" in found.text()


@pytest.mark.parametrize(
    ("slower", "scatter", "is_beyond_noise", "losses"),
    [
        (1.4, 0.02, True, [KEY]),
        (1 / 1.4, 0.02, True, []),
        (1.08, 0.02, True, []),  # no loss is below 10 %
        (1.4, 0.5, False, []),  # the quartiles overlap
        (1.01, 0.02, False, []),
    ],
)
def test_a_loss_is_slower_by_ten_percent_and_beyond_the_quartiles(slower, scatter, is_beyond_noise, losses):
    found = compare(run(row(scatter=scatter)), run(row(slower, scatter)))
    assert found.rows.loc[KEY, "ratio"] == pytest.approx(1 / slower)
    assert found.rows.loc[KEY, "is_beyond_noise"] == is_beyond_noise
    assert found.losses == losses
    [line] = (line for line in found.text().splitlines() if line.startswith(KEY))
    assert ("*" in line, "loss" in line) == (is_beyond_noise, bool(losses))


def test_the_largest_loss_is_first_and_families_have_geometric_means():
    factors = {"a": 1.5, "b": 2.0, "c": 0.5}
    families = {"a": "GEMM", "b": "tiny", "c": "tiny"}
    old, new = (
        run(*(row(by if is_new else 1, name=name, family=families[name]) for name, by in factors.items()))
        for is_new in (False, True)
    )
    lines = compare(old, new).text().splitlines()
    assert [line[8] for line in lines if line.startswith("einsum")] == ["b", "a", "c"]
    means = {line.split()[0]: line.split()[1:] for line in lines if line.startswith(("GEMM", "tiny", "all"))}
    assert means == {"GEMM": ["1", "1.00", "0.67"], "tiny": ["2", "1.00", "1.00"], "all": ["3", "1.00", "0.87"]}


def test_the_peers_tell_of_a_slower_machine():
    slow = {name: [2 * x for x in times] for name, times in row().seconds.items()}
    found = compare(run(row()), run(row(seconds=slow)))
    assert found.rows.loc[KEY, "machine"] == 0.5


def test_a_row_that_is_newly_wrong_or_no_longer_timed_is_a_loss():
    wrong = row(seconds={}, faults=WRONG)
    assert compare(run(row()), run(wrong)).broken == {KEY: "gpueinsum WRONG: off by 3"}
    assert compare(run(), run(wrong)).losses == [KEY]
    assert compare(run(row()), run(row(seconds={"numpy": [1.0]}))).broken == {KEY: "not timed"}
    assert f"newly wrong: {KEY}: gpueinsum WRONG" in compare(run(row()), run(wrong)).text()


def test_a_wrong_peer_and_a_row_that_was_wrong_before_are_no_losses():
    wrong = row(seconds={}, faults=WRONG)
    assert compare(run(wrong), run(wrong)).losses == []
    assert compare(run(wrong), run(row())).losses == []
    assert compare(run(row()), run(row(faults={"numpy": "FAILED: no"}))).losses == []


def test_rows_of_one_run_only_and_other_expressions_are_named():
    text = compare(run(row(name="former"), row()), run(row(name="latter"), row(equation="ij,kj->ik"))).text()
    assert "only in the old run (1): einsum: former, float32" in text
    assert "only in the new run (1): einsum: latter, float32" in text
    assert f"of the same name, but another expression (1): {KEY}" in text


def test_another_device_is_refused():
    for changed in ({"kind": "cuda"}, {"name": "another"}):
        with pytest.raises(ResultsError, match="the old run is of a processor"):
            compare(run(row()), run(row(), device=DEVICE | changed))


def test_other_differences_are_said_at_the_top():
    changed = {"device": DEVICE | {"threads": 4}, "versions": {"jax": "0.4"}, "method": {"seconds_taken": 7}}
    lines = compare(run(), run(**changed)).text().splitlines()
    assert lines[:4] == [
        "a day -> a day",
        "  differs: threads 2 -> 4",
        "  differs: numpy 2.0 -> unknown",
        "  differs: jax unknown -> 0.4",
    ]
