"""Gradients of random calls against their definition, second ones too; and proofs that generator and oracle agree."""

from collections import Counter
from collections.abc import Sequence
from functools import partial
from random import Random
from typing import Any

import numpy as np
import pytest
from call_checks import assert_passes
from conftest import REAL
from gradient_checkers import check_jvp, check_second, check_vjp, use
from long_runs import shorten
from oracle import TOLERANCES, label_sizes, name_the_ellipsis, parse, reference
from random_gradients import Call, arguments_of, multilinear, operands_of, random_call, random_plain_call, wide

import gpueinsum as ge

BATCHES, BATCH = 20, 250


@pytest.mark.parametrize("batch", shorten(range(BATCHES)))
def test_random_gradients_are_the_adjoint_of_the_derivative(batch: int) -> None:
    seeds = range(batch * BATCH, (batch + 1) * BATCH)
    assert_passes(lambda call: check_vjp(ge.vjp, call), seeds, random_call)


@pytest.mark.parametrize("batch", shorten(range(BATCHES)))
def test_random_tangents_are_sums_of_the_expression(batch: int) -> None:
    seeds = range(batch * BATCH, (batch + 1) * BATCH)
    assert_passes(lambda call: check_jvp(ge.jvp, call), seeds, random_call)


@pytest.mark.parametrize("batch", shorten(range(2)))
def test_random_derivatives_of_plans(batch: int) -> None:
    """`vjp` and `jvp` of what einsum_plan makes of the same call."""
    seeds = range(batch * BATCH, (batch + 1) * BATCH)
    assert_passes(lambda call: check_vjp(vjp_of_plan, call), seeds, random_call)
    assert_passes(lambda call: check_jvp(jvp_of_plan, call), seeds, random_call)


@pytest.mark.parametrize("batch", shorten(range(5)))
def test_random_second_derivatives(batch: int) -> None:
    """The derivatives of the gradients, as a function of operands and cotangent."""
    assert_passes(
        lambda call: check_second(ge.Plan.vjp, call), range(batch * 100, (batch + 1) * 100), random_plain_call
    )


@pytest.mark.parametrize("device", ["simulated", REAL])
@pytest.mark.parametrize("batch", shorten(range(6)))
def test_random_gradients_on_a_device(device: str, batch: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """On numpy arrays that go there and back, value, gradients and tangents."""
    use(device, monkeypatch)

    def check(call: Call) -> None:
        if not call.cpu_only:
            check_vjp(partial(ge.vjp, backend="cuda"), call)
            check_jvp(partial(ge.jvp, backend="cuda"), call)

    assert_passes(check, range(batch * 50, (batch + 1) * 50), random_call)


def vjp_of_plan(
    *args: Any, dtype: Any = None, casting: str = "safe", optimize: Any = "auto", **options: Any
) -> tuple[Any, Any]:
    plan = ge.einsum_plan(*args, dtype=dtype, optimize=optimize)
    return ge.vjp(plan, *operands_of(args), **options)


def jvp_of_plan(
    subscripts: Any,
    operands: Sequence[Any],
    tangents: Sequence[Any],
    *,
    dtype: Any = None,
    casting: str = "safe",
    optimize: Any = "auto",
    **options: Any,
) -> tuple[Any, Any]:
    plan = ge.einsum_plan(*arguments_of(subscripts, operands), dtype=dtype, optimize=optimize)
    return ge.jvp(plan, operands, tangents, **options)


# --- the generator, and the oracle


def test_the_index_points_agree_with_the_oracle() -> None:
    for seed in range(500):
        call = random_call(Random(seed))
        found = multilinear(call.args)([wide(operand) for operand in call.operands])
        expected = reference(*call.args, dtype="complex128", casting="unsafe")
        assert np.array_equal(found.value, expected.value)
        assert np.allclose(found.magnitude * TOLERANCES[np.dtype("complex128")], expected.error, rtol=1e-12, atol=0)


def test_the_generator_of_calls_reaches_every_oddity() -> None:
    calls = [random_call(Random(seed)) for seed in range(2_000)]
    text = "\n".join(call.description for call in calls)
    for oddity in ("again", "reversed", "permuted", "strided", "stride 0", "read-only", "list", "scalar", "F"):
        assert f"] {oddity}" in text, oddity
        assert f"cotangent float64 {oddity}" in text or oddity in ("again", "scalar"), oddity
    for oddity in ("float16[", "bfloat16[", "float32[", "complex64[", "longdouble", "int8[", "bool[", "uint64["):
        assert oddity.replace("longdouble", f"{np.dtype('longdouble')}[") in text, oddity
    for oddity in ("wrt=None", "wrt=0,", "wrt=[", "wrt=(", "memory_limit=1GiB", "dtype=", "order="):
        assert oddity in text, oddity
    for oddity in ("optimize=[", "casting=", "Ellipsis", "...", "frozenset", "😀", "α"):
        assert oddity in text, oddity
    number = Counter(kind for call in calls for kind in kinds(call))
    assert min(number[f"{operands} operands"] for operands in range(1, 7)) > 20, number
    for kind in ("repeats in an input", "repeats in the output", "a size of 0", "mixed", "a position twice over",
                 "an integer operand", "broadcast", "many labels", "a label of one operand alone"):  # fmt: skip
        assert number[kind] > 10, (kind, number)


def kinds(call: Call) -> list[str]:
    """What is odd about a call."""
    terms, output, operands = parse(call.args)
    shapes = [operand.shape for operand in operands]
    terms, output = name_the_ellipsis(terms, output, [len(shape) for shape in shapes])
    sizes = label_sizes(terms, shapes)
    pairs = [
        (label, size)
        for term, shape in zip(terms, shapes, strict=True)
        for label, size in zip(term, shape, strict=True)
    ]
    given = [operand for operand in call.operands if isinstance(operand, np.ndarray)]
    dtypes = {operand.dtype.kind for operand in operands}
    oddities = {
        "repeats in an input": any(len(set(term)) < len(term) for term in terms),
        "repeats in the output": len(set(output)) < len(output),
        "a size of 0": 0 in sizes.values(),
        "broadcast": any(size == 1 < sizes[label] for label, size in pairs),
        "mixed": {"f", "c"} <= dtypes,
        "an integer operand": bool(dtypes & {*"biu"}),
        "a position twice over": len({id(operand) for operand in given}) < len(given),
        "many labels": len(sizes) > 52,
        "a label of one operand alone": 1
        in Counter(label for term in (*terms, output) for label in set(term)).values(),
    }
    return [f"{len(operands)} operands", *(name for name, is_so in oddities.items() if is_so)]
