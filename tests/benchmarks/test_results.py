"""Results as values: through JSON and back unchanged, refused where they are broken, and the figures made from them."""

import copy
import dataclasses
import json
import math

import pytest

from benchmarks import results
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
    geometric_mean,
    mean_lead,
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
    )
    rows = (
        row(),
        row(
            name="α chain",
            precision="tf32",
            table="gradients",
            own=("gpueinsum", "forward"),
            faults={"jax": "WRONG: off by 3"},
            left_out={"numpy": "too slow"},
        ),
    )
    device = {"kind": "cpu", "name": "a processor", "cores": 2, "threads": None}
    method = {"quick": True, "seconds_per_row": 0.5, "order": ["a", {"b": 1}]}
    return Run("2026-01-02T03:04:05+00:00", device, {"numpy": "2.0"}, method, ceilings, rows)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "run.json"


@pytest.fixture
def plain(path):
    """What a valid file holds."""
    write(everything(), path)
    return json.loads(path.read_text(encoding="utf-8"))


def refused(path, data):
    """What `read` says of a file that holds this."""
    path.write_text(data if isinstance(data, str) else json.dumps(data), encoding="utf-8")
    with pytest.raises(ResultsError) as caught:
        read(path)
    assert str(caught.value).startswith(f"{path}: ")
    return str(caught.value)


# ---------------------------------------------------------------- to JSON and back


def test_every_field_comes_back_as_it_was(path):
    write(everything(), path)
    assert read(path) == everything()


def test_the_run_of_that_test_has_no_field_at_its_default():
    last = everything().rows[-1]
    for field in dataclasses.fields(Row):
        if field.default is not dataclasses.MISSING:
            assert getattr(last, field.name) != field.default
        if field.default_factory is not dataclasses.MISSING:
            assert getattr(last, field.name) != field.default_factory()


def test_a_run_of_nothing_comes_back(path):
    nothing = Run("", {}, {}, {}, Ceilings((), (), ()), ())
    write(nothing, path)
    assert read(path) == nothing


def test_a_file_has_a_line_for_each_row_and_its_schema_first(path):
    write(everything(), path)
    lines = path.read_text(encoding="utf-8").splitlines()
    assert lines[0].startswith(f'{{"schema": "{SCHEMA}", "date"')
    assert [json.loads(line.rstrip(","))["name"] for line in lines[2:-1]] == ["matmul", "α chain"]


def test_times_have_four_digits(path):
    write(dataclasses.replace(everything(), rows=(row({"gpueinsum": (0.000123456789, 2 / 3)}),)), path)
    assert read(path).rows[0].seconds == {"gpueinsum": (0.0001235, 0.6667)}


def test_writing_replaces_a_file_and_leaves_no_other(path):
    path.write_text("of yesterday")
    write(everything(), path)
    assert read(path) == everything()
    assert [*path.parent.iterdir()] == [path]


def test_a_run_that_cannot_be_written_leaves_the_old_file(path):
    path.write_text("of yesterday")
    with pytest.raises(TypeError):
        write(dataclasses.replace(everything(), method={"a set": {1}}), path)
    with pytest.raises(UnicodeEncodeError):
        write(dataclasses.replace(everything(), date="\ud800"), path)
    assert path.read_text() == "of yesterday"
    assert [*path.parent.iterdir()] == [path]


def test_a_rename_that_fails_leaves_no_temporary_file(path):
    path.mkdir()
    with pytest.raises(OSError, match=path.name):
        write(everything(), path)
    assert [*path.parent.iterdir()] == [path]


# ---------------------------------------------------------------- broken files


@pytest.mark.parametrize("text", ["", "{", "not JSON", '{"schema": ', "\x00", "[" * 200_000, "1" * 10_000])
def test_what_is_no_json_is_refused(path, text):
    refused(path, text)


def test_a_file_that_cannot_be_read_is_refused(path):
    with pytest.raises(ResultsError, match=r"run\.json"):
        read(path)
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(ResultsError, match=r"run\.json: 'utf-8'"):
        read(path)


@pytest.mark.parametrize(
    "data", [None, [], {}, 3, "text", {"schema": "other/1"}, {"schema": None}, [{"schema": SCHEMA}]]
)
def test_what_is_of_another_suite_is_refused(path, data):
    assert "not the results of this suite" in refused(path, json.dumps(data))


def places(data, place=()):
    """Every place in nested lists and dictionaries, but those where anything may stand."""
    items = data.items() if isinstance(data, dict) else enumerate(data) if isinstance(data, list) else ()
    for key, value in items:
        yield (*place, key)
        if (*place, key) not in {("device",), ("method",), ("versions",)}:
            yield from places(value, (*place, key))


def changed_at(data, place, change):
    """A copy, after `change(container, key)` at that place."""
    data = copy.deepcopy(data)
    container = data
    for key in place[:-1]:
        container = container[key]
    change(container, place[-1])
    return data


def lacking(container, key):
    del container[key]


@pytest.mark.parametrize("kind", ["head", "ceilings", "rows"])
def test_a_file_without_a_key_is_refused(path, plain, kind):
    allowed = {"precision", "own", "faults", "left_out"}  # those of a row that have a default
    tried = 0
    for place in places(plain):
        named = {"head": len(place) == 1, "ceilings": place[0] == "ceilings", "rows": place[0] == "rows"}[kind]
        is_field = len(place) in (1, 3) or (place[0] == "ceilings" and len(place) in (2, 4))
        if named and is_field and isinstance(place[-1], str) and place[-1] not in allowed:
            refused(path, changed_at(plain, place, lacking))
            tried += 1
    assert tried >= 5


@pytest.mark.parametrize(
    "place", [(), ("ceilings",), ("ceilings", "gemm", 0), ("ceilings", "overhead", 0), ("rows", 0)]
)
def test_a_key_that_nobody_knows_is_refused(path, plain, place):
    def unknown(container, key):
        container[key] = 1

    assert "unheard_of" in refused(path, changed_at(plain, (*place, "unheard_of"), unknown))


FREE_TEXT = {"date", "table", "family", "name", "equation", "dtype", "source", "bound", "size", "precision"}


@pytest.mark.parametrize(
    "value", [None, True, 3, -1.5, "text", [], {}, [1], [[]], {"a": 1}, {"a": None}, [None], ["a"]]
)
def test_any_value_in_a_wrong_place_is_refused_or_a_right_one(path, plain, value):
    """Whatever stands where: a ResultsError, or a run all of whose figures can be computed."""
    accepted = 0
    for place in places(plain):
        data = changed_at(plain, place, lambda container, key: container.__setitem__(key, value))
        path.write_text(json.dumps(data), encoding="utf-8")
        run, error = read_or_error(path)
        if run is None:
            assert error.startswith(f"{path}: ")
            continue
        accepted += 1
        use(run)
        before = plain
        for key in place:
            before = before[key]
        is_loose = place[0] in ("device", "method") or before is None or place[-1] == "precision"
        assert is_loose or type(value) is type(before), (place, value)
    assert accepted < 40


def read_or_error(path):
    try:
        return read(path), ""
    except ResultsError as error:
        return None, str(error)


def use(run):
    """Everything that is computed from a run."""
    for name in ("families", "is_wrong"):
        getattr(run, name)
    mean_lead(run.rows)
    for each in run.rows:
        for name in (
            "key",
            "peers",
            "is_wrong",
            "is_lost",
            "share",
            "flops_per_second",
            "bytes_per_second",
            "intensity",
        ):
            getattr(each, name)
        each.best(), each.lead(), sorted(each.sizes.items()), [*each.faults.items(), *each.left_out.items()]
    for each in run.ceilings.gemm:
        assert each.flops_per_second >= 0 or each.flops < 0
        run.ceilings.flops_per_second(each.dtype)
    for each in run.ceilings.overhead:
        assert each.median > 0
    _ = run.ceilings.bytes_per_second


@pytest.mark.parametrize("time", [0.0, -1.0, math.nan, math.inf, -math.inf, True, None, "1.0", [1.0]])
def test_times_that_are_none_are_refused(path, plain, time):
    for place in (
        ("rows", 0, "seconds", "numpy", 1),
        *(("ceilings", part, 0, "seconds", 0) for part in ("gemm", "copy", "overhead")),
    ):
        refused(path, changed_at(plain, place, lambda container, key: container.__setitem__(key, time)))


@pytest.mark.parametrize("place", [("rows", 0, "seconds", "numpy"), ("ceilings", "copy", 0, "seconds")])
def test_no_times_at_all_are_refused(path, plain, place):
    refused(path, changed_at(plain, place, lambda container, key: container[key].clear()))


def test_a_peer_with_another_number_of_rounds_is_refused(path, plain):
    found = refused(path, changed_at(plain, ("rows", 0, "seconds", "numpy", 2), lacking))
    assert "einsum: matmul, float32 has different numbers of rounds" in found


def test_two_rows_of_one_name_are_refused(path, plain):
    plain["rows"].append(plain["rows"][0])
    assert "einsum: matmul, float32" in refused(path, plain)


def test_a_row_of_which_nothing_is_ours_is_refused(path, plain):
    plain["rows"][0]["own"] = []
    assert "einsum: matmul, float32" in refused(path, plain)


# ---------------------------------------------------------------- figures


@pytest.mark.parametrize(
    ("samples", "expected"),
    [((3.0,), (3, 3, 3)), ((1.0, 2.0), (1.25, 1.5, 1.75)), ((5.0, 1.0, 3.0), (2, 3, 4)), ((1, 2, 3, 4, 5), (2, 3, 4))],
)
def test_a_spread_is_quartiles_and_median(samples, expected):
    assert Spread.of(samples) == Spread(*expected)


def test_ratios_are_those_of_each_round_not_of_the_medians():
    assert row().ratio("numpy") == Spread(1.125, 1.5, 2.25)  # 3, 1.5, 0.75
    assert row().ratio("torch") == Spread(1.375, 1.5, 2.0)  # 1.5, 2.5, 1.25
    assert row().ratio("gpueinsum", "numpy") == Spread(0.5, 2 / 3, 1)  # 1/3, 2/3, 4/3
    assert row().ratio("jax") is None
    assert row({"numpy": (1.0,)}).ratio("numpy") is None


def test_ours_and_the_ceiling_are_no_peers():
    assert row().peers == ("numpy", "torch")
    assert row(own=("gpueinsum", "torch")).peers == ("numpy",)


def test_the_best_peer_has_the_least_median():
    assert row().best() == "numpy"  # 3 where torch takes 5
    assert row().best(["torch", "ceiling", "jax"]) == "torch"
    assert row().best([]) is None
    assert row({"gpueinsum": (1.0,), "ceiling": (0.5,)}).best() is None


def test_the_lead_is_the_best_peers_time_over_ours():
    assert row().lead() == row().ratio("numpy")
    assert row().lead(["torch"]) == row().ratio("torch")
    assert row({"gpueinsum": (1.0,)}).lead() is None
    assert row({"numpy": (1.0,)}).lead() is None


def test_the_first_of_our_names_is_the_one_compared():
    assert row(own=("torch", "gpueinsum")).lead() == Spread(0.6, 0.6, 1.3)  # numpy over torch: 2, 0.6, 0.6


@pytest.mark.parametrize(
    ("factor", "lost"), [(1.2, False), (1.0, False), (1 - 0.9 * NOISE, False), (1 - 1.1 * NOISE, True)]
)
def test_a_row_is_lost_where_the_upper_quartile_is_below_noise(factor, lost):
    assert row({"gpueinsum": (1.0,), "numpy": (factor,)}).is_lost == lost


def test_a_row_with_a_wide_spread_is_not_lost_by_its_median():
    wide = row({"gpueinsum": (1.0,) * 5, "numpy": (0.5, 0.5, 0.5, 1.2, 1.2)})
    assert wide.lead().median == 0.5
    assert not wide.is_lost


def test_a_row_without_a_peer_is_not_lost():
    assert not row({"gpueinsum": (1.0,)}).is_lost


def test_the_share_is_the_ceilings_time_over_ours():
    assert row().share == Spread(0.625, 0.75, 0.875)  # 0.5, 0.75, 1
    assert row({"gpueinsum": (1.0,)}).share is None


def test_rates_are_work_over_our_median():
    assert (row().flops_per_second, row().bytes_per_second) == (30, 62)
    assert (row({}).flops_per_second, row({}).bytes_per_second) == (None, None)
    assert row().intensity == 60 / 124
    assert row(bytes_moved=0).intensity == 60


def test_a_key_has_the_precision_in_the_place_of_the_dtype():
    assert row().key == "einsum: matmul, float32"
    assert row(precision="tf32", table="gradients").key == "gradients: matmul, tf32"


def test_only_a_fault_of_ours_makes_a_row_and_its_run_wrong():
    right, wrong = (
        row(faults={"numpy": "FAILED: no"}),
        row(own=("gpueinsum", "forward"), faults={"forward": "WRONG: 1"}),
    )
    assert (right.is_wrong, wrong.is_wrong) == (False, True)
    run = everything()
    assert not run.is_wrong
    assert dataclasses.replace(run, rows=(right, wrong)).is_wrong


def test_families_keep_their_rows_in_order():
    rows = [row(family=family, name=name) for family, name in (("b", "1"), ("a", "2"), ("b", "3"))]
    families = dataclasses.replace(everything(), rows=rows).families
    assert {family: [each.name for each in found] for family, found in families.items()} == {
        "b": ["1", "3"],
        "a": ["2"],
    }
    assert [*families] == ["b", "a"]


def test_ceilings_are_the_fastest_gemm_and_the_largest_copy():
    ceilings = everything().ceilings
    assert ceilings.flops_per_second("float32") == 40  # 60 in a median of 1.5 s
    assert ceilings.flops_per_second("tf32") == 120
    assert ceilings.flops_per_second("int64") is None
    assert ceilings.bytes_per_second == 200  # of the largest, though the cached one is faster
    faster = GemmCeiling("float32", "large", 1, 2, 3, 5, 60, (0.5,))
    assert dataclasses.replace(ceilings, gemm=(*ceilings.gemm, faster)).flops_per_second("float32") == 120
    assert Ceilings((), (), ()).bytes_per_second is None
    assert ceilings.overhead[0].median == 2e-6


def test_geometric_means_by_hand():
    assert geometric_mean([2, 8]) == pytest.approx(4)
    assert geometric_mean(iter([1, 10, 100])) == pytest.approx(10)
    assert geometric_mean([]) is None


def test_the_mean_lead_leaves_out_rows_that_have_none():
    rows = [row({"gpueinsum": (1.0,), "numpy": (x,), "torch": (9.0,)}) for x in (2.0, 8.0)]
    alone = row({"gpueinsum": (1.0,)})
    assert mean_lead([*rows, alone]) == pytest.approx(4)
    assert mean_lead([*rows, alone], among=["torch"]) == pytest.approx(9)
    assert mean_lead([alone]) is None


def test_the_module_says_which_schema_it_writes(path, plain):
    assert plain["schema"] == results.SCHEMA == "gpueinsum-benchmarks/1"
