"""What must hold for a plan: every register, term and size fits. Plans come from files, too."""

from __future__ import annotations

from collections.abc import Iterator
from typing import assert_never

from gpueinsum.errors import PlanError
from gpueinsum.language.dependence import dependences
from gpueinsum.language.plan import NUMBERS, Plan
from gpueinsum.language.steps import Add, Contract, Expand, Reduce, sides
from gpueinsum.language.subscripts import Term


def check_plan(plan: Plan) -> None:
    """Raise PlanError, saying which step is at fault, unless every register, term and size of the plan fits."""
    for holds, complaint in _conditions(plan):
        if not holds:
            raise PlanError(complaint)
    for label, _ in plan.sliced:
        dependences(plan, label)


def _conditions(plan: Plan) -> Iterator[tuple[bool, str]]:
    """What must hold, and the complaint if it does not; each condition takes for granted that the earlier ones hold."""
    for label, number in plan.sizes:
        is_label = isinstance(label, str) and len(label) == 1 and label not in ",->. "
        yield is_label and type(number) is int and number >= 0, f"label {label!r} has size {number!r}"
    size = dict(plan.sizes)
    yield len(size) == len(plan.sizes), "a label has two sizes"
    is_dtype = isinstance(plan.dtype, str) and plan.dtype in NUMBERS
    yield is_dtype, f"dtype {plan.dtype!r} is no name of a dtype of numbers"

    def is_term(term: Term) -> bool:
        return isinstance(term, str) and set(term) <= set(size)

    for number, term in enumerate(plan.inputs):
        yield is_term(term), f"input {number} is {term!r}: labels without a size"
    terms = list(plan.inputs)
    for number, step in enumerate(plan.steps):
        is_list = not isinstance(step, Add) or isinstance(step.sources, tuple)
        yield is_list, f"step {number}: the sources of a sum are a list of registers"
        where = f"step {number}, {step.equation}: "
        for source, term in sides(step):
            is_known = type(source) is int and 0 <= source < len(terms)
            yield is_known, f"{where}register {source!r} is not there yet"
            fits = isinstance(term, str) and [size.get(x) for x in term] == [size[x] for x in terms[source]]
            yield fits, f"{where}{term!r} does not fit register {source}, which is {terms[source]!r}"
        yield is_term(step.out), f"{where}output labels without a size"
        match step:
            case Reduce():
                yield not _repeats(step.out), f"{where}a reduction's output cannot repeat a label"
                yield set(step.out) <= set(step.term), f"{where}a reduction cannot gain labels"
            case Expand():
                yield not _repeats(step.term), f"{where}an expansion's source cannot repeat a label"
                yield set(step.term) <= set(step.out), f"{where}an expansion cannot lose labels"
            case Contract():
                for term in (step.lhs_term, step.rhs_term, step.out):
                    yield not _repeats(term), f"{where}{term!r} repeats a label"
                is_bool = type(step.conj_lhs) is type(step.conj_rhs) is bool
                yield is_bool, f"{where}a side is conjugated or not, True or False"
                is_pair = sorted(step.batch + step.left + step.right) == sorted(step.out)
                yield is_pair, f"{where}a label is summed that is on one side only, or gained"
            case Add():
                pass
            case _:
                assert_never(step)
        terms.append(step.out)
    for register in plan.outputs:
        is_known = type(register) is int and 0 <= register < len(terms)
        yield is_known, f"output register {register!r} is not there"
    yield len(plan.outputs) > 0, "a plan needs an output"
    labels = [label for label, _ in plan.sliced]
    for label, block in plan.sliced:
        is_one = isinstance(label, str) and label in size and labels.count(label) == 1
        yield is_one, f"sliced label {label!r} has no size, or is listed twice"
        yield type(block) is int and block > 0, f"slices have {block!r} values of label {label!r}, not at least one"
    is_some = type(plan.inner) is int and 0 <= plan.inner < max(1, len(labels))
    yield is_some, f"{plan.inner!r} of {len(labels)} sliced labels are no inner loop"


def _repeats(term: Term) -> bool:
    return len(set(term)) < len(term)
