"""The plan: a short list of steps over numbered registers, an immutable value that holds no array.

Registers 0 .. n-1 are the operands and every step writes the next one; a label has one size throughout a plan.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from gpueinsum.errors import PlanError
from gpueinsum.language.dependence import whole_registers
from gpueinsum.language.steps import Add, Contract, Expand, Reduce, Step, distinct, renumber
from gpueinsum.language.subscripts import Label, Shape, Term

if TYPE_CHECKING:
    from gpueinsum.costs.profile import Profile

# The names of the dtypes whose elements are multiplied and added.
NUMBERS = frozenset(np.dtype(code).name for code in "?bhilqBHILQefdgFDGO") | {"bfloat16"}
HALVES = frozenset(["float16", "bfloat16"])  # which are added up in float32


class Registers:
    """What plans and schedules have in common: numbered registers, the operands' first, then one for each step."""

    __slots__ = ()
    inputs: tuple[Term, ...]
    steps: tuple[Any, ...]
    sizes: tuple[tuple[Label, int], ...]

    def term(self, register: int) -> Term:
        """The labels of a register, in the order of its axes."""
        operands = len(self.inputs)
        out: Term = self.inputs[register] if register < operands else self.steps[register - operands].out
        return out

    def shape(self, register: int) -> Shape:
        """The shape of a register."""
        size = dict(self.sizes)
        return tuple([size[label] for label in self.term(register)])


class SliceCount(NamedTuple):
    """The `number` of slices of a plan, how many values a slice has of the sliced `labels`, and the `overhead`.

    That is the flops of the plan by those of the same plan without slices.
    """

    number: int
    labels: dict[Label, int]
    overhead: float


@dataclass(frozen=True, slots=True)
class Plan(Registers):
    """An expression made into steps: `inputs` are the operands' terms, `outputs` the registers that are the result.

    `dtype` is the name of the dtype of every register, `sizes` the size of every label.

    To save memory the steps are run slice by slice: `sliced` lists labels, and how many of its values a slice has of
    each, the last slice perhaps fewer. A slice takes the parts of the operands there. Outputs that have such a label
    are written part by part, others are the sums over the slices. What depends on no sliced label is computed once.
    The last `inner` of these labels are an inner loop: what depends on none of them is computed once for each slice of
    the others, and kept while the inner loop is run.
    """

    inputs: tuple[Term, ...]
    steps: tuple[Step, ...]
    outputs: tuple[int, ...]
    sizes: tuple[tuple[Label, int], ...]
    dtype: str
    sliced: tuple[tuple[Label, int], ...] = ()
    inner: int = 0

    def unsliced(self) -> Plan:
        """The plan without slices."""
        return replace(self, sliced=(), inner=0)

    def duplicates(self) -> dict[int, int]:
        """The registers that hold what an earlier one held, by the first that did: computed again to save memory."""
        return duplicates(len(self.inputs), self.steps)

    def last_uses(self) -> tuple[tuple[int, ...], ...]:
        """For each step the registers that nothing needs after it, so that their memory can go."""
        return last_uses(len(self.inputs), [step.sources for step in self.steps], self.outputs)

    def owners(self) -> tuple[int, ...]:
        """For each register the one whose memory it lies in: its own, or that of the register it is a view of.

        What depends on a sliced label is put together from slices, and so no view.
        """
        size, whole = dict(self.sizes), whole_registers(self)
        owners = list(range(len(self.inputs)))
        for register, step in enumerate(self.steps, len(self.inputs)):
            owners.append(owners[step.sources[0]] if step.is_view(size) and register in whole else register)
        return tuple(owners)

    def borrowed_outputs(self) -> tuple[int, ...]:
        """Positions among the outputs that are no memory of their own: an operand's, or an earlier output's."""
        owners = self.owners()
        owned = [owners[register] for register in self.outputs]
        return tuple(k for k, owner in enumerate(owned) if owner < len(self.inputs) or owner in owned[:k])

    def vjp(
        self,
        wrt: int | Sequence[int] | None = None,
        *,
        optimize: Any = "auto",
        memory_limit: int | str | None = None,
        device: str | Profile | None = None,
    ) -> Plan:
        """The backward pass: from the inputs and a cotangent of each output to the gradients of the inputs in `wrt`.

        It is run as `run_plan(plan.vjp(), *inputs, cotangent)`, and can be printed, kept as JSON, differentiated again.
        `wrt` lists positions among the inputs, all by default. Up to three gradients may be planned anew, by
        `optimize`, where that takes fewer flops than the way back through this plan. An `optimize` that is no name
        counts as "auto". The convention is `gpueinsum.vjp`'s.

        What does not fit in `memory_limit` (bytes, or "4GiB") is computed again, and shown as such, or the plan is run
        in slices. The limit is one of `peak_bytes(device)`; for a `device` it may be a share, "80%".

        A plan has one dtype: in a complex plan every input counts as complex, and the gradient of one that is real in
        fact is the real part of what comes out. Raises OperandError for positions that are none, DtypeError for a plan
        of integers, OptimizerError, and PlanError for a limit that cannot be kept or is a share of a device.

        >>> from gpueinsum import einsum_plan
        >>> print(einsum_plan("ij,jk->ik", (2, 3), (3, 5)).vjp())
        ij,jk,ik->ij,jk  float64  i=2 j=3 k=5
          %3 = ik,jk->ij  of %2, %1  left i=2, right j=3, summed k=5
          %4 = ik,ij->jk  of %2, %0  left k=5, right j=3, summed i=2
        """
        from gpueinsum.api.derivative_dispatch import backward_plan  # which is made of plans

        return backward_plan(self, wrt, optimize, memory_limit, device)

    def jvp(
        self,
        wrt: int | Sequence[int] | None = None,
        *,
        memory_limit: int | str | None = None,
        device: str | Profile | None = None,
    ) -> Plan:
        """The forward derivative: from the inputs and a tangent of each in `wrt`, in its order, to one of each output.

        It is run as `run_plan(plan.jvp(), *inputs, *tangents)`. Options and errors are those of `vjp`.

        >>> from gpueinsum import einsum_plan
        >>> print(einsum_plan("ij,jk->ik", (2, 3), (3, 5)).jvp())
        ij,jk,ij,jk->ik  float64  i=2 j=3 k=5
          %4 = ij,jk->ik  of %2, %1  left i=2, right k=5, summed j=3
          %5 = ij,jk->ik  of %0, %3  left i=2, right k=5, summed j=3
          %6 = ik+ik->ik  of %4, %5
        """
        from gpueinsum.api.derivative_dispatch import tangent_plan

        return tangent_plan(self, wrt, memory_limit, device)

    def peak_bytes(self, device: str | Profile | None = None) -> int:
        """The most bytes of intermediates and outputs alive at once, beside the operands.

        For a `device` ("h200", "a100", "cpu", the file of a profile, or a profile) those of the plan as that device
        runs it, with all that it takes for itself: on CUDA exactly what a run on operands in C order allocates, launch
        by launch, on the CPU with the sides that products copy. On top come cuBLAS' workspaces (32 MiB on an H200 for
        each stream that multiplies), and what a graph keeps, as much again; on the CPU scratch of a pass, at most a
        quarter of its result. Raises ProfileError for what is no device.

        >>> from gpueinsum.api.einsum import einsum_plan
        >>> plan = einsum_plan("ij,jk,kl->il", (400, 300), (300, 200), (200, 100))
        >>> plan.peak_bytes(), plan.peak_bytes("h200")
        (560000, 560128)
        """
        from gpueinsum.backends.footprint import peak_bytes

        return peak_bytes(self, device)

    @property
    def slices(self) -> SliceCount:
        """How often the steps are run for what depends on the sliced labels, and what that costs.

        >>> from gpueinsum import einsum_plan
        >>> shapes = (100_000, 100), (20, 100, 100), (100_000, 100)
        >>> einsum_plan("ab,cbe,ae->ac", *shapes, memory_limit="64MiB", device="h200").slices
        SliceCount(number=33, labels={'a': 3031}, overhead=1.0)
        """
        from gpueinsum.costs.counts import slice_count

        return slice_count(self)

    @property
    def equation(self) -> str:
        return f"{','.join(self.inputs)}->{','.join(self.term(register) for register in self.outputs)}"

    def __str__(self) -> str:
        size = dict(self.sizes)

        def sized(labels: Term) -> str:
            return " ".join(f"{label}={size[label]}" for label in labels) or "-"

        first = self.duplicates()
        parts = [f"{label}={block}/{size[label]}" for label, block in self.sliced]
        outer = len(parts) - self.inner
        within = f", each in slices of {' '.join(parts[outer:])}" if self.inner else ""
        slices = f"  in slices of {' '.join(parts[:outer])}{within}" if parts else ""
        lines = [f"{self.equation}  {self.dtype}  {sized(distinct(''.join(self.inputs)))}{slices}"]
        for register, step in enumerate(self.steps, len(self.inputs)):
            sources = ", ".join(f"%{source}" for source in step.sources)
            roles = [(role, getattr(step, role, "")) for role in ("batch", "left", "right", "summed")]
            shown = ", ".join(f"{role} {sized(labels)}" for role, labels in roles if labels)
            note = f"again, as %{first[register]}" if register in first else shown
            lines.append(f"  %{register} = {step}{f'  of {sources}' if sources else ''}  {note}".rstrip())
        return "\n".join(lines)

    @staticmethod
    def from_tree(tree: Any, dtype: Any = "float64") -> Plan:
        """The plan of a `ContractionTree` of cotengra's: its pairs, in the order of `tree.get_path()`, and its slices.

        Labels stay if each is a letter; else all are replaced by letters, A, B, ... in ascending order. Raises
        PlanError for a tree that is not complete or takes one value of a label only, and for anything else.

        >>> import cotengra
        >>> tree = cotengra.einsum_tree("ij,jk,kl->il", (4, 3), (3, 5), (5, 2))
        >>> print(Plan.from_tree(tree))
        ij,jk,kl->il  float64  i=4 j=3 k=5 l=2
          %3 = jk,kl->jl  of %1, %2  left j=3, right l=2, summed k=5
          %4 = ij,jl->il  of %0, %3  left i=4, right l=2, summed j=3
        """
        from gpueinsum.interop.cotengra import plan_of_tree

        return plan_of_tree(tree, dtype)

    def to_tree(self) -> Any:
        """The `ContractionTree` of cotengra's that contracts the same pairs, to be improved, sliced or drawn there.

        Needs cotengra. A tree keeps no order of pairs that do not depend on each other. Raises PlanError for a plan
        that is no tree: it has several outputs, one with a repeated label, conjugates, or a register read twice.

        >>> from gpueinsum import einsum_plan
        >>> einsum_plan("ij,jk,kl->il", (4, 3), (3, 5), (5, 2)).to_tree().get_ssa_path()
        ((1, 2), (0, 3))
        """
        from gpueinsum.interop.cotengra import tree_of_plan

        return tree_of_plan(self)

    def _repr_html_(self) -> str:
        """The picture of the contraction tree that notebooks show."""
        from gpueinsum.tools.picture import html_fragment  # which draws plans

        return html_fragment(self)

    def to_json(self) -> str:
        """The plan as JSON text, to be read back by `Plan.from_json`."""
        return json.dumps(self.to_dict())

    def to_dict(self) -> dict[str, Any]:
        """What `to_json` writes."""
        steps = [{"step": type(step).__name__, **asdict(step)} for step in self.steps]
        return asdict(self) | {"steps": steps}

    @staticmethod
    def from_json(text: str) -> Plan:
        """The plan that `to_json` wrote. Raises PlanError if the text is no plan, or one that cannot be run."""
        kinds = {kind.__name__: kind for kind in (Reduce, Expand, Contract, Add)}
        try:
            data: dict[str, Any] = json.loads(text)
            data.setdefault("sliced", [])
            for name in ("inputs", "steps", "outputs", "sizes", "sliced"):
                if not isinstance(data[name], list):
                    raise TypeError(f"{name} is no list")
            for step in data["steps"]:
                step |= {name: tuple(value) for name, value in step.items() if isinstance(value, list)}
            data["steps"] = tuple(kinds[step.pop("step")](**step) for step in data["steps"])
            for name in ("sizes", "sliced"):
                data[name] = tuple((label, number) for label, number in data[name])
            plan = Plan(**data | {name: tuple(data[name]) for name in ("inputs", "outputs")})
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            raise PlanError(f"not a plan: {error!r}") from error
        from gpueinsum.language.check import check_plan  # which knows plans

        check_plan(plan)
        return plan


def last_uses(operands: int, sources: Sequence[Sequence[int]], outputs: Sequence[int]) -> tuple[tuple[int, ...], ...]:
    """For each step, by the registers that it reads, those that nothing needs after it."""
    seen = set(outputs)
    uses = []
    for register, read in reversed([*enumerate(sources, operands)]):
        ending = {*read, register} - seen
        uses.append(tuple(sorted(ending)))
        seen |= ending
    return tuple(reversed(uses))


def duplicates(operands: int, steps: Sequence[Any]) -> dict[int, int]:
    """`Plan.duplicates` of a plan's steps, or of what a device makes of them."""
    first = list(range(operands))  # to hold the value of each register
    known: dict[Any, int] = {}
    for register, step in enumerate(steps, operands):
        first.append(known.setdefault(renumber(step, first), register))
    return {register: earlier for register, earlier in enumerate(first) if earlier != register}


def check_is_plan(plan: object) -> None:
    """Raise PlanError, saying where plans come from, for anything else."""
    if not isinstance(plan, Plan):
        raise PlanError(f"{plan!r:.60} is no Plan: einsum_plan makes one, Plan.from_json reads one from its JSON text")


def check_takes(plan: Plan, shapes: tuple[Shape, ...]) -> None:
    """Raise PlanError unless operands of these shapes are the plan's."""
    wanted = tuple(map(plan.shape, range(len(plan.inputs))))
    if shapes != wanted:
        raise PlanError(f"the plan {plan.equation} takes operands of shapes {wanted}, not {shapes}")
