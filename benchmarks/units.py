"""Figures as texts, the same on the terminal, in the plots and on the page."""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from typing import Any

from benchmarks.results import Row, Run, Spread
from gpueinsum.text import bytes_text, count_text, seconds_text

DASH = "–"


def rate_text(per_second: float, unit: str) -> str:
    """A rate to three digits, in thousands, as bandwidths are given everywhere.

    >>> rate_text(51.23e12, "FLOP"), rate_text(980, "FLOP"), rate_text(3.9e12, "B")
    ('51.2 TFLOP/s', '980 FLOP/s', '3.9 TB/s')
    """
    text = count_text(per_second)
    return f"{text}{'' if text[-1].isalpha() else ' '}{unit}/s"


def ratio_text(ratio: float | None) -> str:
    """
    >>> ratio_text(1.234), ratio_text(12.34), ratio_text(123.4), ratio_text(0.0456), ratio_text(None)
    ('1.23', '12.3', '123', '0.046', '–')
    """
    if ratio is None or ratio != ratio:  # NaN, as pandas writes what is missing
        return DASH
    digits = 3 if ratio < 0.0995 else 2 if ratio < 9.995 else 1 if ratio < 99.95 else 0
    return f"{ratio:,.{digits}f}"


def range_text(spread: Spread) -> str:
    """The quartiles: `1.10–1.15`."""
    return f"{ratio_text(spread.low)}{DASH}{ratio_text(spread.high)}"


def percent_text(share: float | None) -> str:
    """
    >>> percent_text(0.876), percent_text(0.0123), percent_text(None)
    ('88%', '1.2%', '–')
    """
    if share is None or share != share:
        return DASH
    return f"{100 * share:.0f}%" if share >= 0.0995 else f"{100 * share:.2g}%"


def speed_text(row: Row) -> str:
    """The speed of gpueinsum: operations per second where GEMMs take most of the time, else bytes per second."""
    if row.flops_per_second is None or row.bytes_per_second is None:
        return DASH
    if row.flops == 0 or row.bound == "copy":
        return rate_text(row.bytes_per_second, "B")
    return rate_text(row.flops_per_second, "FLOP")


def device_text(run: Run) -> str:
    """`AMD EPYC, 2 cores, 2 threads`."""
    counts = ((key, run.device.get(key)) for key in ("cores", "threads") if run.device.get("kind") != "cuda")
    parts = (f"{number} {key if number != 1 else key[:-1]}" for key, number in counts if number is not None)
    return ", ".join([str(run.device.get("name", "unnamed device")), *parts])


def date_text(run: Run) -> str:
    """The date to the minute, in UTC; the text as it is if it is no date."""
    try:
        return f"{datetime.datetime.fromisoformat(run.date).astimezone(datetime.UTC):%Y-%m-%d %H:%M} UTC"
    except ValueError:
        return run.date


def versions_text(run: Run) -> str:
    """`python 3.11.7, numpy 2.4.6`."""
    return ", ".join(f"{name} {version}" for name, version in run.versions.items())


def fact_text(value: Any, name: str) -> str:
    """A value that a run states of its device or method: bytes and seconds by the name, lists with commas."""
    match value:
        case bool() | None:
            return {True: "yes", False: "no", None: "unknown"}[value]
        case Mapping():
            return ", ".join(f"{key} {fact_text(item, str(key))}" for key, item in value.items())
        case list() | tuple():
            return ", ".join(fact_text(item, name) for item in value)
        case int() | float() if "bytes" in name:
            return bytes_text(value)
        case int() | float() if "seconds" in name:
            return seconds_text(value) if value > 0 else f"{value} s"
        case float():
            return f"{value:.4g}"
    return str(value)
