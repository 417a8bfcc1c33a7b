"""From a plan, or what a device makes of it, to a row for each step and lines on all of it: for tables and pictures."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from gpueinsum.backends.footprint import schedule_bytes
from gpueinsum.costs.counts import Cost, einsum_cost, peak_bytes, step_cost, step_costs, total_flops
from gpueinsum.costs.profile import Profile
from gpueinsum.costs.seconds import floor_seconds
from gpueinsum.errors import visible
from gpueinsum.language.plan import Plan, duplicates
from gpueinsum.language.slices import Slices, cut, one_slice
from gpueinsum.language.steps import Contract, Reduce, Step
from gpueinsum.language.strides import points
from gpueinsum.language.subscripts import Label
from gpueinsum.schedule.candidate import Pass, Way
from gpueinsum.schedule.fusion import Fused
from gpueinsum.schedule.gemm import Product
from gpueinsum.schedule.mapping import Gemm
from gpueinsum.schedule.schedule import Schedule, ScheduledStep
from gpueinsum.schedule.slices import predicted_seconds
from gpueinsum.schedule.tiled import Tiled
from gpueinsum.text import bytes_text, count_text, seconds_text

HEADINGS = ("step", "kind", "batch", "rows", "columns", "summed", "flops", "moved", "result")
_ROLES = ("batch", "left", "right", "summed")


class Row(NamedTuple):
    """A step: the register that it writes, what it costs, and the texts for `HEADINGS`.

    On a device there are predicted `seconds`, and `how` it is run; `again` is the register that held the same before.
    """

    register: int
    step: Step | Fused
    cost: Cost
    cells: tuple[str, ...]
    seconds: float | None = None
    floor: float = 0.0  # seconds at the full rates of memory and of products
    how: str = ""
    again: int | None = None

    @property
    def einsum(self) -> str:
        return visible(str(self.step))

    @property
    def note(self) -> str:
        return f"again, as %{self.again}" if self.again is not None else ""


class Rows(NamedTuple):
    """A row for each step of `registers`, in the order in which they run, and lines on what all of them take."""

    registers: Plan | Schedule
    steps: Sequence[Row]
    totals: Sequence[str]


def plan_rows(plan: Plan) -> Rows:
    """A plan as it is, or one slice of it, for any device."""
    size, operands, again, part = dict(plan.sizes), len(plan.inputs), plan.duplicates(), one_slice(plan)
    rows = [
        Row(register, step, cost, _cells(register, step, cost, size, step.is_view(size)), again=again.get(register))
        for register, (step, cost) in enumerate(zip(part.steps, step_costs(part), strict=True), operands)
    ]
    memory = [
        f"peak memory of intermediates and result: {bytes_text(peak_bytes(plan))}",
        "  (casts of operands, and copies of what fits no product as it lies, come on top)",
    ]
    return Rows(part, rows, [*_totals(part, rows, memory), *_repeated(rows), *_slices(plan)])


def schedule_rows(made: Schedule, plan: Plan | None = None) -> Rows:
    """A plan as a device runs it; of a plan with sliced labels `made` is one slice."""
    size, operands, profile = dict(made.sizes), len(made.inputs), made.profile
    again, rows = duplicates(operands, [step.step for step in made.steps]), []
    for register, step in enumerate(made.steps, operands):
        cost = _cost(step, size, made.dtype)
        cells = _cells(register, step.step, cost, size, step.is_view)
        floor = (
            0.0 if step.is_view else floor_seconds(profile, made.dtype, cost.bytes_moved, cost.flops, made.precision)
        )
        rows.append(Row(register, step.step, cost, cells, step.seconds, floor, _how(step), again.get(register)))
    in_slices = plan if plan is not None and plan.sliced else None
    peak = in_slices.peak_bytes(profile) if in_slices else schedule_bytes(made)
    place = "allocated" if profile.kind == "cuda" else "copies included"
    memory = [f"peak memory of intermediates and result, {place} on {profile.name}: {bytes_text(peak)}"]
    if peak > profile.memory_bytes:
        memory.append(f"  (more than its {bytes_text(profile.memory_bytes)})")
    predicted = f"predicted on {profile.name} ({profile.device}): {seconds_text(made.seconds)}"
    slices = _slices(in_slices, profile) if in_slices else []
    return Rows(made, rows, [*_totals(made, rows, memory), *_repeated(rows), predicted, *slices])


def _cost(step: ScheduledStep, size: Mapping[Label, int], dtype: str) -> Cost:
    if step.is_view:
        return Cost(0, 0, 0)
    if isinstance(step.step, Fused):
        return einsum_cost(step.terms, step.out, size, dtype)
    return step_cost(step.step, size, dtype)


def _cells(register: int, step: Step | Fused, cost: Cost, size: Mapping[Label, int], is_view: bool) -> tuple[str, ...]:
    def role_size(role: str) -> str:
        has_role = isinstance(step, Contract) or (isinstance(step, Reduce) and role == "summed")
        return str(points(getattr(step, role), size)) if has_role else "-"

    moved = "view" if is_view else bytes_text(cost.bytes_moved)
    kind, sizes = type(step).__name__.lower(), map(role_size, _ROLES)
    return (f"%{register}", kind, *sizes, count_text(cost.flops), moved, bytes_text(cost.result_bytes))


# ---------------------------------------------------------------- lines on all steps


def _totals(registers: Plan | Schedule, rows: Sequence[Row], memory: Sequence[str]) -> list[str]:
    flops, moved = sum(row.cost.flops for row in rows), sum(row.cost.bytes_moved for row in rows)
    per_byte = f", {count_text(flops / moved)} flops per byte" if moved else ""
    lines = [f"total: {count_text(flops)} flops, {bytes_text(moved)} moved{per_byte}", *memory]
    intermediates = [row for row in rows if row.register not in registers.outputs]
    if intermediates:
        largest = max(intermediates, key=lambda row: row.cost.result_bytes)
        term = registers.term(largest.register)
        elements, nbytes = count_text(points(term, dict(registers.sizes))), bytes_text(largest.cost.result_bytes)
        lines.append(f"largest intermediate: %{largest.register} {visible(term)}, {elements} elements, {nbytes}")
    return lines


def _repeated(rows: Iterable[Row]) -> list[str]:
    recomputed = sum(row.cost.flops for row in rows if row.again is not None)
    return [f"computed again to save memory: {count_text(recomputed)} of the flops"] if recomputed else []


def _slices(plan: Plan, profile: Profile | None = None) -> list[str]:
    """How many there are, and what all of them take with what is computed once."""
    slices, flops = cut(plan), count_text(total_flops(plan))
    if not slices.count:
        return []
    labels = _blocks(slices)
    if plan.inner:
        labels += f", inner loop {_blocks(cut(slices.each))}"
    line = f"the steps are those of the first of {plan.slices.number} slices ({labels}), together {flops} flops"
    line += f", {plan.slices.overhead:.2f} times those without slices"
    if profile is None:
        return [line]
    return [f"{line}, predicted {seconds_text(predicted_seconds(plan, profile))}"]


def _blocks(slices: Slices) -> str:
    return " ".join(f"{visible(label)}={block}/{size}" for label, size, block in slices.labels)


# ---------------------------------------------------------------- how a device runs a step


def _how(step: ScheduledStep) -> str:
    copies, work = way_texts(step, step.taken.way)
    return work if copies == _NO_COPIES else f"{copies}; {work}"


_NO_COPIES = "copy nothing"


def way_texts(step: ScheduledStep, way: Way) -> tuple[str, str]:
    """What a way copies and to which order of its labels, and the shape of its products."""
    if isinstance(way, Tiled):
        return _NO_COPIES, _tiles(way)
    if not isinstance(way, Gemm | Pass):
        return _NO_COPIES, way.name
    sides = zip(step.terms, way.copies, strict=False)  # a pass without copies lists none
    copied = [f"{visible(term)} as {visible(copy)}" for term, copy in sides if copy is not None]
    copies = f"copy {' and '.join(copied)}" if copied else _NO_COPIES
    return copies, _shape(way.product) if isinstance(way, Gemm) else "one pass"


def _tiles(way: Tiled) -> str:
    """A tile of the rows, of the sum, of the columns and of the batch; into how many parts the sum is cut."""
    batch, rows, columns, depth = way.tile
    if way.swapped:
        rows, columns = columns, rows
    parts = f", the sum in {way.chunks} parts" if way.chunks > 1 else ""
    return f"tiles of {rows} x {depth} x {columns}{f', batch of {batch}' if batch > 1 else ''}{parts}"


def _shape(product: Product) -> str:
    """The products of a way: rows x summed x columns, how many in a batch, in how many calls."""
    shape = f"{product.rows.size} x {product.summed.size} x {product.columns.size}"
    size = math.prod(axis.size for axis in (product.batch, *product.loops)) if product.pointers else product.batch.size
    batch = f"batch of {size}, " if size > 1 else ""
    calls = f"{product.calls} calls" if product.calls > 1 else "one call"
    calls += " of pointers" if product.pointers else ""
    adding = " that add up" if product.sums else ""
    return f"{shape}, {batch}{calls}{adding}"
