"""A vjp that is right by definition, and others made of it, each wrong in one way that a checker must notice."""

from collections.abc import Callable, Sequence
from functools import wraps
from itertools import combinations
from typing import Any

import numpy as np
from call_checks import oracle_einsum
from gradient_checkers import same_bits
from random_gradients import multilinear, operands_of, replaced, wide, wrt_positions

import gpueinsum as ge


def oracle_vjp(*args: Any, wrt: Any = None, optimize: Any = None, memory_limit: Any = None, **options: Any) -> Any:
    """A vjp that is right by definition."""
    operands = operands_of(args)
    arrays = [np.array(operand) for operand in operands]
    expression = multilinear(args)

    def pullback(cotangent: Any) -> tuple[np.ndarray, ...]:
        found = []
        for position in wrt_positions(wrt, len(operands)):
            gradient = expression.gradient(arrays, position, np.asarray(cotangent)).value
            dtype = arrays[position].dtype
            found.append((gradient if dtype.kind == "c" else gradient.real).astype(dtype))
        return tuple(found)

    return oracle_einsum(*args, **options), pullback


def bent(change: Callable[..., Sequence[Any]]) -> Callable[..., Any]:
    """oracle_vjp with `change(gradients, cotangent, arguments, wrt)` for its gradients."""

    @wraps(change)
    def vjp(*args: Any, wrt: Any = None, **options: Any) -> Any:
        value, pullback = oracle_vjp(*args, wrt=wrt, **options)

        def bent_pullback(cotangent: Any) -> tuple[Any, ...]:
            return tuple(change(list(pullback(cotangent)), cotangent, args, wrt))

        return value, bent_pullback

    return vjp


@bent
def without_the_conjugate(gradients: list[Any], cotangent: Any, args: tuple[Any, ...], wrt: Any) -> list[Any]:
    conjugates = [np.conj(wide(operand)) for operand in operands_of(args)]
    wrongly = [
        multilinear(args).gradient(conjugates, position, np.asarray(cotangent)).value
        for position in wrt_positions(wrt, len(conjugates))
    ]
    pairs = zip(wrongly, gradients, strict=True)
    return [(x if right.dtype.kind == "c" else x.real).astype(right.dtype) for x, right in pairs]


@bent
def conjugated(gradients: list[Any], *_: Any) -> list[Any]:
    """JAX's convention."""
    return [gradient.conj() if gradient.dtype.kind == "c" else gradient for gradient in gradients]


@bent
def twice(gradients: list[Any], *_: Any) -> list[Any]:
    return [gradient * gradient.dtype.type(2) for gradient in gradients]


@bent
def the_last_twice(gradients: list[Any], *_: Any) -> list[Any]:
    return [*gradients[:-1], gradients[-1] * gradients[-1].dtype.type(2)]


@bent
def swapped(gradients: list[Any], *_: Any) -> list[Any]:
    for i, j in combinations(range(len(gradients)), 2):
        if (gradients[i].shape, gradients[i].dtype) == (gradients[j].shape, gradients[j].dtype):
            gradients[i], gradients[j] = gradients[j], gradients[i]
    return gradients


@bent
def transposed(gradients: list[Any], *_: Any) -> list[Any]:
    return [gradient.T for gradient in gradients]


@bent
def not_summed_where_broadcast(gradients: list[Any], cotangent: Any, args: tuple[Any, ...], wrt: Any) -> list[Any]:
    """Of the products that belong to an element the last one wins."""
    expression, operands = multilinear(args), [wide(operand) for operand in operands_of(args)]
    for number, position in enumerate(wrt_positions(wrt, len(operands))):
        if 1 in expression.shapes[position] and 0 not in expression.result_shape:
            ones = replaced(operands, position, np.ones(expression.shapes[position]))
            products = expression.products(ones).conj() * wide(cotangent).reshape(-1)[expression.result]
            flat = np.zeros(gradients[number].size, products.dtype)
            flat[expression.places[position]] = products
            gradient = flat if gradients[number].dtype.kind == "c" else flat.real
            gradients[number] = gradient.reshape(gradients[number].shape).astype(gradients[number].dtype)
    return gradients


@bent
def of_the_broadcast_shape(gradients: list[Any], *_: Any) -> list[Any]:
    return [np.concatenate([x, x], x.shape.index(1)) if 1 in x.shape else x for x in gradients]


@bent
def dense_off_the_diagonal(gradients: list[Any], cotangent: Any, args: tuple[Any, ...], wrt: Any) -> list[Any]:
    for number, position in enumerate(wrt_positions(wrt, len(operands_of(args)))):
        off = np.ones(gradients[number].size, bool)
        off[multilinear(args).places[position]] = False
        gradients[number] = gradients[number] + off.reshape(gradients[number].shape).astype(gradients[number].dtype)
    return gradients


@bent
def zero(gradients: list[Any], *_: Any) -> list[Any]:
    return [np.zeros_like(gradient) for gradient in gradients]


@bent
def complex_for_real(gradients: list[Any], cotangent: Any, *_: Any) -> list[Any]:
    return [gradient + 0 * np.asarray(cotangent).reshape(-1)[:1].sum() for gradient in gradients]


@bent
def the_imaginary_part_for_the_real(gradients: list[Any], cotangent: Any, args: tuple[Any, ...], wrt: Any) -> list[Any]:
    operands = [np.asarray(operand) for operand in operands_of(args)]
    wrongly = [
        multilinear(args).gradient(operands, position, np.asarray(cotangent)).value
        for position in wrt_positions(wrt, len(operands))
    ]
    pairs = zip(wrongly, gradients, strict=True)
    return [
        right if right.dtype.kind == "c" or x.dtype.kind != "c" else x.imag.astype(right.dtype) for x, right in pairs
    ]


@bent
def in_ascending_order(gradients: list[Any], cotangent: Any, args: tuple[Any, ...], wrt: Any) -> list[Any]:
    order = np.argsort(wrt_positions(wrt, len(operands_of(args))))
    return [gradients[number] for number in order]


@bent
def of_every_operand(gradients: list[Any], cotangent: Any, args: tuple[Any, ...], wrt: Any) -> list[Any]:
    return list(oracle_vjp(*args)[1](cotangent)) if wrt is not None else gradients


@bent
def the_cotangent_itself(gradients: list[Any], cotangent: Any, *_: Any) -> list[Any]:
    return [cotangent if same_bits(gradient, cotangent) else gradient for gradient in gradients]


@bent
def one_array_for_two(gradients: list[Any], *_: Any) -> list[Any]:
    alike = [next(x for x in gradients if same_bits(x, gradient)) for gradient in gradients]
    return alike


@bent
def read_only(gradients: list[Any], *_: Any) -> list[Any]:
    return [np.broadcast_to(gradient, gradient.shape) for gradient in gradients]


@bent
def into_the_cotangent(gradients: list[Any], cotangent: Any, *_: Any) -> list[Any]:
    if isinstance(cotangent, np.ndarray) and cotangent.flags.writeable:
        cotangent[...] = 0
    return gradients


@bent
def into_an_operand(gradients: list[Any], cotangent: Any, args: tuple[Any, ...], wrt: Any) -> list[Any]:
    for operand in operands_of(args):
        if isinstance(operand, np.ndarray) and operand.flags.writeable:
            operand[...] = 0
    return gradients


def of_a_stale_cotangent(*args: Any, **options: Any) -> Any:
    value, pullback = oracle_vjp(*args, **options)
    seen: list[Any] = []

    def stale(cotangent: Any) -> Any:
        seen.append(cotangent)
        return pullback(seen[0])

    return value, stale


def in_one_buffer(*args: Any, **options: Any) -> Any:
    value, pullback = oracle_vjp(*args, **options)
    buffers: list[Any] = []

    def again(cotangent: Any) -> Any:
        gradients = pullback(cotangent)
        if not buffers:
            buffers.extend(gradients)
        for buffer, gradient in zip(buffers, gradients, strict=True):
            buffer[...] = gradient
        return tuple(buffers)

    return value, again


def growing(*args: Any, **options: Any) -> Any:
    """What a pullback leaves behind is added to what the next one finds."""
    value, pullback = oracle_vjp(*args, **options)
    calls: list[Any] = []

    def grown(cotangent: Any) -> Any:
        calls.append(cotangent)
        return tuple(np.asarray(x + x.dtype.type(len(calls) // 3)) for x in pullback(cotangent))

    return value, grown


def of_another_value(*args: Any, **options: Any) -> Any:
    value, pullback = oracle_vjp(*args, **options)
    return value + value.dtype.type(1), pullback


def that_never_fits(*args: Any, memory_limit: Any = None, **options: Any) -> Any:
    if memory_limit is not None:
        raise ge.PlanError("no plan keeps to the limit")
    return oracle_vjp(*args, **options)


# What is wrong, and the words in which some call must have it noticed.
VJP_FAULTS: dict[Callable[..., Any], str] = {
    without_the_conjugate: "<gradients, t>",
    conjugated: "<gradients, t>",
    twice: "<gradients, t>",
    the_last_twice: "<gradients, t>",
    swapped: "<gradients, t>",
    transposed: "<gradients, t>",
    not_summed_where_broadcast: "<gradients, t>",
    of_the_broadcast_shape: "its operand",
    dense_off_the_diagonal: "<gradients, t>",
    zero: "<gradients, t>",
    complex_for_real: "its operand",
    the_imaginary_part_for_the_real: "<gradients, t>",
    in_ascending_order: "<gradients, t>",
    of_every_operand: "gradients",
    the_cotangent_itself: "a result shares memory",
    one_array_for_two: "two results share memory",
    read_only: "read-only",
    into_the_cotangent: "cotangent was changed",
    into_an_operand: "operand or cotangent was changed",
    of_a_stale_cotangent: "<gradients, t>",
    in_one_buffer: "a later call changed",
    growing: "other gradients",
    of_another_value: "values",
    that_never_fits: "PlanError",
}
