"""What one asks of `python -m benchmarks`: which rows in which order, beside whom, in which files, without what."""

import sys

import pytest

from benchmarks import __main__ as command
from benchmarks import results
from benchmarks import run as suite
from benchmarks.devices import Host
from benchmarks.results import FLOOR, OURS


def run(*arguments):
    return command.main(["--tiny", "--quick", "--backend", "cpu", *arguments])


def test_rows_come_in_the_order_in_which_they_are_asked_for():
    found = suite.rows_of(Host(), ["permuted sums", "gradients", "tiny pair", "GEMM"])
    families = list(dict.fromkeys(row.family for _, row in found))
    assert families == ["permuted sums", "gradients", "tiny", "GEMM"]
    assert [row.family for _, row in suite.families_in_turn(found)[:4]] == families


@pytest.mark.usefixtures("_short")
def test_only_the_peers_that_are_asked_for_are_measured(tmp_path):
    path = tmp_path / "one.json"
    assert run("--only", "tiny", "MPS overlap", "--peers", "numpy optimized", "--out", str(path)) == 0
    for row in results.read(path).rows:
        assert not row.left_out.keys() & {OURS, "numpy optimized", "forward", "separate"}
        others = {"numpy optimized"} if row.table == "einsum" else {"forward", "separate"}
        assert row.seconds.keys() == {OURS, FLOOR} | others
        assert row.left_out["torch"] == "not asked for"


@pytest.mark.usefixtures("_short", "_alone")
def test_a_file_is_all_that_is_written_where_one_is_named(tmp_path):
    assert run("--only", "tiny pair", "--out", str(tmp_path / "one.json")) == 0
    assert [path.name for path in tmp_path.iterdir()] == ["one.json"]
    assert len(results.read(tmp_path / "one.json").rows) == 1


@pytest.mark.usefixtures("_short", "_alone")
def test_without_pandas_everything_is_measured_and_no_page_promised(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(command, "find_spec", lambda name: None if name == "pandas" else name)
    monkeypatch.setitem(sys.modules, "pandas", None)
    assert run("--only", "tiny pair", "--out", str(tmp_path / "one.json")) == 0
    assert "\nno summary without pandas (pip install 'gpueinsum[bench]')\n" in capsys.readouterr().out
    for asked in (["--out", str(tmp_path)], ["--read", str(tmp_path / "one.json")], ["--compare", "old.json"]):
        assert run(*asked) == 2
        assert "no page, plots or comparison without pandas" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["one.json"]
