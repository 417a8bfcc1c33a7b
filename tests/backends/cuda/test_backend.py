"""The CUDA backend end to end: which route each expression takes, and that its result is right."""

import itertools

import numpy as np
import pytest
from simulated import SimulatedRuntime
from single_steps import bound, plan_of

import gpueinsum as ge
import gpueinsum.backends.select
from gpueinsum.backends.cpu.backend import CpuBackend
from gpueinsum.backends.cuda import backend as cuda_backend
from gpueinsum.backends.cuda.backend import CudaBackend
from gpueinsum.backends.cuda.source import KERNELS
from gpueinsum.language.steps import Add, Contract, Expand, Reduce
from gpueinsum.schedule import gemm

ROUTES = [  # expression, shapes, what is launched for float32, and for int32
    ("ij,jk->ik", [(2, 3), (3, 5)], ["gemm"], ["reduce_columns"]),
    ("ji,kj->ki", [(3, 2), (5, 3)], ["gemm"], ["reduce"]),
    ("bij,bjk->bik", [(7, 2, 3), (7, 3, 5)], ["gemm"], ["reduce_columns"]),
    ("bqhd,bkhd->bhqk", [(2, 3, 5, 7), (2, 11, 5, 7)], ["gemm"] * 2, ["reduce_rows"]),
    ("bqhd,bkhd->bhqk", [(3, 2, 5, 7), (3, 11, 5, 7)], ["pointers", "pointer gemm"], ["reduce_rows"]),
    ("ij,j->i", [(2, 3), (3,)], ["reduce"], ["reduce"]),
    ("xyij,ij->xy", [(5, 7, 2, 3), (2, 3)], ["reduce"], ["reduce"]),
    ("bc,bc->b", [(2, 3), (2, 3)], ["reduce"], ["reduce"]),
    ("i,i->", [(3,), (3,)], ["reduce"], ["reduce"]),
    ("i,j->ij", [(2,), (3,)], ["multiply"], ["multiply"]),
    ("ij,ij->ij", [(2, 3), (2, 3)], ["multiply"], ["multiply"]),
    ("ii->", [(3, 3)], ["reduce"], ["reduce"]),
    ("iij->j", [(3, 3, 5)], ["reduce_columns"], ["reduce_columns"]),
    ("i->ii", [(3,)], ["expand"], ["expand"]),
    ("ij->ji", [(2, 3)], [], []),
    ("ii->i", [(3, 3)], [], []),
    ("ijk,kjl->il", [(2, 3, 5), (5, 3, 7)], ["multiply", "gemm"], ["reduce_columns"]),
    ("ij,jk->ik", [(2, 0), (0, 5)], ["reduce", "multiply"], ["reduce", "multiply"]),
    ("ij,jk->ik", [(0, 3), (3, 5)], [], []),
]


@pytest.fixture
def device(monkeypatch):
    """A simulated device that `backend="cuda"` finds; arrays stay where and as they are."""
    runtime = SimulatedRuntime()
    backend = CudaBackend(runtime)
    monkeypatch.setattr(gpueinsum.backends.select, "cuda_backend", lambda: backend)
    return runtime


def launched(runtime):
    return [call[0].name if kind == "launch" else kind for kind, *call in runtime.calls]


@pytest.mark.parametrize(("expression", "shapes", "floats", "integers"), ROUTES)
def test_each_pair_takes_its_route(device, rng, expression, shapes, floats, integers):
    for dtype, route in ((np.float32, floats), (np.int32, integers)):
        operands = [rng.integers(-9, 9, shape).astype(dtype) for shape in shapes]
        device.calls.clear()
        result = ge.einsum(expression, *operands, backend="cuda")
        assert launched(device) == route
        if expression != "i->ii":
            np.testing.assert_array_equal(result, np.einsum(expression, *operands))


@pytest.mark.parametrize(
    ("expression", "shapes"),
    [
        ("bij,bjk->bik", [(8192, 4, 4), (8192, 4, 4)]),
        ("bij,bjk->bik", [(8192, 5, 3), (8192, 3, 7)]),
        ("ij,ajb->aib", [(2, 2), (64, 2, 4096)]),  # a gate on a qubit
        ("ij,aj->ai", [(2, 2), (2**18, 2)]),  # on the last
        ("ijkl,akblc->aibjc", [(2, 2, 2, 2), (16, 2, 64, 2, 128)]),
    ],
)
@pytest.mark.parametrize("dtype", ["float32", "float64", "complex64", "complex128"])
def test_many_tiny_products_are_one_by_tiles(device, rng, expression, shapes, dtype):
    operands = [rng.integers(-3, 4, shape).astype(dtype) for shape in shapes]
    if dtype.startswith("complex"):
        operands = [operand * np.array(1 - 2j, dtype) for operand in operands]
    result = ge.einsum(expression, *operands, backend="cuda")
    assert launched(device) == ["contract_small"]
    np.testing.assert_array_equal(result, np.einsum(expression, *operands))


@pytest.mark.parametrize("precision", [None, "highest", "tf32"])
def test_precision_reaches_the_product(device, precision, monkeypatch):
    seen = []
    monkeypatch.setattr(device, "gemm", lambda *call: seen.append(call[-1]))
    ge.einsum("ij,jk->ik", np.ones((2, 3), "f4"), np.ones((3, 5), "f4"), backend="cuda", precision=precision)
    assert seen == [precision]


def test_overlapping_patches_are_never_copied(device, rng):
    image, kernel = rng.random((13, 11)), rng.random((3, 3))
    patches = np.lib.stride_tricks.sliding_window_view(image, (3, 3))
    result = ge.einsum("xyij,ij->xy", patches, kernel, backend="cuda")
    assert launched(device) == ["reduce_columns"]
    np.testing.assert_allclose(result, np.einsum("xyij,ij->xy", patches, kernel))


def test_a_long_sum_is_cut_into_parts_that_are_added_up(device):
    x = np.ones(200_003, np.float16)
    result = ge.einsum("i->", x / 4, backend="cuda")
    assert launched(device) == ["reduce", "reduce"]
    assert result == np.float16(200_003 / 4)


def test_large_batches_are_split(device, rng, monkeypatch):
    monkeypatch.setattr(gemm, "MAX_BATCH", 3)
    a, b = rng.random((7, 2, 3)), rng.random((7, 3, 5))
    np.testing.assert_allclose(ge.einsum("bij,bjk->bik", a, b, backend="cuda"), a @ b)
    assert launched(device) == ["gemm"] * 3


@pytest.mark.parametrize("dtype", [np.longdouble, object])
def test_dtypes_that_cuda_lacks_are_refused(device, dtype):
    with pytest.raises(ge.DtypeError, match="cannot be computed with on CUDA"):
        ge.einsum("i->", np.ones(3, dtype), backend="cuda")


def test_strides_that_are_no_multiple_of_the_element_are_refused(device, monkeypatch):
    monkeypatch.setattr(device, "to_device", lambda array: array)
    monkeypatch.setattr(cuda_backend, "on_device", lambda array: True)  # and lies there already
    odd = np.zeros(3, [("pad", "i1"), ("x", "f4")])["x"]
    with pytest.raises(ge.OperandError, match="float32 elements lie at addresses that are no multiples of 4"):
        ge.einsum("i->", odd, backend="cuda")


def test_the_same_device_gives_the_same_bits(device, rng):
    x = rng.random((3, 70_001)).astype(np.float32)
    results = {ge.einsum("ij->i", x, backend="cuda").tobytes() for _ in range(3)}
    device.last_thread_first = True  # threads take turns in another order
    results.add(ge.einsum("ij->i", x, backend="cuda").tobytes())
    assert len(results) == 1


HOPPER = [  # results whose batches interleave in memory, and sides that every member of a batch shares
    ("ibj,jbk->kbi", "k=64 b=3 i=128 j=64"),
    ("ibj,jbk->kbi", "k=37 b=3 i=67 j=29"),
    ("bij,jk->ibk", "b=5 i=64 j=128 k=64"),
    ("ij,bjk->bki", "b=5 i=61 j=31 k=17"),
    ("bij,bjk->bik", "b=64513 i=2 j=3 k=2"),  # one more than a call takes
    ("bqhd,bkhd->bhqk", "b=5 q=67 h=7 k=61 d=31"),  # pointers to odd elements
    ("bqhd,bkhd->bhqk", "b=8 q=64 h=16 k=32 d=64"),
]


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64", "complex64", "complex128"])
@pytest.mark.parametrize(("expression", "sizes"), HOPPER)
def test_products_that_choose_other_kernels_of_cublas_are_exact(einsum_on, rng, expression, sizes, dtype):
    size = {label: int(number) for label, number in (item.split("=") for item in sizes.split())}
    shapes = [[size[label] for label in term] for term in expression.split("->")[0].split(",")]
    exact = [rng.integers(-2, 3, shape).astype(float) for shape in shapes]
    result = einsum_on(expression, *(x.astype(ge.api.arguments.dtype_of(dtype)) for x in exact))
    np.testing.assert_array_equal(result.astype(complex), np.einsum(expression, *exact, optimize=True))


# ---- Single steps: conjugates, sums of arrays, views

SIZES = {"b": 3, "i": 5, "j": 7, "k": 2, "l": 11}
DTYPES = [kernel.source for kernel in KERNELS if kernel.name == "expand"]
FEW = ["bool", "int8", "uint64", "float16", "bfloat16", "float32", "complex64", "complex128"]
CONJUGATED = [  # equation, what is launched for either side's conjugate
    ("ij,jk->ik", ["gemm"]),
    ("ij,kj->ik", ["gemm"]),
    ("ji,jk->ki", ["gemm"]),
    ("bij,bjk->bik", ["gemm"]),
    ("ibj,jbk->kbi", ["gemm"]),
    ("ijk,kl->ijl", ["gemm"]),
    ("ij,j->i", ["reduce"]),
    ("ijk,kjl->il", ["multiply", "gemm"]),
    ("i,i->", ["reduce"]),
    ("bi,bi->b", ["reduce"]),
    ("i,j->ji", ["multiply"]),
    ("ij,ij->ij", ["multiply"]),
    (",i->i", ["multiply"]),
]


def numbers(rng, shape, dtype):
    """Small whole numbers, so that their sums are exact, and Gaussian ones."""
    real, imag = rng.integers(-3, 4, (2, *shape))
    dtype = ge.api.arguments.dtype_of(dtype)
    return (real + 1j * imag if dtype.kind == "c" else real).astype(dtype)


def step_on(runtime, step, *arrays, sizes=SIZES):
    """One step of host arrays; its result on the host."""
    on_device = [runtime.to_device(array) for array in arrays]
    return runtime.to_host(bound(runtime, step, sizes, arrays[0].dtype.name)(*on_device))


def conjugated_pair(equation, conj_lhs, conj_rhs):
    terms, out = equation.split("->")
    return Contract(0, 1, *terms.split(","), out, conj_lhs, conj_rhs)


def pair_of_numbers(rng, step, dtype):
    return [numbers(rng, [SIZES[label] for label in term], dtype) for term in (step.lhs_term, step.rhs_term)]


def numpy_pair(step, x, y):
    """numpy's own einsum, of numbers that float64 holds."""
    wide = complex if x.dtype.kind == "c" else bool if x.dtype == bool else float if x.dtype.kind == "f" else x.dtype
    wide = float if x.dtype.name == "bfloat16" else wide
    u, v = (array.astype(wide) for array in (x, y))
    if x.dtype.kind == "c":
        u, v = u.conj() if step.conj_lhs else u, v.conj() if step.conj_rhs else v
    return np.asarray(np.einsum(step.equation, u, v)).astype(x.dtype)


@pytest.mark.parametrize("dtype", FEW)
@pytest.mark.parametrize("sides", [(True, False), (False, True), (True, True)], ids=["lhs", "rhs", "both"])
@pytest.mark.parametrize("equation", [equation for equation, _ in CONJUGATED])
def test_pairs_are_conjugated_and_real_ones_are_not(runtime, rng, equation, sides, dtype):
    step = conjugated_pair(equation, *sides)
    x, y = pair_of_numbers(rng, step, dtype)
    np.testing.assert_array_equal(step_on(runtime, step, x, y), numpy_pair(step, x, y))


@pytest.mark.parametrize("dtype", ["complex64", "complex128"])
@pytest.mark.parametrize("sides", [(True, False), (False, True)], ids=["lhs", "rhs"])
@pytest.mark.parametrize(("equation", "route"), CONJUGATED)
def test_a_conjugate_launches_nothing_more(rng, equation, route, sides, dtype):
    runtime = SimulatedRuntime()
    step = conjugated_pair(equation, *sides)
    step_on(runtime, step, *pair_of_numbers(rng, step, dtype))
    assert launched(runtime) == route
    runtime.calls.clear()
    plain = conjugated_pair(equation, False, False)
    step_on(runtime, plain, *pair_of_numbers(rng, step, dtype))
    assert launched(runtime) == route


@pytest.mark.parametrize("dtype", ["complex64", "complex128"])
@pytest.mark.parametrize("sides", [(True, False), (False, True), (True, True)], ids=["lhs", "rhs", "both"])
@pytest.mark.parametrize("equation", ["ij,jk->ik", "bij,bjk->bik", "bij,bjk->kbi"])
def test_conjugated_products_of_any_layout_are_right(runtime, rng, equation, sides, dtype):
    step = conjugated_pair(equation, *sides)
    x, y = pair_of_numbers(rng, step, dtype)
    expected = numpy_pair(step, x, y)
    for u, v in itertools.product(laid_out(x), laid_out(y)):
        np.testing.assert_array_equal(step_on(runtime, step, u, v), expected)


def laid_out(x):
    """The same array with its axes in every order in memory."""
    for axes in itertools.permutations(range(x.ndim)):
        yield np.ascontiguousarray(x.transpose(axes)).transpose(np.argsort(axes))


def test_long_conjugated_sums_are_cut_into_parts(rng):
    runtime = SimulatedRuntime()
    x, y = (numbers(rng, (40_009,), "complex128") for _ in "xy")
    result = step_on(runtime, conjugated_pair("i,i->", True, False), x, y, sizes={"i": 40_009})
    assert launched(runtime) == ["reduce", "reduce"]  # the second must not conjugate again
    assert result == np.vdot(x, y)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("count", [1, 2, 3, 5, 9])
def test_arrays_of_any_strides_are_added(runtime, rng, dtype, count):
    shape = [SIZES[label] for label in "bij"]
    arrays = [numbers(rng, shape, dtype) for _ in range(count)]
    odd = [[*laid_out(array)][number % 6] for number, array in enumerate(arrays)]
    odd[-1] = odd[-1][::-1, :, ::-1]
    total = odd[0]
    for array in odd[1:]:
        total = (total + array).astype(array.dtype)
    np.testing.assert_array_equal(step_on(runtime, Add(tuple(range(count)), "bij"), *odd), total)


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_sum_of_no_arrays_is_zeros(runtime, dtype):
    kind = ge.api.arguments.dtype_of(dtype)
    for term, shape in (("bij", (3, 5, 7)), ("", ())):
        result = runtime.to_host(bound(runtime, Add((), term), SIZES, dtype)())
        assert (result.shape, result.dtype) == (shape, kind)
        assert not result.astype(complex).any()
    assert bound(runtime, Add((), "x"), {"x": 0}, dtype)().shape == (0,)


def test_sums_of_arrays_without_elements_launch_nothing():
    runtime = SimulatedRuntime()
    for count in (1, 2):
        empty = [np.empty((3, 0))] * count
        assert step_on(runtime, Add(tuple(range(count)), "ix"), *empty, sizes={"i": 3, "x": 0}).shape == (3, 0)
    assert not runtime.calls


def test_four_arrays_are_added_in_one_launch_and_neighbours_are_read_together(rng):
    runtime = SimulatedRuntime()
    arrays = [runtime.to_device(rng.random((5, 7)).T) for _ in range(4)]
    total = bound(runtime, Add((0, 1, 2, 3), "ji"), SIZES, "float64")(*arrays)
    assert launched(runtime) == ["add"]
    np.testing.assert_allclose(total, sum(arrays))
    assert total.strides == arrays[0].strides


def test_a_sum_has_memory_of_its_own_and_leaves_its_sources(runtime, rng):
    x = rng.random((5, 7))
    on_device = runtime.to_device(x)
    for count in (1, 2, 3):
        total = bound(runtime, Add((0,) * count, "ij"), SIZES, "float64")(on_device)
        assert runtime.pointer(total) != runtime.pointer(on_device)
        np.testing.assert_allclose(runtime.to_host(total), count * x)
    np.testing.assert_array_equal(runtime.to_host(on_device), x)


def test_what_is_added_may_repeat_a_label(rng):
    x, y = rng.random((5, 5)), rng.random((5, 5)).T
    for count in range(4):
        step, arrays = Add(tuple(range(count)), "ii"), [x, y, x][:count]
        there = map(SimulatedRuntime().to_device, arrays)
        total = bound(SimulatedRuntime(), step, {"i": 5}, "float64")(*there)
        np.testing.assert_array_equal(total, CpuBackend().bind_single(plan_of(step, {"i": 5}, "float64"))(*arrays))
        np.testing.assert_allclose(total, sum(arrays, np.zeros((5, 5))))


@pytest.mark.parametrize(
    ("step", "shape"),
    [
        (Expand(0, "ij", "jui"), (7, 1, 5)),
        (Expand(0, "ij", "ji"), (7, 5)),
        (Expand(0, "", "u"), (1,)),
        (Reduce(0, "uij", "ji"), (7, 5)),
        (Reduce(0, "iij", "ji"), (7, 5)),
    ],
    ids=str,
)
def test_what_changes_only_strides_is_a_view(rng, step, shape):
    runtime, sizes = SimulatedRuntime(), {**SIZES, "u": 1}
    x = runtime.to_device(rng.random([sizes[label] for label in step.term]))
    result = bound(runtime, step, sizes, "float64")(x)
    assert (result.shape, launched(runtime)) == (shape, [])
    assert np.shares_memory(result, x)
    np.testing.assert_array_equal(result, CpuBackend().bind_single(plan_of(step, sizes, "float64"))(x))


def test_an_expansion_that_repeats_a_label_of_size_one_is_no_view(rng):
    runtime = SimulatedRuntime()
    result = step_on(runtime, Expand(0, "u", "uu"), x := rng.random(1), sizes={"u": 1})
    assert launched(runtime) == ["expand"]
    np.testing.assert_array_equal(result, x[None])


def test_the_backend_knows_the_devices_memory(runtime):
    assert CudaBackend(runtime).memory_bytes() == runtime.memory() >= 1 << 30
