"""How each register of a plan depends on a label that the plan is run in slices of: what may be added up, and when."""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum
from typing import TYPE_CHECKING

from gpueinsum.errors import PlanError
from gpueinsum.language.steps import Contract, Step, sides
from gpueinsum.language.subscripts import Label, Term

if TYPE_CHECKING:
    from gpueinsum.language.plan import Plan


class Dependence(Enum):
    """What a run of one slice, for some values of the label, holds of a register."""

    NONE = "the register itself"
    OPEN = "its part at these values, as the register has the label"
    SUMMED = "one of the terms whose sum over all slices is the register"


def dependences(plan: Plan, label: Label) -> list[Dependence]:
    """That of each register of a plan whose steps fit their sources.

    A step is linear in each source, so that of the terms of a sum it makes the terms of another. It does not if another
    source depends on the label, too, as the product of two sums is no sum of products; nor does an addition of anything
    but such terms, nor what spreads a term along the label. Raises PlanError for these, and for a step that has the
    label in other places than its source has.
    """
    found = [Dependence.OPEN if label in term else Dependence.NONE for term in plan.inputs]
    for number, step in enumerate(plan.steps):
        where = f"step {number}, {step}, cannot be run in slices of {label!r}"
        for source, term in sides(step):
            if [each == label for each in term] != [each == label for each in plan.term(source)]:
                raise PlanError(f"{where}: it reads {term!r} of register {source}, which is {plan.term(source)!r}")
        sources = [found[source] for source in step.sources]
        if Dependence.SUMMED in sources and not _is_linear(step, label, sources):
            raise PlanError(f"{where}: it needs a whole sum over the slices")
        found.append(_result(label in step.out, sources))
    return found


def labels_in_slices(plan: Plan, inner: int = 0) -> Term:
    """The sliced labels that a plan is cut along, but for those of the `inner` last.

    Those whose values are all in one slice leave nothing to save.
    """
    size = dict(plan.sizes)
    return "".join([label for label, block in plan.sliced[: len(plan.sliced) - inner] if size[label] > block])


def whole_registers(plan: Plan) -> set[int]:
    """The registers that are the same in every slice."""
    labels = {*labels_in_slices(plan)}
    changes = [not labels.isdisjoint(term) for term in plan.inputs]
    for step in plan.steps:
        changes.append(any(changes[source] for source in step.sources) or not labels.isdisjoint(step.out))
    return {register for register, does in enumerate(changes) if not does}


def sliceable_labels(plan: Plan) -> set[Label]:
    """Those for which `dependences` raises no error, found in one pass over the steps."""
    refused = set[Label]()
    parts, sums = [{*term} for term in plan.inputs], [set[Label]() for _ in plan.inputs]  # the labels of each register
    for step in plan.steps:
        for source, term in sides(step):
            refused.update(*[pair for pair in zip(term, plan.term(source), strict=True) if pair[0] != pair[1]])
        found = [parts[source] | sums[source] for source in step.sources]
        summed = set[Label]().union(*[sums[source] for source in step.sources])
        every = found if isinstance(step, Contract) else [sums[source] for source in step.sources]
        in_all = set.intersection(*every) if every else set[Label]()
        refused |= summed & {*step.out}
        refused |= summed & in_all if isinstance(step, Contract) else summed - in_all
        parts.append({*step.out})
        sums.append(set[Label]().union(*found) - {*step.out})
    return {label for label, _ in plan.sizes} - refused


def _is_linear(step: Step, label: Label, sources: Sequence[Dependence]) -> bool:
    """Whether a step makes terms of a sum over the slices, of sources some of which are such terms."""
    if label in step.out:
        return False
    if isinstance(step, Contract):
        return Dependence.NONE in sources
    return set(sources) == {Dependence.SUMMED}


def _result(has_label: bool, sources: Sequence[Dependence]) -> Dependence:
    if has_label:
        return Dependence.OPEN
    return Dependence.NONE if set(sources) <= {Dependence.NONE} else Dependence.SUMMED
