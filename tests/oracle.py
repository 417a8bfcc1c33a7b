"""An einsum that anyone can check by reading: every index point is visited, no product or sum is clever.

It shares no code with gpueinsum and calls no einsum, tensordot, matmul or dot. `reference` takes einsum's
arguments and returns a `Reference` (value, allowed error, dtype), or raises ValueError or TypeError where
einsum must raise.
"""

from collections.abc import Hashable, Iterable
from dataclasses import dataclass
from math import prod
from typing import Any

import ml_dtypes
import numpy as np

BFLOAT16 = np.dtype(ml_dtypes.bfloat16)

# The one table of tolerances. An error is judged against the sum of the absolute products, so that
# cancellation does not matter: at least ten unit roundoffs, for a few rounded intermediates. 0 is exact.
TOLERANCES: dict[np.dtype, float] = {
    **{np.dtype(name): 0.0 for name in ("bool", "int8", "int16", "int32", "int64")},
    **{np.dtype(name): 0.0 for name in ("uint8", "uint16", "uint32", "uint64")},
    np.dtype("float16"): 5e-3,
    BFLOAT16: 4e-2,
    np.dtype("float32"): 2e-6,
    np.dtype("float64"): 4e-15,
    np.dtype("complex64"): 2e-6,
    np.dtype("complex128"): 4e-15,
    np.dtype("longdouble"): 4e-15,
    np.dtype("clongdouble"): 4e-15,
    np.dtype(object): 0.0,
}
CPU_ONLY_DTYPES = tuple(np.dtype(name) for name in ("longdouble", "clongdouble", "object"))
DTYPES = tuple(dtype for dtype in TOLERANCES if dtype not in CPU_ONLY_DTYPES)


@dataclass(frozen=True)
class Reference:
    """What einsum must return: `value`, in a type at least as wide, to be met within `error` everywhere."""

    value: np.ndarray
    error: np.ndarray
    dtype: np.dtype
    is_view: bool  # numpy returns a view of its single operand here


def reference(
    *args: Any, out: Any = None, dtype: Any = None, order: str = "K", casting: str = "safe", **ignored: Any
) -> Reference:
    """The sum over all index points of the products of the operands' elements, as einsum defines it."""
    terms, output, operands = parse(args)
    terms, output = name_the_ellipsis(terms, output, [operand.ndim for operand in operands])
    sizes = label_sizes(terms, [operand.shape for operand in operands])
    for label in output:
        if label not in sizes:
            raise ValueError(f"output label {label!r} is in no input")
    if str(order).upper() not in ("C", "F", "A", "K"):
        raise ValueError(f"bad order {order!r}")
    shape = tuple(sizes[label] for label in output)
    check_out(out, shape)
    compute, result = result_dtypes([operand.dtype for operand in operands], out, dtype, casting)

    value, magnitude = accumulate(terms, output, sizes, [operand.astype(compute) for operand in operands])
    tolerance = max(TOLERANCES[compute], TOLERANCES[result])
    is_view = (
        len(operands) == 1 and out is None and compute == operands[0].dtype
        and set(terms[0]) == set(output) and len(set(output)) == len(output)
    )  # fmt: skip
    if result != compute:
        value = value.astype(result)
    return Reference(value.reshape(shape), tolerance * magnitude.reshape(shape), result, is_view)


def assert_agrees(result: Any, expected: Reference) -> None:
    """Shape and dtype must be the reference's, and every element within its error."""
    got = np.asarray(result)
    assert got.shape == expected.value.shape, f"shape {got.shape}, not {expected.value.shape}"
    if got.dtype != expected.dtype and not (expected.dtype == object and got.ndim == 0):
        raise AssertionError(f"dtype {got.dtype}, not {expected.dtype}")
    if not np.any(expected.error):
        assert np.array_equal(got, expected.value), f"values\n{got}\nnot\n{expected.value}"
        return
    wide = got.astype(np.result_type(expected.value, np.float64))
    excess = np.abs(wide - expected.value) - expected.error
    assert np.all(excess <= 0), (
        f"values off by up to {excess.max():.3g} beyond tolerance:\n{got}\nnot\n{expected.value}"
    )


# --- what the arguments say


def parse(args: tuple[Any, ...]) -> tuple[list[list[Hashable]], list[Hashable] | None, list[np.ndarray]]:
    """Terms (lists of labels and Ellipsis), output (None if implicit) and operands of either form."""
    if not args:
        raise ValueError("no arguments")
    if isinstance(args[0], str):
        terms, output = parse_text(args[0])
        operands = [np.asarray(operand) for operand in args[1:]]
    else:
        paired = args[: len(args) // 2 * 2]
        operands = [np.asarray(operand) for operand in paired[0::2]]
        terms = [parse_sublist(sublist) for sublist in paired[1::2]]
        output = parse_sublist(args[-1]) if len(args) % 2 else None
    if not operands or len(operands) != len(terms):
        raise ValueError(f"{len(terms)} terms for {len(operands)} operands")
    return terms, output, operands


def parse_text(text: str) -> tuple[list[list[Hashable]], list[Hashable] | None]:
    inputs, *outputs = "".join(text.split()).split("->")
    if len(outputs) > 1:
        raise ValueError("more than one arrow")
    return [parse_term(term) for term in inputs.split(",")], parse_term(outputs[0]) if outputs else None


def parse_term(term: str) -> list[Hashable]:
    before, *after = term.split("...")
    if len(after) > 1:
        raise ValueError("more than one ellipsis in a term")
    for character in before + "".join(after):
        if character.isascii() and not character.isalpha():
            raise ValueError(f"{character!r} is no label")
    return [*before, Ellipsis, *after[0]] if after else [*before]


def parse_sublist(sublist: Any) -> list[Hashable]:
    if isinstance(sublist, str) or not isinstance(sublist, Iterable):
        raise TypeError(f"{sublist!r} is no list of labels")
    labels = list(sublist)
    if sum(label is Ellipsis for label in labels) > 1:
        raise ValueError("more than one ellipsis in a term")
    hash(tuple(labels))  # raises TypeError
    return labels


def name_the_ellipsis(
    terms: list[list[Hashable]], output: list[Hashable] | None, ranks: list[int]
) -> tuple[list[list[Hashable]], list[Hashable]]:
    """Replaces each Ellipsis by labels ("...", k), k counted from the right; writes an implicit output."""

    def expand(term: list[Hashable], rank: int) -> list[Hashable]:
        if Ellipsis not in term:
            return term
        at = term.index(Ellipsis)
        return [*term[:at], *(("...", k) for k in reversed(range(rank))), *term[at + 1 :]]

    hidden = [rank - (len(term) - 1) if Ellipsis in term else 0 for term, rank in zip(terms, ranks, strict=True)]
    if min(hidden) < 0:
        raise ValueError("fewer dimensions than labels beside the ellipsis")
    if output is None:
        every = [label for term in terms for label in term if label is not Ellipsis]
        output = [Ellipsis, *sorted(label for label in set(every) if every.count(label) == 1)]
    return [expand(term, rank) for term, rank in zip(terms, hidden, strict=True)], expand(output, max(hidden))


def label_sizes(terms: list[list[Hashable]], shapes: list[tuple[int, ...]]) -> dict[Hashable, int]:
    """The size of each label: all occurrences agree, but a whole operand may have 1 where others have n."""
    sizes: dict[Hashable, int] = {}
    for term, shape in zip(terms, shapes, strict=True):
        if len(term) != len(shape):
            raise ValueError(f"{len(term)} labels for {len(shape)} dimensions")
        own: dict[Hashable, int] = {}
        for label, size in zip(term, shape, strict=True):
            if own.setdefault(label, size) != size:
                raise ValueError(f"label {label!r} is {own[label]} and {size} in one operand")
        for label, size in own.items():
            known = sizes.get(label, 1)
            if 1 not in (known, size) and known != size:
                raise ValueError(f"label {label!r} is {known} and {size}")
            sizes[label] = size if known == 1 else known
    return sizes


def check_out(out: Any, shape: tuple[int, ...]) -> None:
    if out is None:
        return
    if not isinstance(out, np.ndarray):
        raise TypeError("out is no array")
    if out.shape != shape:
        raise ValueError(f"out has shape {out.shape}, not {shape}")
    if not out.flags.writeable:
        raise ValueError("out is read-only")


def result_dtypes(operands: list[np.dtype], out: Any, dtype: Any, casting: str) -> tuple[np.dtype, np.dtype]:
    """The dtype of the products and sums and that of the result; TypeError where `casting` forbids."""
    into = [] if out is None else [out.dtype]
    compute = np.result_type(*operands, *into) if dtype is None else np.dtype(dtype)
    result = into[0] if into else compute
    if compute not in TOLERANCES:
        raise TypeError(f"no products of {compute}")
    for given, wanted in [*((operand, compute) for operand in operands), (compute, result)]:
        if not np.can_cast(given, wanted, casting):
            raise TypeError(f"{given} is not cast to {wanted} when casting={casting!r}")
    return compute, result


# --- the sum itself


def accumulate(
    terms: list[list[Hashable]],
    output: list[Hashable],
    sizes: dict[Hashable, int],
    operands: list[np.ndarray],
) -> tuple[np.ndarray, np.ndarray]:
    """The flat result and the flat sum of absolute products, one index point after the other."""
    points = prod(sizes.values())
    grid = index_grid(sizes, points)
    work = working_dtype(operands[0].dtype)
    product = np.ones(points, work)
    for term, operand in zip(terms, operands, strict=True):
        where = tuple(grid[label] if size != 1 else 0 for label, size in zip(term, operand.shape, strict=True))
        factor = np.broadcast_to(operand.astype(work)[where], points)
        product = product & factor if work.kind == "b" else product * factor

    flat = np.zeros(points, np.intp)
    for label in output:
        flat = flat * sizes[label] + grid[label]
    cells = prod(sizes[label] for label in output)
    value, magnitude = np.zeros(cells, work), np.zeros(cells)
    (np.logical_or if work.kind == "b" else np.add).at(value, flat, product)
    if work.kind in "fc":
        np.add.at(magnitude, flat, np.abs(product).astype(float))
    return value, magnitude


def index_grid(sizes: dict[Hashable, int], points: int) -> dict[Hashable, np.ndarray]:
    """For each label its index at every point, by arithmetic: numpy has 64 axes, we may have more."""
    grid, rest = {}, np.arange(points)
    for label, size in reversed(sizes.items()):
        rest, grid[label] = np.divmod(rest, max(size, 1))
    return grid


def working_dtype(dtype: np.dtype) -> np.dtype:
    """Integers wrap in their own type; floats are summed in double precision at least."""
    if dtype == BFLOAT16:
        return np.dtype("float64")
    return dtype if dtype.kind in "biuO" else np.result_type(dtype, np.float64)
