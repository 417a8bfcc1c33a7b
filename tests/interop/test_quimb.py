"""quimb with `backend="gpueinsum"`: circuits, contractions and DMRG give what its own backend gives."""

import numpy as np
import pytest

import gpueinsum as ge

quimb = pytest.importorskip("quimb", reason="quimb is not installed")
quimb_tensor = pytest.importorskip("quimb.tensor", reason="quimb's tensor networks cannot be used")
cotengra = pytest.importorskip("cotengra", reason="cotengra is not installed")

XX, ZZ = (quimb.pauli(axis) & quimb.pauli(axis) for axis in "XZ")


def circuit(kind="Circuit"):
    """Three layers on a ring of six qubits: too entangled for quimb to simplify it to a number."""
    made = getattr(quimb_tensor, kind)(6)
    for layer in range(3):
        for qubit in range(6):
            made.rx(0.3 + 0.1 * qubit + layer, qubit)
            made.rz(0.7 - 0.2 * qubit + layer, qubit)
        for qubit in [0, 2, 4, 1, 3, 5]:
            made.cx(qubit, (qubit + 1) % 6)
    return made


RESULTS = {
    "amplitude": lambda circuit, **kw: circuit.amplitude("010110", **kw),
    "expectation": lambda circuit, **kw: circuit.local_expectation(ZZ, (2, 3), **kw),
    "expectations": lambda circuit, **kw: circuit.local_expectation([ZZ, XX], (1, 4), **kw),
    "samples": lambda circuit, **kw: [list(map(int, bits)) for bits in circuit.sample(20, seed=7, **kw)],
    "density matrix": lambda circuit, **kw: circuit.partial_trace((1, 3), **kw),
    "state": lambda circuit, **kw: circuit.to_dense(**kw),
}


@pytest.mark.parametrize("result", RESULTS.values(), ids=RESULTS)
def test_a_circuit_gives_the_same(result, contractions):
    expected = result(circuit(), optimize="greedy")
    assert contractions == []
    actual = result(circuit(), optimize="greedy", backend="gpueinsum")
    np.testing.assert_allclose(actual, expected, atol=1e-12)
    assert len(contractions) > 0


@pytest.mark.parametrize("name", ["amplitude", "expectation", "samples", "state"])
def test_a_circuit_of_a_matrix_product_state_gives_the_same(name, contractions):
    """Its `sample` and `local_expectation` take no backend= but the one that is set."""
    expected = RESULTS[name](circuit("CircuitMPS"))
    assert contractions == []
    with quimb_tensor.contract_backend("gpueinsum"):
        np.testing.assert_allclose(RESULTS[name](circuit("CircuitMPS")), expected, atol=1e-12)
    assert len(contractions) > 0


def network():
    return quimb_tensor.TN2D_rand(3, 4, 3, seed=1)


@pytest.mark.parametrize("options", [{}, {"optimize": "auto"}, {"strip_exponent": True}], ids=str)
def test_a_network_is_contracted(options, contractions):
    expected = network().contract(all, output_inds=(), **options)
    assert contractions == []
    result = network().contract(all, output_inds=(), backend="gpueinsum", **options)
    np.testing.assert_allclose(result, expected, rtol=1e-10)
    assert len(contractions) == 11


def test_a_network_is_contracted_in_slices(contractions):
    slices = {"target_slices": 9}
    optimizer = cotengra.HyperOptimizer(methods=["greedy"], max_repeats=2, parallel=False, slicing_opts=slices)
    result = network().contract(all, output_inds=(), backend="gpueinsum", optimize=optimizer)
    np.testing.assert_allclose(result, network().contract(all, output_inds=()), rtol=1e-10)
    assert len(contractions) >= 9 * 11


def test_the_tree_of_a_network_becomes_a_plan():
    tensors = network()
    plan = ge.Plan.from_tree(tensors.contraction_tree(output_inds=()))
    result = ge.run_plan(plan, *tensors.arrays)
    np.testing.assert_allclose(result, tensors.contract(all, output_inds=()), rtol=1e-10)


def test_a_state_vector_is_one_plan():
    state = circuit().psi
    qubits = [state.site_ind(qubit) for qubit in range(6)]
    plan = ge.Plan.from_tree(state.contraction_tree("greedy", output_inds=qubits), dtype=complex)
    result = ge.run_plan(plan, *state.arrays)
    np.testing.assert_allclose(result.reshape(-1, 1), circuit().to_dense(), atol=1e-12)


def test_all_contractions_in_a_block_are_ours(contractions):
    state = quimb_tensor.MPS_rand_state(8, 4, seed=1)
    expected = state.H @ state, state.entropy(4)
    assert contractions == []
    with quimb_tensor.contract_backend("gpueinsum"):
        np.testing.assert_allclose((state.H @ state, state.entropy(4)), expected)
    assert len(contractions) > 0


def ground_energy(sites, bonds):
    search = quimb_tensor.DMRG2(quimb_tensor.MPO_ham_heis(sites), bond_dims=bonds)
    search.solve(tol=1e-9, verbosity=0)
    return search.energy


def test_dmrg_finds_the_ground_state(contractions):
    exact = quimb.groundenergy(quimb.ham_heis(8, sparse=True))
    with quimb_tensor.contract_backend("gpueinsum"):
        assert ground_energy(8, [4, 16]) == pytest.approx(exact, abs=1e-9)
    assert len(contractions) > 0


def test_dmrg_applies_large_operators_by_ours(contractions):
    """From 800 rows on quimb applies the effective Hamiltonian as a network, whose backend is another setting."""
    expected = ground_energy(12, [8, 24])
    with quimb_tensor.tensor_linop_backend("gpueinsum"):
        assert ground_energy(12, [8, 24]) == pytest.approx(expected, abs=1e-8)
    assert len(contractions) > 0
