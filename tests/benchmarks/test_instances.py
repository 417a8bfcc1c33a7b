"""The networks that orders are searched for: what they compute is what they are said to be."""

import itertools

import numpy as np
import opt_einsum
import pytest

import gpueinsum as ge
from benchmarks.instances import circuit, lattice, peps, regular_graph


def test_a_circuit_is_unitary_and_its_amplitudes_are_those_of_its_state():
    _, equation, operands = circuit(2, 3, 9, seed=5, open_qubits=6)
    state = ge.einsum(equation, *operands)
    assert state.shape == (2,) * 6
    assert np.sum(np.abs(state) ** 2) == pytest.approx(1)
    closed = circuit(2, 3, 9, seed=5)
    bits = [int(np.argmax(np.abs(operand))) for operand in closed.operands[-6:]]
    assert ge.einsum(closed.equation, *closed.operands) == pytest.approx(state[tuple(bits)])


def test_a_layer_of_a_circuit_couples_each_qubit_at_most_once():
    gates = [operand.reshape(4, 4) for operand in circuit(4, 5, 8).operands if operand.ndim == 4]
    assert len(gates) == 2 * (3 * 5 + 4 * 4)  # each edge of the grid twice in eight layers
    assert all(np.allclose(gate @ gate.conj().T, np.eye(4)) for gate in gates)


def test_a_lattice_sums_over_all_states_of_its_spins():
    _, equation, operands = lattice(3, 3, 0.3)
    expected = 0.0
    for spins in itertools.product((-1, 1), repeat=9):
        state = np.reshape(spins, (3, 3))
        expected += np.exp(0.3 * np.sum(state * np.roll(state, 1, 0) + state * np.roll(state, 1, 1)))
    assert ge.einsum(equation, *operands) == pytest.approx(expected)


@pytest.mark.parametrize("instance", [regular_graph(20, 3), peps(3, 4, 3)], ids=["graph", "PEPS"])
def test_each_label_is_an_edge_of_a_closed_network(instance):
    labels = instance.equation.replace(",", "").removesuffix("->")
    assert {labels.count(label) for label in labels} == {2}
    expected = opt_einsum.contract(instance.equation, *instance.operands)
    assert ge.einsum(instance.equation, *instance.operands) == pytest.approx(expected)


MAKERS = [circuit, lambda *size, seed: peps(*size, seed), lambda x, y, bond, seed: regular_graph(x * y, bond, seed)]


@pytest.mark.parametrize("make", MAKERS, ids=["circuit", "PEPS", "graph"])
def test_the_same_seed_makes_the_same_network(make):
    one, same, other = make(2, 4, 3, seed=1), make(2, 4, 3, seed=1), make(2, 4, 3, seed=2)
    assert one.equation == same.equation
    assert all(map(np.array_equal, one.operands, same.operands))
    assert one.equation != other.equation or not all(map(np.array_equal, one.operands, other.operands))
