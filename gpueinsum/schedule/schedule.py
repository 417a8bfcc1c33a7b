"""What one device runs for a plan: each step with the way that was chosen for it, its layout, scratch and price."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from gpueinsum.costs.counts import item_bytes, most_alive
from gpueinsum.costs.profile import Profile
from gpueinsum.language.plan import Plan, Registers, last_uses
from gpueinsum.language.steps import Add, Contract, Expand, Reduce, Step
from gpueinsum.language.strides import points
from gpueinsum.language.subscripts import Label, Term
from gpueinsum.schedule.candidate import Candidate, Sum, View
from gpueinsum.schedule.cpu import small_pair
from gpueinsum.schedule.fusion import Fused, fuse
from gpueinsum.schedule.layouts import choose_layouts, is_large
from gpueinsum.schedule.predict import add_seconds, problem_of, read, step_seconds
from gpueinsum.schedule.problem import Problem, Strides, c_strides
from gpueinsum.schedule.select import candidates, cheapest
from gpueinsum.text import bytes_text, seconds_text

Choose = Callable[[Problem], tuple[tuple[int, ...], Candidate]]  # as `select.cheapest`


@dataclass(frozen=True, slots=True)
class ScheduledStep:
    """One step: `step` for people, and as a device runs it, the einsum `terms -> out` of registers.

    `candidates` are the ways to run it; the first is taken, the others were not. Those that cannot be the cheapest are
    only there if the schedule was made with `alternatives`.
    """

    step: Step | Fused
    sources: tuple[int, ...]
    terms: tuple[Term, ...]
    out: Term
    conjugated: tuple[bool, ...]
    candidates: tuple[Candidate, ...]

    @property
    def taken(self) -> Candidate:
        return self.candidates[0]

    @property
    def seconds(self) -> float:
        """Predicted."""
        return self.taken.seconds

    @property
    def is_view(self) -> bool:
        return isinstance(self.taken.way, View)


@dataclass(frozen=True, slots=True)
class Schedule(Registers):
    """Steps in the order in which a device runs them: registers are numbered as a plan's, operands first.

    `strides` are those of the operands, in elements. A printed schedule has a line for each step: its einsum, the way
    that is taken, predicted seconds.
    """

    inputs: tuple[Term, ...]
    strides: tuple[Strides, ...]
    steps: tuple[ScheduledStep, ...]
    outputs: tuple[int, ...]
    sizes: tuple[tuple[Label, int], ...]
    dtype: str
    profile: Profile
    precision: str | None = None  # of products

    def owners(self) -> list[int]:
        """For each register the one whose memory it lies in: its own, or that of the register it is a view of."""
        owners = list(range(len(self.inputs)))
        for register, step in enumerate(self.steps, len(self.inputs)):
            owners.append(owners[step.sources[0]] if step.is_view else register)
        return owners

    @property
    def seconds(self) -> float:
        """Predicted, of all steps one after the other."""
        return sum(step.seconds for step in self.steps)

    @property
    def peak_bytes(self) -> int:
        """The most bytes of intermediates, results and scratch that are alive at once, beside the operands."""
        operands, item, size = len(self.inputs), item_bytes(self.dtype), dict(self.sizes)
        nbytes = [0 if step.is_view else points(step.out, size) * item for step in self.steps]
        ends = last_uses(operands, [step.sources for step in self.steps], self.outputs)
        return most_alive(self.owners(), operands, nbytes, [step.taken.scratch for step in self.steps], ends)

    def __str__(self) -> str:
        head = f"{self.dtype} on {self.profile.name}: {seconds_text(self.seconds)}, {bytes_text(self.peak_bytes)}"
        lines = [
            f"  %{register} = {step.step}  {step.taken.way.name}, {seconds_text(step.seconds)}"
            for register, step in enumerate(self.steps, len(self.inputs))
        ]
        return "\n".join([head, *lines])


def schedule(
    plan: Plan,
    profile: Profile,
    strides: Sequence[Strides] | None = None,
    precision: str | None = None,
    aligned: bool = True,
    choose: Choose = cheapest,
    alternatives: bool = False,
) -> Schedule:
    """What a device runs for a plan whose operands have these strides in elements; those of C order by default.

    `choose` takes a way for each step, by default the one of the least predicted time. Operands are `aligned` if they
    begin at multiples of 16 bytes. With `alternatives` each step has all its candidates.
    """
    assert not plan.sliced, "a schedule is what runs for one slice, or before the slices"
    size = dict(plan.sizes)
    own = tuple(strides) if strides is not None else tuple([c_strides(term, size) for term in plan.inputs])
    plan = choose_layouts(plan, profile, strides)

    def price(step: Step | Fused) -> float:
        return step_seconds(step, size, plan.dtype, profile, read(plan, size, step, strides))

    steps, outputs = fuse(plan, profile, price)
    layouts, is_operand = list(own), [True] * len(own)
    scheduled: list[ScheduledStep] = []
    for step in steps:
        sources = [layouts[source] for source in step.sources]
        if isinstance(step, Add):
            made = _sum(step, sources, size, plan.dtype, profile)
        elif (small := _small(step, size, plan.dtype, profile)) is not None and not alternatives:
            made = small
        else:
            begins = aligned or not any(is_operand[source] for source in step.sources)
            is_ordered = is_large(step, size, plan.dtype, profile)  # whose layout is chosen already
            problem = problem_of(step, size, plan.dtype, profile, sources, precision, begins, is_ordered)
            order, taken = choose(problem)
            others = [way for way in candidates(problem)[1] if way.way != taken.way] if alternatives else []
            made = _make_step(step, problem, order, (taken, *others))
        scheduled.append(made)
        layouts.append(made.taken.strides)
        is_operand.append(made.is_view and is_operand[made.sources[0]])
    return Schedule(plan.inputs, own, tuple(scheduled), outputs, plan.sizes, plan.dtype, profile, precision)


def _small(step: Step | Fused, size: dict[Label, int], dtype: str, profile: Profile) -> ScheduledStep | None:
    """A pair of small arrays, which is soon scheduled."""
    if not isinstance(step, Contract) or step.conj_lhs or step.conj_rhs:
        return None
    taken = small_pair(step.lhs_term, step.rhs_term, step.out, size, dtype, profile)
    if taken is None:
        return None
    return ScheduledStep(step, step.sources, (step.lhs_term, step.rhs_term), step.out, (False, False), (taken,))


def alone(problem: Problem, order: Sequence[int], way: Candidate) -> Schedule:
    """One step by itself, run in this way; `order` is that of the arrays as the way takes them."""
    terms = problem.terms
    fused = Fused(tuple(range(len(terms))), terms, problem.out, problem.conjugated)
    step = _make_step(fused, problem, order, (way,))
    device = problem.dtype, problem.profile, problem.precision
    return Schedule(terms, problem.strides, (step,), (len(terms),), problem.sizes, *device)


def _make_step(
    step: Contract | Reduce | Expand | Fused, problem: Problem, order: Sequence[int], ways: tuple[Candidate, ...]
) -> ScheduledStep:
    return ScheduledStep(
        step,
        tuple([step.sources[place] for place in order]),
        tuple([problem.terms[place] for place in order]),
        problem.out,
        tuple([problem.conjugated[place] for place in order]),
        ways,
    )


def _sum(step: Add, sources: Sequence[Strides], size: dict[Label, int], dtype: str, profile: Profile) -> ScheduledStep:
    """The result lies in memory as its sources do, so that neighbours are read and written together."""
    axes = range(len(step.out))
    total = [sum(abs(own[axis]) for own in sources) for axis in axes]
    strides, stride = [0] * len(step.out), 1
    for axis in sorted(axes, key=lambda axis: (total[axis], -axis)):
        strides[axis] = stride
        stride *= size[step.out[axis]]
    taken = Candidate(Sum(), tuple(strides), 0, add_seconds(step, size, dtype, profile))
    terms = (step.out,) * len(step.sources)
    return ScheduledStep(step, step.sources, terms, step.out, (False,) * len(terms), (taken,))
