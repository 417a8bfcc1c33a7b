"""The pool of the CPU's memory: blocks return with the last view, and only then; what is kept is bounded."""

import gc
import os
import pickle
import subprocess
import sys
import threading

import numpy as np
import pytest

import gpueinsum as ge
from gpueinsum.backends.cpu import pool as memory
from gpueinsum.backends.cpu import program
from gpueinsum.backends.select import HOST

DOUBLE = np.dtype(np.float64)
ROWS = memory.SMALLEST // (7 * 8) + 1  # of an array of 7 columns of doubles that the pool serves


@pytest.fixture(autouse=True)
def pool(monkeypatch):
    """A pool of three arrays' size, empty."""
    pool = memory._Pool(3 * (ROWS + 7) * 7 * 8)
    monkeypatch.setattr(memory, "_pool", pool)
    return pool


def address(x):
    return x.__array_interface__["data"][0]


def test_the_next_array_lies_where_the_last_one_did():
    x = memory.empty((ROWS, 7), DOUBLE)
    first = address(x)
    assert x.flags.c_contiguous
    assert x.flags.writeable
    assert first % 64 == 0
    del x
    assert address(memory.empty((7, ROWS), DOUBLE)) == first


def test_a_block_returns_with_the_last_view_only(pool):
    x = memory.empty((ROWS, 7), DOUBLE)
    views = [x[3:5], x.T, x.reshape(-1)[::-2], memoryview(x), x.view(np.int64)[None]]
    del x
    while views:
        assert not pool.blocks
        views.pop()
    assert len(pool.blocks) == 1


def test_the_base_of_an_array_cannot_return_its_block_before_it(pool):
    x = memory.empty((ROWS, 7), DOUBLE)
    base = x.base
    while isinstance(base, np.ndarray):
        part = base[:1]
        del part
        base = base.base
    again = np.asarray(base)[:8]
    del again, base
    assert not pool.blocks
    del x
    assert len(pool.blocks) == 1


def test_arrays_in_cycles_and_arrays_of_failed_calls_return_too(pool):
    cycle = [memory.empty((ROWS, 7), DOUBLE)]
    cycle.append(cycle)
    del cycle
    gc.collect()
    assert len(pool.blocks) == 1

    def fail():
        kept = memory.empty((ROWS, 7), DOUBLE)
        raise RuntimeError(kept.shape)

    with pytest.raises(RuntimeError):
        fail()
    assert len(pool.blocks) == 1


def test_a_view_outlives_its_result():
    x = np.arange(ROWS * 7.0).reshape(ROWS, 7)
    part = memory.empty(x.shape, DOUBLE)
    np.copyto(part, x)
    part = part[5]
    memory.empty(x.shape, DOUBLE).fill(-1)  # another block, since a view holds the first
    np.testing.assert_array_equal(part, x[5])
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(part)), x[5])


def test_a_pooled_array_is_not_resized_in_place():
    x = memory.empty((ROWS, 7), DOUBLE)
    with pytest.raises(ValueError, match="own"):
        x.resize((2 * ROWS, 7))


def test_what_is_small_or_holds_objects_is_numpys():
    assert memory.empty((3, 5), DOUBLE).base is None
    assert memory.empty((ROWS, 7), np.dtype(object)).base is None


def test_a_block_serves_what_nearly_fills_it():
    x = memory.empty((2 * ROWS, 7), DOUBLE)
    first = address(x)
    del x
    assert address(memory.empty((ROWS, 7), DOUBLE)) != first
    assert address(memory.empty((2 * ROWS - ROWS // 4, 7), DOUBLE)) == first


def test_the_pool_keeps_the_latest_within_its_limit(pool):
    arrays = [memory.empty((ROWS + row, 7), DOUBLE) for row in range(5)]
    while arrays:
        arrays.pop(0)
    assert [block.nbytes for block in pool.blocks] == [(ROWS + row) * 7 * 8 for row in (2, 3, 4)]
    memory.empty((4 * ROWS, 7), DOUBLE)
    assert sum(block.nbytes for block in pool.blocks) <= pool.limit


def test_free_memory_empties_the_pool(pool):
    nbytes = memory.empty((ROWS, 7), DOUBLE).nbytes
    assert memory.free_memory() == nbytes
    assert not pool.blocks
    assert memory.free_memory() == 0


def test_what_the_pool_keeps_is_given_back_where_memory_runs_out(pool, monkeypatch):
    memory.empty((ROWS, 7), DOUBLE)
    make, given = memory._Block, []

    def short(nbytes):
        given.append(len(pool.blocks))
        if pool.blocks:
            raise MemoryError
        return make(nbytes)

    monkeypatch.setattr(memory, "_Block", short)
    assert memory.empty((2 * ROWS, 7), DOUBLE).shape == (2 * ROWS, 7)
    assert given == [1, 0]


def test_a_call_that_runs_out_of_memory_is_tried_again_without_what_the_pool_keeps(pool, monkeypatch, rng):
    calls = []

    def lower_step(step, sizes, dtype):
        def call(*arrays):
            calls.append(len(pool.blocks))
            held = memory.empty((ROWS, 7), DOUBLE)  # which returns to the pool when the call fails
            if len(calls) < fails or pool.blocks:
                raise MemoryError
            return held

        return call

    monkeypatch.setattr(program, "lower_step", lower_step)
    plan = ge.einsum_plan("ij->i", (300, 300))
    kept, fails = [memory.empty((ROWS + row, 7), DOUBLE) for row in range(2)], 2
    del kept[:]
    assert HOST.bind_single(plan)(rng.random((300, 300))).shape == (ROWS, 7)
    assert calls == [2, 0]
    calls[:], fails = [], 9
    memory.free_memory()
    with pytest.raises(MemoryError):  # at once: there is nothing to give back
        HOST.bind_single(plan)(rng.random((300, 300)))
    assert len(calls) == 1


def test_an_array_like_another_has_its_order_in_memory(rng):
    for order in ((0, 1, 2), (2, 0, 1), (1, 2, 0)):
        x = rng.random([(2, 3, ROWS * 7)[axis] for axis in order]).transpose(np.argsort(order))
        y = memory.empty_like(x)
        assert (y.shape, y.strides) == (x.shape, x.strides)
    x = np.broadcast_to(1.0, (ROWS, 7))
    assert memory.empty_like(x).shape == x.shape


def test_threads_never_share_a_block(pool):
    shared = []

    def work(mark):
        for _ in range(50):
            x = memory.empty((ROWS, 7), DOUBLE)
            x[::1000] = mark
            if not (x[::1000] == mark).all():
                shared.append(mark)
            del x

    threads = [threading.Thread(target=work, args=(mark,)) for mark in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not shared
    assert sum(block.nbytes for block in pool.blocks) <= pool.limit


@pytest.mark.parametrize(("text", "kept"), [("0", 0), ("100MB", 1), ("1", 0)])
def test_the_environment_sets_the_limit(text, kept):
    program = (
        "import numpy as np; from gpueinsum.backends.cpu import pool as memory;"
        f"memory.empty(({ROWS}, 7), np.dtype(float)); print(len(memory._pool.blocks))"
    )
    run = subprocess.run(
        [sys.executable, "-c", program], env=os.environ | {"GPUEINSUM_POOL": text}, capture_output=True, text=True
    )
    assert run.stdout.split() == [str(kept)], run.stderr


def test_the_limit_is_an_eighth_of_the_memory_and_no_more_than_256_mib(monkeypatch):
    monkeypatch.delenv("GPUEINSUM_POOL", raising=False)
    for machine, limit in ((1 << 30, 128 << 20), (2 << 30, 256 << 20), (1 << 40, 256 << 20)):
        monkeypatch.setattr(memory, "machine_bytes", lambda machine=machine: machine)
        assert memory._limit() == limit


@pytest.mark.parametrize(("text", "expected"), [("123456\n", 123456), ("max\n", None), (None, None)])
def test_a_control_group_may_have_less_memory_than_the_machine(monkeypatch, text, expected):
    machine = memory.os.sysconf("SC_PHYS_PAGES") * memory.os.sysconf("SC_PAGE_SIZE")

    def read_text(path, encoding):
        if text is None:
            raise FileNotFoundError(path)
        return text

    monkeypatch.setattr(memory.Path, "read_text", read_text)
    assert memory.machine_bytes() == (expected or machine)


def test_an_environment_that_sets_nonsense_is_refused():
    run = subprocess.run(
        [sys.executable, "-c", "import gpueinsum"],
        env=os.environ | {"GPUEINSUM_POOL": "4 apples"},
        capture_output=True,
        text=True,
    )
    assert "GPUEINSUM_POOL='4 apples' is no number of bytes" in run.stderr


def test_the_interpreter_ends_quietly_while_arrays_live():
    program = (
        "import numpy as np; from gpueinsum.backends.cpu import pool as memory;"
        f"x = memory.empty(({ROWS}, 7), np.dtype(float)); cycle = [x]; cycle.append(cycle)"
    )
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (run.returncode, run.stderr) == (0, "")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_forked_process_has_a_pool_of_its_own():
    program = (
        "import os, numpy as np; from gpueinsum.backends.cpu import pool as memory;"
        f"x = memory.empty(({ROWS}, 7), np.dtype(float)); x.fill(1); child = os.fork();"
        "x.fill(2 if child == 0 else 1); kept = x[0, 0]; del x;"
        "child or os._exit(len(memory._pool.blocks));"
        "print(kept, os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), len(memory._pool.blocks))"
    )
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert run.stdout.split() == ["1.0", "1", "1"], run.stderr


def test_einsum_of_large_arrays_gives_the_same_twice(rng):
    x, y = rng.random((ROWS, 1)), rng.random((1, 7))
    first = ge.einsum("ia,aj->ij", x, y)
    expected = x * y
    np.testing.assert_allclose(first, expected, rtol=1e-15)
    del first
    np.testing.assert_allclose(ge.einsum("ia,aj->ij", x, y), expected, rtol=1e-15)
