"""What numpy offers for a step: its BLAS on views or copies, and its loops, priced."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from gpueinsum.costs.counts import item_bytes
from gpueinsum.costs.profile import Profile
from gpueinsum.costs.seconds import SMALL, pass_seconds, product_seconds
from gpueinsum.language.steps import roles, within, without
from gpueinsum.language.strides import axes, fuse, points
from gpueinsum.language.subscripts import Label, Term
from gpueinsum.schedule.candidate import (
    Blocks,
    Candidate,
    Matmul,
    Pass,
    in_order,
    result_strides,
)
from gpueinsum.schedule.mapping import IN_CACHE, bytes_moved, gemms
from gpueinsum.schedule.numpy_loop import ALL_THREADS, MOST_LETTERS, numpy_loop, small_loop_seconds
from gpueinsum.schedule.problem import Problem, Strides, c_strides, dense_strides

# In launches of a profile: what a product takes besides `np.dot` to group axes, what a block takes besides its work.
_GROUPED_LAUNCH, _BLOCK_LAUNCH = 2.3, 5.0
_BLOCKS_MUST_SAVE = 0.8  # of the time: their price is the least certain
SHARED_POINTS = 1 << 20  # index points of a block's sum that are worth a thread
_FEW_POINTS = 1 << 11  # from here on the order of a loop matters
_LARGEST_EXACT, _WIDE_EXACT = 1 << 16, 8  # products, and sides, from which on integers are multiplied as floats


def small_candidates(problem: Problem) -> list[Candidate]:
    """The ways to run a pair of small arrays, none of them conjugated; none for any other problem."""
    if len(problem.terms) != 2 or any(problem.conjugated) or not problem.is_pair:
        return []
    return _small_ways(*problem.terms, problem.out, problem.size, problem.dtype, problem.profile)


def small_pair(
    lhs: Term, rhs: Term, out: Term, size: Mapping[Label, int], dtype: str, profile: Profile
) -> Candidate | None:
    """On the CPU: the way to run a pair of small arrays, soon found, which takes them however they lie; else None."""
    found = _small_ways(lhs, rhs, out, size, dtype, profile)
    if len(found) == 2 and found[1].seconds < found[0].seconds:
        return found[1]
    return found[0] if found else None


def _small_ways(
    lhs: Term, rhs: Term, out: Term, size: Mapping[Label, int], dtype: str, profile: Profile
) -> list[Candidate]:
    """A loop, and a product if the pair is one; none if the arrays are not small."""
    if profile.kind != "cpu" or len(lhs) + len(rhs) > MOST_LETTERS:
        return []
    labels = roles(lhs, rhs, out)
    batch, rows, columns, middle = [points(role, size) for role in labels]
    elements, products = batch * (rows * middle + middle * columns + rows * columns), batch * rows * columns * middle
    inner, rate = labels[3], profile.rate(dtype)
    if not 0 < elements < SMALL or (products > _FEW_POINTS and (rate is None or not inner)):
        return []
    if len(inner) > 1:  # named as the larger array has them, the innermost last
        larger = max((lhs, rhs), key=lambda term: (points(term, size), [-out.find(label) for label in term]))
        inner = without(inner, larger) + within(larger, inner)
    last = max(size[out[-1]] if out else middle, 1)
    has_blocks = batch > 1 < rows and columns > 1 < middle
    loop = small_loop_seconds(profile, products, last, last * middle if has_blocks else 0)
    found = [Candidate(Pass(out + inner), c_strides(out, size), 0, loop)]
    if inner and rate is not None:
        moved = elements * item_bytes(dtype)
        product = product_seconds(profile, dtype, batch, max(rows, columns), min(rows, columns), middle, moved)
        if labels[0] or max(map(len, labels)) > 1:
            product += _GROUPED_LAUNCH * profile.launch
        natural = _product_order(out, *labels)
        found.append(Candidate(Matmul(natural), in_order(natural, out, size), 0, product))
    return found


def cpu_candidates(problem: Problem, every: bool) -> list[Candidate]:
    """All at once, and in blocks that stay in cache where that is cheaper."""
    found = _whole(problem, every)
    blocked = _in_blocks(problem)
    is_better = blocked is not None and blocked.seconds < _BLOCKS_MUST_SAVE * min(way.seconds for way in found)
    return [*found, blocked] if blocked is not None and is_better else found


def _whole(problem: Problem, every: bool) -> list[Candidate]:
    """numpy's loop or its BLAS on views; sides are copied first where BLAS needs it, if the price says so."""
    is_product = problem.is_pair and bool(problem.roles[3]) and problem.dtype != "object"
    has_letters = len(set("".join((*problem.terms, problem.out)))) <= MOST_LETTERS
    has_loop = has_letters or not problem.summed or not problem.is_pair
    found = [numpy_loop(problem, _conjugate_bytes(problem))] if has_loop else []
    if not is_product:
        return found or [_matmul(problem)]
    if problem.profile.rate(problem.dtype) is None:
        exact = _exact_matmul(problem)
        return [exact] if exact else found or [_matmul(problem)]
    if not found or sum(problem.elements) < SMALL:
        return [*found, _matmul(problem)]
    item = item_bytes(problem.dtype)
    for way, seconds in gemms(_conjugate_first(problem), every):
        copied = [points(term, problem.size) for term in way.copies if term is not None]
        scratch = sum(copied) * item
        found.append(Candidate(way, result_strides(problem, way.out), scratch + _conjugate_bytes(problem), seconds))
    return found


def _in_blocks(problem: Problem) -> Candidate | None:
    """In blocks along the label by which the largest array's elements are the farthest apart; kept labels first.

    None for what is in cache as it is, and for results so large that to write them twice would cost as much.
    """
    item, (largest, *_) = item_bytes(problem.dtype), problem.terms
    total = sum(problem.elements) * item
    terms = (*problem.terms, problem.out)
    if total < 2 * IN_CACHE or any(len(set(term)) < len(term) for term in terms) or problem.dtype == "object":
        return None
    own = sorted(largest)  # a problem's letters follow the largest array's memory, the farthest first
    kept = [label for label in own if label in problem.out and problem.size[label] > 1]
    summed = [label for label in own if label not in problem.out and problem.size[label] > 1]
    result = problem.elements[-1]
    if not (kept or summed) or (not kept and result > _FEW_POINTS) or 2 * result > sum(problem.elements[:-1]):
        return None
    label = [*kept, *summed][0]
    whole = problem.size[label]
    step = max(1, whole * IN_CACHE // total)
    if step == whole:
        return None

    def cheapest(size: int) -> Candidate:
        sizes = tuple([(each, size if each == label else number) for each, number in problem.sizes])
        return min(_whole(replace(problem, sizes=sizes), every=False), key=lambda way: way.weight)

    block, rest = cheapest(step), cheapest(whole % step) if whole % step else None
    seconds = (block.seconds + _BLOCK_LAUNCH * problem.profile.launch) * (whole // step) + (rest.seconds if rest else 0)
    seconds += pass_seconds(problem.profile, 2 * result * item)
    read = total / problem.profile.bytes_per_second / (ALL_THREADS if isinstance(block.way, Pass) else 1.0)
    way = Blocks(label, step, block.way, rest.way if rest else None)
    scratch = block.scratch + result * item // (whole // step if label in problem.out else 1)
    return Candidate(way, result_strides(problem, problem.out), scratch, max(seconds, read))


def _conjugate_first(problem: Problem) -> Problem:
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


def _conjugate_bytes(problem: Problem) -> int:
    """Bytes of the conjugates of sides."""
    sides = zip(problem.elements[:-1], conjugates(problem.conjugated, problem.elements), strict=False)
    return sum(number for number, mark in sides if mark) * item_bytes(problem.dtype)


def _matmul(problem: Problem) -> Candidate:
    """Its price is that of sides that lie as the product wants them."""
    seconds = product_seconds(problem.profile, problem.dtype, *problem.shape, bytes_moved(problem))
    out = _product_order(problem.out, *problem.roles)
    item = item_bytes(problem.dtype)
    copied = sum(
        elements
        for own, term, strides, elements in zip((1, 2), problem.terms, problem.strides, problem.elements, strict=False)
        if not _is_grouped(term, strides, (problem.roles[own], problem.roles[3]), problem.size)
    )
    return Candidate(Matmul(out), result_strides(problem, out), _conjugate_bytes(problem) + copied * item, seconds)


def _is_grouped(term: Term, strides: Strides, groups: Sequence[Term], size: Mapping[Label, int]) -> bool:
    """Whether an array can be seen with one axis for each of these groups of labels."""
    own = dict(zip(term, strides, strict=True))
    return all(len(fuse(axes(group, size, own))) < 2 for group in groups)


def _product_order(out: Term, batch: Term, left: Term, right: Term, _: Term) -> Term:
    """The order in which a product writes its result: the side first whose label comes first in `out`."""
    first = next((label for label in out if label not in batch), "")
    return batch + (right + left if first and first in right else left + right)


def _exact_matmul(problem: Problem) -> Candidate | None:
    """Of integers and bools; None of others, and where the loop is as fast."""
    lengths = problem.shape[1:]
    if not problem.dtype.startswith(("int", "uint", "bool")):
        return None
    if min(lengths) < _WIDE_EXACT or math.prod(lengths) < _LARGEST_EXACT:
        return None
    seconds = product_seconds(problem.profile, "float64", *problem.shape, 3 * 8 * sum(problem.elements))
    out, item, result = _product_order(problem.out, *problem.roles), item_bytes(problem.dtype), problem.elements[-1]
    floats = item_bytes(exact_floats(problem.dtype, problem.shape[3])[0])
    wrapping = 0 if problem.dtype in ("bool", "int64") else 8
    scratch = max(floats * sum(problem.elements) - item * result, (floats + wrapping) * result)
    return Candidate(Matmul(out), result_strides(problem, out), scratch, seconds)


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
