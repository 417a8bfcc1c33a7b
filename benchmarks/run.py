"""Measure the suite on a device, row by row, into a `Run`."""

from __future__ import annotations

import argparse
import datetime
import os
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from itertools import count
from operator import itemgetter
from time import perf_counter

from benchmarks import ceilings as limits
from benchmarks import gradients, libraries, peers
from benchmarks.devices import Device, input_sets
from benchmarks.measure import Peer, Times, failure, measure
from benchmarks.peers import Job, Peers, plan_of
from benchmarks.results import FLOOR, OURS, Ceilings, ResultsError, Row, Run
from benchmarks.suite import EINSUMS, GRADIENTS
from benchmarks.workloads import Workload
from gpueinsum.costs.counts import step_costs, total_flops

# Seconds for the rounds of one row, and for each ceiling; rows whose rounds take longer have two or three.
SECONDS, QUICK_SECONDS = 1.0, 0.1
_CEILING_SECONDS, _QUICK_CEILING_SECONDS = 0.5, 0.05
# A quick look takes the first few rows of each family that have no more operations than these.
_QUICK_ROWS, _QUICK_FLOPS = 2, {"cpu": 4 * 10**9, "cuda": 2 * 10**12}
_ENVIRONMENT = "OPENBLAS_CORETYPE", "OPENBLAS_THREAD_TIMEOUT", "GOMP_SPINCOUNT"  # what changes the speed of peers

Rows = Sequence[tuple[str, Workload]]  # the table's name, and what is measured

FAMILIES = tuple(dict.fromkeys(row.family for row in (*EINSUMS, *GRADIENTS)))
_NAMES = {row.name for row in (*EINSUMS, *GRADIENTS)}


def named(text: str) -> str:
    """A row's name or a family's, as an argument of a command. Raises ArgumentTypeError for any other text."""
    if text not in FAMILIES and text not in _NAMES:
        raise argparse.ArgumentTypeError(f"{text!r} is none of {', '.join((*FAMILIES, *sorted(_NAMES)))}")
    return text


def rows_of(place: Device, names: Sequence[str] | None = None, quick: bool = False, tiny: bool = False) -> Rows:
    """The rows for this device; of these names or families in their order, if some are given. bfloat16 needs ml_dtypes.

    Raises ResultsError if there is none.
    """
    has_bfloat16 = find_spec("ml_dtypes") is not None
    found = [
        (table, row.tiny() if tiny else row)
        for table, rows in (("einsum", EINSUMS), ("gradients", GRADIENTS))
        for workload in rows
        if (row := workload.on(place.kind)) and (not names or row.name in names or row.family in names)
        if has_bfloat16 or row.dtype != "bfloat16"
    ]
    if not found:
        raise ResultsError(f"{', '.join(names or ())}: not measured on this kind of device, {place.kind!r}")
    if names:
        return sorted(found, key=lambda row: min(names.index(n) for n in (row[1].name, row[1].family) if n in names))
    return list(_quick(found, place)) if quick else found


def _quick(rows: Rows, place: Device) -> Iterator[tuple[str, Workload]]:
    """Of each family the first few, but for those that take long."""
    seen: Counter[str] = Counter()
    for table, row in rows:
        if seen[row.family] < _QUICK_ROWS and total_flops(plan_of(row)) <= _QUICK_FLOPS[place.kind]:
            seen[row.family] += 1
            yield table, row


def run(
    place: Device,
    rows: Rows,
    quick: bool = False,
    tiny: bool = False,
    minutes: float | None = None,
    others: Sequence[str] | None = None,
) -> Iterator[Run]:
    """Measure the ceilings, then row after row: what there is after each of them; beside all `others`, or those given.

    With `tiny` everything has sizes that only show that it runs. After so many `minutes` no row but the first is begun.
    """
    started, date = perf_counter(), datetime.datetime.now(datetime.UTC)
    seconds = QUICK_SECONDS if quick else SECONDS
    found = limits.ceilings(place, _QUICK_CEILING_SECONDS if quick else _CEILING_SECONDS, tiny)
    place.tidy()
    facts, versions = place.facts(), libraries.versions(place)
    rows = rows if minutes is None else families_in_turn(rows)
    measured: list[Row] = []
    for table, workload in rows:
        if measured and minutes is not None and perf_counter() - started > 60 * minutes:
            break
        measured.append(_row(table, workload, place, found, seconds, others))
        place.tidy()
        method = {
            "quick": quick,
            "tiny": tiny,
            "rows_planned": len(rows),
            "rows_measured": len(measured),
            "seconds_per_row": seconds,
            "seconds_taken": perf_counter() - started,
            "clock": "CUDA events" if place.kind == "cuda" else "the host's",
            **{name.lower(): os.environ.get(name) for name in _ENVIRONMENT},
        }
        yield Run(date.isoformat(timespec="seconds"), facts, versions, method, found, tuple(measured))


def families_in_turn(rows: Rows) -> Rows:
    """The first row of every family, then the second: so that all families are there when the time is over."""
    turns: defaultdict[str, Iterator[int]] = defaultdict(count)
    numbered = [(next(turns[row[1].family]), row) for row in rows]
    return [row for _, row in sorted(numbered, key=itemgetter(0))]


def _row(
    table: str, workload: Workload, place: Device, found: Ceilings, seconds: float, others: Sequence[str] | None = None
) -> Row:
    """The row; if even its beginning fails (memory that is not there, say), with that for a result."""
    try:
        return measure_row(table, workload, place, found, seconds, others)
    except Exception as error:  # one row is not the end of the run
        plan = plan_of(workload)
        empty = Peers({}, {}, plan, gradients.OWN if table == "gradients" else (OURS,))
        return _as_row(table, workload, empty, found, 0, Times({}, {OURS: failure(error)}))


def measure_row(
    table: str, workload: Workload, place: Device, found: Ceilings, seconds: float, others: Sequence[str] | None = None
) -> Row:
    """Everybody on one row, or the `others` given; the plain GEMMs and copies that equal our plan among them."""
    sets = input_sets(workload, place)
    with Job(workload, place, sets, table == "gradients", others) as job:
        who = gradients.peers(job) if table == "gradients" else peers.peers(job)
        floor = Peer([limits.equal_work(who.plan, workload.precision, found, place) for _ in range(sets)])
        times = measure({**who.peers, FLOOR: floor}, place, seconds, always=(*who.own, FLOOR))
    return _as_row(table, workload, who, found, sets, times)


def _as_row(table: str, workload: Workload, who: Peers, found: Ceilings, sets: int, times: Times) -> Row:
    return Row(
        table=table,
        family=workload.family,
        name=workload.name,
        equation=workload.equation,
        sizes=workload.size,
        dtype=workload.dtype,
        precision=workload.precision,
        source=workload.source,
        flops=total_flops(who.plan),
        bytes_moved=sum(cost.bytes_moved for cost in step_costs(who.plan)),
        bound=limits.bound(who.plan, workload.precision, found),
        input_sets=sets,
        seconds=times.seconds,
        own=who.own,
        faults=times.faults,
        left_out={**who.left_out, **times.slow},
    )
