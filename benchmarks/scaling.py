"""`python -m benchmarks.scaling`: a plan in slices on 1 and 2 workers, and what each batch costs beside its slices."""

from __future__ import annotations

import argparse
import contextlib
import multiprocessing
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import replace
from statistics import median
from unittest import mock

import numpy as np

import gpueinsum as ge
from benchmarks.road import simplex
from gpueinsum.costs.machine import machine, profile_for
from gpueinsum.distributed import run
from gpueinsum.language.plan import Plan
from gpueinsum.language.slices import cut
from gpueinsum.text import seconds_text

_BATCHES = 201
_ONE_THREAD = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "GPUEINSUM_THREADS": "1"}


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scaling", description=__doc__)
    parser.add_argument("--size", type=int, default=11, help="values of each label; by default 11")
    parser.add_argument("--repeats", type=int, default=3, help="the median counts; by default of 3")
    given = parser.parse_args(arguments)
    plan = replace(simplex(given.size), sliced=(("d", 1), ("h", 1)))
    operands = _operands(plan)
    print(f"{machine('cpu').name}; a thread for each worker; {plan.equation}, {given.size} values of each label")
    print(f"{cut(plan).count} slices in {_batches(plan)} batches; seconds are medians of {given.repeats}")
    print(f"two processes without any engine do {_ceiling(plan, operands, given.repeats):.2f} times as much as one\n")
    print("| engine | 1 worker | 2 workers | speed-up | each batch |\n| --- | ---: | ---: | ---: | ---: |")
    for name, engine in _ENGINES.items():
        try:
            one, two = (_seconds(plan, operands, engine, workers, given.repeats) for workers in (1, 2))
            cells = seconds_text(one), seconds_text(two), f"{one / two:.2f}", seconds_text(_each(engine, given.repeats))
        except ImportError:
            cells = ("not installed", "", "", "")
        print(f"| {name} | {' | '.join(cells)} |", flush=True)
    return 0


@contextlib.contextmanager
def _dask(workers: int) -> Iterator[Executor]:
    from distributed import Client, LocalCluster

    with (
        LocalCluster(n_workers=workers, threads_per_worker=1, dashboard_address=None) as cluster,
        Client(cluster) as client,
        client.get_executor() as executor,
    ):
        yield executor


def _processes(workers: int) -> Executor:
    return ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"))


Engine = Callable[[int], contextlib.AbstractContextManager[Executor]]
_ENGINES: dict[str, Engine] = {"threads": ThreadPoolExecutor, "processes": _processes, "Dask": _dask}


def _batches(plan: Plan) -> int:
    return run.batch_count(plan, profile_for("cpu"))


def _ceiling(plan: Plan, operands: Sequence[np.ndarray], repeats: int) -> float:
    """What this machine's cores do at the same time, over what one does: with all else that runs on it, at that."""
    found: dict[int, list[float]] = {1: [], 2: []}
    with mock.patch.dict(os.environ, _ONE_THREAD), _processes(2) as executor:
        for processes in (2, *(1, 2) * repeats):
            start = time.perf_counter()
            for each in [executor.submit(ge.run_plan, plan, *operands) for _ in range(processes)]:
                each.result()
            found[processes].append(time.perf_counter() - start)
    return 2 * median(found[1]) / median(found[2][1:])  # the first started the processes


def _operands(plan: Plan) -> list[np.ndarray]:
    rng = np.random.default_rng(20261130)
    return [rng.standard_normal(plan.shape(k)).astype(plan.dtype) for k in range(len(plan.inputs))]


def _seconds(plan: Plan, operands: Sequence[np.ndarray], engine: Engine, workers: int, repeats: int) -> float:
    """Of a run, on workers that have started."""
    with mock.patch.dict(os.environ, _ONE_THREAD), engine(workers) as executor:
        ge.run_plan(plan, *operands, executor=executor)
        return median(_timed(plan, operands, executor) for _ in range(repeats))


def _timed(plan: Plan, operands: Sequence[np.ndarray], executor: Executor) -> float:
    start = time.perf_counter()
    ge.run_plan(plan, *operands, executor=executor)
    return time.perf_counter() - start


def _each(engine: Engine, repeats: int) -> float:
    """Seconds that a batch takes beside its slices: of batches of one small slice, on one worker."""
    plan = replace(ge.einsum_plan("i,ij->j", (_BATCHES,), (_BATCHES, 5)), sliced=(("i", 1),))
    with mock.patch.object(run, "batch_count", return_value=_BATCHES):
        many = _seconds(plan, _operands(plan), engine, 1, repeats)
    return (many - _seconds(plan, _operands(plan), engine, 1, repeats)) / (_BATCHES - 1)


if __name__ == "__main__":
    # Threads take those of this process, whose libraries have read it already.
    if os.environ.get("OPENBLAS_NUM_THREADS") != "1":
        os.execve(sys.executable, [sys.executable, "-m", "benchmarks.scaling", *sys.argv[1:]], os.environ | _ONE_THREAD)
    sys.exit(main())
