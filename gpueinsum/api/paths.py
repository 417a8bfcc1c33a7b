"""Paths as opt_einsum's and numpy's functions give them: `contract_path` and `einsum_path`."""

from __future__ import annotations

import string
from collections.abc import Sequence
from typing import Any

import numpy as np
import opt_einsum
from opt_einsum.contract import PathInfo

from gpueinsum.api.arguments import array_shape, hashable_form, read_shape
from gpueinsum.api.plans import resolve
from gpueinsum.errors import PlanError
from gpueinsum.language.steps import distinct
from gpueinsum.language.subscripts import Label, Shape, Subscripts, Term
from gpueinsum.planning.path import Optimize, Path, SlicedPath, find_order, find_path, read_tree


def contract_path(
    subscripts: Any,
    *operands: Any,
    use_blas: bool = True,
    optimize: Optimize = True,
    memory_limit: None = None,
    shapes: bool = False,
    largest_intermediate: int | str | None = None,
) -> tuple[list[tuple[int, ...]], PathInfo]:
    """opt_einsum's `contract_path`: the path, and opt_einsum's `PathInfo` about it.

    With `shapes` the operands are shapes rather than arrays. opt_einsum's `memory_limit` is `largest_intermediate`, as
    in `contract`. Raises PlanError for a `memory_limit`, since a path has no slices that could keep to it.

    >>> path, info = contract_path("ij,jk,kl->il", (2, 3), (3, 5), (5, 2), shapes=True)
    >>> path, int(info.opt_cost)
    ([(1, 2), (0, 1)], 84)
    """
    if memory_limit is not None:
        raise PlanError(f"memory_limit={memory_limit!r:.60}: {_NO_LIMIT}")
    core = _core(subscripts, operands, shapes)
    path = list(_path_of(core, optimize, largest_intermediate))
    equation, given = _equation_and_shapes(core)
    info: tuple[Any, PathInfo] = opt_einsum.contract_path(
        equation, *given, use_blas=use_blas, optimize=path, shapes=True
    )
    return info


_NO_LIMIT = (
    "a path has no slices, which keep a plan to a number of bytes: ask einsum_plan for a plan; the most elements of an "
    "intermediate, opt_einsum's memory_limit, are largest_intermediate="
)


def einsum_path(subscripts: Any = "", *operands: Any, optimize: Optimize = "greedy") -> tuple[list[Any], str]:
    """numpy's `einsum_path`: `["einsum_path", (0, 1), ...]` and a printable account of it.

    What numpy's own optimizers accept is planned by them, so that the path is numpy's; the rest by opt_einsum.

    >>> einsum_path("ij,jk,kl->il", np.ones((2, 3)), np.ones((3, 5)), np.ones((5, 2)))[0]
    ['einsum_path', (1, 2), (0, 1)]
    """
    core = _core(subscripts, operands)
    equation, shapes = _equation_and_shapes(core)
    labels = dict.fromkeys("".join(core.inputs))
    name = optimize[0] if isinstance(optimize, tuple | list) and optimize else optimize
    is_numpys = not isinstance(name, str) or name in ("greedy", "optimal", "einsum_path")
    is_numpys = is_numpys and not callable(optimize) and read_tree(optimize) is optimize
    if len(labels) > len(string.ascii_letters) or not is_numpys:
        path, info = contract_path(subscripts, *operands, optimize=optimize)
        return ["einsum_path", *path], str(info)
    if not equation.isascii():
        equation = equation.translate({ord(x): y for x, y in zip(labels, string.ascii_letters, strict=False)})
    return np.einsum_path(equation, *(np.broadcast_to(0.0, shape) for shape in shapes), optimize=optimize)


def _core(subscripts: Any, operands: Sequence[Any], shapes: bool = False) -> Subscripts:
    """A resolved expression, from operands or from their shapes."""
    expression, operands = hashable_form(subscripts, operands)
    return resolve(expression, tuple(map(read_shape if shapes else array_shape, operands)))


def _path_of(core: Subscripts, optimize: Optimize, largest: int | str | None) -> Path:
    return find_path(*_without_repeats(core), dict(core.sizes), optimize, largest)


def order_of(core: Subscripts, optimize: Optimize, largest: int | str | None) -> Path | SlicedPath:
    """The path, and where its sliced labels are if it has any, as a way to optimize."""
    optimize, sliced = read_tree(optimize), tuple[Label, ...]()
    if isinstance(optimize, SlicedPath):
        optimize, sliced = optimize.path, optimize.labels(core.inputs)
    path, found = find_order(*_without_repeats(core), dict(core.sizes), optimize, largest)
    sliced += found
    places = [(k, term.index(label)) for label in sliced for k, term in enumerate(core.inputs) if label in term]
    return SlicedPath(path, tuple(places)) if sliced else path


def _without_repeats(core: Subscripts) -> tuple[tuple[Term, ...], Term]:
    return tuple(distinct(term) for term in core.inputs), distinct(core.output)


def _equation_and_shapes(core: Subscripts) -> tuple[str, list[Shape]]:
    """The expression as opt_einsum and numpy take it, whose outputs repeat no label."""
    size = dict(core.sizes)
    shapes = [tuple(size[label] for label in term) for term in core.inputs]
    return f"{','.join(core.inputs)}->{distinct(core.output)}", shapes
