"""Searches of orders: never worse than what they start from, exact where that can be known, the same for a seed."""

import itertools
import math
from functools import partial
from random import Random

import pytest

from gpueinsum.costs.profile import profile
from gpueinsum.costs.seconds import pair_seconds
from gpueinsum.language.subscripts import alphabet
from gpueinsum.planning import orders as searches
from gpueinsum.planning import refine as refinement
from gpueinsum.planning.orders import orders
from gpueinsum.planning.path import all_paths, check_path, find_path
from gpueinsum.planning.refine import anneal, refine
from gpueinsum.planning.starts import greedy_path, linear_path
from gpueinsum.planning.tree import Tree

FOREVER = math.inf
SECONDS = partial(pair_seconds, profile("cpu"), "float64")


def multiplications(batch, rows, columns, summed):
    return float(batch * rows * columns * summed)


def network(rng, operands, labels, hyperedges=False, output=1):
    """Random terms: each label is in two operands, or in up to four; some are in the output; sizes from 1 to 6."""
    names = list(itertools.islice(alphabet(), labels))
    terms = [""] * operands
    for name in names:
        for operand in rng.sample(range(operands), min(operands, rng.randint(1, 4) if hyperedges else 2)):
            terms[operand] += name
    return tuple(terms), "".join(rng.sample(names, output)), {name: rng.randint(1, 6) for name in names}


def brute_force_cost(terms, output, sizes, path):
    """Multiplications of a path by definition: the points of the labels of each pair."""
    terms, total = [set(term) for term in terms], 0
    lonely = {label for label in sizes if sum(label in term for term in terms) == 1} - set(output)
    terms = [term - lonely for term in terms]
    for step in path:
        pair = [terms[position] for position in step]
        for position in sorted(step, reverse=True):
            del terms[position]
        total += math.prod(sizes[label] for label in set().union(*pair))
        terms.append(set().union(*pair) & set(output).union(*terms))
    return total


NETWORKS = [
    pytest.param(6, 8, False, 1, id="edges"),
    pytest.param(6, 7, True, 2, id="hyperedges"),
    pytest.param(6, 3, False, 0, id="disconnected"),
    pytest.param(6, 0, False, 0, id="scalars"),
]


@pytest.mark.parametrize(("operands", "labels", "hyperedges", "output"), NETWORKS)
@pytest.mark.parametrize("seed", range(5))
def test_a_small_network_gets_the_best_of_all_orders(operands, labels, hyperedges, output, seed):
    terms, output, sizes = network(Random(seed), operands, labels, hyperedges, output)
    best = min(brute_force_cost(terms, output, sizes, path) for path in all_paths(operands))
    given = greedy_path(terms, output, sizes, 0.5, 0.5, Random(seed))
    found = refine(terms, output, sizes, given, multiplications, FOREVER)
    assert brute_force_cost(terms, output, sizes, check_path(found, operands)) == best


@pytest.mark.parametrize("seed", range(20))
def test_a_tree_prices_what_a_path_takes(seed):
    terms, output, sizes = network(Random(seed), 12, 20, seed % 2 == 1, seed % 3)
    rng = Random(seed)
    for path in (linear_path(terms, output, sizes, rng), greedy_path(terms, output, sizes, 0.5, 0.5, rng)):
        tree = Tree(terms, output, sizes, path, multiplications)
        assert tree.seconds() == brute_force_cost(terms, output, sizes, path)
        anneal(tree, rng, 5, FOREVER)
        moved = check_path(tree.path(), 12)
        assert moved != path
        assert tree.seconds() == brute_force_cost(terms, output, sizes, moved)


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize("price", [multiplications, SECONDS])
def test_refinement_makes_no_order_worse(seed, price):
    terms, output, sizes = network(Random(seed), 40, 60, seed % 2 == 1, seed % 3)
    path = linear_path(terms, output, sizes, Random(seed))
    before = Tree(terms, output, sizes, path, price).seconds()
    assert Tree(terms, output, sizes, refine(terms, output, sizes, path, price, FOREVER), price).seconds() < before
    assert Tree(terms, output, sizes, refine(terms, output, sizes, path, price, 0.0), price).seconds() == before


def test_sliced_labels_count_as_of_size_one():
    terms, sizes = ("ab", "bc", "ca"), {"a": 1, "b": 50, "c": 40}
    assert refine(terms, "", sizes, ((0, 2), (0, 1)), multiplications, FOREVER) != ((0, 2), (0, 1))
    assert refine(terms, "", sizes | {"b": 1, "c": 1}, ((0, 2), (0, 1)), multiplications, FOREVER) == ((0, 2), (0, 1))


def test_steps_over_one_or_many_operands_go_in_pairs():
    assert refine(("ab",), "a", {"a": 2, "b": 3}, ((0,),), multiplications, FOREVER) == ((0,),)
    sizes = dict.fromkeys("abcde", 7)
    path = refine(("ab", "bc", "cd", "de"), "ae", sizes, ((0, 1, 2, 3),), multiplications, FOREVER)
    assert [len(step) for step in path] == [2, 2, 2]


def test_the_side_that_needs_most_memory_comes_first():
    terms, sizes = ("ab", "b", "ax", "y", "xy"), {"a": 100, "b": 2, "x": 10, "y": 10}
    tree = Tree(terms, "", sizes, ((0, 1), (0, 1), (0, 2), (0, 1)), multiplications)  # "axy" beside "a"
    assert tree.path() == ((2, 3), (2, 3), (0, 1), (0, 1))


def test_sizes_beyond_any_memory_are_priced():
    labels = "".join(itertools.islice(alphabet(), 400))
    terms, sizes = (labels[:300], labels[100:], labels[::3]), dict.fromkeys(labels, 1000)
    assert Tree(terms, labels, sizes, ((0, 1), (0, 1)), SECONDS).seconds() < math.inf


@pytest.fixture
def ticking(monkeypatch):
    """A clock that goes a second further each time it is asked."""
    ticks = itertools.count()
    for module in (searches, refinement):
        monkeypatch.setattr(module, "perf_counter", lambda: next(ticks))


@pytest.mark.usefixtures("ticking")
def test_orders_are_the_same_for_a_seed_until_the_time_is_over():
    terms, output, sizes = network(Random(3), 30, 45)

    def found(seconds, seed):
        return list(orders(terms, output, sizes, SECONDS, searches.perf_counter() + seconds, seed))

    short, long, other = found(300, 0), found(6000, 0), found(6000, 1)
    assert 1 < len(short) < len(long)
    assert short[:-1] == long[: len(short) - 1]
    assert other[:-1] != long[: len(other) - 1]


def test_one_order_is_found_in_no_time():
    terms, output, sizes = network(Random(3), 30, 45)
    assert len(list(orders(terms, output, sizes, SECONDS, 0.0))) == 1


def test_greedy_searches_differ_by_what_they_weigh():
    terms, output, sizes = ("ab", "bc", "cd"), "ad", {"a": 2, "b": 3, "c": 50, "d": 40}
    assert greedy_path(terms, output, sizes, 1.0) == find_path(terms, output, sizes, "greedy")
    assert greedy_path(terms, output, sizes, 1.0)[0] == (1, 2)  # frees 150 and 2000 for 120
    assert greedy_path(terms, output, sizes, 0.0)[0] == (0, 1)  # leaves 100
    noisy = {greedy_path(terms, output, sizes, 0.0, 3.0, Random(seed))[0] for seed in range(9)}
    assert noisy == {(0, 1), (1, 2)}


def test_a_lattice_is_joined_from_one_side_to_the_other():
    """Two rows of six sites: the array has two open edges more than at most three of the sites do."""
    terms = [f"{'abcdefg'[k]}{'abcdefg'[k + 1]}{'hijklm'[k]}" for k in range(6)]
    terms += [f"{'nopqrst'[k]}{'nopqrst'[k + 1]}{'hijklm'[k]}" for k in range(6)]
    sizes = dict.fromkeys("bcdefhijklmopqrs", 2) | dict.fromkeys("agnt", 1)
    for seed in range(5):
        tree = Tree(terms, "", sizes, linear_path(terms, "", sizes, Random(seed)), multiplications)
        assert max(map(tree.size, tree.labels)) <= 2**5


def test_searches_take_empty_arrays():
    terms, output, sizes = ("ab", "bc", "cd"), "ad", {"a": 2, "b": 0, "c": 3, "d": 5}
    assert all(len(path) == 2 for path in orders(terms, output, sizes, SECONDS, 0.0))
    assert len(linear_path(terms, output, sizes, Random(0))) == 2
