"""What a GPU offers for a step: products of cuBLAS or by tiles, and passes of our kernels, priced."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from gpueinsum.costs.counts import item_bytes, product_flops
from gpueinsum.costs.seconds import SMALL, pass_seconds
from gpueinsum.language.steps import distinct, within, without
from gpueinsum.language.strides import label_strides, points
from gpueinsum.language.subscripts import Label, Term
from gpueinsum.schedule.candidate import (
    Candidate,
    Pass,
    elements_moved,
    pass_layouts,
    read_beside,
    result_strides,
    sectors_touched,
)
from gpueinsum.schedule.gemm import POINTER_BYTES, SINGLE
from gpueinsum.schedule.mapping import MOST_LAUNCHES, Gemm, copy_seconds, gemms
from gpueinsum.schedule.problem import Problem, c_strides
from gpueinsum.schedule.tiled import Tiled
from gpueinsum.schedule.tiling import choose_tiles

RESIDENT = 2048  # threads that one multiprocessor holds at the most


def cuda_candidates(problem: Problem, every: bool) -> list[Candidate]:
    """One pass of a kernel; for a pair that is a product of matrices, products of cuBLAS' and one by tiles.

    Matrices that a product would copy to multiply them with a vector are read once by a pass.
    """
    if not problem.is_pair:
        return _kernel_passes(problem)
    _, rows, columns, summed = problem.shape
    is_matrix, is_blas = rows > 1 < columns, problem.profile.rate(problem.dtype) is not None
    if summed == 1 or rows == columns == 1:
        return _kernel_passes(problem)
    item = item_bytes(problem.dtype)
    found = []
    for way, seconds in gemms(problem, every) if is_blas else []:
        copied = [term for term in way.copies if term is not None]
        if is_matrix or not copied:
            product = way.product
            pointers = 3 * POINTER_BYTES * product.calls * product.slots if product.pointers else 0
            scratch = sum(points(term, problem.size) for term in copied) * item + pointers
            found.append(Candidate(way, result_strides(problem, way.out), scratch, seconds))
            if every and product.number == 1 and problem.profile.has(SINGLE, problem.dtype):
                found.append(found[-1]._replace(way=replace(way, as_batch=True)))
    if is_matrix:
        found += _tiled(problem, min([way.seconds for way in found], default=math.inf), every)
        found = [way for way in found if _launches(way) <= MOST_LAUNCHES] or found
    return found if is_matrix and found else found + _kernel_passes(problem)


def _launches(found: Candidate) -> int:
    """Of a way to run a pair: copies, pointers, calls of cuBLAS that hold all sizes; the pass that adds up chunks."""
    if isinstance(found.way, Gemm):
        return found.copies + found.way.product.pointers + found.way.product.calls
    return 1 + (isinstance(found.way, Tiled) and found.way.chunks > 1)


def _tiled(problem: Problem, seconds: float, every: bool) -> list[Candidate]:
    """A product by tiles, unless it cannot take less than so many seconds, or arrays are small."""
    moved = sum(problem.elements) * item_bytes(problem.dtype)
    is_small = sum(problem.elements) < SMALL or moved > problem.profile.memory_bytes
    if is_small or (pass_seconds(problem.profile, moved) > seconds and not every):
        return []
    tilings = [choose_tiles(problem, layout) for layout in dict.fromkeys([problem.out, *pass_layouts(problem)[:1]])]
    found = min(filter(None, tilings), key=lambda tiling: tiling.seconds, default=None)
    if found is None:
        return []
    strides = result_strides(problem, found.tiled.out)
    return [Candidate(found.tiled, strides, found.scratch, found.seconds)]


def _kernel_passes(problem: Problem) -> list[Candidate]:
    """A kernel that writes the result in C order, a sum in any order of its labels; and one after a copy of an array.

    What lies across the other arrays is read a sector for each element: a copy by tiles may take less time.
    """
    layouts = [*dict.fromkeys([problem.out, *pass_layouts(problem)])] if problem.summed else [problem.out]
    passes = [min([_pass_along(problem, layout) for layout in layouts], key=lambda found: found.seconds)]
    if len(problem.terms) > 1:
        places = range(len(problem.terms))
        copied = [_pass_after_copy(problem, layout, place) for layout in layouts for place in places]
        passes += sorted(filter(None, copied), key=lambda found: found.seconds)[:1]
    return passes


def _pass_after_copy(problem: Problem, layout: Term, place: int) -> Candidate | None:
    """With the array at this place copied, if neighbouring threads read no neighbours in it."""
    term, strides = problem.terms[place], label_strides(problem.terms[place], problem.strides[place])
    walk = _walk(problem, layout)
    walk += without(problem.summed + layout, walk)
    loops = [(problem.size[label], strides.get(label, 0)) for label in walk]
    if len(set(term)) < len(term) or sectors_touched(loops, item_bytes(problem.dtype)) == 1:
        return None
    copy = within(walk, term)[::-1]
    terms, own = list(problem.terms), list(problem.strides)
    terms[place], own[place] = copy, c_strides(copy, problem.size)
    found = _pass_along(replace(problem, terms=tuple(terms), strides=tuple(own)), layout)
    copies = tuple([copy if other == place else None for other in range(len(terms))])
    return found._replace(
        way=Pass(layout + problem.summed, copies=copies),
        scratch=problem.elements[place] * item_bytes(problem.dtype),
        seconds=found.seconds + copy_seconds(problem, strides, copy),
    )


def _pass_along(problem: Problem, layout: Term) -> Candidate:
    profile, item = problem.profile, item_bytes(problem.dtype)
    products = points("".join({*problem.out, *problem.summed}), problem.size)
    flops = product_flops(problem.dtype, products, problem.elements[-1], len(problem.terms))
    moved = elements_moved(problem)
    again = _read_again(problem, layout, profile.cache_bytes // item) if moved * item > profile.cache_bytes else 0
    is_copy = len(problem.terms) == 1 and not problem.summed  # by tiles
    beside = read_beside(problem) + (0 if is_copy else _spread(problem, layout))
    permuted = moved * item / 2 if is_copy and _is_permuted(problem) else 0
    seconds = pass_seconds(profile, (moved + again + beside) * item, flops, permuted, len(problem.terms))
    return Candidate(Pass(layout + problem.summed), result_strides(problem, layout), 0, seconds)


def _spread(problem: Problem, layout: Term) -> float:
    """Elements that come with those that are read, since a warp's elements lie in more sectors than they would fill.

    `ijkl->lj` reads a sector for each element where threads go along `k`: 0.96 bytes a cycle in a cycle-level
    simulator, for 8.6 of `ijkl->jl`, where they go along `l`.
    """
    walk, total = _walk(problem, layout), 0.0
    for term, own in zip(problem.terms, problem.strides, strict=True):
        if len(set(term)) == len(term):  # of diagonals `read_beside` counts them
            strides = label_strides(term, own)
            loops = [(problem.size[label], strides.get(label, 0)) for label in walk]
            total += (sectors_touched(loops, item_bytes(problem.dtype)) - 1) * points(term, problem.size)
    return total


def _walk(problem: Problem, layout: Term) -> Term:
    """The labels along which neighbouring threads read, the nearest first, as `backends/cuda/sums.py` shares a sum.

    They go along the result if the largest array lies along it or nothing is summed, and then along the sum if the
    results alone do not keep the device busy; otherwise along the sum.
    """
    if not problem.summed:
        return layout[::-1]
    strides = label_strides(problem.terms[0], problem.strides[0])
    inner = "".join(sorted(problem.summed, key=lambda label: (problem.size[label] == 1, abs(strides.get(label, 0)))))
    long = [label for label in layout if problem.size[label] > 1]
    if not long or abs(strides.get(long[-1], 0)) != 1:
        return inner + layout[::-1]
    is_busy = problem.elements[-1] > problem.profile.processors * RESIDENT
    return layout[::-1] if is_busy else long[-1] + inner + without(layout, long[-1])[::-1]


def _read_again(problem: Problem, layout: Term, cached: int) -> int:
    """Elements that a kernel reads again from memory, since more than are `cached` were read in between.

    It goes along the result as that lies: `ij,jb->ib` reads `jb` once for each i, `ij,ajb->aib` only once for all.
    """
    size, total = problem.size, 0
    for term in map(distinct, problem.terms):
        times = 1
        for place, label in enumerate(layout):
            if label not in term and points(without(term, layout[:place]), size) > cached:
                times *= size[label]
        total += (times - 1) * points(term, size)
    return total


def _is_permuted(problem: Problem) -> bool:
    """Whether a copy is written along another axis than its source lies."""
    [term], [own], last = problem.terms, problem.strides, problem.out[-1:]
    return last in term and _fastest(term, own, problem) != last


def _fastest(term: Term, strides: Sequence[int], problem: Problem) -> Label:
    """The label along which an array's elements are the nearest; of equal ones the last."""
    best, least = term[-1:], math.inf
    for label, stride in zip(term, strides, strict=True):
        if problem.size[label] > 1 and stride and abs(stride) <= least:
            best, least = label, abs(stride)
    return best
