import numpy as np
import opt_einsum
import pytest

import gpueinsum
from gpueinsum import PlanError, einsum_plan
from gpueinsum.language.check import check_plan
from gpueinsum.planning.path import all_paths, check_path, find_path

TERMS, OUTPUT, SIZES = ("ij", "jk", "kl", "lm"), "im", {"i": 2, "j": 3, "k": 5, "l": 7, "m": 11}


def path(optimize="auto", largest=None):
    return find_path(TERMS, OUTPUT, SIZES, optimize, largest)


@pytest.mark.parametrize("name", ["auto", "auto-hq", "greedy", "optimal", "dp", "branch-all", "random-greedy", True])
def test_every_optimizer_of_opt_einsum_is_known_by_name(name):
    assert len(path(name)) == 3


@pytest.mark.parametrize(
    "optimizer",
    [
        opt_einsum.DynamicProgramming(minimize="size"),
        opt_einsum.RandomGreedy(max_repeats=2),
        opt_einsum.BranchBound(nbranch=2),
        lambda inputs, output, sizes, memory_limit=None: [(0, 1), (0, 1), (0, 1)],
    ],
    ids=lambda optimizer: type(optimizer).__name__,
)
def test_any_path_optimizer_is_accepted(optimizer):
    assert len(path(optimizer)) == 3


def test_optimizers_of_cotengra_are_accepted():
    cotengra = pytest.importorskip("cotengra")
    assert len(path(cotengra.GreedyOptimizer())) == 3
    assert len(path(cotengra.HyperOptimizer(methods=["greedy"], max_repeats=2, parallel=False, progbar=False))) == 3


@pytest.mark.parametrize(
    "optimize",
    [
        [(0, 1), (0, 1), (0, 1)],
        ("einsum_path", (0, 1), (0, 1), (0, 1)),
        (("einsum_path", (0, 1), (0, 1), (0, 1)), "the account that np.einsum_path returns with it"),
    ],
)
def test_a_path_is_taken_as_it_is(optimize):
    assert path(optimize) == ((0, 1), (0, 1), (0, 1))


def test_without_optimisation_all_operands_are_one_step():
    assert path(False) == ((0, 1, 2, 3),)


def test_steps_over_many_operands_become_pairs_in_the_best_order():
    plan = einsum_plan("ij,jk,kl->il", (2, 3), (3, 5), (5, 7), optimize=[(0, 1, 2)])
    assert [step.equation for step in plan.steps] == ["ij,jk->ik", "kl,ik->il"]
    for options in ({"optimize": False}, {"largest_intermediate": 1000}):  # both make it one step of three
        plan = einsum_plan("ai,bj,ij->ab", (60, 60), (60, 60), (60, 60), **options)
        assert max(len(step.out) for step in plan.steps) == 2  # no outer product of 12,960,000


@pytest.mark.parametrize("path", [[(1, 3, 0), (0, 1)], [(2, 0), (1, 0, 2)], [(0, 1, 2, 3)], [(3,), (0, 1, 2), (0, 1)]])
def test_pairs_take_the_same_operands_as_the_steps_that_they_replace(path, rng):
    operands = [rng.random([SIZES[label] for label in term]) for term in TERMS]
    result = gpueinsum.einsum("ij,jk,kl,lm->im", *operands, optimize=path)
    np.testing.assert_allclose(result, np.linalg.multi_dot(operands))
    plan = einsum_plan("ij,jk,kl,lm->im", *operands, optimize=path)
    check_plan(plan)
    assert [len(step.sources) for step in plan.steps] == [2, 2, 2]


def test_a_memory_limit_is_handed_to_the_optimizer_in_elements():
    seen = []

    def optimizer(inputs, output, sizes, memory_limit=None):
        seen.append(memory_limit)
        return [(0, 1), (0, 1), (0, 1)]

    for limit in (None, -1, 100, "max_input"):
        path(optimizer, limit)
    assert seen == [None, None, 100, 7 * 11]
    assert path(("greedy", 100)) == path("greedy", 100)  # numpy's way to say it


def test_positions_of_a_path_may_be_counted_from_the_end():
    assert path([(0, -1), (-2, -1), (0, 1)]) == ((0, 3), (1, 2), (0, 1))


def test_an_optimizer_that_keeps_to_no_limit_says_so():
    with pytest.raises(PlanError, match="optimize='dp' finds no path: No contraction found"):
        path("dp", 1)


@pytest.mark.parametrize(
    ("optimize", "complaint"),
    [
        ("fastest", "optimize='fastest' is no path.*valid options are"),
        ([(0, 1)], "leaves 3 operands uncontracted"),
        ([(0, 4), (0, 1), (0, 1)], r"path step 0, \(0, 4\), does not name distinct ones of the 4 operands left"),
        ([(0, 1), (0, 0), (0, 1)], "path step 1"),
        ([(0, 1), (), (0, 1)], "path step 1"),
        ([0, 1], "a sequence of tuples of positions"),
        (7, "optimize=7 is no path"),
    ],
)
def test_a_path_that_does_not_fit_is_refused(optimize, complaint):
    with pytest.raises(PlanError, match=complaint):
        path(optimize)


def test_a_memory_limit_that_is_none_is_refused():
    with pytest.raises(PlanError, match="largest_intermediate='2GiB'"):
        path("greedy", "2GiB")


def test_a_search_finds_a_path_where_nothing_costs_anything():
    plan = einsum_plan("ab,bc,cd->ad", (2, 0), (0, 3), (3, 0), optimize="dp")
    assert plan.shape(plan.outputs[0]) == (2, 0)


def test_all_paths_are_all_there_are():
    for operands, count in ((1, 1), (2, 1), (3, 3), (4, 18), (5, 180)):
        paths = set(all_paths(operands))
        assert len(paths) == count
        assert all(check_path(path, operands) == path for path in paths)
