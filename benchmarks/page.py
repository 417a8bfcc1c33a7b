"""A run as one HTML page, which needs nothing but itself; and its families as a Markdown table."""

from __future__ import annotations

import re
import statistics
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

from benchmarks.results import (
    FLOOR,
    NOISE,
    OURS,
    CopyCeiling,
    GemmCeiling,
    Overhead,
    Row,
    Run,
    Spread,
    mean_lead,
    write_file,
)
from benchmarks.units import (
    DASH,
    bandwidth_text,
    date_text,
    device_text,
    fact_text,
    flops_text,
    library,
    outcome,
    percent_text,
    range_text,
    ratio_text,
    shortened,
    speed_text,
    standing,
    type_text,
    versions_text,
)
from gpueinsum.text import bytes_text, seconds_text


def write_page(run: Run, plots: Mapping[str, str], path: Path) -> None:
    """The page of a run as a file."""
    write_file(path, page(run, plots).encode())


def page(run: Run, plots: Mapping[str, str]) -> str:
    """The page of a run; `plots` are texts of SVGs, whose names end in `roofline` and `ratios`."""
    sections = [
        *_header(run),
        *_wrong(run),
        *_headlines(run),
        *_plots(plots),
        *_losses(run),
        *_families(run),
        *_all_rows(run),
        *_ceilings(run),
        *_method(run),
        *_sources(run),
    ]
    title = f"gpueinsum beside its peers: {escape(device_text(run))}, {escape(date_text(run))}"
    head = (
        '<meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta name="color-scheme" content="light dark">'
        f"<title>{title}</title><style>{_CSS}</style>"
    )
    body = "\n".join(sections)
    return f'<!DOCTYPE html>\n<html lang="en">\n<head>{head}</head>\n<body><main>\n{body}\n</main></body>\n</html>\n'


def family_table(run: Run) -> str:
    """Markdown: a line per family, and one for all."""
    beside = f"best of {', '.join(library(run))} ÷ gpueinsum"
    titles = ("family", "rows", "best peer ÷ gpueinsum", beside, "lost beyond noise", "share of the ceiling")
    groups = [*run.families.items(), ("**all**", run.rows)]
    lines = [titles, ("---", *["---:"] * (len(titles) - 1))]
    lines += [(name.replace("|", "\\|"), *_family_figures(rows, run)) for name, rows in groups]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _family_figures(rows: Sequence[Row], run: Run) -> tuple[str, ...]:
    states = Counter(map(outcome, rows))
    lost = f"{states['lost']} of {sum(states[state] for state in ('won', 'even', 'lost'))}"
    wrong = f", {states['wrong']} wrong" if states["wrong"] else ""
    beside = [row for row in rows if row.lead(library(run))]
    fewer = 0 < len(beside) < sum(1 for row in rows if row.lead())
    mean = _or_dash(mean_lead(beside, library(run))) + (f" ({_counted(len(beside), 'row')})" if fewer else "")
    return str(len(rows)), _or_dash(mean_lead(rows)), mean, lost + wrong, _share_of(rows)


def _or_dash(ratio: float | None) -> str:
    return DASH if ratio is None else ratio_text(ratio)


def _share_of(rows: Iterable[Row]) -> str:
    """The median of the rows' shares of their ceilings."""
    shares = [share.median for row in rows if (share := row.share)]
    return percent_text(statistics.median(shares)) if shares else DASH


# ---------------------------------------------------------------- the parts of the page, in their order


def _header(run: Run) -> Iterator[str]:
    counts = Counter(row.table for row in run.rows)
    what = " and ".join(_counted(count, _TABLES.get(table, table)) for table, count in counts.items())
    yield "<header><h1>gpueinsum beside its peers</h1>"
    yield f"<p><strong>{escape(device_text(run))}</strong>; {escape(date_text(run))}"
    yield f"<br>{escape(versions_text(run))}</p>"
    yield (
        f"<p>{what or 'No rows'}: each computed by gpueinsum and by all of its peers that can, every result checked "
        "first, and timed in turn, round after round, in one process. A ratio is a peer’s time divided by "
        "gpueinsum’s: above 1, gpueinsum is faster.</p>"
    )
    for mark, words in _WARNINGS.items():
        if run.method.get(mark):
            yield f'<p class="warning">{words}</p>'
    if (measured := run.method.get("rows_measured", 0)) < (planned := run.method.get("rows_planned", 0)):
        yield f'<p class="warning">The run ended after {measured} of {planned} rows: means are those of these rows.</p>'
    links = "".join(f'<a href="#{name}">{title}</a>' for name, title in _LINKS.items())
    yield f"<nav>{links}</nav></header>"


_WARNINGS = {
    "quick": "A quick run, of few rounds: a look, not a measurement.",
    "tiny": "The smallest sizes, which show only that everything runs: not a measurement.",
}
_TABLES = {"einsum": "contraction", "gradients": "set of gradients"}
_LINKS = {
    "losses": "Losses",
    "families": "Families",
    "rows": "All rows",
    "ceilings": "Ceilings",
    "method": "How it was measured",
    "sources": "Sources",
}


def _counted(count: int, what: str) -> str:
    head, *tail = what.split(" ", 1)
    return f"{count} {escape(' '.join([head if count == 1 else f'{head}s', *tail]))}"


def _wrong(run: Run) -> Iterator[str]:
    """First of all: what is wrong with our own results."""
    rows = [row for row in run.rows if row.is_wrong]
    if rows:
        yield f'<section class="wrong"><h2>{_counted(len(rows), "row")} of gpueinsum wrong or failed</h2><ul>'
        for row in rows:
            faults = "; ".join(f"{name} {row.faults[name]}" for name in row.own if name in row.faults)
            yield f"<li><strong>{_name(row)}</strong> ({escape(row.family)}): {escape(faults)}</li>"
        yield "</ul><p>A wrong result is never timed: these rows are part of no ratio and no mean below.</p></section>"


def _headlines(run: Run) -> Iterator[str]:
    states = Counter(map(outcome, run.rows))
    compared = [row for row in run.rows if row.lead()]
    beside = [row for row in compared if row.lead(library(run))]
    others = [_counted(states["wrong"], "row") + " wrong"] if states["wrong"] else []
    others += [_counted(states["alone"], "row") + " without a peer"] if states["alone"] else []
    figures = [
        (
            _or_dash(mean_lead(compared)),
            "best peer ÷ gpueinsum",
            f"geometric mean of {_counted(len(compared), 'row')}, each against the fastest of all its peers",
        ),
        (
            _or_dash(mean_lead(beside, library(run))),
            f"best of {', '.join(library(run))} ÷ gpueinsum",
            f"geometric mean of {_counted(len(beside), 'row')}",
        ),
        (
            f'<span class="won">{states["won"]}</span> / {states["even"]} / <span class="lost">{states["lost"]}</span>',
            "won / even / lost",
            "; ".join([f"won and lost: beyond noise, as {_link('method', 'defined below')}", *others]),
        ),
        (
            _share_of(run.rows),
            "share of the ceiling",
            "median: the speed of plain GEMMs and copies that equal the plan",
        ),
    ]
    yield '<section class="figures">'
    for figure, title, text in figures:
        yield f"<div><strong>{figure}</strong><span>{escape(title)}</span><small>{text}</small></div>"
    yield "</section>"


def _link(name: str, text: str) -> str:
    return f'<a href="#{name}">{text}</a>'


def _plots(plots: Mapping[str, str]) -> Iterator[str]:
    for name, svg in plots.items():
        kind = name.rpartition("-")[2]
        title, caption = _CAPTIONS.get(kind, (name, ""))
        svg = re.sub(r"<\?xml.*?\?>\s*", "", svg)
        yield f'<section class="picture"><h2>{escape(title)}</h2><figure>'
        yield f'<div class="plot" role="img" aria-label="{escape(title)}">{svg}</div>'
        yield f"<figcaption>{caption}</figcaption></figure></section>"
    if not plots:
        yield "<p>There are no plots: matplotlib was not there.</p>"


_CAPTIONS = {
    "roofline": (
        "Roofline",
        "Operations and bytes are those of gpueinsum’s plan, so a peer that orders the work otherwise has other ones. "
        "Slopes and roofs are copies and plain GEMMs measured in the same run; rows that fit a cache may lie above the "
        "slope of memory. Rest the mouse on a point to see its name.",
    ),
    "ratios": (
        "Every row beside its best peer",
        "Within each family what is wrong comes first, then the largest ratio. Dots are medians, whiskers the "
        "quartiles of the ratios in each round. The best peer is the one with the lowest median, which flatters peers "
        "a little wherever several are close.",
    ),
}


def _losses(run: Run) -> Iterator[str]:
    lost = [row for row in run.rows if row.is_lost]
    yield '<section id="losses"><h2>Losses</h2>'
    if not lost:
        yield "<p>None: no peer is faster than gpueinsum by more than noise.</p></section>"
        return
    yield f"<p>{_counted(len(lost), 'row')} in which a peer is faster by more than noise, the worst first.</p>"
    columns = ["workload", "dtype", "family", "best peer", *map(_Number, (*_TIMES, "ratio", "quartiles", "ceiling"))]
    lines = [_Line((_name(row), *_loss(row)), "lost") for row in sorted(lost, key=standing)]
    yield f"{_table(columns, lines)}</section>"


_TIMES = ("peer", "gpueinsum")


def _loss(row: Row) -> tuple[str, ...]:
    lead, best = row.lead(), row.best()
    assert lead
    assert best
    times = (seconds_text(row.median(name)) for name in (best, row.own[0]))
    texts = (type_text(row), row.family, best, *times, ratio_text(lead.median), _quartiles(row, lead), _share(row))
    return tuple(map(escape, texts))


def _quartiles(row: Row, spread: Spread) -> str:
    return "one round" if len(row.seconds[row.own[0]]) == 1 else range_text(spread)


def _share(row: Row) -> str:
    share = row.share
    return percent_text(share.median) if share else DASH


def _families(run: Run) -> Iterator[str]:
    columns = [
        "family",
        *map(_Number, ("rows", "best peer ÷ ours", f"{library(run)[0]}’s best ÷ ours", "lost", "ceiling")),
        "worst row",
    ]
    lines = [
        _Line((escape(family), *map(escape, _family_figures(rows, run)), _worst(rows)))
        for family, rows in run.families.items()
    ]
    lines.append(_Line(("all", *map(escape, _family_figures(run.rows, run)), _worst(run.rows)), "total"))
    yield '<section id="families"><h2>Families</h2>'
    yield (
        "<p>Geometric means of the ratios to the best of all peers, and to the best of "
        f"{escape(', '.join(library(run)))}; rows lost beyond noise, of those that have a peer; the median share of "
        f"the ceilings.</p>{_table(columns, lines)}</section>"
    )


def _worst(rows: Sequence[Row]) -> str:
    """What is wrong, or else has the lowest ratio."""
    if wrong := [row for row in rows if row.is_wrong]:
        return f'<span class="tag wrong">wrong</span> {_name(wrong[0])}, {escape(type_text(wrong[0]))}'
    compared = [row for row in rows if row.lead()]
    if not compared:
        return DASH
    row = min(compared, key=standing)
    return f"{_name(row)}, {escape(type_text(row))}: {ratio_text(standing(row))} ({escape(row.best() or '')})"


def _all_rows(run: Run) -> Iterator[str]:
    columns = [
        *("workload", "dtype", _Number("gpueinsum"), "best peer", _Number("its time"), _Number("ratio")),
        *(_Number("quartiles"), "", _Number("speed"), _Number("ceiling")),
    ]
    lines = []
    for family, rows in run.families.items():
        lines.append(_Line((escape(family),), "family"))
        for row in rows:
            lines.append(_Line(_cells(row), outcome(row)))
            if remarks := _remarks(row):
                lines.append(_Line((remarks,), f"{outcome(row)} note"))
    yield '<section id="rows"><h2>All rows</h2>'
    yield (
        "<p>Medians over the rounds; quartiles of the ratios in each round; the speed is of gpueinsum, in operations "
        "where GEMMs take the time and in bytes where copies do, as its plan counts them; the ceiling is the share of "
        f"the speed of equal GEMMs and copies.</p>{_table(columns, lines)}"
    )
    yield f"<details><summary>Everybody’s medians</summary>{''.join(_medians(run))}</details></section>"


def _cells(row: Row) -> tuple[str, ...]:
    ours, best, lead, state = row.own[0], row.best(), row.lead(), outcome(row)
    equation = f'<code title="{escape(row.equation)}">{escape(shortened(row.equation, 44))}</code>'
    sizes = f'<small title="{escape(_each_size(row))}">{escape(_sizes(row))}</small>'
    word = {"won": "won", "even": "even", "lost": "lost", "alone": "no peer"}
    tag = word.get(state) or " ".join(
        sorted({row.faults[name].partition(":")[0] for name in row.own if name in row.faults})
    )
    return (
        f"{_name(row)}<br>{equation} {sizes}",
        escape(type_text(row)),
        escape(seconds_text(row.median(ours)) if ours in row.seconds else DASH),
        escape(best or DASH),
        escape(seconds_text(row.median(best)) if best else DASH),
        ratio_text(lead.median) if lead else DASH,
        escape(_quartiles(row, lead)) if lead else "",
        f'<span class="tag {state}">{escape(tag)}</span>',
        escape(speed_text(row) or DASH),
        _share(row),
    )


def _each_size(row: Row) -> str:
    return " ".join(f"{label}={size}" for label, size in row.sizes.items())


def _sizes(row: Row) -> str:
    """Each label's, or of many labels how many have which: `i=3 j=5`, `43 labels: 39 of 2, 4 of 64`."""
    if len(row.sizes) <= 8:
        return _each_size(row)
    counts = [f"{count} of {size}" for size, count in Counter(row.sizes.values()).most_common(4)]
    if len(counts) == 1:
        return f"{len(row.sizes)} labels of {next(iter(row.sizes.values()))}"
    more = ", …" if len(set(row.sizes.values())) > len(counts) else ""
    return f"{len(row.sizes)} labels: {', '.join(counts)}{more}"


def _remarks(row: Row) -> str:
    remarks = [f'<b class="bad">{escape(name)} {escape(fault)}</b>' for name, fault in row.faults.items()]
    reasons: dict[str, list[str]] = {}
    for name, reason in row.left_out.items():
        reasons.setdefault(reason, []).append(name)
    remarks += [f"left out: {escape(', '.join(names))} ({escape(why)})" for why, names in reasons.items()]
    remarks += [
        f"{escape(_OWN.get(name, name))}: {ratio_text(ratio.median)} of the time"
        for name in row.own[1:]
        if (ratio := row.ratio(name))
    ]
    return f"<span>{'; '.join(remarks)}</span>" if remarks else ""


_OWN = {"forward": "our value alone", "separate": "an einsum of ours for each gradient"}


def _medians(run: Run) -> Iterator[str]:
    """A table for each table of the suite: a column for each who takes part."""
    for table in dict.fromkeys(row.table for row in run.rows):
        rows = [row for row in run.rows if row.table == table]
        names = list(dict.fromkeys(name for row in rows for name in (*row.own, *row.peers)))
        names += list(dict.fromkeys(name for row in rows for name in (*row.faults, *row.left_out) if name not in names))
        columns = ["workload", "dtype", *map(_Number, (*names, FLOOR)), _Number("rounds"), _Number("sets of operands")]
        lines = []
        for row in rows:
            rounds = len(next(iter(row.seconds.values()), ()))
            cells = (_median(row, name) for name in (*names, FLOOR))
            lines.append(_Line((_name(row), escape(type_text(row)), *cells, str(rounds), str(row.input_sets))))
        yield f"<h3>{escape(table)}</h3>{_table(columns, lines)}"


def _median(row: Row, name: str) -> str:
    if name in row.seconds:
        text = seconds_text(row.median(name))
        return f"<b>{text}</b>" if name == row.best() else text
    if name in row.faults:
        return f'<b class="bad" title="{escape(row.faults[name])}">{escape(row.faults[name].partition(":")[0])}</b>'
    return f'<span title="{escape(row.left_out.get(name, "not tried"))}">{DASH}</span>'


def _ceilings(run: Run) -> Iterator[str]:
    found = run.ceilings
    yield '<section id="ceilings"><h2>The machine’s ceilings</h2>'
    yield "<p>Measured in the same run; medians and quartiles.</p>"
    if found.gemm:
        columns = ["plain GEMM", "size", "batch × m × n × k", *map(_Number, ("speed", "quartiles", "time"))]
        yield _table(columns, [_gemm_line(gemm) for gemm in found.gemm])
    if found.copy:
        columns = ["copy", *map(_Number, ("read and written", "speed", "quartiles", "time"))]
        yield _table(columns, [_copy_line(copy) for copy in found.copy])
    if found.overhead:
        columns = ["a call with next to nothing to do", *map(_Number, ("time", "quartiles"))]
        yield _table(columns, [_overhead_line(call) for call in found.overhead])
    for name, fault in found.faults.items():
        yield f"<p>{escape(name)}: {escape(fault)}</p>"
    yield "</section>"


def _gemm_line(gemm: GemmCeiling) -> _Line:
    times = Spread.of(gemm.seconds)
    shape = " × ".join(f"{number:,}" for number in (gemm.batch, gemm.m, gemm.n, gemm.k))
    speed = flops_text(gemm.flops_per_second)
    slow, fast = (flops_text(gemm.flops / seconds) for seconds in (times.high, times.low))
    texts = (gemm.dtype, gemm.size, shape, speed, f"{slow} {DASH} {fast}", seconds_text(times.median))
    return _Line(tuple(map(escape, texts)))


def _copy_line(copy: CopyCeiling) -> _Line:
    times = Spread.of(copy.seconds)
    speed = bandwidth_text(copy.bytes_per_second)
    slow, fast = (bandwidth_text(copy.bytes_moved / seconds) for seconds in (times.high, times.low))
    texts = (copy.size, bytes_text(copy.bytes_moved), speed, f"{slow} {DASH} {fast}", seconds_text(times.median))
    return _Line(tuple(map(escape, texts)))


def _overhead_line(call: Overhead) -> _Line:
    times = Spread.of(call.seconds)
    quartiles = f"{seconds_text(times.low)} {DASH} {seconds_text(times.high)}"
    return _Line((escape(call.name), seconds_text(times.median), quartiles))


def _method(run: Run) -> Iterator[str]:
    clock = _CLOCKS.get(run.device.get("kind", ""), "")
    points = [
        "<b>Right first.</b> Every peer’s first result is compared with one in double precision: element by element, "
        "or through a random projection where it is large. One that is wrong, or fails, is never timed, and said to "
        "be so.",
        "<b>Interleaved rounds.</b> All peers of a row, gpueinsum and the ceiling are timed in one process, one after "
        "the other, round after round, in another order each; what else the machine does, and what a library’s threads "
        f"still do after its calls, falls on all alike. {clock}",
        "<b>Threads.</b> All libraries have as many. Before a short sample come as many calls that are not timed, for "
        "the threads of the library before it spin for a while on cores that this one needs; those of OpenBLAS and "
        "PyTorch are told to stop soon (OPENBLAS_THREAD_TIMEOUT, GOMP_SPINCOUNT). Rows on which everybody’s calls "
        "take seconds have two or three rounds.",
        "<b>Spread.</b> A time is the median over the rounds. A ratio is computed in each round; its median and its "
        "quartiles over the rounds are shown, so it can differ a little from the ratio of the medians.",
        f"<b>Lost</b> is a row whose upper quartile is below {1 - NOISE:g}, <b>won</b> one whose lower quartile is "
        f"above {1 + NOISE:g}; anything else is <b>even</b>. The best peer is the fastest by its median.",
        "<b>Out of the cache.</b> Calls rotate through copies of their operands, as many as the table of medians "
        "says, so that none is in the last cache when its turn comes again; what is tiny stays there.",
        "<b>Ceilings.</b> For each step of a row’s plan a plain GEMM of the same size, or a copy of the same bytes, "
        "whichever takes longer, timed in the same rounds. A dtype without a GEMM of its own (halves on a CPU, "
        "integers) is held against another’s, the next larger. It is a yardstick and no bound: where an intermediate "
        "stays in a cache a share can be above 100%.",
    ]
    yield '<section id="method"><h2>How it was measured</h2>'
    yield f"<ul>{''.join(f'<li>{point}</li>' for point in points)}</ul>"
    for title, facts in (("This run", run.method), ("The device", run.device), ("Versions", run.versions)):
        items = "".join(
            f"<div><dt>{escape(name.replace('_', ' '))}</dt><dd>{escape(fact_text(name, value))}</dd></div>"
            for name, value in facts.items()
        )
        yield f"<h3>{title}</h3><dl>{items}</dl>" if items else ""
    yield "</section>"


_CLOCKS = {
    "cpu": "Clock: the host’s monotonic one, around enough calls to fill a sample.",
    "cuda": "Clock: events on the device, from an idle device to the end of the last call’s work, so that a host that "
    "is too slow to keep it busy counts.",
}


def _sources(run: Run) -> Iterator[str]:
    sources: dict[str, list[str]] = {}
    for row in run.rows:
        sources.setdefault(row.source, []).append(row.name)
    yield '<section id="sources"><h2>Sources of the workloads</h2><ul>'
    for source, names in sources.items():
        yield f"<li>{escape(', '.join(dict.fromkeys(names)))}: {escape(source)}</li>"
    yield f"</ul></section><footer>Made by {OURS}’s benchmark suite from nothing but the times of this run.</footer>"


# ---------------------------------------------------------------- tables


class _Number(str):
    """The name of a column of numbers, which stand on the right."""

    __slots__ = ()


@dataclass(frozen=True, slots=True)
class _Line:
    """A table's row: HTML for each cell, or for a single one across all columns."""

    cells: Sequence[str]
    look: str = ""


def _table(columns: Sequence[str], lines: Iterable[_Line]) -> str:
    """In a box of its own, which scrolls where the window is narrow."""
    heads = "".join(f"<th{_right(column)}>{escape(column)}</th>" for column in columns)
    body = "\n".join(_table_row(columns, line) for line in lines)
    return f'<div class="scroll"><table><thead><tr>{heads}</tr></thead><tbody>\n{body}\n</tbody></table></div>'


def _table_row(columns: Sequence[str], line: _Line) -> str:
    first, *rest = line.cells
    look = f' class="{line.look}"' if line.look else ""
    if not rest:
        return f'<tr{look}><td colspan="{len(columns)}">{first}</td></tr>'
    cells = "".join(f"<td{_right(column)}>{cell}</td>" for column, cell in zip(columns[1:], rest, strict=True))
    return f'<tr{look}><th scope="row">{first}</th>{cells}</tr>'


def _right(column: str) -> str:
    return ' class="n"' if isinstance(column, _Number) else ""


def _name(row: Row) -> str:
    return escape(row.name)


_CSS = """
:root { --ink: #1d2328; --soft: #5b6670; --paper: #fff; --box: #f4f6f8; --line: #dde2e7; --won: #00609b;
  --lost: #a84300; --lostbox: #fdf1e7; --bad: #b00020; --badbox: #fdecee; color-scheme: light dark }
@media (prefers-color-scheme: dark) { :root { --ink: #e4e8eb; --soft: #9aa6b1; --paper: #14181c; --box: #1e2429;
  --line: #343c44; --won: #6cb8ee; --lost: #f5a05a; --lostbox: #33241a; --bad: #ff8a94; --badbox: #3a1a1e } }
* { box-sizing: border-box }
body { margin: 0; background: var(--paper); color: var(--ink); font: 15px/1.5 system-ui, sans-serif }
main { max-width: 1280px; margin: 0 auto; padding: 1.5rem 1.25rem 3rem }
h1 { font-size: 1.7rem; line-height: 1.2; margin: 0 0 .5rem }
h2 { font-size: 1.25rem; margin: 2.5rem 0 .5rem } h3 { font-size: 1rem; margin: 1.25rem 0 .25rem }
p, ul { max-width: 75ch } ul { padding-left: 1.2rem } li { margin: .3rem 0; overflow-wrap: anywhere }
a { color: var(--won) } nav { display: flex; flex-wrap: wrap; gap: .25rem 1rem }
small, figcaption, footer { color: var(--soft); font-size: .85em } figcaption { max-width: 85ch; margin-top: .4rem }
footer { margin-top: 2.5rem; border-top: 1px solid var(--line); padding-top: .75rem }
.warning { border-left: 4px solid var(--lost); padding: .25rem .75rem; background: var(--lostbox) }
section.wrong { margin-top: 1.5rem; border: 2px solid var(--bad); border-radius: 6px; background: var(--badbox);
  padding: .75rem 1rem }
section.wrong h2 { margin: 0; color: var(--bad) }
.figures { display: grid; grid-template-columns: repeat(auto-fit, minmax(210px, 1fr)); gap: .75rem; margin-top: 1.5rem }
.figures div { border: 1px solid var(--line); border-radius: 6px; background: var(--box); padding: .75rem 1rem }
.figures strong { display: block; font-size: 1.8rem; line-height: 1.2; font-variant-numeric: tabular-nums }
.figures span:not([class]) { display: block; font-weight: 600 } .figures small { display: block; margin-top: .25rem }
span.won { color: var(--won) } span.lost { color: var(--lost) }
figure { margin: 0 } .plot { background: #fff; border: 1px solid var(--line); border-radius: 6px; padding: .5rem;
  overflow-x: auto }
.plot svg { display: block; width: 100%; min-width: 660px; max-width: 1000px; height: auto; margin: 0 auto }
.scroll { overflow-x: auto; border: 1px solid var(--line); border-radius: 6px; margin: .5rem 0 1rem }
table { border-collapse: collapse; width: 100%; font-size: .85rem; font-variant-numeric: tabular-nums }
th, td { padding: .3rem .5rem; text-align: left; vertical-align: top; border-top: 1px solid var(--line) }
thead th { border-top: 0; background: var(--box); vertical-align: bottom; font-size: .8rem }
tbody th { font-weight: 600; min-width: 9rem } td { white-space: nowrap } td:last-child { white-space: normal }
.n { text-align: right } tr.family td { background: var(--box); padding-top: .6rem } tr.total { font-weight: 600 }
#rows > .scroll tbody th { min-width: 17rem } #families td:last-child { white-space: nowrap }
#rows td[colspan] { white-space: normal; overflow-wrap: anywhere } tr.family td { font-weight: 600 }
tr.note td { border-top: 0; padding: 0 .5rem .5rem 1.5rem; font-size: .8rem; color: var(--soft) }
code { font: .8rem ui-monospace, monospace; font-weight: 400; overflow-wrap: anywhere } th small { font-weight: 400 }
tr.lost > * { background: var(--lostbox) } tr.wrong > * { background: var(--badbox) }
.tag { font-size: .75rem; font-weight: 600; color: var(--soft) } .tag.won { color: var(--won) }
.tag.lost { color: var(--lost) } .tag.wrong, .bad { color: var(--bad) }
details { margin: .75rem 0 } summary { cursor: pointer; font-weight: 600 }
dl { display: flex; flex-wrap: wrap; gap: .4rem 1.75rem; margin: .25rem 0 } dl div { min-width: 0 }
dt { color: var(--soft); font-size: .8rem } dd { margin: 0; overflow-wrap: anywhere }
@media (max-width: 640px) { main { padding: 1rem .75rem 2rem } tr.note td > span { display: block; max-width: 20rem }
  tbody th[scope=row] { min-width: 7rem; max-width: 9rem; position: sticky; left: 0; background: var(--paper) }
  #rows > .scroll tbody th { min-width: 9.5rem; max-width: 9.5rem } tr.lost th[scope=row] { background: var(--lostbox) }
  tr.wrong th[scope=row] { background: var(--badbox) } }
@media print { :root { --ink: #000; --soft: #444; --paper: #fff; --box: #f2f2f2; --line: #ccc; --won: #00609b;
    --lost: #a84300; --lostbox: #fdf1e7; --bad: #b00020; --badbox: #fdecee }
  @page { size: A4; margin: 12mm } main { max-width: none; padding: 0 }
  body { font-size: 10pt } nav, .picture h2 { display: none }
  .scroll, .plot { overflow: visible; border: 0; padding: 0 } .plot svg { min-width: 0 }
  table { font-size: 6.5pt } code { font-size: 6pt } th, td { padding: .1rem .25rem } td:not(.n) { white-space: normal }
  .tag { font-size: 6pt } details table { font-size: 5.5pt } .figures strong { font-size: 16pt }
  #rows > .scroll tbody th, tbody th { min-width: 0 } tr.note td { font-size: 6pt }
  tr.note { break-before: avoid } tr { break-inside: avoid }
  h2, h3, thead, tr.family { break-after: avoid }
  details::details-content { content-visibility: visible; height: auto } }
"""
