"""Memory on a real GPU: more elements than 32 bits count, what is taken from CuPy's pool, what is given back."""

import functools
import gc
from dataclasses import replace

import numpy as np
import pytest
from conftest import real_runtime
from gpu_arrays import matrices, settled_pool
from single_steps import bound

import gpueinsum as ge
from gpueinsum.backends.base import Mode
from gpueinsum.backends.cuda.backend import CudaBackend
from gpueinsum.backends.footprint import run_bytes
from gpueinsum.costs.counts import peak_bytes
from gpueinsum.language.steps import Add
from gpueinsum.schedule import select as candidates

pytestmark = pytest.mark.gpu


@pytest.fixture(autouse=True)
def cupy():
    real_runtime()
    import cupy

    return cupy


@pytest.fixture
def room(cupy):
    """Whether so many GiB are free; what was taken is the device's again before the next test."""
    pool = settled_pool(cupy)

    def needed(gib):
        pool.free_all_blocks()
        if cupy.cuda.Device().mem_info[0] < gib * 2**30:
            pytest.skip(f"it takes {gib} GiB of free memory")

    yield needed
    gc.collect()
    pool.free_all_blocks()


LARGE = pytest.mark.xdist_group("large memory")  # one after the other, by `--dist loadgroup`


@LARGE
def test_more_elements_than_32_bits_count_are_added(cupy, room):
    room(16)
    count = 2**31 + 3
    x, y = (cupy.zeros((count,), np.float16) for _ in "xy")
    x[-2:], y[-1:], y[:2] = 3, 4, 5
    result = bound(real_runtime(), Add((0, 1), "i"), {"i": count}, "float16")(x, y)
    np.testing.assert_array_equal(result[:3].get(), [5, 5, 0])
    np.testing.assert_array_equal(result[-3:].get(), [0, 3, 7])
    assert not cupy.any(result[2:-2])


@LARGE
@pytest.mark.parametrize("long", ["i", "j"])
def test_a_dimension_past_what_cublas_counts_is_split(cupy, room, monkeypatch, long):
    room(24)
    monkeypatch.setattr(candidates, "is_tiny", lambda *sizes: False)  # or a pass would do
    candidates._cheapest.cache_clear()
    size = {"i": 2, "j": 2, "k": 2} | {long: 2**31 + 3}
    x, y = (cupy.zeros([size[label] for label in term], np.float16) for term in ("ij", "jk"))
    x[-1, -1] = y[-1, -1] = 3  # far behind the first part
    x[0, 0] = y[0, 0] = 2
    result = ge.einsum("ij,jk->ik", x, y)
    np.testing.assert_array_equal(result[:: size["i"] - 1].get(), [[4, 0], [0, 9]])


@LARGE
def test_more_elements_than_32_bits_count_are_summed(cupy, room):
    room(6)
    x = cupy.ones((2**31 + 5,), np.int8)
    assert int(ge.einsum("i->", x)) == 5  # 2**31 + 5 wrapped to 8 bits
    y = x[:-1].reshape(4, -1)
    assert int(ge.einsum("ij,ij->", y, y)) == 4
    assert cupy.all(ge.einsum("ij->j", y) == 4)


def test_what_a_pullback_kept_goes_back_to_the_pool(cupy):
    pool = settled_pool(cupy)
    operands = [cupy.ones((1024, 1024), np.float32) for _ in range(4)]
    ge.vjp("ij,jk,kl,lm->im", *operands)[1](operands[0])  # handles and workspaces are made once
    before = pool.used_bytes()
    value, pullback = ge.vjp("ij,jk,kl,lm->im", *operands)
    assert pool.used_bytes() == before + 3 * value.nbytes  # the value and two intermediates
    gradients = pullback(value)
    assert pool.used_bytes() == before + 7 * value.nbytes
    del value, pullback, gradients
    assert pool.used_bytes() == before


def test_a_limit_holds_for_what_the_pool_hands_out(cupy):
    pool, path = settled_pool(cupy), [(0, 1), (0, 2), (0, 1)]
    equation, operands = "ia,ja,ka,la->ijkl", [cupy.ones((48, 64), np.float32) for _ in range(4)]
    value, pullback = ge.vjp(equation, *operands, optimize=path)
    pullback(value)
    limit = peak_bytes(pullback.plan) * 5 // 4  # which holds if run at once, not if what is kept stays
    del pullback
    peak = _PeakOfThePool(cupy, pool)
    with peak:
        _, pullback = ge.vjp(equation, *operands, optimize=path, memory_limit=limit)
        pullback(value)
    assert pullback.plan.sliced or pullback.plan.duplicates()
    assert peak.bytes <= limit + 2 * 2**20  # what kernels and cuBLAS take for themselves


class _PeakOfThePool:
    """The most that is in use at once, above what was, counted at every allocation."""

    def __init__(self, cupy, pool):
        self.pool, self.bytes = pool, 0
        peak = self

        class Hook(cupy.cuda.MemoryHook):
            name = "peak"

            def malloc_postprocess(self, **_):
                peak.bytes = max(peak.bytes, pool.used_bytes() - peak.before)

        self.hook = Hook()

    def __enter__(self):
        self.before = self.pool.used_bytes()
        self.hook.__enter__()
        return self

    def __exit__(self, *error):
        self.hook.__exit__(*error)


def test_a_run_takes_from_the_pool_what_its_program_says(cupy):
    arrays = matrices(cupy, 512, 640, 768, 896, 1024)
    plan = ge.einsum_plan("ij,jk,kl,lm->im", *arrays)
    backend = CudaBackend(real_runtime())
    run = backend.bind(plan)
    run(*arrays)  # handles and workspaces are made once
    program = backend.program(plan, [array.strides for array in arrays])
    peak = _PeakOfThePool(cupy, settled_pool(cupy))
    with peak:
        results = run(*arrays)
    assert program.bytes <= peak.bytes <= program.bytes + 512 * (1 + len(results))  # the pool's own rounding
    cupy.testing.assert_allclose(results[0], functools.reduce(cupy.matmul, arrays), rtol=1e-3, atol=1)


@pytest.mark.parametrize("stream", ["null", "own"])
def test_slices_stream_over_what_stays_on_the_host(cupy, stream):
    plan = ge.einsum_plan("ij,jk,kl->il", (256, 4096), (4096, 384), (384, 320), dtype="f4", optimize=[(0, 1), (0, 1)])
    plan = replace(plan, sliced=(("j", 256), ("i", 100)))  # some parts serve several slices, and some are shorter
    x, y, z = (array.get() for array in matrices(cupy, 256, 4096, 384, 320))
    operands = x, np.asfortranarray(y, np.float64), z
    backend = CudaBackend(real_runtime())
    run = backend.bind(plan, Mode(memory=0))
    with cupy.cuda.Stream(non_blocking=True) if stream == "own" else cupy.cuda.Stream.null as current:
        run(*operands)  # handles and workspaces are made once
        peak = _PeakOfThePool(cupy, settled_pool(cupy))
        with peak:
            first, second = (run(*operands)[0] for _ in range(2))
        current.synchronize()
    cupy.testing.assert_array_equal(first, second)
    expected = functools.reduce(np.matmul, operands)
    assert np.abs(first.get() - expected).max() < 1e-4 * np.abs(expected).max()
    foreseen = run_bytes(plan, backend.profile, [operand.dtype for operand in operands], frozenset({0, 1}))
    foreseen += z.nbytes + first.nbytes
    assert 0.95 * foreseen <= peak.bytes <= 1.05 * foreseen
