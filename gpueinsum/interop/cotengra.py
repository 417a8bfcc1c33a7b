"""Plans from contraction trees of cotengra, and trees from plans."""

from __future__ import annotations

from typing import Any

from gpueinsum.api.einsum import einsum_plan
from gpueinsum.errors import PlanError
from gpueinsum.language.plan import Plan
from gpueinsum.language.steps import reduces
from gpueinsum.planning.derivatives import as_expression
from gpueinsum.planning.lower import contraction_pairs
from gpueinsum.planning.path import read_tree

Tree = Any  # cotengra.ContractionTree


def plan_of_tree(tree: Tree, dtype: Any) -> Plan:
    """`Plan.from_tree`."""
    path = read_tree(tree)
    if path is tree:
        raise PlanError(f"{tree!r:.60} is no ContractionTree of cotengra's")
    operands = [part for pair in zip(tree.get_shapes(), tree.inputs, strict=True) for part in pair]
    return einsum_plan(*operands, tree.output, optimize=path, dtype=dtype)


def tree_of_plan(plan: Plan) -> Tree:
    """`Plan.to_tree`."""
    import cotengra

    expression = as_expression(plan)
    if expression is None or not reduces("".join(expression.inputs), expression.output):
        raise PlanError(
            f"the plan {plan.equation} is no contraction tree: that multiplies all operands in pairs, reads each "
            "register once, conjugates none, and has one output, whose labels are distinct"
        )
    terms = [tuple(term) for term in expression.inputs]
    sizes = dict(expression.sizes)
    tree = cotengra.ContractionTree.from_path(terms, tuple(expression.output), sizes, ssa_path=contraction_pairs(plan))
    for label, block in plan.sliced:
        if 1 < block < sizes.get(label, 0):
            raise PlanError(f"a tree has slices of one value each, and the plan has {block} of {label!r}")
        if label in sizes and block == 1:  # else no array has it
            tree.remove_ind_(label)
    return tree
