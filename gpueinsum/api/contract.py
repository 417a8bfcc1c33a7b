"""opt_einsum's and numpy's other doors: `contract`, reusable expressions and paths, arguments and returns theirs."""

from __future__ import annotations

import string
from collections.abc import Callable, Collection, Hashable, Mapping, Sequence
from functools import lru_cache, partial
from typing import Any

import numpy as np
import opt_einsum
from opt_einsum.contract import PathInfo

from gpueinsum.api.arguments import (
    Array,
    Dtype,
    Expression,
    Options,
    Signature,
    array_shape,
    call_dtypes,
    check_out,
    hashable_form,
    options_of,
    shape_listed,
)
from gpueinsum.api.dispatch import (
    Call,
    casts,
    check_dimensions,
    check_out_shape,
    conclude,
    evaluate,
    is_plain,
    numpy_kinds,
    plan_for,
    ready,
    resolve,
    signature,
)
from gpueinsum.backends.base import Backend
from gpueinsum.backends.select import HOST, as_array, choose
from gpueinsum.language.rewrite import fold_constants
from gpueinsum.language.steps import distinct
from gpueinsum.language.subscripts import Shape, Subscripts
from gpueinsum.planning.path import Optimize, Path, find_path
from gpueinsum.planning.search import MANY_RUNS

_BACKENDS: dict[str | None, str | None] = {
    **dict.fromkeys(("auto", "gpueinsum", None), None),
    **dict.fromkeys(("numpy", "object", "cpu"), "cpu"),
    **dict.fromkeys(("cupy", "cuda"), "cuda"),
}
_KEPT = 8  # constant parts that an expression keeps, of the devices, streams, shapes and dtypes it was called with last
_SIZES = 128  # calls that an expression without constants keeps, of the shapes and dtypes it was called with last
_NUMPY_OPTIMIZERS = {"greedy", "optimal"}


def contract(
    subscripts: Any = "",
    *operands: Any,
    out: Array | None = None,
    use_blas: bool = True,
    optimize: Optimize = True,
    memory_limit: int | str | None = None,
    backend: str | None = "auto",
    dtype: Any = None,
    order: str | None = "K",
    casting: Any = "safe",
    precision: str | None = None,
    deterministic: bool = False,
    autotune: bool = False,
) -> Array:
    """opt_einsum's `contract`: `einsum` with its argument names.

    `memory_limit` bounds, in elements, the intermediates that the search for a path may propose; where opt_einsum then
    contracts several operands in one step, that step is run in pairs, which may take more. `backend` is "auto",
    "numpy", "cupy" or one of ours; `use_blas` is accepted and ignored, since a pair that is a matrix product is always
    run as one. The rest is as in `einsum`.

    >>> contract("ij,jk,kl->il", np.ones((2, 3)), np.ones((3, 5)), np.ones((5, 2)))
    array([[15., 15.],
           [15., 15.]])
    """
    expression, arrays = hashable_form(subscripts, operands)
    options = options_of(
        dtype=dtype,
        order=order,
        casting=casting,
        optimize=optimize,
        memory_limit=memory_limit,
        backend=_backend(backend),
        precision=precision,
        deterministic=deterministic,
        autotune=autotune,
    )
    return evaluate(expression, arrays, out, options)


def contract_path(
    subscripts: Any,
    *operands: Any,
    use_blas: bool = True,
    optimize: Optimize = True,
    memory_limit: int | str | None = None,
    shapes: bool = False,
) -> tuple[list[tuple[int, ...]], PathInfo]:
    """opt_einsum's `contract_path`: the path, and opt_einsum's `PathInfo` about it.

    With `shapes` the operands are shapes rather than arrays.

    >>> path, info = contract_path("ij,jk,kl->il", (2, 3), (3, 5), (5, 2), shapes=True)
    >>> path, int(info.opt_cost)
    ([(1, 2), (0, 1)], 84)
    """
    core = _core(subscripts, operands, shapes)
    path = list(_path(core, optimize, memory_limit))
    return opt_einsum.contract_path(  # type: ignore[no-any-return]  # opt_einsum has no types
        _equation(core), *_shapes(core), use_blas=use_blas, optimize=path, shapes=True
    )


def einsum_path(subscripts: Any = "", *operands: Any, optimize: Optimize = "greedy") -> tuple[list[Any], str]:
    """numpy's `einsum_path`: `["einsum_path", (0, 1), ...]` and a printable account of it.

    What numpy's own optimizers accept is planned by them, so that the path is numpy's; the rest by opt_einsum.

    >>> einsum_path("ij,jk,kl->il", np.ones((2, 3)), np.ones((3, 5)), np.ones((5, 2)))[0]
    ['einsum_path', (1, 2), (0, 1)]
    """
    core = _core(subscripts, operands)
    equation = _equation(core)
    labels = dict.fromkeys("".join(core.inputs))
    name = optimize[0] if isinstance(optimize, tuple | list) and optimize else optimize
    is_numpys = not isinstance(name, str) or name in _NUMPY_OPTIMIZERS | {"einsum_path"}
    if len(labels) > len(string.ascii_letters) or callable(optimize) or not is_numpys:
        path, info = contract_path(subscripts, *operands, optimize=optimize)
        return ["einsum_path", *path], str(info)
    if not equation.isascii():
        equation = equation.translate({ord(x): y for x, y in zip(labels, string.ascii_letters, strict=False)})
    return np.einsum_path(equation, *(np.broadcast_to(0.0, shape) for shape in _shapes(core)), optimize=optimize)


def contract_expression(
    subscripts: Any,
    *shapes: Any,
    constants: Collection[int] | None = None,
    use_blas: bool = True,
    optimize: Optimize = True,
    memory_limit: int | str | None = None,
    dtype: Any = None,
    order: str | None = "K",
    casting: Any = "safe",
    precision: str | None = None,
    deterministic: bool = False,
    autotune: bool = False,
    graph: bool | None = None,
    out: None = None,
    backend: None = None,
) -> ContractExpression:
    """opt_einsum's `contract_expression`: an expression planned for shapes now, to be called with arrays.

    `constants` lists the positions at which an array is given instead of a shape. What depends on constants alone is
    computed once for a backend and the sizes and dtypes of the others, and kept where it was computed.

    On CUDA with `graph` the second call with operands at the same addresses, or of few operands anywhere, is captured
    as a CUDA graph, which later ones replay: one launch for all. By default that is done for many short launches. The
    graph keeps memory of its own; results are the caller's. Where capturing fails all is launched as before, which
    `graph=True` reports by a RuntimeWarning. It is refused together with `deterministic`, and ignored on the CPU.

    >>> expression = contract_expression("ij,jk,kl->il", np.eye(2), np.eye(2), (2, 5), constants=[0, 1])
    >>> expression(np.ones((2, 5))).shape
    (2, 5)
    """
    if out is not None or backend is not None:
        raise ValueError("out= and backend= go to the expression when it is called, not when it is made")
    if not optimize:
        raise ValueError("an expression is planned once for many calls, so optimize cannot be False")
    expression, operands = hashable_form(subscripts, shapes)
    fixed = {position: operands[position] for position in _positions(constants, len(operands))}
    dimensions = tuple(array_shape(x) if i in fixed else shape_listed(x) for i, x in enumerate(operands))
    core = resolve(expression, dimensions)
    is_auto = optimize in (True, "auto") and memory_limit is None
    path = "auto" if is_auto else _path(core, optimize, memory_limit)
    options = options_of(
        dtype=dtype,
        order=order,
        casting=casting,
        optimize=path,
        precision=precision,
        deterministic=deterministic,
        autotune=autotune,
        graph=graph,
        runs=MANY_RUNS,
    )
    return ContractExpression(expression, dimensions, fixed, options)


class ContractExpression:
    """A planned expression: `expression(*arrays, out=None, backend="auto")`.

    Arrays of other sizes than planned for are contracted along the same path, unless that is left to "auto". Immutable
    but for the results of constant parts, which are kept for the last few devices and streams, shapes and dtypes.
    """

    def __init__(
        self, expression: Expression, shapes: tuple[Shape, ...], constants: dict[int, Any], options: Options
    ) -> None:
        self.num_args = len(shapes) - len(constants)
        self._expression = expression
        self._shapes = shapes
        self._constants = constants
        self._options = options
        self._placed = lru_cache(maxsize=_KEPT)(partial(_place, constants))
        self._folded = lru_cache(maxsize=_KEPT)(partial(_fold, expression, self._placed))
        if constants:
            self._usual = lru_cache(maxsize=_KEPT)(partial(_ready, constants, self._folded, options))
        else:
            self._usual = lru_cache(maxsize=_SIZES)(partial(ready, options, expression))

    @property
    def contraction(self) -> str:
        """The equation, constant operands in brackets."""
        if not isinstance(self._expression, str):
            return str(resolve(self._expression, self._shapes))
        inputs, arrow, output = self._expression.partition("->")
        terms = (f"[{term}]" if i in self._constants else term for i, term in enumerate(inputs.split(",")))
        return ",".join(terms) + arrow + output

    def __reduce__(self) -> Any:
        """Copied and pickled without what was computed: a copy computes it anew."""
        return ContractExpression, (self._expression, self._shapes, self._constants, self._options)

    def __repr__(self) -> str:
        constants = f", constants={sorted(self._constants)}" if self._constants else ""
        return f"<ContractExpression('{self.contraction}'{constants})>"

    def __call__(self, *arrays: Any, out: Array | None = None, backend: str | None = "auto") -> Array:
        if len(arrays) != self.num_args:
            counts = f"exactly {self.num_args} array arguments but received {len(arrays)}"
            raise ValueError(f"this `ContractExpression` takes {counts}: {self!r}")
        if out is None and backend == "auto":
            kinds = numpy_kinds(arrays)
            if kinds:
                return self._usual(*kinds)(*arrays)
        options = self._options._replace(backend=_backend(backend))
        if not self._constants:
            return evaluate(self._expression, arrays, out, options)
        given = arrays or tuple(self._constants.values())
        place = choose(options.backend, given)
        if place is HOST:
            choose(options.backend, _filled(self._constants, arrays))  # refuses constants on a GPU
        if out is not None:
            check_out(out, given, place)
        numbers = [number for number in range(len(self._shapes)) if number not in self._constants]
        late = [as_array(place, f"operand {number}", array) for number, array in zip(numbers, arrays, strict=True)]
        call, kept = self._folded(place, place.context(), signature(late), _signature(out), options)
        result = call.run(*call.cast(late), *kept)
        return conclude(call, place, result, _filled(self._constants, arrays), given, out, options)

    def evaluate_constants(self, backend: str | None = "auto") -> None:
        """Compute now, for arrays of the planned shapes and the constants' dtype, what the first call would."""
        if not self._constants:
            return
        options = self._options._replace(backend=_backend(backend))
        place = choose(options.backend, list(self._constants.values()))
        constants = self._placed(place, place.context())
        dtype = np.result_type(*(array.dtype for array in constants.values()))
        late = tuple((shape, dtype) for i, shape in enumerate(self._shapes) if i not in constants)
        self._folded(place, place.context(), late, None, options)


def _place(constants: Mapping[int, Any], place: Backend, context: Hashable) -> dict[int, Array]:
    """The constants where they are computed with; `context` is what they can be used with only."""
    return {i: as_array(place, f"operand {i}", array) for i, array in constants.items()}


def _fold(
    expression: Expression,
    placed: Callable[[Backend, Hashable], Mapping[int, Array]],
    place: Backend,
    context: Hashable,
    late: Signature,
    out: tuple[Shape, Dtype] | None,
    options: Options,
) -> tuple[Call, tuple[Array, ...]]:
    """What remains to be run for other operands like these, and the constant part's results that it takes."""
    constants = placed(place, context)
    known = {i: (array.shape, array.dtype) for i, array in constants.items()}
    shapes, dtypes = zip(*_filled(known, late), strict=True)
    target, compute = call_dtypes(dtypes, out, options, place)
    plan = plan_for(expression, shapes, compute, options, place.profile)
    check_dimensions(plan)
    check_out_shape(out, plan)
    first, rest = fold_constants(plan, tuple(constants))
    run = place.bind_single(rest, options.mode) if rest.steps else partial(_copied, rest.outputs[0])
    call = Call(run, *casts(dtypes, compute, target), not plan.term(plan.outputs[0]))
    return call, place.bind(first, options._replace(graph=False).mode)(*call.cast(list(constants.values())))


def _ready(
    constants: Mapping[int, Any],
    folded: Callable[..., tuple[Call, tuple[Array, ...]]],
    options: Options,
    *kinds: Any,
) -> Callable[..., Array]:
    """`ready` for the operands that are no constants."""
    late = tuple(zip(kinds[::2], kinds[1::2], strict=True))
    place = choose(options.backend, _filled(constants, [np.empty(0)] * len(late)))  # refuses constants on a GPU
    call, kept = folded(place, place.context(), late, None, options)
    if is_plain(call, options):
        return lambda *arrays: place.hand_back(call.run(*arrays, *kept), False)

    def run(*arrays: Array) -> Array:
        result = call.run(*call.cast(arrays), *kept)
        return conclude(call, place, result, _filled(constants, arrays), arrays, None, options)

    return run


def _filled(constants: Mapping[int, Any], others: Sequence[Any]) -> list[Any]:
    """All operands in order: the constants where they belong, the others in between."""
    rest = iter(others)
    return [constants[i] if i in constants else next(rest) for i in range(len(constants) + len(others))]


def _signature(out: Array | None) -> tuple[Shape, Dtype] | None:
    return None if out is None else (out.shape, out.dtype)


def _positions(constants: Collection[int] | None, operands: int) -> list[int]:
    if constants is None:
        return []
    if not isinstance(constants, Collection) or not all(i in range(operands) for i in constants):
        raise ValueError(f"constants={constants!r} must list positions among the {operands} operands")
    return sorted(set(constants))


def _copied(register: int, *operands: Array) -> Array:
    """Where nothing remains to be computed: what is kept stays the expression's own."""
    return operands[register].copy()


def _core(subscripts: Any, operands: Sequence[Any], shapes: bool = False) -> Subscripts:
    """A resolved expression, from operands or from their shapes."""
    expression, operands = hashable_form(subscripts, operands)
    return resolve(expression, tuple(map(shape_listed if shapes else array_shape, operands)))


def _path(core: Subscripts, optimize: Optimize, memory_limit: int | str | None) -> Path:
    terms = tuple(distinct(term) for term in core.inputs)
    return find_path(terms, distinct(core.output), dict(core.sizes), optimize, memory_limit)


def _equation(core: Subscripts) -> str:
    """The expression as opt_einsum and numpy take it, whose outputs repeat no label."""
    return f"{','.join(core.inputs)}->{distinct(core.output)}"


def _shapes(core: Subscripts) -> list[Shape]:
    size = dict(core.sizes)
    return [tuple(size[label] for label in term) for term in core.inputs]


def _backend(name: str | None) -> str | None:
    if name not in _BACKENDS:
        raise ValueError(f"backend={name!r} is none of {', '.join(map(repr, _BACKENDS))}")
    return _BACKENDS[name]
