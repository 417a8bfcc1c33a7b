"""`python -m benchmarks.memory`: contractions and gradients within limits of memory; needs no GPU.

Bytes are those that numpy allocates beside the operands. A run that should take longer than `--seconds` is one of some
slices, chosen by chance, from whose time that of all follows; its result is then checked on a few slices.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

import gpueinsum as ge
from benchmarks.limited import (
    Array,
    Case,
    amplitude,
    four_tensors,
    quadratic_forms,
    relative,
    sixteen_features,
    spins,
    triples,
)
from benchmarks.markdown import Columns, show, write
from benchmarks.sliced import measure, peak_bytes, time_text
from benchmarks.units import DASH, ratio_text
from gpueinsum.backends.select import HOST
from gpueinsum.costs.counts import total_flops
from gpueinsum.costs.profile import profile
from gpueinsum.schedule.slices import predicted_seconds
from gpueinsum.text import bytes_text, read_bytes, seconds_text

SCHEMA = "gpueinsum-memory/1"
_MOST = 6 << 30  # bytes that a run without a limit may take here
_SHARE = 10  # of the bytes of gradients without a limit one in so many is their limit

CASES: Mapping[str, Callable[[Path], Case]] = {
    "four": lambda _: four_tensors(600, "1GiB"),
    "quadratic": lambda _: quadratic_forms(100_000, 100, "64MiB"),
    "sixteen": lambda _: sixteen_features((512, 25, 25), "64MiB"),
    "circuit": lambda _: amplitude(5, 6, 12, "64MiB", "4MiB", "256KiB"),
    "spins": lambda _: spins(12, 12, "16MiB", "1MiB"),
    "triples": lambda folder: triples(20, 200, folder, "1GiB", "256MiB"),
}
DERIVED: Mapping[str, Callable[[], Case]] = {
    "quadratic": lambda: quadratic_forms(100_000, 100),
    "circuit": lambda: amplitude(4, 5, 10),
    "spins": lambda: spins(10, 10),
}


@dataclass(frozen=True, slots=True)
class Limited:
    """A contraction within a limit. Bytes are those beside its operands; seconds are those of this CPU."""

    name: str
    equation: str
    dtype: str
    operand_bytes: int
    whole_bytes: int  # predicted, without a limit
    whole_flops: int
    whole_seconds: float | None
    limit: int
    search_seconds: float
    slices: int
    slices_run: int
    flops: int
    predicted_bytes: int
    bytes: int
    predicted_seconds: float
    seconds: float
    h200_seconds: float  # predicted
    error: float


@dataclass(frozen=True, slots=True)
class Gradients:
    """A value, and all gradients of the sum of its elements: without a limit (`whole`), and within one."""

    name: str
    dtype: str
    operand_bytes: int
    whole_bytes: int
    whole_seconds: float
    limit: int
    bytes: int
    seconds: float
    slices: int
    error: float


LIMITED: Columns[Limited] = {
    "contraction": lambda row: f"{row.name}, {row.dtype}",
    "operands": lambda row: bytes_text(row.operand_bytes),
    "without a limit": lambda row: bytes_text(row.whole_bytes),
    "limit": lambda row: bytes_text(row.limit),
    "predicted": lambda row: bytes_text(row.predicted_bytes),
    "counted ÷ predicted": lambda row: f"{row.bytes / row.predicted_bytes:.3f}",
    "slices": lambda row: f"{row.slices:,}",
    "operations": lambda row: f"x {ratio_text(row.flops / row.whole_flops)}",
    "time": lambda row: time_text(row.seconds, row.slices_run, row.slices),
    "÷ predicted": lambda row: ratio_text(row.seconds / row.predicted_seconds),
    "÷ without a limit": lambda row: ratio_text(row.seconds / row.whole_seconds) if row.whole_seconds else DASH,
    "H200, predicted": lambda row: seconds_text(row.h200_seconds),
    "error": lambda row: f"{row.error:.0e}",
}
GRADIENTS: Columns[Gradients] = {
    "gradients of": lambda row: f"{row.name}, {row.dtype}",
    "operands": lambda row: bytes_text(row.operand_bytes),
    "without a limit": lambda row: f"{bytes_text(row.whole_bytes)}, {seconds_text(row.whole_seconds)}",
    "limit": lambda row: bytes_text(row.limit),
    "counted": lambda row: bytes_text(row.bytes),
    "slices": lambda row: f"{row.slices:,}",
    "time": lambda row: seconds_text(row.seconds),
    "÷ without a limit": lambda row: ratio_text(row.seconds / row.whole_seconds),
    "error": lambda row: f"{row.error:.0e}",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """A table of contractions, one of gradients. 0."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.memory", description=__doc__)
    parser.add_argument("--seconds", type=float, default=60.0, metavar="N", help="of a run; by default 60")
    parser.add_argument("--only", nargs="+", default=[""], choices=[*CASES], metavar="NAME", help=", ".join(CASES))
    parser.add_argument("--out", type=Path, metavar="FILE.json", help="keep what was measured")
    options = parser.parse_args(arguments)
    chosen = tuple(options.only)
    with tempfile.TemporaryDirectory() as folder:
        made = (make(Path(folder)) for name, make in CASES.items() if name.startswith(chosen))
        limited = show(LIMITED, (row for case in made for row in within_limits(case, options.seconds)))
    gradients = show(GRADIENTS, (gradients_within(make()) for name, make in DERIVED.items() if name.startswith(chosen)))
    if options.out:
        write(options.out, SCHEMA, {"limited": limited, "gradients": gradients})
    return 0


def within_limits(case: Case, seconds: float) -> Iterator[Limited]:
    """A row for each limit."""
    whole, whole_seconds = ge.einsum_plan(case.equation, *case.operands), None
    if whole.peak_bytes("cpu") <= _MOST and predicted_seconds(whole, HOST.profile) <= seconds:
        whole_seconds = measure(whole, case, seconds).seconds
    for limit in case.limits:
        start = time.perf_counter()
        plan = ge.einsum_plan(case.equation, *case.operands, memory_limit=limit)
        search_seconds = time.perf_counter() - start
        found = measure(plan, case, seconds)
        yield Limited(
            case.name,
            case.equation,
            case.dtype,
            sum(x.nbytes for x in case.operands),
            whole.peak_bytes("cpu"),
            total_flops(whole),
            whole_seconds,
            read_bytes(limit) or 0,
            search_seconds,
            plan.slices.number,
            found.slices_run,
            total_flops(plan),
            plan.peak_bytes("cpu"),
            found.bytes,
            predicted_seconds(plan, HOST.profile),
            found.seconds,
            predicted_seconds(plan, profile("h200")),
            found.error,
        )


def gradients_within(case: Case) -> Gradients:
    """Within a tenth of the bytes that they take without a limit."""
    cotangent = np.ones_like(ge.einsum(case.equation, *case.operands))
    whole = partial(_value_and_gradients, case, cotangent, None)
    whole_bytes, (whole_seconds, expected, _) = peak_bytes(whole), whole()
    limit = whole_bytes // _SHARE
    within = partial(_value_and_gradients, case, cotangent, limit)
    nbytes, (seconds, found, slices) = peak_bytes(within), within()
    errors = [relative(one, other) for one, other in zip(found, expected, strict=True)]
    operand_bytes = sum(x.nbytes for x in case.operands)
    dtype = case.dtype
    return Gradients(
        case.name, dtype, operand_bytes, whole_bytes, whole_seconds, limit, nbytes, seconds, slices, max(errors)
    )


def _value_and_gradients(case: Case, cotangent: Array, limit: int | None) -> tuple[float, list[Any], int]:
    """The seconds that they take, the arrays, and in how many slices."""
    start = time.perf_counter()
    value, pullback = ge.vjp(case.equation, *case.operands, memory_limit=limit)
    found = [value, *pullback(cotangent)]
    return time.perf_counter() - start, found, pullback.plan.slices.number


if __name__ == "__main__":
    sys.exit(main())
