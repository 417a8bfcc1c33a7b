"""A run on a terminal: a heading, a line for each row as it is measured, a summary."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from benchmarks.results import FLOOR, Row, Run, mean_lead
from benchmarks.units import (
    DASH,
    library,
    outcome,
    percent_text,
    range_text,
    ratio_text,
    speed_text,
    type_text,
)
from gpueinsum.text import seconds_text

_COLUMNS = (
    "{name:<24} {dtype:<11}{ours:>9}  {peer:<16}{theirs:>9} {ratio:>7}  {spread:<11}{speed:>13}{share:>7}  {remark}"
)


def heading(device: Mapping[str, Any]) -> str:
    """What it runs on, and the columns' names."""
    columns = _COLUMNS.format(
        name="row",
        dtype="dtype",
        ours="ours",
        peer="best peer",
        theirs="its time",
        ratio="÷ ours",
        spread="quartiles",
        speed="speed",
        share="of max",
        remark="",
    )
    facts = ", ".join(f"{key} {device[key]}" for key in ("cores", "threads", "driver_cuda") if key in device)
    return f"{device['name']}: {facts}\n\n{columns.rstrip()}"


def line(row: Row) -> str:
    """One row: medians; the best peer's time over ours; the share of the equal GEMMs and copies. Faults below it."""
    lead, best, share, own = row.lead(), row.best(), row.share, row.own[0]
    text = _COLUMNS.format(
        name=f"{'∇ ' if row.table == 'gradients' else ''}{row.name}",
        dtype=type_text(row),
        ours=seconds_text(row.median(own)) if own in row.seconds else row.faults[own].partition(":")[0],
        peer=best or DASH,
        theirs=seconds_text(row.median(best)) if best else DASH,
        ratio=ratio_text(lead.median) if lead else DASH,
        spread=range_text(lead) if lead else "",
        speed=speed_text(row) or DASH,
        share=percent_text(share.median) if share else DASH,
        remark={"lost": "lost", "wrong": "WRONG"}.get(outcome(row), ""),
    )
    return "\n".join([text.rstrip(), *(f"    {name}: {fault}" for name, fault in row.faults.items() if name != FLOOR)])


def summary(run: Run) -> str:
    """The geometric means, and which rows are lost beyond noise or wrong."""
    among = library(run)
    lines = []
    for what, mean in (
        ("the best peer of each row", mean_lead(run.rows)),
        (f"the best of {', '.join(among)}", mean_lead(run.rows, among)),
    ):
        if mean:
            lines.append(f"{what} takes {mean:.2f} times as long as gpueinsum (geometric mean)")
    by_outcome = {
        state: [row for row in run.rows if outcome(row) == state] for state in ("wrong", "lost", "even", "won")
    }
    lines.append(", ".join(f"{len(rows)} {state}" for state, rows in by_outcome.items()) + " beyond noise")
    lines += [f"{state}: {row.key}" for state in ("wrong", "lost") for row in by_outcome[state]]
    return "\n".join(lines)
