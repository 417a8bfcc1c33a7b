"""Random pairs: every role of a label occurs, work and arrays have the sizes that were asked for, seeds repeat."""

import math
from collections import Counter

import pytest

from benchmarks.pairs import PAIRS, random_pairs

MANY = random_pairs(7, 300, (1e2, 5e8))


def largest(row):
    return max(math.prod(row.size[label] for label in term) for term in row.terms)


def test_every_role_occurs_and_no_label_is_repeated_or_of_one_term_alone():
    roles = Counter(tuple(label in term for term in row.terms) for row in MANY for label in row.size)
    assert {sum(role) for role in roles} == {2, 3}
    assert len(roles) == 4
    assert min(roles.values()) > 30
    assert all(len(set(term)) == len(term) for row in MANY for term in row.terms)
    assert any("".join(sorted(term)) != term for row in MANY for term in row.terms)
    assert {len(row.size) for row in MANY} >= set(range(2, 10))


@pytest.mark.parametrize("rows", [MANY, PAIRS])
def test_work_and_arrays_have_the_sizes_that_were_asked_for(rows):
    assert all(largest(row) <= 25e6 and min(row.size.values()) >= 2 for row in rows)
    assert 2 / 3 < 2 * rows[-1].points / 5e8 < 3 / 2
    on_gpu = [row.on("cuda") for row in rows]
    assert all(largest(row) <= 500e6 for row in on_gpu)
    assert max(2 * row.points for row in on_gpu) < 2e10


def test_the_suite_has_sixty_rows_in_all_decades_of_work():
    decades = Counter(int(math.log10(2 * row.points)) for row in PAIRS)
    assert len(PAIRS) == 60
    assert set(decades) >= {3, 4, 5, 6, 7, 8}
    assert {(row.family, row.dtype) for row in PAIRS} == {("random pairs", "float32")}


def test_a_seed_gives_the_same_rows_again():
    assert random_pairs(3, 5, (1e3, 1e6)) == random_pairs(3, 5, (1e3, 1e6)) != random_pairs(4, 5, (1e3, 1e6))
