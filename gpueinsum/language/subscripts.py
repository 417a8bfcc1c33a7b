"""First stage: einsum text, or interleaved labels, and operand shapes in; `Subscripts` out.

A label is one character and a term is a string of them, whatever the caller wrote: the interleaved form and the axes of
an ellipsis are given characters of their own. After this stage every label has one size: an axis of size 1 that
numpy would broadcast becomes a label of its own that is summed away.
"""

from __future__ import annotations

import contextlib
import itertools
import re
from collections import Counter
from collections.abc import Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

from gpueinsum.errors import SubscriptsError, point_at

Label = str  # one character
Term = str  # the ordered labels of one array; the order is the layout
Shape = tuple[int, ...]
Sublist = tuple[Hashable, ...]

ELLIPSIS = "..."
# Other white space of Unicode may be a label: opt_einsum's 5,621st is one.
_WHITE_SPACE = dict.fromkeys(map(ord, "\t\n\r\f\v\u00a0"), " ")
_PIECES = re.compile(r"\.{3}|->|[^ ]")
_LABELS = "[A-Za-z\u0080-\u009f\u00a1-\ud7ff\ue000-\U0010ffff]*"  # no other character of ASCII, no half of one
_PLAIN = re.compile(f"{_LABELS}(?:,{_LABELS})*->{_LABELS}")


@dataclass(frozen=True, slots=True)
class Subscripts:
    """A resolved expression: one term per operand, the output's term, and the size of every label."""

    inputs: tuple[Term, ...]
    output: Term
    sizes: tuple[tuple[Label, int], ...]

    def __str__(self) -> str:
        return f"{','.join(self.inputs)}->{self.output}"

    def transpose(self, operand: int) -> Subscripts:
        """The gradient of one operand as an expression: operand and output trade places.

        The operand's place is taken by the cotangent. The new output may repeat labels, or gain some that no input has.

        >>> print(parse("ijk,ip->jkp", [(2, 3, 5), (2, 7)]).transpose(0))
        jkp,ip->ijk
        """
        inputs = (*self.inputs[:operand], self.output, *self.inputs[operand + 1 :])
        return Subscripts(inputs, self.inputs[operand], self.sizes)


Span = tuple[int, int]  # start and stop in a text


class Token(NamedTuple):
    """A label (or an ellipsis) as it was written: its character, its name in messages, its place in the text."""

    label: str
    name: str
    span: Span


class Written(NamedTuple):
    """An expression as the caller wrote it, not yet compared with any operand."""

    text: str
    inputs: tuple[tuple[Token, ...], ...]
    output: tuple[Token, ...] | None
    spans: tuple[Span, ...]  # of each input term in the text

    def tokens(self) -> Iterator[Token]:
        return itertools.chain(*self.inputs, self.output or ())

    def error(self, message: str, *spans: Span) -> SubscriptsError:
        return SubscriptsError(point_at(message, self.text, spans))


def parse(text: str, shapes: Sequence[Shape]) -> Subscripts:
    """Resolve einsum text against operand shapes.

    >>> print(parse("...ij,jk", [(7, 2, 3), (3, 5)]))
    Aij,jk->Aik

    Raises SubscriptsError, which points at the offending label.
    """
    return _read_plain(text, shapes) or _resolve(_read_text(text), shapes)


def parse_interleaved(sublists: Sequence[Sublist], output: Sublist | None, shapes: Sequence[Shape]) -> Subscripts:
    """Resolve the form `einsum(a, [0, 1], b, [1, 2], [0, 2])`, whose labels may be any hashable values.

    >>> print(parse_interleaved([("batch", "i"), ("i", ...)], ("batch", ...), [(2, 3), (3, 5)]))
    AB,BC->AC
    """
    return _resolve(_read_sublists(sublists, output), shapes)


def as_text(sublists: Sequence[Sublist], output: Sublist | None) -> str:
    """The interleaved form as a text of the same meaning.

    >>> as_text([("batch", "i"), ("i", ...)], ("batch", ...))
    'AB,B...->A...'
    """
    written = _read_sublists(sublists, output)
    inputs = ",".join("".join(token.label for token in term) for term in written.inputs)
    return inputs if written.output is None else f"{inputs}->{''.join(token.label for token in written.output)}"


def alphabet(used: Iterable[Label] = ()) -> Iterator[Label]:
    """Letters that are not `used`, in ascending order: A-Z, a-z, then the other 130,000 letters of Unicode."""
    taken = set(used)
    return (c for c in map(chr, range(ord("A"), 0x110000)) if c.isalpha() and c not in taken)


# ---------------------------------------------------------------- reading


def _read_plain(text: str, shapes: Sequence[Shape]) -> Subscripts | None:
    """What most texts are, terms of labels that have one size each, read at a tenth of the time; None for all others.

    A product of 2000 matrices took 26 ms token by token, 1.9 ms term by term (one core of an AMD EPYC).
    """
    if not _PLAIN.fullmatch(text):
        return None
    left, _, output = text.partition("->")
    terms = left.split(",")
    if list(map(len, terms)) != list(map(len, shapes)):
        return None
    sizes: dict[Label, int] = {}
    for term, shape in zip(terms, shapes, strict=True):
        for label, size in zip(term, shape, strict=True):
            if sizes.setdefault(label, size) != size:
                return None
    return Subscripts(tuple(terms), output, tuple(sizes.items())) if sizes.keys() >= set(output) else None


@lru_cache(maxsize=1024)
def _read_text(text: str) -> Written:
    text = text.translate(_WHITE_SPACE)
    terms: list[list[Token]] = [[]]
    begins = [0]  # where each term does, for one without labels
    arrow: Span | None = None

    error = Written(text, (), None, ()).error
    for match in _PIECES.finditer(text):
        piece, span = match[0], match.span()
        if piece == "->" and arrow is not None:
            raise error("a second '->'", arrow, span)
        if piece == "," and arrow is not None:
            raise error("a ',' in the output, which has only one term", span)
        if piece in ("->", ","):
            arrow = span if piece == "->" else None
            terms.append([])
            begins.append(span[1])
        elif piece in (".", "-", ">"):
            meant = "an ellipsis, '...'" if piece == "." else "an arrow, '->'"
            raise error(f"'{piece}' that is not part of {meant}", span)
        elif piece != ELLIPSIS and ((piece.isascii() and not piece.isalpha()) or "\ud800" <= piece <= "\udfff"):
            raise error(f"{piece!r} cannot be a label", span)  # half a character can be none, either
        else:
            terms[-1].append(Token(piece, piece if piece == ELLIPSIS else repr(piece), span))
    output = tuple(terms.pop()) if arrow is not None else None
    spans = [(t[0].span[0], t[-1].span[1]) if t else (begin, begin) for t, begin in zip(terms, begins, strict=False)]
    return _check(Written(text, tuple(map(tuple, terms)), output, tuple(spans)))


def _read_sublists(sublists: Sequence[Sublist], output: Sublist | None) -> Written:
    characters = _characters(label for term in (*sublists, output or ()) for label in term)
    text, terms, spans = "", [], []
    for number, term in enumerate(sublists if output is None else (*sublists, output)):
        if number:
            text += " -> " if number == len(sublists) else ", "
        start, tokens = len(text), []
        text += "["
        for position, label in enumerate(term):
            text += ", " if position else ""
            name = ELLIPSIS if label is Ellipsis else repr(label)
            tokens.append(Token(characters[label], name, (len(text), len(text) + len(name))))
            text += name
        text += "]"
        terms.append(tuple(tokens))
        spans.append((start, len(text)))
    last = terms.pop() if output is not None else None
    return _check(Written(text, tuple(terms), last, tuple(spans[: len(sublists)])))


def _characters(labels: Iterable[Hashable]) -> dict[Hashable, Label]:
    """A character for each label, in their own order, so that an implicit output sorts as the labels do."""
    distinct = list(dict.fromkeys(label for label in labels if label is not Ellipsis))
    if all(isinstance(label, str) and len(label) == 1 and label.isalpha() for label in distinct):
        return {Ellipsis: ELLIPSIS} | {label: str(label) for label in distinct}
    with contextlib.suppress(TypeError):  # labels without an order among them keep that of first appearance
        distinct.sort()  # type: ignore[call-arg]  # any hashable may be a label
    return {Ellipsis: ELLIPSIS} | dict(zip(distinct, alphabet(), strict=False))


def _check(written: Written) -> Written:
    """Refuse what is wrong whatever the operands are."""
    for term in (*written.inputs, written.output or ()):
        dots = [token.span for token in term if token.label == ELLIPSIS]
        if len(dots) > 1:
            raise written.error("more than one ellipsis in a term", *dots)
    known = {token.label for term in written.inputs for token in term} | {ELLIPSIS}
    for token in written.output or ():
        if token.label not in known:
            raise written.error(f"output label {token.name} is in no operand", token.span)
    return written


# ---------------------------------------------------------------- resolving


class _Axis(NamedTuple):
    label: Label
    size: int
    operand: int
    token: Token


def _resolve(written: Written, shapes: Sequence[Shape]) -> Subscripts:
    terms, operands = len(written.inputs), len(shapes)
    if terms > operands:
        message = f"{_count(terms, 'term')} but {_count(operands, 'operand')}"
        raise written.error(message, *written.spans[operands:])
    if terms < operands:
        raise written.error(f"{_count(operands, 'operand')} but {_count(terms, 'term')}", written.spans[-1])
    fresh = alphabet(token.label for token in written.tokens())
    extra = [_extra_dimensions(written, operand, len(shape)) for operand, shape in enumerate(shapes)]
    dots = "".join(itertools.islice(fresh, max(extra, default=0)))
    axes = []
    for operand, shape in enumerate(shapes):
        own = dots[len(dots) - extra[operand] :]
        tokens = written.inputs[operand]
        labelled = [(x, token) for token in tokens for x in (own if token.label == ELLIPSIS else token.label)]
        axes.append([_Axis(x, size, operand, token) for (x, token), size in zip(labelled, shape, strict=True)])
    sizes = _sizes(written, axes)

    inputs = []
    for operand_axes in axes:
        term = ""
        for axis in operand_axes:
            label = axis.label
            if axis.size != sizes[label]:  # size 1 broadcast against more: its own label, summed away
                label = next(fresh)
                sizes[label] = 1
            term += label
        inputs.append(term)
    return Subscripts(tuple(inputs), _output(written, dots), tuple(sizes.items()))


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _extra_dimensions(written: Written, operand: int, rank: int) -> int:
    """How many axes the ellipsis of an operand stands for."""
    term = written.inputs[operand]
    has_ellipsis = any(token.label == ELLIPSIS for token in term)
    labels = len(term) - has_ellipsis
    if rank < labels or (rank > labels and not has_ellipsis):
        message = f"has {_count(rank, 'dimension')}, but its term has {_count(labels, 'label')}"
        raise written.error(f"operand {operand} {message}", written.spans[operand])
    return rank - labels


def _sizes(written: Written, operands: Sequence[Sequence[_Axis]]) -> dict[Label, int]:
    """The size of every label; size 1 gives way to another operand's size, but not to one of its own operand."""
    chosen: dict[Label, _Axis] = {}
    for axes in operands:
        own: dict[Label, _Axis] = {}
        for axis in axes:
            twin = own.setdefault(axis.label, axis)
            if twin.size != axis.size:
                raise _disagreement(written, twin, axis)
            seen = chosen.setdefault(axis.label, axis)
            if seen.size == 1:
                chosen[axis.label] = axis
            elif axis.size not in (1, seen.size):
                raise _disagreement(written, seen, axis)
    return {label: axis.size for label, axis in chosen.items()}


def _disagreement(written: Written, seen: _Axis, axis: _Axis) -> SubscriptsError:
    name = f"label {axis.token.name}" if axis.token.label != ELLIPSIS else "an axis of '...'"
    where = f"{seen.size} in operand {seen.operand} but {axis.size} in operand {axis.operand}"
    if seen.operand == axis.operand:
        where = f"both {seen.size} and {axis.size} in operand {axis.operand}"
    return written.error(f"{name} is {where}", seen.token.span, axis.token.span)


def _output(written: Written, dots: Term) -> Term:
    if written.output is None:  # implicit: the ellipsis, then in order every label that occurs once
        counts = Counter(token.label for token in written.tokens() if token.label != ELLIPSIS)
        return dots + "".join(sorted(label for label, count in counts.items() if count == 1))
    return "".join(dots if token.label == ELLIPSIS else token.label for token in written.output)
