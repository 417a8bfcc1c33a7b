"""Trees of cotengra with sliced labels become plans with them, and plans such trees."""

from dataclasses import replace

import numpy as np
import pytest

import gpueinsum as ge
from gpueinsum import Plan, PlanError, einsum_plan
from gpueinsum.api.arguments import DEFAULT, Options
from gpueinsum.backends.select import HOST
from gpueinsum.interop.functions import Einsum, Planned, Vjp, from_text, to_text
from gpueinsum.language.check import check_plan
from gpueinsum.language.slices import cut

cotengra = pytest.importorskip("cotengra", reason="cotengra is not installed")

from cotengra_trees import CHAIN, arrays_of, sliced_chain  # noqa: E402  # which import it


def slicing_optimizer(kind, slices):
    options = {"methods": ["greedy"], "max_repeats": 2, "parallel": False, "slicing_opts": {"target_slices": slices}}
    return getattr(cotengra, kind)(**options)


@pytest.mark.parametrize("labels", ["k", "i", "ik", "mi", "mjil"])
def test_a_sliced_tree_becomes_a_plan_in_slices(labels, rng):
    tree, arrays = sliced_chain(*labels), arrays_of(CHAIN[1], rng)
    plan = Plan.from_tree(tree)
    check_plan(plan)
    assert plan == replace(Plan.from_tree(tree.unslice_all()), sliced=tuple((label, 1) for label in tree.sliced_inds))
    np.testing.assert_allclose(ge.run_plan(plan, *arrays), tree.contract(arrays))
    again = plan.to_tree()
    assert again.sliced_inds == tree.sliced_inds
    np.testing.assert_allclose(again.contract(arrays), tree.contract(arrays))


@pytest.mark.parametrize("seed", range(20))
def test_random_networks_in_slices_are_contracted_as_by_cotengra(seed, rng):
    inputs, output, _, sizes = cotengra.utils.rand_equation(
        6, 3, n_out=2, n_hyper_in=1, n_hyper_out=1, d_min=1, d_max=3, seed=seed
    )
    tree = cotengra.array_contract_tree(inputs, output, sizes, optimize="random-greedy")
    tree = tree.slice(target_slices=min(8, max(1, tree.max_size())))
    arrays = arrays_of(tree.get_shapes(), rng)
    plan = Plan.from_tree(tree)
    for result in (ge.run_plan(plan, *arrays), plan.to_tree().contract(arrays)):
        np.testing.assert_allclose(result, tree.contract(arrays), atol=1e-12)


def test_a_lattice_in_slices_takes_their_memory_and_has_cotengras_value(rng):
    inputs, output, shapes, sizes = cotengra.utils.lattice_equation([3, 3, 3], d_min=2, d_max=2)
    tree = cotengra.array_contract_tree(inputs, output, sizes, optimize="greedy").slice(target_size=2**7)
    arrays = [array / 2 for array in arrays_of(shapes, rng)]
    plan, whole = Plan.from_tree(tree), Plan.from_tree(tree.unslice_all())
    assert tree.nslices >= 8
    assert plan.peak_bytes() < whole.peak_bytes() / 4
    np.testing.assert_allclose(ge.run_plan(plan, *arrays), tree.contract(arrays))


def test_a_sliced_tree_is_a_way_to_optimize(rng):
    tree, arrays = sliced_chain("k", "i"), arrays_of(CHAIN[1], rng)
    plan, expected = einsum_plan("ab,bc,cd,de->ae", *CHAIN[1], optimize=tree), np.linalg.multi_dot(arrays)
    assert plan.sliced == (("a", 1), ("c", 1))  # by position, whatever the tree calls them
    value, pullback = ge.vjp(CHAIN[0], *arrays, optimize=tree)
    gradients = ge.vjp(CHAIN[0], *arrays)[1](expected)
    for result in (
        value,
        ge.einsum("ab,bc,cd,de->ae", *arrays, optimize=tree),
        ge.contract(CHAIN[0], *arrays, optimize=tree),
        ge.contract_expression(CHAIN[0], *CHAIN[1], optimize=tree)(*arrays),
        ge.contract_expression(CHAIN[0], *arrays[:3], CHAIN[1][3], constants=[0, 1, 2], optimize=tree)(arrays[3]),
    ):
        np.testing.assert_allclose(result, expected)
    for gradient, other in zip(pullback(expected), gradients, strict=True):
        np.testing.assert_allclose(gradient, other)
    assert pullback.plan.sliced == (("i", 1), ("k", 1))


def test_an_axis_that_broadcasts_is_sliced_with_the_label_it_is_in_the_tree(rng):
    tree = cotengra.einsum_tree("ij,ij,jk->k", (2, 3), (2, 3), (3, 5)).remove_ind("i")
    arrays = arrays_of([(1, 3), (2, 3), (3, 5)], rng)
    result = ge.einsum("ij,ij,jk->k", *arrays, optimize=tree)
    np.testing.assert_allclose(result, np.einsum("ij,ij,jk->k", *arrays))


@pytest.mark.parametrize("kind", ["HyperOptimizer", "ReusableHyperOptimizer"])
def test_the_slices_that_an_optimizer_finds_are_kept(kind, rng):
    arrays = arrays_of(CHAIN[1], rng)
    plan = einsum_plan(CHAIN[0], *CHAIN[1], optimize=slicing_optimizer(kind, 7))
    assert cut(plan).count >= 7
    for result in (
        ge.einsum(CHAIN[0], *arrays, optimize=slicing_optimizer(kind, 7)),
        ge.contract_expression(CHAIN[0], *CHAIN[1], optimize=slicing_optimizer(kind, 7))(*arrays),
    ):
        np.testing.assert_allclose(result, np.linalg.multi_dot(arrays))
    assert einsum_plan(CHAIN[0], *CHAIN[1], optimize=slicing_optimizer(kind, 1)).sliced == ()


def test_a_framework_keeps_the_slices_as_text():
    """torch.compile holds functions as text."""
    options = Options(optimize=sliced_chain("k", "i")).check()
    function = Einsum(CHAIN[0], 4, options)
    assert from_text(to_text(function)) == function
    gradients = Vjp(Planned(Plan.from_tree(sliced_chain("k")), DEFAULT), (0, 2))
    assert from_text(to_text(gradients)) == gradients
    plan = gradients.plan((*CHAIN[1], (2, 11)), np.dtype(float), HOST.profile)
    assert plan.sliced == (("k", 1),)


# ---------------------------------------------------------------- what is refused


def test_a_path_has_no_slices():
    for function, shapes in ((ge.contract_path, {"shapes": True}), (ge.einsum_path, {})):
        operands = CHAIN[1] if shapes else [np.ones(shape) for shape in CHAIN[1]]
        with pytest.raises(PlanError, match=r"the contraction tree has sliced labels, and a path has none: .*unslice_"):
            function(CHAIN[0], *operands, optimize=sliced_chain("k"), **shapes)
    with pytest.raises(PlanError, match="the contraction tree has sliced labels"):
        ge.contract_path(CHAIN[0], *CHAIN[1], shapes=True, optimize=slicing_optimizer("HyperOptimizer", 7))


def test_a_tree_that_leaves_values_of_a_label_out_is_refused():
    with pytest.raises(PlanError, match="the contraction tree takes 'k' at 2 alone: index the operands instead"):
        Plan.from_tree(sliced_chain().remove_ind("k", project=2))


def test_slices_of_other_operands_are_refused():
    with pytest.raises(PlanError, match="the sliced labels are those of other operands than ij,j,k,kl"):
        einsum_plan("ij,j,k,kl->il", (2, 3), (3,), (5,), (5, 7), optimize=sliced_chain("k"))
