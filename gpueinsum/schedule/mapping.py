"""From a pair and its strides to matrix products: which labels are rows, columns, sum and batch, what is copied first.

No array is touched here, so all of it is tested without a GPU. Strides are in elements throughout.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

from gpueinsum.costs.counts import item_bytes
from gpueinsum.costs.seconds import lines_conflict, pass_seconds, product_seconds
from gpueinsum.language.steps import within
from gpueinsum.language.strides import Axis, axes, contiguous, fuse, label_strides, points
from gpueinsum.language.subscripts import Label, Term
from gpueinsum.schedule.gemm import (
    CONJUGATES,
    LHS,
    ONE,
    OUT,
    PACK_BYTES,
    POINTERS,
    RHS,
    Product,
    find_ops,
    holds,
    reads_packs,
)
from gpueinsum.schedule.problem import Problem

Sizes = Mapping[Label, int]
Copied = tuple[bool, bool]  # whether the left and the right side are

# Axes that fuse into no batch and no sum are looped over on the host of a GPU, by so many calls at the most. Pointers
# take the place of turns where a pair would take more than so many launches.
MAX_CALLS, MOST_LAUNCHES = 512, 3
# Copies and pointers take memory, too: each must save so much of the time. An order of the result that is not the one
# asked for must save as much as is more than a rounding error.
MEMORY_MUST_SAVE, _NO_GAIN = 1.05, 1 - 1e-9
# A CPU's BLAS turns a matrix on the way: 92352 x 312 times 312 x 24 took 16.6 ms from rows to rows and 13.7 ms from
# columns to columns, 20.7 and 17.6 ms otherwise; 768 x 768 up to 1.05 times as long (float32, 2 cores, OpenBLAS).
_TURNED = 1.1
_MANY_ORDERS = 16
LINE = 64  # bytes of memory that are read together: what is copied in shorter runs is permuted
# Seconds of a copy by numpy: of each element that lies apart from its neighbour in the result, of each byte of others,
# of each run of its innermost loop. 400 permutations of 1e4 to 1e7 elements (float32, one core of an AMD EPYC, numpy
# 2.4): runs of 4 elements took 0.70 ns for each element where they lay apart and 0.60 elsewhere, of 16 0.35 and 0.22.
# Where a copy leaves the second cache, elements of runs of 16 and more take so many times as long, in lines of their
# own and within a line: in the medians 0.58 and 0.37 ns for 0.28.
_APART, _NEAR, _TURN, _LONG = 0.26e-9, 0.018e-9, 2.1e-9, 16
_FAR, _BESIDE = 2.0, 1.4
IN_CACHE = 1 << 20  # bytes: the second cache of an AMD EPYC
COPIES: tuple[Copied, ...] = ((False, False), (True, False), (False, True), (True, True))


@dataclass(frozen=True, slots=True)
class Gemm:
    """Matrix products that a pair becomes: the terms to which sides are copied first, the order of the result.

    A copy is that of the conjugate where the pair conjugates the side: the product then takes it as it is. On a GPU a
    single product may be called `as_batch` of one, for which cuBLAS has other kernels.
    """

    copies: tuple[Term | None, Term | None]
    out: Term
    product: Product
    as_batch: bool = False

    @property
    def name(self) -> str:
        """What tells the ways to run a pair apart."""
        copied = [side for side, term in zip(("left", "right"), self.copies, strict=True) if term is not None]
        how = {0: "copy nothing", 1: f"copy the {copied[0] if copied else ''} side", 2: "copy both sides"}[len(copied)]
        return f"{how}, a batch of one" if self.as_batch else how


def gemms(problem: Problem, every: bool = False) -> list[tuple[Gemm, float]]:
    """The products that a pair becomes, and their seconds: of each choice of sides to copy the fastest that fit.

    Unless `every` one is asked for, those are left out that cannot be cheaper than one found before.
    """
    found: list[tuple[Gemm, float]] = []
    ideal, most = ideal_seconds(problem), math.inf
    for copied in COPIES:
        if not _has_operations(problem, copied):
            continue
        handicap = MEMORY_MUST_SAVE ** sum(copied)
        if (ideal + _copies_seconds(problem, copied)) * handicap < most or every:
            made = _gemm(problem, copied)
            if made is not None:
                found.append(made)
                most = min(most, made[1] * handicap)
    return found


def _has_operations(problem: Problem, copied: Copied) -> bool:
    """Whether cuBLAS conjugates sides that are not copied, which copies would do: elsewhere it is done apart."""
    marks = any(mark and not copy for mark, copy in zip(problem.conjugated, copied, strict=True))
    return not marks or problem.profile.kind == "cpu" or problem.profile.has(CONJUGATES, problem.dtype)


def ideal_seconds(problem: Problem) -> float:
    """Of one batch of products with one axis for each role: what sides that lie as it wants them take."""
    return product_seconds(problem.profile, problem.dtype, *problem.shape, bytes_moved(problem), problem.precision)


def bytes_moved(problem: Problem) -> int:
    """Each array read once, the result written once."""
    return sum(problem.elements) * item_bytes(problem.dtype)


def _gemm(problem: Problem, copied: Copied) -> tuple[Gemm, float] | None:
    """The cheapest products with copies of these sides, and their seconds with the copies; None if none fits."""
    given = [label_strides(term, own) for term, own in zip(problem.terms, problem.strides, strict=True)]
    lhs, rhs = _copied_terms(problem, given[LHS], given[RHS], copied)
    x = given[LHS] if lhs is None else contiguous(lhs, problem.size)
    y = given[RHS] if rhs is None else contiguous(rhs, problem.size)
    best = _best_order(problem, (x, y), copied)
    if best is None and copied == (True, True):  # too large for 32-bit leading dimensions
        best = _best_order(problem, (x, y), copied, last_resort=True)
    if best is None:
        return None
    out, product, seconds = best
    sides = zip(given, (lhs, rhs), strict=True)
    copies = sum(copy_seconds(problem, strides, term) for strides, term in sides if term is not None)
    return Gemm((lhs, rhs), out, product), seconds + copies


def _copied_terms(problem: Problem, lhs: Sizes, rhs: Sizes, copied: Copied) -> tuple[Term | None, Term | None]:
    """The terms to which sides of these strides are copied, the cheapest of those that a product takes.

    A side's own labels are in the order of the result or as they lie, before its summed labels or behind them; the
    summed ones are in one order on both sides: as a side has them that is not copied.
    """
    batch, left, right, summed = problem.roles
    batch = within(problem.out, batch)
    orders = {
        _by_stride(summed, strides) for strides, is_copied in zip((lhs, rhs), copied, strict=True) if not is_copied
    }
    best: tuple[float, tuple[Term | None, Term | None]] | None = None
    for middle in sorted(orders or {_by_stride(summed, lhs), _by_stride(summed, rhs)}):
        seconds, terms = 0.0, []
        for own, strides, is_copied in zip((left, right), (lhs, rhs), copied, strict=True):
            term = _copied_term(problem, batch, own, middle, strides) if is_copied else None
            terms.append(term)
            seconds += 0.0 if term is None else copy_seconds(problem, strides, term)
        if best is None or seconds < best[0]:
            best = seconds, (terms[LHS], terms[RHS])
    assert best is not None
    return best[1]


def _copied_term(problem: Problem, batch: Term, own: Term, middle: Term, strides: Sizes) -> Term:
    owns = [within(problem.out, own)]
    if not problem.is_ordered:
        owns.append(_by_stride(own, strides))
    terms = [batch + each + middle for each in owns]
    if holds(points(own, problem.size)):
        terms += [batch + middle + each for each in owns]
    return min(dict.fromkeys(terms), key=lambda term: copy_seconds(problem, strides, term))


def _copies_seconds(problem: Problem, copied: Copied) -> float:
    """Of copies of these sides, at best."""
    moved = 2.0 * item_bytes(problem.dtype)
    sides = zip(problem.elements, copied, strict=False)
    return sum(pass_seconds(problem.profile, moved * elements) for elements, is_copied in sides if is_copied)


def copy_seconds(problem: Problem, strides: Sizes, term: Term) -> float:
    """Of a copy of a side with these strides to this term.

    On a CPU each run of the innermost loop takes its time, and so do elements that do not lie side by side.
    """
    item, elements = item_bytes(problem.dtype), points(term, problem.size)
    run, step, apart, innermost = 1, 1, False, True  # elements along the term's last axes that lie evenly in the source
    for label in reversed(term):
        if problem.size[label] == 1:
            continue
        if innermost:
            step, apart, innermost = strides[label], strides[label] != 1, False
        elif strides[label] != run * step:
            break
        run *= problem.size[label]
    moved = 2.0 * item * elements
    if problem.profile.kind == "cuda":
        return pass_seconds(problem.profile, moved, permuted=moved if apart or run * item < LINE else 0)
    is_far = moved > IN_CACHE and run >= _LONG
    far = (_FAR if abs(step) * item >= LINE else _BESIDE) if is_far else 1.0
    busy = elements * ((_APART * far if apart else _NEAR * item) + _TURN / run)
    return max(problem.profile.launch + busy, pass_seconds(problem.profile, moved))


def _products_seconds(problem: Problem, product: Product) -> float:
    """Of the products as they are made.

    On a GPU the turns of loops run one after the other, each at the rate of its sizes; the host is ahead of those that
    take longer than a launch. Each turn of sums costs its launch, and so do pointers, by which the products are as fast
    as by strides. All this is by reasoning, and not measured yet.
    """
    shape = product.number, product.rows.size, product.columns.size, product.summed.size
    seconds = product_seconds(problem.profile, problem.dtype, *shape, bytes_moved(problem), problem.precision)
    if problem.profile.kind == "cpu":
        crossed = _crossed_bytes(problem, product) / problem.profile.bytes_per_second
        seconds += crossed * (1 / problem.profile.permuted - 1)
        return seconds * _TURNED if _is_turned(problem, product) else seconds
    turns = math.prod(axis.size for axis in product.sums)
    ahead, waiting = product.calls // turns, turns - 1 + product.pointers
    return max(seconds, ahead * problem.profile.launch) + waiting * problem.profile.launch


def _crossed_bytes(problem: Problem, product: Product) -> int:
    """Of sides whose neighbours in memory are in different products, as of a batch of dots that reads columns.

    Small sides stay in cache until the neighbours are read, unless their lines fall into the same few sets of it.
    """
    item, total = item_bytes(problem.dtype), 0
    for side, own in ((LHS, (product.rows, product.summed)), (RHS, (product.summed, product.columns))):
        long = [axis for axis in own if axis.size > 1]
        if long and all(axis.strides[side] != 1 for axis in long):
            nbytes, read = problem.elements[side] * item, min(long, key=lambda axis: axis.strides[side])
            is_lost = nbytes > IN_CACHE or lines_conflict(read.strides[side] * item, read.size)
            total += nbytes if is_lost else 0
    return total


def _is_turned(problem: Problem, product: Product) -> bool:
    """Whether only one of the larger side and the result is contiguous along the axis that they share."""
    lhs, rhs, _ = problem.elements
    side, axis = (LHS, product.rows) if lhs >= rhs else (RHS, product.columns)
    return axis.size > 1 and (axis.strides[side] == 1) != (axis.strides[OUT] == 1)


def _takes_pointers(problem: Problem, product: Product) -> bool:
    """Whether cuBLAS may be given pointers to the matrices of this product."""
    profile, dtype = problem.profile, problem.dtype
    has_them = profile.has(POINTERS, dtype) and "kernel pointers" not in profile.lacks
    if profile.kind != "cuda" or not has_them:
        return False
    if not reads_packs(problem.dtype, problem.precision):
        return True
    axes, item = (product.batch, *product.loops, *product.sums), item_bytes(problem.dtype)
    return problem.aligned and not any(stride * item % PACK_BYTES for axis in axes for stride in axis.strides)


def _best_order(
    problem: Problem, sides: tuple[Sizes, Sizes], copied: Copied, last_resort: bool = False
) -> tuple[Term, Product, float] | None:
    """The order in which the result is written fastest by a product of sides of these strides; None if none fits."""
    is_op = problem.profile.kind == "cuda"  # elsewhere conjugates are made apart from the product
    lhs, rhs = (is_op and mark and not copy for mark, copy in zip(problem.conjugated, copied, strict=True))
    best: tuple[Term, Product, float] | None = None
    good = ideal_seconds(problem) / _NO_GAIN
    for out in (problem.out,) if problem.is_ordered else orders(problem, *sides):
        product = fit(problem, (*sides, contiguous(out, problem.size)), (lhs, rhs), last_resort)
        if product is not None:
            seconds = _products_seconds(problem, product)
            if best is None or seconds < best[2] * _NO_GAIN:
                best = out, product, seconds
            if seconds <= good:
                break
    return best


def orders(problem: Problem, lhs: Sizes, rhs: Sizes) -> list[Term]:
    """Orders for the result, the one that is asked for first: each with other runs of labels next to each other."""
    batch, left, right, _ = problem.roles
    batch = within(problem.out, batch)
    orders = [problem.out, batch + left + right, batch + right + left]
    lhs_runs = _runs(_by_stride(problem.terms[LHS], lhs), left)
    rhs_runs = _runs(_by_stride(problem.terms[RHS], rhs), right)
    for rows, columns in itertools.product(lhs_runs or [""], rhs_runs or [""]):
        others = batch + "".join(run for run in (*lhs_runs, *rhs_runs) if run not in (rows, columns))
        orders += [others + rows + columns, others + columns + rows]
    return list(dict.fromkeys(orders))[:_MANY_ORDERS]


def _runs(term: Term, labels: Term) -> list[Term]:
    """The labels of a term that are among these, those that follow one another together."""
    return "".join(label if label in labels else " " for label in term).split()


def fit(
    problem: Problem,
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
    size, kind = problem.size, problem.profile.kind
    batch, left, right = (_fuse_labels(labels, size, strides, OUT) for labels in problem.roles[:3])
    summed = _fuse_labels(problem.roles[3], size, strides, LHS)
    if (len(summed) > 1 and kind == "cpu") or _is_reversed(*batch, *left, *right, *summed):
        return None
    spare = [ONE] if last_resort else []
    best: tuple[float, Product] | None = None
    for rows, columns, middle in itertools.product(
        [*left, *spare] or [ONE], [*right, *spare] or [ONE], summed or [ONE]
    ):
        if _is_crosswise(rows, columns) or find_ops(rows, columns, middle, conjugated) is None:
            continue
        around = [axis for axis in (*batch, *left, *right) if axis is not rows and axis is not columns]
        around.sort(key=lambda axis: axis.size)
        widest = around.pop() if around else ONE
        sums = [axis for axis in summed if axis is not middle]
        by_turns = Product(rows, columns, middle, widest, tuple(around), tuple(sums), conjugated)
        pointers = _by_pointers(problem, by_turns)
        for product in pointers if pointers and by_turns.calls > MOST_LAUNCHES else (by_turns, *pointers):
            if product.calls <= MAX_CALLS or last_resort or kind == "cpu":
                seconds = _products_seconds(problem, product) * (MEMORY_MUST_SAVE if product.pointers else 1)
                if best is None or seconds < best[0]:
                    best = seconds, product
    return best[1] if best else None


def _by_pointers(problem: Problem, product: Product) -> list[Product]:
    """The product with its loops in its calls, if it has any and cuBLAS takes it so."""
    is_held = holds(product.rows.size, product.columns.size, product.summed.size)
    return [replace(product, pointers=True)] if product.loops and is_held and _takes_pointers(problem, product) else []


def _is_crosswise(rows: Axis, columns: Axis) -> bool:
    """Whether the result is contiguous neither along rows nor along columns: most pairs of many axes, soon found."""
    return rows.size > 1 < columns.size and 1 not in (rows.strides[OUT], columns.strides[OUT])


def _is_reversed(*loops: Axis) -> bool:
    return any(min(axis.strides) < 0 for axis in loops)


def _by_stride(labels: Term, strides: Sizes) -> Term:
    return "".join(sorted(labels, key=lambda label: -strides[label]))


def _fuse_labels(labels: Term, sizes: Sizes, strides: tuple[Sizes, ...], by: int) -> list[Axis]:
    return fuse(sorted(axes(labels, sizes, *strides), key=lambda axis: -axis.strides[by]))
