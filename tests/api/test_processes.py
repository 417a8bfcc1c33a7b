"""What docs/running.md says of calls in several threads, in other processes and while the interpreter ends."""

import os
import subprocess
import sys
import threading

import numpy as np
import pytest

import gpueinsum as ge


def printed(folder, program, *arguments):
    """The lines that a program prints in a process of its own; no line on its standard error."""
    path = folder / "program.py"
    path.write_text(program, encoding="utf-8")
    run = subprocess.run([sys.executable, path, *arguments], capture_output=True, text=True, timeout=120)
    assert (run.returncode, run.stderr) == (0, "")
    return run.stdout.splitlines()


def test_a_first_call_imports_no_module(tmp_path):
    """`__del__` may make it, in the middle of any import and after the last one."""
    program = (
        "import sys, numpy as np, gpueinsum as ge\n"
        "x, before = np.ones((1000, 3000)), {*sys.modules}\n"
        "ge.einsum('ij,ij->ij', x, x), ge.einsum('ij->', x), ge.contract('ij,kj,kl->il', x[:2], x[:3], x[:3])\n"
        "ge.vjp('ij,kj->ik', x[:2], x[:3])[1](np.ones((2, 3)))\n"
        "print({*sys.modules} - before)\n"
    )
    assert printed(tmp_path, program) == ["set()"]


ENDS = """
import atexit, multiprocessing, sys
import numpy as np
import gpueinsum as ge
from gpueinsum.backends.cpu import threads

threads._threads = 3

def call(place):
    x = np.ones((1000, 3000))
    values = ge.einsum("ij,ij->", x, x), ge.einsum("ij,ij->ij", x, x).sum(), ge.einsum("ij,kj->ik", x[:2], x[:3]).sum()
    print(place, *map(int, values), flush=True)

class Late:
    def __init__(self, place):
        self.place = place
    def __del__(self, call=call):
        call(self.place)

def prepare():
    global kept
    kept, cycle = Late("global"), Late("cycle")
    cycle.itself = cycle
    atexit.register(call, "atexit")

if __name__ == "__main__":
    if sys.argv[1] == "main":
        prepare()
    else:
        process = multiprocessing.get_context(sys.argv[1]).Process(target=prepare)
        process.start()
        process.join()
        sys.exit(process.exitcode)
"""
VALUES = "3000000 3000000 18000"


@pytest.mark.parametrize("method", ["main", "spawn"])
def test_calls_are_computed_while_the_interpreter_ends(tmp_path, method):
    assert sorted(printed(tmp_path, ENDS, method)) == [f"{place} {VALUES}" for place in ("atexit", "cycle", "global")]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_forked_process_ends_quietly(tmp_path):
    lines = printed(tmp_path, ENDS, "fork")
    assert {*lines} <= {f"atexit {VALUES}", f"cycle {VALUES}"}
    assert (f"atexit {VALUES}" in lines) == (sys.version_info >= (3, 13))


def test_threads_share_plans_expressions_and_pullbacks(rng, monkeypatch):
    monkeypatch.setattr("gpueinsum.backends.cpu.threads._threads", 3)
    x, y, z = rng.random((11, 7)), rng.random((7, 5)), rng.random((5, 3))
    plan = ge.einsum_plan("ij,jk,kl->il", x, y, z)
    expression = ge.contract_expression("ij,jk,kl->il", x.shape, y.shape, z, constants=[2])
    value, pullback = ge.vjp("ij,jk,kl->il", x, y, z)
    failures, barrier = [], threading.Barrier(6, timeout=60)

    def work(number):
        for size in range(10, 30):
            large = np.full((size, 60_000), number)
            barrier.wait()  # all meet shapes that are new to all
            squares = ge.einsum("ij,ij->ij", large, large)
            values = ge.run_plan(plan, number * x, y, z), expression(number * x, y)
            gradient = pullback(number * value)[0]
            ge.free_memory()
            expected = number**2, number * value, number * value, number * value @ z.T @ y.T
            if not all(map(np.allclose, (squares, *values, gradient), expected)):
                failures.append((number, size))

    threads = [threading.Thread(target=work, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert not barrier.broken  # by a thread that raised
