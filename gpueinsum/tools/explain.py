"""Plan to text: what each step is and costs, and how a device would run it; reads plans and touches no array."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

from gpueinsum.costs.profile import Profile, device_profile
from gpueinsum.errors import visible
from gpueinsum.language.plan import Plan, check_is_plan
from gpueinsum.language.slices import one_slice
from gpueinsum.schedule.mapping import Gemm
from gpueinsum.schedule.schedule import ScheduledStep, schedule
from gpueinsum.schedule.tiled import Tiled
from gpueinsum.text import seconds_text
from gpueinsum.tools.rows import HEADINGS, Rows, plan_rows, schedule_rows, way_texts

_LEFT_ALIGNED = ("step", "kind", "einsum")
_WIDTH = 110


def explain(plan: Plan, device: str | Profile | None = None) -> str:
    """A plan as a table, a line per step, and what all of it takes.

    `batch`, `rows`, `columns` and `summed` are the sizes of a pair's four roles (rows are its left labels, columns its
    right ones); `moved` counts each operand of a step read once and its result written once, `view` where that is
    nothing at all. Peak memory is `plan.peak_bytes(device)`.

    For a `device` ("h200", "a100", "cpu", the file of a profile, or a profile) it is the plan as that device runs it,
    which need not be there: layouts chosen and steps fused for it, each with its predicted time and its floor, which is
    the largest of its bytes at the device's full rate, its operations at the full rate, and a launch; and below, for
    each product of large arrays, the ways there are to run it, with what they copy and take, the one that is taken
    first.
    A plan with sliced labels is shown by the steps of one slice, with the number of slices and what all of them take.
    Raises PlanError for what is no plan, ProfileError for what is no device.

    >>> from gpueinsum.api.einsum import einsum_plan
    >>> plan = einsum_plan("ij,jk,kl->il", (40, 30), (30, 20), (20, 10))
    >>> print(explain(plan))
    ij,jk,kl->il  float64
    sizes: i=40 j=30 k=20 l=10
    <BLANKLINE>
    step  kind      batch  rows  columns  summed   flops     moved    result  einsum
    %3    contract      1    30       10      20  11.7 k  8.59 KiB  2.34 KiB  jk,kl->jl
    %4    contract      1    40       10      30  23.6 k  14.8 KiB  3.12 KiB  ij,jl->il
    <BLANKLINE>
    total: 35.3 k flops, 23.4 KiB moved, 1.47 flops per byte
    peak memory of intermediates and result: 5.47 KiB
      (casts of operands, and copies of what fits no product as it lies, come on top)
    largest intermediate: %3 jl, 300 elements, 2.34 KiB
    """
    check_is_plan(plan)
    if device is None:
        rows = plan_rows(plan)
        cells = [(*row.cells, f"{row.einsum}  {row.note}") for row in rows.steps]
        return _text(plan, rows, (*HEADINGS, "einsum"), cells)
    profile = device if isinstance(device, Profile) else device_profile(device)
    made = schedule(one_slice(plan), profile, alternatives=True)
    rows = schedule_rows(made, plan)
    cells = [
        (*row.cells, *(seconds_text(time) if time else "-" for time in (row.seconds, row.floor)), row.einsum)
        for row in rows.steps
    ]
    ways = [
        line
        for row, step in zip(rows.steps, made.steps, strict=True)
        if any(isinstance(way.way, Gemm | Tiled) or way.copies for way in step.candidates)
        for line in ("", f"%{row.register} = {row.einsum}", *_ways(step))
    ]
    return _text(plan, rows, (*HEADINGS, "time", "floor", "einsum"), cells, ways)


def _text(
    plan: Plan, rows: Rows, headings: tuple[str, ...], cells: list[tuple[str, ...]], ways: Sequence[str] = ()
) -> str:
    """Equation, sizes, table, what all of it takes; then the ways."""
    head = [f"{visible(plan.equation)}  {plan.dtype}"]
    if plan.sizes:
        sizes = "sizes: " + " ".join(f"{visible(label)}={number}" for label, number in plan.sizes)
        indent = " " * len("sizes: ")
        head += textwrap.wrap(sizes, _WIDTH, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False)
    if not cells:
        results = [f"result is operand {output} itself" for output in rows.registers.outputs]
        return "\n".join([*head, "", f"no steps: the {', the '.join(results)}"])
    return "\n".join([*head, "", *table(headings, cells), "", *rows.totals, *ways])


def table(headings: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> list[str]:
    """The lines of a table whose columns are as wide as need be.

    A step's einsum is the last column, so that neither its length nor its glyphs move the others.
    """
    lines = [headings, *rows]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    aligned = ("<" if heading in _LEFT_ALIGNED else ">" for heading in headings)
    layout = "  ".join(f"{{:{side}{width}}}" for side, width in zip(aligned, widths, strict=True))
    return [layout.format(*line).rstrip() for line in lines]


def _ways(step: ScheduledStep) -> list[str]:
    """The ways to run a step, the one that is taken first."""
    ways = [found for found in step.candidates if not (isinstance(found.way, Gemm) and found.way.as_batch)]
    rows = [(*way_texts(step, candidate.way), seconds_text(candidate.seconds)) for candidate in ways]
    if all(candidate.copies for candidate in step.candidates):
        rows.append(("copy nothing", "fits no product", "-"))
    first, second, third = (max(map(len, column)) for column in zip(*rows, strict=True))
    return [
        f"  {'or' if number else '  '} {copies:<{first}}  {shape:<{second}}  {time:>{third}}"
        for number, (copies, shape, time) in enumerate(rows)
    ]
