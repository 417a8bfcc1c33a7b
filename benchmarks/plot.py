"""A run as pictures: the roofline of its rows, and each row's ratio to its best peer, as SVG and PNG."""

from __future__ import annotations

import html
import io
import re
import textwrap
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from benchmarks.results import Row, Run, mean_lead, write_file
from benchmarks.units import (
    bandwidth_text,
    date_text,
    device_text,
    flops_text,
    library,
    outcome,
    percent_text,
    ratio_text,
    shortened,
    standing,
    type_text,
    versions_text,
)
from gpueinsum.text import seconds_text

Figure = Any  # matplotlib's, which is imported only to draw
Axes = Any

# Colours that differ for all kinds of sight (Okabe and Ito 2008), and shapes that differ without colours.
_BLUE, _VERMILION, _GREY, _RED = "#0072B2", "#D55E00", "#767676", "#B00020"
_INK, _FAINT = "#222222", "#dddddd"
_LOOKS = {"won": (_BLUE, "o", _BLUE), "even": (_GREY, "o", "white"), "lost": (_VERMILION, "D", _VERMILION)}
_TYPES = {
    "float64": _BLUE,
    "float32": _VERMILION,
    "complex128": "#56B4E9",
    "complex64": "#E69F00",
    "float16": "#009E73",
    "bfloat16": "#882255",
    "tf32": "#CC79A7",
    "int64": "#111111",
}
_FONT = "DejaVu Sans"  # comes with matplotlib
_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "font.family": _FONT,
    "text.parse_math": False,
    "text.color": _INK,
    "axes.labelcolor": _INK,
    "axes.edgecolor": _GREY,
    "xtick.color": _INK,
    "ytick.color": _INK,
    "path.simplify": False,
}
_DASHED = (0, (4, 3))
_DPI = 144


def write_plots(run: Run, directory: Path, stem: str) -> list[Path]:
    """`{stem}-roofline` and `{stem}-ratios` as .svg and .png; the same run gives the same bytes."""
    import matplotlib

    paths = []
    for name, draw in (("roofline", roofline), ("ratios", ratios)):
        with matplotlib.rc_context(_STYLE | {"svg.hashsalt": name}):
            figure = draw(run)
            for suffix, content in ((".svg", _svg(figure, name, run)), (".png", _png(figure))):
                paths.append(directory / f"{stem}-{name}{suffix}")
                write_file(paths[-1], content)
    return paths


# ---------------------------------------------------------------- the ratios

_LINE, _SMALL = 0.17, 7.5  # a row's height in inches, and the size of its letters in points
_BOTTOM = 0.5  # inches
_LEFT, _WIDTH = 0.3, 0.53  # of the picture: where the axes begin, and how wide they are
_START, _END = (0.01 - _LEFT) / _WIDTH, (0.99 - _LEFT) / _WIDTH  # of the axes: where a line begins and ends,
_RATIO, _PEER = 1.07, 1.09  # where its ratio ends, and where its peer begins


def ratios(run: Run) -> Figure:
    """A line per row, in families: the best peer's time over ours, its quartiles, and the share of the ceiling."""
    from matplotlib.figure import Figure

    lines, about = list(_lines(run)), _wrapped([*_about(run), *_summary(run)])
    top = _below_title(about) + 0.5
    height = top + _LINE * (len(lines) + 1) + _BOTTOM
    figure: Any = Figure(figsize=(10, height), dpi=_DPI)
    axes = figure.add_axes((_LEFT, _BOTTOM / height, _WIDTH, 1 - (top + _BOTTOM) / height))
    _ratio_axes(axes, run, len(lines))
    for y, line in enumerate(lines):
        if isinstance(line, str):
            _heading(axes, y, line, mean_lead(run.families[line]))
        else:
            _ratio_line(axes, y, line)
    _title(figure, height, "gpueinsum beside the best peer of each workload", about)
    _ratio_legend(figure, 1 - (top - 0.45) / height)
    return figure


def _lines(run: Run) -> Iterator[str | Row]:
    """Families' names, and below each its rows: what is wrong first, then from the best to the worst."""
    for family, rows in run.families.items():
        yield family
        yield from sorted(rows, key=lambda row: (outcome(row) != "wrong", -standing(row)))


def _ratio_axes(axes: Axes, run: Run, count: int) -> None:
    spreads = [spread for row in run.rows for spread in (row.lead(), row.share) if spread]
    low = min([0.6, *(spread.low for spread in spreads)]) / 1.1
    high = max([1.7, *(spread.high for spread in spreads)]) * 1.1
    _scale(axes, low, high, "{:g}".format)
    axes.set_ylim(count, -1)
    axes.set_yticks([])
    axes.tick_params(axis="x", labelsize=_SMALL, top=True, labeltop=True, length=3)
    axes.grid(axis="x", color=_FAINT, linewidth=0.5)
    axes.set_axisbelow(True)
    axes.axvline(1, color=_INK, linewidth=1)
    for side in ("left", "right"):
        axes.spines[side].set_visible(False)
    axes.set_xlabel("best peer's time / gpueinsum's time  (log scale; right of 1, gpueinsum is faster)", fontsize=8)


def _scale(axes: Axes, low: float, high: float, text: Callable[[float], str]) -> None:
    """A logarithmic scale across, with ticks at 1, 2, 5, 10, …, fewer where it is long."""
    digits = (1, 2, 5) if high / low < 2000 else (1,)
    ticks = [digit * 10.0**power for power in range(-6, 16) for digit in digits]
    shown = [tick for tick in ticks if low <= tick <= high]
    axes.set_xscale("log")
    axes.set_xlim(low, high)
    axes.set_xticks(shown, [text(tick) for tick in shown])
    axes.set_xticks([], minor=True)


def _heading(axes: Axes, y: float, family: str, mean: float | None) -> None:
    axes.axhspan(y - 0.5, y + 0.5, xmin=_START, xmax=_END, color="#eeeeee", clip_on=False, zorder=0.5, linewidth=0)
    _write(axes, _START + 0.006, y, family, weight="bold", size=8)
    if mean:
        _write(axes, _RATIO, y, ratio_text(mean), weight="bold", ha="right")
        _write(axes, _PEER, y, "geometric mean", color="#555555")


def _ratio_line(axes: Axes, y: float, row: Row) -> None:
    """Name and dtype, the point and its whiskers, the ratio and the peer."""
    state = outcome(row)
    axes.axhline(y, color="#eeeeee", linewidth=0.5, zorder=0.4, clip_on=False)
    _write(axes, _START + 0.02, y, shortened(row.name, 36))
    _write(axes, -0.015, y, type_text(row), color=_GREY, ha="right")
    if share := row.share:
        _mark(axes, [share.median], y, marker="|", color=_INK, markersize=6, markeredgewidth=1.1, zorder=2.5)
    lead, best = row.lead(), row.best()
    if state == "wrong":
        fault = next(row.faults[name] for name in row.own if name in row.faults)
        _write(axes, 0.01, y, shortened(fault, 72), color=_RED, weight="bold")
    elif lead and best:
        edge, marker, face = _LOOKS[state]
        _mark(axes, [1, lead.median], y, color=edge, alpha=0.3, linewidth=3.2, solid_capstyle="butt", zorder=2)
        _mark(axes, [lead.low, lead.high], y, color=edge, linewidth=1.1, marker="|", markersize=4.5, zorder=3)
        size = 4.8 if marker == "o" else 4.3
        _mark(axes, [lead.median], y, marker=marker, color=edge, markerfacecolor=face, markersize=size, zorder=4)
        weight = "bold" if state == "lost" else "normal"
        _write(axes, _RATIO, y, ratio_text(lead.median), color=_dark(state), weight=weight, ha="right")
        _write(axes, _PEER, y, best, color=_dark(state), weight=weight)
    else:
        _write(axes, _PEER, y, "no peer was timed", color=_GREY)


def _mark(axes: Axes, xs: Sequence[float], y: float, **look: Any) -> None:
    axes.plot(xs, [y] * len(xs), clip_on=False, **look)


def _dark(state: str) -> str:
    return {"won": _INK, "even": "#555555", "lost": "#A84300"}[state]


def _write(axes: Axes, x: float, y: float, text: str, size: float = _SMALL, **look: Any) -> None:
    """At a share of the width, on a row's line; without what XML cannot hold."""
    shown = "".join(character if character.isprintable() else "?" for character in text)
    axes.text(x, y, shown, transform=axes.get_yaxis_transform(), fontsize=size, va="center_baseline", **look)


def _summary(run: Run) -> list[str]:
    states = [outcome(row) for row in run.rows]
    counts = [f"{states.count(state)} {state}" for state in ("won", "even", "lost", "wrong")]
    means = []
    for among, names in ((None, "all peers"), (library(run), ", ".join(library(run)))):
        rows = [row for row in run.rows if row.lead(among)]
        if mean := mean_lead(rows, among):
            means.append(f"{ratio_text(mean)} against the best of {names} ({len(rows)} rows)")
    return [
        f"geometric mean {'; '.join(means) or 'of nothing'}",
        f"{len(states)} rows: {', '.join(counts)} (won and lost: all between the quartiles is beyond noise)",
    ]


def _ratio_legend(figure: Figure, top: float) -> None:
    from matplotlib.lines import Line2D

    def point(state: str) -> Line2D:
        edge, marker, face = _LOOKS[state]
        return Line2D([0, 1], [0, 0], color=edge, marker=marker, markerfacecolor=face, markersize=4.8, linewidth=1.1)

    tick = Line2D([0], [0], color=_INK, marker="|", markersize=6, markeredgewidth=1.1, linestyle="none")
    figure.legend(
        [point("won"), point("even"), point("lost"), tick],
        [
            "won",
            "even",
            "lost (median, quartiles of the rounds)",
            "share of the ceiling: time of equal GEMMs and copies / ours",
        ],
        loc="upper left",
        bbox_to_anchor=(0.01, top),
        ncols=4,
        frameon=False,
        fontsize=_SMALL,
        borderpad=0,
        borderaxespad=0,
        handletextpad=0.5,
        columnspacing=1.6,
    )


# ---------------------------------------------------------------- the roofline

_STRIP = 0.2  # inches for each row without operations
_LABELLED, _LOW_SHARE = 8, 0.7  # the rows that are named: so many at most, of shares below this
_NAMED = (
    f"named: the {_LABELLED} lowest shares of the ceilings, if below {percent_text(_LOW_SHARE)} "
    "(a row's ceiling: the plain GEMMs and copies that equal its plan)"
)


def roofline(run: Run) -> Figure:
    """Operations per second over operations per byte, below the measured limits; rows without operations below it."""
    from matplotlib.figure import Figure

    counted = [row for row in run.rows if row.flops_per_second]
    idle = [row for row in run.rows if row.flops == 0 and row.bytes_per_second]
    about = _wrapped([*_about(run), _NAMED, *_missing(run)])
    below = 0.65 + _STRIP * len(idle) if idle else 0.0
    height = _below_title(about) + 5.95 + below
    figure: Any = Figure(figsize=(10, height), dpi=_DPI)
    axes = figure.add_axes((0.085, (0.55 + below) / height, 0.745, 5.15 / height))
    _roofline_axes(axes, run, counted)
    _roofs(axes, run, counted)
    for number, row in enumerate(run.rows):
        if row in counted:
            _point(axes, row, f"row{number}")
    if idle:
        _idle(figure.add_axes((0.3, 0.3 / height, 0.53, _STRIP * len(idle) / height)), run, idle)
    _title(figure, height, "Roofline of the plans that gpueinsum runs", about)
    _roofline_legend(axes, run, counted)
    _label_lowest(figure, axes, counted)
    return figure


def _point(axes: Axes, row: Row, gid: str) -> None:
    marker, size = ("D", 4.4) if row.table == "gradients" else ("o", 5)
    look = {"marker": marker, "markersize": size, "color": _colour(row), "gid": gid, "zorder": 4}
    axes.plot([row.intensity], [row.flops_per_second], markeredgecolor="white", markeredgewidth=0.5, **look)


def _roofline_axes(axes: Axes, run: Run, rows: Sequence[Row]) -> None:
    roofs = [roof for kind in _kinds(rows) if (roof := run.ceilings.flops_per_second(kind))]
    bandwidth = run.ceilings.bytes_per_second
    ridges = [roof / bandwidth for roof in roofs] if bandwidth else []
    across = [1.0, 10.0, *(row.intensity for row in rows), *ridges]
    up = [*(row.flops_per_second or 1e9 for row in rows), *roofs] or [1e9, 1e10]
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlim(min(across) / 2, max(across) * 3)
    axes.set_ylim(min(up) / 2.5, max(up) * 2.5)
    axes.xaxis.set_major_formatter(lambda x, _: f"{x:g}")
    axes.yaxis.set_major_formatter(lambda y, _: flops_text(y))
    axes.tick_params(labelsize=8)
    axes.grid(color=_FAINT, linewidth=0.5)
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    axes.set_xlabel("operations per byte that the plan moves", fontsize=8)
    axes.set_title("operations per second that gpueinsum reaches", fontsize=8, loc="left")
    if not rows:
        axes.text(0.5, 0.5, "no row was timed", transform=axes.transAxes, ha="center", color=_GREY)


def _kinds(rows: Sequence[Row]) -> list[str]:
    """The dtypes and precisions that are there, in a fixed order."""
    there = {type_text(row) for row in rows}
    return [*(kind for kind in _TYPES if kind in there), *sorted(there - _TYPES.keys())]


def _colour(row: Row) -> str:
    return _TYPES.get(type_text(row), _GREY)


def _roofs(axes: Axes, run: Run, rows: Sequence[Row]) -> None:
    """The bandwidth's slope, which all share, and right of it the best GEMM rate of each dtype, in its colour."""
    left, right = axes.get_xlim()
    roofs = {kind: roof for kind in _kinds(rows) if (roof := run.ceilings.flops_per_second(kind))}
    bandwidth = run.ceilings.bytes_per_second
    highest = max(roofs.values(), default=axes.get_ylim()[1])
    for _, rate, style in _slopes(run):
        ends = [left, min(highest / rate, right)]
        axes.plot(ends, [rate * x for x in ends], color=_GREY, linewidth=1.2, linestyle=style, zorder=2)
    for kind, roof in roofs.items():
        start = max(roof / bandwidth, left) if bandwidth else left
        axes.plot([start, right], [roof, roof], color=_TYPES.get(kind, _GREY), linewidth=1.3, zorder=2)
    _roof_names(axes, roofs)


def _slopes(run: Run) -> Iterator[tuple[str, float, Any]]:
    """Name, bytes per second and style of line of memory, and of a cache where it is faster."""
    memory = run.ceilings.bytes_per_second
    if memory:
        yield "bandwidth of memory (the largest copy)", memory, "-"
        cached = max((copy.bytes_per_second for copy in run.ceilings.copy if copy.size == "cached"), default=0.0)
        if cached > memory:
            yield "bandwidth of a cached copy", cached, _DASHED


def _roof_names(axes: Axes, roofs: dict[str, float]) -> None:
    """At the right end of each roof, moved apart where they would overlap."""
    from matplotlib.transforms import blended_transform_factory

    step = 0.038  # of the axes' height: a line of text
    ordered = sorted(roofs.items(), key=lambda item: item[1])
    heights = _apart([_height(axes, roof) for _, roof in ordered], step)
    for (kind, roof), height in zip(ordered, heights, strict=True):
        colour = _TYPES.get(kind, _GREY)
        across = blended_transform_factory(axes.transAxes, axes.transAxes)
        ends = [_height(axes, roof), height]
        axes.plot([1, 1.015], ends, color=colour, linewidth=0.8, clip_on=False, transform=across)
        axes.text(1.02, height, f"{kind} {flops_text(roof)}", color=colour, fontsize=7.5, va="center", transform=across)


def _height(axes: Axes, value: float) -> float:
    """Where a rate is, as a share of the axes' height."""
    return float(axes.transAxes.inverted().transform(axes.transData.transform((axes.get_xlim()[0], value)))[1])


def _apart(heights: Sequence[float], step: float) -> list[float]:
    """Ascending heights, at least a step apart: those that are closer are stacked around their middle."""
    groups: list[list[float]] = []
    for height in heights:
        groups.append([height])
        while len(groups) > 1 and _span(groups[-2], step)[1] + step > _span(groups[-1], step)[0]:
            groups[-2:] = [groups[-2] + groups[-1]]
    return [low + step * place for group in groups for low in [_span(group, step)[0]] for place in range(len(group))]


def _span(group: Sequence[float], step: float) -> tuple[float, float]:
    """The lowest and highest place of texts stacked around the middle of where they belong."""
    middle, half = sum(group) / len(group), step * (len(group) - 1) / 2
    return middle - half, middle + half


def _idle(axes: Axes, run: Run, rows: Sequence[Row]) -> None:
    """Rows without any operation have no place under a roof: bytes per second, beside the copies'."""
    speeds = [row.bytes_per_second or 0.0 for row in rows]
    copies = [copy.bytes_per_second for copy in run.ceilings.copy]
    _scale(axes, min(speeds + copies) / 2, max(speeds + copies) * 2, bandwidth_text)
    axes.set_ylim(len(rows) - 0.5, -0.5)
    for copy in run.ceilings.copy:
        style = _DASHED if copy.size == "cached" else "-"
        axes.axvline(copy.bytes_per_second, color=_GREY, linewidth=1.2, linestyle=style)
    for y, row in enumerate(rows):
        axes.plot([speeds[y]], [y], marker="o", color=_colour(row), markersize=5, markeredgecolor="white", zorder=4)
        _write(axes, -0.02, y, f"{shortened(row.name, 36)}, {type_text(row)}", ha="right")
        _write(axes, 1.02, y, bandwidth_text(speeds[y]))
    axes.set_yticks([])
    axes.tick_params(labelsize=_SMALL, length=3)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.set_title("rows that move data and compute nothing: bytes per second", fontsize=8, loc="left")


def _missing(run: Run) -> list[str]:
    missing = [f"{row.name} ({type_text(row)})" for row in run.rows if row.bytes_per_second is None]
    return [f"not drawn, for gpueinsum was not timed: {', '.join(missing)}"] if missing else []


def _roofline_legend(axes: Axes, run: Run, rows: Sequence[Row]) -> None:
    """The shapes and slopes, and the dtypes that have no roof which names them."""
    from matplotlib.lines import Line2D

    def marker(shape: str, colour: str) -> Line2D:
        return Line2D([0], [0], linestyle="none", marker=shape, color=colour, markersize=5)

    kinds = [kind for kind in _kinds(rows) if not run.ceilings.flops_per_second(kind)]
    entries = {f"{kind} (no plain GEMM measured)": marker("o", _TYPES.get(kind, _GREY)) for kind in kinds}
    if any(row.table == "gradients" for row in rows):
        entries |= {"a value": marker("o", _GREY), "a value and its gradients": marker("D", _GREY)}
    for name, _, style in _slopes(run):
        entries[name] = Line2D([0], [0], color=_GREY, linewidth=1.2, linestyle=style)
    if entries:
        axes.legend(entries.values(), entries.keys(), loc="lower right", fontsize=_SMALL, edgecolor=_FAINT)


def _label_lowest(figure: Figure, axes: Axes, rows: Sequence[Row]) -> None:
    """Names beside the points of the lowest shares of their ceilings, wherever there is room."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    canvas: Any = FigureCanvasAgg(figure)
    renderer = canvas.get_renderer()
    found = sorted((spread.median, number) for number, row in enumerate(rows) if (spread := row.share))
    drawn = [point for line in axes.lines for point in _along(axes, line)]
    legend = axes.get_legend()
    taken = [legend.get_window_extent(renderer)] if legend else []
    for share, number in found[:_LABELLED]:
        if share >= _LOW_SHARE:
            break
        row = rows[number]
        text = f"{shortened(row.name, 30)} {percent_text(share)}"
        if box := _place(axes, renderer, (row.intensity, row.flops_per_second or 0), text, drawn, taken):
            taken.append(box)


def _along(axes: Axes, line: Any) -> Any:
    """Points on a line of the picture, a few pixels apart, in pixels."""
    import numpy as np

    if line.get_transform() != axes.transData:
        return []
    (x0, *_, x1), (y0, *_, y1) = (np.append(ends, ends[-1:]) for ends in line.get_data())
    start, end = axes.transData.transform([(x0, y0), (x1, y1)])
    count = 2 + int(np.abs(end - start).max() / 4)
    return np.linspace(start, end, count)


def _place(
    axes: Axes, renderer: Any, point: tuple[float, float], text: str, drawn: Sequence[Any], taken: Sequence[Any]
) -> Any:
    """Write a text near a point, where it covers nothing; its box, or None if there is no such place."""
    inside = axes.get_window_extent(renderer)
    for distance in (6, 14, 24, 36, 50):
        for right, up, across, along in _DIRECTIONS:
            label = axes.annotate(
                *(text, point),
                xytext=(right * distance, up * distance),
                textcoords="offset points",
                **{"fontsize": 7, "ha": across, "va": along, "color": _INK, "zorder": 6},
                arrowprops={"arrowstyle": "-", "color": _GREY, "linewidth": 0.5, "shrinkA": 0, "shrinkB": 3},
            )
            box = label.get_window_extent(renderer)
            free = not any(box.overlaps(other) for other in taken) and not any(box.contains(*spot) for spot in drawn)
            if free and inside.contains(*box.min) and inside.contains(*box.max):
                return box
            label.remove()
    return None


_DIRECTIONS = (
    *((1, 0, "left", "center"), (-1, 0, "right", "center"), (0.7, -0.7, "left", "top"), (-0.7, -0.7, "right", "top")),
    *(
        (0.7, 0.7, "left", "bottom"),
        (-0.7, 0.7, "right", "bottom"),
        (0, -1, "center", "top"),
        (0, 1, "center", "bottom"),
    ),
)


# ---------------------------------------------------------------- what both have


def _about(run: Run) -> list[str]:
    """The device and the date; the versions."""
    return [f"{device_text(run)}; {date_text(run)}", versions_text(run)]


def _wrapped(lines: Sequence[str]) -> list[str]:
    return [part for line in lines for part in textwrap.wrap(line, 150)]


def _below_title(lines: Sequence[str]) -> float:
    """How many inches a title takes with lines below it."""
    return 0.45 + 0.15 * len(lines)


def _title(figure: Figure, height: float, title: str, lines: Sequence[str]) -> None:
    figure.text(0.01, 1 - 0.1 / height, title, fontsize=13, weight="bold", va="top")
    figure.text(0.01, 1 - 0.38 / height, "\n".join(lines), fontsize=8, va="top", linespacing=1.35)


def _png(figure: Figure) -> bytes:
    stream = io.BytesIO()
    figure.savefig(stream, format="png", metadata={"Software": None})
    return stream.getvalue()


def _svg(figure: Figure, name: str, run: Run) -> bytes:
    """Without dates and addresses, with ids that no other plot has; a point says its name where a mouse rests on it."""
    stream = io.StringIO()
    figure.savefig(stream, format="svg", metadata=dict.fromkeys(("Date", "Creator", "Format", "Type")))
    text = re.sub(r"<!DOCTYPE.*?>\s*|<!--.*?-->\s*", "", stream.getvalue(), flags=re.DOTALL)
    # A style sheet would hold for the whole page that the picture is put into; a style is inherited, too.
    text = re.sub(r"<defs>\s*<style.*?</style>\s*</defs>\s*", "", text, count=1, flags=re.DOTALL)
    text = text.replace("<svg ", f'<svg style="{_INHERITED}" ', 1)
    text = re.sub(r"<[^>]+>", lambda tag: _slim(tag[0], name), text)
    rows = re.compile(rf'<g id="{name}-row(\d+)">')
    text = rows.sub(lambda g: f"{g[0]}<title>{html.escape(_tooltip(run.rows[int(g[1])]))}</title>", text)
    return re.sub(r"\n\s*", "\n", text).encode()


_INHERITED = f"stroke-linejoin: round; stroke-linecap: butt; font-family: '{_FONT}', Verdana, sans-serif"


def _slim(tag: str, name: str) -> str:
    """A tag without what says nothing: turns by nothing, ids that nothing refers to, digits that nobody sees."""
    tag = re.sub(rf""" transform="rotate\(-?0 [^"]*"| font-family: '{_FONT}';""", "", tag)
    tag = re.sub(r' id="(?!row)[a-zA-Z0-9]+_\d+"', "", tag)
    tag = re.sub(r"(\.\d\d)\d+", r"\1", tag)
    return re.sub(r'(?<= id=")|(?<=href="#)|(?<=url\(#)', f"{name}-", tag)


def _tooltip(row: Row) -> str:
    share = row.share
    parts = [
        f"{row.name}, {type_text(row)} ({row.family})",
        f"{seconds_text(row.median(row.own[0]))}, {flops_text(row.flops_per_second or 0)}",
        f"{row.intensity:.3g} operations per byte",
        *([f"{percent_text(share.median)} of the ceiling"] if share else []),
    ]
    return "; ".join(parts)
