"""The simulated device: its GEMM against numpy, and each of its checks broken once."""

import ctypes
import os
import signal
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from simulated import SimulatedRuntime, host
from simulated.cupy import VERSION, stand_in
from simulated.streams import Capture, Event, Stream

import gpueinsum as ge
from gpueinsum.backends.cuda.source import Kernel, job, kernel_text, nest
from gpueinsum.schedule.gemm import GemmArguments

SUM = Kernel("reduce", "float32", "float32")
PLAIN = GemmArguments(transpose_a=False, transpose_b=False, m=3, n=5, k=7, lda=3, ldb=7, ldc=3)


@pytest.fixture
def device():
    return SimulatedRuntime()


# ---- GEMM


@pytest.mark.parametrize("transpose_a", [False, True])
@pytest.mark.parametrize("transpose_b", [False, True])
@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64", "complex64", "complex128"])
def test_gemm_follows_the_column_major_definition_on_raw_memory(device, rng, dtype, transpose_a, transpose_b):
    m, n, k, batch = 3, 5, 7, 2
    rows_a, rows_b = (k if transpose_a else m), (n if transpose_b else k)
    lda, ldb, ldc = rows_a + 4, rows_b + 1, m + 2
    call = GemmArguments(transpose_a, transpose_b, m, n, k, lda, ldb, ldc, batch, 53, 0, 31, accumulate=True)
    flat = [rng.integers(-3, 4, 113).astype(np.float64) for _ in "abc"]

    expected = flat[2].copy()
    for i, row, col in np.ndindex(batch, m, n):
        for d in range(k):
            a = flat[0][i * 53 + (row * lda + d if transpose_a else d * lda + row)]
            b = flat[1][d * ldb + col if transpose_b else col * ldb + d]
            expected[i * 31 + col * ldc + row] += a * b

    kind = np.dtype(ml_dtypes.bfloat16 if dtype == "bfloat16" else dtype)
    a, b, c = (device.to_device(x.astype(kind)) for x in flat)
    device.gemm(call, dtype, device.pointer(a), device.pointer(b), device.pointer(c), None)
    np.testing.assert_array_equal(c, expected.astype(kind))
    assert device.calls == [("gemm", call)]


@pytest.mark.parametrize("conjugate_a", [False, True])
@pytest.mark.parametrize("conjugate_b", [False, True])
@pytest.mark.parametrize("dtype", ["complex64", "complex128"])
def test_gemm_conjugates_what_it_transposes(device, rng, dtype, conjugate_a, conjugate_b):
    m, n, k = 3, 5, 7
    a, b = ((rng.integers(-3, 4, 35) + 1j * rng.integers(-3, 4, 35)).astype(dtype) for _ in "ab")
    left, right = a[:21].reshape(m, k), b.reshape(k, n)  # row-major, so that cuBLAS transposes both
    expected = (left.conj() if conjugate_a else left) @ (right.conj() if conjugate_b else right)
    call = GemmArguments(True, True, m, n, k, k, n, m, conjugate_a=conjugate_a, conjugate_b=conjugate_b)
    on_device, c = [device.to_device(x) for x in (a, b)], device.empty((n, m), dtype)
    device.gemm(call, dtype, *map(device.pointer, on_device), device.pointer(c), None)
    np.testing.assert_array_equal(c.T, expected)


def test_gemm_rounds_halves_once(device):
    ones = device.to_device(np.ones(4099, np.float16))
    c = device.empty((1,), np.float16)
    call = GemmArguments(False, False, 1, 1, 4099, 1, 4099, 1)
    device.gemm(call, "float16", device.pointer(ones), device.pointer(ones), device.pointer(c), None)
    assert c[0] == np.float16(4099)


def test_gemm_does_not_read_what_it_overwrites(device):
    zeros = device.to_device(np.zeros(35, np.float32))
    c = device.empty((15,), np.float32)
    device.gemm(PLAIN, "float32", device.pointer(zeros), device.pointer(zeros), device.pointer(c), None)
    assert not c.any()


def test_lower_precisions_drop_bits_and_true_float32_keeps_them(device):
    a, b = (device.to_device(np.array([x], np.float32)) for x in (1 + 2.0**-9 + 2.0**-20, 1.0))
    c = device.empty((1,), np.float32)
    for precision, expected in (None, a[0]), ("emulated", a[0]), ("tf32", 1 + 2.0**-9), ("bf16", 1.0):
        call = GemmArguments(False, False, 1, 1, 1, 1, 1, 1)
        device.gemm(call, "float32", *map(device.pointer, (a, b, c)), precision)
        assert c[0] == expected


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"lda": 2}, "lda = 2 is less than the 3 rows of A"),
        ({"transpose_b": True, "ldb": 4}, "ldb = 4 is less than the 5 rows of B"),
        ({"ldc": 2}, "ldc = 2 is less than the 3 rows of C"),
        ({"conjugate_a": True}, "cuBLAS has no op that conjugates A without transposing it"),
        ({"conjugate_b": True}, "cuBLAS has no op that conjugates B without transposing it"),
        ({"m": -1}, "m = -1 is no size"),
        ({"n": 2**31}, "n = 2147483648 is no size"),
        ({"lda": 4}, r"A touches elements 0\.\.26, but its memory holds 0\.\.20"),
        ({"batch": 2, "stride_c": 16}, r"C touches elements 0\.\.30, but its memory holds 0\.\.29"),
        ({"batch": 2, "stride_c": 15, "stride_a": -1}, r"A touches elements -1\.\.20"),
    ],
)
def test_gemm_refuses_what_cublas_would(device, change, message):
    a, b, c = (device.empty((size,), np.float32) for size in (21, 35, 30))
    with pytest.raises(AssertionError, match=message):
        device.gemm(replace(PLAIN, **change), "float32", *map(device.pointer, (a, b, c)), None)


def test_gemm_refuses_overlapping_results(device):
    a, b, c = (device.empty((70,), np.float32) for _ in range(3))
    interleaved = replace(PLAIN, batch=2, ldc=6, stride_c=3)
    device.gemm(interleaved, "float32", *map(device.pointer, (a, b, c)), None)
    with pytest.raises(AssertionError, match="the batches of C overlap"):
        device.gemm(replace(interleaved, stride_c=2), "float32", *map(device.pointer, (a, b, c)), None)


def test_gemm_refuses_misaligned_arrays_and_foreign_dtypes(device):
    arrays = [device.empty((80,), np.float32) for _ in "abc"]
    a, b, c = map(device.pointer, arrays)
    with pytest.raises(AssertionError, match="is not aligned to 8 bytes"):
        device.gemm(PLAIN, "complex64", a + 4, b, c, None)
    with pytest.raises(AssertionError, match="cuBLAS has no GEMM for int32"):
        device.gemm(PLAIN, "int32", a, b, c, None)


# ---- GEMM by pointers


def pointed(device, call, dtype, a, b, c, places, precision=None):
    """A call on matrices that begin at these elements of each array."""
    arrays = [
        device.to_device(np.array([device.pointer(array) + int(at) * array.itemsize for at in own], np.uint64))
        for array, own in zip((a, b, c), places, strict=True)
    ]
    device.pointer_gemm(call, dtype, *map(device.pointer, arrays), precision)


@pytest.mark.parametrize("transpose_a", [False, True])
@pytest.mark.parametrize("transpose_b", [False, True])
@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64", "complex64", "complex128"])
def test_gemm_by_pointers_follows_the_definition_on_raw_memory(device, rng, dtype, transpose_a, transpose_b):
    m, n, k = 3, 5, 7  # an odd sum, for which every dtype takes any pointer
    rows_a, rows_b = (k if transpose_a else m), (n if transpose_b else k)
    lda, ldb, ldc = rows_a + 4, rows_b + 1, m + 2
    call = GemmArguments(transpose_a, transpose_b, m, n, k, lda, ldb, ldc, 3, accumulate=True)
    flat = [rng.integers(-3, 4, 160).astype(np.float64) for _ in "abc"]
    places = [5, 0, 41], [2, 2, 13], [90, 31, 0]

    expected = flat[2].copy()
    for i, row, col in np.ndindex(3, m, n):
        for d in range(k):
            a = flat[0][places[0][i] + (row * lda + d if transpose_a else d * lda + row)]
            b = flat[1][places[1][i] + (d * ldb + col if transpose_b else col * ldb + d)]
            expected[places[2][i] + col * ldc + row] += a * b

    kind = np.dtype(ml_dtypes.bfloat16 if dtype == "bfloat16" else dtype)
    a, b, c = (device.to_device(x.astype(kind)) for x in flat)
    pointed(device, call, dtype, a, b, c, places)
    np.testing.assert_array_equal(c, expected.astype(kind))
    assert device.calls == [("pointer gemm", call)]


def test_gemm_by_pointers_refuses_what_cublas_would(device):
    a, b, c = (device.empty((size,), np.float32) for size in (42, 70, 30))
    call = replace(PLAIN, batch=2)
    good = [0, 21], [0, 35], [0, 15]
    pointed(device, call, "float32", a, b, c, good)
    for change, places, message in (
        ({"lda": 2}, good, "lda = 2 is less than the 3 rows of A"),
        ({"m": -1}, good, "m = -1 is no size"),
        ({"stride_a": 21}, good, "pointers have no strides"),
        ({}, ([0, 22], *good[1:]), r"A touches elements 0\.\.20, but its memory holds -22\.\.19"),
        ({}, (*good[:2], [0, 14]), "the batches of C overlap"),
        ({}, (*good[:2], [0, 1 << 20]), "no living array"),
        ({"batch": 3}, good, "3 pointers to A leave their memory"),
    ):
        with pytest.raises(AssertionError, match=message):
            pointed(device, replace(call, **change), "float32", a, b, c, places)


@pytest.mark.parametrize(
    ("dtype", "precision", "k", "needed"),
    [
        *[("float16", None, k, needed) for k, needed in ((7, 2), (6, 4), (8, 16))],
        *[("float32", "tf32", k, needed) for k, needed in ((6, 4), (8, 16))],
        *[("float32", None, 8, 4), ("float64", None, 8, 8)],
    ],
)
def test_fast_modes_want_pointers_to_be_aligned(device, dtype, precision, k, needed):
    call = GemmArguments(False, False, 3, 5, k, 3, k, 3)
    a, b, c = (device.to_device(np.zeros(64, dtype)) for _ in "abc")
    step = max(1, needed // a.itemsize)
    pointed(device, call, dtype, a, b, c, ([step], [step], [step]), precision)
    if step > 1:
        for misaligned in range(3):
            places = [[step // 2 if side == misaligned else 0] for side in range(3)]
            with pytest.raises(AssertionError, match=f"a fast mode wants a pointer to {'ABC'[misaligned]} aligned to"):
                pointed(device, call, dtype, a, b, c, places, precision)


# ---- Memory


def test_unwritten_memory_is_garbage_and_starts_where_cudas_does(device):
    for dtype in (np.float16, np.float32, np.complex128, ml_dtypes.bfloat16):
        array = device.empty((3, 5), dtype)
        assert np.isnan(array.astype(np.complex128)).all()
        assert device.pointer(array) % 256 == 0


def test_operands_keep_their_strides(device, rng):
    for array in (rng.random((5, 7))[::-1, ::2], np.broadcast_to(rng.random(7), (5, 7)), rng.random((3, 5)).T):
        copy = device.to_device(array)
        assert copy.strides == array.strides
        assert not np.may_share_memory(copy, array)
        np.testing.assert_array_equal(copy, array)


@pytest.mark.parametrize("place", [-1, 15])
def test_a_write_outside_of_an_array_is_found(device, place):
    array = device.empty((15,), np.float32)
    ctypes.c_float.from_address(device.pointer(array) + 4 * place).value = 0
    with pytest.raises(
        AssertionError, match="before an allocation of 60" if place < 0 else "after an allocation of 60"
    ):
        device.check_guards()


def test_a_kernel_that_writes_outside_of_its_result_is_found(device):
    x, out = device.to_device(np.ones(15, np.float32)), device.empty((14,), np.float32)
    with pytest.raises(AssertionError, match="bytes after an allocation of 56 bytes were written"):
        launch_sum(device, x, out, nest([15], [[1]], [], [[]]), 15, 1)


def test_freed_memory_is_found(device):
    x, freed = device.to_device(np.ones(15, np.float32)), device.pointer(device.empty((15,), np.float32))
    with pytest.raises(AssertionError, match="no living array"):
        device.launch(SUM, 1, 1, sum_of(nest([15], [[1]], [], [[]]), 15, 1), device.pointer(x), freed)


def launch_sum(device, x, out, loops, outputs, terms, lanes=1, threads=64):
    device.launch(SUM, 1, threads, sum_of(loops, outputs, terms, lanes), device.pointer(x), device.pointer(out))


def sum_of(loops, outputs, terms, lanes=1):
    return job(loops, outputs, terms, lanes, 1, 0, 0, -1)


# ---- Launches


@pytest.mark.parametrize(
    ("blocks", "threads", "change", "message"),
    [
        (0, 64, {}, "0 blocks"),
        (2**31, 64, {}, "2147483648 blocks"),
        (1, 1025, {}, "1025 threads"),
        (1, 64, {0: nest([15], [[1], [1]], [], [[], []])}, "a struct of 2064 bytes where one of 1608 is expected"),
        (1, 64, {0: 7}, "7 is no struct"),
        (1, 64, {2: 1.0}, "1.0 is no int"),
        (1, 64, {2: np.int64(1)}, "is no int"),
        (1, 64, {2: 2**63}, "more than 64 bits"),
        (1, 64, {1: 2}, "not aligned to 4 bytes"),
        (1, 64, {1: 4096}, "no living array"),
    ],
)
def test_a_launch_checks_its_arguments(device, blocks, threads, change, message):
    x = device.to_device(np.ones(15, np.float32))
    arguments = [sum_of(nest([15], [[1]], [], [[]]), 15, 1), device.pointer(x), device.pointer(x)]
    for place, value in change.items():
        arguments[place] = value
    with pytest.raises(AssertionError, match=message):
        device.launch(SUM, blocks, threads, *arguments)
    with pytest.raises(AssertionError, match="takes 3 arguments, not 2"):
        device.launch(SUM, 1, 64, *arguments[1:])


def compiled(text, name, threads=64, last_thread_first=False, shared=""):
    """What a kernel `name(int* out)` leaves in `out`, filled with zeros before."""
    run, _ = host.bind(host.compile_kernels(f"{shared}\nnamespace test {{ {text} }}", {"test": name}), name)
    out = np.zeros(1024, np.int32)
    run(1, threads, (host.address(out),), last_thread_first)
    return out


@pytest.mark.parametrize("last_thread_first", [False, True])
def test_threads_meet_at_barriers(last_thread_first):
    text = """extern "C" __global__ void reverse(int* out) {
      __shared__ int seen[96];
      seen[threadIdx.x] = FIRST + threadIdx.x;
      BARRIER
      out[threadIdx.x] = seen[95 - threadIdx.x];
    }"""
    first = 7 + last_thread_first  # new numbers, for shared memory keeps the old ones from launch to launch
    expected = first + np.arange(96)[::-1]
    for barrier, suffices in ("", False), ("__syncwarp();", False), ("__syncthreads();", True):
        variant = text.replace("FIRST", str(first)).replace("BARRIER", barrier)
        out = compiled(variant, "reverse", 96, last_thread_first)[:96]
        assert np.array_equal(out, expected) == suffices


@pytest.mark.parametrize(
    "body",
    [
        "if (threadIdx.x < 5) __syncthreads();",
        "if (threadIdx.x < 32) __syncwarp(); else __syncthreads();",
        "if (threadIdx.x % 2) {\n __syncthreads();\n } else {\n __syncthreads();\n }",
        "if (threadIdx.x == 3) __syncwarp();",
    ],
)
def test_divergent_barriers_are_errors(body):
    text = f'extern "C" __global__ void diverge(int* out) {{\n {body}\n out[threadIdx.x] = 1; }}'
    with pytest.raises(AssertionError, match="wait at different barriers, or some wait and some have ended"):
        compiled(text, "diverge")


@pytest.mark.parametrize("lanes", [8, 128])
@pytest.mark.parametrize("last_thread_first", [False, True])
def test_the_order_of_threads_does_not_matter(rng, lanes, last_thread_first):
    device = SimulatedRuntime(last_thread_first=last_thread_first)
    x, out = device.to_device(rng.random((31, 1009), np.float32)), device.empty((31,), np.float32)
    launch_sum(device, x, out, nest([31], [[1009]], [1009], [[1]]), 31, 1009, lanes, threads=256)
    np.testing.assert_allclose(out, x.sum(1), rtol=1e-5)


@pytest.mark.parametrize("barrier", ["synchronise(2 * half);", "synchronise(width);"])
def test_a_sum_without_one_of_its_barriers_goes_wrong(rng, barrier):
    text = kernel_text(SUM)
    assert text.count(barrier) == 1
    library = host.compile_kernels(text.replace(barrier, ""), {f"specialised_{SUM.entry}": SUM.entry})
    run, _ = host.bind(library, SUM.entry)
    x, wrong = rng.random((31, 1009), np.float32), []
    for last_thread_first in (False, True):
        out = np.empty(31, np.float32)
        loops = nest([31], [[1009]], [1009], [[1]])
        run(1, 256, (sum_of(loops, 31, 1009, 128), host.address(x), host.address(out)), last_thread_first)
        wrong.append(not np.allclose(out, x.sum(1), rtol=1e-5))
    assert any(wrong)


def test_division_is_right_on_both_sides_of_32_bits():
    pairs = [(2**32 - 1, 2**32 - 1), (2**32, 3), (2**32 - 1, 7), (2**62 + 5, 2**33 + 1), (6, 2**40), (0, 1)]
    body = "".join(f"out[{i}] = quotient({a}LL, {b}LL) == {a}LL / {b}LL;" for i, (a, b) in enumerate(pairs))
    text = f'extern "C" __global__ void divide(int* out) {{ {body} }}'
    shared = kernel_text(SUM).partition("namespace specialised_")[0]
    assert compiled(text, "divide", threads=1, shared=shared)[: len(pairs)].all()


@pytest.mark.parametrize(("shift", "status"), [(0, 0), (4, -signal.SIGILL)])
def test_a_load_that_is_not_aligned_stops_the_process(shift, status):
    code = f"""
import numpy as np
from simulated import host
text = '''struct alignas(16) Four {{ int of[4]; }};
extern "C" __global__ void load(const int* src, int* out) {{
  const Four four = *reinterpret_cast<const Four*>(src);
  out[0] = four.of[3];
}}'''
run, _ = host.bind(host.compile_kernels(f"namespace test {{{{ {{text}} }}}}", {{"test": "load"}}), "load")
memory, out = np.zeros(32, np.int32), np.zeros(1, np.int32)
run(1, 1, (host.address(memory) + -host.address(memory) % 16 + {shift}, host.address(out)))
"""
    path = os.pathsep.join(map(str, (Path(__file__).parents[2], Path(ge.__file__).parents[1])))
    assert subprocess.run([sys.executable, "-c", code], env=os.environ | {"PYTHONPATH": path}).returncode == status


# ---- Streams


def test_queued_work_runs_when_it_is_waited_for_and_then_no_more_than_that():
    done, null, first, second = [], Stream(0), Stream(1, is_late=True), Stream(2, is_late=True)
    event = Event()
    first.do(lambda: done.append("first"))
    event.record(first)
    first.do(lambda: done.append("behind the event"))
    second.wait_event(event)
    second.do(lambda: done.append("second"))
    assert not done
    assert first.can_step
    assert not second.can_step
    event.record(second)
    null.wait_event(event)
    assert done == ["first", "second"]
    first.synchronize()
    assert done == ["first", "second", "behind the event"]


def test_who_waits_for_an_event_waits_for_what_was_recorded_then():
    done, null, first, event = [], Stream(0), Stream(1, is_late=True), Event()
    null.wait_event(event)  # which was never recorded
    second = Stream(2, is_late=True)
    event.record(first)
    second.wait_event(event)
    first.do(lambda: done.append("first"))
    event.record(first)
    second.do(lambda: done.append("second"))
    second.synchronize()
    assert done == ["second"]


def test_a_graph_runs_what_was_captured_at_each_launch_and_nothing_else():
    stream, done = Stream(1, is_late=True), []
    stream.capture = capture = Capture(stream)
    stream.do(lambda: done.append("first"))
    stream.do(lambda: done.append("second"))
    launch = capture.end()
    stream.synchronize()
    assert not done
    launch()
    launch()
    assert done == ["first", "second"] * 2
    stream.do(lambda: done.append("not captured"))
    stream.synchronize()
    assert done[-1] == "not captured"


def test_a_capture_waits_for_nothing_from_outside():
    outside, event, stream = Stream(3, is_late=True), Event(), Stream(1, is_late=True)
    event.record(outside)
    stream.capture = Capture(stream)
    with pytest.raises(AssertionError, match="StreamCaptureIsolation"):
        stream.wait_event(event)


# ---- The stand-in for CuPy


@pytest.fixture
def cupy(monkeypatch):
    with stand_in(monkeypatch) as fake:
        yield fake


def test_the_stand_in_has_no_names_that_cupy_lacks(cupy):
    assert hasattr(cupy, "tensordot")
    assert not hasattr(cupy, "matvec")  # numpy's
    assert not hasattr(cupy.linalg, "multi_dot")
    assert not hasattr(cupy.ones(3), "setflags")


@pytest.mark.parametrize(
    "mixed",
    [
        lambda here, there: np.asarray(there),
        lambda here, there: np.testing.assert_allclose(there, here),
        lambda here, there: there + here,
        lambda here, there: here + there,
        lambda here, there: np.add(here, there),
        lambda here, there: np.allclose(here, there),
    ],
)
def test_an_array_there_becomes_none_here_by_itself(cupy, mixed):
    here = np.ones(3)
    with pytest.raises(TypeError, match=r"Implicit conversion to a NumPy array|Unsupported type <class 'numpy"):
        mixed(here, cupy.asarray(here))


def test_an_array_here_is_not_written_there_by_itself(cupy):
    with pytest.raises(ValueError, match=r"non-scalar numpy\.ndarray cannot be used for fill"):
        cupy.ones(3)[...] = np.zeros(3)


def test_an_array_there_is_dense_whatever_it_was_here(cupy):
    cube = np.arange(30.0).reshape(2, 3, 5)
    known = (cube, (120, 40, 8)), (cube.T, (8, 40, 120)), (cube[:, ::2], (80, 40, 8)), (cube.mT, (120, 24, 8))
    for x, strides in known:
        there = cupy.asarray(x)
        assert there.strides == strides
        np.testing.assert_array_equal(there.get(), x)


def test_results_there_stay_there_scalars_and_elements_too(cupy):
    x = cupy.asarray(np.arange(6.0).reshape(2, 3))
    for result in (x.sum(), x[1, 2], np.sqrt(x), cupy.einsum("ij->i", x), x > 2):
        assert isinstance(result, cupy.ndarray)
    x[0, 1:][...] = 7  # a view
    np.testing.assert_array_equal(x.T.get(), [[0, 3], [7, 4], [7, 5]])
    assert float(cupy.matmul(x, x.T, out=(out := cupy.empty((2, 2))))[0, 0]) == float(out[0, 0]) == 98


def test_arrays_of_no_bytes_begin_at_0(cupy):
    x = cupy.ones((3, 0))
    assert x.data.ptr == 0
    np.testing.assert_array_equal(ge.einsum("ij->i", x).get(), np.zeros(3))


def test_what_is_read_there_is_late_on_another_stream(cupy):
    x, stream = cupy.ones((3, 3)), cupy.cuda.Stream(non_blocking=True)
    with stream:
        result = ge.einsum("ij,jk->ik", x, x)
    assert np.isnan(result.get()).all()  # of the null stream, which waits for no other
    stream.synchronize()
    np.testing.assert_array_equal(result.get(), np.full((3, 3), 3))


def test_the_device_waits_for_streams_that_nobody_knows_any_more(cupy):
    with cupy.cuda.Stream(non_blocking=True):
        result = ge.einsum("ij,jk->ik", cupy.ones((3, 3)), cupy.ones((3, 3)))
    cupy.cuda.Device().synchronize()
    assert float(result[0, 0]) == 3


def test_the_pool_counts_what_is_in_use_and_tells_its_hooks(cupy):
    pool, told = cupy.get_default_memory_pool(), []

    class Hook(cupy.cuda.MemoryHook):
        def malloc_postprocess(self, size, mem_size, **_):
            told.append((size, mem_size, pool.used_bytes()))

    with Hook():
        x = cupy.empty((100,))
        view = x[::2]
    assert told == [(800, 1024, 1024)]
    del x
    assert pool.used_bytes() == 1024
    del view
    assert pool.used_bytes() == 0


def test_a_process_and_those_that_it_starts_find_the_stand_in_on_their_path():
    code = (
        "import subprocess, sys, gpueinsum as ge; xp = ge.array_module()\n"
        "x = xp.ones((2, 3)); print(xp.__version__, type(x).__module__, float(ge.einsum('ij,ij->', x, x)))\n"
        "if len(sys.argv) == 1: subprocess.run([sys.executable, __file__, 'again'], check=True)"
    )
    site = Path(__file__).parents[2] / "simulated" / "site"
    path = os.pathsep.join([str(site), *sys.path])
    with tempfile.NamedTemporaryFile("w", suffix=".py") as script:
        script.write(code)
        script.flush()
        done = subprocess.run(
            [sys.executable, script.name], env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True
        )
    assert done.stdout.split("\n") == [f"{VERSION} cupy 6.0"] * 2 + [""], done.stderr
