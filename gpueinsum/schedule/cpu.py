"""What numpy offers for a step: its BLAS on views or copies, and its loops, priced."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from gpueinsum.costs.counts import item_bytes
from gpueinsum.costs.profile import Profile
from gpueinsum.costs.seconds import SMALL, lines_conflict, pass_seconds, product_seconds
from gpueinsum.language.steps import distinct, roles, within, without
from gpueinsum.language.strides import Axis, axes, fuse, label_strides, points
from gpueinsum.language.subscripts import Label, Term
from gpueinsum.schedule.candidate import (
    Blocks,
    Candidate,
    Matmul,
    Pass,
    elements_moved,
    in_order,
    read_beside,
    result_strides,
)
from gpueinsum.schedule.mapping import IN_CACHE, LINE, bytes_moved, gemms
from gpueinsum.schedule.problem import Problem, Strides, c_strides, dense_strides

MOST_LETTERS = 52  # those of np.einsum
# Seconds of numpy's C loop: for each point of two arrays along which it steps from neighbour to neighbour, by bytes of
# an item; of complex numbers, half of that for dots; for each point of other arrays; each time that it turns back.
# 300 x 300 and 60 x 60 x 60, one core of an AMD EPYC, numpy 2.4: float32 0.08, 0.4 and 3.3 ns, float64 0.17, complex64
# and complex128 1.3 to 1.7, their dots 0.75.
_NEAR, _COMPLEX, _APART, _TURN = 0.02e-9, 1.5e-9, 0.5e-9, 3.3e-9
# For each point of an array of which the loop reads one element of a line of memory, and loses the line before it needs
# the next one: `ij,ji->i` of 2048 x 1792, float32, took 19.5 ms.
_LOST = 5e-9
# Of a sum over four axes or more: each time that the two innermost are done. 1000 products of 2 x 2 took 102 us and are
# predicted 113, of 2 x 2 times 2 x 16 117 and 109; of three axes, `ijb,jkb->ikb` of 10 each took 7 us.
_BLOCK = 47e-9
# In launches of a profile: numpy's loop over two arrays, what a product takes besides `np.dot` to group axes, and what
# a block takes besides its work.
_LOOP_LAUNCH, _GROUPED_LAUNCH, _BLOCK_LAUNCH = 1.6, 2.3, 5.0
_BLOCKS_MUST_SAVE = 0.8  # of the time: their price is the least certain
SHARED_POINTS = 1 << 20  # index points of a block's sum that are worth a thread
# Seconds of a sum that are worth a thread, and those until another thread has begun: `cbad,ce->eadb` of 2.4 million
# points took 0.21 ms on one thread and on two.
_SHARE, _HAND_OVER = 1e-4, 7e-5
# Of the rate of memory that numpy's loop reaches on one of several threads, and on all: `ij,j->i` of 4096 x 3072,
# float64, took 4.3 ms on one core of an AMD EPYC and 2.5 on two, by BLAS 1.3 ms.
_ONE_THREAD, _ALL_THREADS = 0.6, 0.8
_PAGE = 4096  # bytes of memory that are fetched ahead
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
    loop = _LOOP_LAUNCH * profile.launch + products * (_APART + _TURN / last)
    if batch > 1 < rows and columns > 1 < middle:
        loop += products / (last * middle) * _BLOCK
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
    found = [_numpy_loop(problem)] if has_letters or not problem.summed or not problem.is_pair else []
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
    read = total / problem.profile.bytes_per_second / (_ALL_THREADS if isinstance(block.way, Pass) else 1.0)
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


def _numpy_loop(problem: Problem) -> Candidate:
    """numpy's C loop, or its multiplication where nothing is summed, in the order of the result that is the fastest."""
    summed, largest = "".join(sorted(problem.summed)), problem.terms[0]
    inner = "".join([*without(summed, largest), *within(summed, largest)])
    found = []
    for layout in _layouts(problem):
        strides = result_strides(problem, layout)
        shared, seconds = _loop_seconds(problem, layout + inner, dict(zip(problem.out, strides, strict=True)))
        found.append(Candidate(Pass(layout + inner, *shared), strides, _conjugate_bytes(problem), seconds))
    return min(found, key=lambda way: way.seconds)


def _layouts(problem: Problem) -> list[Term]:
    """Orders in which a loop may write the result: as it is asked for, but for the largest array's labels, which come
    in the order in which they lie there; those last of all.
    """
    if problem.is_ordered:
        return [problem.out]
    # A problem's letters follow the memory of its largest array.
    own = "".join(sorted(within(problem.out, problem.terms[0])))
    turns = iter(own)
    merged = "".join([next(turns) if label in problem.terms[0] else label for label in problem.out])
    return list(dict.fromkeys([merged, without(problem.out, own) + own]))


def _loop_seconds(problem: Problem, loops: Term, out: dict[Label, int]) -> tuple[tuple[int, Label], float]:
    """How many threads share numpy's loop, along which label, and its seconds.

    These are the longer of what memory gives and of what the loop takes along the axis on which it steps most often.
    """
    profile, item = problem.profile, item_bytes(problem.dtype)
    arrays = [label_strides(term, own) for term, own in zip(problem.terms, problem.strides, strict=True)]
    axes = _nest([Axis(problem.size[label], tuple([a.get(label, 0) for a in (*arrays, out)])) for label in loops])
    inner = axes[-1] if axes else Axis(1, (1,) * (len(arrays) + 1))
    total = points(loops, problem.size)
    if problem.dtype.startswith("complex") and problem.summed:
        point = _COMPLEX if inner.strides[-1] else _COMPLEX / 2
    elif (len(arrays) > 2 and problem.summed) or any(stride not in (0, 1) for stride in inner.strides):
        point = _APART
    else:
        point = _NEAR * item
    point += _LOST * sum(
        abs(stride) * item >= LINE and lines_conflict(abs(stride) * item, inner.size) for stride in inner.strides
    )
    busy = total * point + total / max(inner.size, 1) * _TURN
    if len(axes) > 3 and problem.summed:
        busy += total / (axes[-1].size * axes[-2].size) * _BLOCK
    moved = (elements_moved(problem) + read_beside(problem)) * item
    permuted = min(_across(problem, axes), moved // item) * item if moved > IN_CACHE else 0
    launch, moving = _LOOP_LAUNCH * profile.launch, pass_seconds(profile, moved, 0.0, permuted, len(arrays))
    if not problem.summed or moved < IN_CACHE:
        return (1, ""), max(busy + launch, moving)
    threads = max(1, min(profile.processors, int(busy / _SHARE)))
    label = _shared_label(problem, threads)
    threads = threads if label else 1
    share = _ALL_THREADS if threads == profile.processors else _ONE_THREAD
    launch += _HAND_OVER if threads > 1 else 0.0
    return (threads, label), max(busy / threads + launch, moving / share)


def _shared_label(problem: Problem, threads: int) -> Label:
    """Of the result's labels that which is the farthest apart in the largest array; "" if none is long enough.

    Along the nearest one each thread is to read whole pages: to share `ijk->k`, float32 with k = 128, took 0.97 ms for
    0.53.
    """
    nearest = max(problem.terms[0], default="")  # a problem's letters follow the memory of its largest array
    for label in sorted(problem.out):
        size = problem.size[label]
        if size >= threads and (label != nearest or size * item_bytes(problem.dtype) >= threads * _PAGE):
            return label
    return ""


def _nest(axes: Sequence[Axis]) -> list[Axis]:
    """The axes as numpy's iterator nests them: each within those of larger strides, if all arrays agree, and fused.

    Source: `npyiter_find_best_axis_ordering` of numpy's nditer_constr.c.
    """
    order: list[Axis] = []  # innermost first
    for axis in reversed(axes):
        place = len(order)
        for before in range(len(order) - 1, -1, -1):
            pairs = zip(axis.strides, order[before].strides, strict=True)
            outer = [abs(inner) <= abs(own) for own, inner in pairs if own and inner]
            if outer and any(outer):
                break
            if outer:
                place = before
        order.insert(place, axis)
    return fuse(order[::-1])


def _across(problem: Problem, axes: Sequence[Axis]) -> int:
    """Elements of the arrays, and of the result, that the loop steps through along another axis than their fastest."""
    if not axes:
        return 0
    inner, total = axes[-1], 0
    for place, term in enumerate((*problem.terms, problem.out)):
        strides = [abs(axis.strides[place]) for axis in axes if axis.strides[place]]
        if strides and inner.strides[place] and abs(inner.strides[place]) > min(strides):
            total += points(distinct(term), problem.size)
    return total
