"""The choice: of the ways that a device offers for a step the cheapest, in whatever spelling the step comes."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import lru_cache
from typing import assert_never

from gpueinsum.costs.counts import item_bytes
from gpueinsum.costs.seconds import pass_seconds
from gpueinsum.language.strides import label_strides
from gpueinsum.schedule.candidate import (
    Blocks,
    Candidate,
    Matmul,
    Pass,
    Scatter,
    Sum,
    View,
    Way,
    Zeros,
    result_strides,
)
from gpueinsum.schedule.cpu import cpu_candidates, small_candidates
from gpueinsum.schedule.cuda import cuda_candidates
from gpueinsum.schedule.mapping import Gemm
from gpueinsum.schedule.problem import Problem, canonical
from gpueinsum.schedule.tiled import Tiled


def cheapest(problem: Problem) -> tuple[tuple[int, ...], Candidate]:
    """The order in which the problem's arrays are taken, and the cheapest way to run it, in the problem's labels.

    The choice does not depend on how labels are named, nor on the order of the arrays.
    """
    small = small_candidates(problem)
    if small:
        return (0, 1), min(small, key=lambda way: way.seconds)
    same, spelling = canonical(problem)
    return spelling.order, _in_letters(_cheapest(same), spelling.letters)


def candidates(problem: Problem) -> tuple[tuple[int, ...], list[Candidate]]:
    """All ways to run a problem, the cheapest first, as `cheapest` gives the first of them."""
    small = small_candidates(problem)
    if small:
        return (0, 1), sorted(small, key=lambda way: way.seconds)
    same, spelling = canonical(problem)
    found = sorted(_candidates(same, every=True), key=lambda way: way.weight)
    return spelling.order, [_in_letters(way, spelling.letters) for way in found]


@lru_cache(maxsize=4096)
def _cheapest(problem: Problem) -> Candidate:
    found = _candidates(problem)
    return found[0] if len(found) == 1 else min(found, key=lambda way: way.weight)


def _in_letters(found: Candidate, letters: dict[int, str]) -> Candidate:
    """A candidate of the same problem in other letters: labels by name alone, so that strides stay."""
    return found._replace(way=_rename(found.way, letters))


def _rename(way: Way, letters: dict[int, str]) -> Way:
    match way:
        case Pass():
            copies = tuple([term if term is None else term.translate(letters) for term in way.copies])
            return Pass(way.loops.translate(letters), way.threads, way.shared.translate(letters), copies)
        case Matmul():
            return Matmul(way.out.translate(letters))
        case Gemm():
            lhs, rhs = (term if term is None else term.translate(letters) for term in way.copies)
            return replace(way, copies=(lhs, rhs), out=way.out.translate(letters))
        case Tiled():
            return replace(way, out=way.out.translate(letters))
        case Blocks():
            rest = None if way.rest is None else _rename(way.rest, letters)
            return Blocks(way.label.translate(letters), way.step, _rename(way.block, letters), rest)
        case View() | Zeros() | Scatter() | Sum():
            return way
        case _:
            assert_never(way)


def _candidates(problem: Problem, every: bool = False) -> list[Candidate]:
    try:
        return _found(problem, every)
    except OverflowError:  # more elements than a float can tell: nobody runs it
        return [Candidate(Pass(problem.out + problem.summed), result_strides(problem, problem.out), 0, math.inf)]


def _found(problem: Problem, every: bool) -> list[Candidate]:
    if len(problem.terms) == 1:
        if _is_view(problem):
            strides = label_strides(problem.terms[0], problem.strides[0])
            return [Candidate(View(), tuple([strides.get(label, 0) for label in problem.out]), 0, 0.0)]
        if len(set(problem.out)) < len(problem.out):
            moved = (problem.elements[0] + problem.elements[-1]) * item_bytes(problem.dtype)
            seconds = pass_seconds(problem.profile, moved)
            return [Candidate(Scatter(), result_strides(problem, problem.out), 0, seconds)]
    if 0 in problem.elements:
        moved = problem.elements[-1] * item_bytes(problem.dtype)
        return [Candidate(Zeros(), result_strides(problem, problem.out), 0, pass_seconds(problem.profile, moved))]
    if problem.profile.kind == "cpu":
        return cpu_candidates(problem, every)
    return cuda_candidates(problem, every)


def _is_view(problem: Problem) -> bool:
    """Whether nothing is summed, repeated or gained but labels of size 1."""
    [term], out = problem.terms, problem.out
    if len(set(out)) < len(out) or any(problem.conjugated):
        return False
    return all(problem.size[label] == 1 for label in {*term} ^ {*out})
