"""What a run measured, as values: to JSON and back, checked on the way in, and the figures that are made from it.

A `Run` is one device on one day. It holds the machine's measured ceilings and a `Row` for each workload, with the
seconds per call of every peer in every round. Nothing derived is stored: ratios, rates and shares are computed here,
for the table, the plots, the page and the comparison alike.
"""

from __future__ import annotations

import dataclasses
import json
import math
import os
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import UnionType
from typing import Any, get_args, get_origin, get_type_hints

SCHEMA = "gpueinsum-benchmarks/1"
OURS = "gpueinsum"
FLOOR = "ceiling"  # the equal plain GEMMs and copies, timed in the same rounds

# How far the upper quartile of the ratios has to be below 1 before a row counts as lost: a call timed against itself
# gave medians from 0.977 to 1.017, and no upper quartile below 1.000, over all rows (numpy 2.4, 2 shared cores).
NOISE = 0.03


@dataclass(frozen=True, slots=True)
class Spread:
    """Lower quartile, median, upper quartile."""

    low: float
    median: float
    high: float

    @classmethod
    def of(cls, samples: Sequence[float]) -> Spread:
        """Of at least one sample."""
        if len(samples) == 1:
            return cls(samples[0], samples[0], samples[0])
        return cls(*statistics.quantiles(samples, n=4, method="inclusive"))


@dataclass(frozen=True, slots=True)
class Row:
    """One workload: what it is, the work in it, and the seconds per call of everybody in every round.

    `own` are the names in `seconds` that are gpueinsum; the first is what is compared. `flops` and `bytes_moved` are
    those of gpueinsum's plan. `faults` says for each peer that was not timed what was wrong: `WRONG: off by …`
    or `FAILED: …`; `left_out` why one was not tried.
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
    bound: str  # "gemm" or "copy": which of them the ceiling is mostly made of
    input_sets: int  # how many copies of the operands the calls rotate through
    seconds: Mapping[str, Sequence[float]]
    precision: str | None = None
    own: Sequence[str] = (OURS,)
    faults: Mapping[str, str] = field(default_factory=dict)
    left_out: Mapping[str, str] = field(default_factory=dict)

    @property
    def key(self) -> str:
        """What names the row among all rows of all runs, as `compare` matches them."""
        return f"{self.table}: {self.name}, {self.precision or self.dtype}"

    @property
    def peers(self) -> tuple[str, ...]:
        """All that was timed and is neither ours nor the ceiling."""
        return tuple(name for name in self.seconds if name not in (*self.own, FLOOR))

    @property
    def is_wrong(self) -> bool:
        """Whether a result of ours was wrong, or failed."""
        return any(name in self.faults for name in self.own)

    def median(self, name: str) -> float:
        """Seconds per call."""
        return statistics.median(self.seconds[name])

    def ratio(self, above: str, below: str | None = None) -> Spread | None:
        """One's time over another's (ours, if none is named) in each round, as a spread; None if one was not timed."""
        below = below or self.own[0]
        if above not in self.seconds or below not in self.seconds:
            return None
        pairs = zip(self.seconds[above], self.seconds[below], strict=True)
        return Spread.of([x / y for x, y in pairs])

    def best(self, among: Iterable[str] | None = None) -> str | None:
        """The fastest of the peers (or of these), by its median."""
        names = self.peers if among is None else [name for name in among if name in self.peers]
        return min(names, key=self.median, default=None)

    def lead(self, among: Iterable[str] | None = None) -> Spread | None:
        """The best peer's time over ours: above 1 where gpueinsum is faster than all of them."""
        best = self.best(among)
        return self.ratio(best) if best else None

    @property
    def is_lost(self) -> bool:
        """Whether a peer is faster than gpueinsum by more than noise."""
        lead = self.lead()
        return lead is not None and lead.high < 1 - NOISE

    @property
    def share(self) -> Spread | None:
        """The ceiling's time over ours: 1 is the speed of the equal plain GEMMs and copies."""
        return self.ratio(FLOOR)

    @property
    def flops_per_second(self) -> float | None:
        return self.flops / self.median(self.own[0]) if self.own[0] in self.seconds else None

    @property
    def bytes_per_second(self) -> float | None:
        return self.bytes_moved / self.median(self.own[0]) if self.own[0] in self.seconds else None

    @property
    def intensity(self) -> float:
        """Operations for each byte that the plan's steps read and write."""
        return self.flops / max(self.bytes_moved, 1)


@dataclass(frozen=True, slots=True)
class GemmCeiling:
    """A plain matrix product of this size class: row-major, contiguous, into memory that is there already."""

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
    """A copy in the device's memory; bytes are those read and those written."""

    size: str  # "cached" or "memory"
    bytes_moved: int
    seconds: Sequence[float]

    @property
    def bytes_per_second(self) -> float:
        return self.bytes_moved / statistics.median(self.seconds)


@dataclass(frozen=True, slots=True)
class Overhead:
    """What a call costs that has next to nothing to do: a launch, a product of 2 by 2 matrices, …"""

    name: str
    seconds: Sequence[float]

    @property
    def median(self) -> float:
        return statistics.median(self.seconds)


@dataclass(frozen=True, slots=True)
class Ceilings:
    """The machine's own limits, as measured in the same run."""

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
    def families(self) -> Mapping[str, Sequence[Row]]:
        """The rows by family, in their order."""
        found: dict[str, list[Row]] = {}
        for row in self.rows:
            found.setdefault(row.family, []).append(row)
        return found

    @property
    def is_wrong(self) -> bool:
        return any(row.is_wrong for row in self.rows)


def geometric_mean(values: Iterable[float]) -> float | None:
    """None of nothing."""
    logarithms = [math.log(value) for value in values]
    return math.exp(statistics.fmean(logarithms)) if logarithms else None


def mean_lead(rows: Iterable[Row], among: Sequence[str] | None = None) -> float | None:
    """The geometric mean over the rows of the best peer's time over ours."""
    leads = (row.lead(among) for row in rows)
    return geometric_mean(lead.median for lead in leads if lead)


# ---------------------------------------------------------------- JSON


class ResultsError(ValueError):
    """A file is not what a run wrote."""


def write(run: Run, path: Path) -> None:
    """As JSON, a line for each row, times to four digits."""
    write_as(SCHEMA, run, "rows", path)


def write_as(schema: str, value: Any, rows: str, path: Path) -> None:
    """A dataclass as JSON of this schema, with a line for each item of its sequence `rows`."""
    head = {"schema": schema} | _plain(value)
    items = ",\n".join(json.dumps(item, ensure_ascii=False) for item in head.pop(rows))
    text = json.dumps(head, ensure_ascii=False)[:-1] + f',\n"{rows}": [\n{items}\n]}}\n'
    write_file(path, text.encode())


def write_file(path: Path, content: bytes) -> None:
    """Written to a temporary name and renamed: nobody reads half a file."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        temporary.write_bytes(content)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def read(path: Path) -> Run:
    """The run in a file; ResultsError if it is none, or of another version of the suite."""
    run: Run = read_as(Run, SCHEMA, path)
    try:
        _check(run)
    except ResultsError as error:
        raise ResultsError(f"{path}: {error}") from error
    return run


def read_as(kind: type[Any], schema: str, path: Path) -> Any:
    """What `_plain` made plain, from a file that says that it is of this schema. Raises ResultsError."""
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ResultsError(f"{path}: {error}") from error
    found = data.pop("schema", None) if isinstance(data, dict) else None
    if found != schema:
        raise ResultsError(f"{path}: not the results of this suite (schema {found!r}, not {schema!r})")
    try:
        return _made(kind, data, kind.__name__.lower())
    except ResultsError as error:
        raise ResultsError(f"{path}: {error}") from error


def _made(kind: Any, value: Any, where: str) -> Any:
    """What `_plain` made plain, as the annotations of the dataclasses say that it was: lists become tuples again."""
    container, parts, make = get_origin(kind), get_args(kind), kind
    if dataclasses.is_dataclass(kind) and isinstance(value, dict):
        hints = get_type_hints(kind)
        needed = {f.name for f in dataclasses.fields(kind) if f.default is f.default_factory is dataclasses.MISSING}
        if wrong := sorted((value.keys() - hints.keys()) | (needed - value.keys())):
            raise ResultsError(f"{where} lacks, or should not have: {', '.join(wrong)}")
        return make(**{name: _made(hints[name], item, f"{where}.{name}") for name, item in value.items()})
    if container is Sequence and isinstance(value, list):
        return tuple(_made(parts[0], item, f"{where}[{number}]") for number, item in enumerate(value))
    if container is Mapping and isinstance(value, dict):
        return {name: _made(parts[1], item, f"{where}[{name!r}]") for name, item in value.items()}
    if container is UnionType and type(value) in parts:
        return value
    if kind is Any or type(value) is kind:  # a bool is no int here
        return value
    raise ResultsError(f"{where} is {value!r:.60}, not {getattr(kind, '__name__', kind)}")


def _check(run: Run) -> None:
    """Times are times, everybody has as many, and no two rows are the same."""
    ceilings: tuple[GemmCeiling | CopyCeiling | Overhead, ...]
    ceilings = (*run.ceilings.gemm, *run.ceilings.copy, *run.ceilings.overhead)
    for item in ceilings:
        check_times(item.seconds, f"a ceiling, {item!r:.60}…,")
    for row in run.rows:
        for name, seconds in row.seconds.items():
            check_times(seconds, f"{row.key}: {name}")
        if len({len(seconds) for seconds in row.seconds.values()}) > 1:
            raise ResultsError(f"{row.key} has different numbers of rounds")
        if not row.own:
            raise ResultsError(f"{row.key} has no name that is ours")
    keys = [row.key for row in run.rows]
    if twice := sorted({key for key in keys if keys.count(key) > 1}):
        raise ResultsError(f"more than one row is {', '.join(twice)}")


def check_times(seconds: Sequence[float], where: str) -> None:
    if not seconds or not all(0 < x < math.inf for x in seconds):
        raise ResultsError(f"{where} has times that are none: {seconds!r:.40}")


def _plain(value: Any) -> Any:
    """Dataclasses to dictionaries, times to four digits."""
    if dataclasses.is_dataclass(value):
        return {f.name: _plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return float(f"{value:.4g}") if isinstance(value, float) else value
