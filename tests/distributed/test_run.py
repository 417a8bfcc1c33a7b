"""Slices in batches, by threads and processes: the same bits on any number of workers, and what is refused."""

import multiprocessing
import os
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import replace

import ml_dtypes
import numpy as np
import pytest
from batches import BATCHES, CHAIN, PLAN, SLICED, assert_same_bits, in_batches, operands_of_plan
from call_checks import assert_passes
from oracle import assert_agrees, reference
from random_expressions import random_case
from random_gradients import operands_of
from sliced_plans import in_slices

import gpueinsum as ge
from gpueinsum.costs.profile import profile
from gpueinsum.distributed import engines, run, worker
from gpueinsum.distributed.operands import digest, mapped_file
from gpueinsum.language.slices import cut


@pytest.fixture(autouse=True)
def _batches(monkeypatch):
    in_batches(monkeypatch)


@pytest.fixture(scope="module")
def processes():
    with ProcessPoolExecutor(2, multiprocessing.get_context("spawn")) as pool:
        yield pool


class Counting(Executor):
    """The calls of another executor's, and what was sent with them."""

    def __init__(self, executor):
        self.executor, self._max_workers, self.sent = executor, executor._max_workers, []

    def submit(self, function, *arguments):
        self.sent.append(arguments[-1])
        return self.executor.submit(function, *arguments)


def test_any_number_of_workers_gives_the_same_bits(tmp_path, processes):
    operands = operands_of_plan()
    found = [ge.run_plan(PLAN, *operands, checkpoint=tmp_path), ge.run_plan(PLAN, *operands, executor=processes)]
    for workers in (1, 2, 5):
        with ThreadPoolExecutor(workers) as pool:
            found.append(ge.run_plan(PLAN, *operands, executor=pool))
    for each in found[1:]:
        assert_same_bits(each, found[0])
    for one, other in zip(found[0], ge.run_plan(PLAN, *operands), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-12)


@pytest.mark.parametrize("batches", [1, 5])
def test_random_expressions_agree_with_the_oracle(batches, monkeypatch, processes):
    in_batches(monkeypatch, batches)

    def check(case):
        if not case.valid or not case.kwargs.keys() <= {"dtype", "optimize"}:
            return
        operands, plan = operands_of(case.args), in_slices(ge.einsum_plan(*case.args, **case.kwargs))
        if plan.dtype != "object":
            result = ge.run_plan(plan, *operands, executor=engines.Here())
            assert_agrees(result, reference(*case.args, **case.kwargs))
            if cut(plan).count > 4:
                assert_same_bits([ge.run_plan(plan, *operands, executor=processes)], [result])

    assert_passes(check, range(300), random_case)


def test_gradients_in_batches_are_those_in_slices(processes):
    plan = replace(CHAIN, sliced=SLICED).vjp()
    arrays = [np.random.default_rng(k).integers(-4, 5, plan.shape(k)).astype(float) for k in range(len(plan.inputs))]
    assert_same_bits(ge.run_plan(plan, *arrays, executor=processes), ge.run_plan(plan, *arrays))


@pytest.mark.parametrize("dtype", ["float16", ml_dtypes.bfloat16, "complex64", "int8", bool, "longdouble"])
def test_results_have_the_dtype_of_the_plan(dtype):
    plan = replace(PLAN, dtype=np.dtype(dtype).name)
    operands = [(3 * x).astype(dtype) for x in operands_of_plan()]
    found, wanted = ge.run_plan(plan, *operands, executor=engines.Here()), ge.run_plan(plan, *operands)
    for one, other in zip(found, wanted, strict=True):
        assert one.dtype == other.dtype == dtype
        assert one.flags.writeable
        np.testing.assert_allclose(one.astype(complex), other.astype(complex), rtol=2e-2)


def test_a_plan_without_slices_is_one_batch_and_outputs_are_memory_of_their_own():
    plan = replace(PLAN, sliced=(), outputs=(*PLAN.outputs, 0, 3))
    operands = operands_of_plan()
    product, inner, first, again = ge.run_plan(plan, *operands, executor=engines.Here())
    assert_same_bits([product, inner, first, again], ge.run_plan(plan, *operands))
    assert not np.shares_memory(first, operands[0])
    assert not np.shares_memory(inner, again)


def test_the_cpu_stands_in_where_there_are_no_devices(monkeypatch):
    def missing():
        raise ge.DeviceError("none")

    monkeypatch.setattr(engines, "cuda_backend", missing)
    operands = operands_of_plan()
    assert_same_bits(ge.run_plan(PLAN, *operands, devices="all"), ge.run_plan(PLAN, *operands, executor=engines.Here()))
    with pytest.raises(ge.DeviceError, match="none"):
        ge.run_plan(PLAN, *operands, devices=[0])


# ---------------------------------------------------------------- operands


def test_operands_go_once_to_each_process():
    with ProcessPoolExecutor(2, multiprocessing.get_context("spawn")) as pool:
        counting = Counting(pool)
        ge.run_plan(PLAN, *operands_of_plan(), executor=counting)
        first = len([sent for sent in counting.sent if sent])
        assert 2 <= first <= 4  # two with the first batches, and one for a process that came too late for these
        assert len(counting.sent) >= BATCHES
        counting.sent.clear()
        ge.run_plan(PLAN, *operands_of_plan(), executor=counting)
        assert len([sent for sent in counting.sent if sent]) == 2


def test_a_worker_that_lacks_operands_says_so_and_gets_them():
    """Workers of an executor that forgets everything after each task."""

    class Forgetful(engines.Here):
        def submit(self, function, work, *arguments):
            future = super().submit(function, work, *arguments)
            missing.append(future.result().missing)
            worker.forget(work)
            return future

    missing, operands = [], operands_of_plan()
    assert_same_bits(ge.run_plan(PLAN, *operands, executor=Forgetful()), ge.run_plan(PLAN, *operands, devices="all"))
    assert sum(map(bool, missing)) == BATCHES - 1
    assert {*missing} == {(), tuple(map(digest, operands))}


def test_read_only_maps_go_as_files(tmp_path, processes):
    operands = operands_of_plan()
    np.save(tmp_path / "x.npy", operands[0].T)
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    wanted = ge.run_plan(PLAN, *operands, executor=processes)
    counting = Counting(processes)
    assert_same_bits(ge.run_plan(PLAN, mapped.T, *operands[1:], executor=counting), wanted)
    assert all(digest(operands[0]) not in sent for sent in counting.sent if sent)


def test_a_file_that_is_another_one_for_the_worker_is_sent(tmp_path, monkeypatch):
    operands = operands_of_plan()
    np.save(tmp_path / "x.npy", operands[0])
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    wanted = ge.run_plan(PLAN, *operands, executor=engines.Here())
    monkeypatch.setattr(worker, "_last", [])
    file = mapped_file(mapped)._replace(changed=0)
    monkeypatch.setattr(run, "mapped_file", lambda array: file if array is mapped else None)
    assert_same_bits(ge.run_plan(PLAN, mapped, *operands[1:], executor=engines.Here()), wanted)


@pytest.mark.parametrize("view", [lambda x: x, lambda x: x[1:, ::2], lambda x: x.T[2], lambda x: np.asarray(x[3])])
def test_a_mapped_file_is_found_from_its_views(tmp_path, view):
    array = np.arange(60, dtype=np.int16).reshape(6, 10)
    np.save(tmp_path / "x.npy", array)
    mapped = view(np.load(tmp_path / "x.npy", mmap_mode="r"))
    np.testing.assert_array_equal(mapped_file(mapped).open(), view(array))
    assert mapped_file(np.load(tmp_path / "x.npy", mmap_mode="c")) is None
    assert mapped_file(array) is mapped_file(mapped[..., ::-1]) is None


def test_digests_are_of_what_arrays_hold(monkeypatch):
    monkeypatch.setattr("gpueinsum.distributed.operands._CHUNK", 64)
    x = np.arange(210.0).reshape(5, 6, 7)
    same = [x, x.T.copy().T, np.stack([x, x], 1)[:, 1], np.asfortranarray(x)]
    assert len({*map(digest, same)}) == 1
    others = [x.astype("float32"), x.reshape(6, 5, 7), x + 1, x[:, :, :1], x[:0], x[0, 0, 0], x.astype(">f8")]
    assert len({*map(digest, [x, *others])}) == 1 + len(others)
    assert digest(np.ones(3, ml_dtypes.bfloat16)) != digest(np.ones(3, "float16"))


# ---------------------------------------------------------------- batches


def test_batches_take_half_a_second_and_are_no_more_than_a_process_can_add_up(monkeypatch):
    monkeypatch.undo()
    h200 = profile("h200")
    large = ge.einsum_plan("abc,ade,bdf,cef->", *[(600,) * 3] * 4)
    sliced = replace(large, sliced=(("b", 1), ("e", 1)))
    seconds = run.predicted_seconds(sliced, h200)
    assert run.batch_count(sliced, h200) == int(seconds / 0.5) > 10
    assert run.batch_count(large, h200) == run.batch_count(PLAN, h200) == 1
    monkeypatch.setattr(run, "predicted_seconds", lambda *given: 1e7)
    assert run.batch_count(replace(large, sliced=tuple((x, 1) for x in "abcdef")), h200) == 1 << 14
    wide = replace(ge.einsum_plan("ik,kj->ij", (20_000, 9999), (9999, 20_000)), sliced=(("k", 1),))
    monkeypatch.setattr(run, "predicted_seconds", lambda *given: 1000.0)
    assert run.batch_count(wide, h200) == 1000 // (3.2 / 0.1 + 0.08)  # results of 3.2 GB


def test_progress_is_told_after_each_batch(tmp_path, processes):
    told = []
    for options in ({"executor": processes}, {"checkpoint": tmp_path}):
        told.clear()
        ge.run_plan(PLAN, *operands_of_plan(), progress=lambda *given: told.append(given), **options)
        assert len(told) == BATCHES
        assert told == sorted(told)
        assert told[-1] == (60, 60)


def test_progress_of_slices_in_this_thread_is_told():
    told = []
    ge.run_plan(PLAN, *operands_of_plan(), progress=lambda *given: told.append(given))
    assert told == [(done, 60) for done in range(1, 61)]
    ge.run_plan(PLAN, *operands_of_plan(), progress=False)
    assert len(told) == 60


# ---------------------------------------------------------------- failures


def test_what_is_no_batch_of_ours_is_refused(processes):
    x, y, z = operands_of_plan()
    here = engines.Here()
    with pytest.raises(ge.PlanError, match="takes operands of shapes"):
        ge.run_plan(PLAN, x, y, y, executor=here)
    with pytest.raises(ge.DtypeError, match="operand 1 is complex128"):
        ge.run_plan(PLAN, x, 1j * y, z, executor=here)
    with pytest.raises(ge.DtypeError, match="operand 0 is of Python's objects"):
        ge.run_plan(replace(PLAN, dtype="object"), x, y, z.astype(object), executor=here)
    with pytest.raises(ValueError, match="leave one of them out"):
        ge.run_plan(PLAN, x, y, z, executor=here, devices="all")
    with pytest.raises(ValueError, match="leave backend='cpu' out"):
        ge.run_plan(PLAN, x, y, z, devices="all", backend="cpu")
    with pytest.raises(ValueError, match="precision='half' is none of"):
        ge.run_plan(PLAN, x, y, z, executor=here, precision="half")
    namespace = pytest.importorskip("array_api_strict", reason="array_api_strict is not installed: no foreign arrays")
    with pytest.raises(ge.OperandError, match="operand 0 is of array_api_strict"):
        ge.run_plan(PLAN, namespace.asarray(x), y, z, executor=here)


def test_an_error_in_a_worker_is_raised_at_once(processes, monkeypatch):
    """As that of a backend that only the workers miss."""
    if "cupy" in os.environ.get("PYTHONPATH", ""):
        pytest.skip("there is a GPU")
    counting = Counting(processes)
    with pytest.raises(ge.DeviceError, match="CUDA") as caught:
        ge.run_plan(PLAN, *operands_of_plan(), executor=counting, backend="cuda")
    assert any("in worker" in note for note in caught.value.__notes__)
    assert len(counting.sent) <= 5


def test_a_pool_that_breaks_says_how_to_go_on(tmp_path):
    with ProcessPoolExecutor(2, multiprocessing.get_context("spawn")) as pool:

        def kill(done, total):
            for process in pool._processes.values():
                process.kill()

        with pytest.raises(RuntimeError, match=r"BrokenProcessPool.*checkpoint=DIR the same call on a new") as caught:
            ge.run_plan(PLAN, *operands_of_plan(), executor=pool, checkpoint=tmp_path, progress=kill)
        assert isinstance(caught.value.__cause__, BrokenProcessPool)
    told = []
    found = ge.run_plan(PLAN, *operands_of_plan(), checkpoint=tmp_path, progress=lambda *given: told.append(given))
    assert 0 < len(told) < BATCHES
    assert_same_bits(found, ge.run_plan(PLAN, *operands_of_plan(), executor=engines.Here()))


def test_a_batch_that_the_executor_fails_is_tried_again():
    class Failing(engines.Here):
        def submit(self, function, *arguments):
            tries[arguments[1]] = tries.get(arguments[1], 0) + 1
            if tries[arguments[1]] <= failures:
                future = Future()
                future.set_exception(ConnectionError("gone"))
                return future
            return super().submit(function, *arguments)

    tries, failures, operands = {}, 2, operands_of_plan()
    assert_same_bits(ge.run_plan(PLAN, *operands, executor=Failing()), ge.run_plan(PLAN, *operands, devices="all"))
    assert {*tries.values()} == {3}
    tries, failures = {}, 3
    with pytest.raises(RuntimeError, match="ConnectionError: gone"):
        ge.run_plan(PLAN, *operands, executor=Failing())
    assert max(tries.values()) == 3


def test_operands_are_let_go_in_this_process():
    ge.run_plan(PLAN, *operands_of_plan(), executor=engines.Here())
    assert worker._last == []
    assert CHAIN.sliced == ()
