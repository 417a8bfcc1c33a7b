"""Plans that keep to a number of bytes by computing again what does not fit."""

import random

import numpy as np
import pytest

import gpueinsum as ge
from gpueinsum.costs.counts import peak_bytes, total_flops
from gpueinsum.costs.machine import profile_for
from gpueinsum.language.check import check_plan
from gpueinsum.language.plan import Plan
from gpueinsum.language.rewrite import prune, split
from gpueinsum.language.steps import Contract, Reduce
from gpueinsum.planning.checkpoint import checkpoint
from gpueinsum.planning.derivatives import vjp
from gpueinsum.schedule.slices import predicted_seconds


def circuit(qubits, gates, seed=1):
    """A state of many qubits on which gates of two qubits act: each intermediate is as large as the state."""
    rng = random.Random(seed)
    wires = list(range(qubits))
    arguments = [(2,) * qubits, tuple(wires)]
    for gate in range(gates):
        new = qubits + 2 * gate
        i, j = rng.sample(range(qubits), 2)
        arguments += [(2, 2, 2, 2), (new, new + 1, wires[i], wires[j])]
        wires[i], wires[j] = new, new + 1
    path = [(0, 1)] + [(0, gates - gate) for gate in range(1, gates)]
    return ge.einsum_plan(*arguments, tuple(wires), optimize=path)


CIRCUIT = circuit(8, 20)
WHOLE = CIRCUIT.vjp()


@pytest.mark.parametrize("share", [0.9, 0.7, 0.5, 0.35, 0.25])
def test_less_memory_costs_more_flops(share, rng):
    limit = int(share * peak_bytes(WHOLE))
    plan = CIRCUIT.vjp(memory_limit=limit)
    check_plan(plan)
    assert peak_bytes(plan) <= limit
    assert plan.duplicates()
    assert plan.equation == WHOLE.equation
    operands = [rng.random(plan.shape(i)) for i in range(len(plan.inputs))]
    for fitting, whole in zip(ge.run_plan(plan, *operands), ge.run_plan(WHOLE, *operands), strict=True):
        np.testing.assert_array_equal(fitting, whole)


def test_half_of_the_memory_costs_a_fifth_of_the_work_and_a_third_a_third():
    plan = CIRCUIT.vjp(memory_limit=peak_bytes(WHOLE) // 2)
    assert total_flops(plan) <= 1.2 * total_flops(WHOLE)
    plan = CIRCUIT.vjp(memory_limit=peak_bytes(WHOLE) // 3)
    assert total_flops(plan) <= 1.35 * total_flops(WHOLE)


def test_nothing_is_computed_again_where_all_fits():
    assert CIRCUIT.vjp(memory_limit=peak_bytes(WHOLE)) == WHOLE
    assert CIRCUIT.vjp(memory_limit="1GiB") == WHOLE


def test_the_plan_says_what_it_computes_again():
    plan = CIRCUIT.vjp(memory_limit=peak_bytes(WHOLE) // 2)
    again = [line for line in str(plan).splitlines() if "again, as %" in line]
    assert len(again) == len(plan.duplicates()) > 0
    assert ge.explain(plan).count("again, as %") == len(again)
    assert "computed again to save memory: " in ge.explain(plan)
    assert not WHOLE.duplicates()


@pytest.mark.parametrize("share", [1.2, 0.9, 0.7, 0.5, 0.3])
def test_what_a_pullback_keeps_stays_within_the_limit_too(share):
    both = vjp(CIRCUIT, range(len(CIRCUIT.inputs)))
    limit = int(share * peak_bytes(both))
    plan, forward = checkpoint(both, limit, len(CIRCUIT.steps))
    check_plan(plan)
    operands, inputs = len(CIRCUIT.inputs), len(plan.inputs)
    early = [*range(operands), *range(inputs, inputs + forward)]
    first, rest = split(plan, early)
    kept = sum(8 * int(np.prod(first.shape(register))) for register in set(first.outputs) if register >= operands)
    assert peak_bytes(first) <= limit
    assert kept + peak_bytes(rest) <= limit


@pytest.mark.parametrize("seed", range(30))
def test_nothing_is_computed_that_nothing_reads(seed):
    plan = circuit(6, 12, seed)
    both = vjp(plan, range(len(plan.inputs)))
    for share in (1.0, 0.7, 0.5):
        try:
            fitting, forward = checkpoint(both, int(share * peak_bytes(both)), len(plan.steps))
        except ge.PlanError:
            continue
        assert prune(fitting, fitting.outputs) == fitting
        cotangent = len(plan.inputs)
        assert all(cotangent not in step.sources for step in fitting.steps[:forward])


def test_a_limit_that_cannot_be_kept_is_refused_with_one_that_can():
    with pytest.raises(ge.PlanError, match="a memory_limit of 1000 B is too small") as caught:
        CIRCUIT.vjp(memory_limit=1000)
    enough = int(str(caught.value).rpartition("(")[2].split()[0])
    assert peak_bytes(CIRCUIT.vjp(memory_limit=enough)) <= enough
    with pytest.raises(ge.PlanError):
        CIRCUIT.vjp(memory_limit=enough * 9 // 10)


def test_a_plan_without_steps_needs_what_is_taken_elsewhere():
    with pytest.raises(ge.PlanError, match=r"5 B \(5 bytes\) would do"):
        checkpoint(ge.einsum_plan("ij->ij", (3, 5)), 0, taken=5)


def test_views_are_given_up_with_the_memory_that_they_look_at():
    text = ge.einsum_plan("ij,jk->ik", (50, 50), (50, 50)).to_json()
    plan = Plan.from_json(
        text.replace(
            '"steps": [',
            '"steps": [{"step": "Contract", "lhs": 0, "rhs": 1, "lhs_term": "ij", "rhs_term": "jk", "out": "ik"}, '
            '{"step": "Reduce", "source": 2, "term": "ik", "out": "ki"}, '
            '{"step": "Contract", "lhs": 0, "rhs": 1, "lhs_term": "ij", "rhs_term": "jk", "out": "ik"}, '
            '{"step": "Contract", "lhs": 4, "rhs": 0, "lhs_term": "ik", "rhs_term": "kj", "out": "ij"}, '
            '{"step": "Contract", "lhs": 5, "rhs": 3, "lhs_term": "ij", "rhs_term": "jk", "out": "ik"}, ',
        ).replace('"outputs": [2]', '"outputs": [6]')
    )  # fmt: skip
    unit = 8 * 50 * 50
    assert peak_bytes(plan) == 3 * unit
    fitting, _ = checkpoint(plan, 3 * unit)
    assert fitting == prune(plan, plan.outputs)


@pytest.mark.parametrize("seed", range(60))
def test_random_plans_keep_to_their_limits(seed):
    rng = random.Random(seed)
    labels = "abcdefg"
    size = {label: rng.choice((1, 2, 3, 5, 8)) for label in labels}
    terms = ["".join(rng.choices(labels, k=rng.randint(1, 4))) for _ in range(rng.randint(2, 7))]
    used = sorted(set("".join(terms)))
    output = "".join(rng.sample(used, rng.randint(0, 3)))
    shapes = [tuple(size[label] for label in term) for term in terms]
    plan = ge.einsum_plan(f"{','.join(terms)}->{output}", *shapes)
    for derivative in (plan.vjp(), plan.vjp().vjp(), plan.jvp()):
        values = np.random.default_rng(seed)
        operands = [values.random(derivative.shape(i)) for i in range(len(derivative.inputs))]
        expected = bound(derivative)(*operands)
        for share in (0.9, 0.7, 0.5):
            limit = int(share * peak_bytes(derivative))
            try:
                fitting, _ = checkpoint(derivative, limit)
            except ge.PlanError:
                continue
            check_plan(fitting)
            assert peak_bytes(fitting) <= limit
            for got, wanted in zip(bound(fitting)(*operands), expected, strict=True):
                np.testing.assert_allclose(got, wanted, rtol=1e-12)  # other steps of it may be run as one


def bound(plan):
    def run(*operands):
        results = ge.run_plan(plan, *operands)
        return results if isinstance(results, tuple) else (results,)

    return run


def test_a_long_chain_does_not_exhaust_the_stack():
    n = 1500
    steps = tuple(Contract(k, 1, "ij", "jk", "ik") for k in [0, *range(2, n + 1)])
    plan = Plan(("ij", "jk"), steps, (n + 1,), (("i", 2), ("j", 2), ("k", 2)), "float64")
    gradients = plan.vjp(wrt=1)
    fitting, _ = checkpoint(gradients, peak_bytes(gradients) // 2)
    assert peak_bytes(fitting) <= peak_bytes(gradients) // 2


def test_a_gradient_planned_anew_gives_way_to_what_fits_and_is_faster():
    plan = ge.einsum_plan("d,ca,eba,ce,b->ae", (2,), (3, 5), (8, 2, 5), (3, 8), (2,))
    way_back = vjp(plan, [2], optimize=None, values=False)
    assert plan.vjp(wrt=2) != way_back
    fitting = plan.vjp(wrt=2, memory_limit=peak_bytes(way_back))
    assert peak_bytes(fitting) <= peak_bytes(way_back)
    assert predicted_seconds(fitting, profile_for("cpu")) <= predicted_seconds(way_back, profile_for("cpu"))


def test_a_view_whose_owner_is_computed_again_keeps_its_own_memory():
    steps = (
        Contract(0, 0, "ij", "jk", "ik"),
        Reduce(1, "ik", "ki"),
        *(Contract(1, 0, "ij", "jk", "ik") for _ in "xy"),
        Contract(3, 2, "ij", "jk", "ik"),
        Contract(5, 1, "ij", "jk", "ik"),
        Contract(6, 4, "ij", "jk", "ik"),
    )
    plan = Plan(("ij",), steps, (7,), (("i", 4), ("j", 4), ("k", 4)), "float64")
    for squares in range(3, 6):
        try:
            fitting, _ = checkpoint(plan, squares * 128)
        except ge.PlanError:
            continue
        assert peak_bytes(fitting) <= squares * 128
    x = np.arange(16.0).reshape(4, 4)
    np.testing.assert_array_equal(ge.run_plan(fitting, x), ge.run_plan(plan, x))


def test_a_limit_that_is_taken_already_is_refused_where_nothing_takes_memory():
    transposition = ge.einsum_plan("ij->ji", (3, 5))
    with pytest.raises(ge.PlanError, match=r"8 B \(8 bytes\) would do"):
        checkpoint(transposition, 5, len(transposition.steps), taken=8)
