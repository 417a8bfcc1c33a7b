"""Parts of a step on several threads: all of them run, once, in the caller's context, and their errors come back."""

import os
import subprocess
import sys
import threading
import warnings

import numpy as np
import pytest

from gpueinsum.backends.cpu import threads
from gpueinsum.costs.machine import usable_threads


@pytest.fixture(autouse=True)
def four_threads(monkeypatch):
    """Threads of the test's own, whatever the machine has."""
    monkeypatch.setattr(threads, "_threads", 4)
    threads._executor.cache_clear()


@pytest.mark.parametrize("size", [1, 2, 3, 4, 5, 29])
def test_the_parts_cover_the_axis_once(size):
    out = np.zeros(size)

    def add_one(part):
        out[part] += 1

    threads.in_turn(add_one, size, 4)
    assert (out == 1).all()


def test_an_empty_axis_is_one_empty_part():
    parts = []
    threads.in_turn(parts.append, 0, 4)
    assert parts == [slice(0, 0)]


def run(works):
    """Each of these as a part."""
    threads.in_turn(lambda part: works[part.start](), len(works), len(works))


def test_parts_run_at_the_same_time():
    met = threading.Barrier(4, timeout=10)
    run([met.wait] * 4)
    assert not met.broken


def test_work_is_shared_only_if_everybody_gets_enough():
    assert [threads.parts(amount, 100) for amount in (0, 99, 199, 200, 399, 10**9)] == [1, 1, 1, 2, 3, 4]


def test_one_part_stays_with_the_caller():
    names = []
    threads.in_turn(lambda part: names.append(threading.current_thread()), 7, 1)
    assert names == [threading.current_thread()]


def fail(text):
    raise ValueError(text)


def test_the_first_error_is_raised_when_all_are_done():
    done = []
    with pytest.raises(ValueError, match="second"):
        run([lambda: done.append(0), lambda: fail("second"), lambda: fail("third"), lambda: done.append(3)])
    assert sorted(done) == [0, 3]
    with pytest.raises(ValueError, match="first"):
        run([lambda: fail("first"), lambda: fail("second"), lambda: done.append(2)])
    assert 2 in done


def test_numpys_error_state_is_the_callers_in_every_part():
    x = np.full(8, 1e300)

    def square(part):
        np.multiply(x[part], x[part])

    with np.errstate(over="ignore"):
        threads.in_turn(square, 8, 4)
    with np.errstate(over="raise"), pytest.raises(FloatingPointError):
        threads.in_turn(lambda part: square(part) if part.start else None, 8, 4)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with np.errstate(over="warn"), pytest.raises(RuntimeWarning, match="overflow"):
            threads.in_turn(lambda part: square(part) if part.start else None, 8, 4)


def test_what_a_part_would_share_is_one_part_there():
    shared = []

    def work(part):
        threads.in_turn(lambda inner: shared.append((part.start, inner)), 12, 4)

    threads.in_turn(work, 8, 4)
    assert sorted(shared) == [(start, slice(0, 12)) for start in (0, 2, 4, 6)]
    shared.clear()
    work(slice(0, 8))  # and again in four
    assert len(shared) == 4


def test_threads_that_call_at_the_same_time_get_their_own_results():
    results = {}

    def call(number):
        out = np.zeros(1000)

        def write(part):
            out[part] = number

        for _ in range(50):
            threads.in_turn(write, 1000, 4)
        results[number] = out

    callers = [threading.Thread(target=call, args=(number,)) for number in range(6)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert all((out == number).all() for number, out in results.items())


def ended(program, **environment):
    return subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, env=os.environ | environment, timeout=60
    )


def test_the_environment_sets_how_many_there_are(monkeypatch):
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    names = "GPUEINSUM_THREADS", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"
    for text, expected in [("1", 1), ("1,2", 1), ("100000", cores), ("", cores), ("many", cores)]:
        for name in names:
            for other in names:
                monkeypatch.setenv(other, text if other == name else "")
            assert usable_threads() == expected
    monkeypatch.setenv("GPUEINSUM_THREADS", "1")
    monkeypatch.setenv("OMP_NUM_THREADS", "100000")
    assert usable_threads() == 1


def test_a_process_has_as_many_as_its_environment_says():
    program = "from gpueinsum.backends.cpu.threads import threads; print(threads())"
    assert ended(program, GPUEINSUM_THREADS="1", OMP_NUM_THREADS="100000").stdout.split() == ["1"]


USES = (
    "import os, sys; from gpueinsum.backends.cpu import threads; threads._threads = 3;"
    "done = []; threads.in_turn(done.append, 9, 3); assert len(done) == 3;"
)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_forked_process_starts_threads_of_its_own():
    run = ended(
        USES + "child = os.fork();"
        "done.clear(); threads.in_turn(done.append, 9, 3); assert len(done) == 3;"
        "child or os._exit(0); print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))"
    )
    assert run.stdout.split() == ["0"], run.stderr


def test_the_interpreter_ends_quietly_while_threads_wait():
    run = ended(USES)
    assert (run.returncode, run.stderr) == (0, "")
