"""Plan to picture: the contraction tree with what each step is and costs, as SVG or as HTML, in a file of its own."""

from __future__ import annotations

import unicodedata
import zlib
from collections.abc import Sequence
from functools import cache
from html import escape
from importlib.resources import files
from typing import NamedTuple

from gpueinsum.costs.counts import item_bytes
from gpueinsum.costs.profile import Profile, device_profile
from gpueinsum.errors import visible
from gpueinsum.language.plan import Plan, check_is_plan
from gpueinsum.language.slices import one_slice
from gpueinsum.language.strides import points
from gpueinsum.schedule.schedule import schedule
from gpueinsum.text import bytes_text, seconds_text
from gpueinsum.tools.rows import HEADINGS, Row, Rows, plan_rows, schedule_rows
from gpueinsum.tools.tree import Line, tree

# Pixels: the height of a line, the width of a character, a gap between columns, a margin, the longest bar.
_LINE, _CHARACTER, _GAP, _MARGIN, _BAR = 22, 7.25, 18, 16, 90
_LANE, _LANES = 18, 360  # pixels: from lane to lane, of all of them at the most
_THIN, _THICK = 1.2, 7.0  # pixels: the branch of an array of no bytes, of the largest
_MOST_CHARACTERS = 60  # of a text; the line's tooltip has all of it
_DOMINANT = 10  # steps in the table on top, which plans of more than twice as many have
_LEGEND = (
    "square: operand; circle: step, fuller for a larger share; dashed: read again; ring: result; thicker: more bytes"
)
_NUMBER = ' class="number"'
_SVG = 'xmlns="http://www.w3.org/2000/svg"'


def html_page(plan: Plan, device: str | Profile | None = None) -> str:
    """The picture as a page. Raises PlanError for what is no plan, ProfileError for what is no device."""
    return page(plan, _rows(plan, device))


def html_fragment(plan: Plan) -> str:
    """The picture as a part of a page, as notebooks take it."""
    return _fragment(plan, plan_rows(plan), ())


def svg(plan: Plan, device: str | Profile | None = None) -> str:
    """The picture below lines on all of the plan. Raises as `html_page`."""
    rows = _rows(plan, device)
    return _Picture(rows, ()).document([f"{_title(plan)}  {plan.dtype}", *map(visible, rows.totals)])


def page(plan: Plan, rows: Rows, measured: Sequence[float] = ()) -> str:
    """A page on the rows of a plan, with the `measured` seconds of each if there are any."""
    return (
        f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"><title>{escape(_title(plan))}</title>'
        "<style>:root { color-scheme: light dark } body { margin: 0 } "
        "body > div { min-height: 100vh; box-sizing: border-box }</style></head>\n"
        f"<body>{_fragment(plan, rows, measured)}</body></html>\n"
    )


def _rows(plan: Plan, device: str | Profile | None) -> Rows:
    check_is_plan(plan)
    if device is None:
        return plan_rows(plan)
    profile = device if isinstance(device, Profile) else device_profile(device)
    return schedule_rows(schedule(one_slice(plan), profile), plan)


def _fragment(plan: Plan, rows: Rows, measured: Sequence[float]) -> str:
    picture = _Picture(rows, measured)
    sizes = " ".join(f"{visible(label)}={number}" for label, number in plan.sizes)
    totals = "".join(f"<li>{escape(visible(line))}</li>" for line in rows.totals)
    return (
        f'<div class="gpueinsum"><style>{_style()}</style><p><b>{escape(visible(plan.equation))}</b> {plan.dtype}</p>'
        f"<p>{escape(sizes)}</p><ul>{totals}</ul>{picture.dominant_steps()}"
        f'<div class="scroll"><div class="head">{picture.head()}</div>{picture.body()}</div></div>'
    )


def _title(plan: Plan) -> str:
    return _cut(visible(plan.equation), 2 * _MOST_CHARACTERS)


@cache
def _style() -> str:
    return (files("gpueinsum.tools") / "picture.css").read_text(encoding="utf-8")


class _Shown(NamedTuple):
    """What a line shows: where a step is shown first, its row and its share of all steps; a text for each column."""

    line: Line
    row: Row | None
    share: float
    texts: tuple[str, ...]


class _Picture:
    """The lines of a plan as SVG: its branches, columns of texts, and bars of shares before the last column."""

    def __init__(self, rows: Rows, measured: Sequence[float]) -> None:
        self._registers, self._steps, self._sizes = rows.registers, rows.steps, dict(rows.registers.sizes)
        predicted = [row.seconds for row in rows.steps if row.seconds is not None]
        weights: Sequence[float] = measured or predicted or [row.cost.flops for row in rows.steps]
        total = sum(weights)
        self._shares = [weight / total if total else 0.0 for weight in weights]
        self._largest = max(self._shares, default=0.0)
        self._whole = "measured" if measured else "predicted" if predicted else "flops"
        self._times = {name: each for name, each in (("predicted", predicted), ("measured", measured)) if each}
        self._headings = ("array", "einsum", *HEADINGS[2:], *self._times, f"of {self._whole}", "")
        self._lines = [self._show(line) for line in tree(rows.registers)]
        self._name = f"plan{zlib.crc32(repr(rows.registers).encode()):x}"  # a page may show several plans
        lanes = max(shown.line.lane for shown in self._lines)
        self._lane = min(_LANE, _LANES / max(lanes, 1))
        self._kinds = ("", "", *[_NUMBER] * (len(self._headings) - 3), ' class="dim"')
        self._places = self._columns(_MARGIN + lanes * self._lane + _GAP)
        self._bars = self._places[-2] + _CHARACTER
        self._places[-1] += _BAR
        texts = max(_width(_cut(shown.texts[-1])) for shown in self._lines)
        reach = max(self._places[-1] + texts * _CHARACTER, _MARGIN + _width(_LEGEND) * _CHARACTER)
        self.width, self.height = round(reach) + _MARGIN, (len(self._lines) + 2) * _LINE

    def _columns(self, x: float) -> list[float]:
        """Where the texts of each column begin, or end if they are numbers, in pixels."""
        places = []
        for column, heading in enumerate(self._headings):
            # The shape of an operand may be as wide as all sizes of a step.
            texts = [shown.texts[column] for shown in self._lines if shown.row or heading not in HEADINGS[2:6]]
            width = max(_width(_cut(text)) for text in (heading, *texts)) * _CHARACTER
            places.append(x + width if self._kinds[column] == _NUMBER else x)
            x += width + _GAP
        return places

    # ------------------------------------------------------------ what a line shows

    def _show(self, line: Line) -> _Shown:
        registers, step = self._registers, line.register - len(self._registers.inputs)
        names = [f"output {place}" for place, output in enumerate(registers.outputs) if output == line.register]
        if names and len(registers.outputs) == 1:
            names = ["result"]
        if step >= 0 and not line.is_again:
            row, share = self._steps[step], self._shares[step]
            register, _, *cells = row.cells
            times = [seconds_text(each[step]) if each[step] else "-" for each in self._times.values()]
            notes = "; ".join(filter(None, [*names, row.note, row.how]))
            return _Shown(line, row, share, (register, row.einsum, *cells, *times, _percent(share), notes))
        term = registers.term(line.register)
        shape = " × ".join([str(self._sizes[label]) for label in term])
        note = "read again" if line.is_again else "; ".join([*names, f"operand {line.register}"])
        blank = [""] * (len(self._times) + 1)
        nbytes = bytes_text(self._bytes(line.register))
        texts = (f"%{line.register}", visible(term), "", "", "", shape, "", "", nbytes, *blank, note)
        return _Shown(line, None, 0.0, texts)

    def _bytes(self, register: int) -> int:
        return points(self._registers.term(register), self._sizes) * item_bytes(self._registers.dtype)

    # ------------------------------------------------------------ documents

    def dominant_steps(self) -> str:
        """A table of the steps that take most, each with a link to its line."""
        steps = sorted([each for each in self._lines if each.row], key=lambda each: (-each.share, each.line.register))
        if len(steps) <= 2 * _DOMINANT:
            return ""
        most = steps[:_DOMINANT]
        heads = "".join([f"<th>{heading}</th>" for heading in self._headings])
        rows = "".join([f"<tr>{self._table_cells(shown)}</tr>" for shown in most])
        share = escape(_percent(sum(shown.share for shown in most)))
        caption = f"{_DOMINANT} of {len(steps)} steps: {share} of {self._whole}"
        return f"<table><caption>{caption}</caption><tr>{heads}</tr>{rows}</table>"

    def _table_cells(self, shown: _Shown) -> str:
        register, *texts = [escape(_cut(text)) for text in shown.texts]
        link = f'<a href="#{self._name}-{shown.line.register}">{register}</a>'
        return "".join([f"<td>{cell}</td>" for cell in (link, *texts)])

    def document(self, heading: Sequence[str]) -> str:
        """The picture below lines of text."""
        lines = [f'<text x="{_MARGIN}" y="{y * _LINE}">{escape(line)}</text>' for y, line in enumerate(heading, 1)]
        width = max(self.width, *[round(2 * _MARGIN + _width(line) * _CHARACTER) for line in heading])
        top = (len(heading) + 1) * _LINE
        return (
            f'<svg {_SVG} class="gpueinsum" width="{width}" height="{top + _LINE + self.height}">'
            f'<style>{escape(_style())}</style><rect class="back" width="100%" height="100%"/>{"".join(lines)}'
            f'<g transform="translate(0 {top})">{self.head()}</g>'
            f'<g transform="translate(0 {top + _LINE})">{self.body()}</g></svg>\n'
        )

    def head(self) -> str:
        """The headings of the columns."""
        return self._image(_LINE, f'<g class="array">{self._text(self._headings)}</g>')

    def body(self) -> str:
        """The branches, and a line for each array over them."""
        most = max(self._bytes(shown.line.register) for shown in self._lines)
        branches = []
        for number, shown in enumerate(self._lines):
            for child in shown.line.children:
                part = self._bytes(self._lines[child].line.register) / most if most else 0
                width = _THIN + (_THICK - _THIN) * part ** (1 / 3)
                branches.append(f'<path d="{self._branch(child, number)}" stroke-width="{width:.1f}"/>')
        lines = [self._line(number, shown) for number, shown in enumerate(self._lines)]
        legend = f'<text x="{_MARGIN}" y="{self.height - _LINE // 2}" class="dim">{_LEGEND}</text>'
        return self._image(self.height, f'<g class="branches">{"".join(branches)}</g>{"".join(lines)}{legend}')

    def _image(self, height: int, content: str) -> str:
        return f'<svg {_SVG} width="{self.width}" height="{height}">{content}</svg>'

    # ------------------------------------------------------------ what a line is made of

    def _branch(self, child: int, parent: int) -> str:
        """Down the child's lane, and round a corner to the parent's."""
        (x, y), (end, bottom) = self._at(child), self._at(parent)
        if x == end:
            return f"M{x:.1f} {y}V{bottom}"
        turn = min(_LINE / 2, x - end)
        return f"M{x:.1f} {y}V{bottom - turn:.1f}Q{x:.1f} {bottom} {x - turn:.1f} {bottom}H{end:.1f}"

    def _at(self, number: int) -> tuple[float, int]:
        return _MARGIN + self._lines[number].line.lane * self._lane, number * _LINE + _LINE // 2

    def _line(self, number: int, shown: _Shown) -> str:
        line, row, share, texts = shown
        x, y = self._at(number)
        is_cut = any(_cut(text) != text for text in texts)
        title = f"<title>{escape('; '.join(filter(None, texts)))}</title>" if is_cut else ""
        bar = (
            f'<rect class="bar" x="{self._bars:.0f}" y="6" width="{self._part(share) * _BAR:.1f}" height="10"/>'
            if share
            else ""
        )
        content = (
            f'{title}<rect class="back" width="{self.width}" height="{_LINE}"/>'
            f"{bar}{self._mark(shown, x)}{self._text(texts)}"
        )
        place = f'class="line{"" if row else " array"}" transform="translate(0 {y - _LINE // 2})"'
        anchor = f"{self._name}-{line.register}"
        if line.is_again:
            return f'<a href="#{anchor}" {place}>{content}</a>'
        return f'<g id="{anchor}" {place}>{content}</g>'

    def _part(self, share: float) -> float:
        """Of the largest share, which has the longest bar and is the fullest."""
        return share / self._largest

    def _text(self, texts: Sequence[str]) -> str:
        spans = [
            f'<tspan x="{x:.0f}"{kind}>{escape(_cut(text))}</tspan>'
            for x, text, kind in zip(self._places, texts, self._kinds, strict=True)
            if text
        ]
        return f'<text y="15">{"".join(spans)}</text>'

    def _mark(self, shown: _Shown, x: float) -> str:
        """What `_LEGEND` says, and another colour for a step that is computed again."""
        (register, is_again, *_), row, share, _ = shown
        y = _LINE // 2
        if row or is_again:
            kind = " again" if is_again else " twice" if row and row.again is not None else ""
            mark = f'<circle class="mark{kind}" cx="{x:.1f}" cy="{y}" r="5"/>'
        else:
            mark = f'<rect class="mark" x="{x - 4:.1f}" y="{y - 4}" width="8" height="8"/>'
        if share:
            mark += f'<circle class="full" cx="{x:.1f}" cy="{y}" r="5" fill-opacity="{self._part(share) ** 0.5:.2f}"/>'
        if register in self._registers.outputs and not is_again:
            mark += f'<circle class="output" cx="{x:.1f}" cy="{y}" r="8.5"/>'
        return mark


def _percent(share: float) -> str:
    return f"{share:.1%}" if share >= 0.0005 or not share else "<0.1%"


def _cut(text: str, most: int = _MOST_CHARACTERS) -> str:
    """A text that is no wider than so many characters; what is left out is an ellipsis."""
    if _width(text) <= most:
        return text
    while _width(text) >= most:
        text = text[: most * len(text) // (_width(text) + 1)]
    return f"{text}…"


def _width(text: str) -> int:
    """In characters: those of East Asian scripts are twice as wide as others."""
    return len(text) if text.isascii() else sum([1 + (unicodedata.east_asian_width(c) in "WF") for c in text])
