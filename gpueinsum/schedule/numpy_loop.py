"""numpy's C loop over all labels of a step: in which order it goes, how many threads share it, what it takes."""

from __future__ import annotations

from collections.abc import Sequence

from gpueinsum.costs.counts import item_bytes
from gpueinsum.costs.profile import Profile
from gpueinsum.costs.seconds import lines_conflict, pass_seconds
from gpueinsum.language.steps import distinct, within, without
from gpueinsum.language.strides import Axis, fuse, label_strides, points
from gpueinsum.language.subscripts import Label, Term
from gpueinsum.schedule.candidate import Candidate, Pass, elements_moved, pass_layouts, read_beside, result_strides
from gpueinsum.schedule.mapping import IN_CACHE, LINE
from gpueinsum.schedule.problem import Problem

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
_LAUNCH = 1.6  # of a profile: of a loop over two arrays
# Seconds of a sum that are worth a thread, and those until another thread has begun: `cbad,ce->eadb` of 2.4 million
# points took 0.21 ms on one thread and on two.
_SHARE, _HAND_OVER = 1e-4, 7e-5
# Of the rate of memory that numpy's loop reaches on one of several threads, and on all: `ij,j->i` of 4096 x 3072,
# float64, took 4.3 ms on one core of an AMD EPYC and 2.5 on two, by BLAS 1.3 ms.
_ONE_THREAD, ALL_THREADS = 0.6, 0.8
_PAGE = 4096  # bytes of memory that are fetched ahead


def numpy_loop(problem: Problem, scratch: int) -> Candidate:
    """numpy's C loop, or its multiplication where nothing is summed, in the order of the result that is the fastest.

    It takes so many bytes of `scratch` besides.
    """
    summed, largest = "".join(sorted(problem.summed)), problem.terms[0]
    inner = "".join([*without(summed, largest), *within(summed, largest)])
    found = []
    for layout in pass_layouts(problem):
        strides = result_strides(problem, layout)
        shared, seconds = _loop_seconds(problem, layout + inner, dict(zip(problem.out, strides, strict=True)))
        found.append(Candidate(Pass(layout + inner, *shared), strides, scratch, seconds))
    return min(found, key=lambda way: way.seconds)


def small_loop_seconds(profile: Profile, products: int, inner: int, block: int) -> float:
    """Of so many products of small arrays, which turns back after `inner` and has blocks of so many, or 0 for none."""
    blocks = products / block * _BLOCK if block else 0.0
    return _LAUNCH * profile.launch + products * (_APART + _TURN / inner) + blocks


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
    launch, moving = _LAUNCH * profile.launch, pass_seconds(profile, moved, 0.0, permuted, len(arrays))
    if not problem.summed or moved < IN_CACHE:
        return (1, ""), max(busy + launch, moving)
    threads = max(1, min(profile.processors, int(busy / _SHARE)))
    label = _shared_label(problem, threads) if threads > 1 else ""
    threads = threads if label else 1
    share = ALL_THREADS if threads == profile.processors else _ONE_THREAD
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
