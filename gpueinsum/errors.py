"""What can be wrong with a call, one class each; every one subclasses what numpy raises in its place."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable

_LINE, _AROUND = 120, 24  # characters: the longest text shown whole, what is shown on either side of a mark in others


class SubscriptsError(ValueError):
    """The subscripts are malformed, or do not fit the operands."""


class PlanError(ValueError, RuntimeError):
    """A contraction path or a plan that does not describe the expression at hand."""


class LimitError(PlanError):
    """A `memory_limit=` under which nothing that is known would run, and the `least` bytes that would do."""

    def __init__(self, message: str, least: int = 0) -> None:
        super().__init__(message)
        self.least = least


class OptimizerError(PlanError, KeyError):
    """An `optimize=` that is neither a path nor an optimizer nor the name of one."""

    __str__ = ValueError.__str__  # KeyError's would put the message in quotes


class OutError(ValueError):
    """An `out=` array of the wrong shape, layout or access."""


class DtypeError(TypeError):
    """A dtype that cannot be computed with, or a cast that `casting=` forbids."""


class OperandError(TypeError, ValueError):
    """An operand or `out=` that is no array, or an array that lives elsewhere than the others or the current device."""


class DeviceError(RuntimeError):
    """CUDA was asked for and cannot be had."""


class ProfileError(ValueError):
    """A device profile that is not there, or a text that is none."""


def point_at(message: str, text: str, spans: Iterable[tuple[int, int]]) -> str:
    """`message`, then `text` on a line of its own with a caret under every character of `spans`.

    >>> print(point_at("label 'j' is 4 in operand 0 but 5 in operand 1", "ij,jk->ik", [(1, 2), (3, 4)]))
    label 'j' is 4 in operand 0 but 5 in operand 1
        ij,jk->ik
         ^ ^
    """
    text, spans = _excerpt(text, [(start, max(stop, start + 1)) for start, stop in spans])
    carets = ""
    for at in range(max((stop for _, stop in spans), default=0)):  # a mark may be one place behind the text
        shown = visible(text[at : at + 1]) or " "
        columns = 2 if unicodedata.east_asian_width(shown[0]) in "WF" else len(shown)  # that a terminal gives to it
        carets += ("^" if any(start <= at < stop for start, stop in spans) else " ") * columns
    return f"{message}\n    {visible(text)}\n    {carets}"


def visible(text: str) -> str:
    """Characters that show nothing, or change what is around them (marks, separators, controls), as their escapes."""
    return "".join(c.encode("unicode_escape").decode() if unicodedata.category(c)[0] in "MZC" else c for c in text)


def _excerpt(text: str, spans: list[tuple[int, int]]) -> tuple[str, list[tuple[int, int]]]:
    """A text too long for a line cut down to what surrounds the spans, and where these then are."""
    if len(text) <= _LINE:
        return text, spans
    near = {at for start, stop in spans for at in range(start - _AROUND, stop + _AROUND)}
    shown = sorted(near.intersection(range(len(text))))
    excerpt, column = "", {}
    for before, at in zip([-1, *shown], shown, strict=False):
        excerpt += " … " if at != before + 1 else ""
        column[at] = len(excerpt)
        excerpt += text[at]
    excerpt += " …" if shown and shown[-1] != len(text) - 1 else ""
    return excerpt, [(column[start], column[stop - 1] + 1) for start, stop in spans if start in column]
