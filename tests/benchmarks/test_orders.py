"""The benchmark of searches: every search's order is priced, and what was found is kept and read."""

import json

import pytest

from benchmarks import orders
from benchmarks.instances import regular_graph
from benchmarks.orders import Found


def test_each_search_is_priced_and_kept(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(orders, "INSTANCES", (lambda: regular_graph(20, 3), lambda: regular_graph(22, 3)))
    monkeypatch.setattr(orders, "PEER", "no_such_library")
    assert orders.main(["--only", "3-regular graph of 20", "--seconds", "0.1", "--out", str(tmp_path / "a.json")]) == 0
    shown = capsys.readouterr().out
    kept = json.loads((tmp_path / "a.json").read_text())
    assert [each["search"] for each in kept["found"]] == ["greedy"] * 2 + ["random-greedy-128"] * 2 + ["gpueinsum"] * 2
    assert {each["instance"] for each in kept["found"]} == {"3-regular graph of 20"}
    assert all(0 < each["predicted"] < 1 and each["flops"] > 0 for each in kept["found"])
    assert orders.main(["--read", str(tmp_path / "a.json")]) == 0
    assert capsys.readouterr().out in shown


def test_cotengra_is_asked_where_it_is_installed(monkeypatch):
    pytest.importorskip("cotengra", reason="its orders are compared")
    found = list(orders.search(regular_graph(20, 3), [0.1]))
    assert [each.search for each in found][-2:] == ["cotengra"] * 2


def test_means_count_the_best_that_was_found_by_then():
    def found(search, instance, wanted, predicted):
        return Found(instance, 9, "cpu", search, wanted, 0.0, predicted, 1)

    rows = [found("greedy", name, None, 8.0) for name in "ab"]
    rows += [found("gpueinsum", "a", 1.0, 4.0), found("gpueinsum", "b", 1.0, 1.0)]
    rows += [found("gpueinsum", "a", 3.0, 5.0), found("gpueinsum", "b", 3.0, 1.0)]
    assert orders.means(rows).splitlines()[-2:] == ["| cpu | 1 | 4 |", "| cpu | 3 | 4 |"]
