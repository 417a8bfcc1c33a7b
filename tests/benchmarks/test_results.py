"""Results as values: through JSON and back unchanged, refused where they are broken, and the figures made from them."""

import copy
import dataclasses
import json
import math
from pathlib import Path

import pytest

from benchmarks import frames, results
from benchmarks.results import (
    NOISE,
    SCHEMA,
    Ceilings,
    CopyCeiling,
    GemmCeiling,
    Overhead,
    ResultsError,
    Row,
    Run,
    Spread,
    read,
    write,
)

SECONDS = {
    "gpueinsum": (1.0, 2.0, 4.0),
    "numpy": (3.0, 3.0, 3.0),
    "torch": (1.5, 5.0, 5.0),
    "ceiling": (0.5, 1.5, 4.0),
}


def row(seconds=SECONDS, **changed):
    given = {"table": "einsum", "family": "GEMM", "name": "matmul", "equation": "ij,jk->ik", "dtype": "float32"}
    given |= {"sizes": {"i": 2, "j": 3, "k": 5}, "source": "a paper", "flops": 60, "bytes_moved": 124, "bound": "gemm"}
    return Row(**(given | {"input_sets": 7, "seconds": seconds} | changed))


def everything():
    """A run in which no field has its default."""
    ceilings = Ceilings(
        (
            GemmCeiling("float32", "small", 1, 2, 3, 5, 60, (1.0, 2.0)),
            GemmCeiling("tf32", "large", 1, 2, 3, 5, 60, (0.5,)),
        ),
        (CopyCeiling("cached", 100, (0.25,)), CopyCeiling("memory", 1000, (4.0, 5.0, 6.0))),
        (Overhead("a launch", (1e-6, 3e-6)),),
        {"small GEMM, float64": "FAILED: no memory"},
    )
    changed = {"name": "α chain", "precision": "tf32", "table": "gradients", "own": ("gpueinsum", "forward")}
    changed |= {"faults": {"jax": "WRONG: off by 3"}, "left_out": {"numpy": "too slow"}}
    device = {"kind": "cpu", "name": "a processor", "cores": 2, "threads": None}
    method = {"quick": True, "seconds_per_row": 0.5}
    return Run("2026-01-02T03:04:05+00:00", device, {"numpy": "2.0"}, method, ceilings, (row(), row(**changed)))


@pytest.fixture
def path(tmp_path):
    return tmp_path / "run.json"


@pytest.fixture
def plain(path):
    """What a valid file holds."""
    write(everything(), path)
    return json.loads(path.read_text(encoding="utf-8"))


def plain_times(run):
    """The run with its times as tuples, as `everything` has them."""
    rows = [dataclasses.replace(row, seconds={k: tuple(v) for k, v in row.seconds.items()}) for row in run.rows]
    return dataclasses.replace(run, rows=tuple(rows))


# ---------------------------------------------------------------- to JSON and back


def test_every_field_comes_back_as_it_was(path):
    write(everything(), path)
    assert plain_times(read(path)) == everything()


def test_the_committed_run_is_read():
    [committed] = (Path(results.__file__).parent / "results").glob("cpu-2026-11-30.json")
    assert len(read(committed).rows) == 192


def test_a_file_has_a_line_for_each_row_and_its_schema_first(path):
    write(everything(), path)
    lines = path.read_text(encoding="utf-8").splitlines()
    assert lines[0].startswith(f'{{"schema": "{SCHEMA}", "date"')
    assert [json.loads(line.rstrip(","))["name"] for line in lines[2:-1]] == ["matmul", "α chain"]
    assert SCHEMA == "gpueinsum-benchmarks/1"


def test_times_have_four_digits(path):
    write(dataclasses.replace(everything(), rows=(row({"gpueinsum": (0.000123456789, 2 / 3)}),)), path)
    assert read(path).rows[0].seconds == {"gpueinsum": [0.0001235, 0.6667]}


def test_a_run_that_cannot_be_written_leaves_the_old_file(path):
    path.write_text("of yesterday")
    with pytest.raises(TypeError):
        write(dataclasses.replace(everything(), method={"a set": {1}}), path)
    assert path.read_text() == "of yesterday"
    assert [*path.parent.iterdir()] == [path]


# ---------------------------------------------------------------- broken files


@pytest.mark.parametrize(
    "text", ["", "{", "not JSON", "null", "[]", "{}", '{"schema": "other/1"}', f'{{"schema": "{SCHEMA}"}}']
)
def test_what_no_run_wrote_is_refused(path, text):
    path.write_text(text)
    with pytest.raises(ResultsError, match=str(path)):
        read(path)


def test_a_file_that_cannot_be_read_is_refused(path):
    with pytest.raises(ResultsError, match="No such file"):
        read(path)
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(ResultsError, match=r"run\.json: 'utf-8'"):
        read(path)


def _without_a_name(data):
    del data["rows"][0]["name"]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (_without_a_name, "name"),
        (lambda data: data["rows"][0].update(unheard_of=1), "unheard_of"),
        (lambda data: data["rows"].append(data["rows"][0]), "more than one row is einsum: matmul, float32"),
        (lambda data: data["rows"][0].update(own=[]), "einsum: matmul, float32 names no call of gpueinsum"),
        (lambda data: data["rows"][0]["seconds"]["numpy"].pop(), "float32 has different numbers of rounds"),
        (lambda data: data["rows"][0]["seconds"]["numpy"].clear(), "float32: numpy has times that are none"),
        (lambda data: data["ceilings"]["copy"][0].update(seconds=[0.0]), "a ceiling, .* has times that are none"),
        *[
            (lambda data, x=x: data["rows"][0]["seconds"].update(numpy=[x] * 3), "times that are none")
            for x in (0, -1.0, math.nan, math.inf, True, None, "1.0", [1.0])
        ],
    ],
)
def test_what_cannot_have_been_measured_is_refused(path, plain, change, words):
    broken = copy.deepcopy(plain)
    change(broken)
    path.write_text(json.dumps(broken))
    with pytest.raises(ResultsError, match=words):
        read(path)


# ---------------------------------------------------------------- figures


@pytest.mark.parametrize(
    ("samples", "expected"),
    [((3.0,), (3, 3, 3)), ((1.0, 2.0), (1.25, 1.5, 1.75)), ((5.0, 1.0, 3.0), (2, 3, 4)), ((1, 2, 3, 4, 5), (2, 3, 4))],
)
def test_a_spread_is_quartiles_and_median(samples, expected):
    assert Spread.of(samples) == expected


def test_ratios_are_those_of_each_round_not_of_the_medians():
    assert row().ratio("numpy") == (1.125, 1.5, 2.25)  # 3, 1.5, 0.75
    assert row().ratio("torch") == (1.375, 1.5, 2.0)  # 1.5, 2.5, 1.25
    assert row().share == (0.625, 0.75, 0.875)  # 0.5, 0.75, 1
    assert row().ratio("jax") is None
    assert row({"numpy": (1.0,)}).ratio("numpy") is None


def test_ours_and_the_ceiling_are_no_peers():
    assert row().peers == ("numpy", "torch")
    assert row(own=("gpueinsum", "torch")).peers == ("numpy",)


def test_the_best_peer_has_the_least_median_and_gives_the_lead():
    assert row().best() == "numpy"  # 3 where torch takes 5
    assert row().best(["torch", "ceiling", "jax"]) == "torch"
    assert row().best([]) is None
    assert row().lead() == row().ratio("numpy")
    assert row().lead(["torch"]) == row().ratio("torch")
    assert row({"gpueinsum": (1.0,), "ceiling": (0.5,)}).lead() is None


@pytest.mark.parametrize(
    ("ratios", "outcome"),
    [
        ((1.02, 1.04, 1.06), "even"),  # the lower quartile is 1.03
        ((1.04, 1.04, 1.06), "won"),
        ((0.94, 0.96, 0.98), "even"),  # the upper quartile is 0.97
        ((0.94, 0.96, 0.97), "lost"),
        ((0.5, 0.5, 0.5, 1.2, 1.2), "even"),  # a wide spread
        ((1 - 1.1 * NOISE,), "lost"),
    ],
)
def test_won_even_and_lost_are_told_by_the_quartiles(ratios, outcome):
    assert row({"gpueinsum": (1.0,) * len(ratios), "numpy": ratios}).outcome == outcome


def test_a_row_without_a_peer_is_alone_and_only_a_fault_of_ours_makes_it_wrong():
    assert row({"gpueinsum": (1.0,)}).outcome == "alone"
    right = row(faults={"numpy": "FAILED: no"})
    wrong = row(own=("gpueinsum", "forward"), faults={"forward": "WRONG: 1"})
    assert (right.outcome, wrong.outcome) == ("won", "wrong")
    assert not dataclasses.replace(everything(), rows=(right,)).is_wrong
    assert dataclasses.replace(everything(), rows=(right, wrong)).is_wrong


def test_rates_are_work_over_our_median():
    assert (row().flops_per_second, row().bytes_per_second) == (30, 62)
    assert (row({}).flops_per_second, row({}).bytes_per_second) == (None, None)
    assert row().intensity == 60 / 124
    assert row(bytes_moved=0).intensity == 60


def test_ceilings_are_the_fastest_gemm_and_the_largest_copy():
    ceilings = everything().ceilings
    assert ceilings.flops_per_second("float32") == 40  # 60 in a median of 1.5 s
    assert ceilings.flops_per_second("int64") is None
    assert ceilings.bytes_per_second == 200  # of the largest, though the cached one is faster
    assert Ceilings((), (), ()).bytes_per_second is None


def test_a_family_has_geometric_means_over_the_rows_that_have_a_peer():
    rows = [row({"gpueinsum": (1.0,), "numpy": (x,), "torch": (9.0,)}, name=f"{x}") for x in (2.0, 8.0)]
    rows += [row({"gpueinsum": (1.0,)}, name="alone"), row({"gpueinsum": (1.0,), "torch": (0.5,)}, family="b")]
    found = frames.families_frame(dataclasses.replace(everything(), rows=rows))
    assert list(found.index) == ["GEMM", "b", "all"]
    assert found.loc["GEMM", "lead"] == pytest.approx(4)  # √(2 · 8)
    assert found.loc["all", "lead"] == pytest.approx(2)  # ∛(2 · 8 · ½)
    assert found.loc["all", "library"] == pytest.approx(4)
    assert list(found.loc["all", ["rows", "compared", "beside", "won", "lost", "alone"]]) == [4, 3, 2, 2, 1, 1]
