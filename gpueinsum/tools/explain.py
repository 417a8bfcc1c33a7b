"""Plan to text: what each step is and costs, and how a device would run it; reads plans and touches no array."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Mapping

from gpueinsum.backends.execute import scheduled
from gpueinsum.backends.footprint import bytes_on
from gpueinsum.costs.counts import Cost, peak_bytes, step_costs
from gpueinsum.costs.profile import Profile, device_profile
from gpueinsum.errors import visible
from gpueinsum.language.plan import Plan, check_is_plan
from gpueinsum.language.steps import Contract, Reduce, Step
from gpueinsum.language.strides import points
from gpueinsum.language.subscripts import Label
from gpueinsum.schedule.gemm import Product
from gpueinsum.schedule.mapping import Route, routes
from gpueinsum.schedule.predict import case_of, is_routed, step_seconds, way_of
from gpueinsum.text import bytes_text, count_text, seconds_text

_HEADINGS = ("step", "kind", "batch", "rows", "columns", "summed", "flops", "moved", "result", "einsum")
_ROLES = ("batch", "left", "right", "summed")
_LEFT_ALIGNED = ("step", "kind", "einsum")
_WIDTH = 110


def explain(plan: Plan, device: str | Profile | None = None) -> str:
    """A plan as a table, a line per step, and what all of it takes.

    `batch`, `rows`, `columns` and `summed` are the sizes of a pair's four roles (rows are its left labels, columns its
    right ones); `moved` counts each operand of a step read once and its result written once, `view` where that is
    nothing at all. Peak memory is `plan.peak_bytes(device)`.

    For a `device` ("h200", "a100", "cpu", the file of a profile, or a profile) it is the plan as that device runs it,
    which need not be there: layouts chosen and steps fused for it, each with its predicted time; and below, for each
    product of large arrays, the ways there are to run it, with what they copy and take, the one that is taken first.
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
    profile = device if isinstance(device, Profile) or device is None else device_profile(device)
    plan = plan if profile is None else scheduled(plan, profile)
    size = dict(plan.sizes)
    costs = step_costs(plan)
    head = [f"{visible(plan.equation)}  {plan.dtype}", *_label_lines(size), ""]
    if not plan.steps:
        results = [f"result is operand {output} itself" for output in plan.outputs]
        return "\n".join([*head, f"no steps: the {', the '.join(results)}"])
    again = plan.recomputed()
    rows = [
        _row(register, step, cost, size, again.get(register))
        for register, (step, cost) in enumerate(zip(plan.steps, costs, strict=True), len(plan.inputs))
    ]
    if profile is None:
        return "\n".join([*head, *_table(_HEADINGS, rows), "", *_totals(plan, costs, _peak_lines(plan))])
    seconds = [step_seconds(step, size, plan.dtype, profile) for step in plan.steps]
    *before, last = _HEADINGS
    timed = [(*row[:-1], seconds_text(time) if time else "-", row[-1]) for row, time in zip(rows, seconds, strict=True)]
    predicted = f"predicted on {profile.name} ({profile.device}): {seconds_text(sum(seconds))}"
    table = _table((*before, "time", last), timed)
    totals = _totals(plan, costs, _peak_lines_on(profile, plan))
    return "\n".join([*head, *table, "", *totals, predicted, *_products(plan, profile)])


# ---------------------------------------------------------------- lines


def _label_lines(size: Mapping[Label, int]) -> list[str]:
    if not size:
        return []
    text = "sizes: " + " ".join(f"{visible(label)}={number}" for label, number in size.items())
    return textwrap.wrap(text, _WIDTH, subsequent_indent="       ", break_long_words=False, break_on_hyphens=False)


def _row(register: int, step: Step, cost: Cost, size: Mapping[Label, int], first: int | None) -> tuple[str, ...]:
    again = "" if first is None else f"  again, as %{first}"
    return (
        f"%{register}",
        type(step).__name__.lower(),
        *(_role_size(step, role, size) for role in _ROLES),
        count_text(cost.flops),
        "view" if step.is_view(size) else bytes_text(cost.bytes_moved),
        bytes_text(cost.result_bytes),
        visible(str(step)) + again,
    )


def _role_size(step: Step, role: str, size: Mapping[Label, int]) -> str:
    if isinstance(step, Contract) or (isinstance(step, Reduce) and role == "summed"):
        return str(points(getattr(step, role), size))
    return "-"


def _table(headings: tuple[str, ...], rows: list[tuple[str, ...]]) -> list[str]:
    """Columns as wide as need be; the equation comes last, so that neither its length nor its glyphs move the rest."""
    table = [headings, *rows]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    aligned = ("<" if heading in _LEFT_ALIGNED else ">" for heading in headings)
    layout = "  ".join(f"{{:{side}{width}}}" for side, width in zip(aligned, widths, strict=True))
    return [layout.format(*row).rstrip() for row in table]


def _peak_lines(plan: Plan) -> list[str]:
    return [
        f"peak memory of intermediates and result: {bytes_text(peak_bytes(plan))}",
        "  (casts of operands, and copies of what fits no product as it lies, come on top)",
    ]


def _peak_lines_on(profile: Profile, plan: Plan) -> list[str]:
    peak = bytes_on(plan, profile)
    how = "allocated" if profile.kind == "cuda" else "copies included"
    line = f"peak memory of intermediates and result, {how} on {profile.name}: {bytes_text(peak)}"
    over = [f"  (more than its {bytes_text(profile.memory_bytes)})"] if peak > profile.memory_bytes else []
    return [line, *over]


def _totals(plan: Plan, costs: list[Cost], memory: list[str]) -> list[str]:
    flops, moved = sum(cost.flops for cost in costs), sum(cost.bytes_moved for cost in costs)
    per_byte = f", {count_text(flops / moved)} flops per byte" if moved else ""
    lines = [
        f"total: {count_text(flops)} flops, {bytes_text(moved)} moved{per_byte}",
        *memory,
    ]
    operands = len(plan.inputs)
    again = sum(costs[register - operands].flops for register in plan.recomputed())
    if again:
        lines.append(f"computed again to save memory: {count_text(again)} of the flops")
    sizes = {register: cost.result_bytes for register, cost in enumerate(costs, operands)}
    intermediates = [register for register in sizes if register not in plan.outputs]
    if intermediates:
        largest = max(intermediates, key=lambda register: sizes[register])
        shape = plan.shape(largest)
        lines.append(
            f"largest intermediate: %{largest} {visible(plan.term(largest))}, "
            f"{count_text(math.prod(shape))} elements, {bytes_text(sizes[largest])}"
        )
    return lines


# ---------------------------------------------------------------- how products are run


def _products(plan: Plan, profile: Profile) -> list[str]:
    """For each product of large arrays the ways to run it, the one that is taken first."""
    size = dict(plan.sizes)
    lines = []
    for register, step in enumerate(plan.steps, len(plan.inputs)):
        if isinstance(step, Contract) and is_routed(step, size, plan.dtype, profile):
            lines += ["", f"%{register} = {visible(str(step))}", *_ways(step, size, plan.dtype, profile)]
    return lines


def _ways(step: Contract, size: Mapping[Label, int], dtype: str, profile: Profile) -> list[str]:
    taken = way_of(step, size, dtype, profile)
    others = [way for way in routes(case_of(step, size, dtype, profile), as_planned=True) if way != taken]
    rows = [("", _copies(step, way), _shape(way.product), seconds_text(way.seconds)) for way in (taken, *others)]
    if all(way.copies for way in (taken, *others)):
        rows.append(("", "copy nothing", "fits no product", "-"))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    marks = ["  ", *["or"] * (len(rows) - 1)]
    return [
        f"  {mark} {copies:<{widths[1]}}  {shape:<{widths[2]}}  {time:>{widths[3]}}"
        for mark, (_, copies, shape, time) in zip(marks, rows, strict=True)
    ]


def _copies(step: Contract, way: Route) -> str:
    """What a way copies, and to which order of its labels."""
    sides = ((step.lhs_term, way.copy_lhs), (step.rhs_term, way.copy_rhs))
    copied = [f"{visible(term)} as {visible(copy)}" for term, copy in sides if copy is not None]
    return f"copy {' and '.join(copied) or 'nothing'}"


def _shape(product: Product) -> str:
    """The products of a way: rows x summed x columns, how many in a batch, in how many calls."""
    shape = f"{product.rows.size} x {product.summed.size} x {product.columns.size}"
    size = math.prod(axis.size for axis in (product.batch, *product.loops)) if product.pointers else product.batch.size
    batch = f"batch of {size}, " if size > 1 else ""
    calls = f"{product.calls} calls" if product.calls > 1 else "one call"
    calls += " of pointers" if product.pointers else ""
    adding = " that add up" if product.sums else ""
    return f"{shape}, {batch}{calls}{adding}"
