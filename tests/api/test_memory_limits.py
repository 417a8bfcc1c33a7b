"""Limits of memory: never exceeded, of every function that has one, on both backends; and how limits are refused."""

from dataclasses import replace
from functools import partial
from itertools import product
from time import perf_counter

import numpy as np
import pytest
from call_checks import assert_passes, check
from gradient_checkers import check_jvp, check_vjp
from limit_checks import PARTS, large_call, run_within, taken
from long_runs import LONG, shorten
from oracle import assert_agrees, reference
from random_expressions import random_case
from random_gradients import operands_of, random_call
from simulated import SimulatedRuntime

import gpueinsum as ge
from gpueinsum.api import limits
from gpueinsum.backends.cpu import pool
from gpueinsum.backends.cuda.backend import CudaBackend
from gpueinsum.backends.footprint import run_bytes
from gpueinsum.backends.select import HOST
from gpueinsum.costs.profile import profile
from gpueinsum.planning.derivatives import vjp as derive

BATCHES, BATCH = 3, 670
H200 = profile("h200")


class Device:
    """A backend by name, and the most bytes that calls take of a simulated device."""

    def __init__(self, name, backend):
        self.name, self.backend = name, backend

    def run(self, call, limit):
        """What a call gives that is made within a limit; AssertionError if it takes more."""
        runtime = getattr(self.backend, "runtime", None)
        if runtime is None:
            return call(memory_limit=limit, backend=self.name)
        runtime.peak = before = runtime.used
        result = call(memory_limit=limit, backend=self.name)
        assert runtime.peak - before <= limit, f"{runtime.peak - before} bytes were taken, of {limit}"
        return result


@pytest.fixture(params=["cpu", "simulated"])
def device(request, monkeypatch):
    if request.param == "cpu":
        return Device("cpu", HOST)
    backend = CudaBackend(SimulatedRuntime(H200.processors))
    monkeypatch.setattr(ge.backends.select, "cuda_backend", lambda: backend)
    return Device("cuda", backend)


def constants_first(*args, memory_limit=None, backend=None, **options):
    """einsum as an expression whose first operand is a constant."""
    shapes = [*args[:2], *map(np.shape, args[2:])]
    return ge.contract_expression(*shapes, constants=[0], memory_limit=memory_limit, **options)(
        *args[2:], backend=backend
    )


def in_a_plan(*args, memory_limit=None, backend=None, **options):
    return ge.run_plan(ge.einsum_plan(*args, **options), *operands_of(args), memory_limit=memory_limit, backend=backend)


REFUSED = [
    ("ij,jk,kl->il", [(30, 20), (20, 40), (40, 30)]),
    ("abc,ade,bdf,cef->", [(6, 6, 6)] * 4),
    ("ab,ab->a", [(2_000, 3)] * 2),
    ("ab,cbe,ae->ac", [(100, 20), (10, 20, 20), (100, 20)]),
]

# ---------------------------------------------------------------- never exceeded


@pytest.mark.parametrize("batch", shorten(range(BATCHES)))
def test_random_calls_keep_to_their_limits(batch, device):
    every = 1 if LONG or device.name == "cpu" else 3
    assert_passes(partial(check_case, device), range(batch * BATCH, (batch + 1) * BATCH, every), random_case)


def check_case(device, case):
    if not case.valid or (case.cpu_only and device.name == "cuda"):
        return
    options = {key: value for key, value in case.kwargs.items() if key in ("dtype", "optimize")}
    whole = ge.einsum_plan(*case.args, **options).peak_bytes(device.backend.profile)
    out = case.kwargs.get("out")
    given = case.kwargs if out is None else case.kwargs | {"out": np.empty_like(out)}
    for part in PARTS:
        limit = run_within(lambda limit: device.run(partial(ge.einsum, *case.args, **given), limit), whole // part)
        check(lambda *args, limit=limit, **kwargs: device.run(partial(ge.einsum, *args, **kwargs), limit), case, False)


@pytest.mark.parametrize("function", [ge.contract, constants_first, in_a_plan], ids=lambda function: function.__name__)
def test_random_calls_of_other_functions_keep_to_their_limits(function, device):
    def check_there(case):
        is_text, is_on_cpu = bool(case.args) and isinstance(case.args[0], str), device.name == "cpu"
        if not (case.valid and is_text and case.kwargs.keys() <= {"dtype"}) or (case.cpu_only and not is_on_cpu):
            return
        expected = reference(*case.args, **case.kwargs)
        whole = ge.einsum_plan(*case.args, **case.kwargs).peak_bytes(device.backend.profile)
        for part in PARTS:
            found = []
            run_within(
                lambda limit, found=found: found.append(
                    device.run(partial(function, *case.args, **case.kwargs), limit)
                ),
                whole // part,
            )
            assert_agrees(found[0], expected)

    assert_passes(check_there, range(2_000 if LONG else 100), random_case)


@pytest.mark.parametrize("first", range(0, 2_000 if LONG else 10, 10))
def test_random_gradients_keep_to_their_limits(first, device):
    def check_there(call):
        if call.cpu_only and device.name == "cuda":
            return
        plan = ge.einsum_plan(*call.args, dtype=call.dtype)
        whole = derive(plan, tuple(call.positions)).peak_bytes(device.backend.profile)
        limit = whole // PARTS[whole % 3]
        call = replace(call, memory_limit=None)

        def vjp(limit, *args, **options):
            """The pullback takes from the same limit, with the value in memory."""
            value, pullback = device.run(partial(ge.vjp, *args, **options), limit)

            def pull(cotangent):
                try:
                    return device.run(lambda **_: pullback(cotangent), limit)
                except ge.LimitError:  # which says that one in C order would do
                    plain = np.array(cotangent, value.dtype, order="C")
                    return device.run(lambda **_: pullback(plain), limit)

            return value, pull

        def gradients(limit):
            for direction in call.directions:
                vjp(limit, *call.args, **call.of_vjp)[1](direction.cotangent)

        enough = run_within(gradients, limit)
        check_vjp(partial(vjp, enough), call)

        def tangents(limit):
            check_jvp(lambda *args, **options: device.run(partial(ge.jvp, *args, **options), limit), call)

        run_within(lambda limit: run_within(tangents, limit), limit)

    assert_passes(check_there, range(first, first + 10), random_call)


@pytest.mark.parametrize("device", ["simulated"], indirect=True)
def test_pullbacks_keep_to_their_limits_for_any_cotangents(device, rng):
    """Some need more than those in C order, for which passes are planned, and are refused where there is no room."""
    x, y = rng.standard_normal((8, 9, 6)), rng.standard_normal((6, 7, 5))
    shape = (8, 9, 7, 5)
    plain = {"spread": np.ones(shape), "ordered": rng.standard_normal(shape), "batch": rng.standard_normal((2, *shape))}
    given = {**plain, "spread": np.broadcast_to(1.0, shape), "ordered": np.asfortranarray(plain["ordered"])}

    def gradients(limit, name):
        """Those that are found, or what is said instead."""
        _, pullback = device.run(partial(ge.vjp, "abi,icd->abcd", x, y), limit)
        try:
            return device.run(lambda **_: pullback(given[name]), limit)
        except ge.LimitError as error:
            return str(error)

    refused = []
    for limit, name in product((27_000, 30_000, 40_000, 60_000), given):
        found = gradients(limit, name)
        if isinstance(found, str):
            instead = (
                "a smaller batch of cotangents" if name == "batch" else "a cotangent of the value's dtype in C order"
            )
            assert found.endswith(f"would do, and so would {instead}")
            refused.append((limit, name))
            continue
        for gradient, expected in zip(found, ge.vjp("abi,icd->abcd", x, y)[1](plain[name]), strict=True):
            np.testing.assert_allclose(gradient, expected)
    assert (27_000, "batch") in refused
    assert all(limit < 60_000 for limit, _ in refused)


@pytest.mark.parametrize("first", range(0, 2_000 if LONG else 40, 20))
def test_large_calls_take_no_more_of_the_host(first, monkeypatch):
    """Nor do their casts and copies, of operands in any layouts."""
    monkeypatch.setattr(pool._pool, "limit", 0)  # or what it holds would be left out

    assert_passes(check_large, range(first, first + 20), large_call)


def check_large(call):
    if call is None:
        return
    expected = np.asarray(ge.einsum(*call.args, **call.options))
    plan = ge.einsum_plan(*call.args, dtype=expected.dtype if expected.dtype.itemsize > 2 else "float32")
    whole = run_bytes(plan, "cpu", [operand.dtype for operand in call.operands])
    for part in PARTS:
        try:
            limit, _ = whole // part, ge.einsum(*call.args, **call.options, memory_limit=whole // part)
        except ge.LimitError as refused:
            limit = max(2 * refused.least, whole // 50)  # in few slices
        run = partial(ge.einsum, *call.args, **call.options, memory_limit=limit)
        run()  # what is made once
        result, most = taken(run)
        buffers = 6 * np.getbufsize() * max(16, expected.dtype.itemsize)  # numpy's, of each array of a loop
        assert most <= limit + buffers + (64 << 10), f"{most} bytes were taken, of {limit}"
        np.testing.assert_allclose(wide(result), wide(expected), rtol=0.02, atol=0.1)


def wide(array):
    return np.asarray(array).astype(complex)


def test_second_derivatives_keep_to_their_limits(device, rng):
    """Plans of derivatives are plans: of those in slices, too."""
    plan = ge.einsum_plan("ij,jk,kl->il", (5, 7), (7, 11), (11, 3))
    whole = plan.vjp().vjp()
    arrays = [np.asarray(rng.standard_normal(whole.shape(k)), order="F") for k in range(len(whole.inputs))]
    expected = ge.run_plan(whole, *arrays)
    for part in PARTS:
        found = {}

        def run(limit, found=found):
            found[0] = device.run(partial(ge.run_plan, whole, *arrays), limit)

        run_within(run, whole.peak_bytes(device.backend.profile) // part)
        for second, other in zip(found[0], expected, strict=True):
            np.testing.assert_allclose(second, other)


def test_limits_that_are_exceeded_are_seen(device, monkeypatch):
    """The checks fail where a run takes twice what is counted."""
    monkeypatch.setattr(limits, "run_bytes", lambda *args, **options: run_bytes(*args, **options) // 2)
    monkeypatch.setattr(pool._pool, "limit", 0)
    check_one, make = (check_large, large_call) if device.name == "cpu" else (partial(check_case, device), random_case)
    with pytest.raises(AssertionError, match="bytes were taken, of"):
        assert_passes(check_one, range(3_000, 3_020), make)


# ---------------------------------------------------------------- what is refused, and how


def test_a_limit_below_the_result_is_refused_soon():
    """Of 300 tensors, whose best slices are searched for long."""
    equation = (
        ",".join(f"{chr(0x4E00 + k)}{chr(0x4E01 + k)}" for k in range(300)) + f"->{chr(0x4E00)}{chr(0x4E00 + 300)}"
    )
    arrays = [np.ones((30, 30))] * 300
    ge.einsum_plan(equation, *arrays)
    start = perf_counter()
    with pytest.raises(ge.LimitError, match=r"a memory_limit of 7\.03 KiB is too small"):
        ge.einsum(equation, *arrays, memory_limit=30 * 30 * 8 - 1)
    assert perf_counter() - start < 2


@pytest.mark.parametrize(("equation", "shapes"), REFUSED)
def test_the_limit_that_is_named_is_about_the_least(equation, shapes, device):
    """No limit of 9/10 of it does."""
    arrays = [np.ones(shape) for shape in shapes]
    least = run_within(lambda limit: device.run(partial(ge.einsum, equation, *arrays), limit), 1)
    result = np.einsum(equation, *arrays, optimize=True)
    assert least <= max(3 * result.nbytes, 6_000)
    with pytest.raises(ge.LimitError):
        device.run(partial(ge.einsum, equation, *arrays), least * 9 // 10)


X, Y = np.ones((3, 5)), np.ones((5, 4))
PLAN = ge.einsum_plan("ij,jk->ik", (3, 5), (5, 4))
FUNCTIONS = {
    "einsum": partial(ge.einsum, "ij,jk->ik", X, Y),
    "contract": partial(ge.contract, "ij,jk->ik", X, Y),
    "contract_expression": lambda **options: ge.contract_expression("ij,jk->ik", (3, 5), (5, 4), **options)(X, Y),
    "einsum_plan": partial(ge.einsum_plan, "ij,jk->ik", X, Y),
    "run_plan": partial(ge.run_plan, PLAN, X, Y),
    "vjp": lambda **options: ge.vjp("ij,jk->ik", X, Y, **options)[1](np.ones((3, 4))),
    "jvp": partial(ge.jvp, "ij,jk->ik", (X, Y), (X, Y)),
    "Plan.vjp": partial(PLAN.vjp, device="cpu"),
    "Plan.jvp": partial(PLAN.jvp, device="cpu"),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_limit_means_the_same_everywhere(name):
    for limit in (None, 10_000, 1e4, np.int64(10_000), "10 kB", "1GiB", "50%", "auto"):
        FUNCTIONS[name](memory_limit=limit)
    for limit in (0, 0.5, "1 B", "0%"):
        with pytest.raises(ge.LimitError, match=r"is too small for .* would do"):
            FUNCTIONS[name](memory_limit=limit)
    for limit in (True, False, float("nan"), float("inf"), -2, "lots", [1], 1j, b"1GiB", "-1", "101 %%"):
        with pytest.raises(ge.PlanError, match="is no number of bytes"):
            FUNCTIONS[name](memory_limit=limit)
    for limit in (-1, "max_input"):
        with pytest.raises(ge.PlanError, match="opt_einsum's limit of elements is largest_intermediate= here"):
            FUNCTIONS[name](memory_limit=limit)


def test_limits_of_a_plan_for_no_device_are_bytes():
    with pytest.raises(ge.PlanError, match="is a share of a device, and a plan has none"):
        PLAN.vjp(memory_limit="50%")
