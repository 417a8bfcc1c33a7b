"""From strides to matrix products: which axes are rows, columns, sum and batch, and what is copied first, by price.

No array is touched here, so all of it is tested without a GPU. Strides are in elements throughout.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from typing import NamedTuple

from gpueinsum.costs.counts import item_bytes
from gpueinsum.costs.profile import Profile
from gpueinsum.costs.seconds import pass_seconds, product_seconds
from gpueinsum.language.steps import Contract, within
from gpueinsum.language.strides import Axis, axes, contiguous, fuse, label_strides, points
from gpueinsum.language.subscripts import Label, Term
from gpueinsum.schedule.gemm import LHS, ONE, OUT, PACK_BYTES, RHS, Product, holds, reading, reads_packs

Sizes = Mapping[Label, int]

# Axes that fuse into no batch and no sum are looped over on the host of a GPU, by so many calls at the most.
MAX_CALLS = 512
# Copies and pointers take memory, too: each must save so much of the time. An order of the result that is not the one
# asked for must save as much as is more than a rounding error.
_MEMORY_MUST_SAVE, _NO_GAIN = 1.05, 1 - 1e-9
# A CPU's BLAS turns a matrix on the way: 92352 x 312 times 312 x 24 took 16.6 ms from rows to rows and 13.7 ms from
# columns to columns, 20.7 and 17.6 ms otherwise; 768 x 768 up to 1.05 times as long (float32, 2 cores, OpenBLAS).
_TURNED = 1.1
_MANY_ORDERS = 16
_LINE = 64  # bytes of memory that are read together: what is copied in shorter runs is permuted
_NAMES = {
    (False, False): "copy nothing",
    (True, False): "copy the left side",
    (False, True): "copy the right side",
    (True, True): "copy both sides",
}


@dataclass(frozen=True, slots=True)
class Route:
    """How a pair becomes a product: what is copied first (to which term), the order of the result, the price.

    A copy is that of the conjugate where the step conjugates the side: the product then takes it as it is.
    """

    copy_lhs: Term | None
    copy_rhs: Term | None
    out: Term
    product: Product
    seconds: float  # predicted, copies included

    @property
    def copies(self) -> int:
        return (self.copy_lhs is not None) + (self.copy_rhs is not None)

    @property
    def name(self) -> str:
        """What tells the ways to run a pair apart."""
        return _NAMES[self.copy_lhs is not None, self.copy_rhs is not None]


Strides = tuple[int, ...]
SizesKey = tuple[tuple[Label, int], ...]  # of labels, hashable


class Case(NamedTuple):
    """What a way to run a pair is chosen for: the pair, how its sides lie in memory, and the device.

    `lhs` and `rhs` are the strides of the sides, in elements; these are `aligned` if they begin at multiples of
    PACK_BYTES.
    """

    step: Contract
    sizes: SizesKey
    lhs: Strides
    rhs: Strides
    dtype: str
    profile: Profile
    precision: str | None = None
    aligned: bool = True

    @property
    def pair(self) -> Pair:
        return Pair(self.step, dict(self.sizes), self.dtype, self.profile, self.precision, self.aligned)


@lru_cache(maxsize=4096)
def cheapest(case: Case, as_planned: bool = False) -> Route:
    """The cheapest way to run a pair.

    The result may be written in any order, unless it is to be written `as_planned`. Where the device has no library
    for the dtype, any stride will do (a kernel of ours). A copy must save a twentieth of the time: it takes memory.
    """
    pair = case.pair
    ideal = pair.ideal_seconds
    best: Route | None = None
    for copied in _NAMES:
        handicap = _MEMORY_MUST_SAVE ** sum(copied)
        at_least = (ideal + pair.copies_seconds(copied)) * handicap
        if best is not None and at_least >= best.seconds * _MEMORY_MUST_SAVE**best.copies:
            continue
        way = _route(pair, case, copied, as_planned)
        if way is not None and (best is None or way.seconds * handicap < best.seconds * _MEMORY_MUST_SAVE**best.copies):
            best = way
    assert best is not None, f"{case.step.equation} fits no product even when both sides are copied"
    return best


def routes(case: Case, as_planned: bool = False) -> list[Route]:
    """Every way that `cheapest` chooses from, by price: one for each choice of sides to copy for which one fits."""
    pair = case.pair
    ways = [_route(pair, case, copied, as_planned) for copied in _NAMES]
    return sorted(filter(None, ways), key=lambda way: way.seconds)


def _route(pair: Pair, case: Case, copied: tuple[bool, bool], as_planned: bool) -> Route | None:
    """The cheapest way with copies of these sides, if there is one."""
    step = pair.step
    given = label_strides(step.lhs_term, case.lhs), label_strides(step.rhs_term, case.rhs)
    terms = _copied_terms(pair, *given, copied)
    x, y = (
        contiguous(term, pair.size) if term is not None else strides for term, strides in zip(terms, given, strict=True)
    )
    best = _best_order(pair, (x, y), copied, as_planned)
    if best is None and copied == (True, True):  # too large for 32-bit leading dimensions
        best = _best_order(pair, (x, y), copied, as_planned, last_resort=True)
    if best is None:
        return None
    out, product, seconds = best
    sides = zip(given, terms, strict=True)
    copies = sum(pair.copy_seconds(strides, term) for strides, term in sides if term is not None)
    return Route(*terms, out, product, seconds + copies)


def _copied_terms(pair: Pair, lhs: Sizes, rhs: Sizes, copied: tuple[bool, bool]) -> tuple[Term | None, Term | None]:
    """The terms to which sides of these strides are copied: batch, their own, the sum in the other side's order.

    What is its own may also come last, since a product takes a side either way: if the copy is cheaper for it.
    """
    step = pair.step
    batch, left, right = (within(step.out, labels) for labels in (step.batch, step.left, step.right))
    middle = step.summed if copied == (True, True) else _by_stride(step.summed, rhs if copied[0] else lhs)

    def term(own: Term, strides: Sizes) -> Term:
        last = [batch + middle + own] if holds(points(own, pair.size)) else []
        return min([batch + own + middle, *last], key=lambda term: pair.copy_seconds(strides, term))

    return term(left, lhs) if copied[0] else None, term(right, rhs) if copied[1] else None


@dataclass(frozen=True)
class Pair:
    """A pair on a device, as far as its price depends on them."""

    step: Contract
    size: Sizes
    dtype: str
    profile: Profile
    precision: str | None = None
    aligned: bool = True  # the sides

    @cached_property
    def blas(self) -> bool:
        return self.profile.rate(self.dtype) is not None

    def takes_pointers(self, product: Product) -> bool:
        """Whether cuBLAS may be given pointers to the matrices of this product."""
        if not self.blas or self.profile.kind != "cuda":
            return False
        if not reads_packs(self.dtype, self.precision):
            return True
        axes, item = (product.batch, *product.loops, *product.sums), item_bytes(self.dtype)
        return self.aligned and not any(stride * item % PACK_BYTES for axis in axes for stride in axis.strides)

    @cached_property
    def ideal_seconds(self) -> float:
        """Of one batch of products with one axis for each role: what sides that lie as it wants them take."""
        step, size = self.step, self.size
        batch, rows, columns, summed = (points(x, size) for x in (step.batch, step.left, step.right, step.summed))
        return product_seconds(self.profile, self.dtype, batch, rows, columns, summed, self._bytes_moved)

    def copies_seconds(self, copied: tuple[bool, bool]) -> float:
        """Of copies of these sides, at best."""
        sides, moved = (self.step.lhs_term, self.step.rhs_term), 2.0 * item_bytes(self.dtype)
        elements = [points(term, self.size) for term, is_copied in zip(sides, copied, strict=True) if is_copied]
        return sum(pass_seconds(self.profile, moved * number) for number in elements)

    def copy_seconds(self, strides: Sizes, term: Term) -> float:
        """Of a copy of a side with these strides to this term."""
        item, run = item_bytes(self.dtype), 1  # how many elements are neighbours on either side
        for label in reversed(term):
            if strides[label] != run and self.size[label] > 1:
                break
            run *= self.size[label]
        moved = 2.0 * item * points(term, self.size)
        return pass_seconds(self.profile, moved, permuted=moved if run * item < _LINE else 0)

    def product_seconds(self, product: Product) -> float:
        """Of the products as they are made.

        On a GPU the turns of loops run one after the other, each at the rate of its sizes; the host is ahead of those
        that take longer than a launch. Each turn of sums costs its launch, and so do pointers, by which the products
        are as fast as by strides. All this is by reasoning, and not measured yet.
        """
        shape = product.number, product.rows.size, product.columns.size, product.summed.size
        seconds = product_seconds(self.profile, self.dtype, *shape, self._bytes_moved)
        if self.profile.kind == "cpu":
            return seconds * _TURNED if self._is_turned(product) else seconds
        turns = math.prod(axis.size for axis in product.sums)
        ahead, waiting = product.calls // turns, turns - 1 + product.pointers
        return max(seconds, ahead * self.profile.launch) + waiting * self.profile.launch

    def _is_turned(self, product: Product) -> bool:
        """Whether only one of the larger side and the result is contiguous along the axis that they share."""
        side, axis = (LHS, product.rows) if self._lhs_is_larger else (RHS, product.columns)
        return axis.size > 1 and (axis.strides[side] == 1) != (axis.strides[OUT] == 1)

    @cached_property
    def _lhs_is_larger(self) -> bool:
        return points(self.step.lhs_term, self.size) >= points(self.step.rhs_term, self.size)

    @cached_property
    def _bytes_moved(self) -> int:
        terms = self.step.lhs_term, self.step.rhs_term, self.step.out
        return sum(points(term, self.size) for term in terms) * item_bytes(self.dtype)


def _best_order(
    pair: Pair, sides: tuple[Sizes, Sizes], copied: tuple[bool, bool], as_planned: bool, last_resort: bool = False
) -> tuple[Term, Product, float] | None:
    """The order in which the result is written fastest by a product of sides of these strides; None if none fits."""
    step = pair.step
    is_op = pair.profile.kind == "cuda"  # elsewhere conjugates are made apart from the product
    conjugated = is_op and step.conj_lhs and not copied[0], is_op and step.conj_rhs and not copied[1]
    best: tuple[Term, Product, float] | None = None
    good = pair.ideal_seconds / _NO_GAIN
    for out in (step.out,) if as_planned else orders(step, *sides):
        product = fit(pair, (*sides, contiguous(out, pair.size)), conjugated, last_resort)
        if product is not None:
            seconds = pair.product_seconds(product)
            if best is None or seconds < best[2] * _NO_GAIN:
                best = out, product, seconds
            if seconds <= good:
                break
    return best


def orders(step: Contract, lhs: Sizes, rhs: Sizes) -> list[Term]:
    """Orders for the result, the one that is asked for first: each with other runs of labels next to each other."""
    batch = within(step.out, step.batch)
    orders = [step.out, batch + step.left + step.right, batch + step.right + step.left]
    left = _runs(_by_stride(step.lhs_term, lhs), step.left)
    right = _runs(_by_stride(step.rhs_term, rhs), step.right)
    for rows, columns in itertools.product(left or [""], right or [""]):
        others = batch + "".join(run for run in (*left, *right) if run not in (rows, columns))
        orders += [others + rows + columns, others + columns + rows]
    return list(dict.fromkeys(orders))[:_MANY_ORDERS]


def _runs(term: Term, labels: Term) -> list[Term]:
    """The labels of a term that are among these, those that follow one another together."""
    return "".join(label if label in labels else " " for label in term).split()


def fit(
    pair: Pair,
    strides: tuple[Sizes, Sizes, Sizes],
    conjugated: tuple[bool, bool] = (False, False),
    last_resort: bool = False,
) -> Product | None:
    """The cheapest products that the pair is, given each label's stride in (lhs, rhs, out); None if it is none.

    Each role's axes are fused as far as the strides of all arrays allow. One axis of `left`, one of `right` and one
    that is summed become rows, columns and sum; any others of the result join the batch, with stride 0 in the side that
    lacks them. Where several do, they are loops around it, or by pointers one call with it. Where BLAS adds to a
    result, other summed axes are loops around it. As a `last_resort`, for what is too large for 32-bit leading
    dimensions, rows or columns may join the batch, too, and any number of calls will do.
    """
    step, blas = pair.step, pair.blas
    batch, left, right = (_fused(labels, pair.size, strides, OUT) for labels in (step.batch, step.left, step.right))
    summed = _fused(step.summed, pair.size, strides, LHS)
    adds = blas and pair.profile.kind == "cuda"
    if (len(summed) > 1 and not adds) or (blas and _is_reversed(*batch, *left, *right, *summed)):
        return None
    spare = [ONE] if last_resort else []
    best: tuple[float, Product] | None = None
    for rows, columns, middle in itertools.product(
        [*left, *spare] or [ONE], [*right, *spare] or [ONE], summed or [ONE]
    ):
        if blas and (_is_crosswise(rows, columns) or reading(rows, columns, middle, conjugated) is None):
            continue
        around = [axis for axis in (*batch, *left, *right) if axis is not rows and axis is not columns]
        around.sort(key=lambda axis: axis.size)
        widest = around.pop() if around else ONE
        sums = [axis for axis in summed if axis is not middle]
        by_turns = Product(rows, columns, middle, widest, tuple(around), tuple(sums), conjugated)
        for product in (by_turns, *_by_pointers(pair, by_turns)):
            if product.calls <= MAX_CALLS or last_resort or pair.profile.kind == "cpu":
                seconds = pair.product_seconds(product) * (_MEMORY_MUST_SAVE if product.pointers else 1)
                if best is None or seconds < best[0]:
                    best = seconds, product
    return best[1] if best else None


def _by_pointers(pair: Pair, product: Product) -> list[Product]:
    """The product with its loops in its calls, if it has any and cuBLAS takes it so."""
    is_held = holds(product.rows.size, product.columns.size, product.summed.size)
    return [replace(product, pointers=True)] if product.loops and is_held and pair.takes_pointers(product) else []


def _is_crosswise(rows: Axis, columns: Axis) -> bool:
    """Whether the result is contiguous neither along rows nor along columns: most pairs of many axes, soon found."""
    return rows.size > 1 < columns.size and 1 not in (rows.strides[OUT], columns.strides[OUT])


def _is_reversed(*loops: Axis) -> bool:
    return any(min(axis.strides) < 0 for axis in loops)


def _by_stride(labels: Term, strides: Sizes) -> Term:
    return "".join(sorted(labels, key=lambda label: -strides[label]))


def _fused(labels: Term, sizes: Sizes, strides: tuple[Sizes, ...], by: int) -> list[Axis]:
    return fuse(sorted(axes(labels, sizes, *strides), key=lambda axis: -axis.strides[by]))
