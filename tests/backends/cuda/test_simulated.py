"""The simulated device: its memory, launches and streams, and each of its checks broken once."""

import ctypes
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from simulated import SimulatedRuntime, host
from simulated.streams import Capture, Event, Stream

import gpueinsum as ge
from gpueinsum.backends.cuda.source import SUMS, Kernel, kernel_text, nest
from gpueinsum.backends.cuda.sums import Shared, sum_job
from gpueinsum.language.strides import Axis

SUM = Kernel("reduce", "float32", "float32")


@pytest.fixture
def device():
    return SimulatedRuntime()


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
        launch_sum(device, x, out, [Axis(15, (1,))], [])


def test_freed_memory_is_found(device):
    x, freed = device.to_device(np.ones(15, np.float32)), device.pointer(device.empty((15,), np.float32))
    with pytest.raises(AssertionError, match="no living array"):
        device.launch(SUM, 1, 1, sum_of([Axis(15, (1,))], []), device.pointer(x), freed)


def launch_sum(device, x, out, kept, summed, lanes=1, threads=64):
    device.launch(SUM, 1, threads, sum_of(kept, summed, lanes), device.pointer(x), device.pointer(out))


def sum_of(kept, summed, lanes=1, beside=1):
    return sum_job(Shared("", kept, summed, lanes, beside, 1, (0, -1)), 0, 1)


# ---- Launches


@pytest.mark.parametrize(
    ("blocks", "threads", "change", "message"),
    [
        (0, 64, {}, "0 blocks"),
        (2**31, 64, {}, "2147483648 blocks"),
        (1, 1025, {}, "1025 threads"),
        (1, 64, {0: nest([15], [[1], [1]], [], [[], []])}, "a struct of 2064 bytes where one of 1656 is expected"),
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
    arguments = [sum_of([Axis(15, (1,))], []), device.pointer(x), device.pointer(x)]
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
    launch_sum(device, x, out, [Axis(31, (1009,))], [Axis(1009, (1,))], lanes, threads=256)
    np.testing.assert_allclose(out, x.sum(1), rtol=1e-5)


@pytest.mark.parametrize("name", SUMS)
@pytest.mark.parametrize("barrier", [0, 1])
def test_a_sum_without_one_of_its_barriers_goes_wrong(rng, name, barrier):
    kernel = replace(SUM, name=name)
    first, *others = kernel_text(kernel).split("__syncthreads();")
    text = first + "".join(("" if place == barrier else "__syncthreads();") + part for place, part in enumerate(others))
    run, _ = host.bind(host.compile_kernels(text, {f"specialised_{kernel.entry}": kernel.entry}), kernel.entry)
    rows, terms = (1031, 37) if name == "reduce_rows" else (31, 1009)
    x, wrong = rng.random((rows, terms), np.float32), []
    sharing = {"reduce": (128,), "reduce_rows": (), "reduce_columns": (50, 5)}[name]
    numbers = sum_of([Axis(rows, (terms,))], [Axis(terms, (1,))], *sharing)
    for last_thread_first in (False, True):
        out = np.empty(rows, np.float32)
        run(1, 256, (numbers, host.address(x), host.address(out)), last_thread_first)
        wrong.append(not np.allclose(out, x.sum(1), rtol=1e-5))
    assert any(wrong)
    assert len(others) == 2


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
