"""`optimize_seconds=` in each function that plans: it reaches the search, and its plan is kept."""

import time

import numpy as np
import opt_einsum
import pytest

import gpueinsum as ge
from benchmarks.instances import circuit
from gpueinsum.api import plans

CIRCUIT = circuit(3, 4, 6)


@pytest.fixture
def wanted(monkeypatch):
    """The seconds that each search was given."""
    given, search = [], plans.cheapest_plan

    def counted(subscripts, dtype, profile, seconds, runs, search_seconds):
        given.append(search_seconds)
        return search(subscripts, dtype, profile, seconds, runs, 0.01 if search_seconds else search_seconds)

    monkeypatch.setattr(plans, "cheapest_plan", counted)
    plans._plan.cache_clear()
    return given


@pytest.mark.parametrize("seconds", [0, 1.5])
@pytest.mark.parametrize(
    "function",
    [
        ge.einsum,
        ge.contract,
        lambda text, *operands, **options: ge.contract_expression(text, *CIRCUIT.shapes, **options)(*operands),
        lambda text, *operands, **options: ge.run_plan(ge.einsum_plan(text, *operands, **options), *operands),
        lambda text, *operands, **options: ge.vjp(text, *operands, **options)[0],
        lambda text, *operands, **options: ge.jvp(text, operands, [*operands[:-1], None], **options)[0],
    ],
    ids=["einsum", "contract", "contract_expression", "einsum_plan", "vjp", "jvp"],
)
def test_the_search_takes_the_seconds_it_is_given_and_its_plan_is_kept(function, seconds, wanted):
    expected = opt_einsum.contract(CIRCUIT.equation, *CIRCUIT.operands)
    for _ in range(2):
        np.testing.assert_allclose(function(CIRCUIT.equation, *CIRCUIT.operands, optimize_seconds=seconds), expected)
    assert wanted == [seconds]


def test_the_search_ends_by_the_clock():
    start = time.perf_counter()
    ge.einsum_plan(CIRCUIT.equation, *CIRCUIT.shapes, dtype="complex64", optimize_seconds=1)
    assert 0.9 < time.perf_counter() - start < 2
