"""What a run measured, as values: a `Run` of one device on one day, read from JSON and written to it.

A run holds the machine's measured ceilings and a `Row` for each workload, with the seconds per call of every peer in
every round. Nothing derived is stored: a row computes its ratios, rates and shares, and `benchmarks.frames` the means.
"""

from __future__ import annotations

import dataclasses
import json
import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, get_args, get_type_hints

import numpy as np

from gpueinsum.files import write_text

SCHEMA = "gpueinsum-benchmarks/1"
OURS = "gpueinsum"
FLOOR = "ceiling"  # the equal plain GEMMs and copies, timed in the same rounds

# A row is lost if the upper quartile of its ratios is this far below 1: a call timed against itself gave medians from
# 0.977 to 1.017, and no upper quartile below 1.000, over all rows (numpy 2.4, 2 shared cores).
NOISE = 0.03


class ResultsError(ValueError):
    """A file does not hold what a run wrote, or a request has no rows."""


class Spread(NamedTuple):
    """Lower quartile, median, upper quartile."""

    low: float
    median: float
    high: float

    @classmethod
    def of(cls, samples: Sequence[float]) -> Spread:
        """The quartiles of at least one sample, between samples by linear interpolation."""
        return cls(*np.quantile(samples, (0.25, 0.5, 0.75)).tolist())


@dataclass(frozen=True, slots=True)
class Row:
    """One workload: what it is, the work in it, and the seconds per call of every peer in every round.

    `own` are the names in `seconds` that are gpueinsum's; the first is compared with the peers. `flops` and
    `bytes_moved` are those of gpueinsum's plan. `faults` says for each peer that was not timed what was wrong:
    `WRONG: off by …` or `FAILED: …`; `left_out` says why a peer was not tried.
    """

    table: str  # "einsum" or "gradients"
    family: str
    name: str
    equation: str
    sizes: Mapping[str, int]
    dtype: str
    source: str
    flops: int
    bytes_moved: int
    bound: str  # "gemm" or "copy": what most of the ceiling's time is
    input_sets: int  # how many copies of the operands the calls rotate through
    seconds: Mapping[str, Sequence[float]]
    precision: str | None = None
    own: Sequence[str] = (OURS,)
    faults: Mapping[str, str] = field(default_factory=dict)
    left_out: Mapping[str, str] = field(default_factory=dict)

    @property
    def type(self) -> str:
        """The dtype, or the precision where a row has one: `tf32`."""
        return self.precision or self.dtype

    @property
    def key(self) -> str:
        """The row's name among all rows of all runs."""
        return f"{self.table}: {self.name}, {self.type}"

    @property
    def peers(self) -> tuple[str, ...]:
        """All that was timed, but for gpueinsum and the ceiling."""
        return tuple(name for name in self.seconds if name not in (*self.own, FLOOR))

    @property
    def is_wrong(self) -> bool:
        """Whether a result of gpueinsum was wrong, or failed."""
        return any(name in self.faults for name in self.own)

    def median(self, name: str) -> float:
        """Seconds per call."""
        return statistics.median(self.seconds[name])

    def ratio(self, above: str) -> Spread | None:
        """That time over gpueinsum's in each round; None if one of both was not timed."""
        if above not in self.seconds or self.own[0] not in self.seconds:
            return None
        return Spread.of(np.divide(self.seconds[above], self.seconds[self.own[0]]))

    def best(self, among: Iterable[str] | None = None) -> str | None:
        """The peer (of these) with the lowest median."""
        names = self.peers if among is None else [name for name in among if name in self.peers]
        return min(names, key=self.median, default=None)

    def lead(self, among: Iterable[str] | None = None) -> Spread | None:
        """The best peer's time over gpueinsum's: above 1 where gpueinsum is faster than all peers."""
        best = self.best(among)
        return self.ratio(best) if best else None

    @property
    def outcome(self) -> str:
        """`wrong`, `alone` (no peer was timed), `lost` or `won` (beyond noise), or `even`."""
        lead = self.lead()
        if self.is_wrong:
            return "wrong"
        if lead is None:
            return "alone"
        return "lost" if lead.high < 1 - NOISE else "won" if lead.low > 1 + NOISE else "even"

    @property
    def share(self) -> Spread | None:
        """The ceiling's time over gpueinsum's: 1 is the speed of the equal plain GEMMs and copies."""
        return self.ratio(FLOOR)

    @property
    def flops_per_second(self) -> float | None:
        """Of gpueinsum; None if it was not timed."""
        return self.flops / self.median(self.own[0]) if self.own[0] in self.seconds else None

    @property
    def bytes_per_second(self) -> float | None:
        """Of gpueinsum; None if it was not timed."""
        return self.bytes_moved / self.median(self.own[0]) if self.own[0] in self.seconds else None

    @property
    def intensity(self) -> float:
        """Operations per byte that the plan's steps read and write."""
        return self.flops / max(self.bytes_moved, 1)


@dataclass(frozen=True, slots=True)
class GemmCeiling:
    """A plain matrix product of one size class: row-major, contiguous, into memory that is there already."""

    dtype: str  # or a precision: "tf32"
    size: str  # "small", "medium", "large", "batched"
    batch: int
    m: int
    n: int
    k: int
    flops: int
    seconds: Sequence[float]

    @property
    def flops_per_second(self) -> float:
        return self.flops / statistics.median(self.seconds)


@dataclass(frozen=True, slots=True)
class CopyCeiling:
    """A copy in the device's memory; its bytes are those read and those written."""

    size: str  # "cached" or "memory"
    bytes_moved: int
    seconds: Sequence[float]

    @property
    def bytes_per_second(self) -> float:
        return self.bytes_moved / statistics.median(self.seconds)


@dataclass(frozen=True, slots=True)
class Overhead:
    """The cost of a call with next to nothing to compute: a launch, a product of 2 x 2 matrices, ..."""

    name: str
    seconds: Sequence[float]


@dataclass(frozen=True, slots=True)
class Ceilings:
    """The machine's own limits, measured in the same run."""

    gemm: Sequence[GemmCeiling]
    copy: Sequence[CopyCeiling]
    overhead: Sequence[Overhead]
    faults: Mapping[str, str] = field(default_factory=dict)  # which of them could not be measured, and why

    def flops_per_second(self, dtype: str) -> float | None:
        """The fastest plain GEMM of a dtype (or precision), over all size classes."""
        return max((gemm.flops_per_second for gemm in self.gemm if gemm.dtype == dtype), default=None)

    @property
    def bytes_per_second(self) -> float | None:
        """The bandwidth of memory: of the largest copy."""
        largest = max(self.copy, key=lambda copy: copy.bytes_moved, default=None)
        return largest.bytes_per_second if largest else None


@dataclass(frozen=True, slots=True)
class Run:
    """Everything that was measured, and on what.

    `device` has `kind` ("cpu" or "cuda"), `name`, and what else is known of it; `method` says how it was measured.
    """

    date: str  # ISO 8601, UTC
    device: Mapping[str, Any]
    versions: Mapping[str, str]
    method: Mapping[str, Any]
    ceilings: Ceilings
    rows: Sequence[Row]

    @property
    def is_wrong(self) -> bool:
        return any(row.is_wrong for row in self.rows)


# ---------------------------------------------------------------- JSON


def write(run: Run, path: Path) -> None:
    """Write a run as JSON, a line for each row, times to four digits."""
    write_as(SCHEMA, run, "rows", path)


def write_as(schema: str, value: Any, rows: str, path: Path) -> None:
    """Write a dataclass as JSON of this schema, with a line for each item of its sequence `rows`."""
    data = json.loads(json.dumps(dataclasses.asdict(value)), parse_float=lambda text: float(f"{float(text):.4g}"))
    items = ",\n".join(json.dumps(item, ensure_ascii=False) for item in data.pop(rows))
    head = json.dumps({"schema": schema} | data, ensure_ascii=False)
    write_text(path, f'{head[:-1]},\n"{rows}": [\n{items}\n]}}\n')


def read(path: Path) -> Run:
    """The run in a file. Raises ResultsError if the file holds none."""
    run: Run = read_as(Run, SCHEMA, path, _check)
    return run


def read_as(kind: Any, schema: str, path: Path, check: Any) -> Any:
    """The dataclass that `write_as` wrote to a file, once `check` accepts it. Raises ResultsError, naming the file."""
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        found = data.pop("schema", None) if isinstance(data, dict) else None
        if found != schema:
            raise ResultsError(f"not the results of this suite (schema {found!r}, not {schema!r})")
        value = _from_json(kind, data)
        check(value)
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise ResultsError(f"{path}: {error}") from error
    return value


def _from_json(hint: Any, value: Any) -> Any:
    """JSON's lists and dictionaries as the tuples and dataclasses that the annotation names."""
    if dataclasses.is_dataclass(hint):
        hints = get_type_hints(hint)
        return hint(**{name: _from_json(hints.get(name), item) for name, item in value.items()})
    if isinstance(value, list):
        return tuple(_from_json(next(iter(get_args(hint)), None), item) for item in value)
    return value


def _check(run: Run) -> None:
    """Raise ResultsError unless times are times, a row's peers have equally many, and no two rows are the same."""
    for item in (*run.ceilings.gemm, *run.ceilings.copy, *run.ceilings.overhead):
        check_times(item.seconds, f"a ceiling, {item!r:.60}…,")
    for row in run.rows:
        for name, seconds in row.seconds.items():
            check_times(seconds, f"{row.key}: {name}")
        if len({len(seconds) for seconds in row.seconds.values()}) > 1:
            raise ResultsError(f"{row.key} has different numbers of rounds")
        if not row.own:
            raise ResultsError(f"{row.key} names no call of gpueinsum")
    keys = [row.key for row in run.rows]
    if twice := sorted({key for key in keys if keys.count(key) > 1}):
        raise ResultsError(f"more than one row is {', '.join(twice)}")


def check_times(seconds: Sequence[float], where: str) -> None:
    """Raise ResultsError unless all of them are positive and finite, and there is at least one."""
    if not seconds or not all(type(x) in (int, float) and 0 < x < math.inf for x in seconds):
        raise ResultsError(f"{where} has times that are none: {seconds!r:.40}")
