"""Loops over strided memory: an axis is a size and an element stride per array; neighbours fuse where strides allow."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from gpueinsum.language.subscripts import Label, Term


class Axis(NamedTuple):
    """One loop: its size, and the element stride of each array along it (0 where an array lacks it)."""

    size: int
    strides: tuple[int, ...]


def axes(labels: Iterable[Label], sizes: Mapping[Label, int], *arrays: Mapping[Label, int]) -> list[Axis]:
    """The axes of these labels; each array is given as the element stride of each of its labels."""
    return [Axis(sizes[label], tuple([array.get(label, 0) for array in arrays])) for label in labels]


def fuse(loops: Sequence[Axis]) -> list[Axis]:
    """The same loops in the same order, outermost first: size 1 left out, neighbours made one where they can be."""
    fused: list[Axis] = []
    for axis in loops:
        if axis.size == 1:
            continue
        if fused and all(
            outer == axis.size * inner for outer, inner in zip(fused[-1].strides, axis.strides, strict=True)
        ):
            fused[-1] = Axis(fused[-1].size * axis.size, axis.strides)
        else:
            fused.append(axis)
    return fused


def label_strides(term: Term, strides: Sequence[int]) -> dict[Label, int]:
    """The stride of each label; a repeated label walks the diagonal, so its strides add up."""
    total = dict.fromkeys(term, 0)
    for label, stride in zip(term, strides, strict=True):
        total[label] += stride
    return total


def contiguous(term: Term, sizes: Mapping[Label, int]) -> dict[Label, int]:
    """The element strides of a C-ordered array of this term, whose labels are distinct."""
    strides, stride = {}, 1
    for label in reversed(term):
        strides[label] = stride
        stride *= sizes[label]
    return strides


def points(labels: Iterable[Label], sizes: Mapping[Label, int]) -> int:
    """How many index points these labels span."""
    total = 1
    for label in labels:
        total *= sizes[label]
    return total
