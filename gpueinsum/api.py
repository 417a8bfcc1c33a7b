"""What users call: the door where operands, dtypes and `out=` are checked, and the cache of plans behind it."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Hashable, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from gpueinsum.backends import Backend, choose, on_device
from gpueinsum.errors import DtypeError, OperandError, OutError, SubscriptsError
from gpueinsum.execute import bind
from gpueinsum.order import Optimize, Path, find_path
from gpueinsum.plan import Plan
from gpueinsum.planner import lower
from gpueinsum.subscripts import Shape, Sublist, Subscripts, Term, alphabet, parse, parse_interleaved

Array = Any
# What the caller wrote, hashable: the text, or the interleaved form's sublists and its output's (None if implicit).
Expression = str | tuple[tuple[Sublist, ...], Sublist | None]


def einsum(
    subscripts: Any,
    *operands: Any,
    out: Array | None = None,
    dtype: Any = None,
    order: str = "K",
    casting: Any = "safe",
    optimize: Optimize = "auto",
    backend: str | None = None,
    precision: str | None = None,
) -> Array:
    """Einstein summation of numpy or CuPy arrays, in numpy's notation and with numpy's semantics.

    out[o...] = sum over every label that is not in the output of the product of the operands' elements.

    Args:
        subscripts: Text such as `"bij,bjk->bik"`, or the first operand of the interleaved form
            `einsum(a, [0, 1], b, [1, 2], [0, 2])`, whose labels may be any hashable values. A label repeated in an
            operand is its diagonal; one repeated in the output embeds on the diagonal, with zeros off it.
        operands: Arrays (numpy, CuPy, anything with `__cuda_array_interface__` or DLPack), nested lists or numbers.
        out: Array for the result; may be one of the operands.
        dtype: The dtype to compute in; by default numpy's `result_type` of the operands and `out`.
        order: "C", "F", "A" (F if every operand is) or "K" (whatever needs no copy) for the result's layout.
        casting: numpy's rule for the casts that `dtype` and `out` ask for.
        optimize: An opt_einsum optimizer's name, a path, a `PathOptimizer`; False contracts left to right.
        backend: None computes where the operands live; "cpu"; "cuda" takes numpy arrays to the GPU and back.
        precision: None or "highest" for true float32; "tf32" lets CUDA round float32 factors to 10 bits of mantissa.

    Returns the result, a view of the operand if it is only a transposition or a diagonal of it.

    Raises SubscriptsError (a ValueError), DtypeError and OperandError (TypeErrors), OutError and PlanError
    (ValueErrors), DeviceError (a RuntimeError); nothing is written then.

    >>> einsum("ij,jk->ki", [[1, 2], [3, 4]], [[1, 0], [1, 1]])
    array([[3, 7],
           [2, 4]])
    """
    expression, arrays = hashable_form(subscripts, operands)
    return evaluate(expression, arrays, out, Options(dtype, order, casting, optimize, None, backend, precision))


def einsum_plan(
    subscripts: Any,
    *operands: Any,
    dtype: Any = None,
    optimize: Optimize = "auto",
    memory_limit: int | str | None = None,
) -> Plan:
    """The plan of an expression, from arrays or from shapes (tuples); needs no GPU and touches no data.

    Args are `einsum`'s; `dtype` is by default that of the arrays, float64 for shapes; `memory_limit` is opt_einsum's,
    in elements of the largest intermediate.

    >>> print(einsum_plan("ij,jk,kl->il", (40, 30), (30, 20), (20, 10)))
    ij,jk,kl->il  float64  i=40 j=30 k=20 l=10
      %3 = jk,kl->jl  of %1, %2  left j=30, right l=10, summed k=20
      %4 = ij,jl->il  of %0, %3  left i=40, right l=10, summed j=30
    """
    expression, operands_or_shapes = hashable_form(subscripts, operands)
    shapes = tuple(shape_of(operand) for operand in operands_or_shapes)
    if dtype is None:
        dtypes = [operand.dtype for operand in operands_or_shapes if hasattr(operand, "dtype")]
        dtype = np.result_type(*dtypes) if dtypes else np.dtype(np.float64)
    return plan_for(expression, shapes, dtype_of(dtype), Options(optimize=optimize, memory_limit=memory_limit))


def tensordot(x: Any, y: Any, axes: Any = 2, *, backend: str | None = None) -> Array:
    """numpy's `tensordot`: sum over the last `axes` axes of x and the first of y, or over the axes listed for each.

    >>> tensordot(np.ones((2, 3)), np.ones((3, 5)), axes=1).shape
    (2, 5)
    """
    x_shape, y_shape = _array_shape(x), _array_shape(y)
    if isinstance(axes, int | np.integer):
        x_axes, y_axes = list(range(-int(axes), 0)), list(range(int(axes)))
    else:
        x_axes, y_axes = (list(np.atleast_1d(side)) for side in axes)
    if len(x_axes) != len(y_axes):
        raise ValueError(f"axes names {len(x_axes)} axes of x but {len(y_axes)} of y")
    letters = alphabet()
    x_term = [next(letters) for _ in x_shape]
    y_term = [next(letters) for _ in y_shape]
    for i, j in zip(x_axes, y_axes, strict=True):
        if not (-len(x_shape) <= i < len(x_shape) and -len(y_shape) <= j < len(y_shape)):
            raise ValueError(f"axes ({i}, {j}) are out of range for shapes {x_shape} and {y_shape}")
        if x_shape[i] != y_shape[j]:
            raise ValueError(f"axis {i} of x is {x_shape[i]} but axis {j} of y is {y_shape[j]}")
        y_term[j] = x_term[i]
    summed = set(x_term) & set(y_term)
    kept = [label for label in x_term + y_term if label not in summed]
    return einsum(f"{''.join(x_term)},{''.join(y_term)}->{''.join(kept)}", x, y, backend=backend)


def transpose(x: Any, axes: Sequence[int] | None = None) -> Array:
    """numpy's `transpose`: a view of x with its axes permuted, reversed by default."""
    return choose(None, [x]).asarray(x).transpose(axes)


# ---------------------------------------------------------------- evaluating


class Options(NamedTuple):
    """How a call wants its expression planned and its result made, as the caller wrote it."""

    dtype: Any = None
    order: str = "K"
    casting: Any = "safe"
    optimize: Optimize = "auto"
    memory_limit: int | str | None = None
    backend: str | None = None
    precision: str | None = None


class Entry(NamedTuple):
    """A call past the door: its operands as arrays in one place, the dtypes to compute in and to return."""

    place: Backend
    arrays: list[Array]
    target: np.dtype[Any]
    compute: np.dtype[Any]

    @property
    def shapes(self) -> tuple[Shape, ...]:
        return tuple([array.shape for array in self.arrays])

    def cast(self) -> list[Array]:
        return [array if array.dtype == self.compute else array.astype(self.compute) for array in self.arrays]


class Bound(NamedTuple):
    """A plan ready to run on a backend, and what the call must know of it."""

    run: Callable[[Sequence[Array]], tuple[Array, ...]]
    shape: Shape
    alias: int | None  # the operand that the result is a view of
    is_view: bool  # ... and that numpy would return as a view, too


def evaluate(expression: Expression, operands: Sequence[Any], out: Array | None, options: Options) -> Array:
    """`einsum`, for an expression in its hashable form."""
    entry = enter(operands, out, options)
    bound = _cached(_bound, expression, entry.shapes, entry.compute, options, entry.place, options.precision)
    check_out(out, bound.shape)
    if bound.is_view and out is None and entry.arrays[0].dtype == entry.target:
        [result] = bound.run(entry.arrays)
        if result is operands[0]:
            result = result.view()
    else:
        [result] = bound.run(entry.cast())
        if bound.alias is not None and result.dtype == entry.target:
            result = result.copy()
    return leave(entry, result, operands, out, options)


def enter(operands: Sequence[Any], out: Array | None, options: Options) -> Entry:
    """Check everything about a call that can be checked without its subscripts."""
    place = choose(options.backend, operands)
    arrays = [place.asarray(operand) for operand in operands]
    target = _target_dtype(arrays, out, options)
    if options.order not in ("K", "C", "F", "A"):
        raise ValueError(f"order must be one of 'C', 'F', 'A' and 'K', not {options.order!r}")
    if options.precision not in (None, "highest", "tf32"):
        raise ValueError(f"precision={options.precision!r} is none of None, 'highest' and 'tf32'")
    if out is not None and on_device(out) and not any(map(on_device, operands)):
        raise OutError("out is on a GPU, but the operands are not")
    if out is not None and not on_device(out) and any(map(on_device, operands)):
        raise OutError("out is not on the GPU where the operands are")
    return Entry(place, arrays, target, place.compute_dtype(target))


def leave(entry: Entry, result: Array, operands: Sequence[Any], out: Array | None, options: Options) -> Array:
    """Give the result the dtype, layout and place that the call asks for."""
    if out is not None:
        entry.place.store(result, out)
        return out
    if result.dtype != entry.target:
        result = result.astype(entry.target)
    if options.order != "K":
        all_f = options.order == "A" and all(array.flags.f_contiguous for array in entry.arrays)
        result = entry.place.arrange(result, "F" if options.order == "F" or all_f else "C")
    return entry.place.hand_back(result, operands)


def plan_for(expression: Expression, shapes: tuple[Shape, ...], dtype: np.dtype[Any], options: Options) -> Plan:
    """The plan of an expression in its hashable form, from the cache if it is there."""
    return _cached(_plan, expression, shapes, dtype, options)  # type: ignore[no-any-return]  # as _plan does


def resolve(expression: Expression, shapes: tuple[Shape, ...]) -> Subscripts:
    """The subscripts of an expression in its hashable form."""
    if isinstance(expression, str):
        return parse(expression, shapes)
    return parse_interleaved(*expression, shapes)


@lru_cache(maxsize=4096)
def _plan(
    expression: Expression,
    shapes: tuple[Shape, ...],
    dtype: np.dtype[Any],
    optimize: Optimize,
    memory_limit: int | str | None,
) -> Plan:
    subscripts = resolve(expression, shapes)
    sizes = dict(subscripts.sizes)

    def order(inputs: tuple[Term, ...], output: Term) -> Path:
        return find_path(inputs, output, sizes, optimize, memory_limit)

    return lower(subscripts, order, dtype.name)


@lru_cache(maxsize=4096)
def _bound(
    expression: Expression,
    shapes: tuple[Shape, ...],
    dtype: np.dtype[Any],
    optimize: Optimize,
    memory_limit: int | str | None,
    place: Backend,
    precision: str | None,
) -> Bound:
    plan = plan_for(expression, shapes, dtype, Options(optimize=optimize, memory_limit=memory_limit))
    [output] = plan.outputs
    alias = plan.alias()
    is_view = alias is not None and len(shapes) == 1 and set(plan.inputs[0]) == set(plan.term(output))
    return Bound(bind(plan, place, precision), plan.shape(output), alias, is_view)


def _cached(
    function: Any, expression: Expression, shapes: Any, dtype: np.dtype[Any], options: Options, *rest: Any
) -> Any:
    """Call through the cache; an optimizer that cannot be hashed plans anew each time."""
    optimize = options.optimize
    if isinstance(optimize, list | np.ndarray):
        optimize = tuple(tuple(step) if isinstance(step, list | np.ndarray) else step for step in optimize)
    try:
        hash(optimize)
    except TypeError:
        function = function.__wrapped__
    return function(expression, shapes, dtype, optimize, options.memory_limit, *rest)


# ---------------------------------------------------------------- at the door


def hashable_form(subscripts: Any, operands: Sequence[Any]) -> tuple[Expression, Sequence[Any]]:
    """Tell text from the interleaved form; the expression to plan, and the operands."""
    if isinstance(subscripts, str):
        return subscripts, operands
    arguments = (subscripts, *operands)
    output = _sublist(arguments[-1], "the output") if len(arguments) % 2 else None
    pairs = arguments[: len(arguments) // 2 * 2]
    if not pairs:
        raise SubscriptsError("the first argument is neither subscripts nor an operand followed by its labels")
    sublists = tuple(_sublist(labels, f"operand {number}") for number, labels in enumerate(pairs[1::2]))
    return (sublists, output), pairs[0::2]


def _sublist(labels: Any, owner: str) -> Sublist:
    try:
        sublist: tuple[Hashable, ...] = tuple(labels)
        hash(sublist)
    except TypeError as error:
        raise SubscriptsError(f"{owner} needs a list of hashable labels, not {labels!r:.60}") from error
    return sublist


def shape_of(operand: Any) -> Shape:
    """The shape of an operand, which may be given as the shape itself: a tuple of integers."""
    if isinstance(operand, tuple) and all(isinstance(size, int | np.integer) for size in operand):
        return tuple(int(size) for size in operand)
    return _array_shape(operand)


def _array_shape(operand: Any) -> Shape:
    return tuple(operand.shape) if hasattr(operand, "shape") else np.shape(operand)


def dtype_of(name: Any) -> np.dtype[Any]:
    """The dtype that a caller names. Raises DtypeError."""
    try:
        if name == "bfloat16":
            importlib.import_module("ml_dtypes")  # registers the name with numpy
        dtype: np.dtype[Any] = np.dtype(name)
        return dtype
    except (TypeError, ImportError) as error:
        raise DtypeError(f"dtype={name!r} is no dtype here") from error


def _target_dtype(arrays: Sequence[Array], out: Array | None, options: Options) -> np.dtype[Any]:
    """The dtype of the result; every cast it asks for is checked."""
    dtypes = [array.dtype for array in arrays]
    if out is not None and not (hasattr(out, "dtype") and hasattr(out, "shape")):
        raise OperandError(f"out is of type {type(out).__name__}, not an array")
    if options.dtype is not None:
        target = dtype_of(options.dtype)
    elif out is None and all(other is dtypes[0] for other in dtypes) and dtypes[0].isnative:
        target = dtypes[0]
    else:
        target = _common_dtype(dtypes if out is None else [*dtypes, out.dtype])
    if target.kind not in "biufcO" and target.name != "bfloat16":
        raise DtypeError(f"elements of dtype {target} cannot be multiplied and added")
    casting = options.casting
    for number, source in enumerate(dtypes):
        if source is not target and not np.can_cast(source, target, casting):
            raise DtypeError(f"operand {number} is {source}, which casting={casting!r} does not cast to {target}")
    if out is not None and not np.can_cast(target, out.dtype, casting):
        raise DtypeError(f"the result is {target}, which casting={casting!r} does not cast to out's {out.dtype}")
    return target


def _common_dtype(dtypes: Sequence[np.dtype[Any]]) -> np.dtype[Any]:
    try:
        common = np.result_type(*dtypes)
    except TypeError as error:
        raise DtypeError(f"no dtype holds all of {', '.join(map(str, dtypes))}") from error
    return common.newbyteorder("=")


def check_out(out: Array | None, shape: Shape) -> None:
    """Raise OutError unless `out` is None or can take a result of this shape."""
    if out is None:
        return
    if out.shape != shape:
        raise OutError(f"out has shape {out.shape}, but the result has {shape}")
    if not getattr(out.flags, "writeable", True):  # CuPy's arrays have no such flag: all can be written
        raise OutError("out is read-only")
