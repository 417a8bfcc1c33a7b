"""How a run's figures are written and its rows named: the same on the terminal, in the plots and on the page."""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from typing import Any

from benchmarks.results import NOISE, Row, Run, Spread
from gpueinsum.text import bytes_text, count_text, seconds_text

# What one would call without another framework: numpy's (CuPy's) own einsum, and the path optimizers on top of it.
LIBRARY = {
    "cpu": ("numpy", "numpy optimized", "opt_einsum", "cotengra"),
    "cuda": ("cupy", "cupy cutensor", "opt_einsum", "cotengra"),
}
DASH = "–"


def flops_text(flops_per_second: float) -> str:
    """
    >>> flops_text(51.23e12), flops_text(980)
    ('51.2 TFLOP/s', '980 FLOP/s')
    """
    return _per_second(flops_per_second, "FLOP")


def bandwidth_text(bytes_per_second: float) -> str:
    """In thousands, as bandwidths are given everywhere.

    >>> bandwidth_text(3.9e12), bandwidth_text(21.5e9)
    ('3.9 TB/s', '21.5 GB/s')
    """
    return _per_second(bytes_per_second, "B")


def ratio_text(ratio: float) -> str:
    """
    >>> ratio_text(1.234), ratio_text(12.34), ratio_text(123.4), ratio_text(0.0456)
    ('1.23', '12.3', '123', '0.046')
    """
    digits = 3 if ratio < 0.0995 else 2 if ratio < 9.995 else 1 if ratio < 99.95 else 0
    return f"{ratio:,.{digits}f}"


def range_text(spread: Spread) -> str:
    """The quartiles: `1.10–1.15`."""
    return f"{ratio_text(spread.low)}{DASH}{ratio_text(spread.high)}"


def percent_text(share: float) -> str:
    """
    >>> percent_text(0.876), percent_text(0.0123)
    ('88%', '1.2%')
    """
    return f"{100 * share:.0f}%" if share >= 0.0995 else f"{100 * share:.2g}%"


def speed_text(row: Row) -> str | None:
    """What gpueinsum reaches: operations per second where GEMMs take the time, else bytes; None if it was not timed."""
    if row.flops_per_second is None or row.bytes_per_second is None:
        return None
    if row.flops == 0 or row.bound == "copy":
        return bandwidth_text(row.bytes_per_second)
    return flops_text(row.flops_per_second)


def type_text(row: Row) -> str:
    """The dtype, or the precision where that decides: `tf32`."""
    return row.precision or row.dtype


def outcome(row: Row) -> str:
    """`wrong`, `alone` (no peer was timed), `lost` or `won` (beyond noise), or `even`."""
    lead = row.lead()
    if row.is_wrong:
        return "wrong"
    if lead is None:
        return "alone"
    if row.is_lost:
        return "lost"
    return "won" if lead.low > 1 + NOISE else "even"


def standing(row: Row) -> float:
    """The median of its lead, by which rows are sorted; 0 where there is none."""
    lead = row.lead()
    return lead.median if lead else 0.0


def library(run: Run) -> tuple[str, ...]:
    """The family of peers that use nothing but numpy, or CuPy on CUDA."""
    return LIBRARY.get(run.device.get("kind", "cpu"), LIBRARY["cpu"])


def device_text(run: Run) -> str:
    """`AMD EPYC, 2 cores, 2 threads`."""
    counts = ((key, run.device.get(key)) for key in ("cores", "threads") if run.device.get("kind") != "cuda")
    parts = (f"{number} {key if number != 1 else key[:-1]}" for key, number in counts if number is not None)
    return ", ".join([str(run.device.get("name", "unnamed device")), *parts])


def date_text(run: Run) -> str:
    """To the minute, in UTC; whatever is there if it is no date."""
    try:
        date = datetime.datetime.fromisoformat(run.date)
    except ValueError:
        return run.date
    if date.tzinfo is not None:
        date = date.astimezone(datetime.UTC)
    return f"{date:%Y-%m-%d %H:%M} UTC"


def versions_text(run: Run) -> str:
    return ", ".join(f"{name} {version}" for name, version in run.versions.items())


def fact_text(name: str, value: Any) -> str:
    """Something that a run says of its device or its method: bytes and seconds by the name, lists by commas."""
    if isinstance(value, bool) or value is None:
        return {True: "yes", False: "no", None: "unknown"}[value]
    if isinstance(value, Mapping):
        return ", ".join(f"{_words(key)} {fact_text(str(key), item)}" for key, item in value.items())
    if isinstance(value, (list, tuple)):
        return ", ".join(fact_text(name, item) for item in value)
    if isinstance(value, (int, float)) and "bytes" in name:
        return bytes_text(value)
    if isinstance(value, (int, float)) and "seconds" in name:
        return seconds_text(value) if value > 0 else f"{value} s"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def shortened(text: str, length: int) -> str:
    """
    >>> shortened("ab,bc,cd->ad", 6)
    'ab,bc…'
    """
    return text if len(text) <= length else f"{text[: length - 1]}…"


def _words(name: object) -> str:
    return str(name).replace("_", " ")


def _per_second(number: float, unit: str) -> str:
    text = count_text(number)
    return f"{text}{'' if text[-1].isalpha() else ' '}{unit}/s"
