"""What is predicted for the suite without a GPU."""

import pytest

from benchmarks import predicted
from benchmarks.run import FAMILIES
from gpueinsum.costs.profile import profile


@pytest.fixture(scope="module")
def found():
    return list(predicted.predict(profile("h200")))


def test_every_row_of_a_gpu_is_predicted_and_never_faster_than_its_rates(found):
    assert {each.row.family for each in found} == set(FAMILIES)
    for each in found:
        assert 0 < each.share < 1.001, each.row.name


def test_a_row_is_priced_by_hand(found):
    [row] = [each for each in found if each.row.name == "inner product"]
    moved = 2 * 8 * 67108864 + 8
    assert row.least == pytest.approx(moved / profile("h200").bytes_per_second, rel=1e-6)


def test_the_rows_and_their_steps_are_printed_and_then_the_families(capsys):
    assert predicted.main([]) == 0
    shown = capsys.readouterr().out
    assert "unfolded view, float32: " in shown
    assert "one pass: bhksc,bshk->bhsc\n" in shown
    rows, _, table = shown.partition("\n\n")
    assert [line.split("|")[1].strip() for line in table.splitlines()[2:]] == list(FAMILIES)
    assert predicted.main(["--device", "cpu"]) == 0
    assert rows not in capsys.readouterr().out


def test_contractions_of_a_file_are_held_against_their_floors(tmp_path, capsys):
    path = tmp_path / "contractions.txt"
    path.write_text("# a note\nab,ac->bc a=335544320 b=2 c=3\nij,jk->ik i=4096 j=4096 k=4096\n")
    assert predicted.main(["--contractions", str(path), "--dtype", "float64"]) == 0
    first, second, median, launches = capsys.readouterr().out.splitlines()
    assert first.endswith("ab,ac->bc a=335544320 b=2 c=3")
    assert 1 <= float(second.split()[0]) < 1.1  # cuBLAS' own ground
    assert median.startswith("2 rows: ")
    assert launches == "at most 2 launches"
