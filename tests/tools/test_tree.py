"""The lines of contraction trees."""

import itertools
import math

import pytest

import gpueinsum as ge
from gpueinsum.language.plan import Plan
from gpueinsum.language.steps import Add, Contract, Reduce
from gpueinsum.tools.tree import tree


def chain(operands: int, path: list[tuple[int, int]] | str) -> Plan:
    labels = [chr(0x4E00 + number) for number in range(operands + 1)]
    terms = ",".join(a + b for a, b in itertools.pairwise(labels))
    return ge.einsum_plan(f"{terms}->{labels[0]}{labels[-1]}", *[(2, 2)] * operands, optimize=path)


def check(plan: Plan) -> int:
    """Every array is there once, and once more for each time that it is read again; how many lanes there are."""
    lines = tree(plan)
    operands = len(plan.inputs)
    assert sorted(line.register for line in lines if not line.is_again) == list(range(operands + len(plan.steps)))
    open_lines: dict[int, int] = {}  # in each lane, the line whose parent is to come
    shown: set[int] = set()
    for number, line in enumerate(lines):
        assert line.is_again == (line.register in shown)
        shown.add(line.register)
        step = plan.steps[line.register - operands] if line.register >= operands and not line.is_again else None
        read = [lines[child].register for child in line.children]
        assert sorted(read) == sorted(step.sources if step else ())
        for child in line.children:
            assert open_lines.pop(lines[child].lane) == child
        assert line.lane not in open_lines
        if any(line.register in step.sources for step in plan.steps):
            open_lines[line.lane] = number
    assert open_lines == {}
    return 1 + max(line.lane for line in lines)


def test_a_deep_chain_needs_two_lanes() -> None:
    inward = [(0, 1), *[(0, 1998 - number) for number in range(1998)]]
    assert check(chain(2000, inward)) == 2


def test_a_balanced_tree_needs_a_lane_for_each_level() -> None:
    path = [(0, 1)] * 1023
    assert check(chain(1024, path)) == 1 + math.log2(1024)


@pytest.mark.parametrize("operands", [1, 2, 3, 10, 300])
def test_what_is_read_again_has_a_line_of_its_own(operands: int) -> None:
    plan = chain(operands, "greedy")
    check(plan)
    backward = plan.vjp()
    assert check(backward) <= 2 + math.log2(len(backward.steps) + 2)
    assert any(line.is_again for line in tree(backward)) == (operands > 1)


def test_what_nothing_reads_comes_last_and_what_is_read_twice_by_a_step_comes_twice() -> None:
    steps = (Reduce(1, "ij", "i"), Contract(3, 3, "i", "i", ""), Add((), "ij"))
    plan = Plan(("ij", "ij", "k"), steps, (4, 1, 3), (("i", 2), ("j", 3), ("k", 5)), "float64")
    check(plan)
    assert [(line.register, line.is_again) for line in tree(plan)] == [
        (1, False),
        (3, False),
        (3, True),
        (4, False),
        (5, False),
        (0, False),
        (2, False),
    ]
