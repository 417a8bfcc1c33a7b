"""Third stage: subscripts and a path in, `Plan` out. Knows labels and sizes, never arrays or strides."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

from gpueinsum.language.plan import Plan
from gpueinsum.language.steps import Contract, Expand, Reduce, Step, distinct, rearrange, reduces
from gpueinsum.language.subscripts import Label, Subscripts, Term
from gpueinsum.planning.path import Path, find_path

Operand = tuple[int, Term]  # a register and its term
FindPath = Callable[[tuple[Term, ...], Term], Path]


def lower(subscripts: Subscripts, order: FindPath, dtype: str) -> Plan:
    """Lower an expression to steps.

    Each operand is first reduced to the labels that somebody else needs (diagonals taken, lonely labels summed);
    `order` finds a path for what is left, whose labels are distinct; each pair becomes one `Contract`, which keeps the
    labels that the remaining operands or the output still need. Last the result is permuted, or embedded on the
    diagonal and broadcast along labels that only the output has. A sum over no elements at all is zero without any of
    that.
    """
    lowering = _Lowering(subscripts)
    lowering.reduce_operands()
    terms = tuple([term for _, term in lowering.operands])
    held = set().union(*terms)
    output = "".join([label for label in dict.fromkeys(subscripts.output) if label in held])
    path = order(terms, output)
    empty = {label for label, size in subscripts.sizes if size == 0 and label not in subscripts.output}
    if empty:
        return _empty_sum(subscripts, empty, dtype)
    for positions in path:
        lowering.contract(positions)
    return lowering.finish(dtype)


def _empty_sum(subscripts: Subscripts, empty: set[Label], dtype: str) -> Plan:
    """Zero, from an operand without elements, whatever the others hold: 0 times an infinity would be no number."""
    output, zero = subscripts.output, len(subscripts.inputs)
    source, term = next((i, term) for i, term in enumerate(subscripts.inputs) if empty & set(term))
    kept = "".join(label for label in dict.fromkeys(output) if label in term)
    steps: list[Step] = [Reduce(source, term, kept)]
    if kept != output:
        steps.append(Expand(zero, kept, output))
    return Plan(subscripts.inputs, tuple(steps), (zero + len(steps) - 1,), subscripts.sizes, dtype)


def contraction_pairs(plan: Plan) -> list[tuple[int, int]]:
    """The pairs that a plan contracts, if it is a tree: of nodes, which are the operands and then the pairs in turn."""
    nodes = list(range(len(plan.inputs)))  # of each register; one that is reduced stays the node that it was
    pairs: list[tuple[int, int]] = []
    for step in plan.steps:
        if isinstance(step, Contract):
            pairs.append((nodes[step.lhs], nodes[step.rhs]))
            nodes.append(len(plan.inputs) + len(pairs) - 1)
        else:
            nodes.append(nodes[step.sources[0]])
    return pairs


class _Lowering:
    """The steps so far, and the operands still to be contracted as (register, term), in the path's order."""

    def __init__(self, subscripts: Subscripts) -> None:
        self.subscripts = subscripts
        self.steps: list[Step] = []
        self.operands: list[Operand] = list(enumerate(subscripts.inputs))
        # How many of the operands left, the output counted as one more, hold each label.
        self.holders: dict[Label, int] = {}
        for term in (*subscripts.inputs, subscripts.output):
            for label in set(term):
                self.holders[label] = self.holders.get(label, 0) + 1

    def reduce_operands(self) -> None:
        """Leave each operand the labels that another holds, or the output does, once each."""
        alone = len(self.operands) == 1
        for number, (register, term) in enumerate(self.operands):
            if alone and reduces(term, self.subscripts.output):
                self.operands[number] = self._reduce(register, term, self.subscripts.output)
            elif len(set(term)) < len(term) or min([self.holders[label] for label in term], default=2) < 2:
                needed = "".join([label for label in dict.fromkeys(term) if self.holders[label] > 1])
                self.operands[number] = self._reduce(register, term, needed)

    def contract(self, positions: tuple[int, ...]) -> None:
        """Contract the operands at these positions and put the result last; more than two in the best pairs."""
        group = _take(self.operands, positions)
        while len(group) > 2:
            terms = [term for _, term in group]
            within = Counter("".join(terms))
            needed = "".join(label for label in within if self.holders[label] > within[label])
            first, *_ = find_path(terms, needed, dict(self.subscripts.sizes))
            group.append(self._pair(*_take(group, first)))
        self.operands.append(self._pair(*group) if len(group) == 2 else group[0])

    def finish(self, dtype: str) -> Plan:
        [(register, term)] = self.operands
        subscripts = self.subscripts
        if term != subscripts.output:
            register = self._append(rearrange(register, term, subscripts.output))
        return Plan(subscripts.inputs, tuple(self.steps), (register,), subscripts.sizes, dtype)

    def _pair(self, lhs: Operand, rhs: Operand) -> Operand:
        """The result's labels go by role, each in its operand's order, so that a role that fuses there fuses here.

        Where nothing is summed, neighbours in both operands stay neighbours.
        """
        (x, x_term), (y, y_term) = lhs, rhs
        batch = left = summed = ""
        for label in x_term:
            if label not in y_term:
                left += label
                continue
            self.holders[label] -= 1  # the result, if it keeps the label, in the place of both sides
            if self.holders[label] > 1:
                batch += label
            else:
                summed += label
        right = "".join([label for label in y_term if label not in x_term])
        last = self.subscripts.output[-1:]
        out = batch + (right + left if last and last in left else left + right)
        if batch and not summed:  # a pass over memory
            output = distinct(self.subscripts.output)
            is_inner = x_term[-1] in batch and y_term[-1] in batch
            out = output if set(out) == set(output) else left + right + batch if is_inner else out
        return self._append(Contract(x, y, x_term, y_term, out)), out

    def _reduce(self, register: int, term: Term, wanted: Term) -> Operand:
        return (register, term) if term == wanted else (self._append(Reduce(register, term, wanted)), wanted)

    def _append(self, step: Step) -> int:
        self.steps.append(step)
        return len(self.subscripts.inputs) + len(self.steps) - 1


def _take(operands: list[Operand], positions: tuple[int, ...]) -> list[Operand]:
    """Take the operands at these positions out of the list."""
    chosen = [operands[position] for position in positions]
    for position in sorted(positions, reverse=True):
        del operands[position]
    return chosen
