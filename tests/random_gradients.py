"""Random differentiable calls, odd on purpose, and their derivatives by definition: a generator, and sums over points.

A `Call` is made of the stages of `random_expressions`: expressions of one to six operands with every oddity in labels
and memory, most of them float64, complex128 or both, some with narrower or wider dtypes, or with integers that are not
in `wrt`. A `Multilinear` is its expression as a list of index points, for which derivatives are sums of products; it
is made of the parts of the oracle and shares no code with gpueinsum.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from random import Random
from typing import Any

import numpy as np
from oracle import (
    BFLOAT16,
    CPU_ONLY_DTYPES,
    DTYPES,
    TOLERANCES,
    index_grid,
    label_sizes,
    name_the_ellipsis,
    parse,
)
from random_expressions import (
    PROMOTING_WITH_BFLOAT16,
    VALUES,
    Skeleton,
    call_arguments,
    describe,
    lay_out,
    random_cast,
    random_operands,
    random_optimize,
    random_skeleton,
)

FLOAT64, COMPLEX128 = np.dtype("float64"), np.dtype("complex128")
LIMITS_THAT_HOLD = ("1GiB", 2**30, 10**9, "1e3 MB", "2 GB")
SMALL_LIMITS = (0, 100, 1_000, "1kB", "4KiB")


@dataclass(frozen=True)
class Direction:
    """A tangent for each operand, None where it is not in `wrt`, and a cotangent of the value."""

    tangents: tuple[Any, ...]
    cotangent: Any


@dataclass(frozen=True)
class Call:
    """A call of vjp and jvp: einsum's arguments, what both take, what vjp alone takes, and directions to try."""

    args: tuple[Any, ...]
    options: dict[str, Any]  # of both
    wrt: Any
    memory_limit: Any
    directions: tuple[Direction, Direction]
    still: frozenset[int]  # operands whose tangent is left out in the second direction
    dtype: np.dtype  # of the value
    description: str

    @property
    def operands(self) -> list[Any]:
        return operands_of(self.args)

    @property
    def positions(self) -> list[int]:
        """`wrt` as a list."""
        return wrt_positions(self.wrt, len(self.operands))

    @property
    def subscripts(self) -> Any:
        """What jvp takes in the first place: the text or the sublists."""
        if isinstance(self.args[0], str):
            return self.args[0]
        return [*self.args[1::2], *self.args[len(self.args) // 2 * 2 :]]

    @property
    def of_vjp(self) -> dict[str, Any]:
        limit = {} if self.memory_limit is None else {"memory_limit": self.memory_limit}
        return {**self.options, **limit, **({} if self.wrt is None else {"wrt": self.wrt})}

    @property
    def of_einsum(self) -> dict[str, Any]:
        return {key: value for key, value in self.options.items() if key != "optimize"}

    @property
    def may_not_fit(self) -> bool:
        return self.memory_limit in SMALL_LIMITS

    @property
    def cpu_only(self) -> bool:
        return any(np.asarray(operand).dtype in CPU_ONLY_DTYPES for operand in self.operands)

    def tolerance(self, *dtypes: np.dtype) -> float:
        return max(TOLERANCES[dtype] for dtype in (self.dtype, *dtypes))


def operands_of(args: tuple[Any, ...]) -> list[Any]:
    """The operands among einsum's arguments in either form."""
    return list(args[1:] if isinstance(args[0], str) else args[: len(args) // 2 * 2 : 2])


def arguments_of(subscripts: Any, operands: Sequence[Any]) -> tuple[Any, ...]:
    """einsum's arguments for what jvp takes: the text, or the sublists that stand between the operands."""
    if isinstance(subscripts, str):
        return (subscripts, *operands)
    pairs = [argument for pair in zip(operands, subscripts, strict=False) for argument in pair]
    return (*pairs, *subscripts[len(operands) :])


def wrt_positions(wrt: Any, operands: int) -> list[int]:
    return list(range(operands)) if wrt is None else [wrt] if isinstance(wrt, int) else list(wrt)


def random_call(rng: Random) -> Call:
    """The next call of a seeded generator."""
    skeleton = random_skeleton(rng)
    add_twins(rng, skeleton)
    skeleton.dtypes = random_dtypes(rng, len(skeleton.terms))
    return call_of(rng, skeleton, random_float_cast(rng, skeleton.dtypes))


def random_plain_call(rng: Random) -> Call:
    """A call whose dtypes are all float64, all complex128, or both, with gradients of all operands."""
    skeleton = random_skeleton(rng)
    add_twins(rng, skeleton)
    skeleton.dtypes = random_doubles(rng, len(skeleton.terms))
    return call_of(rng, skeleton, {})


def call_of(rng: Random, skeleton: Skeleton, options: dict[str, Any]) -> Call:
    operands, layouts = random_operands(rng, skeleton, options)
    args = call_arguments(rng, skeleton, operands)
    if rng.random() < 0.3:
        options["order"] = rng.choice("CFAKcfak")
    if rng.random() < 0.5:
        options["optimize"] = random_optimize(rng, len(operands))
    dtype = np.dtype(options["dtype"]) if "dtype" in options else np.result_type(*skeleton.dtypes)
    floating = [position for position, given in enumerate(skeleton.dtypes) if is_inexact(given)]
    wrt = random_wrt(rng, floating, len(operands))
    limit = random_limit(rng)
    positions = wrt_positions(wrt, len(operands))
    directions = [random_direction(rng, skeleton, positions, multilinear(args).result_shape, dtype) for _ in "12"]
    layouts += [f"wrt={wrt}", f"memory_limit={limit}", *(f"{what}" for _, what in directions)]
    still = frozenset(rng.sample(positions, rng.randint(0, len(positions))))
    return Call(
        args, options, wrt, limit, (directions[0][0], directions[1][0]), still, dtype, describe(args, options, layouts)
    )


# --- what a call is made of


def add_twins(rng: Random, skeleton: Skeleton) -> None:
    """Now and then a second operand of the same term and shape, which may become the same array; six at most."""
    while len(skeleton.terms) < 6 and rng.random() < 0.2:
        twin = rng.randrange(len(skeleton.terms))
        at = rng.randint(0, len(skeleton.terms))
        skeleton.terms.insert(at, list(skeleton.terms[twin]))
        skeleton.shapes.insert(at, skeleton.shapes[twin])


def random_dtypes(rng: Random, number: int) -> list[np.dtype]:
    """At least one is a floating type; bfloat16 does not go with everything."""
    if rng.random() < 0.75:
        return random_doubles(rng, number)
    if rng.random() < 0.5:
        dtypes = [rng.choice([dtype for dtype in DTYPES if is_inexact(dtype)])] * number
    elif rng.random() < 0.3:
        dtypes = [rng.choice(PROMOTING_WITH_BFLOAT16) for _ in range(number)]
    else:
        pool = [*(dtype for dtype in DTYPES if dtype != BFLOAT16), np.dtype("longdouble"), np.dtype("clongdouble")]
        dtypes = [rng.choice(pool) for _ in range(number)]
    if not any(map(is_inexact, dtypes)):
        dtypes[rng.randrange(number)] = rng.choice((np.dtype("float32"), FLOAT64, COMPLEX128))
    return dtypes


def random_doubles(rng: Random, number: int) -> list[np.dtype]:
    pool = rng.choice(((FLOAT64,), (FLOAT64,), (COMPLEX128,), (FLOAT64, COMPLEX128), (FLOAT64, COMPLEX128)))
    return [rng.choice(pool) for _ in range(number)]


def random_float_cast(rng: Random, dtypes: list[np.dtype]) -> dict[str, Any]:
    """Nothing, or a `dtype=` in which there are derivatives."""
    options = random_cast(rng, dtypes)
    return options if "dtype" in options and is_inexact(np.dtype(options["dtype"])) else {}


def is_inexact(dtype: np.dtype) -> bool:
    return dtype.kind in "fc" or dtype == BFLOAT16


def random_wrt(rng: Random, floating: list[int], operands: int) -> Any:
    """Positions of floating operands: all of them, some in any order, or one, with or without a list around it."""
    if len(floating) == operands and rng.random() < 0.4:
        return None
    if rng.random() < 0.4:
        return rng.choice(floating)
    return rng.choice((list, tuple))(rng.sample(floating, rng.randint(1, len(floating))))


def random_limit(rng: Random) -> Any:
    if rng.random() < 0.75:
        return None
    return rng.choice(LIMITS_THAT_HOLD) if rng.random() < 0.7 else rng.choice(SMALL_LIMITS)


def random_direction(
    rng: Random, skeleton: Skeleton, positions: list[int], shape: tuple[int, ...], dtype: np.dtype
) -> tuple[Direction, str]:
    """Tangents of the operands' dtypes and a cotangent of the value's, or of narrower ones, in any memory layout."""
    tangents: list[Any] = [None] * len(skeleton.terms)
    for position in positions:
        tangents[position], _ = random_array(rng, skeleton.shapes[position], skeleton.dtypes[position])
    cotangent, layout = random_array(rng, shape, dtype)
    return Direction(tuple(tangents), cotangent), f"cotangent {np.asarray(cotangent).dtype} {layout}"


def random_array(rng: Random, shape: tuple[int, ...], dtype: np.dtype) -> tuple[Any, str]:
    if rng.random() < 0.1:
        narrower = {"f": "float16", "c": "float64", "V": "int8"}
        dtype = np.dtype(narrower[dtype.kind])
    pool = VALUES[dtype, False]
    return lay_out(rng, pool[rng.choices(range(len(pool)), k=prod(shape))].reshape(shape))


# --- the oracle


@dataclass(frozen=True)
class Sum:
    """Sums of products, and the sums of their absolute values, by which errors are judged."""

    value: Any
    magnitude: Any

    def __add__(self, other: Sum) -> Sum:
        return Sum(self.value + other.value, self.magnitude + other.magnitude)


@dataclass(frozen=True)
class Multilinear:
    """An expression as its index points: at each of them, the places in the flat operands and in the flat result."""

    places: list[np.ndarray]
    shapes: list[tuple[int, ...]]
    result: np.ndarray
    result_shape: tuple[int, ...]

    def __call__(self, factors: Sequence[np.ndarray]) -> Sum:
        """The expression's value for these operands, in double precision."""
        return scattered(self.products(factors), self.result, self.result_shape)

    def derivative(self, factors: Sequence[np.ndarray], tangents: Sequence[Any]) -> Sum:
        """J t: the sum over the operands that have a tangent of the value with this in the operand's place."""
        parts = [self(replaced(factors, k, wide(t))) for k, t in enumerate(tangents) if t is not None]
        return sum(parts, start=Sum(np.zeros(self.result_shape), np.zeros(self.result_shape)))

    def gradient(self, factors: Sequence[np.ndarray], position: int, cotangent: np.ndarray) -> Sum:
        """J^H g: what each element of an operand is multiplied with, conjugated, times the cotangent there."""
        ones = np.ones(self.shapes[position])
        rest = self.products(replaced(factors, position, ones)).conj()
        products = rest * wide(cotangent).reshape(-1)[self.result]
        return scattered(products, self.places[position], self.shapes[position])

    def products(self, factors: Sequence[np.ndarray]) -> np.ndarray:
        """The product of the operands' elements at every index point."""
        products = np.ones(self.result.shape)
        for factor, place in zip(factors, self.places, strict=True):
            products = products * wide(factor).reshape(-1)[place]
        return products


def multilinear(args: tuple[Any, ...]) -> Multilinear:
    """einsum's arguments as index points."""
    terms, output, operands = parse(args)
    shapes = [operand.shape for operand in operands]
    terms, output = name_the_ellipsis(terms, output, [len(shape) for shape in shapes])
    sizes = label_sizes(terms, shapes)
    points = prod(sizes.values())
    grid = index_grid(sizes, points)

    def places(term: list[Any], shape: tuple[int, ...]) -> np.ndarray:
        flat = np.zeros(points, np.intp)
        for label, size in zip(term, shape, strict=True):
            flat = flat * size + (grid[label] if size != 1 else 0)
        return flat

    result_shape = tuple(sizes[label] for label in output)
    each = [places(term, shape) for term, shape in zip(terms, shapes, strict=True)]
    return Multilinear(each, shapes, places(output, result_shape), result_shape)


def scattered(products: np.ndarray, places: np.ndarray, shape: tuple[int, ...]) -> Sum:
    """The products added up at these places of an array of zeros."""
    value, magnitude = np.zeros(prod(shape), products.dtype), np.zeros(prod(shape))
    np.add.at(value, places, products)
    np.add.at(magnitude, places, np.abs(products))
    return Sum(value.reshape(shape), magnitude.reshape(shape))


def wide(array: Any) -> np.ndarray:
    """The array in double precision, which holds the generator's values and the sums of their products exactly."""
    array = np.asarray(array)
    return array.astype(COMPLEX128 if array.dtype.kind == "c" else FLOAT64)


def replaced(factors: Sequence[Any], position: int, factor: Any) -> list[Any]:
    return [*factors[:position], factor, *factors[position + 1 :]]
