"""Programs on a real GPU: graphs, streams and threads, deterministic runs, precisions, what was timed."""

import json
import threading
from itertools import pairwise

import numpy as np
import pytest
from conftest import real_runtime
from gpu_arrays import matrices, settled_pool

import gpueinsum as ge
from gpueinsum.backends.base import Mode
from gpueinsum.backends.cuda.backend import CudaBackend
from gpueinsum.costs.machine import machine, tuned_path

pytestmark = pytest.mark.gpu


@pytest.fixture(autouse=True)
def cupy():
    real_runtime()
    import cupy

    return cupy


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.complex128])
@pytest.mark.parametrize("stream", ["null", "own"])
def test_a_graph_gives_what_its_launches_give(cupy, dtype, stream):
    sizes = 64, 96, 64, 128, 64, 96, 64, 128, 64
    plan = ge.einsum_plan("ab,bc,cd,de,ef,fg,gh,hi->ai", *[np.empty(shape, dtype) for shape in pairwise(sizes)]).vjp()
    value = [cupy.ones((64, 64), dtype)]
    backend = CudaBackend(real_runtime())
    eager, replayed = backend.bind(plan), backend.bind(plan, Mode(graph=True))
    cupy.cuda.Device().synchronize()
    with cupy.cuda.Stream(non_blocking=True) if stream == "own" else cupy.cuda.Stream.null:
        kept = []
        for call in range(6):  # the same place twice, then others
            arrays = [array / (8 + call) for array in matrices(cupy, *sizes, dtype=dtype)] if call != 1 else kept[0]
            kept.append(arrays)
            results = replayed(*arrays, *value)
            for result, expected in zip(results, eager(*arrays, *value), strict=True):
                cupy.testing.assert_allclose(result, expected, rtol=1e-2 if dtype is np.float16 else 1e-5, atol=1e-3)


def test_what_a_replay_gave_outlives_the_next(cupy):
    arrays = matrices(cupy, 64, 64, 64, 64)
    run = CudaBackend(real_runtime()).bind_single(ge.einsum_plan("ij,jk,kl->il", *arrays), Mode(graph=True))
    results = [run(*arrays) for _ in range(4)]
    first = results[0].copy()
    arrays[0][...] = 0
    assert not cupy.any(run(*arrays))
    for result in results[1:]:
        cupy.testing.assert_array_equal(result, results[1])
    cupy.testing.assert_allclose(results[1], first, rtol=1e-4, atol=1e-4)


def test_deterministic_runs_give_the_same_bits_on_every_stream(cupy):
    arrays = matrices(cupy, 64, 65_537, 48)
    run = CudaBackend(real_runtime()).bind_single(ge.einsum_plan("ij,jk->ik", *arrays), Mode(deterministic=True))
    cupy.cuda.Device().synchronize()
    streams = [cupy.cuda.Stream(non_blocking=True) for _ in range(4)]
    results = []
    for _ in range(5):
        for stream in streams:
            with stream:
                results.append(run(*arrays))
    cupy.cuda.Device().synchronize()
    assert len({result.get().tobytes() for result in results}) == 1


def by_halves(cupy, dtype=np.float64):
    """The plan of the gradients of a product by halves, its operands, and what it gives launch by launch."""
    sizes = 160, 288, 96, 352, 128, 224, 192, 320, 64
    arrays = matrices(cupy, *sizes, dtype=dtype)
    arrays.append(cupy.ones((160, 64), dtype))
    plan = ge.einsum_plan("ab,bc,cd,de,ef,fg,gh,hi->ai", *arrays[:8], optimize=[(0, 1)] * 7).vjp()
    return plan, arrays, ge.backends.select.HOST.bind(plan)(*[array.get() for array in arrays])


def assert_all_close(results, expected, dtype):
    for result, wanted in zip(results, expected, strict=True):
        scale = np.linalg.norm(wanted)
        assert np.linalg.norm(result.get() - wanted) < (1e-4 if dtype == np.float32 else 1e-11) * scale


@pytest.mark.parametrize("mode", [Mode(), Mode(deterministic=True), Mode(graph=True)], ids=str)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("stream", ["null", "own"])
def test_gradients_are_right_in_every_mode_and_read_their_operands_in_time(cupy, dtype, stream, mode):
    plan, arrays, expected = by_halves(cupy, dtype)
    run = CudaBackend(real_runtime()).bind(plan, mode)
    cupy.cuda.Device().synchronize()
    with cupy.cuda.Stream(non_blocking=True) if stream == "own" else cupy.cuda.Stream.null:
        for call in range(50):
            doubled = [array * 2 for array in arrays] if call % 2 else arrays  # just made on the stream
            factor = 2.0**8 if call % 2 else 1.0  # eight factors of nine in every gradient
            results = run(*doubled)
            for array in doubled if call % 2 else []:
                array.fill(0)  # after the call on the stream, which must have read it
            assert_all_close([result / factor for result in results], expected, dtype)


@pytest.mark.parametrize("mode", [Mode(), Mode(graph=True)], ids=str)
def test_products_of_several_threads_and_streams_do_not_meet(cupy, mode):
    plan, arrays, expected = by_halves(cupy)
    run, failures = CudaBackend(real_runtime()).bind(plan, mode), []
    cupy.cuda.Device().synchronize()

    def work(own):
        with cupy.cuda.Stream(non_blocking=True) if own else cupy.cuda.Stream.null as stream:
            for _ in range(20):
                results = run(*arrays)
                stream.synchronize()
                try:
                    assert_all_close(results, expected, np.float64)
                except AssertionError as error:
                    failures.append(error)

    threads = [threading.Thread(target=work, args=(number % 2,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures


@pytest.mark.parametrize(
    ("dtype", "precision", "error"),
    [
        (np.float32, "highest", 1e-6),
        (np.float32, "tf32", 1e-3),
        (np.float32, "bf16", 1e-2),
        (np.float32, "emulated", 1e-6),
        (np.float64, "emulated", 1e-14),
        (np.complex64, "bf16", 1e-2),
        (np.complex128, "emulated", 1e-14),
    ],
)
def test_every_precision_is_as_precise_as_it_says(cupy, dtype, precision, error):
    x, y = matrices(cupy, 512, 1024, 512, dtype=dtype)
    run = CudaBackend(real_runtime()).bind_single(ge.einsum_plan("ij,jk->ik", x, y), Mode(precision))
    try:
        result = run(x, y).get()
    except ge.DeviceError as refusal:
        pytest.skip(str(refusal))
    wide = np.clongdouble if np.dtype(dtype).kind == "c" else np.longdouble
    rows = slice(0, 16)  # long doubles are slow
    exact = x.get()[rows].astype(wide) @ y.get().astype(wide)
    assert np.linalg.norm((result[rows] - exact).astype(complex)) < error * np.linalg.norm(exact.astype(complex))


def test_what_was_timed_on_the_device_is_remembered_and_gives_the_result(cupy, tmp_path, monkeypatch):
    monkeypatch.setenv("GPUEINSUM_CACHE", str(tmp_path))
    rng, pool = np.random.default_rng(0), settled_pool(cupy)
    x, y = (cupy.asarray(rng.random(shape, np.float32)) for shape in ((130, 40, 50), (50, 40, 170)))
    used = pool.used_bytes()
    result = ge.einsum("abc,cbd->abd", x, y, autotune=True)
    cupy.testing.assert_allclose(result, ge.einsum("abc,cbd->abd", x, y), rtol=1e-4)
    [choice] = json.loads(tuned_path(machine("cuda")).read_text()).values()
    assert choice.startswith("copy ")
    assert pool.used_bytes() < used + 3 * result.nbytes  # what was timed is given back
