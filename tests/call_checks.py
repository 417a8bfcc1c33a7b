"""What an einsum must do with a random call, judged by the oracle; AssertionErrors say what it does instead.

`check` asks everything of one `Case`; `assert_passes` runs a check on the calls of many seeds; `oracle_einsum` is an
einsum that passes by definition.
"""

from collections.abc import Callable, Iterable
from itertools import pairwise
from random import Random
from typing import Any, TypeVar
from unicodedata import east_asian_width

import numpy as np
from oracle import assert_agrees, reference
from random_expressions import Case
from random_gradients import Call as DifferentiableCall
from random_gradients import operands_of

Call = TypeVar("Call", Case, DifferentiableCall)


def assert_passes(check: Callable[[Call], None], seeds: Iterable[int], make: Callable[[Random], Call]) -> None:
    """AssertionError if `check` raises for what is made of some seed; with an example of each failure."""
    failures = []
    for seed in seeds:
        call = make(Random(seed))
        try:
            check(call)
        except Exception as error:
            failures.append((f"{type(error).__name__}: {error}", f"seed {seed}: {call.description}"))
    assert not failures, one_of_each(failures)


def one_of_each(failures: list[tuple[str, str]]) -> str:
    """The failures counted by what went wrong, with an example each."""
    kinds: dict[str, list[str]] = {}
    for error, call in failures:
        kinds.setdefault(error[:56], []).append(f"{call}\n    {error}")
    return "\n".join(f"{len(kind)} times: {min(kind, key=len)}" for kind in kinds.values())


def check(einsum: Callable[..., Any], case: Case, views: bool = True) -> None:
    """AssertionError unless einsum does with this call what the oracle says; `views`: where numpy has one, too."""
    if not case.valid:
        assert_rejected(einsum, case)
        return
    out = case.kwargs.get("out")
    expected = reference(*case.args, **case.kwargs)
    copies = [(arg, arg.copy()) for arg in case.args if isinstance(arg, np.ndarray)]
    surroundings = case.frame[0].copy() if case.frame else None
    try:
        result = einsum(*case.args, **case.kwargs)
    except Exception as error:
        raise AssertionError(f"raises {type(error).__name__}: {error}") from error
    assert_agrees(result, expected)
    for arg, copy in copies:
        if out is None or not np.may_share_memory(arg, out):
            assert np.array_equal(arg, copy), "an input was changed"
    if out is None:
        assert_layout(result, case)
        if views and expected.is_view and str(case.kwargs.get("order", "K")).upper() == "K":
            assert_is_view(result, operands_of(case.args)[0])
    else:
        assert result is out, "the result is not out"
    if case.frame:
        assert_only_the_window_changed(surroundings, *case.frame)


def assert_rejected(einsum: Callable[..., Any], case: Case) -> None:
    """einsum raises what numpy would, says why, and points at the place where the text is wrong."""
    try:
        result = einsum(*case.args, **case.kwargs)
    except case.errors as error:
        message = f"{error}"
    except Exception as error:
        raise AssertionError(f"raises {type(error).__name__}: {error}") from error
    else:
        raise AssertionError(f"accepted; returned {type(result).__name__}{np.shape(result)}")
    assert len(message) > 10, f"rejected with an empty message: {message!r}"
    assert not case.wants_caret or has_carets(message), f"no carets in {message!r}"


def has_carets(message: str) -> bool:
    """Below some line stands one of spaces and carets that ends at most one place after it."""
    lines = message.split("\n")
    return any(
        "^" in below and not below.strip(" ^") and len(below.rstrip()) <= columns(above) + 1
        for above, below in pairwise(lines)
    )


def columns(text: str) -> int:
    return sum(2 if east_asian_width(character) in ("W", "F") else 1 for character in text)


def assert_layout(result: Any, case: Case) -> None:
    """`order` C and F are promises; A is F if every operand is, and then one of them must be F only, to be sure.

    numpy does not keep them where it returns a view, and so is only asked where it does not.
    """
    order = str(case.kwargs.get("order", "K")).upper()
    arrays = [np.asarray(operand) for operand in operands_of(case.args)]
    if order == "A":
        if not all(array.flags.f_contiguous for array in arrays):
            order = "C"
        elif not all(array.flags.c_contiguous for array in arrays):
            order = "F"
    if order in "CF" and isinstance(result, np.ndarray):
        contiguous = result.flags.c_contiguous if order == "C" else result.flags.f_contiguous
        assert contiguous, f"not in {order} order: shape {result.shape}, strides {result.strides}"


def assert_is_view(result: Any, operand: Any) -> None:
    if isinstance(operand, np.ndarray) and operand.size and np.ndim(result):
        assert np.may_share_memory(result, operand), "no view of the operand"
        assert result.flags.writeable == operand.flags.writeable, "not writeable as the operand is"


def assert_only_the_window_changed(before: Any, base: np.ndarray, window: tuple[Any, ...]) -> None:
    before[window] = base[window]
    assert np.array_equal(before, base), "memory around out was changed"


def oracle_einsum(*args: Any, out: Any = None, order: str = "K", **kwargs: Any) -> Any:
    """An einsum that is right by definition, with errors in our style."""
    try:
        expected = reference(*args, out=out, order=order, **kwargs)
    except (ValueError, TypeError) as error:
        raise type(error)(f"{error} is an error here\n    {args[:1]}\n     ^") from error
    if out is not None:
        out[...] = expected.value
        return out
    arrays = [np.asarray(operand) for operand in operands_of(args)]
    fortran = order in "Ff" or (order in "Aa" and all(array.flags.f_contiguous for array in arrays))
    return expected.value.astype(expected.dtype, order="F" if fortran else "C")
