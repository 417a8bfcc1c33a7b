"""Pairs as cuBLAS runs them, without a device: each call by its definition, on numpy's memory."""

from dataclasses import replace

import numpy as np

from gpueinsum.costs.profile import profile
from gpueinsum.language.steps import Contract
from gpueinsum.schedule import gemm, mapping
from gpueinsum.schedule import select as candidates
from gpueinsum.schedule.gemm import Call, GemmArguments, blas_calls
from gpueinsum.schedule.predict import problem_of

RNG = np.random.default_rng(0)
SIZES = {"a": 2, "b": 3, "c": 5, "i": 7, "j": 4, "k": 6, "l": 2, "m": 3, "n": 5}
H200 = profile("h200")
LEFT, RIGHT, BOTH = (True, False), (False, True), (True, True)  # sides that are conjugated


def pair(equation, conjugated=(False, False)):
    terms, out = equation.split("->")
    lhs, rhs = terms.split(",")
    return Contract(0, 1, lhs, rhs, out, *conjugated)


def array(term, layout=None, dtype=float):
    """An array of this term whose memory is ordered as `layout`."""
    layout = layout or term
    real, imag = RNG.integers(-9, 9, (2, *(SIZES[x] for x in layout)))
    memory = (real + 1j * imag if dtype is complex else real).astype(dtype)
    return memory.transpose([layout.index(x) for x in term])


def cheapest_gemm(problem):
    """The products that a pair becomes: a copy must save a twentieth of the time."""
    return min(mapping.gemms(problem), key=lambda found: found[1] * mapping.MEMORY_MUST_SAVE ** copied(found[0]))[0]


def copied(way):
    """How many sides are."""
    return sum(term is not None for term in way.copies)


def gemm_of(step, x, y):
    """The products for sides that lie as these arrays do."""
    strides = [tuple(stride // side.itemsize for stride in side.strides) for side in (x, y)]
    dtype = "complex64" if step.conj_lhs or step.conj_rhs else "float32"
    return cheapest_gemm(problem_of(step, SIZES, dtype, H200, strides))


def column_major(memory, start, ld, stride, rows, columns, batch):
    """Element (b, row, column) of a cuBLAS matrix, gathered by its definition."""
    b, r, c = np.ogrid[:batch, :rows, :columns]
    return start + b * stride + c * ld + r


def run(call: gemm.Call, lhs, rhs, out):
    """One call by cuBLAS' definition on flat memory, its arguments checked."""
    g: GemmArguments = call.gemm
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
    """The pair as products; how many launches they took, and which they are."""
    way = gemm_of(step, x, y)
    x, y = (
        x if term is None else copy(x, own, term, mark)
        for x, own, term, mark in zip(
            (x, y), (step.lhs_term, step.rhs_term), way.copies, (step.conj_lhs, step.conj_rhs), strict=True
        )
    )
    out = np.full([SIZES[label] for label in way.out], np.nan, x.dtype)
    calls = list(blas_calls(way.product))
    for call in products_by_pointers(way.product, calls) if way.product.pointers else calls:
        run(call, x.ravel(order="K"), y.ravel(order="K"), out.reshape(-1))
    launches = len(calls) + way.product.pointers
    return out.transpose([way.out.index(label) for label in step.out]), launches, way


def copy(x, own, term, conjugate):
    x = np.ascontiguousarray(x.transpose([own.index(label) for label in term]))
    return x.conj() if conjugate else x


def products_by_pointers(product, calls):
    """The products of calls by pointers, one by one, in the order of the calls."""
    axes = product.numbered
    for call in calls:
        each = call.gemm
        assert call.lhs == call.rhs == call.out
        assert (each.stride_a, each.stride_b, each.stride_c) == (0, 0, 0)
        assert each.batch <= gemm.MAX_BATCH
        turn, start = divmod(call.lhs, product.slots)
        assert call.lhs % 2 == 0  # 16 bytes
        for number in range(turn * product.each + start, turn * product.each + start + each.batch):
            index = np.unravel_index(number, [axis.size for axis in axes])
            places = [sum(i * axis.strides[side] for i, axis in zip(index, axes, strict=True)) for side in range(3)]
            yield Call(replace(each, batch=1), call.swapped, *places)


def conjugate_einsum(equation, sides, x, y):
    return np.einsum(equation, x.conj() if sides[0] else x, y.conj() if sides[1] else y)


def make_pointers_free(monkeypatch):
    """Pointers that cost nothing, where copies cost much: small products take them, too."""
    monkeypatch.setattr(mapping, "MEMORY_MUST_SAVE", 1e-9)
    monkeypatch.setattr(mapping, "copy_seconds", lambda problem, strides, term: 1e30)
    monkeypatch.setattr(mapping, "_copies_seconds", lambda problem, copied: 1e30 * sum(copied))
    candidates._cheapest.cache_clear()
