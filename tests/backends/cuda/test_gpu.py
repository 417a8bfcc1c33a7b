"""CuPy's manners on a real GPU: streams, threads, devices, views, `out=`.

On the stand-in they show that these tests are right, and no more: it is never late of itself, nor short of memory.
"""

import threading

import numpy as np
import pytest
from conftest import real_runtime
from single_steps import bound

import gpueinsum as ge
from gpueinsum.language.steps import Add, Contract
from gpueinsum.tools.profiler import measure

pytestmark = pytest.mark.gpu


@pytest.fixture(autouse=True)
def cupy():
    real_runtime()
    import cupy

    return cupy


def test_the_current_stream_is_used_and_never_waited_for(cupy):
    x = cupy.asarray(np.random.default_rng(0).random((2000, 2000)))
    expected = cupy.matmul(x, x)
    cupy.cuda.Device().synchronize()
    stream = cupy.cuda.Stream(non_blocking=True)
    with stream:
        y = x + 0  # on the stream, so that the product must wait for it
        result = ge.einsum("ij,jk->ik", y, y)
        recorded = stream.record()
    recorded.synchronize()
    cupy.testing.assert_allclose(result, expected)


def test_threads_use_their_own_streams(cupy):
    x = cupy.asarray(np.random.default_rng(0).random((64, 64)))
    failures = []

    def work():
        with cupy.cuda.Stream(non_blocking=True) as stream:
            y = x + 1
            results = [ge.einsum("ij,jk->ik", y, y), ge.einsum("ii->", y), ge.einsum("ij,ij->i", y, y)]
            stream.synchronize()
            host = y.get()
            expected = [host @ host, np.trace(host), (host * host).sum(1)]
            if not all(np.allclose(a.get(), b) for a, b in zip(results, expected, strict=True)):
                failures.append(threading.current_thread().name)

    cupy.cuda.Device().synchronize()
    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures


def test_a_transpose_is_a_view_of_its_operand(cupy):
    x = cupy.zeros((3, 5))
    ge.einsum("ij->ji", x)[4, 2] = 7
    assert float(x[2, 4]) == 7
    ge.einsum("ii->i", x[:, :3])[...] = 1
    assert float(cupy.trace(x)) == 3


def test_out_may_be_an_operand_on_the_gpu(cupy):
    x = cupy.arange(9.0).reshape(3, 3)
    expected = x.get()
    assert ge.einsum("ij->ji", x, out=x) is x
    np.testing.assert_array_equal(x.get(), expected.T)
    ge.einsum("ij,jk->ik", x, x, out=x)
    np.testing.assert_array_equal(x.get(), expected.T @ expected.T)


def test_constants_may_be_used_from_another_stream(cupy):
    a, b = np.random.default_rng(0).random((2, 300, 300))
    expression = ge.contract_expression("ij,jk,kl->il", a, b, (300, 7), constants=[0, 1], optimize=[(0, 1), (0, 1)])
    c = cupy.ones((300, 7))
    cupy.cuda.Device().synchronize()
    for _ in range(3):
        with cupy.cuda.Stream(non_blocking=True):
            cupy.testing.assert_allclose(expression(c), a @ b @ np.ones((300, 7)))


def test_operands_on_another_device_are_refused(cupy):
    if cupy.cuda.runtime.getDeviceCount() < 2:
        pytest.skip("there is one GPU only")
    with cupy.cuda.Device(1):
        x = cupy.ones((3, 3))
    with pytest.raises(ge.OperandError, match="an array is on device 1 but device 0 is current"):
        ge.einsum("ii->", x)
    with cupy.cuda.Device(1):
        assert float(ge.einsum("ii->", x)) == 3


def test_float32_is_not_rounded_to_tf32_unless_asked(cupy):
    x = cupy.asarray(np.random.default_rng(0).random((512, 512), np.float32))
    exact = x.get().astype(float) @ x.get().astype(float)
    errors = {p: abs(ge.einsum("ij,jk->ik", x, x, precision=p).get() / exact - 1).max() for p in (None, "tf32")}
    assert errors[None] < 1e-5
    assert errors["tf32"] < 1e-2


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_is_rounded_once(cupy, dtype):
    x = cupy.asarray(np.random.default_rng(0).random((2, 16, 2**20), np.float32) - 0.5).astype(
        ge.api.arguments.dtype_of(dtype)
    )
    exact = cupy.matmul(x[0].astype(float), x[1].astype(float).T)
    error = abs(ge.einsum("ij,kj->ik", x[0], x[1]).astype(float) - exact).max() / abs(exact).max()
    assert float(error) < (1e-3 if dtype == "float16" else 8e-3)


@pytest.mark.parametrize("dtype", ["complex64", "complex128"])
@pytest.mark.parametrize("conjugated", ["x", "y"])
@pytest.mark.parametrize("equation", ["ij,jk->ik", "ij,kj->ki", "bij,bjk->bik", "ibj,jbk->kbi"])
def test_products_of_conjugates_are_exact(cupy, equation, conjugated, dtype):
    size = {"b": 3, "i": 67, "j": 131, "k": 29}
    terms, out = equation.split("->")
    lhs, rhs = terms.split(",")
    rng = np.random.default_rng(0)
    x, y = (
        (rng.integers(-9, 10, shape) + 1j * rng.integers(-9, 10, shape)).astype(dtype)
        for shape in ([size[label] for label in term] for term in (lhs, rhs))
    )
    step = Contract(0, 1, lhs, rhs, out, conjugated == "x", conjugated == "y")
    result = bound(real_runtime(), step, size, dtype)(cupy.asarray(x), cupy.asarray(y))
    u, v = (x.conj(), y) if conjugated == "x" else (x, y.conj())
    np.testing.assert_array_equal(result.get(), np.einsum(equation, u, v))


@pytest.mark.parametrize("dtype", ["bool", "int8", "float16", "bfloat16", "float32", "complex128"])
def test_arrays_are_added_where_they_are(cupy, dtype):
    rng, kind = np.random.default_rng(0), ge.api.arguments.dtype_of(dtype)
    arrays = [rng.integers(-9, 10, (67, 131)).astype(kind) for _ in range(3)]
    arrays[1] = np.asfortranarray(arrays[1])
    total = bound(real_runtime(), Add((0, 1, 2), "ij"), {"i": 67, "j": 131}, dtype)
    expected = (arrays[0] + arrays[1]).astype(kind) + arrays[2]
    np.testing.assert_array_equal(total(*map(cupy.asarray, arrays)).get(), expected)


@pytest.mark.parametrize("dtype", [np.float32, np.complex64])
def test_gradients_stay_on_the_gpu(cupy, dtype):
    rng = np.random.default_rng(0)
    operands = [rng.random(shape).astype(dtype) for shape in ((67, 71), (71, 73), (73, 41))]
    operands[1] = operands[1] * dtype(1j if dtype is np.complex64 else -1)
    there = [cupy.asarray(operand) for operand in operands]
    expected, pull_expected = ge.vjp("ij,jk,kl->il", *operands)
    value, pullback = ge.vjp("ij,jk,kl->il", *there)
    for cotangent in (value, 0 * value + 1):
        for got, wanted in zip(pullback(cotangent), pull_expected(cotangent.get()), strict=True):
            assert isinstance(got, cupy.ndarray)
            np.testing.assert_allclose(got.get(), wanted, rtol=1e-4, atol=1e-3)
    _, tangent = ge.jvp("ij,jk,kl->il", there, [*there[:2], None])
    np.testing.assert_allclose(tangent.get(), 2 * expected, rtol=1e-4)
    with pytest.raises(ge.OperandError, match="the cotangent is a numpy array, but the operands are on a GPU"):
        pullback(expected)
    _, pullback = ge.vjp("ij->", there[0])
    assert cupy.all(pullback(2.0)[0] == 2)


def test_each_step_is_timed(cupy):
    shapes = (1000, 500), (500, 1000), (1000, 700)
    operands = [cupy.asarray(np.random.default_rng(0).random(shape)) for shape in shapes]
    measured = measure(ge.einsum_plan("ij,jk,kl->il", *operands, optimize=[(0, 1), (0, 1)]), operands, runs=5)
    assert len(measured.seconds) == 2
    assert all(0 < seconds < 1 for seconds in measured.seconds)


def test_arrays_of_torch_are_taken_by_dlpack(cupy):
    torch = pytest.importorskip("torch")
    if not torch.cuda.is_available():
        pytest.skip("PyTorch is installed without CUDA")
    x = torch.arange(6.0, device="cuda").reshape(2, 3)
    result = ge.einsum("ij,kj->ik", x, x)
    assert isinstance(result, cupy.ndarray)
    np.testing.assert_allclose(result.get(), (x @ x.T).cpu().numpy())
    with pytest.raises(ge.OperandError, match="cannot be shared by DLPack"):
        ge.einsum("ij->ji", x.clone().requires_grad_())
