"""The bridge to torch on the simulated device: stand-ins for CuPy and for a tensor with torch's DLPack manners.

What CuPy computes goes to torch's current stream, in memory of torch's allocator, and nobody waits.
"""

import importlib
import inspect
import sys

import numpy as np
import pytest
from oracle import BFLOAT16, assert_agrees, reference
from simulated import torch as simulated_torch
from simulated.arrays import FakeArray
from simulated.cupy import FakeDevice
from simulated.cupy import stand_in as cupy_stand_in
from simulated.dlpack import Capsule
from simulated.torch import Tensor, TorchStream, tensor

import gpueinsum as ge


@pytest.fixture
def cupy(monkeypatch):
    with cupy_stand_in(monkeypatch) as fake:
        yield fake


@pytest.fixture
def torch(cupy):
    """torch's state: its stream is one of its own, which is late; nothing waits for it, and no stream for another."""
    with simulated_torch.stand_in() as state:
        state.stream = TorchStream()
        waits = Capsule.waits
        yield state
        assert Capsule.waits == waits, "a stream had to wait for another"


@pytest.fixture
def random(rng):
    return lambda *shape, dtype="float32": rng.integers(-3, 4, shape).astype(dtype)


def finished(result, state):
    """The result's elements, once torch's stream has come so far."""
    assert type(result) is Tensor
    state.stream.synchronize()
    return result.host


def times(x, w, **options):
    return ge.einsum("ij,jk->ik", tensor(x), tensor(w), **options)


@pytest.mark.parametrize(
    "dtype", ["float16", "float32", "float64", "complex64", "complex128", "int32", "bool", BFLOAT16]
)
def test_every_dtype_goes_there_and_comes_back(torch, random, dtype):
    x, w = random(3, 5, dtype=dtype), random(5, 7, dtype=dtype)
    result = times(x, w)
    assert result.dtype.numpy == dtype
    assert_agrees(finished(result, torch), reference("ij,jk->ik", x, w))


def test_all_work_is_on_torchs_stream_and_nothing_waits_for_it(cupy, torch, random):
    """Not even the first of two calls, whose result the second reads."""
    x, w, v = random(3, 5), random(5, 7), random(7, 2)
    before = cupy.cuda.get_current_stream()
    y = times(x, w)
    assert torch.stream.queue
    z = ge.einsum("ik,kl->il", y, tensor(v))
    assert np.isnan(z.host).all()  # which is how memory looks before it is written
    assert cupy.cuda.get_current_stream() is before
    assert not before.queue
    np.testing.assert_array_equal(finished(z, torch), x @ w @ v)


def test_torchs_null_stream_is_cupys(cupy, torch, random):
    torch.stream = TorchStream(is_default=True)
    x, w = random(3, 5), random(5, 7)
    with cupy.cuda.Stream(non_blocking=True):
        result = times(x, w)
    np.testing.assert_array_equal(result.host, x @ w)


def test_memory_is_torchs_and_results_lie_in_it(torch, random):
    simulated = FakeArray.simulated
    x, w, v = tensor(random(31, 37)), tensor(random(37, 41)), tensor(random(41, 43))
    torch.allocations.clear()
    before = simulated.allocations
    result = ge.einsum("ij,jk,kl->il", x, w, v)
    assert simulated.allocations - before == len(torch.allocations) > 0
    assert 4 * 31 * 43 in torch.allocations
    assert result.data_ptr() == result.untyped_storage().first
    np.testing.assert_array_equal(finished(result, torch), x.host @ w.host @ v.host)
    used = simulated.used
    again = ge.einsum("ij,jk,kl->il", x, w, v)
    torch.stream.synchronize()
    assert simulated.used == used + 4 * 31 * 43  # intermediates went back
    del again
    assert simulated.used == used


def test_results_are_of_torchs_storage_so_that_its_allocator_knows_who_reads_them(cupy, torch, random, monkeypatch):
    """`record_stream` would have no effect on what comes by DLPack."""
    monkeypatch.setattr(sys.modules["torch"], "from_dlpack", None)
    x, w = random(3, 5), random(5, 7)
    for dtype in ("float32", BFLOAT16):
        np.testing.assert_array_equal(finished(times(x.astype(dtype), w.astype(dtype)), torch).astype("float32"), x @ w)


def test_outside_of_calls_cupy_allocates_for_itself(cupy, torch, random):
    times(random(3, 5), random(5, 7))
    count = len(torch.allocations)
    cupy.empty(3)
    assert len(torch.allocations) == count


def test_operands_are_read_where_they_lie(torch, random):
    x = random(7, 5, 3)
    for view in (x, x.T, x[::2], x[:, ::-1][:, ::-1], np.broadcast_to(x[:1], x.shape)):
        result = ge.einsum("ijk->ki", tensor(view))
        np.testing.assert_array_equal(finished(result, torch), view.sum(1).T)
    assert ge.einsum("ij,jk->ik", tensor(random(0, 5)), tensor(random(5, 7))).shape == (0, 7)
    empty = ge.einsum("ij,jk->ik", tensor(random(3, 0)), tensor(random(0, 7)))
    assert not finished(empty, torch).any()


def test_views_are_torchs(torch, random):
    x = tensor(random(3, 5, 7))
    result = ge.einsum("ijk->kij", x)
    assert np.shares_memory(result.host, x.host)
    assert result.shape == (7, 3, 5)


def test_conjugates_are_resolved_on_torchs_stream(torch, random):
    x, w = random(3, 5) + 1j * random(3, 5), random(5, 7) + 1j * random(5, 7)
    x, w = x.astype("complex64"), w.astype("complex64")
    result = ge.einsum("ij,jk->ik", tensor(x, conj=True), tensor(w, neg=True))
    np.testing.assert_array_equal(finished(result, torch), x.conj() @ -w)


def test_gradients_are_on_the_stream_of_their_pass(torch, random):
    x, w, v = random(3, 5), random(5, 7), random(7, 2)
    operands = [tensor(each, requires_grad=True) for each in (x, w, v)]
    value = ge.einsum("ij,jk,kl->il", *operands)
    assert value.requires_grad
    y = finished(value, torch)
    np.testing.assert_array_equal(y, x @ w @ v)
    torch.stream, torch.follows = TorchStream(), False
    _, _, *gradients = value.grad_fn(tensor(y))
    assert torch.stream.queue
    torch.stream.synchronize()
    for gradient, wanted in zip(gradients, (y @ (w @ v).T, x.T @ y @ v.T, (x @ w).T @ y), strict=True):
        np.testing.assert_array_equal(gradient.host, wanted)


@pytest.mark.parametrize("dtype", ["float32", BFLOAT16])
def test_pullbacks_and_tangents_are_tensors(torch, random, dtype):
    x, w = random(3, 5, dtype=dtype), random(5, 7, dtype=dtype)
    value, pullback = ge.vjp("ij,jk->ik", tensor(x), tensor(w), wrt=0)
    [gradient] = pullback(tensor(np.ones((2, 3, 7), dtype)))
    assert gradient.shape == (2, 3, 5)
    wanted = np.broadcast_to(w.astype("float32").sum(1), (2, 3, 5))
    np.testing.assert_array_equal(finished(gradient, torch).astype("float32"), wanted)
    value, tangent = ge.jvp("ij,jk->ik", (tensor(x), tensor(w)), (tensor(x), None))
    np.testing.assert_array_equal(finished(tangent, torch), value.host)
    assert value.dtype.numpy == dtype


def test_expressions_keep_their_constants_there(torch, random):
    x, w, v = random(3, 5), random(5, 7), random(7, 2)
    expression = ge.contract_expression("ij,jk,kl->il", (3, 5), tensor(w), tensor(v), constants=[1, 2])
    for _ in range(2):
        np.testing.assert_array_equal(finished(expression(tensor(x)), torch), x @ w @ v)
    plan = ge.einsum_plan("ij,jk->ik", x, w)
    np.testing.assert_array_equal(finished(ge.run_plan(plan, tensor(x), tensor(w)), torch), x @ w)


def test_a_tensor_is_computed_with_on_its_own_device(cupy, torch, random):
    x, w = random(3, 5), random(5, 7)
    torch.stream.device_index = 1
    result = ge.einsum("ij,jk->ik", tensor(x, number=1), tensor(w, number=1))
    assert result.device.index == 1
    assert FakeDevice.entered == [0]
    np.testing.assert_array_equal(finished(result, torch), x @ w)
    with pytest.raises(ge.OperandError, match="operand 1 is on cuda:0, but operand 0 is on cuda:1: move one of them"):
        ge.einsum("ij,jk->ik", tensor(x, number=1), tensor(w))


def test_the_stand_in_refuses_what_torch_refuses(torch, random):
    x = random(3, 5, dtype="complex64")
    for given in (tensor(x, requires_grad=True), tensor(x, conj=True), tensor(x, number=1)):
        with pytest.raises(BufferError):
            given.__dlpack__(stream=1)


def test_the_stand_in_lets_another_stream_wait(cupy, random):
    other = cupy.cuda.Stream(non_blocking=True)
    with simulated_torch.stand_in() as state:
        state.stream = TorchStream()
        waits = Capsule.waits
        with other:
            cupy.from_dlpack(tensor(random(3, 5)))
    assert Capsule.waits == waits + 1
    assert other.queue


def test_the_stand_in_has_names_and_arguments_of_torch():
    real = pytest.importorskip("torch", reason="torch is not installed: its stand-in is not compared with it")
    pairs = [
        (module, importlib.import_module(name))
        for name, module in simulated_torch.modules().items()
        if "_C" not in name
    ]
    for ours, theirs in (*pairs, (Tensor, real.Tensor)):
        names = [name for name in vars(ours) if not name.startswith("__") and name not in ("host", "_copied")]
        assert [name for name in names if not hasattr(theirs, name)] == []
    for name in ("__dlpack__", "__dlpack_device__"):
        ours, theirs = (inspect.signature(getattr(each, name)).parameters.values() for each in (Tensor, real.Tensor))
        assert {x.name for x in ours} <= {x.name for x in theirs}
