"""`python -m benchmarks`: how gpueinsum compares with numpy (or CuPy), as a table and as JSON."""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import sys
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

import gpueinsum as ge
from benchmarks.measure import OURS, PEERS, Result, calls, clock_for, geometric_mean, measure
from benchmarks.workloads import WORKLOADS, Workload

_SECONDS, _QUICK_SECONDS = 4.0, 0.5  # for the rounds of one workload
_THREADS = "OPENBLAS_NUM_THREADS"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the table; 1 if a result of ours was wrong."""
    options = _parser().parse_args(arguments)
    workloads = [workload for workload in WORKLOADS if not options.only or workload.name in options.only]
    seconds = _QUICK_SECONDS if options.quick else _SECONDS
    libraries = [np] if ge.array_module() is np else [np, ge.array_module()]
    results: dict[str, list[Result]] = {}
    for xp in libraries:
        print(_title(xp), end="\n\n")
        print(header(xp.__name__))
        results[xp.__name__] = []
        for workload in workloads:
            result = _run(workload, xp, seconds)
            results[xp.__name__].append(result)
            print(row(result), flush=True)
        print(summary(results[xp.__name__], xp.__name__), end="\n\n")
    if options.json:
        text = json.dumps(report(results, libraries[-1]))
        options.json.write_text(text.replace('{"name"', '\n{"name"') + "\n")  # a line per workload
    return int(any(OURS in result.faults for table in results.values() for result in table))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    names = [workload.name for workload in WORKLOADS]
    parser.add_argument("--quick", action="store_true", help="fewer rounds: a look, not a measurement")
    parser.add_argument("--only", nargs="+", choices=names, metavar="NAME", help=f"of {', '.join(names)}")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every time of every round here")
    return parser


def _run(workload: Workload, xp: Any, seconds: float) -> Result:
    reference = workload.reference(workload.operands())
    return measure(workload, calls(workload, xp, workload.operands(xp)), reference, clock_for(xp), seconds)


# ---------------------------------------------------------------- the table


def header(library: str) -> str:
    """The columns' names: times per call, the library's best einsum over ours, the quartiles of that ratio."""
    names = {"einsum": f"{library}.einsum", "einsum greedy": "greedy", "einsum optimal": "optimal"}
    peers = "".join(f"{names.get(peer, peer):>13}" for peer in PEERS)
    return f"{'workload':<22}{'dtype':<11}{peers}{'best/ours':>11}  quartiles"


def row(result: Result) -> str:
    """One workload: medians, `-` for a peer left out, WRONG or FAILED for one not timed."""
    times = "".join(f"{_cell(result, peer):>13}" for peer in PEERS)
    ratio = ""
    if result.quartiles is not None:
        low, middle, high = result.quartiles
        ratio = f"{middle:>11.2f}  {low:.2f}-{high:.2f}{'  slower' if result.slower else ''}"
    line = f"{result.workload.name:<22}{result.workload.dtype:<11}{times}{ratio}"
    return "\n".join([line, *(f"  {peer}: {fault}" for peer, fault in result.faults.items())])


def summary(results: Sequence[Result], library: str) -> str:
    """The geometric mean of the ratios, and which rows are slower than noise explains."""
    ratios = [result.quartiles for result in results if result.quartiles is not None]
    if not ratios:
        return "nothing to compare"
    mean = geometric_mean([middle for _, middle, _ in ratios])
    slower = [result.workload.name for result in results if result.slower]
    return (
        f"{library}'s best einsum takes {mean:.2f} times as long as gpueinsum (geometric mean of {len(ratios)} rows); "
        f"slower by more than noise: {', '.join(slower) or 'none'}"
    )


def _cell(result: Result, peer: str) -> str:
    if peer in result.faults:
        return result.faults[peer].partition(":")[0]
    return _time(result.median(peer)) if peer in result.rounds else "-"


def _time(seconds: float) -> str:
    return f"{seconds * 1e6:.1f} us" if seconds < 1e-3 else f"{seconds * 1e3:.2f} ms"


# ---------------------------------------------------------------- what it ran on


def report(results: dict[str, list[Result]], xp: Any) -> dict[str, Any]:
    """Everything that was measured and what it was measured on, for JSON; times in seconds per call."""
    return {
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "machine": machine(xp),
        "versions": versions(xp),
        "results": {
            library: [
                {
                    "name": result.workload.name,
                    "equation": result.workload.equation,
                    "shapes": result.workload.shapes,
                    "dtype": result.workload.dtype,
                    "source": result.workload.source,
                    "best": result.best,
                    "ratio_quartiles": result.quartiles,
                    "median_seconds": {peer: result.median(peer) for peer in result.rounds},
                    "seconds": {peer: [float(f"{t:.4g}") for t in times] for peer, times in result.rounds.items()},
                    "faults": result.faults,
                }
                for result in table
            ]
            for library, table in results.items()
        },
    }


def machine(xp: Any = np) -> dict[str, Any]:
    """The processor, the cores this process may use, OpenBLAS's threads if they are set, the GPU if there is one."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    facts: dict[str, Any] = {"cpu": _cpu_model(), "cores": cores, _THREADS: os.environ.get(_THREADS)}
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
    threads = facts.pop(_THREADS)
    where = f"{facts['cpu']}, {facts['cores']} cores" if xp is np else facts["gpu"]
    threads = f"{_THREADS}={threads}" if threads else "BLAS threads not pinned"
    return f"{where}, {threads}; " + ", ".join(f"{name} {number}" for name, number in versions(xp).items())


if __name__ == "__main__":
    sys.exit(main())
