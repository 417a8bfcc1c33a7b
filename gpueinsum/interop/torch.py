"""Calls with torch's tensors: results are tensors on the same device, followed by autograd and torch.func.

What nobody follows is computed with the arrays in the tensors' memory. Otherwise a call is one node of autograd's
graph. Its backward pass is the plan's own; where that is to be followed, too, it is a node of the same kind.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache, reduce
from typing import Any

import torch
from torch import Tensor

from gpueinsum.api.arguments import (
    DEFAULT,
    Array,
    Expression,
    Options,
    check_differentiable,
    dtype_of,
    positions_of,
)
from gpueinsum.api.derivatives import evaluate_jvp, evaluate_vjp
from gpueinsum.api.dispatch import array_kinds, cached_call, evaluate_arrays, evaluate_plan_arrays, one_or_all
from gpueinsum.api.libraries import Asked
from gpueinsum.api.plans import resolve
from gpueinsum.errors import DtypeError, OperandError, OutError, SubscriptsError
from gpueinsum.interop.functions import Function, Jvp, function_of
from gpueinsum.interop.nodes import apply, follower
from gpueinsum.interop.operator import run_operator
from gpueinsum.interop.pullback import FollowedPullback, fit
from gpueinsum.interop.tensors import (
    array_of,
    as_tensor,
    can_cast,
    decided_once,
    device_of,
    numpy_dtype,
    on,
    ordered,
    tensor_of,
    unwrap,
    wrap,
)
from gpueinsum.language.plan import Plan
from gpueinsum.language.subscripts import Term


@dataclass(frozen=True)
class TorchLibrary:
    """torch as a `Library`, on one device if one is given."""

    device: torch.device | None = None

    @property
    def name(self) -> str:
        return "torch"

    def unwrap(self, operand: Any) -> Any:
        return unwrap(operand)

    def is_followed(self, operands: Sequence[Any]) -> bool:
        return follower([operand for operand in operands if isinstance(operand, Tensor)]) is not None

    def promote(self, operands: Sequence[Any], options: Options) -> Options:
        tensors = _tensors(operands)
        return _with_dtype(tensors, _as_torch_is_set(options, tensors))

    def call(self, function: Callable[..., Any], *operands: Any) -> Any:
        """On the device of the tensors. A pullback's cotangents come to its own, whatever they are, None excepted."""
        device = self.device
        if device is None:
            device = device_of([operand for operand in operands if isinstance(operand, Tensor)])
        else:
            operands = tuple([None if x is None else as_tensor(x, "a cotangent", device) for x in operands])
            for operand in operands:
                if operand is not None and operand.device != device:
                    raise OperandError(f"a cotangent is on {operand.device}, but the operands are on {device}")
        with on(device):
            return wrap(function(*map(unwrap, operands)))

    def evaluate(self, expression: Expression, operands: Sequence[Any], out: Array | None, options: Options) -> Any:
        tensors = _tensors(operands)
        if out is not None:
            return _store(self.evaluate(expression, tensors, None, _with_out(tensors, out, options)), out, options)
        result = _view(expression, tensors, options)
        if result is None:
            result = self._compute(expression, *_of_one_dtype(tensors, options))
        return ordered(result, options.order, tensors)

    def _compute(self, expression: Expression, tensors: Sequence[Tensor], options: Options) -> Tensor:
        follow = follower(tensors)
        if follow is not None:
            [result] = follow(_function(expression, tensors, options, follow), *tensors)
            return result
        if options == DEFAULT and False not in [tensor.is_cpu for tensor in tensors]:
            arrays = list(map(array_of, tensors))
            return tensor_of(cached_call(expression, *array_kinds(arrays))(*arrays))
        options = _as_torch_is_set(options, tensors)
        return self.call(lambda *arrays: evaluate_arrays(expression, arrays, None, options), *tensors)

    def evaluate_plan(self, plan: Plan, operands: Sequence[Any], options: Options) -> Any:
        tensors, options = _of_one_dtype(_tensors(operands), options)
        if (follow := follower(tensors)) is not None:
            return one_or_all(follow(_function(plan, tensors, options, follow), *tensors))
        options = _as_torch_is_set(options, tensors)._replace(dtype=dtype_of(plan.dtype))
        return self.call(lambda *arrays: evaluate_plan_arrays(plan, arrays, options), *tensors)

    def vjp(self, asked: Asked, operands: Sequence[Any], wrt: Any, options: Options) -> Any:
        tensors = _tensors(operands)
        if (follow := follower(tensors)) is None:
            options = _with_dtype(tensors, _as_torch_is_set(options, tensors))
            value, pullback = self.call(lambda *arrays: evaluate_vjp(asked, arrays, wrt, options), *tensors)
            return value, replace(pullback, library=TorchLibrary(device_of(tensors)))
        positions, given = positions_of(wrt, len(tensors)), [tensor.dtype for tensor in tensors]
        _check_differentiable(tensors, positions)
        tensors, options = _of_one_dtype(tensors, options)
        function = _function(asked, tensors, options, follow)
        values = [ordered(value, options.order, tensors) for value in apply(function, *tensors)]
        return one_or_all(values), FollowedPullback(function, tensors, positions, given, options.order)

    def jvp(self, asked: Asked, operands: Sequence[Any], tangents: Sequence[Any], options: Options) -> Any:
        tensors = _tensors(operands, tangents)
        _check_differentiable(tensors, [k for k, tangent in enumerate(tangents) if tangent is not None])
        moved = {
            k: fit(tangent, f"tangent {k}", "its operand", tensors[k].shape, tensors[k])
            for k, tangent in enumerate(tangents)
            if tangent is not None
        }
        if (follow := follower([*tensors, *moved.values()])) is None:
            options, count = _with_dtype(tensors, _as_torch_is_set(options, tensors)), len(tensors)

            def both(*arrays: Array) -> Any:
                listed = dict(zip(moved, arrays[count:], strict=True))
                return evaluate_jvp(asked, arrays[:count], [listed.get(k) for k in range(count)], options)

            return self.call(both, *tensors, *moved.values())
        tensors, options = _of_one_dtype(tensors, options)
        function = _function(asked, tensors, options, follow)
        along = [tangent.to(tensors[0].dtype) for tangent in moved.values()]
        results = apply(function, *tensors), apply(Jvp(function, tuple(moved)), *tensors, *along)
        value, tangent = [one_or_all([ordered(x, options.order, tensors) for x in each]) for each in results]
        return value, tangent


TORCH = TorchLibrary()


# ---------------------------------------------------------------- what a call is given


def _tensors(operands: Sequence[Any], others: Sequence[Any] = ()) -> Sequence[Tensor]:
    """The operands as tensors, those that are none on the device of the first, of them or of others, that is one."""
    for operand in operands:
        if not isinstance(operand, Tensor):
            break
    else:
        return operands
    like = next((given for given in (*operands, *others) if isinstance(given, Tensor)), None)
    if like is None:
        raise OperandError("none of the operands is a tensor")
    return [as_tensor(operand, f"operand {number}", like.device, like) for number, operand in enumerate(operands)]


def _check_differentiable(tensors: Sequence[Tensor], positions: Sequence[int]) -> None:
    for position in positions:
        dtype = tensors[position].dtype
        if not (dtype.is_floating_point or dtype.is_complex):
            check_differentiable(dtype_of(dtype), f"operand {position}")


def _function(asked: Asked, tensors: Sequence[Tensor], options: Options, follow: Callable[..., Any]) -> Function:
    """What is asked as a function of such tensors."""
    make = function_of if follow is run_operator else _kept_function
    return make(asked, len(tensors), _as_torch_is_set(options, tensors))


_kept_function = lru_cache(maxsize=4096)(function_of)


def _as_torch_is_set(options: Options, tensors: Sequence[Tensor]) -> Options:
    """On CUDA what is left open is as torch's own products are: their precision, and whether bits may differ."""
    if tensors[0].is_cpu:
        return options
    if options.precision is None and tensors[0].dtype is torch.float32:
        options = options._replace(precision=_PRECISIONS[torch.get_float32_matmul_precision()])
    if torch.are_deterministic_algorithms_enabled():
        options = options._replace(deterministic=True, graph=False, autotune=False, runs=0)
    return options


_PRECISIONS = {"highest": None, "high": "tf32", "medium": "bf16"}


def _of_one_dtype(tensors: Sequence[Tensor], options: Options) -> tuple[Sequence[Tensor], Options]:
    """The tensors in the dtype of the computation, and the options without it. Raises DtypeError and OperandError."""
    options = _with_dtype(tensors, options)
    if options.backend is not None and (options.backend == "cpu") != tensors[0].is_cpu:
        raise OperandError(
            f"tensors on {tensors[0].device} are computed with there, not on backend={options.backend!r}"
        )
    if options.dtype is None:
        return tensors, options
    dtype = getattr(torch, options.dtype.name, None)
    if dtype is None:
        raise DtypeError(f"torch has no dtype {options.dtype}")
    for number, tensor in enumerate(tensors):
        if not can_cast(tensor.dtype, dtype, options.casting):
            how = f"which casting={options.casting!r} does not cast to {options.dtype}"
            raise DtypeError(f"operand {number} is {dtype_of(tensor.dtype)}, {how}")
    return [tensor.to(dtype) for tensor in tensors], options._replace(dtype=None, casting="safe")


def _with_dtype(tensors: Sequence[Tensor], options: Options) -> Options:
    """The options, with a dtype if tensors must be cast: by torch's rules, those of autocast and then of promotion."""
    if options.dtype is not None:
        return options
    first, device = tensors[0].dtype, tensors[0].device.type
    is_autocast = device != "meta" and torch.is_autocast_enabled(device)
    if not is_autocast:
        for tensor in tensors:
            if tensor.dtype is not first:
                break
        else:
            return options
    dtypes = [tensor.dtype for tensor in tensors]
    if is_autocast:
        reduced = torch.get_autocast_dtype(device)
        dtypes = [reduced if dtype.is_floating_point and dtype.itemsize <= 4 else dtype for dtype in dtypes]
    wanted = reduce(torch.promote_types, dtypes)
    if all(tensor.dtype is wanted for tensor in tensors):
        return options
    return options._replace(dtype=numpy_dtype(wanted), casting="same_kind")


def _with_out(tensors: Sequence[Tensor], out: Any, options: Options) -> Options:
    """The options for a result that goes to `out`, whose dtype counts as in numpy. Raises OperandError."""
    if not isinstance(out, Tensor):
        raise OperandError(f"out is of type {type(out).__name__}, not a tensor, as the operands are")
    if out.device != tensors[0].device:
        raise OutError(f"out is on {out.device}, but the operands are on {tensors[0].device}")
    given = _with_dtype([*tensors, out], options)
    return given if options.dtype is None else options


def _store(result: Tensor, out: Tensor, options: Options) -> Tensor:
    if result.requires_grad or (out.requires_grad and torch.is_grad_enabled()):
        raise OutError("out= takes no part in autograd: leave it out, or detach the operands and out")
    if out.shape != result.shape:
        raise OutError(f"out has shape {tuple(out.shape)}, but the result has {tuple(result.shape)}")
    if not can_cast(result.dtype, out.dtype, options.casting):
        how = f"which casting={options.casting!r} does not cast to out's {dtype_of(out.dtype)}"
        raise DtypeError(f"the result is {dtype_of(result.dtype)}, {how}")
    return out.copy_(result)


# ---------------------------------------------------------------- what a call gives


def _view(expression: Expression, tensors: Sequence[Tensor], options: Options) -> Tensor | None:
    """A transposition or diagonal of one tensor as torch's own view of it; None for any other call."""
    if len(tensors) > 1 or options.dtype is not None:
        return None
    [tensor] = tensors
    terms = _terms_of_view(expression, tensor.ndim)
    if terms is None:
        return None
    term, out = terms
    for label in dict.fromkeys(term):
        while (first := term.find(label)) != (second := term.rfind(label)):
            if tensor.shape[first] != tensor.shape[second]:
                return None
            tensor = tensor.diagonal(dim1=first, dim2=second)  # whose axis is the last
            term = term[:first] + term[first + 1 : second] + term[second + 1 :] + label
    return tensor.permute([term.index(label) for label in out])


@decided_once
def _terms_of_view(expression: Expression, ndim: int) -> tuple[Term, Term] | None:
    """Both terms of an expression that transposes one operand or takes its diagonal, whatever its sizes."""
    return _kept_terms(expression, ndim)


@lru_cache(maxsize=1024)
def _kept_terms(expression: Expression, ndim: int) -> tuple[Term, Term] | None:
    try:
        core = resolve(expression, ((2,) * ndim,))
    except SubscriptsError:  # raised again by what knows the sizes
        return None
    [term] = core.inputs
    is_view = set(term) == set(core.output) and len(set(core.output)) == len(core.output)
    return (term, core.output) if is_view else None
