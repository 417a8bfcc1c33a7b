"""cotengra: our functions contract its trees, its trees become plans, and plans its trees."""

import subprocess
import sys

import numpy as np
import pytest

import gpueinsum as ge
from gpueinsum import Plan, PlanError, einsum_plan
from gpueinsum.language.check import check_plan
from gpueinsum.language.steps import Contract

cotengra = pytest.importorskip("cotengra", reason="cotengra is not installed")
autoray = pytest.importorskip("autoray", reason="autoray is not installed")

from cotengra_trees import CHAIN, arrays_of, sliced_chain  # noqa: E402  # which import it

NETWORK = ["ij", "jk", "kl", "lm"], "im", {"i": 2, "j": 3, "k": 5, "l": 7, "m": 11}  # the same as CHAIN
EXPRESSIONS = {
    "a chain": CHAIN,
    "a label of three operands": ("ij,jk,jl,m->ikm", [(2, 3), (3, 5), (3, 7), (2,)]),
    "a label of three operands and the output": ("ij,jk,jl->jikl", [(2, 3), (3, 5), (3, 7)]),
    "labels repeated in an operand": ("iij,jk,kk->i", [(2, 2, 3), (3, 5), (5, 5)]),
    "labels of one operand": ("ia,ij,jkb->k", [(2, 7), (2, 3), (3, 5, 2)]),
    "outer products": ("i,j,k->kij", [(2,), (3,), (5,)]),
    "one operand": ("ijkk->kj", [(2, 3, 5, 5)]),
    "a pair": ("ij,jk->ki", [(2, 3), (3, 5)]),
    "sizes of 1": ("ij,jk,kl->il", [(1, 3), (3, 1), (1, 2)]),
    "scalars": (",ij,j,ij->", [(), (2, 3), (3,), (2, 3)]),
}
OURS = pytest.mark.parametrize(
    "ours", [{"implementation": (ge.einsum, ge.tensordot)}, {"backend": "gpueinsum"}], ids=["implementation", "backend"]
)
EXPRESSION = pytest.mark.parametrize(("equation", "shapes"), EXPRESSIONS.values(), ids=EXPRESSIONS)


def pairs_of_plan(plan):
    """The operands that each pair joins, on either side."""
    under, pairs = [frozenset([operand]) for operand in range(len(plan.inputs))], []
    for step in plan.steps:
        sides = [under[source] for source in step.sources]
        under.append(frozenset().union(*sides))
        if isinstance(step, Contract):
            pairs.append(frozenset(sides))
    return pairs


def pairs_of_path(path, operands):
    """The same of a path."""
    under, pairs = [frozenset([operand]) for operand in range(operands)], []
    for positions in path:
        sides = [under[position] for position in positions]
        under = [side for position, side in enumerate(under) if position not in positions]
        under.append(frozenset().union(*sides))
        pairs.append(frozenset(sides))
    return pairs


# ---------------------------------------------------------------- our functions in its trees


@EXPRESSION
@OURS
def test_our_functions_contract_a_tree(equation, shapes, ours, rng, contractions):
    tree, arrays = cotengra.einsum_tree(equation, *shapes), arrays_of(shapes, rng)
    np.testing.assert_allclose(tree.contract(arrays, **ours), np.einsum(equation, *arrays), atol=1e-12)
    assert len(contractions) == max(1, len(shapes) - 1) + len(tree.preprocessing)


@OURS
def test_our_functions_contract_every_slice_of_a_tree(ours, rng, contractions):
    arrays = arrays_of(CHAIN[1], rng)
    for labels, slices in (("k", 5), ("ik", 10), ("mi", 22)):  # summed, both, and of the output: their slices stacked
        contractions.clear()
        result = sliced_chain(*labels).contract(arrays, **ours)
        np.testing.assert_allclose(result, np.linalg.multi_dot(arrays))
        assert len(contractions) == 3 * slices


@pytest.mark.gpu
@OURS
def test_arrays_on_a_gpu_stay_there(ours, rng):
    cupy = pytest.importorskip("cupy")
    arrays = arrays_of(CHAIN[1], rng)
    for tree in (sliced_chain(), sliced_chain("k")):
        result = tree.contract([cupy.asarray(array) for array in arrays], **ours)
        assert isinstance(result, cupy.ndarray)
        np.testing.assert_allclose(cupy.asnumpy(result), np.linalg.multi_dot(arrays))


def test_constant_parts_of_a_sliced_tree_are_folded(rng):
    """cotengra then names the backend for all that it calls, what we leave to the arrays' library included."""
    arrays = arrays_of(CHAIN[1], rng)
    constants = dict(enumerate(arrays[:2]))
    expression = cotengra.array_contract_expression(*NETWORK, optimize=sliced_chain("i", "k"), constants=constants)
    np.testing.assert_allclose(expression(*arrays[2:], backend="gpueinsum"), np.linalg.multi_dot(arrays))


def test_exponents_are_stripped(rng):
    arrays = arrays_of(CHAIN[1], rng)
    mantissa, exponent = sliced_chain().contract(arrays, backend="gpueinsum", strip_exponent=True)
    np.testing.assert_allclose(mantissa * 10**exponent, np.linalg.multi_dot(arrays))


def test_a_function_of_arrays_is_that_of_their_library():
    array = np.arange(3.0)
    assert autoray.do("array", array, like="gpueinsum") is array
    assert autoray.do("max", array, like="gpueinsum") == 2.0
    with pytest.raises(ImportError, match="couldn't find function 'sin' for backend 'gpueinsum'"):
        autoray.do("sin", array, like="gpueinsum")


def test_where_autoray_is_not_in_use_only_our_own_functions_are_there():
    code = "import sys, gpueinsum\nassert 'autoray' not in sys.modules\ngpueinsum.stack"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stderr.endswith("AttributeError: module 'gpueinsum' has no attribute 'stack'\n")


# ---------------------------------------------------------------- a tree as a plan


@EXPRESSION
def test_a_tree_becomes_the_plan_of_its_pairs(equation, shapes, rng):
    tree, arrays = cotengra.einsum_tree(equation, *shapes, optimize="random-greedy"), arrays_of(shapes, rng)
    plan = Plan.from_tree(tree)
    check_plan(plan)
    assert plan.equation == equation
    assert pairs_of_plan(plan) == pairs_of_path(tree.get_path(), len(shapes))
    np.testing.assert_allclose(ge.run_plan(plan, *arrays), np.einsum(equation, *arrays), atol=1e-12)


@pytest.mark.parametrize("seed", range(20))
def test_random_networks_become_plans_and_trees_again(seed, rng):
    inputs, output, _, sizes = cotengra.utils.rand_equation(
        6, 3, n_out=2, n_hyper_in=1, n_hyper_out=1, d_min=1, d_max=3, seed=seed
    )
    tree = cotengra.array_contract_tree(inputs, output, sizes, optimize="random-greedy")
    arrays = arrays_of(tree.get_shapes(), rng)
    plan = Plan.from_tree(tree)
    again = plan.to_tree()
    assert set(pairs_of_path(again.get_path(), 6)) == set(pairs_of_plan(plan))
    assert pairs_of_plan(plan) == pairs_of_path(tree.get_path(), 6)
    expected = np.einsum(tree.get_eq(), *arrays)
    for result in (ge.run_plan(plan, *arrays), again.contract(arrays)):
        np.testing.assert_allclose(result, expected, atol=1e-12)


def test_the_order_is_not_chosen_anew():
    path = [(0, 3), (0, 1), (0, 1)]  # an outer product first, as no search would have it
    tree = cotengra.ContractionTree.from_path(*NETWORK, path=path)
    assert Plan.from_tree(tree).steps[0].equation == "ij,lm->ijlm"
    assert ge.contract_path(CHAIN[0], *CHAIN[1], shapes=True, optimize=tree)[0] == list(tree.get_path())
    operands = [np.ones(shape) for shape in CHAIN[1]]
    assert ge.einsum_path(CHAIN[0], *operands, optimize=tree)[0] == ["einsum_path", *tree.get_path()]


def test_labels_of_many_letters_become_letters_in_ascending_order():
    terms, sizes = [("left", "bond 10"), ("bond 10", "right")], {"left": 2, "bond 10": 3, "right": 5}
    tree = cotengra.ContractionTree.from_path(terms, ("right", "left"), sizes, path=[(0, 1)])
    plan = Plan.from_tree(tree, dtype="complex64")
    assert str(plan).splitlines()[0] == "BA,AC->CB  complex64  B=2 A=3 C=5"


@EXPRESSION
def test_a_tree_is_a_way_to_optimize(equation, shapes, rng):
    tree, arrays = cotengra.einsum_tree(equation, *shapes, optimize="random-greedy"), arrays_of(shapes, rng)
    expected = np.einsum(equation, *arrays)
    for result in (
        ge.einsum(equation, *arrays, optimize=tree),
        ge.contract(equation, *arrays, optimize=tree),
        ge.contract_expression(equation, *shapes, optimize=tree)(*arrays),
        ge.vjp(equation, *arrays, optimize=tree)[0],
    ):
        np.testing.assert_allclose(result, expected, atol=1e-12)
    assert einsum_plan(equation, *shapes, optimize=tree) == Plan.from_tree(tree)


def test_a_tree_that_changes_is_read_anew():
    """A plan that is kept is known by its path, not by the tree."""
    tree = cotengra.ContractionTree.from_path(*NETWORK, path=[(0, 1), (0, 1), (0, 1)])
    before = einsum_plan(CHAIN[0], *CHAIN[1], optimize=tree)
    tree.set_state_from(cotengra.ContractionTree.from_path(*NETWORK, path=[(2, 3), (1, 2), (0, 1)]))
    after = einsum_plan(CHAIN[0], *CHAIN[1], optimize=tree)
    assert (before.steps[0].equation, after.steps[0].equation) == ("ij,jk->ik", "kl,lm->km")


# ---------------------------------------------------------------- what is refused


def test_what_is_no_whole_tree_is_refused():
    with pytest.raises(PlanError, match="is not complete: some of its operands are not contracted"):
        Plan.from_tree(cotengra.ContractionTree(*NETWORK))
    with pytest.raises(PlanError, match=r"^7 is no ContractionTree of cotengra's$"):
        Plan.from_tree(7)
    with pytest.raises(PlanError, match="leaves 3 operands uncontracted"):
        einsum_plan("ij,jk,kl,lm,mn,no->io", *CHAIN[1], (11, 13), (13, 2), optimize=sliced_chain())


# ---------------------------------------------------------------- a plan as a tree


@EXPRESSION
def test_a_plan_becomes_a_tree(equation, shapes, rng):
    plan, arrays = einsum_plan(equation, *shapes), arrays_of(shapes, rng)
    tree = plan.to_tree()
    assert tree.get_eq() == equation
    assert set(pairs_of_path(tree.get_path(), len(shapes))) == set(pairs_of_plan(plan))
    np.testing.assert_allclose(tree.contract(arrays), np.einsum(equation, *arrays), atol=1e-12)


def test_an_axis_that_broadcasts_is_a_label_of_its_own(rng):
    plan = einsum_plan("ij,ij,jk->k", (1, 3), (2, 3), (3, 5))
    arrays = arrays_of([(1, 3), (2, 3), (3, 5)], rng)
    np.testing.assert_allclose(plan.to_tree().contract(arrays), np.einsum("ij,ij,jk->k", *arrays))


NO_TREES = {
    "several outputs": einsum_plan("ij,jk,kl->il", (2, 3), (3, 5), (5, 7)).vjp(),
    "a sum of arrays": einsum_plan("ij,jk->ik", (2, 3), (3, 5)).jvp(),
    "a conjugate": einsum_plan("ij,jk->ik", (2, 3), (3, 5), dtype=complex).vjp(0),
    "a diagonal": einsum_plan("i,i->ii", (2,), (2,)),
    "an operand that is not read": einsum_plan("ij,jk->ik", (2, 0), (0, 5)),
}


@pytest.mark.parametrize("plan", NO_TREES.values(), ids=NO_TREES)
def test_a_plan_that_is_no_tree_is_refused(plan):
    with pytest.raises(PlanError, match="is no contraction tree: that multiplies all operands in pairs"):
        plan.to_tree()


def test_an_optimizer_takes_no_limit_that_it_would_ignore():
    with pytest.raises(PlanError, match="GreedyOptimizer takes no largest_intermediate: give a limit to the optimizer"):
        ge.contract("ij,jk,kl->il", *np.ones((3, 2, 2)), optimize=cotengra.GreedyOptimizer(), largest_intermediate=100)
