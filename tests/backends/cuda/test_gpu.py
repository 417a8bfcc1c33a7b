"""CuPy's manners on a real GPU: streams, threads, devices, views, `out=`.

On the stand-in they show that these tests are right, and no more: it is never late of itself, nor short of memory.
"""

import functools
import gc
import json
import math
import threading
from itertools import pairwise

import numpy as np
import pytest
from conftest import real_runtime
from cublas_calls import make_pointers_free
from single_steps import bound, plan_of

import gpueinsum as ge
from gpueinsum.backends.base import PLAIN, Mode
from gpueinsum.backends.cuda.backend import CudaBackend
from gpueinsum.backends.cuda.program import Launch, Product
from gpueinsum.costs.counts import peak_bytes
from gpueinsum.costs.machine import machine, tuned_path
from gpueinsum.language.steps import Add, Contract
from gpueinsum.schedule import select as candidates

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


def settled_pool(cupy):
    """The memory pool, when what earlier tests left in cycles is given back, and is not so in the midst of this one."""
    gc.collect()
    return cupy.get_default_memory_pool()


@pytest.fixture
def room(cupy):
    """Whether so many GiB are free; what was taken is the device's again before the next test."""
    pool = settled_pool(cupy)

    def needed(gib):
        pool.free_all_blocks()
        if cupy.cuda.Device().mem_info[0] < gib * 2**30:
            pytest.skip(f"it takes {gib} GiB of free memory")

    yield needed
    gc.collect()
    pool.free_all_blocks()


LARGE = pytest.mark.xdist_group("large memory")  # one after the other, by `--dist loadgroup`


@LARGE
def test_more_elements_than_32_bits_count_are_added(cupy, room):
    room(16)
    count = 2**31 + 3
    x, y = (cupy.zeros((count,), np.float16) for _ in "xy")
    x[-2:], y[-1:], y[:2] = 3, 4, 5
    result = bound(real_runtime(), Add((0, 1), "i"), {"i": count}, "float16")(x, y)
    np.testing.assert_array_equal(result[:3].get(), [5, 5, 0])
    np.testing.assert_array_equal(result[-3:].get(), [0, 3, 7])
    assert not cupy.any(result[2:-2])


@LARGE
@pytest.mark.parametrize("long", ["i", "j"])
def test_a_dimension_past_what_cublas_counts_is_split(cupy, room, monkeypatch, long):
    room(24)
    monkeypatch.setattr(candidates, "is_tiny", lambda *sizes: False)  # or a pass would do
    candidates._cheapest.cache_clear()
    size = {"i": 2, "j": 2, "k": 2} | {long: 2**31 + 3}
    x, y = (cupy.zeros([size[label] for label in term], np.float16) for term in ("ij", "jk"))
    x[-1, -1] = y[-1, -1] = 3  # far behind the first part
    x[0, 0] = y[0, 0] = 2
    result = ge.einsum("ij,jk->ik", x, y)
    np.testing.assert_array_equal(result[:: size["i"] - 1].get(), [[4, 0], [0, 9]])


@LARGE
def test_more_elements_than_32_bits_count_are_summed(cupy, room):
    room(6)
    x = cupy.ones((2**31 + 5,), np.int8)
    assert int(ge.einsum("i->", x)) == 5  # 2**31 + 5 wrapped to 8 bits
    y = x[:-1].reshape(4, -1)
    assert int(ge.einsum("ij,ij->", y, y)) == 4
    assert cupy.all(ge.einsum("ij->j", y) == 4)


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


def test_what_a_pullback_kept_goes_back_to_the_pool(cupy):
    pool = settled_pool(cupy)
    operands = [cupy.ones((1024, 1024), np.float32) for _ in range(4)]
    ge.vjp("ij,jk,kl,lm->im", *operands)[1](operands[0])  # handles and workspaces are made once
    before = pool.used_bytes()
    value, pullback = ge.vjp("ij,jk,kl,lm->im", *operands)
    assert pool.used_bytes() == before + 3 * value.nbytes  # the value and two intermediates
    gradients = pullback(value)
    assert pool.used_bytes() == before + 7 * value.nbytes
    del value, pullback, gradients
    assert pool.used_bytes() == before


def test_a_limit_holds_for_what_the_pool_hands_out(cupy):
    pool, path = settled_pool(cupy), [(0, 1), (0, 2), (0, 1)]
    equation, operands = "ia,ja,ka,la->ijkl", [cupy.ones((48, 64), np.float32) for _ in range(4)]
    value, pullback = ge.vjp(equation, *operands, optimize=path)
    pullback(value)
    limit = peak_bytes(pullback.plan) * 5 // 4  # which holds if run at once, not if what is kept stays
    del pullback
    peak = _PeakOfThePool(cupy, pool)
    with peak:
        _, pullback = ge.vjp(equation, *operands, optimize=path, memory_limit=limit)
        pullback(value)
    assert pullback.plan.duplicates()
    assert peak.bytes <= limit + 2 * 2**20  # what kernels and cuBLAS take for themselves


class _PeakOfThePool:
    """The most that is in use at once, above what was, counted at every allocation."""

    def __init__(self, cupy, pool):
        self.pool, self.bytes = pool, 0
        peak = self

        class Hook(cupy.cuda.MemoryHook):
            name = "peak"

            def malloc_postprocess(self, **_):
                peak.bytes = max(peak.bytes, pool.used_bytes() - peak.before)

        self.hook = Hook()

    def __enter__(self):
        self.before = self.pool.used_bytes()
        self.hook.__enter__()
        return self

    def __exit__(self, *error):
        self.hook.__exit__(*error)


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


# ---- Programs: memory, graphs, precisions


def matrices(cupy, *sizes, dtype=np.float32):
    rng = np.random.default_rng(0)
    return [cupy.asarray(rng.standard_normal(shape).astype(dtype)) for shape in pairwise(sizes)]


def test_a_run_takes_from_the_pool_what_its_program_says(cupy):
    arrays = matrices(cupy, 512, 640, 768, 896, 1024)
    plan = ge.einsum_plan("ij,jk,kl,lm->im", *arrays)
    backend = CudaBackend(real_runtime())
    run = backend.bind(plan)
    run(*arrays)  # handles and workspaces are made once
    program = backend.program(plan, [array.strides for array in arrays])
    peak = _PeakOfThePool(cupy, settled_pool(cupy))
    with peak:
        results = run(*arrays)
    assert program.bytes <= peak.bytes <= program.bytes + 512 * (1 + len(results))  # the pool's own rounding
    cupy.testing.assert_allclose(results[0], functools.reduce(cupy.matmul, arrays), rtol=1e-3, atol=1)


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


# ---- Products by pointers

HEADS = "bqhd,bkhd->bhqk"


def launches(plan, arrays, mode=PLAIN):
    """How many cuBLAS calls by pointers the program for these arrays makes if they are aligned."""
    program = CudaBackend(real_runtime()).program(plan, [array.strides for array in arrays], mode.precision)
    return sum(isinstance(work, Product) and work.by_pointers for work in program.work)


def heads(cupy, dtype, *shapes, begins=0):
    """Arrays of small whole numbers that begin so many elements behind an allocation."""
    rng, arrays = np.random.default_rng(0), []
    for shape in shapes:
        numbers = rng.integers(-2, 3, (2, math.prod(shape) + begins))
        kind = np.dtype(ge.api.arguments.dtype_of(dtype))
        memory = cupy.asarray((numbers[0] + 1j * numbers[1] if kind.kind == "c" else numbers[0]).astype(kind))
        arrays.append(memory[begins:].reshape(shape))
    return arrays


@pytest.mark.parametrize("mode", [PLAIN, Mode(deterministic=True), Mode(graph=True), Mode("tf32")], ids=str)
@pytest.mark.parametrize("begins", [0, 1])
@pytest.mark.parametrize("d", [16, 15])
@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64", "complex64", "complex128"])
def test_products_by_pointers_are_exact_wherever_matrices_begin(cupy, dtype, d, begins, mode):
    arrays = heads(cupy, dtype, (8, 16, 8, d), (8, 16, 8, d), begins=begins)
    plan = ge.einsum_plan(HEADS, *arrays)
    run = CudaBackend(real_runtime()).bind_single(plan, mode)
    reads_packs = dtype in ("float16", "bfloat16") or mode.precision is not None
    assert launches(plan, arrays, mode) == (d * arrays[0].itemsize % 16 == 0 or not reads_packs)
    expected = np.einsum(HEADS, *[array.get().astype(complex) for array in arrays], optimize=True)
    cupy.cuda.Device().synchronize()
    for stream in (cupy.cuda.Stream.null, cupy.cuda.Stream(non_blocking=True)):
        with stream:
            for _ in range(3):
                np.testing.assert_array_equal(run(*arrays).get().astype(complex), expected)


def test_more_products_by_pointers_than_a_call_takes_are_exact(cupy):
    arrays = heads(cupy, "float32", (513, 8, 514, 16), (513, 16, 514, 16))
    plan = ge.einsum_plan(HEADS, *arrays)
    assert launches(plan, arrays) == 5  # of 513 * 514 products
    expected = np.einsum(HEADS, *[array.get() for array in arrays], optimize=True)
    np.testing.assert_array_equal(ge.einsum(HEADS, *arrays).get(), expected)


def test_products_by_pointers_add_up_and_conjugate(cupy, monkeypatch):
    make_pointers_free(monkeypatch)
    step = Contract(0, 1, "fbea", "ecfd", "cdba", conj_rhs=True)
    x, y = heads(cupy, "complex64", (3, 11, 2, 5), (2, 13, 3, 7))
    plan = plan_of(step, dict(zip("fbeacd", (3, 11, 2, 5, 13, 7), strict=True)), "complex64")
    assert launches(plan, [x, y]) == 2
    [result] = CudaBackend(real_runtime()).bind(plan)(x, y)
    candidates._cheapest.cache_clear()
    np.testing.assert_array_equal(result.get(), np.einsum("fbea,ecfd->cdba", x.get(), y.get().conj()))


# ---- Products that are no GEMM


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", "complex64", "complex128"])
@pytest.mark.parametrize(
    ("equation", "shapes"),
    [
        ("bij,bjk->bik", [(20_000, 4, 4), (20_000, 4, 4)]),
        ("ij,ajb->aib", [(2, 2), (256, 2, 512)]),
        ("ij,aj->ai", [(2, 2), (2**17, 2)]),
        ("ijkl,akblc->aibjc", [(2, 2, 2, 2), (32, 2, 64, 2, 32)]),
    ],
)
def test_many_tiny_products_are_exact(cupy, equation, shapes, dtype):
    arrays = heads(cupy, dtype, *shapes)
    program = CudaBackend(real_runtime()).program(ge.einsum_plan(equation, *arrays), [a.strides for a in arrays])
    assert [type(work) for work in program.work] == [Launch]
    expected = np.einsum(equation, *[array.get().astype(complex) for array in arrays])
    np.testing.assert_array_equal(ge.einsum(equation, *arrays).get().astype(complex), expected)
