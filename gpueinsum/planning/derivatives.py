"""Plan to plan: derivatives, made of the steps that plans are made of, so that they can be differentiated again.

A step is a map of its sources to y. Where these change by dx, y changes by J dx (forward: the tangent), and if a real
loss L has the cotangent y' = dL/d(Re y) + i dL/d(Im y), so that dL = Re sum conj(y') dy, then

    dL = Re sum conj(y') J dx = Re sum conj(J^H y') dx,  hence  x' = J^H y'  (backward: the gradient),

which points the way of steepest ascent, as PyTorch's does. For each kind of step J^H is a step again:

    y = Reduce(x)             x' = Expand(y')
    y = Expand(x)             x' = Reduce(y')
    y = Add(u, v)             u' = v' = y'
    y = Contract(u, v)        u' = Contract(y', conj v), v' = Contract(conj u, y'):  y in the place of the side

and since conj u v has the derivative conj du v, whose adjoint is u' = conj y' v, no more conjugates are ever needed.

Sliced labels stay sliced. A tangent depends on the slice as its register does. Where each slice has a part of a
register, it has that part of the cotangent; where each has a term of a sum, all have the cotangent of the sum, whole;
and the cotangent of what is the same in every slice is a sum over the slices of what each pulls back.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import assert_never

from gpueinsum.costs.counts import total_flops
from gpueinsum.language.dependence import dependences
from gpueinsum.language.plan import Plan
from gpueinsum.language.rewrite import prune
from gpueinsum.language.steps import Add, Contract, Expand, Reduce, Step, rearrange, renumber
from gpueinsum.language.subscripts import Subscripts, Term
from gpueinsum.planning.lower import lower
from gpueinsum.planning.path import Optimize, Path, find_path

# Each gradient planned anew takes a search for its path; among more, their shares of the way back are small.
_FEW = 3


def vjp(plan: Plan, wrt: Sequence[int], optimize: Optimize = "auto", values: bool = True) -> Plan:
    """The outputs of a plan that `deduplicate` left (if `values`), and the gradients of these inputs.

    Takes the plan's inputs and then a cotangent for each output. Everything is computed once and shared; the plan's own
    steps come first. Where a few gradients are wanted, each is also planned anew, as the plan's expression transposed,
    by the optimizer of this name, and that plan is taken if it lowers the flops of all. With None no gradient is.
    """

    def way(alone: Mapping[int, Plan]) -> Plan:
        joint = _joint(plan, wrt, alone)
        return prune(joint, joint.outputs[0 if values else len(plan.outputs) :])

    best, alone = way({}), dict[int, Plan]()
    is_few = len(plan.inputs) > 2 and len(wrt) <= _FEW
    if optimize is not None and is_few and (expression := as_expression(plan)):
        for operand in wrt:
            trial = {**alone, operand: _plan_transpose(expression, operand, optimize, plan.dtype)}
            other = way(trial)
            if total_flops(other) < total_flops(best):
                best, alone = other, trial
    return best


def jvp(plan: Plan, wrt: Sequence[int], values: bool = True) -> Plan:
    """The outputs of a plan that `deduplicate` left (if `values`), and their tangents.

    Takes the plan's inputs and then a tangent for each of those in `wrt`; the others do not change.
    """
    new = _Growing(plan, [plan.inputs[operand] for operand in wrt])
    operands = len(plan.inputs)
    number = list(range(operands))  # of each register of the plan
    tangents = {operand: operands + k for k, operand in enumerate(wrt)}
    for register, step in enumerate(plan.steps, operands):
        number.append(new.step(renumber(step, number)))
        moved = _push(new, step, number, tangents)
        if moved:
            tangents[register] = new.sum(moved, step.out)
    pushed = [new.value(tangents, output, plan) for output in plan.outputs]
    joint = new.plan([*(number[output] for output in plan.outputs), *pushed])
    return prune(joint, joint.outputs[0 if values else len(plan.outputs) :])


# ---------------------------------------------------------------- backward


def _joint(plan: Plan, wrt: Sequence[int], alone: Mapping[int, Plan]) -> Plan:
    """The plan's own steps, then those of the gradients; outputs are the plan's and the gradients.

    Those `alone` are computed by plans of their own, which take the cotangent in the operand's place.
    """
    new = _Growing(plan, [plan.term(output) for output in plan.outputs])
    number = list(range(len(plan.inputs)))  # of each register of the plan
    for step in plan.steps:
        number.append(new.step(renumber(step, number)))
    gradients = _pull(new, plan, number, [operand for operand in wrt if operand not in alone])
    for operand, gradient in alone.items():
        gradients[operand] = _insert(new, gradient, operand)
    return new.plan([*(number[output] for output in plan.outputs), *(gradients[operand] for operand in wrt)])


def _pull(new: _Growing, plan: Plan, number: Sequence[int], wrt: Sequence[int]) -> dict[int, int]:
    """Go back through a plan, whose registers have these numbers in the new one; the gradients' registers."""
    operands = len(plan.inputs)
    depends = set(wrt)
    for register, step in enumerate(plan.steps, operands):
        if not depends.isdisjoint(step.sources):
            depends.add(register)
    is_complex = plan.dtype.startswith("complex")
    cotangents: dict[int, int] = {}

    def add(register: int, cotangent: int) -> None:
        """At once, so that few contributions are alive."""
        earlier = [cotangents[register]] if register in cotangents else []
        cotangents[register] = new.sum([*earlier, cotangent], plan.term(register))

    for position, output in enumerate(plan.outputs):
        add(output, operands + position)
    awaited = Counter(source for step in plan.steps for source in step.sources)  # steps that may still add to each
    ready = [register for register in depends if register >= operands and not awaited[register]]
    while ready:  # the last that became ready first, so that few cotangents are alive
        register = ready.pop()
        step = plan.steps[register - operands]
        for source, pulled in _pull_step(step, cotangents[register], number, is_complex):
            if source in depends:
                add(source, cotangents[register] if pulled is None else new.step(pulled))
        for source in step.sources:
            awaited[source] -= 1
            if source in depends and source >= operands and not awaited[source]:
                ready.append(source)
    return {operand: new.value(cotangents, operand, plan) for operand in wrt}


def _pull_step(
    step: Step, cotangent: int, number: Sequence[int], is_complex: bool
) -> Iterator[tuple[int, Step | None]]:
    """What each source of a step receives of its cotangent: a step, or the cotangent as it is."""
    match step:
        case Contract():
            # The gradient of a side: with u* for conj u if p, else u, y = u* v* gives u' = (y' conj v*)*.
            both = (step.lhs, step.lhs_term, step.conj_lhs), (step.rhs, step.rhs_term, step.conj_rhs)
            for (side, term, p), (other, other_term, q) in (both, both[::-1]):
                marks = (p, p == q) if is_complex else (False, False)
                yield side, Contract(cotangent, number[other], step.out, other_term, term, *marks)
        case Reduce() | Expand():
            is_same = step.term == step.out
            yield step.source, None if is_same else rearrange(cotangent, step.out, step.term)
        case Add():
            yield from ((source, None) for source in step.sources)
        case _:
            assert_never(step)


# ---------------------------------------------------------------- a gradient alone


def _plan_transpose(expression: Subscripts, operand: int, optimize: Optimize, dtype: str) -> Plan:
    def order(inputs: tuple[Term, ...], output: Term) -> Path:
        return find_path(inputs, output, dict(expression.sizes), optimize)

    return lower(expression.transpose(operand), order, dtype)


def _insert(new: _Growing, gradient: Plan, operand: int) -> int:
    """Take over the steps of a gradient's own plan, and conjugate all but the cotangent; the gradient's register.

    Two factors that both await it are multiplied as they are, and conjugated when they meet one that does not.
    """
    operands = len(gradient.inputs)
    number = list(range(operands))
    number[operand] = operands  # the cotangent
    awaits = [gradient.dtype.startswith("complex") and position != operand for position in range(operands)]
    for step in gradient.steps:
        pending = [awaits[source] for source in step.sources]
        if isinstance(step, Contract) and pending[0] != pending[1]:
            step = replace(step, conj_lhs=pending[0], conj_rhs=pending[1])
            pending = [False]
        awaits.append(pending[0])
        number.append(new.step(renumber(step, number)))
    return number[gradient.outputs[0]]


def as_expression(plan: Plan) -> Subscripts | None:
    """The einsum that a plan is, if it is one: a tree over its operands in which every label means one thing."""
    operands = len(plan.inputs)
    uses = Counter(source for step in plan.steps for source in step.sources)
    uses.update(plan.outputs)
    if len(plan.outputs) != 1 or any(uses[register] != 1 for register in range(operands + len(plan.steps))):
        return None
    output = plan.term(plan.outputs[0])
    holders = {label: sum(1 << i for i, term in enumerate(plan.inputs) if label in term) for label, _ in plan.sizes}
    under = [1 << i for i in range(operands)]  # the operands that a register is made of, as bits
    for register, step in enumerate(plan.steps, operands):
        mine = sum(under[source] for source in step.sources)
        under.append(mine)
        match step:
            case Contract():
                terms: tuple[Term, ...] = (step.lhs_term, step.rhs_term)
                is_plain = not (step.conj_lhs or step.conj_rhs)
            case Reduce() | Expand():
                terms = (step.term,)
                is_plain = isinstance(step, Reduce) or register == plan.outputs[0]
            case Add():
                return None
            case _:
                assert_never(step)
        is_same = terms == tuple(plan.term(source) for source in step.sources)
        lost = {label for term in terms for label in term} - set(step.out)
        is_over = all(holders[label] & ~mine == 0 and label not in output for label in lost)
        if not (is_plain and is_same and is_over):
            return None
    used = {*output, *(label for term in plan.inputs for label in term)}
    return Subscripts(plan.inputs, output, tuple((label, size) for label, size in plan.sizes if label in used))


# ---------------------------------------------------------------- forward


def _push(new: _Growing, step: Step, number: Sequence[int], tangents: Mapping[int, int]) -> list[int]:
    """What each source that has a tangent adds to that of the step."""
    match step:
        case Contract() | Reduce() | Expand():  # linear in each source
            sources = [number[source] for source in step.sources]
            return [
                new.step(step.with_sources(*sources[:k], tangents[source], *sources[k + 1 :]))
                for k, source in enumerate(step.sources)
                if source in tangents
            ]
        case Add():
            return [tangents[source] for source in step.sources if source in tangents]
        case _:
            assert_never(step)


# ---------------------------------------------------------------- a plan that grows


class _Growing:
    """The steps of a new plan, whose inputs are a plan's and more."""

    def __init__(self, plan: Plan, more: Sequence[Term]) -> None:
        self.start = replace(plan, inputs=(*plan.inputs, *more), steps=(), outputs=())
        self.steps: list[Step] = []
        self.known: dict[Step, int] = {}

    def step(self, step: Step) -> int:
        """The register that this step writes, which may have been taken already."""
        if step not in self.known:
            self.steps.append(step)
            self.known[step] = len(self.start.inputs) + len(self.steps) - 1
        return self.known[step]

    def sum(self, registers: Sequence[int], term: Term) -> int:
        return registers[0] if len(registers) == 1 else self.step(Add(tuple(registers), term))

    def value(self, known: Mapping[int, int], register: int, plan: Plan) -> int:
        """The derivative that is known of a plan's register, or zeros."""
        return known[register] if register in known else self.sum([], plan.term(register))

    def plan(self, outputs: Sequence[int]) -> Plan:
        plan = replace(self.start, steps=tuple(self.steps), outputs=tuple(outputs))
        for label, _ in plan.sliced:
            dependences(plan, label)  # raises PlanError where an output that is the same in every slice met a sum
        return plan
