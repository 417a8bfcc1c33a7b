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
from gpueinsum.schedule.candidate import Way
from gpueinsum.schedule.fusion import Fused
from gpueinsum.schedule.gemm import Product
from gpueinsum.schedule.mapping import Gemm
from gpueinsum.schedule.schedule import Schedule, ScheduledStep, schedule
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
    if device is not None:
        profile = device if isinstance(device, Profile) else device_profile(device)
        return _schedule_text(schedule(plan, profile, alternatives=True), plan)
    size, costs, again = dict(plan.sizes), step_costs(plan), plan.recomputed()
    head = _head(plan)
    if not plan.steps:
        return "\n".join([*head, _no_steps(plan.outputs)])
    rows = [
        (*_row(register, step, cost, size, step.is_view(size)), _einsum(step, again.get(register)))
        for register, (step, cost) in enumerate(zip(plan.steps, costs, strict=True), len(plan.inputs))
    ]
    memory = [
        f"peak memory of intermediates and result: {bytes_text(peak_bytes(plan))}",
        "  (casts of operands, and copies of what fits no product as it lies, come on top)",
    ]
    recomputed = sum(costs[register - len(plan.inputs)].flops for register in again)
    steps = [(step.out, cost) for step, cost in zip(plan.steps, costs, strict=True)]
    totals = _totals(steps, len(plan.inputs), plan.outputs, size, memory, recomputed)
    return "\n".join([*head, *_table((*_HEADINGS, "einsum"), rows), "", *totals])


def _schedule_text(made: Schedule, plan: Plan) -> str:
    """The steps as a device runs them, and below each of its products the ways there are, the one taken first."""
    size, profile = dict(made.sizes), made.profile
    head = _head(plan)
    if not made.steps:
        return "\n".join([*head, _no_steps(made.outputs)])
    costs = [_cost(step, size, made.dtype) for step in made.steps]
    rows = [
        (
            *_row(register, step.step, cost, size, step.is_view),
            seconds_text(step.seconds) if step.seconds else "-",
            _einsum(step.step, None),
        )
        for register, (step, cost) in enumerate(zip(made.steps, costs, strict=True), len(made.inputs))
    ]
    peak = schedule_bytes(made)
    how = "allocated" if profile.kind == "cuda" else "copies included"
    memory = [f"peak memory of intermediates and result, {how} on {profile.name}: {bytes_text(peak)}"]
    memory += [f"  (more than its {bytes_text(profile.memory_bytes)})"] if peak > profile.memory_bytes else []
    steps = [(step.out, cost) for step, cost in zip(made.steps, costs, strict=True)]
    totals = _totals(steps, len(made.inputs), made.outputs, size, memory, 0)
    predicted = f"predicted on {profile.name} ({profile.device}): {seconds_text(made.seconds)}"
    ways = [
        line
        for register, step in enumerate(made.steps, len(made.inputs))
        if any(isinstance(way.way, Gemm) for way in step.candidates)
        for line in ("", f"%{register} = {visible(str(step.step))}", *_ways(step))
    ]
    return "\n".join([*head, *_table((*_HEADINGS, "time", "einsum"), rows), "", *totals, predicted, *ways])


def _cost(step: ScheduledStep, size: Mapping[Label, int], dtype: str) -> Cost:
    if step.is_view:
        return Cost(0, 0, 0)
    if isinstance(step.step, Fused):
        return einsum_cost(step.terms, step.out, size, dtype)
    return step_cost(step.step, size, dtype)


# ---------------------------------------------------------------- lines


def _head(plan: Plan) -> list[str]:
    return [f"{visible(plan.equation)}  {plan.dtype}", *_label_lines(dict(plan.sizes)), ""]


def _no_steps(outputs: Sequence[int]) -> str:
    results = [f"result is operand {output} itself" for output in outputs]
    return f"no steps: the {', the '.join(results)}"


def _label_lines(size: Mapping[Label, int]) -> list[str]:
    if not size:
        return []
    text = "sizes: " + " ".join(f"{visible(label)}={number}" for label, number in size.items())
    return textwrap.wrap(text, _WIDTH, subsequent_indent="       ", break_long_words=False, break_on_hyphens=False)


def _row(register: int, step: Step | Fused, cost: Cost, size: Mapping[Label, int], is_view: bool) -> tuple[str, ...]:
    return (
        f"%{register}",
        type(step).__name__.lower(),
        *(_role_size(step, role, size) for role in _ROLES),
        count_text(cost.flops),
        "view" if is_view else bytes_text(cost.bytes_moved),
        bytes_text(cost.result_bytes),
    )


def _einsum(step: Step | Fused, first: int | None) -> str:
    return visible(str(step)) + ("" if first is None else f"  again, as %{first}")


def _role_size(step: Step | Fused, role: str, size: Mapping[Label, int]) -> str:
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


def _totals(
    steps: Sequence[tuple[Term, Cost]],
    operands: int,
    outputs: Sequence[int],
    size: Mapping[Label, int],
    memory: Sequence[str],
    recomputed: int,
) -> list[str]:
    flops, moved = sum(cost.flops for _, cost in steps), sum(cost.bytes_moved for _, cost in steps)
    per_byte = f", {count_text(flops / moved)} flops per byte" if moved else ""
    lines = [f"total: {count_text(flops)} flops, {bytes_text(moved)} moved{per_byte}", *memory]
    if recomputed:
        lines.append(f"computed again to save memory: {count_text(recomputed)} of the flops")
    intermediates = {number: step for number, step in enumerate(steps, operands) if number not in outputs}
    if intermediates:
        largest = max(intermediates, key=lambda register: intermediates[register][1].result_bytes)
        term, cost = intermediates[largest]
        lines.append(
            f"largest intermediate: %{largest} {visible(term)}, "
            f"{count_text(points(term, size))} elements, {bytes_text(cost.result_bytes)}"
        )
    return lines


# ---------------------------------------------------------------- how products are run


def _ways(step: ScheduledStep) -> list[str]:
    """The ways to run a step, the one that is taken first."""
    rows = [(*_way(step, candidate.way), seconds_text(candidate.seconds)) for candidate in step.candidates]
    if all(candidate.copies for candidate in step.candidates):
        rows.append(("copy nothing", "fits no product", "-"))
    first, second, third = (max(map(len, column)) for column in zip(*rows, strict=True))
    marks = ["  ", *["or"] * (len(rows) - 1)]
    return [
        f"  {mark} {copies:<{first}}  {shape:<{second}}  {time:>{third}}"
        for mark, (copies, shape, time) in zip(marks, rows, strict=True)
    ]


def _way(step: ScheduledStep, way: Way) -> tuple[str, str]:
    return (_copies(step, way), _shape(way.product)) if isinstance(way, Gemm) else ("copy nothing", way.name)


def _copies(step: ScheduledStep, way: Gemm) -> str:
    """What a way copies, and to which order of its labels."""
    sides = zip(step.terms, way.copies, strict=True)
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
