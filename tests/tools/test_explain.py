"""Plans as tables."""

import itertools
import json
import re

import numpy as np
import pytest

import gpueinsum as ge
from gpueinsum.text import bytes_text, count_text
from gpueinsum.tools.explain import explain


def rows(text: str) -> list[dict[str, str]]:
    """The table of an explanation, a dictionary per step."""
    lines = text.splitlines()
    start = next(number for number, line in enumerate(lines) if line.startswith("step "))
    headings = lines[start].split()
    steps = lines[start + 1 : lines.index("", start)]
    return [dict(zip(headings, _cells(line), strict=True)) for line in steps]


def _cells(line: str) -> list[str]:
    """Columns are two spaces apart; a number and its unit are one."""
    return [cell.strip() for cell in line.split("  ") if cell.strip()]


def test_each_step_shows_its_roles_and_costs() -> None:
    text = explain(ge.einsum_plan("bij,bjk->bik", (3, 5, 7), (3, 7, 11)))
    assert rows(text) == [
        {
            **{"step": "%2", "kind": "contract", "einsum": "bij,bjk->bik"},
            **{"batch": "3", "rows": "5", "columns": "11", "summed": "7"},
            **{"flops": "2.15 k", "moved": "3.91 KiB", "result": "1.29 KiB"},  # 165 * 13; 8 * (105 + 231 + 165)
        }
    ]
    assert "sizes: b=3 i=5 j=7 k=11" in text
    assert "total: 2.15 k flops, 3.91 KiB moved, 0.535 flops per byte" in text


def test_reductions_and_expansions_have_no_sides() -> None:
    reduce, contract, expand = rows(explain(ge.einsum_plan("bii,bj->jjb", (5, 7, 7), (5, 3))))
    assert (reduce["kind"], reduce["rows"], reduce["summed"]) == ("reduce", "-", "7")
    assert (contract["kind"], contract["batch"], contract["columns"]) == ("contract", "5", "3")
    assert (expand["kind"], expand["summed"], expand["result"]) == ("expand", "-", "360 B")


def test_a_transposition_is_a_view() -> None:
    [step] = rows(explain(ge.einsum_plan("ij->ji", (3, 5))))
    assert (step["moved"], step["result"]) == ("view", "0 B")


def test_a_plan_of_no_steps_says_so() -> None:
    assert explain(ge.einsum_plan("ij->ij", (3, 5))).endswith("no steps: the result is operand 0 itself")


def test_a_scalar_plan_has_no_sizes() -> None:
    text = explain(ge.einsum_plan(",->", (), ()))
    assert "sizes" not in text
    assert rows(text)[0]["einsum"] == ",->"


def test_the_largest_intermediate_is_not_the_result() -> None:
    text = explain(ge.einsum_plan("ij,jk,kl->il", (300, 5), (5, 7), (7, 2)))
    assert "largest intermediate: %3 jl, 10 elements, 80 B" in text
    assert "largest" not in explain(ge.einsum_plan("ij,jk->ik", (3, 5), (5, 7)))


def test_hundreds_of_steps_stay_a_line_each() -> None:
    chain = [chr(0x4E00 + n) for n in range(400)]
    terms = ",".join(a + b for a, b in itertools.pairwise(chain))
    plan = ge.einsum_plan(f"{terms}->{chain[0]}{chain[-1]}", *[(2, 2)] * 399, optimize="greedy")
    text = explain(plan)
    assert len(rows(text)) == len(plan.steps) == 398
    assert all(len(line) <= 110 for line in text.splitlines()[1:])


def test_columns_line_up_whatever_the_labels() -> None:
    lines = explain(ge.einsum_plan("漢e\u0301,\u0301字->漢字", (2, 3, 5), (5, 7))).splitlines()
    start = lines.index("") + 1
    heading, *steps = lines[start : lines.index("", start)]
    assert len(steps) == 2
    assert all(line.rindex("  ") + 2 == heading.index("einsum") for line in steps)
    assert "\\u0301=5" in lines[1]


def test_sizes_beyond_floats_are_shown() -> None:
    plan = ge.einsum_plan("abcd,efgh->abcdefgh", *[(10**50,) * 4] * 2)
    assert rows(explain(plan))[0]["flops"] == "1.00e+400"


def test_dtypes_change_bytes() -> None:
    plans = [ge.einsum_plan("ij,jk->ik", (64, 64), (64, 64), dtype=dtype) for dtype in ("float16", "complex128")]
    assert [rows(explain(plan))[0]["result"] for plan in plans] == ["8 KiB", "64 KiB"]


def test_a_plan_read_back_explains_the_same() -> None:
    plan = ge.einsum_plan("iij,jk->k", (3, 3, 5), (5, 7))
    assert json.loads(plan.to_json())
    assert explain(ge.Plan.from_json(plan.to_json())) == explain(plan)


@pytest.mark.parametrize(
    ("number", "text"),
    [(0, "0 B"), (1023, "1023 B"), (1024, "1 KiB"), (1536, "1.5 KiB"), (2**20 - 1, "1 MiB"), (5 * 2**60, "5 EiB")],
)
def test_bytes_are_readable(number: int, text: str) -> None:
    assert bytes_text(number) == text


@pytest.mark.parametrize(
    ("number", "text"),
    [(0, "0"), (7, "7"), (999, "999"), (1000, "1 k"), (999_999, "1 M"), (1.5, "1.5"), (3e21, "3.00e+21")],
)
def test_counts_are_readable(number: float, text: str) -> None:
    assert count_text(number) == text


def test_numbers_from_numpy_shapes_are_fine() -> None:
    assert "float32" in explain(ge.einsum_plan("ij->", np.ones((3, 5), np.float32)))


def test_for_a_device_it_says_how_long_and_how() -> None:
    plan = ge.einsum_plan("fbea,ecfd->dcba", (72,) * 4, (72,) * 4)
    text = explain(plan, "h200")
    product, view = rows(text)
    assert product["time"].endswith(" ms")
    assert (view["moved"], view["time"]) == ("view", "-")
    assert "predicted on h200 (NVIDIA H200" in text
    taken, *others = text.split("\n\n")[-1].splitlines()[1:]
    assert taken.split()[0] == "copy"
    assert {"fbea", "ecfd"} < set(taken.split())
    assert "5184 x 5184 x 5184, one call" in taken
    assert others
    assert all(line.split()[0] == "or" for line in others)
    assert product["floor"].endswith(" ms")
    [nothing] = [line for line in others if "copy nothing" in line]
    assert re.search(r"tiles of \d+ x \d+ x \d+ ", nothing)
    odd_halves = explain(ge.einsum_plan("fbea,ecfd->dcba", (73,) * 4, (73,) * 4, dtype="float16"), "h200")
    assert "of pointers" not in odd_halves


def test_it_says_which_products_are_called_by_pointers() -> None:
    text = explain(ge.einsum_plan("bqhd,bkhd->bhqk", *[(8, 32, 16, 64)] * 2, dtype="float32"), "h200")
    assert "32 x 64 x 32, batch of 128, one call of pointers" in text


def test_for_a_device_the_plan_is_the_one_that_it_runs() -> None:
    plan = ge.einsum_plan("i,ij,j->ij", (1500,), (1500, 1600), (1600,), dtype="float32")
    assert len(rows(explain(plan))) == 2
    [step] = rows(explain(plan, "h200"))
    assert step["kind"] == "fused"


@pytest.mark.parametrize("device", ["h200", "a100", "cpu"])
def test_small_plans_have_times_too(device: str) -> None:
    plan = ge.einsum_plan("ij,jk,kl->il", (40, 30), (30, 20), (20, 10))
    assert all(step["time"].split()[1] in ("µs", "ms", "ns") for step in rows(explain(plan, device)))


def test_a_profile_that_is_not_there_is_refused() -> None:
    with pytest.raises(ge.ProfileError, match="h200"):
        explain(ge.einsum_plan("ij->i", (2, 3)), "h300")
