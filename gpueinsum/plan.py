"""The plan: a short list of typed steps over numbered registers, an immutable value that holds no array.

Registers 0 .. n-1 are the operands and every step writes the next one. Each step is a small einsum of its own and can
say which (`equation`); a label has one size throughout a plan.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from gpueinsum.errors import PlanError
from gpueinsum.subscripts import Label, Shape, Term

# The names of the dtypes whose elements are multiplied and added.
NUMBERS = frozenset(np.dtype(code).name for code in "?bhilqBHILQefdgFDGO") | {"bfloat16"}


@dataclass(frozen=True, slots=True)
class _OfOneArray:
    source: int
    term: Term
    out: Term

    @property
    def sources(self) -> tuple[int, ...]:
        return (self.source,)

    @property
    def equation(self) -> str:
        return f"{self.term}->{self.out}"

    @property
    def summed(self) -> Term:
        return _without(_distinct(self.term), self.out)


@dataclass(frozen=True, slots=True)
class Reduce(_OfOneArray):
    """Diagonal, trace, sum and permutation of one array in one pass, e.g. `iijk->kj`."""


@dataclass(frozen=True, slots=True)
class Expand(_OfOneArray):
    """The transpose of `Reduce`: embed on the diagonal and broadcast, e.g. `j->jjk`, zero off the diagonal."""


@dataclass(frozen=True, slots=True)
class Contract:
    """The pair: a batched matrix product, e.g. `bij,bjk->bik`. No term repeats a label.

    Its labels have four roles: `batch` is in both sides and the result, `summed` in both sides only, `left` in the left
    side and the result, `right` in the right side and the result.
    """

    lhs: int
    rhs: int
    lhs_term: Term
    rhs_term: Term
    out: Term

    @property
    def sources(self) -> tuple[int, ...]:
        return (self.lhs, self.rhs)

    @property
    def equation(self) -> str:
        return f"{self.lhs_term},{self.rhs_term}->{self.out}"

    @property
    def batch(self) -> Term:
        return _within(_within(self.lhs_term, self.rhs_term), self.out)

    @property
    def left(self) -> Term:
        return _without(self.lhs_term, self.rhs_term)

    @property
    def right(self) -> Term:
        return _without(self.rhs_term, self.lhs_term)

    @property
    def summed(self) -> Term:
        return _without(_within(self.lhs_term, self.rhs_term), self.out)


Step = Reduce | Expand | Contract


@dataclass(frozen=True, slots=True)
class Plan:
    """An expression made into steps: `inputs` are the operands' terms, `outputs` the registers that are the result.

    `dtype` is the name of the dtype of every register, `sizes` the size of every label.
    """

    inputs: tuple[Term, ...]
    steps: tuple[Step, ...]
    outputs: tuple[int, ...]
    sizes: tuple[tuple[Label, int], ...]
    dtype: str

    def term(self, register: int) -> Term:
        """The labels of a register, in the order of its axes."""
        operands = len(self.inputs)
        return self.inputs[register] if register < operands else self.steps[register - operands].out

    def shape(self, register: int) -> Shape:
        """The shape of a register."""
        size = dict(self.sizes)
        return tuple(size[label] for label in self.term(register))

    def last_uses(self) -> tuple[tuple[int, ...], ...]:
        """For each step the registers that nothing needs after it, so that their memory can go."""
        seen = set(self.outputs)
        uses = []
        for step in reversed(self.steps):
            uses.append(tuple(sorted(set(step.sources) - seen)))
            seen |= set(step.sources)
        return tuple(reversed(uses))

    def alias(self) -> int | None:
        """The operand whose memory the result is, seen through other strides; None if the result is new memory."""
        size = dict(self.sizes)
        register = self.outputs[0]
        while register >= len(self.inputs):
            step = self.steps[register - len(self.inputs)]
            if not isinstance(step, Reduce) or any(size[label] != 1 for label in step.summed):
                return None
            register = step.source
        return register

    @property
    def equation(self) -> str:
        return f"{','.join(self.inputs)}->{','.join(self.term(register) for register in self.outputs)}"

    def __str__(self) -> str:
        size = dict(self.sizes)

        def sized(labels: Term) -> str:
            return " ".join(f"{label}={size[label]}" for label in labels) or "-"

        lines = [f"{self.equation}  {self.dtype}  {sized(_distinct(''.join(self.inputs)))}"]
        for register, step in enumerate(self.steps, len(self.inputs)):
            sources = ", ".join(f"%{source}" for source in step.sources)
            roles = [(role, getattr(step, role, "")) for role in ("batch", "left", "right", "summed")]
            shown = ", ".join(f"{role} {sized(labels)}" for role, labels in roles if labels)
            lines.append(f"  %{register} = {step.equation}  of {sources}  {shown}".rstrip())
        return "\n".join(lines)

    def to_json(self) -> str:
        """The plan as JSON text, to be read back by `Plan.from_json`."""
        steps = [{"step": type(step).__name__, **asdict(step)} for step in self.steps]
        return json.dumps(asdict(self) | {"steps": steps})

    @staticmethod
    def from_json(text: str) -> Plan:
        """The plan that `to_json` wrote. Raises PlanError if the text is no plan, or one that cannot be run."""
        kinds = {kind.__name__: kind for kind in (Reduce, Expand, Contract)}
        try:
            data: dict[str, Any] = json.loads(text)
            for name in ("inputs", "steps", "outputs", "sizes"):
                if not isinstance(data[name], list):
                    raise TypeError(f"{name} is no list")
            steps = tuple(kinds[step.pop("step")](**step) for step in data.pop("steps"))
            inputs, outputs = tuple(data.pop("inputs")), tuple(data.pop("outputs"))
            sizes = tuple((label, size) for label, size in data.pop("sizes"))
            plan = Plan(inputs, steps, outputs, sizes, **data)
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            raise PlanError(f"not a plan: {error!r}") from error
        check_plan(plan)
        return plan


def check_is_plan(plan: object) -> None:
    """Raise PlanError, saying where plans come from, for anything else."""
    if not isinstance(plan, Plan):
        raise PlanError(f"{plan!r:.60} is no Plan: einsum_plan makes one, Plan.from_json reads one from its JSON text")


def check_plan(plan: Plan) -> None:
    """Raise PlanError, saying which step is at fault, unless every register, term and size of the plan fits."""
    size = _checked_sizes(plan)
    terms: list[Term] = []

    def check(good: bool, complaint: str) -> None:
        if not good:
            raise PlanError(complaint)

    for number, term in enumerate(plan.inputs):
        check(
            isinstance(term, str) and set(term) <= set(size),
            f"input {number} is {term!r}: labels without a size",
        )
        terms.append(term)
    for number, step in enumerate(plan.steps):
        where = f"step {number}, {step.equation}: "
        for source, term in _sides(step):
            known = type(source) is int and 0 <= source < len(terms)
            check(known, where + f"register {source!r} is not there yet")
            fits = isinstance(term, str) and [size.get(x) for x in term] == [size[x] for x in terms[source]]
            check(fits, where + f"{term!r} does not fit register {source}, which is {terms[source]!r}")
        check(isinstance(step.out, str) and set(step.out) <= set(size), where + "output labels without a size")
        match step:
            case Reduce():
                check(len(set(step.out)) == len(step.out), where + "a reduction's output cannot repeat a label")
                check(set(step.out) <= set(step.term), where + "a reduction cannot gain labels")
            case Expand():
                check(
                    len(set(step.term)) == len(step.term),
                    where + "an expansion's source cannot repeat a label",
                )
                check(set(step.term) <= set(step.out), where + "an expansion cannot lose labels")
            case Contract():
                for term in (step.lhs_term, step.rhs_term, step.out):
                    check(len(set(term)) == len(term), where + f"{term!r} repeats a label")
                roles = step.batch + step.left + step.right
                check(
                    sorted(roles) == sorted(step.out),
                    where + "a label is summed that is on one side only, or gained",
                )
        terms.append(step.out)
    for register in plan.outputs:
        check(
            type(register) is int and 0 <= register < len(terms),
            f"output register {register!r} is not there",
        )
    check(len(plan.outputs) > 0, "a plan needs an output")


def _checked_sizes(plan: Plan) -> dict[Label, int]:
    for label, size in plan.sizes:
        is_label = isinstance(label, str) and len(label) == 1 and label not in ",->. "
        if not (is_label and type(size) is int and size >= 0):
            raise PlanError(f"label {label!r} has size {size!r}")
    sizes = dict(plan.sizes)
    if len(sizes) != len(plan.sizes):
        raise PlanError("a label has two sizes")
    if not (isinstance(plan.dtype, str) and plan.dtype in NUMBERS):
        raise PlanError(f"dtype {plan.dtype!r} is no name of a dtype of numbers")
    return sizes


def _sides(step: Step) -> list[tuple[int, Term]]:
    if isinstance(step, Contract):
        return [(step.lhs, step.lhs_term), (step.rhs, step.rhs_term)]
    return [(step.source, step.term)]


def _within(term: Term, other: Term) -> Term:
    return "".join(label for label in term if label in other)


def _without(term: Term, other: Term) -> Term:
    return "".join(label for label in term if label not in other)


def _distinct(term: Term) -> Term:
    return "".join(dict.fromkeys(term))
