"""Second stage: the order of contraction, a path of positions as opt_einsum and numpy write it, from any optimizer."""

from __future__ import annotations

import itertools
import math
import operator
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import opt_einsum

from gpueinsum.errors import OptimizerError, PlanError
from gpueinsum.language.subscripts import Label, Term

Path = tuple[tuple[int, ...], ...]
Optimize = Any  # a name, a bool, a path, numpy's forms of these, or a callable such as opt_einsum's PathOptimizer


class SlicedPath(NamedTuple):
    """A way to optimize: a path, and where sliced labels are, as positions of operands and of axes."""

    path: Path
    places: tuple[tuple[int, int], ...]

    def labels(self, inputs: Sequence[Term]) -> tuple[Label, ...]:
        """The sliced labels by the names that operands of these terms have for them. Raises PlanError."""
        try:
            return tuple(dict.fromkeys(inputs[operand][axis] for operand, axis in self.places))
        except IndexError as error:
            raise PlanError(f"the sliced labels are those of other operands than {','.join(inputs)}") from error


def find_path(
    inputs: Sequence[Term],
    output: Term,
    sizes: Mapping[Label, int],
    optimize: Optimize = "auto",
    largest: int | str | None = None,
) -> Path:
    """`find_order`, where there can be no slices. Raises PlanError for them, too."""
    path, sliced = find_order(inputs, output, sizes, optimize, largest)
    if sliced:
        raise PlanError(_NO_SLICES)
    return path


_NO_SLICES = "the contraction tree has sliced labels, and a path has none: take the path of tree.unslice_all()"


def find_order(
    inputs: Sequence[Term],
    output: Term,
    sizes: Mapping[Label, int],
    optimize: Optimize = "auto",
    largest: int | str | None = None,
) -> tuple[Path, tuple[Label, ...]]:
    """The path for operands of these terms, whose labels are distinct within each, and the labels to slice.

    `largest` is opt_einsum's limit: the largest intermediate in elements, None or -1 for no limit, or "max_input";
    where pairs cannot keep to it, the path has a step over more operands.
    Raises PlanError for a path that does not contract everything, for a name that opt_einsum does not know, and where a
    search gives up, as "dp" does rather than exceed the limit.
    """
    if len(inputs) <= 2 and optimize == "auto" and largest is None:
        return (tuple(range(len(inputs))),), ()  # as most calls are
    optimize, largest = _without_numpy_forms(read_tree(optimize), largest)
    if isinstance(optimize, SlicedPath):
        raise PlanError(_NO_SLICES)
    if isinstance(optimize, Iterable) and not isinstance(optimize, str) and not callable(optimize):
        return check_path(optimize, len(inputs)), ()
    if optimize is False:
        return (tuple(range(len(inputs))),), ()
    search = _search(optimize)
    limit = _elements(largest, (*inputs, output), sizes)
    if len(inputs) <= 2:
        return (tuple(range(len(inputs))),), ()
    arguments: list[Any] = [[frozenset(term) for term in inputs], frozenset(output), searched_sizes(sizes)]
    if limit is not None and hasattr(optimize, "search"):
        raise PlanError(
            f"{type(optimize).__name__} takes no largest_intermediate: give a limit to the optimizer, if it knows one"
        )
    if limit is not None or isinstance(optimize, str):
        arguments.append(limit)  # functions registered under a name require one, cotengra's basic optimizers take none
    try:
        found: Any = search(*arguments)
    except RuntimeError as error:  # "dp" keeps to its limit or gives up
        raise PlanError(f"optimize={optimize!r} finds no path: {error}") from error
    path = read_tree(found)
    if isinstance(path, SlicedPath):
        return check_path(path.path, len(inputs)), tuple(found.sliced_inds)
    return check_path(path, len(inputs)), ()


def all_paths(operands: int) -> Iterator[Path]:
    """Every path of pairs: operands! (operands - 1)! / 2^(operands - 1) of them.

    >>> list(all_paths(3))
    [((0, 1), (0, 1)), ((0, 2), (0, 1)), ((1, 2), (0, 1))]
    """
    if operands < 2:
        yield ()
    for pair in itertools.combinations(range(operands), 2):
        yield from ((pair, *rest) for rest in all_paths(operands - 1))


def searched_sizes(sizes: Mapping[Label, int]) -> dict[Label, int]:
    """The sizes for a search: where nothing costs anything, "dp" gives up."""
    return {label: max(size, 1) for label, size in sizes.items()}


def check_path(path: Iterable[Iterable[int]], operands: int) -> Path:
    """The path as tuples of positions from the front, or PlanError saying which of its steps is wrong."""
    try:
        steps = [tuple(map(operator.index, step)) for step in path]
    except TypeError as error:
        raise PlanError(f"a path is a sequence of tuples of positions, not {path!r}") from error
    left = operands
    for number, written in enumerate(steps):
        step = written
        if min(written, default=0) < 0:
            step = steps[number] = tuple(position + left if position < 0 else position for position in written)
        if not step or len(set(step)) != len(step) or min(step) < 0 or max(step) >= left:
            raise PlanError(f"path step {number}, {written}, does not name distinct ones of the {left} operands left")
        left -= len(step) - 1
    if left != 1:
        raise PlanError(f"the path leaves {left} operands uncontracted: {steps}")
    return tuple(steps)


def read_tree(optimize: Optimize) -> Optimize:
    """The path of a `ContractionTree` of cotengra's, known by its attribute of sliced labels; anything else as it is.

    Raises PlanError for a tree that is not complete, or has a label whose other values are left out.
    """
    sliced = getattr(optimize, "sliced_inds", None)
    if sliced is None:
        return optimize
    if not optimize.is_complete():
        raise PlanError(f"{optimize!r:.60} is not complete: some of its operands are not contracted")
    for label, how in sliced.items():
        if how.project is not None:
            raise PlanError(f"the contraction tree takes {label!r} at {how.project} alone: index the operands instead")
    path = tuple(optimize.get_path())
    terms = [(operand, axis, each) for operand, term in enumerate(optimize.inputs) for axis, each in enumerate(term)]
    places = [(operand, axis) for label in sliced for operand, axis, each in terms if each == label]
    return SlicedPath(path, tuple(places)) if sliced else path


def _without_numpy_forms(optimize: Optimize, largest: int | str | None) -> tuple[Optimize, int | str | None]:
    """numpy also writes ["einsum_path", (0, 1), ...] for a path and ("greedy", limit) for a limited search."""
    if optimize is True or optimize is None:
        return "auto", largest
    if isinstance(optimize, tuple) and len(optimize) == 2 and isinstance(optimize[1], str):
        optimize = optimize[0]  # the whole of what np.einsum_path returns
    if isinstance(optimize, tuple | list) and optimize and isinstance(optimize[0], str):
        head, *rest = optimize
        if head == "einsum_path":
            return rest, largest
        if len(rest) == 1 and isinstance(rest[0], int | float):
            return head, int(rest[0])
    return optimize, largest


def _search(optimize: Optimize) -> Callable[..., Iterable[Iterable[int]]]:
    if hasattr(optimize, "search"):  # cotengra's: for its tree, since a path would not tell of slices
        return optimize.search  # type: ignore[no-any-return]
    if callable(optimize):
        return optimize  # type: ignore[no-any-return]  # opt_einsum's protocol: (inputs, output, sizes, limit=None)
    try:
        return opt_einsum.paths.get_path_fn(optimize)  # type: ignore[no-any-return]  # opt_einsum has no types
    except (KeyError, AttributeError) as error:
        message = f"optimize={optimize!r} is no path, no optimizer and no name that opt_einsum knows"
        raise OptimizerError(f"{message}: {error.args[0]}" if isinstance(error, KeyError) else message) from error


def _elements(limit: int | str | None, terms: Sequence[Term], sizes: Mapping[Label, int]) -> int | None:
    if limit == "max_input":
        return max(math.prod(sizes[label] for label in term) for term in terms)
    if limit is None or limit == -1:
        return None
    if isinstance(limit, str) or not limit >= 1:
        message = "is not a positive number of elements, -1, None or 'max_input'"
        raise PlanError(f"largest_intermediate={limit!r} {message}")
    return int(limit)
