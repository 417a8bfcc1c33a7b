"""The choice of a way does not depend on how its problem is spelled."""

import itertools
from dataclasses import replace
from random import Random

import pytest
from expressions import EXPRESSIONS, arguments

import gpueinsum as ge
from gpueinsum.costs.profile import profile
from gpueinsum.language.steps import Contract, distinct
from gpueinsum.schedule import select
from gpueinsum.schedule.predict import problem_of
from gpueinsum.schedule.problem import Problem, canonical
from gpueinsum.schedule.select import cheapest

LETTERS = "zaYbXcWdVeUfTgShαβγδεζ你漢😀mnopqrstuv"  # out of order on purpose


def listed_pairs():
    """Every pair that the table's expressions of two operands are made of, with sizes as they stand and larger ones."""
    for subscripts, shapes in EXPRESSIONS.values():
        if len(shapes) == 2:
            plan = ge.einsum_plan(*arguments(subscripts, shapes))
            for step in plan.steps:
                if isinstance(step, Contract) and len(distinct(step.lhs_term + step.rhs_term)) < 20:
                    size = dict(plan.sizes)
                    yield step, size
                    yield step, {label: 7 * number for label, number in size.items()}


def random_pairs(count):
    for seed in range(count):
        rng = Random(seed)
        labels = "abcdefgh"[: rng.randint(1, 6)]
        holders = [rng.choice(["lo", "ro", "lr", "lr", "lro"]) for _ in labels]
        terms = [[label for label, held in zip(labels, holders, strict=True) if name in held] for name in "lro"]
        lhs, rhs, out = ("".join(rng.sample(term, len(term))) for term in terms)
        marks = rng.choice([(False, False), (True, False), (False, True), (True, True)])
        sizes = rng.choice([(1, 2, 3), (3, 5, 7), (16, 16, 24), (6, 6, 6)])
        yield Contract(0, 1, lhs, rhs, out, *marks), {label: rng.choice(sizes) for label in labels}


def spelled(problem: Problem, rng: Random, is_swapped: bool) -> tuple[Problem, dict[int, str]]:
    """The same problem with other labels and, if it `is_swapped`, its sides swapped; and how to read its labels."""
    labels = "".join(label for label, _ in problem.sizes)
    names = "".join(rng.sample(LETTERS, len(labels)))
    to, back = str.maketrans(labels, names), str.maketrans(names, labels)
    turn = slice(None, None, -1 if is_swapped else 1)
    other = replace(
        problem,
        terms=tuple(term.translate(to) for term in problem.terms[turn]),
        out=problem.out.translate(to),
        conjugated=problem.conjugated[turn],
        strides=problem.strides[turn],
        sizes=tuple(rng.sample([(label.translate(to), size) for label, size in problem.sizes], len(labels))),
    )
    return other, back


def choice(problem, back):
    """What is chosen, with its labels read back: the terms as the way takes them, the way, strides, seconds."""
    order, (way, strides, scratch, seconds) = cheapest(problem)
    terms = tuple(problem.terms[place].translate(back) for place in order)
    way = select._rename(way, back)
    return terms, way, (strides, scratch, seconds)


def test_of_equal_sides_either_may_come_first():
    for lhs, rhs, out in itertools.product(("abc", "acb", "cab"), ("abc", "bca", "cba"), ("", "a", "cb", "bac")):
        problem, turned = (
            problem_of(Contract(0, 1, *terms, out), dict.fromkeys("abc", 3), "float64", profile("cpu"))
            for terms in ((lhs, rhs), (rhs, lhs))
        )
        assert canonical(problem)[0] == canonical(turned)[0]


@pytest.mark.parametrize("device", ["cpu", "h200"])
def test_the_choice_does_not_depend_on_the_spelling(device):
    rng, symmetric = Random(8), 0
    for step, size in [*listed_pairs(), *random_pairs(300)]:
        is_ordered = rng.random() < 0.3
        problem = problem_of(step, size, "complex64", profile(device), is_ordered=is_ordered)
        chosen = choice(problem, {})
        for is_swapped in (False, True, False, True):
            other, back = spelled(problem, rng, is_swapped)
            assert canonical(other)[0] == canonical(problem)[0], (str(problem), str(other))
            terms, way, numbers = choice(other, back)
            assert numbers == chosen[2], (str(problem), str(other))
            assert sorted(terms) == sorted(chosen[0])
            if way != chosen[1]:  # of sides that mirror one another, as in `bca,bac->b`, either may come first
                assert terms != chosen[0], (str(problem), str(other))
                assert problem.elements[0] == problem.elements[1], (str(problem), str(other))
                symmetric += 1
    assert symmetric < 50
