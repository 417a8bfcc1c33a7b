"""Operands that stay on the host: the same results, no more memory than foreseen, copies that wait as they must."""

import gc
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
from call_checks import assert_passes
from conftest import REAL
from gradient_checkers import check_jvp, check_vjp, use
from oracle import assert_agrees, reference
from random_expressions import random_case
from random_gradients import operands_of, random_call
from simulated import GUARD, SimulatedRuntime, streams
from simulated.cupy import FakeArray, stand_in
from sliced_plans import in_slices

import gpueinsum as ge
from gpueinsum.backends.base import Mode
from gpueinsum.backends.cuda import backend as cuda_backend
from gpueinsum.backends.cuda import streaming
from gpueinsum.backends.cuda.backend import CudaBackend
from gpueinsum.backends.cuda.streams import CopyStream
from gpueinsum.backends.footprint import run_bytes
from gpueinsum.backends.select import HOST
from gpueinsum.backends.slices import BoundSlices
from gpueinsum.costs.profile import profile
from gpueinsum.errors import DeviceError
from gpueinsum.language.plan import HALVES
from gpueinsum.language.slices import cut

H200 = profile("h200")
CHAIN = ge.einsum_plan("ij,jk,kl->il", (5, 40), (40, 30), (30, 7), optimize=[(0, 1), (0, 1)])
IN_SLICES = replace(CHAIN, sliced=(("j", 1), ("i", 2)))
CUTS = ["j", "k", "i", "l", "ij", "kj", "li", "lkji"]


def arrays_for(plan, dtype=np.float64):
    rng = np.random.default_rng(0)
    return [rng.integers(-9, 9, plan.shape(number)).astype(dtype) for number in range(len(plan.inputs))]


def stream_all(plan, profile, operands, on_host, room):
    """In the place of `choose_streamed`."""
    return {*on_host} & {*cut(plan).late}


@pytest.fixture
def cupy(monkeypatch):
    with stand_in(monkeypatch) as fake:
        yield fake


# ---------------------------------------------------------------- results


@pytest.fixture(params=["simulated", REAL])
def uploads(request, monkeypatch):
    """How many parts were loaded; all operands that can stay on the host do."""
    use(request.param, monkeypatch)
    monkeypatch.setattr(cuda_backend, "choose_streamed", stream_all)
    counted, load = [], streaming._Buffers.load
    monkeypatch.setattr(streaming._Buffers, "load", lambda buffers, view: counted.append(1) or load(buffers, view))
    return counted


def test_random_expressions_agree_with_the_oracle(uploads):
    def check(case):
        if case.valid and case.kwargs.keys() <= {"dtype", "optimize"} and not case.cpu_only:
            plan = in_slices(ge.einsum_plan(*case.args, **case.kwargs))
            result = ge.run_plan(plan, *operands_of(case.args), backend="cuda")
            assert_agrees(result, reference(*case.args, **case.kwargs))

    assert_passes(check, range(600), random_case)
    assert len(uploads) > 500


def test_random_gradients_are_those_by_definition(uploads):
    def vjp(*args, dtype=None, casting=None, optimize="auto", **options):
        plan = in_slices(ge.einsum_plan(*args, dtype=dtype, optimize=optimize))
        return ge.vjp(plan, *operands_of(args), backend="cuda", **options)

    def jvp(subscripts, operands, tangents, *, dtype=None, casting=None, optimize="auto", **options):
        is_text = isinstance(subscripts, str)
        pairs = [each for pair in zip(operands, subscripts, strict=False) for each in pair]
        args = (subscripts, *operands) if is_text else (*pairs, *subscripts[len(operands) :])
        plan = in_slices(ge.einsum_plan(*args, dtype=dtype, optimize=optimize))
        return ge.jvp(plan, operands, tangents, backend="cuda", **options)

    def check(call):
        if call.memory_limit is None and not call.cpu_only:
            check_vjp(vjp, call)
            check_jvp(jvp, call)

    assert_passes(check, range(60), random_call)
    assert len(uploads) > 500


def test_a_pullback_keeps_operands_where_they_are(uploads):
    operands = arrays_for(CHAIN, np.float32)
    value, pullback = ge.vjp(IN_SLICES, *operands, backend="cuda")
    assert [kept is operand for kept, operand in zip(pullback._kept[:2], operands, strict=False)] == [True, True]
    _, expected = ge.vjp(CHAIN, *operands)
    for gradient, other in zip(pullback(value), expected(value), strict=True):
        np.testing.assert_array_equal(gradient, other)


def test_an_output_that_is_an_operand_is_the_callers_own_of_the_plans_dtype(uploads):
    plan = replace(IN_SLICES, outputs=(*IN_SLICES.outputs, 0))
    operands = arrays_for(CHAIN, np.float32)
    _, first = ge.run_plan(plan, *operands, backend="cuda")
    assert first.dtype == plan.dtype
    np.testing.assert_array_equal(first, operands[0])


def test_what_is_the_same_in_the_next_slice_is_copied_once():
    runtime = SimulatedRuntime()
    [result] = CudaBackend(runtime).bind(IN_SLICES, Mode(memory=0))(*(arrays := arrays_for(CHAIN)))
    np.testing.assert_array_equal(result, np.linalg.multi_dot(arrays))
    copied = [nbytes for name, nbytes, *_ in runtime.calls if name == "upload"]
    assert sorted(copied) == sorted([30 * 8] * 40 + [2 * 8, 2 * 8, 1 * 8] * 40)  # rows of the second operand once


def test_parts_lie_as_the_operand_does():
    views = np.zeros((3, 4, 5)), np.zeros((3, 4, 5), order="F"), np.zeros((4, 9, 3)).transpose(2, 0, 1)[:, :, ::2]
    for view in views:
        memory = np.empty(view.size * 4, np.uint8)
        packed = streaming._pack(view, np.dtype("f4"), memory)
        assert packed.strides == np.empty_like(view, np.float32).strides


# ---------------------------------------------------------------- memory


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("labels", CUTS[:-1])  # the last takes 42,000 slices
def test_a_device_takes_what_was_foreseen(labels, dtype, monkeypatch):
    monkeypatch.setattr(cuda_backend, "choose_streamed", stream_all)
    for plan in (CHAIN, CHAIN.vjp()):
        sliced = replace(plan, sliced=tuple((label, 1) for label in labels))
        runtime, operands = SimulatedRuntime(H200.processors), arrays_for(plan, dtype)
        run = CudaBackend(runtime).bind(sliced)
        run(*operands)
        late = cut(sliced).late
        dtypes = [np.dtype(dtype if number in late else np.float64) for number in range(len(operands))]
        assert runtime.peak == run_bytes(sliced, H200, dtypes, frozenset(late))
        gc.collect()
        assert runtime.used == 0


def test_products_of_packed_parts_copy_none():
    plan = replace(ge.einsum_plan("jki,kl->jli", (48, 48, 8), (48, 48)), sliced=(("i", 1),))
    operands, runtime = arrays_for(plan), SimulatedRuntime(H200.processors)
    dtypes = [x.dtype for x in operands]
    CudaBackend(runtime).bind(plan, Mode(memory=0))(*operands)
    part = 48 * 48 * 8
    assert runtime.peak == run_bytes(plan, H200, dtypes, frozenset({0}))
    assert runtime.peak == run_bytes(plan, H200, dtypes) + 2 * part - part  # of a part where the operand is


def test_of_random_expressions_a_device_takes_what_was_foreseen(monkeypatch):
    monkeypatch.setattr(cuda_backend, "choose_streamed", stream_all)
    runtime, foreseen = SimulatedRuntime(H200.processors), []
    backend = CudaBackend(runtime)

    def check(case):
        if case.valid and case.kwargs.keys() <= {"dtype", "optimize"} and not case.cpu_only:
            plan = in_slices(ge.einsum_plan(*case.args, **case.kwargs))
            if cut(plan).count and plan.sliced and plan.dtype not in HALVES:
                operands = arrays_for(plan, plan.dtype)
                runtime.peak = runtime.used
                backend.bind(plan)(*operands)
                gc.collect()
                expected = run_bytes(plan, H200, [x.dtype for x in operands], frozenset(cut(plan).late))
                assert runtime.peak == expected
                foreseen.append(expected)

    assert_passes(check, range(900), random_case)
    assert len(foreseen) > 80


def test_a_device_that_is_smaller_than_the_operands_suffices():
    runtime, operands = SimulatedRuntime(H200.processors), arrays_for(CHAIN)
    early = operands[2].nbytes + GUARD  # has neither label; the simulated device begins at the host's address % GUARD
    runtime.size = run_bytes(IN_SLICES, H200, [x.dtype for x in operands], frozenset({0, 1})) + early
    assert runtime.size < operands[1].nbytes
    [result] = CudaBackend(runtime).bind(IN_SLICES, Mode(memory=runtime.size))(*operands)
    np.testing.assert_array_equal(result, np.linalg.multi_dot(operands))
    del result
    gc.collect()
    with pytest.raises(MemoryError):
        CudaBackend(runtime).bind(IN_SLICES, Mode(memory=1 << 30))(*operands)


def test_the_largest_operands_stay_until_there_is_room_for_the_others():
    operands = arrays_for(CHAIN)
    moved = sum(operand.nbytes for operand in operands) + IN_SLICES.peak_bytes(H200)
    buffers = 2 * 30 * 8  # of the second operand, which saves most
    choose = partial(streaming.choose_streamed, IN_SLICES, H200, operands, [0, 1, 2])
    assert choose(moved) == set()
    assert choose(moved - 1) == {1}
    assert choose(moved - operands[1].nbytes + buffers) == {1}
    assert choose(moved - operands[1].nbytes + buffers - 1) == {0, 1}
    assert streaming.choose_streamed(IN_SLICES, H200, operands, [0, 2], 0) == {0}  # the second is on the device already
    in_one = replace(CHAIN, sliced=(("j", 40),))
    assert streaming.choose_streamed(in_one, H200, operands, [0, 1, 2], 0) == set()  # buffers would take more


def test_free_memory_decides_where_no_limit_is_given(cupy, monkeypatch):
    operands, calls = arrays_for(CHAIN), FakeArray.simulated.calls
    ge.run_plan(IN_SLICES, *operands, backend="cuda")
    assert not [name for name, *_ in calls if name == "upload"]
    monkeypatch.setattr(cupy.cuda.runtime, "memGetInfo", lambda: (0, 5 << 30))
    np.testing.assert_array_equal(ge.run_plan(IN_SLICES, *operands, backend="cuda"), np.linalg.multi_dot(operands))
    assert [name for name, *_ in calls if name == "upload"]


# ---------------------------------------------------------------- streams


def run_on(stream, operands, plan=IN_SLICES):
    """The result, with nothing that waits for the stream before it is read."""
    backend = ge.backends.select.cuda_backend()
    run = BoundSlices(plan, backend, Mode(memory=0))

    def add(part, out):
        stream.do(partial(np.add, out.host, part.host, out.host))

    with pytest.MonkeyPatch.context() as patch, stream:
        patch.setattr(backend.runtime, "add", add)  # the stand-in's own waits
        placed = run.place(operands)
        made, kept = run.zeros(), run.once(placed)
        run.add(range(run.slices.count), placed, kept, made)
        gc.collect()
        stream.synchronize()
        return made[0].get()


def test_a_slice_is_copied_while_the_one_before_is_computed(cupy):
    operands, calls = arrays_for(CHAIN), FakeArray.simulated.calls
    run_on(cupy.cuda.Stream(non_blocking=True), operands, replace(CHAIN, sliced=(("j", 1),)))
    names = [name for name, *_ in calls]
    _zeros, first_slice, *_ = [number for number, name in enumerate(names) if name != "upload"]
    assert names[:first_slice].count("upload") >= 6  # of three slices, two operands each


def upload(copies, out, source, after, waits_for_readers=True, is_waited_for=True):
    """`CopyStream.upload`, which may leave out a wait."""
    if waits_for_readers:
        copies._copying.wait_event(after)
    copies._cuda.runtime.memcpyAsync(out, source.ctypes.data, source.nbytes, 1, copies._copying.ptr)
    copied = copies._copying.record(copies._cuda.Event())
    if is_waited_for:
        copies._computing.wait_event(copied)
    return copied


def is_right(cupy):
    """Whether results are, on a stream whose work is done at once, and on one where it is as late as it can be."""
    operands, late = arrays_for(CHAIN), cupy.cuda.Stream(non_blocking=True)
    try:
        return all(
            np.array_equal(run_on(x, operands), np.linalg.multi_dot(operands)) for x in (late, cupy.cuda.Stream.null)
        )
    except AssertionError as error:
        if "what was to be copied is gone" not in str(error):
            raise
        return False


@pytest.mark.parametrize("left_out", ["waits_for_readers", "is_waited_for", None])
def test_copies_wait_for_who_reads_and_readers_for_copies(cupy, monkeypatch, left_out):
    options = {left_out: False} if left_out else {}
    monkeypatch.setattr(CopyStream, "upload", lambda *given: upload(*given, **options))
    assert is_right(cupy) == (left_out is None)


def test_the_host_waits_before_it_writes_to_memory_again(cupy, monkeypatch):
    monkeypatch.setattr(cupy.cuda.Event, "synchronize", lambda event: None)
    assert not is_right(cupy)


def test_the_host_waits_for_copies_before_their_memory_goes(cupy, monkeypatch):
    monkeypatch.setattr(CopyStream, "synchronize", lambda copies: None)
    assert not is_right(cupy)


def test_an_error_in_the_middle_leaves_no_copy_under_way(cupy, monkeypatch):
    backend, operands = ge.backends.select.cuda_backend(), arrays_for(CHAIN)
    calls, add = [], CudaBackend.add

    def fail(*given):
        calls.append(len(streams._UNFINISHED))
        if len(calls) == 3:
            raise ArithmeticError
        add(*given)

    monkeypatch.setattr(CudaBackend, "add", fail)
    run = backend.bind(IN_SLICES, Mode(memory=0))
    with cupy.cuda.Stream(non_blocking=True) as stream:
        with pytest.raises(ArithmeticError):
            run(*operands)
        stream.synchronize()
    assert (calls[-1], streams._UNFINISHED) == (2, set())  # there were two streams with work
    gc.collect()
    [result] = run(*operands)
    np.testing.assert_array_equal(result.get(), np.linalg.multi_dot(operands))


def test_without_pinned_memory_copies_are_plain_ones(cupy, monkeypatch):
    def refuse(size):
        raise cupy.cuda.runtime.CUDARuntimeError("cudaErrorMemoryAllocation: out of memory")

    monkeypatch.setattr(cupy.cuda, "alloc_pinned_memory", refuse)
    assert is_right(cupy)
    names = {name for name, *_ in FakeArray.simulated.calls}
    assert "pageable upload" in names
    assert "upload" not in names


def test_a_stream_that_is_captured_is_refused(cupy):
    run = BoundSlices(IN_SLICES, ge.backends.select.cuda_backend(), Mode(memory=0))
    operands = run.place(arrays_for(CHAIN))
    made, kept = run.zeros(), run.once(operands)
    with cupy.cuda.Stream(non_blocking=True) as stream:
        stream.begin_capture()
        with pytest.raises(DeviceError, match=r"this stream is being captured, and operands on the host"):
            run.add([0], operands, kept, made)
        stream.end_capture()


# ---------------------------------------------------------------- on the CPU


def test_casts_on_the_cpu_are_of_parts(rng):
    """Of operands in a file no more is read at a time than a slice needs."""
    plan = replace(ge.einsum_plan("ij,ij->j", (600, 500), (600, 500)), sliced=(("i", 10),))
    x, y = rng.integers(-9, 9, (2, 600, 500)).astype(np.float32)
    casts = []

    class Watched(np.ndarray):
        def astype(self, *args, **options):
            casts.append(self.shape)
            return np.asarray(self).astype(*args, **options)

    run = BoundSlices(plan, HOST)
    [total] = made = run.zeros()
    run.add(range(60), [x.view(Watched), y], (), made)
    np.testing.assert_array_equal(total, np.einsum("ij,ij->j", x, y, dtype=np.float64))
    assert casts == [(10, 500)] * 60
