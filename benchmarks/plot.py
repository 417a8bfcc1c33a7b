"""A run in, two pictures out, as SVG and PNG: the roofline of its rows, and each row's ratio to its best peer."""

from __future__ import annotations

import io
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator, NullLocator

from benchmarks.frames import families_frame, library, rows_frame
from benchmarks.results import Row, Run
from benchmarks.units import date_text, device_text, percent_text, range_text, rate_text, ratio_text, versions_text
from gpueinsum.files import write_text
from gpueinsum.text import seconds_text

# Each colour on white paper, and in its place on dark paper. Those of the dtypes differ for all kinds of colour vision
# (Okabe and Ito 2008).
_INK, _SOFT, _FAINT, _PAPER, _BAND = "#1d2328", "#5b6670", "#dde2e7", "#ffffff", "#f4f6f8"
_BLUE, _ORANGE, _RED, _GREY = "#0072b2", "#c4520a", "#b00020", "#848e97"
_DARK = {
    **{_INK: "#e4e8eb", _SOFT: "#9aa6b1", _FAINT: "#343c44", _PAPER: "#14181c", _BAND: "#1e2429"},
    **{_BLUE: "#3f9be8", _ORANGE: "#f08a3c", _RED: "#ff8a94", _GREY: "#8f9aa4"},
    **{"#56b4e9": "#a9defb", "#e69f00": "#f7d06b", "#882255": "#d98ab5", "#111111": "#f5f5f5"},
}
_TYPES = {
    **{"float64": _BLUE, "float32": _ORANGE, "complex128": "#56b4e9", "complex64": "#e69f00"},
    **{"float16": "#009e73", "bfloat16": "#882255", "tf32": "#cc79a7", "int64": "#111111"},
}
_STATES = {"won": _BLUE, "even": _GREY, "lost": _ORANGE}
_STYLE = {
    **{"svg.fonttype": "none", "font.family": "DejaVu Sans", "font.size": 8, "text.parse_math": False},
    **dict.fromkeys(("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color"), _SOFT),
    **{"axes.spines.top": False, "axes.spines.right": False, "axes.axisbelow": True, "axes.facecolor": "none"},
    **{"grid.color": _FAINT, "grid.linewidth": 0.6, "figure.facecolor": _PAPER, "legend.frameon": False},
    **{"xtick.major.size": 0, "ytick.major.size": 0, "xtick.minor.size": 0, "ytick.minor.size": 0},
}


def write_plots(run: Run, directory: Path, stem: str) -> list[Path]:
    """Write `{stem}-roofline` and `{stem}-ratios` as .svg and .png; the same run gives the same bytes."""
    paths = [directory / f"{stem}-{name}.{kind}" for name in ("roofline", "ratios") for kind in ("svg", "png")]
    for draw, (svg, png) in zip((roofline, ratios), (paths[:2], paths[2:]), strict=True):
        with mpl.rc_context(_STYLE | {"svg.hashsalt": draw.__name__}):
            figure, titles = draw(run)
            write_text(svg, _svg(figure, titles))
            figure.savefig(png, dpi=144, metadata={"Software": None})
    return paths


Titles = Mapping[str, Sequence[str]]  # what a browser shows for each point of a group, by the group's gid


# ---------------------------------------------------------------- the roofline

_NAMED = 8  # how many rows of the lowest shares of their ceilings have a number and a name


def roofline(run: Run) -> tuple[Figure, Titles]:
    """Operations per second over operations per byte, below the measured limits."""
    rows = [row for row in run.rows if row.flops and row.flops_per_second]
    kinds = [kind for kind in (*_TYPES, *sorted({row.type for row in rows} - {*_TYPES})) if _of(rows, kind)]
    roofs = {kind: roof for kind in kinds if (roof := run.ceilings.flops_per_second(kind))}
    figure = Figure(figsize=(10.5, 6.2))
    axes = figure.add_axes((0.075, 0.085, 0.645, 0.755))
    titles = {}
    for kind in kinds:
        for table, marker in (("einsum", "o"), ("gradients", "D")):
            found = [row for row in _of(rows, kind) if row.table == table]
            name = f"{kind}-{table}"
            titles[name] = [_roofline_title(row) for row in found]
            places = [row.intensity for row in found], [row.flops_per_second for row in found]
            look = {"color": _colour(kind), "edgecolor": _PAPER, "linewidth": 0.6, "zorder": 3}
            axes.scatter(*places, s=34 if marker == "o" else 27, marker=marker, gid=name, **look)
    axes.set(xscale="log", yscale="log", xlabel="operations per byte that the plan moves")
    axes.set_title("operations per second that gpueinsum reaches", fontsize=8, loc="left", color=_SOFT)
    _set_limits(axes, rows, run, roofs)
    _draw_roofs(axes, run, roofs)
    axes.grid()
    axes.xaxis.set_major_formatter(lambda x, _: f"{x:g}")
    axes.yaxis.set_major_formatter(lambda y, _: rate_text(y, "FLOP"))
    if not rows:
        axes.text(0.5, 0.5, "no row was timed", transform=axes.transAxes, ha="center")
    entries = {_kind_text(kind, roofs): _point("o", _colour(kind)) for kind in kinds}
    if any(row.table == "gradients" for row in rows):
        entries |= {"a value": _point("o", _GREY), "a value and all gradients": _point("D", _GREY)}
    entries |= {name: Line2D([], [], color=_GREY, linestyle=style) for name, _, style in _bandwidths(run)}
    legend = {"loc": "upper left", "bbox_to_anchor": (0.735, 0.85), "labelcolor": _INK, "title_fontproperties": _BOLD}
    box = figure.legend(entries.values(), entries.keys(), title="colour: best plain GEMM", alignment="left", **legend)
    box.get_title().set_color(_INK)
    _name_lowest(figure, axes, rows)
    missing = [f"{row.name} ({row.type})" for row in run.rows if row not in rows]
    _headline(figure, "Roofline of the plans that gpueinsum runs", run, _shortened("not drawn: ", missing))
    return figure, titles


_BOLD = {"weight": "bold", "size": 8}


def _of(rows: Sequence[Row], kind: str) -> list[Row]:
    return [row for row in rows if row.type == kind]


def _colour(kind: str) -> str:
    return _TYPES.get(kind, _GREY)


def _kind_text(kind: str, roofs: Mapping[str, float]) -> str:
    return f"{kind}  {rate_text(roofs[kind], 'FLOP') if kind in roofs else 'not measured'}"


def _point(marker: str, colour: str) -> Line2D:
    return Line2D([], [], linestyle="none", marker=marker, color=colour, markersize=5.5)


def _roofline_title(row: Row) -> str:
    parts = (f"{row.name}, {row.type} ({row.family})", seconds_text(row.median(row.own[0])))
    speed = f"{rate_text(row.flops_per_second or 0, 'FLOP')}, {row.intensity:.3g} operations per byte"
    return "; ".join([*parts, speed, *([f"{percent_text(row.share.median)} of the ceiling"] if row.share else [])])


def _bandwidths(run: Run) -> list[tuple[str, float, str]]:
    """Name, bytes per second and line style of memory, and of a cached copy where that is faster."""
    memory = run.ceilings.bytes_per_second or 0
    cached = max((copy.bytes_per_second for copy in run.ceilings.copy if copy.size == "cached"), default=0)
    found = [(f"memory  {rate_text(memory, 'B')}", memory, "-"), (f"cache  {rate_text(cached, 'B')}", cached, "--")]
    return found[: (memory > 0) + (cached > memory > 0)]


def _set_limits(axes: Axes, rows: Sequence[Row], run: Run, roofs: Mapping[str, float]) -> None:
    ridges = [roof / rate for roof in roofs.values() for _, rate, _ in _bandwidths(run)]
    across = [row.intensity for row in rows] + ridges or [1, 10]
    up = [row.flops_per_second or 1 for row in rows] + [*roofs.values()] or [1e9, 1e10]
    axes.set_xlim(min(across) / 2, max(across) * 2)
    axes.set_ylim(min(up) / 2, max(up) * 2)


def _draw_roofs(axes: Axes, run: Run, roofs: Mapping[str, float]) -> None:
    """The slope of each bandwidth up to the highest roof, and each dtype's roof from the slope of memory on."""
    left, right = axes.get_xlim()
    highest = max(roofs.values(), default=axes.get_ylim()[1])
    for _, rate, style in _bandwidths(run):
        ends = np.array([left, min(highest / rate, right)])
        axes.plot(ends, rate * ends, color=_GREY, linewidth=1.3, linestyle=style, zorder=2)
    for kind, roof in roofs.items():
        start = roof / (run.ceilings.bytes_per_second or np.inf)
        axes.plot([max(start, left), right], [roof, roof], color=_colour(kind), linewidth=1.3, zorder=2)


def _name_lowest(figure: Figure, axes: Axes, rows: Sequence[Row]) -> None:
    """Numbers beside the points of the lowest shares, and the names of these rows in a list."""
    shares = [(row.share.median, number) for number, row in enumerate(rows) if row.share]
    lowest = [(share, rows[number]) for share, number in sorted(shares)[:_NAMED]]
    names = []
    for number, (share, row) in enumerate(lowest, 1):
        place = (row.intensity, row.flops_per_second)
        near = {"xytext": (4.5, -3), "textcoords": "offset points", "color": _INK, "fontsize": 8, "weight": "bold"}
        axes.annotate(str(number), place, va="top", zorder=4, **near)
        names.append(f"{number}  {percent_text(share):>4}  {row.name}, {row.type}")
    if names:
        title = "lowest shares of the ceiling"
        figure.text(0.745, 0.085 + 0.0245 * len(names), title, color=_INK, **_BOLD)
        for number, name in enumerate(names):
            figure.text(0.745, 0.085 + 0.0245 * (len(names) - 1 - number), name[:44], color=_INK, fontsize=7.5)


# ---------------------------------------------------------------- the ratios

_LINE, _ROOM = 0.155, 1.5  # a row's height, and the room above and below all rows, in inches
_NAME, _AXES, _TEXT = 0.145, 0.235, 0.115  # shares of the width of one of the two columns: its names, axes and texts


def ratios(run: Run) -> tuple[Figure, Titles]:
    """A line for each row, in families: the best peer's time over gpueinsum's, its quartiles, the ceiling's share."""
    lines, cut = _lines(run)
    height = _LINE * max(cut, len(lines) - cut, 4) + _ROOM
    figure, titles = Figure(figsize=(13.5, height)), {}
    for number, part in enumerate((lines[:cut], lines[cut:])):
        shape = (0.005 + 0.5 * number + _NAME, 0.35 / height, _AXES, 1 - _ROOM / height)
        axes = figure.add_axes(shape)
        axes.set(xscale="log", xlim=_limits(run), ylim=(shape[3] * height / _LINE - 0.5, -0.5), yticks=[])
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.xaxis.set_major_formatter(lambda x, _: f"{x:g}")
        axes.xaxis.set_minor_locator(NullLocator())
        axes.tick_params(labeltop=True, labelsize=7)
        axes.spines[["left", "bottom"]].set_visible(False)
        axes.grid(axis="x")
        axes.axvline(1, color=_SOFT, linewidth=1)
        titles |= _draw_lines(axes, part, f"column{number}")
    marks = [_point("o", colour) for colour in _STATES.values()] + [_point("|", _INK)]
    names = [*_STATES, "speed of the equal plain GEMMs and copies ÷ gpueinsum's"]
    at = {"loc": "upper left", "bbox_to_anchor": (0, 1 - 0.58 / height), "ncols": 4}
    figure.legend(marks, names, labelcolor=_INK, fontsize=7.5, **at)
    subtitle = "the best peer's time ÷ gpueinsum's: median and quartiles of the rounds; right of 1 gpueinsum is faster"
    _headline(figure, "gpueinsum beside the best peer of each workload", run, subtitle)
    return figure, titles


def _lines(run: Run) -> tuple[list[Row | tuple[str, float]], int]:
    """Each family's name and mean, followed by its rows from the best to the worst; and where to cut into columns."""
    rows, means = rows_frame(run), families_frame(run)["lead"]
    lines: list[Row | tuple[str, float]] = []
    cuts = [0]
    for family, found in rows.groupby("family", sort=False):
        lines += [(str(family), means[family]), *found.sort_values("lead", ascending=False, na_position="first")["row"]]
        cuts.append(len(lines))
    return lines, min(reversed(cuts), key=lambda cut: max(cut, len(lines) - cut))


def _limits(run: Run) -> tuple[float, float]:
    found = rows_frame(run)[["low", "high", "share"]].to_numpy(float).ravel()
    found = found[np.isfinite(found)]
    return min([0.5, *found]) / 1.15, max([2, *found]) * 1.15


def _draw_lines(axes: Axes, lines: Sequence[Row | tuple[str, float]], gid: str) -> Titles:
    """Names on the left, points and whiskers in the axes, ratios and peers on the right."""
    left, right, ends = -_NAME / _AXES, 1 + _TEXT / _AXES, axes.get_yaxis_transform()
    for y, line in enumerate(lines):
        if isinstance(line, tuple):
            axes.axhspan(y - 0.42, y + 0.45, left, right, color=_BAND, zorder=0.5, linewidth=0, clip_on=False)
            texts = [(left + 0.02, line[0], "left", _INK), (1.03, f"{ratio_text(line[1])}  mean", "left", _INK)]
        elif line.is_wrong or line.best() is None:
            fault = next((line.faults[name] for name in line.own if name in line.faults), "no peer was timed")
            texts = [(0.01, _printable(fault)[:56], "left", _RED if line.is_wrong else _SOFT), *_row_names(line, left)]
        else:
            beside = f"{ratio_text(line.lead().median)}  {line.best()}"
            texts = [(1.03, beside, "left", _ORANGE if line.outcome == "lost" else _INK), *_row_names(line, left)]
        for x, text, align, colour in texts:
            weight = "bold" if isinstance(line, tuple) else "normal"
            look = {"ha": align, "va": "center_baseline", "fontsize": 7, "color": colour, "weight": weight}
            axes.text(x, y, _printable(text), transform=ends, **look)
    of_rows = [(y, row) for y, row in enumerate(lines) if isinstance(row, Row)]
    compared = [(y, *row.lead(), row.outcome, row) for y, row in of_rows if row.outcome in _STATES]
    rows = pd.DataFrame(compared, columns=["y", "low", "lead", "high", "outcome", "row"])
    shares = [(row.share.median, y) for y, row in of_rows if row.share]
    axes.scatter(*zip(*shares, strict=True) if shares else ([], []), s=22, marker="|", color=_INK, linewidth=1)
    titles = {}
    for state, found in rows.groupby("outcome"):
        colour, name = _STATES[state], f"{gid}-{state}"
        _draw_segments(axes, found.assign(one=1.0)[["one", "lead"]], found["y"], color=colour, linewidth=3.2, alpha=0.3)
        _draw_segments(axes, found[["low", "high"]], found["y"], color=colour, linewidth=1.2)
        axes.scatter(found["lead"], found["y"], s=19, color=colour, zorder=3, gid=name)
        titles[name] = [_ratio_title(row) for row in found["row"]]
    return titles


def _draw_segments(axes: Axes, ends: pd.DataFrame, y: pd.Series, **look: Any) -> None:
    """Horizontal lines, as one line with gaps: in the SVG it is one path."""
    gapped = np.column_stack([ends, np.full(len(ends), np.nan)]).ravel()
    axes.plot(gapped, np.repeat(y, 3), solid_capstyle="butt", **look)


def _row_names(row: Row, left: float) -> list[tuple[float, str, str, str]]:
    return [(left + 0.06, row.name[:30], "left", _INK), (-0.03, row.type, "right", _SOFT)]


def _ratio_title(row: Row) -> str:
    lead = row.lead()
    assert lead
    return f"{row.name}, {row.type}, {row.equation[:60]}: {ratio_text(lead.median)} ({range_text(lead)}), {row.best()}"


def _printable(text: str) -> str:
    """Without what XML cannot hold."""
    return "".join(character if character.isprintable() else "?" for character in text)


# ---------------------------------------------------------------- both


def _headline(figure: Figure, title: str, run: Run, note: str) -> None:
    """The title, the device and the versions at the top of a figure, and a note below them."""
    mean, beside = families_frame(run).loc["all", ["lead", "library"]]
    about = f"{device_text(run)}; {date_text(run)}; {versions_text(run)}"
    means = f"geometric means: {ratio_text(mean)} beside the best peer, {ratio_text(beside)} beside {library(run)[0]}'s"
    for inches, text, look in (
        (0.12, title, {"fontsize": 13, "weight": "bold", "color": _INK}),
        (0.37, _shortened("", about.split(", "), int(16.4 * figure.get_figwidth())), {}),
        (0.53, f"{means}; {note}" if note else means, {}),
    ):
        place = 1 - inches / figure.get_figheight()
        figure.text(0.008, place, _printable(text), va="top", **look)


def _shortened(title: str, parts: Sequence[str], length: int = 110) -> str:
    text = ", ".join(parts)
    return f"{title}{text if len(text) <= length else f'{text[: length - 1]}…'}" if parts else ""


def _svg(figure: Figure, titles: Titles) -> str:
    """matplotlib's SVG without what says nothing; it follows the reader's dark mode, and its points show their titles.

    Ids go, but for those that something refers to: two pictures may be put into one page.
    """
    stream = io.StringIO()
    figure.savefig(stream, format="svg", metadata=dict.fromkeys(("Date", "Creator", "Format", "Type")))
    text = re.sub(r' transform="rotate\(-?0 [^"]*"|<metadata>.*?</metadata>', "", stream.getvalue(), flags=re.DOTALL)
    text = text.replace("font-family: 'DejaVu Sans'; ", "")
    used = set(re.findall(r"#(\w+)", text))
    root = ElementTree.fromstring(text)
    for group in root.iter(f"{_SVG}g"):
        for point, title in zip(group.iter(f"{_SVG}use"), titles.get(group.get("id", ""), ()), strict=False):
            ElementTree.SubElement(point, f"{_SVG}title").text = _printable(title)
    for element in root.iter():
        if element.get("id") not in used:
            element.attrib.pop("id", None)
        for name, value in element.attrib.items():
            element.set(name, re.sub(r"(\.\d\d)\d+", r"\1", " ".join(value.split())))
    _flatten(root)
    root.attrib |= _ROOT
    [style] = root.iter(f"{_SVG}style")
    style.text = f"text{{white-space:pre}}@media screen and (prefers-color-scheme:dark){{{_DARK_RULES}}}"
    ElementTree.indent(root, "")
    return ElementTree.tostring(root, encoding="unicode") + "\n"


def _flatten(parent: ElementTree.Element) -> None:
    """Replace each group that has no attributes by what is in it."""
    for child in parent:
        _flatten(child)
    is_plain = [child.tag == f"{_SVG}g" and not child.attrib for child in parent]
    parent[:] = [
        element for child, plain in zip(parent, is_plain, strict=True) for element in (child if plain else [child])
    ]


_SVG = "{http://www.w3.org/2000/svg}"
ElementTree.register_namespace("", _SVG[1:-1])
ElementTree.register_namespace("xlink", "http://www.w3.org/1999/xlink")
# matplotlib writes colours into each element's style: rules that name them replace them where a reader's paper is dark.
_DARK_RULES = "".join(
    f'[style*="{what}: {light}"]{{{what}:{dark}!important}}'
    for light, dark in _DARK.items()
    for what in ("fill", "stroke")
)
_ROOT = {"font-family": "'DejaVu Sans', Verdana, sans-serif", "stroke-linejoin": "round"}
