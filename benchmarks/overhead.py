"""`python -m benchmarks.overhead`: what slices cost against their number, beside cotengra's; needs no GPU.

Each limit is a share of the bytes that the contraction takes without one. cotengra searches in two ways, each for as
long as gpueinsum did and 20 s at least, for a tree whose slices take no more than the limit at once, and runs the
better one by numpy; without a limit only where it takes no more than 6 GiB.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import gpueinsum as ge
from benchmarks.limited import Case, amplitude, triples
from benchmarks.markdown import Columns, show, write
from benchmarks.sliced import measure, sample, time_text
from benchmarks.units import DASH, ratio_text
from gpueinsum.backends.select import HOST
from gpueinsum.costs.counts import multiply_add_flops, total_flops
from gpueinsum.schedule.slices import predicted_seconds
from gpueinsum.text import bytes_text

SCHEMA = "gpueinsum-overhead/1"
SHARES = (8, 64, 1024, 16384)
CASES: Mapping[str, Callable[[Path], Case]] = {
    "circuit": lambda _: amplitude(5, 6, 12),
    "triples": lambda folder: triples(10, 80, folder),
}
_OURS, _PEER = "gpueinsum", "cotengra"
_MOST = 6 << 30  # bytes that a run without a limit may take here
_LEAST_SEARCH = 20.0  # seconds of a search of its, the first trials of which may be bad


@dataclass(frozen=True, slots=True)
class Run:
    """A contraction within a limit by one library, beside its own run without a limit (`whole`)."""

    name: str
    library: str
    limit: int | None
    bytes: int  # predicted
    search_seconds: float
    slices: int
    slices_run: int
    flops: int
    predicted_seconds: float | None
    seconds: float
    whole_seconds: float | None
    error: float | None  # of all slices


COLUMNS: Columns[Run] = {
    "contraction": lambda row: row.name,
    "limit": lambda row: bytes_text(row.limit) if row.limit else DASH,
    "by": lambda row: row.library,
    "bytes": lambda row: bytes_text(row.bytes),
    "slices": lambda row: f"{row.slices:,}",
    "operations": lambda row: f"{row.flops:.2e}",
    "time": lambda row: time_text(row.seconds, row.slices_run, row.slices),
    "÷ without a limit": lambda row: ratio_text(row.seconds / row.whole_seconds) if row.whole_seconds else DASH,
    "÷ predicted": lambda row: ratio_text(row.seconds / row.predicted_seconds) if row.predicted_seconds else DASH,
    "error": lambda row: DASH if row.error is None else f"{row.error:.0e}",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """A table. 0."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.overhead", description=__doc__)
    parser.add_argument("--seconds", type=float, default=20.0, metavar="N", help="of a run; by default 20")
    parser.add_argument("--only", nargs="+", default=[*CASES], choices=[*CASES], metavar="NAME", help=", ".join(CASES))
    parser.add_argument("--out", type=Path, metavar="FILE.json", help="keep what was measured")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        made = (CASES[name](Path(folder)) for name in options.only)
        found = show(COLUMNS, (row for case in made for row in runs(case, options.seconds)))
    if options.out:
        write(options.out, SCHEMA, {"runs": found})
    return 0


def runs(case: Case, seconds: float) -> Iterator[Run]:
    """Without a limit, and within each; gpueinsum's row first, then cotengra's where that is installed."""
    whole = ge.einsum_plan(case.equation, *case.operands)
    limits = [None, *(whole.peak_bytes("cpu") // share for share in SHARES)]
    ours = theirs = None
    for limit in limits:
        start = time.perf_counter()
        plan = ge.einsum_plan(case.equation, *case.operands, memory_limit=limit)
        searched = time.perf_counter() - start
        found, predicted = measure(plan, case, seconds), predicted_seconds(plan, HOST.profile)
        ours = ours or found.seconds
        yield Run(
            case.name,
            _OURS,
            limit,
            plan.peak_bytes("cpu"),
            searched,
            plan.slices.number,
            max(1, found.slices_run),
            total_flops(plan),
            predicted,
            found.seconds,
            ours,
            found.error if found.slices_run in (0, plan.slices.number) else None,
        )
        if find_spec(_PEER):
            row = _cotengra(case, limit, max(searched, _LEAST_SEARCH), seconds, theirs)
            if row is not None:
                theirs = theirs or row.whole_seconds
                yield row


def _cotengra(case: Case, limit: int | None, search: float, seconds: float, whole: float | None) -> Run | None:
    """By its default search, of trees that are sliced, and of trees that are reconfigured for their slices, too.

    As many slices are run as `seconds` allow. None without a limit where that takes too much memory to be run.
    """
    import cotengra

    terms, output = case.equation.split("->")
    inputs, item = [*map(tuple, terms.split(","))], case.operands[0].itemsize
    sizes = {
        label: size
        for term, x in zip(inputs, case.operands, strict=True)
        for label, size in zip(term, x.shape, strict=True)
    }
    target = (limit or 0) // item // 2  # of the largest array: its sources are there, too
    start, trees = time.perf_counter(), []
    ways = ("slicing_opts", "slicing_reconf_opts")
    for slices in [{}] if limit is None else [{way: {"target_size": target}} for way in ways]:
        optimizer = cotengra.HyperOptimizer(max_time=search, max_repeats=10**6, parallel=False, **slices)
        tree = optimizer.search(inputs, tuple(output), sizes)
        while limit is not None and item * _peak_elements(tree) > limit and tree.max_size() > 1:
            tree.slice_and_reconfigure_(target_size=tree.max_size() // 2)
        trees.append(tree)
    tree = min(trees, key=lambda tree: tree.total_flops())
    searched, count, nbytes = time.perf_counter() - start, tree.nslices, item * _peak_elements(tree)
    if nbytes > _MOST:
        return None
    tree.contract_slice(case.operands, 0)  # what is made once
    begin = time.perf_counter()
    tree.contract_slice(case.operands, 0)
    numbers = sample(count, seconds / count / (time.perf_counter() - begin))
    begin = time.perf_counter()
    parts = [tree.contract_slice(case.operands, number) for number in numbers]
    taken = (time.perf_counter() - begin) * count / len(numbers)
    error = case.error(sum(parts), [{}]) if len(numbers) == count else None
    flops = multiply_add_flops(case.dtype) * tree.total_flops(dtype=None)
    whole = taken if limit is None else whole
    return Run(case.name, _PEER, limit, nbytes, searched, count, len(numbers), flops, None, taken, whole, error)


def _peak_elements(tree: Any) -> int:
    """Of all intermediates of a slice at once."""
    alive = peak = 0
    for parent, *sources in tree.traverse():
        alive += tree.get_size(parent)
        peak = max(peak, alive)
        alive -= sum(tree.get_size(source) for source in sources if not tree.is_leaf(source))
    return peak


if __name__ == "__main__":
    sys.exit(main())
