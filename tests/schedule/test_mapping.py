"""Pairs as matrix products: what needs no copy, what is copied, and that cuBLAS' calls give what the einsum gives."""

import itertools
import math
from dataclasses import replace

import numpy as np
import pytest
from cublas_calls import (
    BOTH,
    H200,
    LEFT,
    RIGHT,
    RNG,
    SIZES,
    array,
    cheapest_gemm,
    compute,
    conjugate_einsum,
    copied,
    gemm_of,
    pair,
    run,
)

from gpueinsum.costs.profile import profile
from gpueinsum.schedule import gemm, mapping
from gpueinsum.schedule.gemm import blas_calls
from gpueinsum.schedule.mapping import gemms, ideal_seconds
from gpueinsum.schedule.predict import problem_of

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
    assert way.copies == (None, None)
    assert calls == 1
    np.testing.assert_array_equal(result, np.einsum(equation, x, y))


def test_only_the_side_that_does_not_fit_is_copied():
    step = pair("ijk,kjl->il")  # summed labels in two orders
    result, _, way = compute(step, x := array("ijk"), y := array("kjl"))
    assert (way.copies[0] is None) != (way.copies[1] is None)
    assert way.copies[1] is not None  # the smaller one
    np.testing.assert_array_equal(result, np.einsum("ijk,kjl->il", x, y))


def test_every_pair_in_every_layout_is_a_product():
    for equation in ("ijk,jlk->il", "aij,ajk->aik", "abi,bja->bij", "ijc,jlc->cil"):
        step = pair(equation)
        for lhs, rhs in itertools.product(itertools.permutations(step.lhs_term), itertools.permutations(step.rhs_term)):
            x, y = array(step.lhs_term, "".join(lhs)), array(step.rhs_term, "".join(rhs))
            np.testing.assert_array_equal(compute(step, x, y)[0], np.einsum(equation, x, y))


CONJUGATED = [
    *("ij,jk->ik", "ij,jk->ki", "bij,bjk->bik", "bij,bjk->ibk", "bij,bjk->kbi", "ijk,kl->ijl", "aij,jk->aik"),
    *("ij,j->i", "i,ij->j", "bij,bj->bi", "ijk,jlk->il", "ijc,jlc->cil", "abi,bja->bij"),
]


def layouts(step, dtype=complex):
    """The sides with the labels of each in every order in memory."""
    for lhs, rhs in itertools.product(itertools.permutations(step.lhs_term), itertools.permutations(step.rhs_term)):
        yield array(step.lhs_term, "".join(lhs), dtype), array(step.rhs_term, "".join(rhs), dtype)


@pytest.mark.parametrize("sides", [LEFT, RIGHT, BOTH])
@pytest.mark.parametrize("equation", CONJUGATED)
def test_conjugates_are_right_and_one_of_them_costs_no_copy(equation, sides):
    step, plain = pair(equation, sides), pair(equation)
    for x, y in layouts(step):
        result, _, way = compute(step, x, y)
        np.testing.assert_array_equal(result, conjugate_einsum(equation, sides, x, y))
        without = gemm_of(plain, x, y)
        if sides != BOTH and without.copies == (None, None):
            assert way.copies == (None, None)


@pytest.mark.parametrize("sides", [LEFT, RIGHT])
@pytest.mark.parametrize("equation", ["ij,jk->ik", "ij,jk->ki", "ij,j->i", "i,ij->j"])
def test_a_conjugated_matrix_in_any_order_is_never_copied(equation, sides):
    step = pair(equation, sides)
    for x, y in layouts(step):
        _, calls, way = compute(step, x, y)
        assert (way.copies[0], way.copies[1], calls) == (None, None, 1)


@pytest.mark.parametrize("sides", [LEFT, RIGHT, BOTH])
@pytest.mark.parametrize("equation", ["ij,jk->ik", "ij,jk->ki", "bij,bjk->bik", "abij,abjk->abik", "ijk,kl->ijl"])
def test_conjugates_of_c_ordered_arrays_ride_on_the_operation_of_cublas(equation, sides):
    step = pair(equation, sides)
    way = gemm_of(step, array(step.lhs_term), array(step.rhs_term))
    assert way.copies == (None, None)
    [call] = blas_calls(way.product)
    by_side = (call.gemm.conjugate_a, call.gemm.conjugate_b)[:: -1 if call.swapped else 1]
    assert by_side == sides


def test_a_copy_conjugates_so_that_the_product_does_not():
    step = pair("ijk,kjl->il", RIGHT)  # summed labels in two orders: the smaller side is copied
    way = gemm_of(step, x := array("ijk", dtype=complex), y := array("kjl", dtype=complex))
    assert way.copies[1] is not None
    assert way.product.conjugated == (False, False)
    np.testing.assert_array_equal(compute(step, x, y)[0], np.einsum("ijk,kjl->il", x, y.conj()))


@pytest.mark.parametrize(("layout", "term"), [("bjia", "bjia"), ("ijba", "bjia"), ("jbai", "baji"), ("aijb", "baji")])
def test_a_copy_leaves_what_is_innermost_there(layout, term, monkeypatch):
    monkeypatch.setitem(SIZES, "a", 32)  # a run of more than a line of memory
    step = pair("baij,bjik->bak")  # a row and what is summed, in the other side's order, may lie either way
    x, y = array("baij", layout), array("bjik")
    strides = [tuple(s // z.itemsize for s in z.strides) for z in (x, y)]
    ways = [way for way, _ in gemms(problem_of(step, SIZES, "float32", H200, strides), every=True)]
    [way] = [way for way in ways if way.name == "copy the left side"]
    assert way.copies[0] == term


@pytest.mark.parametrize("sides", [LEFT, RIGHT])
@pytest.mark.parametrize("single", "ijk")
def test_an_axis_of_one_element_counts_as_either(sides, single, monkeypatch):
    monkeypatch.setitem(SIZES, single, 1)
    step = pair("ij,jk->ik", sides)
    for x, y in layouts(step):
        result, _, way = compute(step, x, y)
        assert way.copies == (None, None)
        np.testing.assert_array_equal(result, conjugate_einsum("ij,jk->ik", sides, x, y))


def test_the_test_would_see_a_conjugate_without_a_transpose():
    step = pair("ij,jk->ik", LEFT)
    [call] = blas_calls(gemm_of(step, x := array("ij", dtype=complex), y := array("jk", dtype=complex)).product)
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
    way = cheapest_gemm(problem_of(step, SIZES, "float32", H200, [strides, (6, 1)]))
    assert way.copies[0] == "ij"
    assert way.copies[1] is None


def test_a_vector_of_any_stride_is_a_matrix_of_one_column():
    way = cheapest_gemm(problem_of(pair("ij,j->i"), SIZES, "float32", H200, [(4, 1), (3,)]))
    assert way.copies == (None, None)


# ---- Arrays of pointers


# Heads and samples of attention that do not fuse, and others.
BY_POINTERS = ["bqchd,bkhcd->bchqk", "bqhd,bkhd->bhqk", "bhqk,bkhd->bqhd", "abicj,abkcj->aibkc"]


def sized(equation, dtype="float32", device="h200", precision=None, aligned=True, **sizes):
    """A pair of sides in C order, whose result is written as it is asked for; labels of no size have 7."""
    size = {label: sizes.get(label, 7) for label in equation if label.isalpha()}
    return problem_of(
        pair(equation), size, dtype, profile(device), precision=precision, aligned=aligned, is_ordered=True
    )


def way_of(equation, *args, **options):
    return cheapest_gemm(sized(equation, *args, **options))


def test_a_batch_of_axes_that_do_not_fuse_is_two_launches():
    way = way_of("bqhd,bkhd->bhqk", b=8, h=16, q=32, k=32, d=64)
    assert (copied(way), way.product.pointers, way.product.calls) == (0, True, 1)
    [call] = blas_calls(way.product)
    assert (call.lhs, call.gemm.batch, way.product.number) == (0, 8 * 16, 8 * 16)
    assert math.prod(axis.size for axis in way.product.numbered) == way.product.number


def test_a_batch_of_one_stride_needs_no_pointers():
    assert not way_of("bij,bjk->bik").product.pointers
    assert not way_of("ibj,bjk->bik").product.pointers


def test_a_loop_of_two_turns_is_as_short_as_pointers_and_takes_no_memory():
    assert not way_of("bqhd,bkhd->bhqk", b=2, h=16).product.pointers
    assert way_of("bqhd,bkhd->bhqk", b=3, h=16).product.pointers


def test_the_host_is_ahead_of_few_long_turns_which_need_no_pointers():
    assert way_of("bqhd,bkhd->bhqk", b=16, h=16, q=2048, k=2048, d=64).product.pointers
    way = way_of("bqhd,bkhd->bhqk", b=3, h=16, q=2048, k=2048, d=64)
    assert (copied(way), way.product.pointers, way.product.calls) == (0, False, mapping.MOST_LAUNCHES)
    problem = sized("bqhd,bkhd->bhqk", b=3, h=16, q=2048, k=2048, d=64)
    ideal, by_pointers = ideal_seconds(problem), replace(way.product, pointers=True)
    assert mapping._products_seconds(problem, way.product) == pytest.approx(ideal)
    assert mapping._products_seconds(problem, by_pointers) == pytest.approx(ideal + H200.launch)


def test_short_turns_cost_a_launch_each():
    problem = sized("bqhd,bkhd->bhqk", b=16, h=16, q=8, k=8, d=8)
    way = cheapest_gemm(problem)
    assert way.product.pointers
    by_turns = replace(way.product, pointers=False)
    assert mapping._products_seconds(problem, by_turns) == pytest.approx(16 * H200.launch)


def test_a_loop_too_long_for_the_host_is_one_call_and_no_copy():
    way = way_of("bqhd,bkhd->bhqk", b=600, h=601, q=16, k=16, d=64)
    assert (copied(way), way.product.pointers) == (0, True)
    assert way.product.number == 600 * 601
    assert len(list(blas_calls(way.product))) == -(-600 * 601 // gemm.MAX_BATCH)
    assert copied(way_of("bqhd,bkhd->bhqk", "float16", b=600, h=601, q=16, k=16, d=63)) > 0


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


def test_the_cpu_takes_no_pointers():
    assert not way_of("bqhd,bkhd->bhqk", "float32", "cpu", **HEADS).product.pointers


def test_sums_are_turns_of_pointers_that_add_up():
    ways = gemms(sized("fbea,ecfd->cdba"), every=True)
    [found] = [way.product for way, _ in ways if not copied(way)]
    assert found.pointers
    assert found.calls == math.prod(axis.size for axis in found.sums) == 7
    calls = list(blas_calls(found))
    assert [call.gemm.accumulate for call in calls] == [False] + [True] * 6
    assert [call.lhs for call in calls] == [turn * found.slots for turn in range(7)]


@pytest.mark.parametrize("sides", [(False, False), LEFT, RIGHT])
@pytest.mark.parametrize("equation", BY_POINTERS)
def test_products_by_pointers_are_right(free_pointers, equation, sides):
    step = pair(equation, sides)
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
    monkeypatch.setattr(mapping, "MEMORY_MUST_SAVE", 1e-9)
    monkeypatch.setattr(mapping, "_copies_seconds", lambda problem, copied: 1e30 * sum(copied))
    return monkeypatch
