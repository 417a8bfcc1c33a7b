"""`vjp` and `jvp` on a simulated device: the same gradients, and arrays that stay where they are."""

from functools import partial

import numpy as np
import pytest
from conftest import simulated_backend

import gpueinsum as ge
import gpueinsum.backends.select


@pytest.fixture
def device(monkeypatch):
    monkeypatch.setattr(gpueinsum.backends.select, "cuda_backend", simulated_backend)
    return partial(ge.vjp, backend="cuda")


@pytest.mark.parametrize("dtype", [np.float32, np.complex64])
def test_a_device_computes_the_same_gradients(device, rng, dtype):
    operands = [rng.random(shape).astype(dtype) for shape in ((3, 5), (5, 7), (7, 7))]
    operands[1] = operands[1] * dtype(1j if dtype is np.complex64 else -1)
    expected, pull_expected = ge.vjp("ij,jk,kk->i", *operands)
    value, pullback = device("ij,jk,kk->i", *operands)
    np.testing.assert_allclose(value, expected, rtol=1e-5)
    for got, wanted in zip(pullback(expected), pull_expected(expected), strict=True):
        np.testing.assert_allclose(got, wanted, rtol=1e-5)
        assert got.dtype == dtype
    assert device("ij,jk,kk->i", *operands, memory_limit="1%")[0].shape == (3,)
    value, tangent = ge.jvp("ij,jk,kk->i", operands, operands, backend="cuda")
    np.testing.assert_allclose(tangent, 3 * expected, rtol=1e-5)


class OnDevice(np.ndarray):
    """Stands for an array of a GPU's."""


@pytest.fixture
def on_device(device, monkeypatch):
    """Whoever asks is told that such arrays live on a GPU."""
    modules = (
        gpueinsum.backends.select,
        gpueinsum.backends.cuda.backend,
        gpueinsum.api.dispatch,
        gpueinsum.api.derivatives,
    )
    for module in modules:
        monkeypatch.setattr(module, "on_device", lambda operand: isinstance(operand, OnDevice))
    back = []
    monkeypatch.setattr(type(simulated_backend().runtime), "to_host", lambda self, array: back.append(array))
    yield lambda array: np.asarray(array).view(OnDevice)
    assert not back, "something went back to the host"


def test_arrays_on_a_device_have_their_gradients_there(on_device, rng):
    x, w = rng.random((3, 5)), rng.random(5)
    value, pullback = ge.vjp("ij,j->", on_device(x), on_device(w))
    np.testing.assert_allclose(value, (x @ w).sum())
    for cotangent in (2.0, 2, np.float32(2), on_device(2.0)):
        np.testing.assert_allclose(pullback(cotangent)[1], 2 * x.sum(0))
    value, tangent = ge.jvp("ij,j->i", (on_device(x), on_device(w)), (None, on_device(w)))
    np.testing.assert_allclose(tangent, value)
    gradients = ge.einsum_plan("ij,j->", x, w).vjp()
    _, pullback = ge.vjp(gradients, on_device(x), on_device(w), on_device(1.0))
    np.testing.assert_allclose(pullback((on_device(x), None))[2], (x * x.dot(np.outer(w, w)) / (x @ w)[:, None]).sum())


def test_what_lies_elsewhere_than_the_operands_is_refused(on_device, rng):
    x, w = rng.random((3, 5)), rng.random(5)
    _, pullback = ge.vjp("ij,j->i", on_device(x), on_device(w))
    with pytest.raises(ge.OperandError, match="the cotangent is a numpy array, but the operands are on a GPU: move it"):
        pullback(np.ones(3))
    with pytest.raises(ge.OperandError, match="tangent 1 is a numpy array, but the operands are on a GPU"):
        ge.jvp("ij,j->i", (on_device(x), on_device(w)), (None, w))
    _, pullback = ge.vjp("ij,j->i", x, w)
    with pytest.raises(ge.OperandError, match="the cotangent is on a GPU, but the operands are not"):
        pullback(on_device(np.ones(3)))
