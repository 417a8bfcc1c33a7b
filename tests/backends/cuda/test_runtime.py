"""`CupyRuntime` itself, on a stand-in for CuPy: which functions are called, with which arguments in which order."""

import itertools
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
from simulated.cupy import FakeArray, stand_in
from simulated.streams import Stream

import gpueinsum as ge
import gpueinsum.backends.select
from gpueinsum.backends.base import Mode
from gpueinsum.backends.cuda.backend import CudaBackend
from gpueinsum.backends.cuda.runtime import CupyRuntime
from gpueinsum.errors import DeviceError, OperandError


@pytest.fixture
def cupy(monkeypatch):
    with stand_in(monkeypatch) as fake:
        yield fake


@pytest.mark.parametrize(
    ("expression", "shapes"),
    [
        ("bij,bjk->bik", [(7, 2, 3), (7, 3, 5)]),
        ("ij,kj->ki", [(2, 3), (5, 3)]),
        ("iij->j", [(3, 3, 5)]),
        ("i->ii", [(3,)]),
        ("ij,ij->i", [(2, 3), (2, 3)]),
    ],
)
@pytest.mark.parametrize("dtype", ["f2", "f4", "f8", "c8", "c16", "i4", "?"])
def test_everything_reaches_cupy_as_its_functions_take_it(cupy, rng, expression, shapes, dtype):
    operands = [rng.integers(-3, 3, shape).astype(dtype) for shape in shapes]
    result = ge.einsum(expression, *operands, backend="cuda")
    assert type(result) is np.ndarray
    np.testing.assert_allclose(result, ge.einsum(expression, *operands), rtol=1e-3)


def test_a_kernels_arguments_are_converted_once_but_for_the_addresses_which_no_two_launches_share(cupy, monkeypatch):
    call, given = cupy.RawKernel.__call__, []
    monkeypatch.setattr(cupy.RawKernel, "__call__", lambda kernel, *at: given.append(at[2]) or call(kernel, *at))
    x = cupy.asarray(np.ones((3, 3, 5)))
    for _ in range(2):
        ge.einsum("iij->j", x)
    (first, *addresses), (second, *others) = given
    assert first is second
    assert isinstance(first, cupy.cuda.function.CNumpyArray)
    assert all(isinstance(address, cupy.cuda.function.CIntptr) for address in (*addresses, *others))
    assert len({*addresses, *others}) == 4


def test_threads_share_a_program(cupy):
    arrays = [np.full((3, 5), number, np.float64) for number in range(4)]
    expression = ge.contract_expression("ij,ij->i", (3, 5), (3, 5))

    def run(array):
        stream = cupy.cuda.Stream(non_blocking=True)
        with stream:
            x = cupy.asarray(array)
            return [expression(x, x).get() for _ in range(20)]

    with ThreadPoolExecutor(4) as pool:
        for array, results in zip(arrays, pool.map(run, arrays), strict=True):
            np.testing.assert_array_equal(results, np.broadcast_to((array * array).sum(1), (20, 3)))


def test_arrays_on_the_gpu_stay_there(cupy):
    x = cupy.asarray(np.ones((2, 3)))
    assert isinstance(ge.einsum("ij,ij->i", x, x), FakeArray)
    with pytest.raises(OperandError, match="operand 1 is a numpy array but operand 0 is on a GPU"):
        ge.einsum("ij,ij->i", x, np.ones((2, 3)))
    assert isinstance(ge.einsum("ij,ij->i", x, np.ones((2, 3)), backend="cuda"), FakeArray)
    out = cupy.empty((2,), np.dtype(float))
    assert ge.einsum("ij->i", x, out=out) is out
    np.testing.assert_array_equal(out.get(), [3, 3])
    with pytest.raises(ge.OutError, match="out is not on the GPU where the operands are"):
        ge.einsum("ij->i", x, out=np.empty(2))
    with pytest.raises(ge.OutError, match="out is on a GPU, but the operands are not"):
        ge.einsum("ij->i", np.ones((2, 3)), out=out)


def test_numpy_results_may_be_written_to_numpy_arrays(cupy):
    out = np.empty((2, 3), order="F")
    assert ge.einsum("ij->ij", np.ones((2, 3)), out=out, backend="cuda") is out
    np.testing.assert_array_equal(out, 1)


def test_the_same_script_runs_on_either(cupy):
    assert ge.array_module() is cupy


def test_calls_are_timed_by_events_on_an_idle_stream():
    order = []
    event = SimpleNamespace(record=lambda: order.append("record"), synchronize=lambda: order.append("wait"))
    stream = SimpleNamespace(synchronize=lambda: order.append("idle"))
    cuda = SimpleNamespace(
        get_current_stream=lambda: stream, Event=lambda: event, get_elapsed_time=lambda start, stop: 250.0
    )
    runtime = object.__new__(CupyRuntime)
    runtime._cupy = SimpleNamespace(cuda=cuda)
    assert runtime.seconds(lambda: order.append("call"), 2) == 0.25  # events count milliseconds
    assert order == ["idle", "record", "call", "call", "record", "wait"]


class Clock:
    """CuPy on a device that works through its queue while the host goes on: calls take so many seconds of either."""

    def __init__(self):
        self.host = self.device = 0.0
        self.waiting = 0
        stream = SimpleNamespace(ptr=0, synchronize=self.wait)
        self.ranges = []
        self.cuda = SimpleNamespace(
            Event=partial(Reading, self),
            nvtx=SimpleNamespace(RangePush=self.ranges.append, RangePop=lambda: self.ranges.append("")),
            get_current_stream=lambda: stream,
            get_elapsed_time=lambda start, stop: 1e3 * (stop.at - start.at),
            alloc=lambda nbytes: SimpleNamespace(ptr=0),
            runtime=SimpleNamespace(memcpyAsync=lambda *copied: self.launch(3e-6, copied[2] / 2e12)),
        )

    def launch(self, host, device):
        self.waiting += 1
        assert self.waiting < 1024, "a queue is full"
        self.host += host
        self.device = max(self.host, self.device) + device

    def wait(self):
        self.host, self.waiting = max(self.host, self.device), 0


class Reading:
    """An event of that clock."""

    def __init__(self, clock):
        self.clock = clock

    def record(self):
        self.at = max(self.clock.host, self.clock.device)

    @property
    def done(self):
        return self.at <= self.clock.host

    def synchronize(self):
        self.clock.wait()


@pytest.mark.parametrize("count", [1, 40, 250])
@pytest.mark.parametrize(("host", "device"), [(8e-6, 6.5e-6), (8e-6, 7.8e-6), (3e-6, 5e-5), (4e-5, 2e-6)])
def test_the_devices_part_is_timed_without_the_hosts(host, device, count):
    clock, runtime = Clock(), object.__new__(CupyRuntime)
    runtime._cupy = clock

    def call():
        clock.launch(host, device)

    assert runtime.work_seconds(call, count) == pytest.approx(count * device)
    elapsed = runtime.seconds(call, count)
    assert elapsed == pytest.approx(count * max(host, device), rel=0.1, abs=host + device)
    if count > 1:
        assert elapsed > 1.1 * count * device or host < 1.1 * device  # by which the host's part shows


@pytest.mark.parametrize("host", [1e-6, 8e-6])
def test_each_part_of_some_work_is_timed_by_itself_and_named(host):
    clock, runtime = Clock(), object.__new__(CupyRuntime)
    runtime._cupy = clock
    wanted = {"ij->i": 3e-6, "ij,jk->ik": 5e-5, "view": 0.0, "i->": 2e-6}
    parts = [(name, lambda device=device: device and clock.launch(host, device)) for name, device in wanted.items()]
    assert runtime.parts_seconds(parts) == pytest.approx([*wanted.values()])
    assert clock.ranges == [text for name in wanted for text in (name, "")]


def test_a_range_ends_where_its_part_fails():
    def refuse():
        raise DeviceError("no")

    clock, runtime = Clock(), object.__new__(CupyRuntime)
    runtime._cupy = clock
    with pytest.raises(DeviceError):
        runtime.parts_seconds([("ij->i", refuse)])
    assert clock.ranges == ["ij->i", ""]


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("dtype", ["?", "i2", "f2", "f4", "c16"])
def test_a_copy_in_another_order_is_a_kernel_of_ours(cupy, rng, monkeypatch, dtype, order):
    x = rng.integers(-9, 9, (17, 3, 19)).astype(dtype)
    there = cupy.asarray(x)
    monkeypatch.setattr(cupy, "asarray", None)  # CuPy's own copy
    for axes in itertools.permutations(range(3)):
        equation = f"ijk->{''.join('ijk'[axis] for axis in axes)}"
        found = ge.einsum(equation, there, order=order)
        assert (found.flags.c_contiguous, found.flags.f_contiguous) == (order == "C", order == "F")
        np.testing.assert_array_equal(found.get(), x.transpose(axes))
    assert ge.einsum("ijk->ijk", there, order="C").data.ptr == there.data.ptr  # which is in order already


def test_deterministic_plans_make_no_graphs(cupy, monkeypatch):
    x = cupy.asarray(np.ones((3, 3)))
    plan = ge.einsum_plan(",".join(["ii"] * 12) + "->", *[x] * 12)
    with pytest.raises(ValueError, match="graph=True may give other bits than the first call, and deterministic=True"):
        CudaBackend(CupyRuntime()).bind(plan, Mode(graph=True, deterministic=True))
    run = CudaBackend(CupyRuntime()).bind_single(plan, Mode(graph=None, deterministic=True))
    monkeypatch.setattr(CupyRuntime, "capture", None)
    for _ in range(3):
        assert run(*[x] * 12) == 3


def test_the_memory_is_the_devices_and_not_only_what_is_free(cupy):
    assert CudaBackend(CupyRuntime()).memory_bytes() == 5 << 30


def test_operands_on_another_device_are_refused(cupy, monkeypatch):
    x, out = cupy.asarray(np.ones(3)), cupy.asarray(np.zeros(()))
    monkeypatch.setattr(cupy.cuda.runtime, "getDevice", lambda: 1)
    with pytest.raises(OperandError, match=r"an array is on device 0 but device 1 is current: .*Device\(0\)"):
        ge.einsum("i->", x)
    y = cupy.asarray(np.ones(3))
    with pytest.raises(OperandError, match="an array is on device 0 but device 1 is current"):
        ge.einsum("i->", y, out=out)


def test_constants_are_kept_for_each_device_and_stream(cupy, monkeypatch):
    expression = ge.contract_expression("ij,jk->ik", np.eye(3), (3, 5), constants=[0])
    for device, stream in ((0, 0), (0, 1), (1, 0), (0, 0)):
        monkeypatch.setattr(cupy.cuda.runtime, "getDevice", lambda device=device: device)
        monkeypatch.setattr(cupy.cuda, "get_current_stream", lambda stream=stream: Stream(stream))
        np.testing.assert_array_equal(expression(np.ones((3, 5)), backend="cuda"), np.ones((3, 5)))
    assert expression._folded.cache_info().currsize == expression._constants_on.cache_info().currsize == 3
    place = gpueinsum.backends.select.cuda_backend()
    contexts = [(0, Stream(0), None), (0, Stream(1), None), (1, Stream(0), None)]
    assert [expression._constants_on(place, context)[0].device.id for context in contexts] == [0, 0, 1]
    assert expression._constants_on.cache_info().currsize == 3


def test_the_default_stream_of_a_thread_is_another_one_in_each(cupy):
    def contexts():
        with ThreadPoolExecutor(2) as pool:
            barrier = threading.Barrier(2)
            threads = [pool.submit(lambda: (barrier.wait(), CupyRuntime().context())[1]) for _ in range(2)]
            return {thread.result() for thread in threads}

    assert len(contexts()) == 1
    cupy.cuda.get_current_stream = lambda: Stream(2)
    assert len(contexts()) == 2


def test_constants_on_a_gpu_want_the_other_operands_there(cupy):
    expression = ge.contract_expression("ij,jk->ik", cupy.asarray(np.eye(3)), (3, 5), constants=[0])
    with pytest.raises(OperandError, match="operand 1 is a numpy array but operand 0 is on a GPU"):
        expression(np.ones((3, 5)))
    assert isinstance(expression(np.ones((3, 5)), backend="cuda"), np.ndarray)


def test_a_number_keeps_its_sign_on_its_way_to_the_device(cupy):
    assert np.signbit(ge.einsum("->", np.array(-0.0), backend="cuda"))


def test_arrays_of_other_libraries_are_adopted_where_they_are(cupy):
    class Tensor:
        """A tensor that has both ways to be shared, and would need a stream to be ordered by the first."""

        dtype, shape = "torch.float64", (2, 3)
        __cuda_array_interface__ = None

        def __dlpack_device__(self):
            return 2, 0

        def __dlpack__(self, **options):
            raise AssertionError("the stand-in does not ask")

    cupy.from_dlpack = lambda tensor: cupy.asarray(np.ones((2, 3)))
    assert isinstance(ge.einsum("ij->ji", Tensor()), FakeArray)
    cupy.from_dlpack = lambda tensor: (_ for _ in ()).throw(BufferError("it requires a gradient"))
    with pytest.raises(OperandError, match="Tensor cannot be shared by DLPack: it requires a gradient"):
        ge.einsum("ij->ji", Tensor())
    with pytest.raises(OperandError, match="out is of type Tensor, not an array"):
        ge.einsum("ij->ij", np.ones((2, 3)), out=Tensor())


def test_the_order_is_that_of_the_callers_array_not_of_its_copy(cupy):
    vector = np.arange(6.0)[::2]  # dense on the device, but in neither order here
    assert ge.einsum("i,j->ij", vector, np.ones(2), order="A", backend="cuda").flags.c_contiguous


@pytest.mark.parametrize(
    ("error", "message"),
    [
        ("cudaErrorNoDevice: no CUDA-capable device is detected", "CUDA needs an NVIDIA device"),
        ("cudaErrorInsufficientDriver: CUDA driver version is insufficient", "CUDA needs an NVIDIA driver"),
    ],
)
def test_what_is_missing_is_said(cupy, monkeypatch, error, message):
    def fails():
        raise cupy.cuda.runtime.CUDARuntimeError(error)

    monkeypatch.setattr(cupy.cuda.runtime, "getDeviceCount", fails)
    with pytest.raises(DeviceError, match=message):
        CupyRuntime()
    monkeypatch.setattr(cupy.cuda.runtime, "getDeviceCount", lambda: 0)
    with pytest.raises(DeviceError, match="CUDA needs an NVIDIA device, and there is none"):
        CudaBackend(CupyRuntime())


def test_a_missing_cublas_is_said(cupy, monkeypatch):
    def missing(major):
        raise OSError(f"libcublas.so.{major}: cannot open shared object file")

    with monkeypatch.context() as patch:
        patch.setattr("gpueinsum.backends.cuda.installation.load", missing)
        with pytest.raises(DeviceError, match=r"CUDA needs the cuBLAS library: .*libcublas\.so\.13: cannot open"):
            CupyRuntime()
    monkeypatch.delattr(sys.modules["cupy_backends.cuda.libs"], "cublas")
    monkeypatch.delitem(sys.modules, "cupy_backends.cuda.libs.cublas", raising=False)  # the real one, on a GPU machine
    with pytest.raises(DeviceError, match="CUDA needs the cuBLAS library"):
        CupyRuntime()


def test_missing_headers_are_said(cupy, monkeypatch):
    monkeypatch.setattr(sys.modules["cuda.pathfinder"], "find_nvidia_header_directory", lambda name: None)
    with pytest.raises(DeviceError, match="CUDA needs its headers"):
        CupyRuntime()


# ---- Streams


CHAIN = "ab,bc,cd,de,ef,fg,gh,hi->ai"


def tree(rng, cupy):
    """Matrices, the plan of their product by halves, and the product."""
    hosts = [rng.random(shape) for shape in itertools.pairwise([29, 31, 37, 41, 43, 47, 53, 59, 61])]
    plan = ge.einsum_plan(CHAIN, *hosts, optimize=[(0, 1)] * 7)
    return plan, [cupy.asarray(host) for host in hosts], np.linalg.multi_dot(hosts)


def test_callers_on_several_streams_wait_for_nobody(cupy, rng):
    plan, arrays, expected = tree(rng, cupy)
    streams = [cupy.cuda.Stream(non_blocking=True) for _ in range(2)]
    run, results = CudaBackend(CupyRuntime()).bind_single(plan), []
    for stream in streams * 2:
        with stream:
            results.append(run(*arrays))
    assert all(stream.queue for stream in streams)
    for stream in streams:
        stream.synchronize()
    for result in results:
        np.testing.assert_allclose(result.get(), expected)


@pytest.mark.parametrize("graph", [False, True])
def test_a_stream_that_was_made_current_without_a_with_stays_current(cupy, rng, graph):
    plan, arrays, expected = tree(rng, cupy)
    stream = cupy.cuda.Stream(non_blocking=True)
    run = CudaBackend(CupyRuntime()).bind_single(plan, Mode(graph=graph))
    stream.use()
    for _ in range(3):
        result = run(*arrays)
        assert cupy.cuda.get_current_stream() is stream
    stream.synchronize()
    np.testing.assert_allclose(result.get(), expected)
