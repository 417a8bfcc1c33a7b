"""`python -m benchmarks`: how gpueinsum compares with numpy (or CuPy), and gradients with values, PyTorch and JAX."""

from __future__ import annotations

import argparse
import contextlib
import datetime
import json
import math
import os
import platform
import statistics
import sys
from collections.abc import Mapping, Sequence
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import opt_einsum

import gpueinsum as ge
from benchmarks import gradients
from benchmarks.measure import THREADS, Call, Peer, Quartiles, Result, Table, clock_for, measure
from benchmarks.workloads import WORKLOADS, Workload, reference

_SECONDS, _QUICK_SECONDS = 4.0, 0.5  # for the rounds of one workload

OURS = "gpueinsum"
# The library's own einsum, as its users may call it; the fastest of these is what we compare with.
EINSUMS = ("einsum", "einsum greedy", "einsum optimal")
PEERS = (OURS, *EINSUMS, "opt_einsum", "plain")

# A loop over all labels forms about 10^9 products a second at best: past this it is left out, for it takes a second.
_MOST_PRODUCTS = 3 * 10**8
# The search for the optimal path takes seconds past this many operands; up to two there is nothing to search.
_OPTIMAL_OPERANDS = range(3, 7)
# How far the upper quartile of the ratios has to be below 1 before a row counts as slower: a call timed against itself
# gave medians from 0.977 to 1.017, and no upper quartile below 1.000, over all rows (numpy 2.4, 2 shared cores).
_NOISE = 0.03

Results = Mapping[str, Mapping[str, Sequence[Result]]]  # by the table's key and the library's name


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the tables; 1 if a result of ours was wrong."""
    options = _parser().parse_args(arguments)
    seconds = _QUICK_SECONDS if options.quick else _SECONDS
    libraries = [np] if ge.array_module() is np else [np, ge.array_module()]
    results: dict[str, dict[str, list[Result]]] = {table.key: {} for table in TABLES}
    for xp in libraries:
        print(_title(xp), end="\n\n")
        for table in TABLES:
            workloads = [row for row in table.workloads if not options.only or row.name in options.only]
            if workloads:
                results[table.key][xp.__name__] = _run(table, workloads, xp, seconds)
    if options.json:
        text = json.dumps(report(results, libraries[-1]))
        options.json.write_text(text.replace('{"name"', '\n{"name"') + "\n")  # a line per workload
    return int(any(map(_is_wrong, TABLES, results.values())))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    names = dict.fromkeys(workload.name for table in TABLES for workload in table.workloads)
    parser.add_argument("--quick", action="store_true", help="fewer rounds: a look, not a measurement")
    parser.add_argument("--only", nargs="+", choices=names, metavar="NAME", help=f"of {', '.join(names)}")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every time of every round here")
    return parser


def _run(table: Table, workloads: Sequence[Workload], xp: Any, seconds: float) -> list[Result]:
    """Measure and print, row by row."""
    print(table.header(xp))
    results = []
    for workload in workloads:
        results.append(measure(workload, table.peers(workload, xp), clock_for(xp), seconds))
        print(table.row(results[-1]), flush=True)
    print(table.summary(results, xp), end="\n\n")
    return results


def _is_wrong(table: Table, results: Mapping[str, Sequence[Result]]) -> bool:
    return any(table.ours & result.faults.keys() for rows in results.values() for result in rows)


# ---------------------------------------------------------------- the table of einsums


def peers(workload: Workload, xp: Any) -> dict[str, Peer]:
    """Each peer that is worth timing on this workload."""
    equation, operands = workload.equation, workload.operands(xp)
    calls: dict[str, Call] = {OURS: partial(ge.einsum, equation, *operands)}
    if workload.products <= _MOST_PRODUCTS:
        calls["einsum"] = partial(xp.einsum, equation, *operands, optimize=False)
    calls["einsum greedy"] = partial(xp.einsum, equation, *operands, optimize="greedy")
    if len(operands) in _OPTIMAL_OPERANDS:
        calls["einsum optimal"] = partial(xp.einsum, equation, *operands, optimize="optimal")
    calls["opt_einsum"] = partial(opt_einsum.contract, equation, *operands)
    if workload.plain is not None:
        calls["plain"] = partial(workload.plain, xp, *operands)
    expected = (reference(equation, *workload.operands()),)
    return {name: Peer(call, expected) for name, call in calls.items()}


def best(result: Result) -> str | None:
    """The fastest einsum of the library itself."""
    return min((peer for peer in EINSUMS if peer in result.rounds), key=result.median, default=None)


def quartiles(result: Result) -> Quartiles | None:
    """The library's best time over ours: above 1 where we are faster."""
    return result.quartiles(best(result) or "", OURS)


def is_slower(result: Result) -> bool:
    """Whether the library's best is faster than ours by more than noise."""
    found = quartiles(result)
    return found is not None and found[2] < 1 - _NOISE


def header(xp: Any) -> str:
    """The columns' names: times per call, the library's best einsum over ours, the quartiles of that ratio."""
    names = {"einsum": f"{xp.__name__}.einsum", "einsum greedy": "greedy", "einsum optimal": "optimal"}
    columns = "".join(f"{names.get(peer, peer):>13}" for peer in PEERS)
    return f"{'workload':<22}{'dtype':<11}{columns}{'best/ours':>11}  quartiles"


def row(result: Result) -> str:
    """One workload: medians, `-` for a peer left out, WRONG or FAILED for one not timed."""
    times = "".join(f"{result.cell(peer):>13}" for peer in PEERS)
    ratio = ""
    if found := quartiles(result):
        low, middle, high = found
        ratio = f"{middle:>11.2f}  {low:.2f}-{high:.2f}{'  slower' if is_slower(result) else ''}"
    line = f"{result.workload.name:<22}{result.workload.dtype:<11}{times}{ratio}"
    return "\n".join([line, *(f"  {peer}: {fault}" for peer, fault in result.faults.items())])


def summary(results: Sequence[Result], xp: Any) -> str:
    """The geometric mean of the ratios, and which rows are slower than noise explains."""
    medians = [found[1] for result in results if (found := quartiles(result))]
    if not medians:
        return "nothing to compare"
    mean = math.exp(statistics.fmean(map(math.log, medians)))
    slower = [result.workload.name for result in results if is_slower(result)]
    return (
        f"{xp.__name__}'s best einsum takes {mean:.2f} times as long as gpueinsum (geometric mean of {len(medians)} "
        f"rows); slower by more than noise: {', '.join(slower) or 'none'}"
    )


def facts(result: Result) -> dict[str, Any]:
    """What JSON has of a result, beside its times."""
    return {"best": best(result), "ratio_quartiles": quartiles(result)}


TABLE = Table("results", WORKLOADS, frozenset({OURS}), peers, header, row, summary, facts)
TABLES = (TABLE, gradients.TABLE)


# ---------------------------------------------------------------- what it ran on


def report(results: Results, xp: Any) -> dict[str, Any]:
    """Everything that was measured and what it was measured on, for JSON; times in seconds per call."""
    measured = {
        table.key: {
            library: [_entry(result) | table.facts(result) for result in rows]
            for library, rows in results[table.key].items()
        }
        for table in TABLES
    }
    date = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    return {"date": date, "machine": machine(xp), "versions": versions(xp)} | measured


def _entry(result: Result) -> dict[str, Any]:
    return {
        "name": result.workload.name,
        "equation": result.workload.equation,
        "shapes": result.workload.shapes,
        "dtype": result.workload.dtype,
        "source": result.workload.source,
        "median_seconds": {peer: result.median(peer) for peer in result.rounds},
        "seconds": {peer: [float(f"{t:.4g}") for t in times] for peer, times in result.rounds.items()},
        "faults": dict(result.faults),
    }


def machine(xp: Any = np) -> dict[str, Any]:
    """The processor, the cores this process may use, OpenBLAS's threads if they are set, the GPU if there is one."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    facts: dict[str, Any] = {"cpu": _cpu_model(), "cores": cores, THREADS: os.environ.get(THREADS)}
    if xp is not np:
        device = xp.cuda.runtime.getDeviceProperties(xp.cuda.runtime.getDevice())
        facts["gpu"] = device["name"].decode()
    return facts


def versions(xp: Any = np) -> dict[str, str]:
    """The versions of all that takes part."""
    blas = np.show_config(mode="dicts")["Build Dependencies"]["blas"]
    found = {
        "python": platform.python_version(),
        "gpueinsum": version("gpueinsum"),
        "numpy": np.__version__,
        "blas": f"{blas['name']} {blas['version']}",
        "opt_einsum": version("opt_einsum"),
    }
    for peer in ("torch", "jax"):
        with contextlib.suppress(PackageNotFoundError):
            found[peer] = version(peer)
    if xp is not np:
        found |= {"cupy": xp.__version__, "cuda": str(xp.cuda.runtime.runtimeGetVersion())}
    return found


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.machine()


def _title(xp: Any) -> str:
    facts = machine(xp)
    threads = facts.pop(THREADS)
    where = f"{facts['cpu']}, {facts['cores']} cores" if xp is np else facts["gpu"]
    threads = f"{THREADS}={threads}" if threads else "BLAS threads not pinned"
    return f"{where}, {threads}; " + ", ".join(f"{name} {number}" for name, number in versions(xp).items())


if __name__ == "__main__":
    sys.exit(main())
