"""pyscf's coupled cluster on our einsum."""

import pytest

import gpueinsum as ge

pyscf = pytest.importorskip("pyscf", reason="pyscf is not installed")

WATER = "O 0 0 0.117; H 0 0.757 -0.470; H 0 -0.757 -0.470"  # angstroms


def correlation_energy(field):
    from pyscf.cc import rccsd

    solver = rccsd.RCCSD(field)
    solver.conv_tol = 1e-10
    solver.kernel()
    assert solver.converged
    return solver.e_corr


def test_rccsd_gives_the_same_energy_by_our_einsum(monkeypatch, contractions):
    from pyscf import gto, lib, scf

    with lib.with_omp_threads(1):
        field = scf.RHF(gto.M(atom=WATER, basis="6-31g", verbose=0)).run(conv_tol=1e-12)
        expected = correlation_energy(field)
        assert contractions == []
        monkeypatch.setattr(lib, "einsum", ge.einsum)
        assert correlation_energy(field) == pytest.approx(expected, abs=1e-9)
    assert len(contractions) > 500  # the terms of the amplitudes' equations, in each iteration
