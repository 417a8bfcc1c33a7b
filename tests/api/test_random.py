"""Random calls, valid and not, against the oracle; and proofs that oracle and checker can be trusted."""

from collections import Counter
from collections.abc import Callable
from functools import partial
from random import Random
from typing import Any

import numpy as np
import pytest
from call_checks import assert_passes, assert_rejected, check, oracle_einsum
from long_runs import shorten
from oracle import reference
from random_expressions import Case, random_case
from random_gradients import operands_of

import gpueinsum as ge

BATCHES, BATCH = 40, 500
NOT_THE_ORACLES = ("the_path_does_not_fit", "the_optimizer_is_unknown", "a_keyword_is_unknown")


@pytest.mark.parametrize("batch", shorten(range(BATCHES)))
def test_random_calls_agree_with_the_oracle(
    einsum_on: Callable[..., Any], batch: int, request: pytest.FixtureRequest
) -> None:
    on_cpu = request.node.callspec.params["einsum_on"] == "cpu"

    def check_there(case: Case) -> None:
        if case.cpu_only and not on_cpu:
            assert_rejected(einsum_on, case)
        else:
            check(einsum_on, case, views=on_cpu)

    assert_passes(check_there, range(batch * BATCH, (batch + 1) * BATCH), random_case)


def by_expression(constants: tuple[int, ...], *args: Any, out: Any = None, **kwargs: Any) -> Any:
    """einsum as contract_expression(...)(...), the operands at `constants` given first and the others later."""
    start, step = (1, 1) if isinstance(args[0], str) else (0, 2)
    places = list(range(start, len(args) // step * step, step))
    constant_places = {places[constant] for constant in constants if constant < len(places)}
    shapes = [
        np.shape(arg) if place in places and place not in constant_places else arg for place, arg in enumerate(args)
    ]
    if not kwargs.get("optimize", True):
        del kwargs["optimize"]  # an expression is always optimized
    fixed = [constant for constant in constants if constant < len(places)]
    expression = ge.contract_expression(*shapes, constants=fixed, **kwargs)
    return expression(*(args[place] for place in places if place not in constant_places), out=out)


DOORS: dict[str, Callable[..., Any]] = {
    "contract": ge.contract,
    "contract_expression": partial(by_expression, ()),
    "contract_expression with constants": partial(by_expression, (0, 2, 3)),
}


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize("batch", shorten(range(BATCHES, BATCHES + 6)))
def test_random_calls_through_opt_einsums_doors(batch: int, door: str) -> None:
    """The same arguments given to contract, and in two parts to contract_expression, some of them constant."""

    def check_there(case: Case) -> None:
        is_name = not isinstance(case.kwargs.get("optimize"), tuple)  # numpy's ("greedy", limit) is none
        if case.valid and is_name:
            check(DOORS[door], case, views=False)

    assert_passes(check_there, range(batch * BATCH, (batch + 1) * BATCH), random_case)


# --- the oracle is right: numpy passes the same checks wherever it accepts the call


def test_the_oracle_agrees_with_numpy() -> None:
    counts: Counter[str] = Counter()
    for seed in range(6_000):
        case = random_case(Random(seed))
        # dtype and order, where it returns a view
        numpy_ignores = {"dtype", "order"} & set(case.kwargs) and len(operands_of(case.args)) == 1
        if numpy_ignores or case.description.startswith(NOT_THE_ORACLES) or case.cpu_only:
            continue
        kwargs = {key: value for key, value in case.kwargs.items() if key != "optimize"}
        plain = Case(case.args, kwargs, case.valid, case.description, errors=case.errors, frame=case.frame)
        if not case.valid:
            with pytest.raises(case.errors):
                reference(*case.args, **kwargs)
            with pytest.raises((ValueError, TypeError, SystemError)):  # the last of a unicode label in an error
                np.einsum(*case.args, **kwargs)
            counts["rejected"] += 1
        elif beyond_numpy(case):
            counts["beyond numpy"] += 1
        else:
            check(np.einsum, plain)
            counts["compared"] += 1
    assert counts["compared"] > 1_500, counts
    assert counts["rejected"] > 700, counts


def beyond_numpy(case: Case) -> bool:
    """What we accept and numpy does not."""
    arrays = [np.asarray(operand) for operand in operands_of(case.args)]
    dtypes = [*(array.dtype for array in arrays), np.dtype(case.kwargs.get("dtype", "float64"))]
    if "bfloat16" in dtypes:
        return True
    if "dtype" in case.kwargs and "out" in case.kwargs:  # numpy would cast out to dtype, too, to add to it
        out, casting = case.kwargs["out"], case.kwargs.get("casting", "safe")
        if not np.can_cast(out.dtype, case.kwargs["dtype"], casting):
            return True
    if not isinstance(case.args[0], str):
        labels = [label for sublist in case.args[1::2] for label in sublist]
        return not all(x is Ellipsis or (isinstance(x, int | np.integer) and 0 <= x < 52) for x in labels) or (
            output_is_beyond(list(case.args[1::2]), list(case.args[-1]) if len(case.args) % 2 else None)
        )
    text = case.args[0]
    if not text.isascii() or "\t" in text or "\n" in text:
        return True
    inputs, *output = text.replace(" ", "").replace("...", ".").split("->")
    return output_is_beyond(inputs.split(","), list(output[0]) if output else None)


def output_is_beyond(terms: list[Any], output: list[Any] | None) -> bool:
    """Repeated output labels, and an ellipsis that is summed away."""
    if output is None:
        return False
    hidden = [label for term in terms for label in term if label is Ellipsis or label == "."]
    return len(set(output)) < len(output) or bool(hidden and hidden[0] not in output)


def test_the_generator_reaches_every_oddity() -> None:
    cases = [random_case(Random(seed)) for seed in range(2_000)]
    text = "\n".join(case.description for case in cases if case.valid)
    for oddity in ("float16", "bfloat16", "uint64", "complex64", "bool", "object", np.dtype("longdouble").name):
        assert oddity in text, oddity
    for oddity in ("again", "reversed", "permuted", "strided", "stride 0", "read-only", "list", "scalar", "F"):
        assert f"] {oddity}" in text, oddity
    for oddity in ("out aliasing", "out window", "dtype=", "casting=", "order=", "optimize=[", "Ellipsis", "..."):
        assert oddity in text, oddity
    kinds = Counter(case.description.split(":")[0] for case in cases if not case.valid)
    assert len(kinds) >= 30, kinds
    assert 0.12 < sum(kinds.values()) / len(cases) < 0.18


# --- the checker can fail: each planted fault is caught


def off_by_one(*args: Any, **kwargs: Any) -> Any:
    result = oracle_einsum(*args, **kwargs)
    if result.size:
        result.reshape(-1)[-1:] += np.ones((), result.dtype)
    return result


def too_wide(*args: Any, **kwargs: Any) -> Any:
    return oracle_einsum(*args, **kwargs).astype("complex128")


def transposed(*args: Any, **kwargs: Any) -> Any:
    return oracle_einsum(*args, **kwargs).T


def in_the_other_order(*args: Any, **kwargs: Any) -> Any:
    result = oracle_einsum(*args, **kwargs)
    return result if kwargs.get("out") is not None else result.T.copy().T


def beside_out(*args: Any, **kwargs: Any) -> Any:
    result = oracle_einsum(*args, **kwargs)
    if kwargs.get("out") is not None and result.base is not None and result.base.size:
        result.base[..., *(-1,) * result.base.ndim] = 7
    return result


def into_an_input(*args: Any, **kwargs: Any) -> Any:
    result = oracle_einsum(*args, **kwargs)
    for arg in args:
        if isinstance(arg, np.ndarray) and arg.flags.writeable and arg.size and arg.dtype == "float64":
            arg[...] = 3.75
    return result


def not_out(*args: Any, out: Any = None, **kwargs: Any) -> Any:
    return oracle_einsum(*args, out=out, **kwargs) if out is None else oracle_einsum(*args, out=out, **kwargs).copy()


def never_raises(*args: Any, **kwargs: Any) -> Any:
    try:
        return oracle_einsum(*args, **kwargs)
    except (ValueError, TypeError):
        return np.zeros(())


def raises_otherwise(*args: Any, **kwargs: Any) -> Any:
    try:
        return oracle_einsum(*args, **kwargs)
    except (ValueError, TypeError) as error:
        raise IndexError(str(error)) from error


def says_nothing(*args: Any, **kwargs: Any) -> Any:
    try:
        return oracle_einsum(*args, **kwargs)
    except (ValueError, TypeError) as error:
        raise type(error)() from error


def points_nowhere(*args: Any, **kwargs: Any) -> Any:
    try:
        return oracle_einsum(*args, **kwargs)
    except (ValueError, TypeError) as error:
        raise type(error)(str(error).replace("^", " ")) from error


def rejects_repeats(*args: Any, **kwargs: Any) -> Any:
    if isinstance(args[0], str) and len(set(args[0])) < len(args[0]):
        raise ValueError("a label stands twice")
    return oracle_einsum(*args, **kwargs)


def caught(einsum: Callable[..., Any]) -> int:
    number = 0
    for seed in range(400):
        case = random_case(Random(seed))
        if not case.description.startswith(NOT_THE_ORACLES):
            try:
                check(einsum, case, views=False)
            except AssertionError:
                number += 1
    return number


def test_a_right_einsum_passes_the_checker() -> None:
    assert caught(oracle_einsum) == 0


@pytest.mark.parametrize(
    "fault",
    [
        off_by_one, too_wide, transposed, in_the_other_order, beside_out, into_an_input, not_out, never_raises,
        raises_otherwise, says_nothing, points_nowhere, rejects_repeats,
    ],
)  # fmt: skip
def test_the_checker_catches_a_planted_fault(fault: Callable[..., Any]) -> None:
    assert caught(fault) > 0
