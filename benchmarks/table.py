"""A run on a terminal: a heading, a line for each row as it is measured, a line for each family at the end."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from benchmarks.results import FLOOR, Row, Run
from benchmarks.units import DASH, percent_text, range_text, ratio_text, speed_text
from gpueinsum.text import seconds_text

_ROW = "{:<26} {:<11}{:>9}  {:<16}{:>9} {:>7}  {:<11}{:>13}{:>8}  {}"
_FAMILY = "{:<26} {:>5} {:>17} {:>25} {:>17} {:>8}"


def heading(device: Mapping[str, Any]) -> str:
    """The device, and the names of a row's columns."""
    titles = ("row", "dtype", "ours", "best peer", "its time", "÷ ours", "quartiles", "speed", "ceiling", "")
    facts = ", ".join(f"{key} {device[key]}" for key in ("cores", "threads", "driver_cuda") if key in device)
    return f"{device['name']}: {facts}\n\n{_ROW.format(*titles).rstrip()}"


def line(row: Row) -> str:
    """One row: medians, the best peer's time over gpueinsum's, the share of the ceiling; its faults below it."""
    lead, best, own = row.lead(), row.best(), row.own[0]
    text = _ROW.format(
        f"{'∇ ' if row.table == 'gradients' else ''}{row.name}",
        row.type,
        seconds_text(row.median(own)) if own in row.seconds else row.faults[own].partition(":")[0],
        best or DASH,
        seconds_text(row.median(best)) if best else DASH,
        ratio_text(lead.median if lead else None),
        range_text(lead) if lead else "",
        speed_text(row),
        percent_text(row.share.median if row.share else None),
        {"lost": "lost", "wrong": "WRONG"}.get(row.outcome, ""),
    )
    return "\n".join([text.rstrip(), *(f"    {name}: {fault}" for name, fault in row.faults.items() if name != FLOOR)])


def summary(run: Run) -> str:
    """The geometric means of each family and of all rows, and the rows of gpueinsum that are wrong."""
    from benchmarks.frames import families_frame, family_figures, library  # they need pandas, as nothing else here

    titles = ("family", "rows", "best peer ÷ ours", f"best of {library(run)[0]}'s ÷ ours", "lost", "ceiling")
    lines = [(found.Index, *family_figures(found)) for found in families_frame(run).itertuples()]
    wrong = [f"wrong: {row.key}" for row in run.rows if row.is_wrong]
    return "\n".join([*(_FAMILY.format(*cells) for cells in (titles, *lines)), *wrong])
