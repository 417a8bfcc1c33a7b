"""What runs on workers is measured, and predicted for a thousand of them."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from benchmarks import road, scaling
from gpueinsum.costs.profile import profile
from gpueinsum.language.slices import cut


def test_the_road_is_that_of_the_plan(capsys, tmp_path):
    found = road.Road(road.simplex(), profile("h200"), 25e9)
    assert found.operand_bytes == 6 * 4 * 48**5
    assert cut(found.plan).count == 48**4
    assert found.result_bytes == 4
    one, many = found.stages(1), found.stages(1000)
    assert one["slices"] == pytest.approx(found.seconds)
    assert one["slices"] / 1000 <= many["slices"] <= one["slices"] / 1000 * 17 / 16.384 * 1.001
    assert many["operands, one sender"] == pytest.approx(1000 * found.operand_bytes / 25e9)
    assert many["operands, worker to worker"] == pytest.approx(10 * found.operand_bytes / 25e9)
    (tmp_path / "plan.json").write_text(road.simplex(4).to_json())
    road.main(["--plan", str(tmp_path / "plan.json"), "--device", "a100", "--network", "12.5"])
    shown = capsys.readouterr().out
    assert "on a100 (predicted)" in shown
    assert "256 slices" in shown
    assert "1 batches" in shown
    assert shown.count("\n| ") == 7


def test_the_road_is_shown():
    page = Path(__file__).parents[2] / "docs" / "distributed.md"
    if not page.exists():
        pytest.skip("the pages are in a checkout only")
    found, text = road.Road(road.simplex(), profile("h200"), 25e9), page.read_text(encoding="utf-8")
    assert "\n".join(found.facts()) in text
    assert found.table() in text


def test_a_run_on_workers_is_timed(monkeypatch, capsys):
    monkeypatch.setattr(scaling, "_ENGINES", {"threads": ThreadPoolExecutor, "none": missing})
    scaling.main(["--size", "3", "--repeats", "1"])
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].startswith("9 slices")
    assert [line.split(" | ")[0] for line in lines[-2:]] == ["| threads", "| none"]
    assert "not installed" in lines[-1]


def missing(workers):
    raise ImportError
