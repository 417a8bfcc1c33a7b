"""The ways in which a device can run one step, each with its layout, scratch memory and price."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from gpueinsum.costs.counts import item_bytes, product_flops
from gpueinsum.costs.seconds import SMALL, is_tiny, pass_seconds, product_seconds
from gpueinsum.language.steps import distinct, within, without
from gpueinsum.language.strides import Axis, axes, fuse, label_strides, points
from gpueinsum.language.subscripts import Label, Term
from gpueinsum.schedule.mapping import MEMORY_MUST_SAVE, Gemm, bytes_moved, gemms
from gpueinsum.schedule.problem import Problem, Strides, c_strides, canonical, dense_strides

_LINE = {"cpu": 64, "cuda": 32}  # bytes that memory gives at once: a line of a cache, a sector of one
_POINTER_BYTES = 8
MOST_LETTERS = 52  # those of np.einsum; a CUDA kernel runs 64 loops


@dataclass(frozen=True, slots=True)
class View:
    """The source's memory seen through other strides; nothing is computed."""

    name = "view"


@dataclass(frozen=True, slots=True)
class Zeros:
    """A result of zeros: what is summed has no elements."""

    name = "zeros"


@dataclass(frozen=True, slots=True)
class Pass:
    """One loop over all labels, which are listed outermost first, the summed ones last."""

    loops: Term
    name = "one pass"


@dataclass(frozen=True, slots=True)
class Grouped:
    """On the CPU: one `np.matmul` of arrays of any strides, each seen with one axis for each role, copied if need be.

    The result's labels are written in the order `out`.
    """

    out: Term
    name = "one product"


@dataclass(frozen=True, slots=True)
class ExactGemm:
    """On the CPU: a product of integers as that of floats, where these hold every sum; else a loop."""

    out: Term
    name = "a product of floats"


@dataclass(frozen=True, slots=True)
class Scatter:
    """Zeros, and the source written along the diagonals of labels that the result repeats."""

    name = "scatter"


@dataclass(frozen=True, slots=True)
class Sum:
    """Arrays of one term added up, or zeros if there are none."""

    name = "sum"


Way = View | Zeros | Pass | Grouped | ExactGemm | Gemm | Scatter | Sum


class Candidate(NamedTuple):
    """A way to run a step: the strides of its result in elements, bytes that it takes for itself, predicted seconds."""

    way: Way
    strides: Strides
    scratch: int
    seconds: float

    @property
    def copies(self) -> int:
        """How many sides are copied first."""
        return sum(term is not None for term in self.way.copies) if isinstance(self.way, Gemm) else 0

    @property
    def weight(self) -> float:
        """Seconds, and more for what takes memory: a copy must save a twentieth of the time."""
        return self.seconds * MEMORY_MUST_SAVE**self.copies


def cheapest(problem: Problem) -> tuple[tuple[int, ...], Candidate]:
    """The order in which the problem's arrays are taken, and the cheapest way to run it, in the problem's labels.

    The choice does not depend on how labels are named, nor on the order of the arrays.
    """
    same, spelling = canonical(problem)
    return spelling.order, _renamed(_cheapest(same), problem, spelling.letters)


def candidates(problem: Problem) -> tuple[tuple[int, ...], list[Candidate]]:
    """All ways to run a problem, the cheapest first, as `cheapest` gives the first of them."""
    same, spelling = canonical(problem)
    found = sorted(_candidates(same, every=True), key=lambda way: way.weight)
    return spelling.order, [_renamed(way, problem, spelling.letters) for way in found]


@lru_cache(maxsize=4096)
def _cheapest(problem: Problem) -> Candidate:
    found = _candidates(problem)
    return found[0] if len(found) == 1 else min(found, key=lambda way: way.weight)


def _renamed(found: Candidate, problem: Problem, letters: dict[int, str]) -> Candidate:
    """A candidate of the same problem in other letters: labels by name alone, so that strides stay."""
    way = found.way
    match way:
        case Pass():
            way = Pass(way.loops.translate(letters))
        case Grouped() | ExactGemm():
            way = replace(way, out=way.out.translate(letters))
        case Gemm():
            lhs, rhs = (term if term is None else term.translate(letters) for term in way.copies)
            way = replace(way, copies=(lhs, rhs), out=way.out.translate(letters))
    return found._replace(way=way)


def _candidates(problem: Problem, every: bool = False) -> list[Candidate]:
    try:
        return _found(problem, every)
    except OverflowError:  # more elements than a float can tell: nobody runs it
        return [Candidate(Pass(problem.out + problem.summed), _strides(problem, problem.out), 0, math.inf)]


def _found(problem: Problem, every: bool) -> list[Candidate]:
    if len(problem.terms) == 1:
        if _is_view(problem):
            strides = label_strides(problem.terms[0], problem.strides[0])
            return [Candidate(View(), tuple([strides.get(label, 0) for label in problem.out]), 0, 0.0)]
        if len(set(problem.out)) < len(problem.out):
            moved = (problem.elements[0] + problem.elements[-1]) * item_bytes(problem.dtype)
            seconds = pass_seconds(problem.profile, moved)
            return [Candidate(Scatter(), _strides(problem, problem.out), 0, seconds)]
    if 0 in problem.elements:
        moved = problem.elements[-1] * item_bytes(problem.dtype)
        return [Candidate(Zeros(), _strides(problem, problem.out), 0, pass_seconds(problem.profile, moved))]
    if problem.profile.kind == "cpu":
        return _on_cpu(problem, every)
    return _on_cuda(problem, every)


def _is_view(problem: Problem) -> bool:
    """Whether nothing is summed, repeated or gained but labels of size 1."""
    [term], out = problem.terms, problem.out
    if len(set(out)) < len(out) or any(problem.conjugated):
        return False
    return all(problem.size[label] == 1 for label in {*term} ^ {*out})


def _strides(problem: Problem, layout: Term) -> Strides:
    """Of a result whose labels lie in memory in this order, the outermost first."""
    own = c_strides(layout, problem.size)
    if layout == problem.out:
        return own
    strides = dict(zip(layout, own, strict=True))
    return tuple([strides[label] for label in problem.out])


# ---------------------------------------------------------------- CUDA


def _on_cuda(problem: Problem, every: bool) -> list[Candidate]:
    """One pass of a kernel; and products of cuBLAS', or of our kernel for integers, for a pair that is one.

    A pair of several rows, columns and summed elements is a pass only where it is tiny. Matrices that a product would
    copy to multiply them with a vector are read once by a pass; so are those of integers, whose kernel works on tiles.
    """
    if not problem.is_pair:
        return [_kernel_pass(problem)]
    _, rows, columns, summed = problem.shape
    is_matrix, is_blas = rows > 1 < columns, problem.profile.rate(problem.dtype) is not None
    if summed == 1 or rows == columns == 1 or not (is_matrix or is_blas):
        return [_kernel_pass(problem)]
    item = item_bytes(problem.dtype)
    found = []
    for way, seconds in gemms(problem, every):
        copied = [term for term in way.copies if term is not None]
        if is_matrix or not copied:
            pointers = 3 * _POINTER_BYTES * way.product.number if way.product.pointers else 0
            scratch = sum(points(term, problem.size) for term in copied) * item + pointers
            found.append(Candidate(way, _strides(problem, way.out), scratch, seconds))
    if not is_matrix or is_tiny(problem.profile, problem.dtype, *problem.shape):
        found.append(_kernel_pass(problem))
    return found


def _kernel_pass(problem: Problem) -> Candidate:
    """A kernel that goes along the result in C order."""
    profile, item = problem.profile, item_bytes(problem.dtype)
    products = points("".join({*problem.out, *problem.summed}), problem.size)
    flops = product_flops(problem.dtype, products, problem.elements[-1], len(problem.terms))
    moved = _moved(problem)
    again = _read_again(problem, profile.cache_bytes // item) if moved * item > profile.cache_bytes else 0
    beside = _read_beside(problem)
    permuted = _permuted(problem) * item
    seconds = pass_seconds(profile, (moved + again + beside) * item, flops, permuted, len(problem.terms))
    return Candidate(Pass(problem.out + problem.summed), _strides(problem, problem.out), 0, seconds)


def _moved(problem: Problem) -> int:
    """Elements of the arrays, diagonals counted once, and of the result."""
    return sum(points(distinct(term), problem.size) for term in problem.terms) + problem.elements[-1]


def _read_again(problem: Problem, cached: int) -> int:
    """Elements that a kernel reads again from memory, since more than are `cached` were read in between.

    It goes along the result in C order: `ij,jb->ib` reads `jb` once for each i, `ij,ajb->aib` only once for all.
    """
    size, total = problem.size, 0
    for term in map(distinct, problem.terms):
        times = 1
        for place, label in enumerate(problem.out):
            if label not in term and points(without(term, problem.out[:place]), size) > cached:
                times *= size[label]
        total += (times - 1) * points(term, size)
    return total


def _read_beside(problem: Problem) -> int:
    """Elements that come from memory with those of a diagonal, which has no neighbours in a line of memory.

    `ijki->jk` of 64 each, float64, took 0.61 ms on 2 cores of an AMD EPYC: predicted 0.07 without, 0.18 with these.
    """
    line, total = max(_LINE[problem.profile.kind] // item_bytes(problem.dtype), 1), 0
    for term, own in zip(problem.terms, problem.strides, strict=True):
        once = distinct(term)
        if len(once) < len(term):
            apart = min(map(abs, label_strides(term, own).values()))
            total += max(min(apart, line) - 1, 0) * points(once, problem.size)
    return total


def _permuted(problem: Problem) -> int:
    """Elements that a pass moves across: it goes along the last axis of what it reads or of what it writes.

    3000 x 3000, float32: `ij,ji->ij` took 11.5 ms and is predicted 11.7 (2 cores of an AMD EPYC), `ij,ij->ij` 3.4 and
    3.7, `ij->i`, which writes nothing along what it reads, 1.2 and 2.3.
    """
    last = problem.out[-1:]
    if not last:
        return 0
    across = 0
    for term, own in zip(problem.terms, problem.strides, strict=True):
        fastest = _fastest(term, own, problem)
        if last in term and fastest != last and fastest in problem.out:
            across += points(term, problem.size)
    return min(across, problem.elements[-1])


def _fastest(term: Term, strides: Sequence[int], problem: Problem) -> Label:
    """The label along which an array's elements are the nearest; of equal ones the last."""
    best, least = term[-1:], math.inf
    for label, stride in zip(term, strides, strict=True):
        if problem.size[label] > 1 and stride and abs(stride) <= least:
            best, least = label, abs(stride)
    return best


# ---------------------------------------------------------------- CPU


# Seconds of numpy's C loop: for each point of two arrays along which it steps from neighbour to neighbour, by bytes of
# an item; of complex numbers; for each point of other arrays; each time that it turns back. 300 x 300 and 60 x 60 x 60,
# one core of an AMD EPYC, numpy 2.4: float32 0.07, 0.5 and 3.3 ns, float64 0.18, complex64 0.7 to 1.4.
_NEAR, _COMPLEX, _APART, _TURN = 0.02e-9, 1.0e-9, 0.5e-9, 3.3e-9
_LARGEST_EXACT, _WIDE_EXACT = 1 << 16, 8  # products, and sides, from which on integers are multiplied as floats


def _on_cpu(problem: Problem, every: bool) -> list[Candidate]:
    """numpy's loop or its BLAS on views; sides are copied first where BLAS needs it, if the price says so."""
    is_product = problem.is_pair and bool(problem.roles[3]) and problem.dtype != "object"
    has_letters = len(set("".join((*problem.terms, problem.out)))) <= MOST_LETTERS
    found = [_numpy_loop(problem)] if has_letters or not problem.summed or not problem.is_pair else []
    if not is_product:
        return found or [_grouped(problem)]
    if problem.profile.rate(problem.dtype) is None:
        exact = _exact(problem)
        return [exact] if exact else found or [_grouped(problem)]
    if sum(problem.elements) < SMALL or not found:
        return [*found, _grouped(problem)]
    item = item_bytes(problem.dtype)
    for way, seconds in gemms(_after_conjugates(problem), every):
        copied = [points(term, problem.size) for term in way.copies if term is not None]
        scratch = sum(copied) * item
        found.append(Candidate(way, _strides(problem, way.out), scratch + _conjugates(problem), seconds))
    return found


def _after_conjugates(problem: Problem) -> Problem:
    """The pair of the sides' conjugates, which lie in memory without gaps."""
    if not any(problem.conjugated):
        return problem
    sides = zip(problem.terms, problem.strides, conjugates(problem.conjugated, problem.elements), strict=False)
    strides = tuple([dense_strides(term, own, problem.size) if mark else own for term, own, mark in sides])
    return replace(problem, conjugated=(False, False), strides=strides)


def conjugates(marks: Sequence[bool], elements: Sequence[int]) -> tuple[bool, ...]:
    """On the CPU: which arrays are conjugated first, and last whether the result is; `elements` are theirs.

    Of a pair the fewest elements: conj(x) y is also conj(x conj(y)).
    """
    own = (*marks, False)
    other = tuple([not mark for mark in own])

    def conjugated(marks: Sequence[bool]) -> int:
        return sum(number for number, mark in zip(elements, marks, strict=True) if mark)

    return other if len(marks) == 2 and any(own) and conjugated(other) < conjugated(own) else own


def _conjugates(problem: Problem) -> int:
    """Bytes of the conjugates of sides."""
    sides = zip(problem.elements[:-1], conjugates(problem.conjugated, problem.elements), strict=False)
    return sum(number for number, mark in sides if mark) * item_bytes(problem.dtype)


def _grouped(problem: Problem) -> Candidate:
    """Its price is that of sides that lie as the product wants them."""
    seconds = product_seconds(problem.profile, problem.dtype, *problem.shape, bytes_moved(problem))
    out = _natural(problem)
    item = item_bytes(problem.dtype)
    copied = sum(
        elements
        for own, term, strides, elements in zip((1, 2), problem.terms, problem.strides, problem.elements, strict=False)
        if not _is_grouped(term, strides, (problem.roles[own], problem.roles[3]), problem.size)
    )
    return Candidate(Grouped(out), _strides(problem, out), _conjugates(problem) + copied * item, seconds)


def _is_grouped(term: Term, strides: Strides, groups: Sequence[Term], size: Mapping[Label, int]) -> bool:
    """Whether an array can be seen with one axis for each of these groups of labels."""
    own = dict(zip(term, strides, strict=True))
    return all(len(fuse(axes(group, size, own))) < 2 for group in groups)


def _natural(problem: Problem) -> Term:
    """The order in which a product writes its result: rows before columns, or after if the result wants that."""
    batch, left, right, _ = problem.roles
    is_swapped = bool(right) and problem.out[len(batch) :].startswith(right)
    return batch + (right + left if is_swapped else left + right)


def _exact(problem: Problem) -> Candidate | None:
    """Of integers and bools; None of others, and where the loop is as fast."""
    lengths = problem.shape[1:]
    if not problem.dtype.startswith(("int", "uint", "bool")):
        return None
    if min(lengths) < _WIDE_EXACT or math.prod(lengths) < _LARGEST_EXACT:
        return None
    seconds = product_seconds(problem.profile, "float64", *problem.shape, 3 * 8 * sum(problem.elements))
    out, item, result = _natural(problem), item_bytes(problem.dtype), problem.elements[-1]
    floats = item_bytes(exact_floats(problem.dtype, problem.shape[3])[0])
    wrapping = 0 if problem.dtype in ("bool", "int64") else 8
    scratch = max(floats * sum(problem.elements) - item * result, (floats + wrapping) * result)
    return Candidate(ExactGemm(out), _strides(problem, out), scratch, seconds)


def exact_floats(dtype: str, terms: int) -> tuple[str, int | None]:
    """The floats for products of integers or bools, and the largest sum that they hold if so many terms may exceed it.

    A sum of ones and zeros is zero in any precision only if all are.
    """
    if dtype == "bool":
        return "float32", None
    info = np.iinfo(dtype)
    largest = max(-int(info.min), int(info.max)) ** 2 * terms
    known = next((name for name, exact in _EXACT.items() if largest <= exact), None)
    return (known, None) if known else ("float64", _EXACT["float64"])


_EXACT = {"float32": 1 << 24, "float64": 1 << 53}  # all integers up to these are exact


def _numpy_loop(problem: Problem) -> Candidate:
    """numpy's C loop, or its multiplication where nothing is summed, in the order of the result that is the fastest."""
    summed, largest = "".join(sorted(problem.summed)), problem.terms[0]
    inner = "".join([*without(summed, largest), *within(summed, largest)])
    found = []
    for layout in _layouts(problem):
        strides = _strides(problem, layout)
        seconds = _loop_seconds(problem, layout + inner, dict(zip(problem.out, strides, strict=True)))
        found.append(Candidate(Pass(layout + inner), strides, _conjugates(problem), seconds))
    return min(found, key=lambda way: way.seconds)


def _layouts(problem: Problem) -> list[Term]:
    """Orders in which a loop may write the result: as it is asked for, but for the largest array's labels, which come
    in the order in which they lie there; those last of all.
    """
    if problem.is_ordered:
        return [problem.out]
    own = "".join(
        sorted(within(problem.out, problem.terms[0]))
    )  # a problem's letters follow the largest array's memory
    turns = iter(own)
    merged = "".join([next(turns) if label in problem.terms[0] else label for label in problem.out])
    return list(dict.fromkeys([merged, without(problem.out, own) + own]))


def _loop_seconds(problem: Problem, loops: Term, out: dict[Label, int]) -> float:
    """Of numpy's loop: what memory gives, and what the loop takes along the axis on which it steps most often."""
    profile, item = problem.profile, item_bytes(problem.dtype)
    arrays = [label_strides(term, own) for term, own in zip(problem.terms, problem.strides, strict=True)]
    axes = fuse([Axis(problem.size[label], tuple([a.get(label, 0) for a in (*arrays, out)])) for label in loops])
    inner = axes[-1] if axes else Axis(1, (1,) * (len(arrays) + 1))
    total = points(loops, problem.size)
    if problem.dtype.startswith("complex"):
        point = _COMPLEX * item / 8
    elif (len(arrays) > 2 and problem.summed) or any(stride not in (0, 1) for stride in inner.strides):
        point = _APART
    else:
        point = _NEAR * item
    busy = total * point + total / max(inner.size, 1) * _TURN
    moved = _moved(problem) * item
    permuted = min(_crossed(problem, axes, arrays), moved // item) * item
    return max(busy + profile.launch, pass_seconds(profile, moved, 0.0, permuted, len(arrays)))


def _crossed(problem: Problem, axes: Sequence[Axis], arrays: Sequence[dict[Label, int]]) -> int:
    """Elements of the arrays, and of the result, that the loop steps through along another axis than their fastest."""
    if not axes:
        return 0
    inner, total = axes[-1], 0
    for place, elements in enumerate(problem.elements):
        strides = [abs(axis.strides[place]) for axis in axes if axis.strides[place]]
        if strides and inner.strides[place] and abs(inner.strides[place]) > min(strides):
            total += elements
    return total
