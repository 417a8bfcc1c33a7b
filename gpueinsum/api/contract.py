"""opt_einsum's functions, with its arguments and results: `contract` and `contract_expression`."""

from __future__ import annotations

from collections.abc import Callable, Collection, Hashable, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache, partial
from typing import Any

import numpy as np

from gpueinsum.api.arguments import (
    Array,
    Dtype,
    Expression,
    Options,
    Signature,
    array_shape,
    check_out,
    hashable_form,
    read_shape,
)
from gpueinsum.api.dispatch import (
    Call,
    array_kinds,
    as_function,
    call_on_arrays,
    evaluate_arrays,
    finish_call,
    layout,
    needed_casts,
    out_kind,
    read_kinds,
    signature,
)
from gpueinsum.api.libraries import library_named, library_of
from gpueinsum.api.limits import Room, result_bytes, strides_within
from gpueinsum.api.paths import order_of
from gpueinsum.api.plans import plan_and_dtypes, resolve, room_of_call
from gpueinsum.backends.base import Backend
from gpueinsum.backends.select import HOST, as_array, backend_for
from gpueinsum.errors import OperandError
from gpueinsum.language.plan import Plan
from gpueinsum.language.rewrite import fold_constants, split
from gpueinsum.language.subscripts import Shape
from gpueinsum.planning.path import Optimize
from gpueinsum.planning.search import MANY_RUNS

_BACKENDS: dict[str | None, str | None] = {
    **dict.fromkeys(("auto", "gpueinsum", "torch", "jax", None), None),
    **dict.fromkeys(("numpy", "object", "cpu"), "cpu"),
    **dict.fromkeys(("cupy", "cuda"), "cuda"),
}
_KEPT = 8  # constant parts that an expression keeps, of the devices, streams, shapes and dtypes it was called with last
_SIZES = 128  # calls that an expression without constants keeps, of the shapes and dtypes it was called with last


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
    largest_intermediate: int | str | None = None,
    optimize_seconds: float | None = None,
) -> Array:
    """opt_einsum's `contract`: `einsum` with its argument names.

    `memory_limit` is a number of bytes, as in `einsum`. The limit of opt_einsum that has this name is
    `largest_intermediate` here: the most elements of an intermediate that the search for a path may propose, -1 or
    "max_input"; where opt_einsum then contracts several operands in one step, that step is run in pairs, which may take
    more. `use_blas` is accepted and ignored, since a pair that is a matrix product is always run as one. `backend` is
    "auto", "numpy" (whose arrays the result is of, even of tensors), "torch" or "jax" (of tensors, or of JAX's arrays
    and numpy's, as with "auto"), "cupy", or one of ours. The rest is as in `einsum`.

    >>> contract("ij,jk,kl->il", np.ones((2, 3)), np.ones((3, 5)), np.ones((5, 2)))
    array([[15., 15.],
           [15., 15.]])
    """
    expression, arrays = hashable_form(subscripts, operands)
    chosen = _backend(backend)
    modes = precision, deterministic, autotune, memory_limit, False, 1, optimize_seconds, largest_intermediate
    options = Options(dtype, order, casting, optimize, chosen, *modes).check()
    library = library_of(arrays, backend) or (library_named("jax") if backend == "jax" else None)
    if library is not None:
        return library.evaluate(expression, arrays, out, options)
    if backend == "torch":
        raise OperandError("backend='torch' is for tensors, and the operands are none: convert them (torch.as_tensor)")
    return evaluate_arrays(expression, arrays, out, options)


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
    largest_intermediate: int | str | None = None,
    optimize_seconds: float | None = None,
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
    dimensions = tuple(array_shape(x) if i in fixed else read_shape(x) for i, x in enumerate(operands))
    core = resolve(expression, dimensions)
    is_auto = optimize in (True, "auto") and largest_intermediate is None
    path = "auto" if is_auto else order_of(core, optimize, largest_intermediate)
    modes = precision, deterministic, autotune, memory_limit, graph, MANY_RUNS, optimize_seconds
    options = Options(dtype, order, casting, path, None, *modes).check()
    if order in ("A", "a") and layout(order, list(fixed.values())) == "C":
        options = options._replace(order="C")  # whatever the other operands are
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
        self._constants_on = lru_cache(maxsize=_KEPT)(partial(_constants_on, constants))
        self._folded = lru_cache(maxsize=_KEPT)(partial(_fold, expression, constants, self._constants_on))
        if constants:
            self._array_call = lru_cache(maxsize=_KEPT)(partial(_constant_call, self._folded, options))
        else:
            self._array_call = lru_cache(maxsize=_SIZES)(partial(call_on_arrays, options, expression))

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
        if out is None and backend == "auto" and self._options.memory_limit is None:
            kinds = array_kinds(arrays)
            if kinds:
                return self._array_call(*kinds)(*arrays)
        options = self._options._replace(backend=_backend(backend))
        operands = _fill(self._constants, arrays) if self._constants else arrays
        library = library_of(operands, backend)
        if library is None:
            return self._evaluate(options, out, *arrays)
        if not self._constants or out is not None or library_of(arrays) is None or library.is_followed(operands):
            return library.evaluate(self._expression, operands, out, options)
        return library.call(partial(self._evaluate, library.promote(operands, options), None), *arrays)

    def _evaluate(self, options: Options, out: Array | None, *arrays: Any) -> Array:
        """The expression for arrays of numpy's or CuPy's, and whatever becomes such."""
        if not self._constants:
            return evaluate_arrays(self._expression, arrays, out, options)
        given = arrays or tuple(self._constants.values())
        chosen = backend_for(options.backend, given)
        if out is not None:
            check_out(out, given, chosen)
        numbers = [number for number in range(len(self._shapes)) if number not in self._constants]
        late = [as_array(chosen, f"operand {number}", array) for number, array in zip(numbers, arrays, strict=True)]
        within = None if all(array.flags.c_contiguous for array in late) else strides_within(options, late)
        call = self._folded(chosen, chosen.context(), signature(late), out_kind(out), options, within)
        return finish_call(call, chosen, call.run(*call.cast(late)), given, out, options)

    def evaluate_constants(self, backend: str | None = "auto") -> None:
        """Compute now, for arrays of the planned shapes and the constants' dtype, what the first call would."""
        if not self._constants:
            return
        options = self._options._replace(backend=_backend(backend))
        chosen = backend_for(options.backend, list(self._constants.values()))
        constants = self._constants_on(chosen, chosen.context())
        dtype = np.result_type(*(array.dtype for array in constants.values()))
        late = tuple((shape, dtype) for i, shape in enumerate(self._shapes) if i not in constants)
        self._folded(chosen, chosen.context(), late, None, options, None)


def _constants_on(constants: Mapping[int, Any], backend: Backend, context: Hashable) -> dict[int, Array]:
    """The constants where they are computed with; `context` is what they can be used with only."""
    library = library_of([*constants.values()])
    arrays = constants if library is None else {i: library.unwrap(array) for i, array in constants.items()}
    return {i: as_array(backend, f"operand {i}", array) for i, array in arrays.items()}


def _fold(
    expression: Expression,
    constants: Mapping[int, Any],
    constants_on: Callable[[Backend, Hashable], Mapping[int, Array]],
    backend: Backend,
    context: Hashable,
    late: Signature,
    out: tuple[Shape, Dtype] | None,
    options: Options,
    within: Sequence[tuple[int, ...]] | None,
) -> Call:
    """What remains to be run for other operands like these, with the results of the constant part.

    A limit of memory is for others of the strides `within`; None for those of C order.
    """
    if backend is HOST:  # constants on a GPU are refused
        backend_for(options.backend, _fill(constants, [np.empty(0)] * len(late)))
    arrays = constants_on(backend, context)
    operands = tuple(_fill({i: (array.shape, array.dtype) for i, array in arrays.items()}, late))
    strides = None if within is None else _fill({i: array.strides for i, array in arrays.items()}, within)
    plan, compute, target = plan_and_dtypes(expression, operands, out, options, backend, strides)
    first, rest = fold_constants(plan, tuple(arrays))
    room = room_of_call(plan, operands, target, out, options, backend, strides)
    if room is not None and not _holds(room, first, rest, tuple(arrays), operands):
        first, rest = split(plan, tuple(arrays))  # nothing is kept but the constants

    def copy_kept(*operands: Array) -> Array:
        """Where nothing remains to be run: what is kept stays the expression's own."""
        return operands[rest.outputs[0]].copy()

    run = backend.bind_single(rest, options.mode) if rest.steps else copy_kept
    fixed = [array if rest.sliced else array.astype(compute, copy=False) for array in arrays.values()]
    kept = backend.bind(first, options._replace(graph=False).mode)(*fixed)
    casts = needed_casts(operands, compute, target)
    return Call(lambda *arrays: run(*arrays, *kept), *casts, not plan.term(plan.outputs[0]), bool(rest.sliced))


def _holds(room: Room, first: Plan, rest: Plan, fixed: tuple[int, ...], operands: Signature) -> bool:
    """Whether what is made of constants can be kept, too: the room was asked for all that is done in one run."""
    owners, constants = first.owners(), len(first.inputs)
    made = {owners[register] for register in first.outputs if owners[register] >= constants}
    cast = [shape for shape, dtype in operands if dtype.name != first.dtype]
    kept = result_bytes([*map(first.shape, made), *cast], np.dtype(first.dtype))
    late = [number for number in range(len(operands)) if number not in fixed]
    strides = room.strides and tuple([room.strides[number] for number in late])
    own = replace(room.less(kept), dtypes=tuple([room.dtypes[number] for number in late]), strides=strides)
    return own.peak(rest) <= room.bytes


def _constant_call(folded: Callable[..., Call], options: Options, *kinds: Any) -> Callable[..., Array]:
    """`call_on_arrays` for the operands that are no constants."""
    late, backend, _ = read_kinds(kinds)
    if backend is HOST:
        return as_function(folded(HOST, None, late, None, options, None), HOST, options)

    def call(*arrays: Array) -> Array:
        """With the constants of the stream that is current now."""
        return as_function(folded(backend, backend.context(), late, None, options, None), backend, options)(*arrays)

    return call


def _fill(constants: Mapping[int, Any], others: Sequence[Any]) -> list[Any]:
    """All operands in order: the constants where they belong, the others in between."""
    rest = iter(others)
    return [constants[i] if i in constants else next(rest) for i in range(len(constants) + len(others))]


def _positions(constants: Collection[int] | None, operands: int) -> list[int]:
    if constants is None:
        return []
    if not isinstance(constants, Collection) or not all(i in range(operands) for i in constants):
        raise ValueError(f"constants={constants!r} must list positions among the {operands} operands")
    return sorted(set(constants))


def _backend(name: str | None) -> str | None:
    if name not in _BACKENDS:
        raise ValueError(f"backend={name!r} is none of {', '.join(map(repr, _BACKENDS))}")
    return _BACKENDS[name]
