"""Second stage: the order of contraction, a path of positions as opt_einsum and numpy write it, from any optimizer."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import opt_einsum

from gpueinsum.errors import OptimizerError, PlanError
from gpueinsum.subscripts import Label, Term

Path = tuple[tuple[int, ...], ...]
Optimize = Any  # a name, a bool, a path, numpy's forms of these, or a callable such as opt_einsum's PathOptimizer


def find_path(
    inputs: Sequence[Term],
    output: Term,
    sizes: Mapping[Label, int],
    optimize: Optimize = "auto",
    memory_limit: int | str | None = None,
) -> Path:
    """The path for operands of these terms, whose labels are distinct within each.

    `memory_limit` is opt_einsum's: the largest intermediate in elements, None or -1 for no limit, or "max_input"; where
    pairs cannot keep to it, the path has a step over more operands.
    Raises PlanError for a path that does not contract everything, for a name that opt_einsum does not know, and where a
    search gives up, as "dp" does rather than exceed the limit.
    """
    optimize, memory_limit = _without_numpy_forms(optimize, memory_limit)
    if _is_path(optimize):
        return checked_path(optimize, len(inputs))
    if optimize is False:
        return (tuple(range(len(inputs))),)
    search = _search(optimize)
    limit = _memory_limit(memory_limit, (*inputs, output), sizes)
    if len(inputs) <= 2:
        return (tuple(range(len(inputs))),)
    counted = {label: max(size, 1) for label, size in sizes.items()}  # where nothing costs anything, "dp" gives up
    arguments: list[Any] = [[frozenset(term) for term in inputs], frozenset(output), counted]
    if limit is not None or isinstance(optimize, str):
        arguments.append(limit)  # functions registered under a name require one, cotengra's basic optimizers take none
    try:
        path = search(*arguments)
    except RuntimeError as error:  # "dp" keeps to its limit or gives up
        raise PlanError(f"optimize={optimize!r} finds no path: {error}") from error
    return checked_path(path, len(inputs))


def checked_path(path: Iterable[Iterable[int]], operands: int) -> Path:
    """The path as tuples of positions from the front, or PlanError saying which of its steps is wrong."""
    try:
        steps = [tuple(operator.index(position) for position in step) for step in path]
    except TypeError as error:
        raise PlanError(f"a path is a sequence of tuples of positions, not {path!r}") from error
    left = operands
    for number, written in enumerate(steps):
        step = steps[number] = tuple(position + left if position < 0 else position for position in written)
        if not step or len(set(step)) != len(step) or not all(0 <= position < left for position in step):
            raise PlanError(f"path step {number}, {written}, does not name distinct ones of the {left} operands left")
        left -= len(step) - 1
    if left != 1:
        raise PlanError(f"the path leaves {left} operands uncontracted: {steps}")
    return tuple(steps)


def _without_numpy_forms(optimize: Optimize, memory_limit: int | str | None) -> tuple[Optimize, int | str | None]:
    """numpy also writes ["einsum_path", (0, 1), ...] for a path and ("greedy", limit) for a limited search."""
    if optimize is True or optimize is None:
        return "auto", memory_limit
    if isinstance(optimize, tuple) and len(optimize) == 2 and isinstance(optimize[1], str):
        optimize = optimize[0]  # the whole of what np.einsum_path returns
    if isinstance(optimize, tuple | list) and optimize and isinstance(optimize[0], str):
        head, *rest = optimize
        if head == "einsum_path":
            return rest, memory_limit
        if len(rest) == 1 and isinstance(rest[0], int | float):
            return head, int(rest[0])
    return optimize, memory_limit


def _is_path(optimize: Optimize) -> bool:
    return isinstance(optimize, Iterable) and not isinstance(optimize, str) and not callable(optimize)


def _search(optimize: Optimize) -> Callable[..., Iterable[Iterable[int]]]:
    if callable(optimize):
        return optimize  # type: ignore[no-any-return]  # opt_einsum's protocol: (inputs, output, sizes, limit=None)
    try:
        return opt_einsum.paths.get_path_fn(optimize)  # type: ignore[no-any-return]  # opt_einsum has no types
    except (KeyError, AttributeError) as error:
        message = f"optimize={optimize!r} is no path, no optimizer and no name that opt_einsum knows"
        raise OptimizerError(f"{message}: {error.args[0]}" if isinstance(error, KeyError) else message) from error


def _memory_limit(limit: int | str | None, terms: Sequence[Term], sizes: Mapping[Label, int]) -> int | None:
    if limit == "max_input":
        return max(math.prod(sizes[label] for label in term) for term in terms)
    if limit is None or limit == -1:
        return None
    if isinstance(limit, str) or not limit >= 1:
        message = "is not a positive number of elements (bytes are for gradients), -1, None or 'max_input'"
        raise PlanError(f"memory_limit={limit!r} {message}")
    return int(limit)
