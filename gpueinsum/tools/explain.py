"""Plan to text: what each step is and costs, and how a device would run it; reads plans and touches no array."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Mapping, Sequence

from gpueinsum.backends.footprint import schedule_bytes
from gpueinsum.costs.counts import Cost, einsum_cost, peak_bytes, step_cost, step_costs
from gpueinsum.costs.profile import Profile, device_profile
from gpueinsum.errors import visible
from gpueinsum.language.plan import Plan, check_is_plan
from gpueinsum.language.steps import Contract, Reduce, Step
from gpueinsum.language.strides import points
from gpueinsum.language.subscripts import Label, Term
from gpueinsum.schedule.candidate import Pass, Way
from gpueinsum.schedule.fusion import Fused
from gpueinsum.schedule.gemm import Product
from gpueinsum.schedule.mapping import Gemm
from gpueinsum.schedule.schedule import ScheduledStep, schedule
from gpueinsum.text import bytes_text, count_text, seconds_text

_HEADINGS = ("step", "kind", "batch", "rows", "columns", "summed", "flops", "moved", "result")
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
    if device is None:
        return _plan_text(plan)
    return _schedule_text(plan, device if isinstance(device, Profile) else device_profile(device))


def _plan_text(plan: Plan) -> str:
    size, costs, again = dict(plan.sizes), step_costs(plan), plan.duplicates()
    operands = len(plan.inputs)
    rows = []
    for register, (step, cost) in enumerate(zip(plan.steps, costs, strict=True), operands):
        mark = f"  again, as %{again[register]}" if register in again else ""
        rows.append((*_row(register, step, cost, size, step.is_view(size)), visible(str(step)) + mark))
    memory = [
        f"peak memory of intermediates and result: {bytes_text(peak_bytes(plan))}",
        "  (casts of operands, and copies of what fits no product as it lies, come on top)",
    ]
    if recomputed := sum(costs[register - operands].flops for register in again):
        memory.append(f"computed again to save memory: {count_text(recomputed)} of the flops")
    steps = [(step.out, cost) for step, cost in zip(plan.steps, costs, strict=True)]
    return _text(plan, plan.outputs, (*_HEADINGS, "einsum"), rows, _totals(steps, plan, plan.outputs, memory))


def _schedule_text(plan: Plan, profile: Profile) -> str:
    """The steps as a device runs them, and below each of its products the ways there are, the one taken first."""
    made = schedule(plan, profile, alternatives=True)
    size, rows, steps, ways = dict(made.sizes), [], [], list[str]()
    for register, step in enumerate(made.steps, len(made.inputs)):
        cost = _cost(step, size, made.dtype)
        seconds = seconds_text(step.seconds) if step.seconds else "-"
        rows.append((*_row(register, step.step, cost, size, step.is_view), seconds, visible(str(step.step))))
        steps.append((step.out, cost))
        if any(isinstance(way.way, Gemm) or way.copies for way in step.candidates):
            ways += ["", f"%{register} = {visible(str(step.step))}", *_ways(step)]
    peak = schedule_bytes(made)
    how = "allocated" if profile.kind == "cuda" else "copies included"
    memory = [f"peak memory of intermediates and result, {how} on {profile.name}: {bytes_text(peak)}"]
    if peak > profile.memory_bytes:
        memory.append(f"  (more than its {bytes_text(profile.memory_bytes)})")
    predicted = f"predicted on {profile.name} ({profile.device}): {seconds_text(made.seconds)}"
    lines = [*_totals(steps, plan, made.outputs, memory), predicted, *ways]
    return _text(plan, made.outputs, (*_HEADINGS, "time", "einsum"), rows, lines)


def _cost(step: ScheduledStep, size: Mapping[Label, int], dtype: str) -> Cost:
    if step.is_view:
        return Cost(0, 0, 0)
    if isinstance(step.step, Fused):
        return einsum_cost(step.terms, step.out, size, dtype)
    return step_cost(step.step, size, dtype)


# ---------------------------------------------------------------- lines


def _text(
    plan: Plan, outputs: Sequence[int], headings: tuple[str, ...], rows: list[tuple[str, ...]], lines: Sequence[str]
) -> str:
    """Equation, sizes and table, whose columns are as wide as need be; then these lines.

    A step's einsum is the last column, so that neither its length nor its glyphs move the others.
    """
    head = [f"{visible(plan.equation)}  {plan.dtype}"]
    if plan.sizes:
        sizes = "sizes: " + " ".join(f"{visible(label)}={number}" for label, number in plan.sizes)
        indent = " " * len("sizes: ")
        head += textwrap.wrap(sizes, _WIDTH, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False)
    if not rows:
        results = [f"result is operand {output} itself" for output in outputs]
        return "\n".join([*head, "", f"no steps: the {', the '.join(results)}"])
    table = [headings, *rows]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    aligned = ("<" if heading in _LEFT_ALIGNED else ">" for heading in headings)
    layout = "  ".join(f"{{:{side}{width}}}" for side, width in zip(aligned, widths, strict=True))
    return "\n".join([*head, "", *(layout.format(*row).rstrip() for row in table), "", *lines])


def _row(register: int, step: Step | Fused, cost: Cost, size: Mapping[Label, int], is_view: bool) -> tuple[str, ...]:
    def role_size(role: str) -> str:
        has_role = isinstance(step, Contract) or (isinstance(step, Reduce) and role == "summed")
        return str(points(getattr(step, role), size)) if has_role else "-"

    moved = "view" if is_view else bytes_text(cost.bytes_moved)
    kind, sizes = type(step).__name__.lower(), map(role_size, _ROLES)
    return (f"%{register}", kind, *sizes, count_text(cost.flops), moved, bytes_text(cost.result_bytes))


def _totals(steps: Sequence[tuple[Term, Cost]], plan: Plan, outputs: Sequence[int], memory: Sequence[str]) -> list[str]:
    flops, moved = sum(cost.flops for _, cost in steps), sum(cost.bytes_moved for _, cost in steps)
    per_byte = f", {count_text(flops / moved)} flops per byte" if moved else ""
    lines = [f"total: {count_text(flops)} flops, {bytes_text(moved)} moved{per_byte}", *memory]
    intermediates = [(*step, n) for n, step in enumerate(steps, len(plan.inputs)) if n not in outputs]
    if intermediates:
        term, cost, largest = max(intermediates, key=lambda step: step[1].result_bytes)
        elements, nbytes = count_text(points(term, dict(plan.sizes))), bytes_text(cost.result_bytes)
        lines.append(f"largest intermediate: %{largest} {visible(term)}, {elements} elements, {nbytes}")
    return lines


# ---------------------------------------------------------------- how products are run


def _ways(step: ScheduledStep) -> list[str]:
    """The ways to run a step, the one that is taken first."""
    ways = [found for found in step.candidates if not (isinstance(found.way, Gemm) and found.way.as_batch)]
    rows = [(*_way(step, candidate.way), seconds_text(candidate.seconds)) for candidate in ways]
    if all(candidate.copies for candidate in step.candidates):
        rows.append(("copy nothing", "fits no product", "-"))
    first, second, third = (max(map(len, column)) for column in zip(*rows, strict=True))
    return [
        f"  {'or' if number else '  '} {copies:<{first}}  {shape:<{second}}  {time:>{third}}"
        for number, (copies, shape, time) in enumerate(rows)
    ]


def _way(step: ScheduledStep, way: Way) -> tuple[str, str]:
    """What a way copies and to which order of its labels, and the shape of its products."""
    if not isinstance(way, Gemm | Pass):
        return "copy nothing", way.name
    sides = zip(step.terms, way.copies, strict=False)  # a pass without copies lists none
    copied = [f"{visible(term)} as {visible(copy)}" for term, copy in sides if copy is not None]
    return f"copy {' and '.join(copied) or 'nothing'}", _shape(way.product) if isinstance(way, Gemm) else "one pass"


def _shape(product: Product) -> str:
    """The products of a way: rows x summed x columns, how many in a batch, in how many calls."""
    shape = f"{product.rows.size} x {product.summed.size} x {product.columns.size}"
    size = math.prod(axis.size for axis in (product.batch, *product.loops)) if product.pointers else product.batch.size
    batch = f"batch of {size}, " if size > 1 else ""
    calls = f"{product.calls} calls" if product.calls > 1 else "one call"
    calls += " of pointers" if product.pointers else ""
    adding = " that add up" if product.sums else ""
    return f"{shape}, {batch}{calls}{adding}"
