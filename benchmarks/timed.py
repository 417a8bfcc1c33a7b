"""Plans as a device runs them, timed: all of a plan, and its longest steps one by one, on arrays in C order."""

from __future__ import annotations

import datetime
import json
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from time import perf_counter
from typing import Any

import numpy as np

from benchmarks import libraries
from benchmarks.devices import Call, Device
from benchmarks.measure import Peer, failure, measure
from benchmarks.peers import plan_of
from benchmarks.results import ResultsError, check_times
from benchmarks.run import Rows, families_in_turn
from benchmarks.workloads import numpy_dtype, random_array
from gpueinsum.costs.profile import Profile
from gpueinsum.language.plan import Plan
from gpueinsum.language.steps import Add, Contract, Expand, Reduce, Step, sides
from gpueinsum.language.subscripts import alphabet
from gpueinsum.schedule.fusion import Fused
from gpueinsum.schedule.layouts import is_large
from gpueinsum.schedule.predict import add_seconds, problem_of
from gpueinsum.schedule.problem import Problem
from gpueinsum.schedule.schedule import Schedule, alone, schedule
from gpueinsum.schedule.select import cheapest

_SECONDS = 0.2  # for the rounds of each step, and of each plan
_MOST_STEPS = 6  # of a plan that are measured: the longest, by the profile
_SHORT = 0.02  # of a plan's time: what is predicted to take less is not measured


@dataclass(frozen=True, slots=True)
class TimedStep:
    """One step of a plan as it is run, how often the plan has it, and the seconds of it alone in each round."""

    kind: str  # "Contract", ...
    equation: str  # sides that enter as their conjugates are marked: `ij*,jk->ik`
    sizes: Mapping[str, int]
    times: int
    seconds: Sequence[float] = ()  # of one that was not measured none

    def predicted(self, dtype: str, profile: Profile) -> float:
        """Seconds of it once, as a schedule has it for arrays in C order."""
        step = _step(self.kind, self.equation)
        if isinstance(step, Add):
            return add_seconds(step, self.sizes, dtype, profile)
        return cheapest(_problem(step, self.sizes, dtype, profile))[1].seconds

    def ratio(self, dtype: str, profile: Profile) -> float:
        """How many times as long as predicted it took."""
        return statistics.median(self.seconds) / self.predicted(dtype, profile)


@dataclass(frozen=True, slots=True)
class TimedPlan:
    """A row's plan: the seconds of all of it in each round, the bytes that it needs at once, its steps."""

    row: str  # as `Row.key`
    dtype: str
    steps: Sequence[TimedStep]
    seconds: Sequence[float]
    bytes_predicted: int
    bytes_taken: int
    fault: str = ""  # why it was not measured

    def predicted(self, profile: Profile) -> float:
        """Seconds of all steps, in turn."""
        return sum(step.times * step.predicted(self.dtype, profile) for step in self.steps)

    def ratio(self, profile: Profile) -> float:
        """How many times as long as predicted it took."""
        return statistics.median(self.seconds) / self.predicted(profile)


@dataclass(frozen=True, slots=True)
class Timings:
    """What was measured on a device, of plans that were scheduled by a profile."""

    date: str  # ISO 8601, UTC
    device: Mapping[str, Any]
    versions: Mapping[str, str]
    profile: Mapping[str, Any]
    plans: Sequence[TimedPlan]

    def profile_in_use(self) -> Profile:
        """Raises ProfileError if it is none."""
        return Profile.from_json(json.dumps(self.profile))


def check(found: Timings) -> None:
    """Raise ResultsError unless times are times, steps are steps, and it is said what they were measured on."""
    if not {"kind", "name"} <= found.device.keys():
        raise ResultsError(f"the device {dict(found.device)!r:.60} has no kind or no name")
    for plan in found.plans:
        if not plan.fault:
            check_times(plan.seconds, plan.row)
        for step in plan.steps:
            made = _step(step.kind, step.equation)
            terms = made.terms if isinstance(made, Fused) else [term for _, term in sides(made)]
            labels = set("".join([made.out, *terms]))
            if labels != step.sizes.keys() or step.times < 1:
                raise ResultsError(f"{plan.row}: {step.equation} does not fit its sizes {dict(step.sizes)!r:.60}")
            if step.seconds:
                check_times(step.seconds, f"{plan.row}: {step.equation}")


def timings(place: Device, profile: Profile, rows: Rows, minutes: float | None = None) -> Iterator[Timings]:
    """Measure the plans of these rows: what there is after each. After so many `minutes`, for which the families take
    turns, none but the first is begun.

    Rows of another precision than their dtype's are left out: prices know none. Raises ResultsError if no others are.
    """
    started, date = perf_counter(), datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    facts, versions = place.facts(), libraries.versions(place)
    plans: list[TimedPlan] = []
    rows = [(table, row) for table, row in rows if not row.precision]
    if not rows:
        raise ResultsError("no plan is predicted for these rows, since prices know no precision")
    for table, row in rows if minutes is None else families_in_turn(rows):
        if plans and minutes is not None and perf_counter() - started > 60 * minutes:
            break
        forward = replace(plan_of(row), dtype=place.backend.compute_dtype(numpy_dtype(row.dtype)).name)
        plan = forward if table == "einsum" else forward.vjp()
        plans.append(_timed_plan(f"{table}: {row.name}, {row.dtype}", plan, place, profile))
        place.tidy()
        yield Timings(date, facts, versions, json.loads(profile.to_json()), tuple(plans))


def _timed_plan(row: str, plan: Plan, place: Device, profile: Profile) -> TimedPlan:
    steps, predicted = _distinct(schedule(plan, profile)), plan.peak_bytes(profile)
    try:
        call = _call(plan, place)
        taken, seconds = place.peak_bytes(call), _seconds(call, place)
        del call  # and its operands
        return TimedPlan(
            row, plan.dtype, _timed_steps(steps, seconds, plan.dtype, place, profile), seconds, predicted, taken
        )
    except (MemoryError, RuntimeError) as error:  # CuPy's are RuntimeErrors
        return TimedPlan(row, plan.dtype, steps, (), predicted, 0, failure(error))


def _timed_steps(
    steps: Sequence[TimedStep], whole: Sequence[float], dtype: str, place: Device, profile: Profile
) -> tuple[TimedStep, ...]:
    """The longest of them measured. The seconds of the `whole` plan are those of its only step."""
    if [step.times for step in steps] == [1]:
        return (replace(steps[0], seconds=whole),)
    prices = [step.times * step.predicted(dtype, profile) for step in steps]
    order = sorted(range(len(steps)), key=prices.__getitem__, reverse=True)
    longest, least = [steps[number] for number in order], _SHORT * sum(prices)
    wanted = longest[: sum(price >= least for price in prices)][:_MOST_STEPS]
    measured = [replace(step, seconds=_seconds(_alone(step, dtype, place, profile), place)) for step in wanted]
    return (*measured, *longest[len(wanted) :])


def _seconds(call: Call, place: Device) -> Sequence[float]:
    times = measure({"it": Peer([call], compiles=place.kind == "cuda")}, place, _SECONDS, always=("it",))
    if times.faults:
        raise RuntimeError(times.faults["it"])
    return times.seconds["it"]


def _call(plan: Plan, place: Device) -> Call:
    """The plan on operands of its own."""
    return partial(place.backend.bind(plan), *_operands(plan.inputs, dict(plan.sizes), plan.dtype, place))


def _operands(terms: Sequence[str], size: Mapping[str, int], dtype: str, place: Device) -> list[Any]:
    rng = np.random.default_rng(0)
    return [place.put(random_array(rng, tuple(size[label] for label in term), dtype)) for term in terms]


# ---------------------------------------------------------------- steps alone


def _distinct(made: Schedule) -> tuple[TimedStep, ...]:
    """The steps but for views, their labels named anew; those that are equal then are one."""
    found: dict[tuple[object, ...], TimedStep] = {}
    size = dict(made.sizes)
    for scheduled in made.steps:
        if scheduled.is_view:
            continue
        step = scheduled.step
        text = str(step)
        names = dict(zip(dict.fromkeys(label for label in text if label in size), alphabet(), strict=False))
        equation = "".join(names.get(character, character) for character in text)
        sizes = {name: size[label] for label, name in names.items()}
        key = type(step).__name__, equation, *sizes.values()
        known = found.get(key) or TimedStep(type(step).__name__, equation, sizes, 0)
        found[key] = replace(known, times=known.times + 1)
    return tuple(found.values())


def _alone(step: TimedStep, dtype: str, place: Device, profile: Profile) -> Call:
    """A call of nothing else, in the way that the profile chooses for arrays in C order."""
    made = _step(step.kind, step.equation)
    if isinstance(made, Add):
        terms = (made.out,) * len(made.sources)
        return _call(Plan(terms, (made,), (len(terms),), tuple(step.sizes.items()), dtype), place)
    problem = _problem(made, step.sizes, dtype, profile)
    run = place.backend.load(alone(problem, *cheapest(problem)))
    return partial(run, *_operands(problem.terms, step.sizes, dtype, place))


def _problem(
    step: Contract | Reduce | Expand | Fused, sizes: Mapping[str, int], dtype: str, profile: Profile
) -> Problem:
    """What a schedule asks a way for, of arrays in C order."""
    return problem_of(step, sizes, dtype, profile, is_ordered=is_large(step, sizes, dtype, profile))


def _step(kind: str, equation: str) -> Step | Fused:
    """The step that is written so, of registers from 0 on. Raises ResultsError."""
    inputs, _, out = equation.partition("->")
    if kind == "Add":
        return Add(tuple(range(inputs.count("+") + 1 if inputs != "0" else 0)), out)
    marked = inputs.split(",")
    terms, marks = tuple(term.rstrip("*") for term in marked), tuple(term.endswith("*") for term in marked)
    match kind, terms:
        case "Contract", (lhs, rhs):
            return Contract(0, 1, lhs, rhs, out, *marks)
        case "Fused", _:
            return Fused(tuple(range(len(terms))), terms, out, marks)
        case "Reduce", (term,):
            return Reduce(0, term, out)
        case "Expand", (term,):
            return Expand(0, term, out)
    raise ResultsError(f"{kind} {equation} is no step")
