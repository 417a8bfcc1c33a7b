"""CUDA graphs: what is captured when, what is copied, whose the results are; simulated and through a stand-in CuPy."""

import numpy as np
import pytest
from programs import CHAIN, SHAPES, chain, matrices
from simulated import SimulatedRuntime
from simulated.cupy import stand_in

import gpueinsum as ge
from gpueinsum.backends.base import Mode
from gpueinsum.backends.cuda.backend import CudaBackend
from gpueinsum.backends.cuda.graph import is_worth_a_graph
from gpueinsum.backends.cuda.runtime import CupyRuntime
from gpueinsum.errors import DeviceError


@pytest.fixture
def device():
    return SimulatedRuntime()


@pytest.fixture
def keep():
    """Arrays that live on, so that others lie elsewhere."""
    return []


def kinds(runtime):
    """What was called since the last time: a replay stands for the launches in it."""
    calls, inside = [], 0
    for kind, *call in runtime.calls:
        if inside:
            inside -= 1
            continue
        inside = call[0] if kind == "replay" else 0
        calls.append(kind)
    runtime.calls.clear()
    return calls


def test_the_second_call_with_operands_where_they_were_is_one_launch_and_a_copy_of_the_result(device, rng):
    hosts = matrices(rng, 3)
    run = CudaBackend(device).bind_single(chain(3), Mode(graph=True))
    arrays = [device.to_device(host) for host in hosts]
    expected = np.linalg.multi_dot(hosts)
    np.testing.assert_allclose(run(*arrays), expected)
    assert kinds(device) == ["gemm"] * 2
    for _ in range(3):
        np.testing.assert_allclose(run(*arrays), expected)
        assert kinds(device) == ["replay", "copy"]


def test_a_replay_reads_what_lies_at_the_addresses_now(device, rng):
    arrays = [device.to_device(host) for host in matrices(rng, 3)]
    run = CudaBackend(device).bind_single(chain(3), Mode(graph=True))
    for factor in (1.0, 2.0, 3.0):
        arrays[0][...] = factor
        np.testing.assert_allclose(run(*arrays), np.linalg.multi_dot(arrays))
    assert "replay" in kinds(device)


def test_results_are_the_callers_own(device, rng):
    arrays = [device.to_device(host) for host in matrices(rng, 3)]
    run = CudaBackend(device).bind_single(chain(3), Mode(graph=True))
    results = [run(*arrays) for _ in range(4)]
    expected = results[0].copy()
    arrays[0][...] = 0
    assert not run(*arrays).any()
    for result in results:
        np.testing.assert_array_equal(result, expected)
    results[1][...] = 7
    np.testing.assert_array_equal(results[2], expected)


def test_operands_elsewhere_are_copied_in_where_that_saves_calls(device, rng, keep):
    plan = chain(10)
    forward, backward = (CudaBackend(device).bind(which, Mode(graph=True)) for which in (plan, plan.vjp()))
    cotangent = device.to_device(np.ones((31, 73)))
    for call in range(4):
        hosts = matrices(rng, 10)
        arrays = [device.to_device(host) for host in hosts]
        np.testing.assert_allclose(forward(*arrays)[0], np.linalg.multi_dot(hosts))
        assert kinds(device) == ["gemm"] * 9  # ten copies would be no less
        gradients = backward(*arrays, cotangent)
        np.testing.assert_allclose(gradients[0], np.ones((31, 73)) @ np.linalg.multi_dot(hosts[1:]).T)
        assert kinds(device) == (["copy"] * 11 + ["replay"] + ["copy"] * 10 if call else ["gemm"] * 26)
        np.testing.assert_array_equal(backward(*arrays, cotangent)[0], gradients[0])
        assert kinds(device) == ["replay"] + ["copy"] * 10  # where they were
        keep.append(arrays)


def test_operands_are_copied_as_they_lie_backward_ones_and_gaps_included(device, rng, keep):
    plan = chain(3).vjp().vjp()
    run, reference = CudaBackend(device).bind(plan, Mode(graph=True)), CudaBackend(SimulatedRuntime()).bind(plan)
    shapes = [plan.shape(number) for number in range(len(plan.inputs))]
    for _ in range(3):
        wide = [device.to_device(rng.random((rows, 2 * columns - 1))) for rows, columns in shapes]
        keep.append([array[::-1, ::-2] for array in wide])
        for result, expected in zip(run(*keep[-1]), reference(*map(np.copy, keep[-1])), strict=True):
            np.testing.assert_allclose(result, expected)
    assert "replay" in kinds(device)


def test_operands_with_large_gaps_are_not_copied(device, rng, keep):
    plan = chain(3).vjp().vjp()
    run = CudaBackend(device).bind(plan, Mode(graph=True))
    for _ in range(3):
        shapes = [plan.shape(number) for number in range(len(plan.inputs))]
        keep.append([device.to_device(rng.random((rows, 5 * columns)))[:, ::5] for rows, columns in shapes])
        run(*keep[-1])
    assert not {"replay", "copy"} & set(kinds(device))


def test_every_stream_has_its_own_graphs(device, rng, monkeypatch):
    arrays = [device.to_device(host) for host in matrices(rng, 3)]
    run = CudaBackend(device).bind_single(chain(3), Mode(graph=True))
    for stream in ("first", "first", "second", "second", "first"):
        monkeypatch.setattr(device, "context", lambda stream=stream: stream)
        run(*arrays)
    assert kinds(device) == [*["gemm"] * 2, "replay", "copy", *["gemm"] * 2, "replay", "copy", "replay", "copy"]


def test_a_graph_of_freed_memory_is_found(device, rng):
    memory = device.allocate(1 << 15)
    replay = device.capture(CudaBackend(device).program(chain(2), [(37 * 8, 8), (41 * 8, 8)]), [memory.ptr] * 3)
    replay()
    del memory
    with pytest.raises(AssertionError, match="no living array"):
        replay()


def test_what_cannot_be_captured_is_launched_and_the_reason_is_said(device, rng, monkeypatch):
    def refuses(program, addresses):
        raise DeviceError("the stream is busy")

    monkeypatch.setattr(device, "capture", refuses)
    hosts = matrices(rng, 3)
    arrays = [device.to_device(host) for host in hosts]
    run = CudaBackend(device).bind_single(chain(3), Mode(graph=True))
    run(*arrays)
    with pytest.warns(RuntimeWarning, match="no CUDA graph, but launch by launch: the stream is busy"):
        run(*arrays)
    np.testing.assert_allclose(run(*arrays), np.linalg.multi_dot(hosts))  # and says it once
    silent = CudaBackend(device).bind_single(chain(10), Mode(graph=None))
    for _ in range(3):
        silent(*[device.to_device(host) for host in matrices(rng, 10)])
    assert set(kinds(device)) == {"gemm"}


def test_views_and_empty_results_need_no_graph(device):
    x = device.to_device(np.zeros((3, 0)))
    view = CudaBackend(device).bind_single(ge.einsum_plan("ij->ji", (3, 0)), Mode(graph=True))
    outer = CudaBackend(device).bind_single(ge.einsum_plan("ij,k->ijk", (3, 0), (2,)), Mode(graph=True))
    for _ in range(3):
        assert view(x).shape == (0, 3)
        assert outer(x, device.to_device(np.ones(2))).shape == (3, 0, 2)
    assert not kinds(device)


def test_many_short_launches_are_worth_a_graph_and_few_or_long_ones_are_not(device):
    def is_worth(*shapes):
        terms = CHAIN.split("->")[0].split(",")[: len(shapes)]
        path = [(0, 1), *[(0, len(shapes) - 1 - done) for done in range(1, len(shapes) - 1)]]
        plan = ge.einsum_plan(f"{','.join(terms)}->a{terms[-1][1]}", *shapes, optimize=path)
        strides = [(8 * columns, 8) for _, columns in shapes]
        return is_worth_a_graph(CudaBackend(device).program(plan, strides))

    assert is_worth(*[(32, 32)] * 10)
    assert not is_worth(*[(32, 32)] * 4)
    assert not is_worth(*[(2048, 2048)] * 10)
    assert not is_worth((1, 1 << 22), (1 << 22, 4), *[(4, 4)] * 8)


def test_without_being_asked_what_is_worth_it_is_replayed(device, rng):
    for count, expected in (10, "replay"), (3, "gemm"):
        arrays = [device.to_device(host) for host in matrices(rng, count)]
        run = CudaBackend(device).bind_single(chain(count), Mode(graph=None))
        for _ in range(3):
            run(*arrays)
        assert expected in kinds(device)[-2:]


# ---- Through CuPy


@pytest.fixture
def cupy(monkeypatch):
    with stand_in(monkeypatch) as fake:
        yield fake


@pytest.mark.parametrize("dtype", ["float16", "float32", "complex128", "int32"])
def test_cublas_is_captured_past_cupys_binding_and_kernels_through_it(cupy, rng, dtype):
    shapes = (31, 37, 13), (37, 41)
    plan = ge.einsum_plan("ijl,jk->ik", *[np.empty(shape, dtype) for shape in shapes])
    runtime = CupyRuntime()
    run = CudaBackend(runtime).bind_single(plan, Mode(graph=True))
    hosts = [rng.integers(-3, 4, shape).astype(dtype) for shape in shapes]
    arrays = [cupy.asarray(host) for host in hosts]
    for _ in range(3):
        np.testing.assert_array_equal(run(*arrays).get(), np.einsum("ijl,jk->ik", *hosts))
    assert not cupy.capturing
    modes = [mode for _, _, mode in cupy.cublas.calls]
    assert modes == ([] if dtype == "int32" else [16] * 3)
    assert len(cupy.cublas.used) == len(modes[:2])  # the first call's, and the one that is captured


def test_products_by_pointers_are_captured_with_what_writes_the_pointers(cupy, rng):
    plan = ge.einsum_plan("bqhd,bkhd->bhqk", (3, 2, 5, 7), (3, 11, 5, 7))
    run = CudaBackend(CupyRuntime()).bind_single(plan, Mode(graph=True))
    arrays = [cupy.asarray(rng.random(plan.shape(number))) for number in range(2)]
    cupy.cublas.simulated.calls.clear()
    for factor in (1.0, 2.0, 3.0):
        arrays[0][...] = factor
        np.testing.assert_allclose(run(*arrays).get(), np.einsum("bqhd,bkhd->bhqk", *[array.get() for array in arrays]))
    assert [kind for kind, *_ in cupy.cublas.simulated.calls if kind != "copy"] == ["launch", "pointer gemm"] * 3
    assert len(cupy.cublas.used) == 2  # the first call's, and the one that is captured


@pytest.fixture
def device_behind_the_door(device, monkeypatch):
    """The simulated device as the one that `backend="cuda"` means."""
    backend = CudaBackend(device)
    monkeypatch.setattr(ge.backends.select, "cuda_backend", lambda: backend)
    return device


@pytest.mark.parametrize(("graph", "replays"), [(True, True), (None, True), (False, False)])
def test_an_expression_is_replayed_as_a_graph_unless_it_is_told_not_to(
    device_behind_the_door, rng, monkeypatch, graph, replays
):
    hosts = matrices(rng, 10)
    there = {id(host): device_behind_the_door.to_device(host) for host in hosts}
    # as a pool would: there again
    monkeypatch.setattr(device_behind_the_door, "to_device", lambda host: there[id(host)])
    expression = ge.contract_expression(CHAIN, *SHAPES, graph=graph)
    for _ in range(4):
        result = expression(*hosts, backend="cuda")  # which go to the device at each call
        np.testing.assert_allclose(result, np.linalg.multi_dot(hosts))
    assert ("replay" in kinds(device_behind_the_door)) == replays


def test_constants_are_in_the_graph_where_they_are(device_behind_the_door, rng):
    hosts = matrices(rng, 10)
    fixed = [0, 2, 4, 6, 8]
    given = [host if i in fixed else host.shape for i, host in enumerate(hosts)]
    expression = ge.contract_expression(CHAIN, *given, constants=fixed, graph=True)
    late = [host for i, host in enumerate(hosts) if i not in fixed]
    for _ in range(4):
        np.testing.assert_allclose(expression(*late, backend="cuda"), np.linalg.multi_dot(hosts))
    assert "replay" in kinds(device_behind_the_door)


def test_without_memory_for_a_graph_everything_is_launched(device, rng, monkeypatch):
    hosts = matrices(rng, 3)
    arrays = [device.to_device(host) for host in hosts]
    run = CudaBackend(device).bind_single(chain(3), Mode(graph=True))
    run(*arrays)

    def out_of_memory(program, addresses):
        raise MemoryError("3 bytes too many")

    monkeypatch.setattr(device, "capture", out_of_memory)
    with pytest.warns(RuntimeWarning, match="no CUDA graph, but launch by launch: 3 bytes too many"):
        result = run(*arrays)
    for _ in range(2):
        np.testing.assert_allclose(result, np.linalg.multi_dot(hosts))
        result = run(*arrays)


def test_what_is_deterministic_makes_no_graph(device_behind_the_door, rng):
    hosts = matrices(rng, 10)
    expression = ge.contract_expression(CHAIN, *SHAPES, deterministic=True)
    results = [expression(*hosts, backend="cuda") for _ in range(3)]
    assert "replay" not in kinds(device_behind_the_door)
    for result in results[1:]:
        np.testing.assert_array_equal(result, results[0])


def test_the_cpu_ignores_a_graph(rng):
    hosts = matrices(rng, 3)
    expression = ge.contract_expression("ab,bc,cd->ad", *SHAPES[:3], graph=True)
    np.testing.assert_allclose(expression(*hosts), np.linalg.multi_dot(hosts))


def test_all_products_of_a_stream_use_its_workspace_and_one_handle(cupy, rng):
    runtime, hosts = CupyRuntime(), matrices(rng, 3)
    arrays = [cupy.asarray(host) for host in hosts]
    for _ in range(2):
        run = CudaBackend(runtime).bind_single(chain(3), Mode(graph=True))
        for _ in range(3):
            np.testing.assert_allclose(run(*arrays).get(), np.linalg.multi_dot(hosts))
    handles, streams, workspaces = map(set, zip(*cupy.cublas.used, strict=True))
    assert (len(handles), len(streams), len(workspaces)) == (1, 3, 1)  # that of the calls, and two that captured
