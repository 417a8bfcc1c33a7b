"""A run in, one HTML page out that needs nothing but itself: `templates/page.html`, filled with frames and plots."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from benchmarks.frames import families_frame, family_figures, family_table, library, rows_frame
from benchmarks.results import FLOOR, NOISE, Row, Run, Spread
from benchmarks.units import (
    DASH,
    date_text,
    device_text,
    fact_text,
    percent_text,
    range_text,
    rate_text,
    ratio_text,
    speed_text,
    versions_text,
)
from gpueinsum.text import bytes_text, seconds_text

__all__ = ["family_table", "page"]


def page(run: Run, plots: Mapping[str, str]) -> str:
    """The page of a run; `plots` are texts of SVGs, whose names end in `roofline` and `ratios`."""
    rows = rows_frame(run)
    families = [(found, family_figures(found), _worst(run, found.Index)) for found in families_frame(run).itertuples()]
    return _ENVIRONMENT.get_template("page.html").render(
        run=run,
        plots={name.rpartition("-")[2]: svg for name, svg in plots.items()},
        counts=Counter(row.table for row in run.rows),
        wrong=[row for row in run.rows if row.is_wrong],
        lost=list(rows[rows["outcome"] == "lost"].sort_values("lead")["row"]),
        families=families,
        total=families[-1][0],
        rows={family: list(found["row"]) for family, found in rows.groupby("family", sort=False)},
        tables={table: _medians(run, table) for table in dict.fromkeys(row.table for row in run.rows)},
        library=library(run),
        sources=_grouped((row.source, row.name) for row in run.rows),
        facts={"This run": run.method, "The device": run.device, "Versions": run.versions},
        noise=NOISE,
        floor=FLOOR,
        dash=DASH,
    )


def _worst(run: Run, family: str) -> Row | None:
    """The row of a family (or of all) that is wrong, or else has the lowest ratio."""
    rows = [row for row in run.rows if family in ("all", row.family) and (row.is_wrong or row.lead())]
    return min(rows, key=lambda row: -1.0 if row.is_wrong else row.lead().median, default=None)


def _medians(run: Run, table: str) -> tuple[list[str], list[Row]]:
    """The names of all who take part in a table, gpueinsum's first, and its rows."""
    rows = [row for row in run.rows if row.table == table]
    names = [name for row in rows for name in (*row.own, *row.peers)]
    return list(dict.fromkeys([*names, *(name for row in rows for name in (*row.faults, *row.left_out))])), rows


def _grouped(pairs: Iterator[tuple[str, str]]) -> dict[str, list[str]]:
    """The second of each pair by the first, each once."""
    found: dict[str, dict[str, None]] = {}
    for key, value in pairs:
        found.setdefault(key, {})[value] = None
    return {key: list(values) for key, values in found.items()}


def _sizes_text(row: Row) -> str:
    """The size of each label; of more than 8 labels how many have which size: `43 labels: 39 of 2, 4 of 64`."""
    if len(row.sizes) <= 8:
        return " ".join(f"{label}={size}" for label, size in row.sizes.items())
    counts = Counter(row.sizes.values()).most_common(4)
    more = ", …" if len(set(row.sizes.values())) > len(counts) else ""
    return f"{len(row.sizes)} labels: {', '.join(f'{count} of {size}' for size, count in counts)}{more}"


def _bar(ratio: float | None) -> str:
    """CSS of a bar from 1 to a ratio, on a logarithmic scale from 1/8 to 8."""
    if ratio is None or not 0 < ratio < math.inf:
        return "width:0"
    end = max(-1.0, min(math.log(ratio, 8), 1.0))
    return f"left:{50 + 50 * min(end, 0):.1f}%;width:{50 * abs(end):.1f}%"


def _counted(count: int, noun: str) -> str:
    """`1 row`, `2 rows`, `2 sets of gradients`."""
    head, _, tail = noun.partition(" ")
    return f"{count} {head}{'s' if count != 1 else ''} {tail}".rstrip()


_ENVIRONMENT = Environment(
    loader=FileSystemLoader(Path(__file__).parent / "templates"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
_ENVIRONMENT.filters |= {
    **{"bytes": bytes_text, "seconds": seconds_text, "ratio": ratio_text, "percent": percent_text, "rate": rate_text},
    **{"range": range_text, "speed": speed_text, "device": device_text, "date": date_text, "versions": versions_text},
    **{"fact": fact_text, "sizes": _sizes_text, "bar": _bar, "counted": _counted, "spread": Spread.of},
    **{"grouped": lambda pairs: _grouped((reason, name) for name, reason in pairs)},
}
