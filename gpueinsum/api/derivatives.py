"""Derivatives as users call them: `vjp` and `jvp` of an expression or a plan."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from gpueinsum.api.arguments import (
    Array,
    Dtype,
    Expression,
    Options,
    check_differentiable,
    dtype_of,
    hashable_form,
    positions_of,
)
from gpueinsum.api.derivative_dispatch import BothPasses, both_passes, tangent_pass
from gpueinsum.api.dispatch import finish_result, layout, one_or_all, signature, stays_on_device
from gpueinsum.api.libraries import Library, library_of
from gpueinsum.api.limits import strides_within
from gpueinsum.backends.base import Backend
from gpueinsum.backends.operands import on_device
from gpueinsum.backends.select import HOST, as_array, backend_and_arrays
from gpueinsum.errors import DtypeError, OperandError, PlanError
from gpueinsum.language.plan import Plan
from gpueinsum.language.subscripts import Shape
from gpueinsum.planning.path import Optimize
from gpueinsum.planning.search import MANY_RUNS


def vjp(
    subscripts: Any,
    *operands: Any,
    wrt: int | Sequence[int] | None = None,
    dtype: Any = None,
    order: str | None = "K",
    casting: Any = "safe",
    optimize: Optimize = "auto",
    memory_limit: int | str | None = None,
    backend: str | None = None,
    precision: str | None = None,
    deterministic: bool = False,
    autotune: bool = False,
    optimize_seconds: float | None = None,
) -> tuple[Any, Pullback]:
    """The value of an einsum, and its pullback: a function from the value's cotangent to the operands' gradients.

    For a real function L of the value y, whose cotangent is y' = dL/d(Re y) + i dL/d(Im y), the gradient of operand x
    is x' = J^H y', J = dy/dx: then dL = Re sum(conj(y') dy) = Re sum(conj(x') dx), and x' points the way of steepest
    ascent of L. For complex operands these are PyTorch's gradients (JAX's are their conjugates); a real operand of a
    complex expression has a real gradient.

    Args:
        subscripts: As in `einsum`; or a Plan, of any number of outputs.
        operands: As in `einsum`; or the plan's inputs.
        wrt: Positions of the operands whose gradients are wanted, in this order; all by default.
        memory_limit: As in `einsum`, for each pass, the value and the gradients together. What does not fit is computed
            again in the backward pass, or both passes are run in slices, or both, whichever is predicted fastest.
        dtype, order, casting, optimize, backend, precision, deterministic, autotune, optimize_seconds: As in `einsum`;
            `order` is that of the gradients, too. Up to three may be planned anew, by `optimize` if it is a name, else
            by "auto".

    Returns (value, pullback). `pullback(cotangent)` takes an array of the value's shape and returns a tuple of arrays
    (of one for one operand), each of its operand's shape and dtype. A cotangent with one more axis, its first, is a
    batch of cotangents: so are then the gradients, all computed in one pass. It can be called any number of times, and
    keeps the operands and intermediates that it needs until it goes: do not change operands before its last call. For a
    plan of several outputs value and cotangent are tuples, and None among the cotangents stands for zeros.

    Raises what `einsum` raises; DtypeError for gradients of integers or bools; PlanError if no plan keeps to the limit.

    >>> y, pullback = vjp("ij,j->i", [[1.0, 2.0], [3.0, 4.0]], [5.0, 6.0])
    >>> y
    array([17., 39.])
    >>> pullback([1.0, 10.0])
    (array([[ 5.,  6.],
           [50., 60.]]), array([31., 42.]))
    """
    asked, given = (subscripts, operands) if isinstance(subscripts, Plan) else hashable_form(subscripts, operands)
    modes = backend, precision, deterministic, autotune, memory_limit
    asked_for = Options(dtype, order, casting, optimize, *modes, optimize_seconds=optimize_seconds)
    options = _options(asked, asked_for)
    library = library_of(given)
    if library is not None:
        value, pullback = library.vjp(asked, given, wrt, options)
        return value, pullback
    return evaluate_vjp(asked, given, wrt, options)


def evaluate_vjp(
    asked: Expression | Plan,
    given: Sequence[Any],
    wrt: int | Sequence[int] | None,
    options: Options,
) -> tuple[Any, Pullback]:
    """`vjp` for arrays of numpy's or CuPy's, and whatever becomes such."""
    chosen, arrays = backend_and_arrays(options.backend, given)
    listed, within = positions_of(wrt, len(given)), strides_within(options, arrays)
    call = both_passes(asked, signature(arrays), listed, options, chosen, within)
    outputs = call.forward.run(*call.forward.load(chosen, arrays))
    order, stays = layout(options.order, given), stays_on_device(chosen, given)
    finish = partial(finish_result, order=order, backend=chosen, stays=stays)
    values = [finish(value, call.forward.result) for value in outputs[len(call.kept) :]]
    return one_or_all(values), Pullback(call, outputs[: len(call.kept)], chosen, stays, finish)


@dataclass(repr=False, eq=False, slots=True)
class Pullback:
    """From the cotangent of a value to the gradients of its operands: `pullback(cotangent) -> (gradient, ...)`."""

    _call: BothPasses
    _kept: Sequence[Array]
    _backend: Backend
    _stays: bool
    _finish: partial[Array]  # of a gradient and its dtype
    library: Library | None = None  # that cotangents and gradients are of

    @property
    def plan(self) -> Plan:
        """Both passes as one plan: from operands and cotangents to values and gradients."""
        return self._call.plan

    @property
    def nbytes(self) -> int:
        """Bytes of the operands and intermediates that are kept."""
        return self._call.kept_bytes

    def __repr__(self) -> str:
        return f"<Pullback of {self.plan.equation}>"

    def __reduce__(self) -> Any:
        raise TypeError("a Pullback cannot be pickled; its plan can be kept: pullback.plan.to_json()")

    def __call__(self, cotangent: Any) -> tuple[Array, ...]:
        """The gradients for this cotangent; of several outputs for a tuple of them, in which None stands for zeros.

        Cotangents with one more axis, their first, are a batch: each gradient then has that axis, too.

        >>> value, pullback = vjp("i,i->", [1.0, 2.0], [3.0, 4.0], wrt=0)
        >>> pullback([1.0, 10.0])  # for a scalar value a batch of two
        (array([[ 3.,  4.],
               [30., 40.]]),)
        """
        count = len(self._call.values)
        cotangents = [cotangent] if count == 1 else check_list(cotangent, count, "cotangents")
        if self.library is not None:
            gradients: tuple[Array, ...] = self.library.call(self._pull, *cotangents)
            return gradients
        return self._pull(*cotangents)

    def _pull(self, *cotangents: Any) -> tuple[Array, ...]:
        call, backend, stays, count = self._call, self._backend, self._stays, len(cotangents)
        arrays, batches = [], {}
        for k, (given, (shape, kind)) in enumerate(zip(cotangents, call.values, strict=True)):
            if given is None and count > 1:
                arrays.append(backend.asarray(np.zeros(shape, kind)))
                continue
            name = "the cotangent" if count == 1 else f"cotangent {k}"
            arrays.append(fit(given, name, "the value", shape, kind, backend, stays, can_be_batch=True))
            batches[k] = arrays[k].shape[: arrays[k].ndim - len(shape)]
        backward = call.pull(arrays, tuple(batches), *batch_of(batches))
        kept = map(backend.check, self._kept)  # refused here if they are on another device than the current one
        gradients = backward.run(*backward.load(backend, [*arrays, *kept]))
        return tuple(map(self._finish, gradients, call.dtypes))


def jvp(
    subscripts: Any,
    operands: Sequence[Any],
    tangents: Sequence[Any],
    *,
    dtype: Any = None,
    order: str | None = "K",
    casting: Any = "safe",
    optimize: Optimize = "auto",
    backend: str | None = None,
    precision: str | None = None,
    deterministic: bool = False,
    autotune: bool = False,
    memory_limit: int | str | None = None,
    optimize_seconds: float | None = None,
) -> tuple[Any, Any]:
    """The value of an einsum and its tangent: how it changes as the operands change by their tangents.

    tangent = sum over the operands x of (dy/dx) dx, to first order in the dx.

    Args:
        subscripts: Text; or a sequence of lists of labels, one for each operand, and one more for the output if that
            is not implicit; or a Plan.
        operands: A tuple or list of operands.
        tangents: One of the shape of its operand for each operand, or None for one that does not change.

    The other arguments and errors are `einsum`'s. For a plan of several outputs value and tangent are tuples.

    >>> jvp("i,i->", ([1.0, 2.0], [3.0, 4.0]), ([1.0, 0.0], None))
    (np.float64(11.0), np.float64(3.0))
    """
    given = check_list(operands, None, "operands")
    asked = subscripts if isinstance(subscripts, Plan) else _expression(subscripts, given)
    modes = backend, precision, deterministic, autotune, memory_limit
    asked_for = Options(dtype, order, casting, optimize, *modes, optimize_seconds=optimize_seconds)
    options = _options(asked, asked_for)
    along = check_list(tangents, len(given), "tangents")
    library = library_of([*given, *along])
    if library is not None:
        value, tangent = library.jvp(asked, given, along, options)
        return value, tangent
    return evaluate_jvp(asked, given, along, options)


def evaluate_jvp(
    asked: Expression | Plan, given: Sequence[Any], tangents: Sequence[Any], options: Options
) -> tuple[Any, Any]:
    """`jvp` for arrays of numpy's or CuPy's, and whatever becomes such."""
    chosen, arrays = backend_and_arrays(options.backend, given)
    kinds, stays = signature(arrays), stays_on_device(chosen, given)
    moved: dict[int, Array] = {}  # the tangents that there are
    for k, (tangent, (shape, kind)) in enumerate(zip(tangents, kinds, strict=True)):
        if tangent is not None:
            check_differentiable(kind, f"operand {k}")
            moved[k] = fit(tangent, f"tangent {k}", "its operand", shape, kind, chosen, stays)
    every = [*arrays, *moved.values()]
    dtypes, within = tuple([tangent.dtype for tangent in moved.values()]), strides_within(options, every)
    call = tangent_pass(asked, kinds, tuple(moved), options, chosen, dtypes, within)
    outputs = call.run(*call.load(chosen, every))
    order = layout(options.order, given)
    handed = [finish_result(output, call.result, order, chosen, stays) for output in outputs]
    middle = len(handed) // 2
    return one_or_all(handed[:middle]), one_or_all(handed[middle:])


# ---------------------------------------------------------------- what a caller passes


def _options(asked: Expression | Plan, options: Options) -> Options:
    """The options of a derivative, checked; those of a plan are its own dtype and casts to it."""
    if isinstance(asked, Plan):
        if options.dtype is not None:
            raise PlanError(f"dtype={options.dtype!r:.60} is given with a plan, which has one: {asked.dtype}")
        if options.optimize_seconds is not None:
            raise PlanError(
                f"optimize_seconds={options.optimize_seconds!r:.60} is given with a plan, which has an order"
            )
        casting = "same_kind" if options.casting == "safe" else options.casting
        options = options._replace(dtype=dtype_of(asked.dtype), casting=casting)
    return options._replace(runs=MANY_RUNS).check()


def _expression(subscripts: Any, operands: Sequence[Any]) -> Expression:
    """The hashable form of a text, or of lists of labels beside the operands."""
    if isinstance(subscripts, str | bytes):
        return hashable_form(subscripts, operands)[0]
    count = len(operands)
    if not (isinstance(subscripts, tuple | list) and count and len(subscripts) in (count, count + 1)):
        message = "is neither a text nor a list of labels for each operand, and perhaps one for the output"
        raise OperandError(f"{subscripts!r:.60} {message}")
    pairs = [argument for pair in zip(operands, subscripts, strict=False) for argument in pair]
    return hashable_form(pairs[0], [*pairs[1:], *subscripts[count:]])[0]


def check_list(arrays: Any, count: int | None, name: str) -> Sequence[Any]:
    """A tuple or list of so many arrays."""
    if not isinstance(arrays, tuple | list):
        raise OperandError(f"{name} come as a tuple, (a, b, ...), not as {type(arrays).__name__}")
    if count is not None and len(arrays) != count:
        raise OperandError(f"{count} {name} are needed, not {len(arrays)}")
    return arrays


def batch_of(batches: Mapping[int, Shape]) -> Shape:
    """The axes, one or none, that each cotangent of this position has in front of its value's. Raises OperandError."""
    if len(set(batches.values())) > 1:
        raise OperandError(f"cotangents are batches of one size or none is: their first axes are {batches}")
    return next(iter(batches.values()), ())


def fit(
    given: Any,
    name: str,
    owner: str,
    shape: Shape,
    dtype: Dtype,
    backend: Backend,
    stays: bool,
    can_be_batch: bool = False,
) -> Array:
    """A tangent or cotangent as an array, where and of the shape that it must be, of a dtype that `dtype` can hold."""
    if backend is HOST and on_device(given):
        raise OperandError(f"{name} is on a GPU, but the operands are not")
    if stays and isinstance(given, np.ndarray) and given.ndim and not on_device(given):
        raise OperandError(f"{name} is a numpy array, but the operands are on a GPU: move it (cupy.asarray(x))")
    array = as_array(backend, name, given)
    if array.shape != shape and not (can_be_batch and array.ndim and array.shape[1:] == shape):
        raise OperandError(f"{name} has shape {array.shape}, but {owner} has {shape}")
    if not np.can_cast(array.dtype, dtype, "same_kind"):
        raise DtypeError(f"{name} is {array.dtype}, but {owner} is {dtype}")
    return array
