"""First stage of a call: arguments as a caller passes them in, checked and hashable ones out."""

from __future__ import annotations

import importlib
import math
import operator
import re
from collections.abc import Hashable, Iterable, Mapping, Sequence, Set
from numbers import Number
from typing import Any, NamedTuple
from weakref import ref

import numpy as np

from gpueinsum.backends.base import Backend, Mode
from gpueinsum.backends.operands import on_device
from gpueinsum.backends.select import HOST
from gpueinsum.errors import DtypeError, OperandError, OptimizerError, OutError, PlanError, SubscriptsError
from gpueinsum.language.plan import NUMBERS
from gpueinsum.language.subscripts import Shape, Sublist
from gpueinsum.planning.path import Optimize, SlicedPath, read_tree
from gpueinsum.text import read_bytes

Array = Any
Dtype = np.dtype[Any]
Signature = tuple[tuple[Shape, Dtype], ...]
# What the caller wrote, hashable: the text, or the interleaved form's sublists and its output's (None if implicit).
Expression = str | tuple[tuple[Sublist, ...], Sublist | None]

_SHARE = re.compile(r"(\d+(?:\.\d+)?)\s*%")
_AUTO, _LEAST = 0.8, 0.4  # of a device's memory: less the operands', but at least
_BOOLS = (True, False)
_ALLOWED = {
    "order": ("K", "C", "F", "A", "k", "c", "f", "a", None),
    "casting": ("safe", "no", "equiv", "same_kind", "unsafe"),
    "precision": (None, "highest", "tf32", "bf16", "emulated"),
    "deterministic": _BOOLS,
    "autotune": _BOOLS,
    "graph": (*_BOOLS, None),
}


class Options(NamedTuple):
    """How a call wants its expression planned and its result made."""

    dtype: Any = None
    order: str | None = "K"
    casting: Any = "safe"
    optimize: Optimize = "auto"
    backend: str | None = None
    precision: str | None = None
    deterministic: bool = False
    autotune: bool = False
    memory_limit: Any = None  # of a run: bytes, a text, a share of the device
    graph: bool | None = False
    runs: int = 1  # the search for an order may take as long as so many runs could save
    optimize_seconds: float | None = None  # or so long
    largest_intermediate: Any = None  # elements, for searches for an order

    def check(self) -> Options:
        """These options, hashable: a dtype as numpy's, a path in tuples. Raises ValueError, DtypeError, PlanError.

        A search that stops by the clock could find another plan at another time: `deterministic` allows no search.
        """
        dtype, order, casting, optimize, backend, precision, deterministic, autotune, limit, *others = self
        graph, runs, wanted, largest = others
        values = (order, casting, precision, deterministic, autotune, graph)
        for value, (name, allowed) in zip(values, _ALLOWED.items(), strict=True):
            if value not in allowed:
                raise ValueError(f"{name}={value!r} is none of {', '.join(map(repr, allowed))}")
        if deterministic and graph:
            raise ValueError(
                "graph=True may give other bits than the first call does, and deterministic=True refuses that"
            )
        if deterministic and autotune:
            raise ValueError(
                "autotune=True chooses by the clock, which differs from run to run: deterministic=True refuses that"
            )
        wanted = None if wanted is None else read_seconds(wanted, optimize, largest, deterministic)
        bytes_limit(limit, memory=0)
        if not (largest is None or isinstance(largest, Number | str)):
            raise PlanError(f"largest_intermediate={largest!r} is not a number of elements")
        if dtype is not None:
            dtype = dtype_of(dtype)
            check_kind(dtype)
            if not dtype.isnative:
                dtype = dtype.newbyteorder("=")
        modes = precision, bool(deterministic), bool(autotune), limit, graph if graph is None else bool(graph)
        runs = 0 if deterministic else runs
        return Options(dtype, order, casting, _hashable(optimize), backend, *modes, runs, wanted, largest)

    @property
    def mode(self) -> Mode:
        """As far as the backend is asked."""
        return Mode(self.precision, self.graph, self.deterministic, self.autotune)


DEFAULT = Options()


def read_seconds(wanted: Any, optimize: Optimize, largest: Any, deterministic: bool) -> float:
    """The time of `optimize_seconds=`. Refuses what is none, and a time to search for an order that is given."""
    is_number = isinstance(wanted, int | float | np.integer | np.floating) and not isinstance(wanted, bool)
    if not (is_number and 0 <= wanted < math.inf):
        raise PlanError(f"optimize_seconds={wanted!r:.60} is no number of seconds")
    if not (optimize is None or optimize is True or (isinstance(optimize, str) and optimize == "auto")):
        raise PlanError(f"optimize_seconds={wanted} is for optimize='auto', and optimize is {optimize!r:.60}")
    if largest is not None:
        raise PlanError("optimize_seconds= and largest_intermediate= are for different searches: give one of them")
    if wanted and deterministic:
        raise ValueError(
            f"optimize_seconds={wanted} searches by the clock, which differs from run to run: deterministic=True "
            "refuses that"
        )
    return float(wanted)


def _hashable(optimize: Optimize) -> Optimize:
    """A path in tuples; of an optimizer a function that gives it, a weak reference where that can be."""
    optimize = read_tree(optimize)
    if optimize is None or isinstance(optimize, str | bool | SlicedPath):
        return optimize
    if isinstance(optimize, list | tuple | np.ndarray):
        return tuple(tuple(step) if isinstance(step, list | set | np.ndarray) else step for step in optimize)
    if not callable(optimize):  # 1 would be True to the caches, and an unhashable value no key
        raise OptimizerError(f"optimize={optimize!r} is no path, no optimizer and no name that opt_einsum knows")
    try:
        return ref(optimize).__call__  # an optimizer has one such reference: keys are equal if optimizers are the same
    except TypeError:  # the optimizer allows none
        return lambda: optimize


def hashable_form(subscripts: Any, operands: Sequence[Any]) -> tuple[Expression, Sequence[Any]]:
    """Tell text from the interleaved form; the expression to plan, and the operands."""
    if isinstance(subscripts, bytes):
        subscripts = subscripts.decode()
    if isinstance(subscripts, str):
        if not operands:
            raise SubscriptsError("an einsum needs at least one operand")
        return subscripts, operands
    arguments = (subscripts, *operands)
    if len(arguments) < 2:
        raise SubscriptsError("the first argument is neither subscripts nor an operand followed by its labels")
    pairs = arguments[: len(arguments) // 2 * 2]
    sublists = tuple(_sublist(labels, f"operand {number}") for number, labels in enumerate(pairs[1::2]))
    output = _sublist(arguments[-1], "the output, the last argument,") if len(arguments) % 2 else None
    return (sublists, output), pairs[0::2]


def _sublist(labels: Any, owner: str) -> Sublist:
    try:
        if getattr(labels, "dtype", np.dtype(int)).kind == "f":
            raise TypeError("floating-point labels")
        sublist: tuple[Hashable, ...] = tuple(labels)
        hash(sublist)
    except TypeError as error:
        hint = "" if isinstance(labels, list | tuple) else " (without a text, each operand is followed by its labels)"
        raise OperandError(f"{owner} needs a list of hashable labels, not {labels!r:.60}{hint}") from error
    return sublist


def read_shape(shape: Any) -> Shape:
    """A shape that is given as any sequence of integers, or by an array of that shape."""
    if getattr(shape, "ndim", 1) != 1:
        return array_shape(shape)
    try:
        sizes = tuple(operator.index(size) for size in shape)
    except TypeError as error:
        raise OperandError(f"{shape!r:.60} is no shape, a tuple of integers") from error
    if any(size < 0 for size in sizes):
        raise OperandError(f"shape {sizes} has a negative size")
    return sizes


def is_shape(operand: Any) -> bool:
    return isinstance(operand, tuple) and all(isinstance(size, int | np.integer) for size in operand)


def array_shape(operand: Any) -> Shape:
    return tuple(operand.shape) if hasattr(operand, "shape") else HOST.asarray(operand).shape


def array_dtype(operand: Any) -> Dtype:
    """The dtype of an operand as numpy has it, wherever the operand lives."""
    if isinstance(getattr(operand, "dtype", None), np.dtype):
        dtype: Dtype = operand.dtype
        return dtype
    if type(getattr(operand, "dtype", None)).__module__ == "torch":
        return dtype_of(operand.dtype)
    if on_device(operand) and hasattr(operand, "__cuda_array_interface__"):
        return dtype_of(operand.__cuda_array_interface__["typestr"])
    return dtype_of(HOST.asarray(operand).dtype)


def dtype_of(name: Any) -> Dtype:
    """The dtype that a caller names, as numpy or as torch does. Raises DtypeError."""
    if type(name).__module__ == "torch":
        name = str(name).removeprefix("torch.")
    try:
        if isinstance(name, str) and name == "bfloat16":
            importlib.import_module("ml_dtypes")  # registers the name with numpy
        dtype: Dtype = np.dtype(name)
        return dtype
    except ImportError as error:
        raise DtypeError("dtype='bfloat16' needs ml_dtypes: pip install ml_dtypes") from error
    except (TypeError, ValueError, SyntaxError) as error:  # numpy parses some names as lists of dtypes
        raise DtypeError(f"dtype={name!r} is no dtype") from error


def check_kind(dtype: Dtype, owner: str = "") -> None:
    """Raise DtypeError for a dtype whose elements are no numbers."""
    if dtype.name not in NUMBERS:
        raise DtypeError(f"{owner}elements of dtype {dtype} cannot be multiplied and added")


def check_differentiable(dtype: Dtype, owner: str) -> None:
    """Raise DtypeError for integers, bools and objects, which have no derivatives."""
    if dtype.kind not in "fc" and dtype.name != "bfloat16":
        remedy = "convert it to a floating dtype, or ask for others"
        raise DtypeError(f"{owner} is {dtype}, which has no derivative: {remedy}")


def positions_of(wrt: int | Sequence[int] | None, operands: int) -> tuple[int, ...]:
    """The positions that `wrt=` lists, all by default. Raises OperandError for one that no operand has."""
    if wrt is None:
        return tuple(range(operands))
    try:
        given = list(wrt) if isinstance(wrt, Iterable) else [wrt]
        if isinstance(wrt, str | bytes | Mapping | Set) or any(isinstance(k, bool | np.bool_) for k in given):
            raise TypeError("neither a text, a set nor a mask lists positions in an order")
        listed = tuple(map(operator.index, given))
    except TypeError as error:
        raise OperandError(f"wrt={wrt!r:.60} does not list positions of operands, 0, 1, ...") from error
    if not all(0 <= position < operands for position in listed):
        raise OperandError(f"wrt={wrt!r:.60} names an operand that is not there: the positions are 0 to {operands - 1}")
    return listed


def bytes_limit(limit: Any, memory: int | None = None, operands: int = 0) -> int | None:
    """A number of bytes, from a number, a text such as "4GiB", a share such as "80%" of a device's `memory`, or "auto".

    "auto" is 80 % of the device's memory less the `operands`, but at least 40 %: larger ones stay elsewhere. Raises
    PlanError.
    """
    number: Any = limit
    if limit is None:
        return None
    if isinstance(limit, str):
        number, share = read_bytes(limit), _SHARE.fullmatch(limit.strip())
        if share or limit == "auto":
            if memory is None:
                raise PlanError(f"memory_limit={limit!r:.60} is a share of a device, and a plan has none: give bytes")
            number = float(share[1]) / 100 * memory if share else max(_AUTO * memory - operands, _LEAST * memory)
    is_number = isinstance(number, int | float | np.integer | np.floating) and not isinstance(number, bool)
    if not (is_number and 0 <= number < math.inf):
        is_opt_einsums = isinstance(limit, int | str) and limit in (-1, "max_input")
        hint = ": opt_einsum's limit of elements is largest_intermediate= here" if is_opt_einsums else ""
        raise PlanError(f'memory_limit={limit!r:.60} is no number of bytes, "4GiB", "80%" or "auto"{hint}')
    return int(number)


def call_dtypes(
    dtypes: Sequence[Dtype], out: tuple[Shape, Dtype] | None, options: Options, backend: Backend
) -> tuple[Dtype, Dtype]:
    """The dtypes of the result and of the computation; every cast that they ask for is checked."""
    for number, source in enumerate(dtypes):
        check_kind(source, f"operand {number}: ")
    target = options.dtype
    if target is None:
        given = dtypes if out is None else [*dtypes, out[1]]
        try:
            target = np.result_type(*given).newbyteorder("=")
        except TypeError as error:
            raise DtypeError(f"no dtype holds all of {', '.join(map(str, given))}") from error
        check_kind(target)
    casting = options.casting
    for number, source in enumerate(dtypes):
        if not np.can_cast(source, target, casting):
            raise DtypeError(f"operand {number} is {source}, which casting={casting!r} does not cast to {target}")
    if out is not None and not np.can_cast(target, out[1], casting):
        raise DtypeError(f"the result is {target}, which casting={casting!r} does not cast to out's {out[1]}")
    return target, backend.compute_dtype(target)


def check_out(out: Array, operands: Sequence[Any], backend: Backend) -> None:
    """Refuse an `out=` that is no array, cannot be written, or lies where the operands do not."""
    if not isinstance(getattr(out, "dtype", None), np.dtype) or isinstance(out, np.generic):
        raise OperandError(f"out is of type {type(out).__name__}, not an array")
    if isinstance(out, np.ndarray) and not out.flags.writeable:
        raise OutError("out is read-only")
    is_there = on_device(out)
    if is_there != any(map(on_device, operands)):
        where = "on a GPU, but the operands are not" if is_there else "not on the GPU where the operands are"
        raise OutError(f"out is {where}")
    if is_there:
        backend.asarray(out)  # refused here if it is on another device
