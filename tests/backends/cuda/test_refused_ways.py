"""A device that refuses some way to compute gets another one: the same results, one warning, and no second attempt."""

from dataclasses import replace

import numpy as np
import pytest
from cublas_calls import make_pointers_free
from expressions import EXPRESSIONS, arguments, random_operands
from oracle import assert_agrees, reference
from simulated import SimulatedRuntime
from simulated.cupy import stand_in

import gpueinsum as ge
from gpueinsum.backends.base import Mode
from gpueinsum.backends.cuda.backend import CudaBackend
from gpueinsum.errors import DeviceError
from gpueinsum.language.plan import Plan
from gpueinsum.language.steps import Contract
from gpueinsum.schedule import select as candidates

SIZES = {"b": 3, "q": 128, "h": 5, "k": 64, "d": 64, "i": 67, "j": 71}


def plan_of(equation, dtype, conjugates=False):
    terms, out = equation.split("->")
    lhs, rhs = terms.split(",")
    sizes = tuple((label, SIZES[label]) for label in dict.fromkeys(lhs + rhs))
    return Plan((lhs, rhs), (Contract(0, 1, lhs, rhs, out, conjugates, False),), (2,), sizes, dtype)


HEADS, MATRICES = "bqhd,bkhd->bhqk", "ij,kj->ik"


@pytest.mark.parametrize(
    ("way", "plan", "mode"),
    [
        ("pointers", plan_of(HEADS, "float32"), Mode()),
        ("kernel pointers", plan_of(HEADS, "float16"), Mode()),
        ("conjugate transposes", plan_of(HEADS, "complex64", True), Mode()),
        ("conjugate transposes", plan_of(MATRICES, "complex128", True), Mode()),
        ("precision tf32", plan_of(MATRICES, "float32"), Mode("tf32")),
        ("single products", plan_of(MATRICES, "float64"), Mode()),
        ("single products", plan_of(MATRICES, "float64"), Mode(graph=True)),
    ],
)
def test_a_refused_way_is_replaced_once(rng, way, plan, mode):
    device = SimulatedRuntime()
    device.refuses, backend = (way,), CudaBackend(device)
    hosts = [rng.integers(-2, 3, plan.shape(number)) for number in (0, 1)]
    [step] = plan.steps
    hosts = [(host * (1 + 2j) if step.conj_lhs else host).astype(plan.dtype) for host in hosts]
    expected = np.einsum(step.equation, hosts[0].conj(), hosts[1])
    arrays, run = [device.to_device(host) for host in hosts], backend.bind_single(plan, mode)
    with pytest.warns(RuntimeWarning, match=f"this device refuses {way}.*status 15") as warned:
        np.testing.assert_array_equal(run(*arrays), expected)
    assert len(warned) == 1
    for again in (run, run, backend.bind_single(plan, mode)):
        np.testing.assert_array_equal(again(*arrays), expected)
    assert [kind for kind, *_ in device.calls].count("refused") == 1
    assert len(backend.profile.lacks) == 1


@pytest.mark.parametrize(
    ("way", "dtype"),
    [
        ("pointers", "float32"),
        ("single products", "float32"),
        ("conjugate transposes", "complex64"),
        ("kernel reduce_columns", "float32"),
    ],
)
@pytest.mark.filterwarnings("ignore:this device refuses:RuntimeWarning")
def test_without_a_way_all_expressions_and_gradients_come_out_right(monkeypatch, way, dtype):
    make_pointers_free(monkeypatch)
    device, sound = SimulatedRuntime(), SimulatedRuntime()
    device.refuses = (way,)
    backend, other = CudaBackend(device), CudaBackend(sound)
    for subscripts, shapes in EXPRESSIONS.values():
        operands = random_operands(shapes, np.dtype(dtype))
        plan = ge.einsum_plan(*arguments(subscripts, operands))
        arrays = [device.to_device(operand) for operand in operands]
        [result] = backend.bind(plan)(*arrays)
        assert_agrees(result, reference(*arguments(subscripts, operands)))
        pullback, cotangent = plan.vjp(), np.ones(plan.shape(plan.outputs[0]), dtype)
        gradients = backend.bind(pullback)(*arrays, device.to_device(cotangent))
        expected = other.bind(pullback)(*[sound.to_device(array) for array in (*operands, cotangent)])
        for gradient, right in zip(gradients, expected, strict=True):
            np.testing.assert_allclose(gradient, right, rtol=1e-5, atol=1e-5)
    candidates._cheapest.cache_clear()
    assert [kind for kind, *_ in device.calls].count("refused") == 1


@pytest.mark.parametrize(
    ("kernel", "dtype", "equation", "shapes"),
    [
        ("reduce_rows", "float16", "ij->i", [(521, 23)]),
        ("reduce_columns", "float64", "ij->j", [(521, 24)]),
        ("contract", "int32", "ij,jk->ik", [(131, 149), (149, 137)]),
        ("contract", "bool", "ij,jk->ik", [(131, 149), (149, 137)]),
        ("contract_small", "float32", "ij,aj->ai", [(2, 2), (2**18, 2)]),
    ],
)
def test_a_kernel_that_does_not_run_is_replaced(rng, kernel, dtype, equation, shapes):
    device = SimulatedRuntime()
    device.refuses, backend = (f"kernel {kernel}",), CudaBackend(device)
    hosts = [rng.integers(-2, 3, shape).astype(dtype) for shape in shapes]
    arrays = [device.to_device(host) for host in hosts]
    run = backend.bind_single(ge.einsum_plan(equation, *hosts))
    with pytest.warns(RuntimeWarning, match=f"this device refuses kernel {kernel}, ") as warned:
        result = run(*arrays)
    assert len(warned) == 1
    expected = np.einsum(equation, *[host.astype(float if dtype != "bool" else bool) for host in hosts])
    np.testing.assert_array_equal(result, expected)


@pytest.mark.parametrize(("kernel", "shape"), [("transpose", (67, 71)), ("permute", (7, 5, 9, 11))])
def test_a_copy_in_the_order_asked_for_needs_no_tiles(rng, kernel, shape):
    device = SimulatedRuntime()
    device.refuses, backend = (f"kernel {kernel}",), CudaBackend(device)
    x = rng.random(shape)
    with pytest.warns(RuntimeWarning, match=f"refuses kernel {kernel}"):
        copy = backend.arrange(device.to_device(x).T, "C")
    np.testing.assert_array_equal(copy, x.T)
    assert copy.flags.c_contiguous


@pytest.mark.parametrize("status", [None, 209])
def test_a_kernel_that_cupy_cannot_compile_or_launch_is_replaced(monkeypatch, rng, status):
    with stand_in(monkeypatch) as cupy:
        call = cupy.RawKernel.__call__

        def fail(kernel, *arguments):
            if kernel.kernel.name == "transpose":
                error = type("CompileException" if status is None else "CUDADriverError", (Exception,), {})(
                    "nothing for it"
                )
                error.status = status
                raise error
            call(kernel, *arguments)

        monkeypatch.setattr(cupy.RawKernel, "__call__", fail)
        x = rng.random((67, 71))
        with pytest.warns(RuntimeWarning, match="refuses kernel transpose.*nothing for it"):
            copy = ge.einsum("ij->ji", cupy.asarray(x), order="C")
        np.testing.assert_array_equal(copy.get(), x.T)


def test_what_was_prepared_before_a_refusal_is_made_anew(rng):
    device = SimulatedRuntime()
    device.refuses, backend = ("single products",), CudaBackend(device)
    plans = [plan_of(MATRICES, "float64"), plan_of("ij,jk->ik", "float64")]
    hosts = [[rng.integers(-2, 3, plan.shape(number)).astype(float) for number in (0, 1)] for plan in plans]
    arrays = [[device.to_device(host) for host in pair] for pair in hosts]
    runs = [
        backend.bind_single(plan, Mode(), [array.strides for array in pair])
        for plan, pair in zip(plans, arrays, strict=True)
    ]
    with pytest.warns(RuntimeWarning, match="refuses single products") as warned:
        results = [run(*pair) for run, pair in zip(runs, arrays, strict=True)]
    assert len(warned) == 1
    for result, pair in zip(results, hosts, strict=True):
        np.testing.assert_array_equal(result, pair[0] @ (pair[1].T if result is results[0] else pair[1]))


def test_what_cannot_be_done_in_any_way_says_so(rng):
    device = SimulatedRuntime()
    device.refuses = ("multiply,",)
    x = device.to_device(rng.random(7))
    with pytest.raises(DeviceError, match=r"cannot compute multiply.*status 15"):
        CudaBackend(device).bind_single(ge.einsum_plan("i,j->ij", (7,), (7,)))(x, x)


def test_a_device_in_another_process_is_asked_again():
    """What is refused is no rate: it is not written with them."""
    backend = CudaBackend(SimulatedRuntime())
    profile = replace(backend.profile, lacks=("pointers of float16",))
    assert profile.from_json(profile.to_json()).lacks == ()
