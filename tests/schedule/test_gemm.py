"""From strides to cuBLAS calls, without a device: each call is run by its definition and compared with the einsum."""

import itertools
import math
from dataclasses import replace

import numpy as np
import pytest

from gpueinsum.costs.profile import profile
from gpueinsum.language.steps import Contract
from gpueinsum.language.strides import contiguous
from gpueinsum.schedule import gemm
from gpueinsum.schedule import mapping as routing
from gpueinsum.schedule.gemm import Call, Gemm, blas_calls
from gpueinsum.schedule.mapping import Case, cheapest

RNG = np.random.default_rng(0)
SIZES = {"a": 2, "b": 3, "c": 5, "i": 7, "j": 4, "k": 6, "l": 2, "m": 3, "n": 5}


def pair(equation):
    terms, out = equation.split("->")
    lhs, rhs = terms.split(",")
    return Contract(0, 1, lhs, rhs, out)


def array(term, layout=None, dtype=float):
    """An array of this term whose memory is ordered as `layout`."""
    layout = layout or term
    real, imag = RNG.integers(-9, 9, (2, *(SIZES[x] for x in layout)))
    memory = (real + 1j * imag if dtype is complex else real).astype(dtype)
    return memory.transpose([layout.index(x) for x in term])


def route(step, sizes, lhs, rhs, blas=True):
    return cheapest(Case(step, sizes, lhs, rhs, "float32" if blas else "int64", profile("h200")))


def route_of(step, x, y, blas=True):
    strides = [tuple(s // a.itemsize for s in a.strides) for a in (x, y)]
    return route(step, tuple(SIZES.items()), *strides, blas)


def column_major(memory, start, ld, stride, rows, columns, batch):
    """Element (b, row, column) of a cuBLAS matrix, gathered by its definition."""
    b, r, c = np.ogrid[:batch, :rows, :columns]
    return start + b * stride + c * ld + r


def run(call: gemm.Call, lhs, rhs, out):
    """One call by cuBLAS' definition on flat memory, its arguments checked."""
    g: Gemm = call.gemm
    (a, a0), (b, b0) = [(lhs, call.lhs), (rhs, call.rhs)][:: -1 if call.swapped else 1]
    a_rows, a_columns = (g.k, g.m) if g.transpose_a else (g.m, g.k)
    b_rows, b_columns = (g.n, g.k) if g.transpose_b else (g.k, g.n)
    assert max(1, a_rows) <= g.lda <= gemm.INT_MAX
    assert max(1, b_rows) <= g.ldb <= gemm.INT_MAX
    assert max(1, g.m) <= g.ldc <= gemm.INT_MAX
    assert max(g.m, g.n, g.k) <= gemm.INT_MAX
    assert g.batch <= gemm.MAX_BATCH
    left = a[column_major(a, a0, g.lda, g.stride_a, a_rows, a_columns, g.batch)]
    right = b[column_major(b, b0, g.ldb, g.stride_b, b_rows, b_columns, g.batch)]
    left = operated(left, g.transpose_a, g.conjugate_a)
    right = operated(right, g.transpose_b, g.conjugate_b)
    where = column_major(out, call.out, g.ldc, g.stride_c, g.m, g.n, g.batch)
    assert np.unique(where).size == where.size
    out[where] = left @ right + (out[where] if g.accumulate else 0)


def operated(matrices, transpose, conjugate):
    assert transpose or not conjugate, "cuBLAS conjugates only what it transposes"
    matrices = matrices.transpose(0, 2, 1) if transpose else matrices
    return matrices.conj() if conjugate else matrices


def compute(step, x, y):
    """The pair through its route; how many launches it took, and the route."""
    way = route_of(step, x, y)
    if way.copy_lhs is not None:
        x = np.ascontiguousarray(x.transpose([step.lhs_term.index(label) for label in way.copy_lhs]))
        x = x.conj() if step.conj_lhs else x
    if way.copy_rhs is not None:
        y = np.ascontiguousarray(y.transpose([step.rhs_term.index(label) for label in way.copy_rhs]))
        y = y.conj() if step.conj_rhs else y
    out = np.full([SIZES[label] for label in way.out], np.nan, x.dtype)
    calls = list(blas_calls(way.product))
    for call in products_by_pointers(way.product, calls) if way.product.pointers else calls:
        run(call, x.ravel(order="K"), y.ravel(order="K"), out.reshape(-1))
    launches = len(calls) + way.product.pointers
    return out.transpose([way.out.index(label) for label in step.out]), launches, way


def products_by_pointers(product, calls):
    """The products of calls by pointers, one by one, in the order of the calls."""
    axes = product.numbered
    for call in calls:
        each = call.gemm
        assert call.lhs == call.rhs == call.out
        assert (each.stride_a, each.stride_b, each.stride_c) == (0, 0, 0)
        assert each.batch <= gemm.MAX_BATCH
        for number in range(call.lhs, call.lhs + each.batch):
            index = np.unravel_index(number, [axis.size for axis in axes])
            places = [sum(i * axis.strides[side] for i, axis in zip(index, axes, strict=True)) for side in range(3)]
            yield Call(replace(each, batch=1), call.swapped, *places)


NO_COPY = [  # equation, layouts of the sides in memory
    ("ij,jk->ik", None, None),
    ("ij,jk->ik", "ji", None),
    ("ij,jk->ik", None, "kj"),
    ("ij,jk->ki", None, None),
    ("ji,kj->ki", None, None),
    ("bij,bjk->bik", None, None),
    ("ibj,bjk->bik", None, None),  # the batch in the middle is a stride
    ("bij,jbk->bik", "ibj", None),
    ("abij,abjk->abik", None, None),
    ("ijk,kl->ijl", None, None),
    ("aij,jk->aik", "iaj", None),  # rows that do not fuse with the result: they join the batch
    ("ijk,jkl->il", None, None),
    ("i,ij->j", None, None),
    ("ij,j->i", None, None),
    ("mil,lj->mij", "iml", None),
]


@pytest.mark.parametrize(("equation", "lhs", "rhs"), NO_COPY)
def test_a_matrix_product_needs_no_copy(equation, lhs, rhs):
    step = pair(equation)
    x, y = array(step.lhs_term, lhs), array(step.rhs_term, rhs)
    result, calls, way = compute(step, x, y)
    assert (way.copy_lhs, way.copy_rhs) == (None, None)
    assert calls == 1
    np.testing.assert_array_equal(result, np.einsum(equation, x, y))


def test_only_the_side_that_does_not_fit_is_copied():
    step = pair("ijk,kjl->il")  # summed labels in two orders
    result, _, way = compute(step, x := array("ijk"), y := array("kjl"))
    assert (way.copy_lhs is None) != (way.copy_rhs is None)
    assert way.copy_rhs is not None  # the smaller one
    np.testing.assert_array_equal(result, np.einsum("ijk,kjl->il", x, y))


def test_every_pair_in_every_layout_is_a_product():
    for equation in ("ijk,jlk->il", "aij,ajk->aik", "abi,bja->bij", "ijc,jlc->cil"):
        step = pair(equation)
        for lhs, rhs in itertools.product(itertools.permutations(step.lhs_term), itertools.permutations(step.rhs_term)):
            x, y = array(step.lhs_term, "".join(lhs)), array(step.rhs_term, "".join(rhs))
            np.testing.assert_array_equal(compute(step, x, y)[0], np.einsum(equation, x, y))


LEFT, RIGHT, BOTH = (True, False), (False, True), (True, True)
CONJUGATED = [
    *("ij,jk->ik", "ij,jk->ki", "bij,bjk->bik", "bij,bjk->ibk", "bij,bjk->kbi", "ijk,kl->ijl", "aij,jk->aik"),
    *("ij,j->i", "i,ij->j", "bij,bj->bi", "ijk,jlk->il", "ijc,jlc->cil", "abi,bja->bij"),
]


def conjugated(equation, sides):
    return replace(pair(equation), conj_lhs=sides[0], conj_rhs=sides[1])


def layouts(step, dtype=complex):
    """The sides with the labels of each in every order in memory."""
    for lhs, rhs in itertools.product(itertools.permutations(step.lhs_term), itertools.permutations(step.rhs_term)):
        yield array(step.lhs_term, "".join(lhs), dtype), array(step.rhs_term, "".join(rhs), dtype)


def conjugate_einsum(equation, sides, x, y):
    return np.einsum(equation, x.conj() if sides[0] else x, y.conj() if sides[1] else y)


@pytest.mark.parametrize("sides", [LEFT, RIGHT, BOTH])
@pytest.mark.parametrize("equation", CONJUGATED)
def test_conjugates_are_right_and_one_of_them_costs_no_copy(equation, sides):
    step, plain = conjugated(equation, sides), pair(equation)
    for x, y in layouts(step):
        result, _, way = compute(step, x, y)
        np.testing.assert_array_equal(result, conjugate_einsum(equation, sides, x, y))
        without = route_of(plain, x, y)
        if sides != BOTH and without.copy_lhs is without.copy_rhs is None:
            assert (way.copy_lhs, way.copy_rhs) == (None, None)


@pytest.mark.parametrize("sides", [LEFT, RIGHT])
@pytest.mark.parametrize("equation", ["ij,jk->ik", "ij,jk->ki", "ij,j->i", "i,ij->j"])
def test_a_conjugated_matrix_in_any_order_is_never_copied(equation, sides):
    step = conjugated(equation, sides)
    for x, y in layouts(step):
        _, calls, way = compute(step, x, y)
        assert (way.copy_lhs, way.copy_rhs, calls) == (None, None, 1)


@pytest.mark.parametrize("sides", [LEFT, RIGHT, BOTH])
@pytest.mark.parametrize("equation", ["ij,jk->ik", "ij,jk->ki", "bij,bjk->bik", "abij,abjk->abik", "ijk,kl->ijl"])
def test_conjugates_of_c_ordered_arrays_ride_on_the_operation_of_cublas(equation, sides):
    step = conjugated(equation, sides)
    way = route_of(step, array(step.lhs_term), array(step.rhs_term))
    assert (way.copy_lhs, way.copy_rhs) == (None, None)
    [call] = blas_calls(way.product)
    by_side = (call.gemm.conjugate_a, call.gemm.conjugate_b)[:: -1 if call.swapped else 1]
    assert by_side == sides


def test_a_copy_conjugates_so_that_the_product_does_not():
    step = conjugated("ijk,kjl->il", RIGHT)  # summed labels in two orders: the smaller side is copied
    way = route_of(step, x := array("ijk", dtype=complex), y := array("kjl", dtype=complex))
    assert way.copy_rhs is not None
    assert way.product.conjugated == (False, False)
    np.testing.assert_array_equal(compute(step, x, y)[0], np.einsum("ijk,kjl->il", x, y.conj()))


@pytest.mark.parametrize(("layout", "copied"), [("bjia", "bjia"), ("ijba", "bjia"), ("jbai", "baji"), ("aijb", "baji")])
def test_a_copy_leaves_what_is_innermost_there(layout, copied, monkeypatch):
    monkeypatch.setitem(SIZES, "a", 32)  # a run of more than a line of memory
    step = pair("baij,bjik->bak")  # a row and what is summed, in the other side's order, may lie either way
    x, y = array("baij", layout), array("bjik")
    strides = [tuple(s // z.itemsize for s in z.strides) for z in (x, y)]
    ways = routing.routes(Case(step, tuple(SIZES.items()), *strides, "float32", profile("h200")))
    [way] = [way for way in ways if way.name == "copy the left side"]
    assert way.copy_lhs == copied


@pytest.mark.parametrize("sides", [LEFT, RIGHT])
@pytest.mark.parametrize("single", "ijk")
def test_an_axis_of_one_element_counts_as_either(sides, single, monkeypatch):
    monkeypatch.setitem(SIZES, single, 1)
    step = conjugated("ij,jk->ik", sides)
    for x, y in layouts(step):
        result, _, way = compute(step, x, y)
        assert (way.copy_lhs, way.copy_rhs) == (None, None)
        np.testing.assert_array_equal(result, conjugate_einsum("ij,jk->ik", sides, x, y))


def test_the_test_would_see_a_conjugate_without_a_transpose():
    step = conjugated("ij,jk->ik", LEFT)
    [call] = blas_calls(route_of(step, x := array("ij", dtype=complex), y := array("jk", dtype=complex)).product)
    broken = replace(call, gemm=replace(call.gemm, transpose_a=False, lda=call.gemm.m))
    with pytest.raises(AssertionError, match="cuBLAS conjugates only what it transposes"):
        run(broken, x.ravel(), y.ravel(), np.zeros(SIZES["i"] * SIZES["k"], complex))


@pytest.mark.parametrize("odd", ["negative", "broadcast", "stepped", "overlapping"])
def test_strides_that_blas_cannot_take_are_copied(odd):
    step = pair("ij,jk->ik")
    strides = {
        "negative": (6, -1),
        "broadcast": (0, 1),
        "stepped": (12, 2),
        "overlapping": (1, 1),
    }[odd]
    way = route(step, tuple(SIZES.items()), strides, (6, 1), True)
    assert way.copy_lhs == "ij"
    assert way.copy_rhs is None


def test_our_own_kernel_takes_any_strides():
    way = route(pair("ij,jk->ik"), tuple(SIZES.items()), (-12, 2), (0, 3), False)
    assert (way.copy_lhs, way.copy_rhs) == (None, None)


def test_a_vector_of_any_stride_is_a_matrix_of_one_column():
    way = route(pair("ij,j->i"), tuple(SIZES.items()), (4, 1), (3,), True)
    assert (way.copy_lhs, way.copy_rhs) == (None, None)


# ---- Arrays of pointers


# Heads and samples of attention that do not fuse, and others.
BY_POINTERS = ["bqchd,bkhcd->bchqk", "bqhd,bkhd->bhqk", "bhqk,bkhd->bqhd", "abicj,abkcj->aibkc"]


def sized(equation, **sizes):
    step = pair(equation)
    return step, {label: sizes.get(label, 7) for label in step.lhs_term + step.rhs_term}


def strides_of(term, size):
    strides = contiguous(term, size)
    return tuple(strides[label] for label in term)


def way_of(equation, dtype="float32", device="h200", precision=None, aligned=True, **sizes):
    step, size = sized(equation, **sizes)
    lhs, rhs = strides_of(step.lhs_term, size), strides_of(step.rhs_term, size)
    return cheapest(
        Case(step, tuple(size.items()), lhs, rhs, dtype, profile(device), precision, aligned), as_planned=True
    )


def test_a_batch_of_axes_that_do_not_fuse_is_two_launches():
    way = way_of("bqhd,bkhd->bhqk", b=8, h=16, q=32, k=32, d=64)
    assert (way.copies, way.product.pointers, way.product.calls) == (0, True, 1)
    [call] = blas_calls(way.product)
    assert (call.lhs, call.gemm.batch, way.product.number) == (0, 8 * 16, 8 * 16)
    assert math.prod(axis.size for axis in way.product.numbered) == way.product.number


def test_a_batch_of_one_stride_needs_no_pointers():
    assert not way_of("bij,bjk->bik").product.pointers
    assert not way_of("ibj,bjk->bik").product.pointers


def test_a_loop_of_two_turns_is_as_short_as_pointers_and_takes_no_memory():
    assert not way_of("bqhd,bkhd->bhqk", b=2, h=16).product.pointers
    assert way_of("bqhd,bkhd->bhqk", b=3, h=16).product.pointers


def test_the_host_is_ahead_of_long_turns_which_need_no_pointers():
    way = way_of("bqhd,bkhd->bhqk", b=16, h=16, q=2048, k=2048, d=64)
    assert (way.copies, way.product.pointers, way.product.calls) == (0, False, 16)
    step, size = sized("bqhd,bkhd->bhqk", b=16, h=16, q=2048, k=2048, d=64)
    on_h200, launch = routing.Pair(step, size, "float32", profile("h200")), profile("h200").launch
    assert on_h200.product_seconds(way.product) == pytest.approx(on_h200.ideal_seconds)
    by_pointers = replace(way.product, pointers=True)
    assert on_h200.product_seconds(by_pointers) == pytest.approx(on_h200.ideal_seconds + launch)


def test_short_turns_cost_a_launch_each():
    step, size = sized("bqhd,bkhd->bhqk", b=16, h=16, q=8, k=8, d=8)
    way = way_of("bqhd,bkhd->bhqk", **size)
    assert way.product.pointers
    on_h200, launch = routing.Pair(step, size, "float32", profile("h200")), profile("h200").launch
    assert on_h200.product_seconds(replace(way.product, pointers=False)) == pytest.approx(16 * launch)


def test_a_loop_too_long_for_the_host_is_one_call_and_no_copy():
    way = way_of("bqhd,bkhd->bhqk", b=600, h=601, q=16, k=16, d=64)
    assert (way.copies, way.product.pointers) == (0, True)
    assert way.product.number == 600 * 601
    assert len(list(blas_calls(way.product))) == -(-600 * 601 // gemm.MAX_BATCH)
    assert way_of("bqhd,bkhd->bhqk", "float16", b=600, h=601, q=16, k=16, d=63).copies > 0


HEADS = {"b": 8, "h": 8, "q": 16, "k": 16, "d": 16}


@pytest.mark.parametrize("dtype", ["float32", "float64", "complex64", "complex128"])
@pytest.mark.parametrize("aligned", [False, True])
@pytest.mark.parametrize("precision", [None, "highest"])
def test_matrices_of_full_precision_are_pointed_to_wherever_they_begin(dtype, aligned, precision):
    for sizes in (HEADS, {**HEADS, "d": 15}):
        way = way_of("bqhd,bkhd->bhqk", dtype, precision=precision, aligned=aligned, **sizes)
        assert way.product.pointers


@pytest.mark.parametrize(
    ("dtype", "precision"),
    [("float16", None), ("bfloat16", "highest"), ("float32", "tf32"), ("complex64", "bf16"), ("float64", "emulated")],
)
def test_what_is_read_in_packs_is_pointed_to_only_where_it_begins_at_one(dtype, precision):
    assert way_of("bqhd,bkhd->bhqk", dtype, precision=precision, **HEADS).product.pointers
    assert not way_of("bqhd,bkhd->bhqk", dtype, precision=precision, aligned=False, **HEADS).product.pointers
    for odd in ({"d": 15}, {"q": 15, "k": 15}):  # strides of the sides, and of the result
        assert not way_of("bqhd,bkhd->bhqk", dtype, precision=precision, **(HEADS | odd)).product.pointers


@pytest.mark.parametrize(("dtype", "device"), [("int64", "h200"), ("bool", "h200"), ("float32", "cpu")])
def test_our_own_kernel_and_the_cpu_take_no_pointers(dtype, device):
    assert not way_of("bqhd,bkhd->bhqk", dtype, device, **HEADS).product.pointers


def test_sums_are_turns_of_pointers_that_add_up():
    step, size = sized("fbea,ecfd->cdba")
    strides = strides_of(step.lhs_term, size), strides_of(step.rhs_term, size)
    ways = routing.routes(Case(step, tuple(size.items()), *strides, "float32", profile("h200")), as_planned=True)
    [found] = [way.product for way in ways if not way.copies]
    assert found.pointers
    assert found.calls == math.prod(axis.size for axis in found.sums) == 7
    calls = list(blas_calls(found))
    assert [call.gemm.accumulate for call in calls] == [False] + [True] * 6
    assert [call.lhs for call in calls] == [turn * found.number // 7 for turn in range(7)]


@pytest.mark.parametrize("sides", [(False, False), LEFT, RIGHT])
@pytest.mark.parametrize("equation", BY_POINTERS)
def test_products_by_pointers_are_right(free_pointers, equation, sides):
    step = conjugated(equation, sides)
    x, y = (RNG.integers(-9, 9, (2, *[SIZES[label] for label in term])) for term in (step.lhs_term, step.rhs_term))
    x, y = x[0] + 1j * x[1], y[0] + 1j * y[1]
    result, launches, way = compute(step, x, y)
    np.testing.assert_array_equal(result, conjugate_einsum(equation, sides, x, y))
    assert way.product.pointers
    assert launches == 1 + way.product.calls


def test_more_products_than_a_call_takes_are_split(free_pointers):
    free_pointers.setattr(gemm, "MAX_BATCH", 4)
    step = pair("bqhd,bkhd->bhqk")
    x, y = array("bqhd"), array("bkhd")
    result, launches, way = compute(step, x, y)
    np.testing.assert_array_equal(result, np.einsum("bqhd,bkhd->bhqk", x, y))
    assert launches == 1 + -(-way.product.number // 4)


def test_sizes_past_32_bits_take_no_pointers(free_pointers):
    free_pointers.setattr(gemm, "INT_MAX", 6)
    assert not way_of("bqhd,bkhd->bhqk", b=3, h=4, q=7, k=5, d=5).product.pointers


@pytest.fixture
def free_pointers(monkeypatch):
    """Pointers that cost nothing, so that small products take them, and copies that cost the more."""
    monkeypatch.setitem(SIZES, "q", 5)
    monkeypatch.setitem(SIZES, "h", 4)
    monkeypatch.setitem(SIZES, "d", 6)
    monkeypatch.setattr(routing, "_MEMORY_MUST_SAVE", 1e-9)
    monkeypatch.setattr(routing.Pair, "copies_seconds", lambda pair, copied: 1e30 * sum(copied))
    routing.cheapest.cache_clear()
    yield monkeypatch
    routing.cheapest.cache_clear()


@pytest.fixture
def small_arguments(monkeypatch):
    """cuBLAS with 3-bit integers, so that the splits for its 32-bit ones are taken."""
    monkeypatch.setattr(gemm, "MAX_BATCH", 2)
    routing.cheapest.cache_clear()
    yield monkeypatch
    routing.cheapest.cache_clear()


def test_a_batch_past_the_limit_is_split(small_arguments):
    step = pair("bij,bjk->bik")
    result, calls, _ = compute(step, x := array("bij"), y := array("bjk"))
    assert calls == 2
    np.testing.assert_array_equal(result, x @ y)


@pytest.mark.parametrize("equation", ["ij,jk->ik", "ij,jk->ki", "bij,bjk->bik", "ij,kj->ik", "ijk,kl->ijl"])
def test_sizes_past_32_bits_are_split(small_arguments, equation):
    small_arguments.setattr(gemm, "INT_MAX", 3)
    step = pair(equation)
    x, y = array(step.lhs_term), array(step.rhs_term)
    result, calls, _ = compute(step, x, y)
    assert calls > 1
    np.testing.assert_array_equal(result, np.einsum(equation, x, y))


@pytest.mark.parametrize("sides", [LEFT, RIGHT])
def test_conjugates_past_32_bits_are_split(small_arguments, sides):
    small_arguments.setattr(gemm, "INT_MAX", 3)
    step = conjugated("bij,bjk->bik", sides)
    result, calls, _ = compute(step, x := array("bij", dtype=complex), y := array("bjk", dtype=complex))
    assert calls > 1
    np.testing.assert_array_equal(result, conjugate_einsum("bij,bjk->bik", sides, x, y))


def test_a_long_vector_product_adds_up_its_parts(small_arguments):
    small_arguments.setattr(gemm, "INT_MAX", 4)
    way = route(pair("ij,j->i"), (("i", 2), ("j", 10)), (10, 1), (1,), True)
    assert [call.gemm.accumulate for call in blas_calls(way.product)][-1]
