"""Random einsum calls, odd on purpose: a seeded generator in, a `Case` (arguments, valid or not) out.

A case is made in stages: a skeleton of labels and shapes, the operands with their dtypes and memory layouts,
the keywords, the calling form. There are at most 2,000 index points. The invalid ones, one in seven, are
valid skeletons that `broken_expressions` breaks in one place.
"""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from math import prod
from random import Random
from typing import Any

import numpy as np
from oracle import BFLOAT16, CPU_ONLY_DTYPES, DTYPES, reference

MOST_POINTS = 2_000
ALPHABETS: tuple[Sequence[str], ...] = (
    "abcdefgh", "ijklmnop", "aBcDeFgH", "αβγδεζηθ", "zaΩé你∂bж", "😀🐍i🎲jk🚀l", "bAñ𝔸aßкZ",
)  # fmt: skip
NAMES: tuple[Sequence[Hashable], ...] = (
    range(8), (51, 3, 0, 17, 8, 25, 26, 1), (1000, -3, 7, 52, 2, 99, 10**12, 5),
    ("left", "bond", "right", "b", "a", "c", "spin", "ß"),
    ((0, 1), (1, 0), (0, 0), (2, 3), (1, 1), (5, 5), (9, 0), (0, 9)), tuple(np.arange(8)),
)  # fmt: skip
UNSORTABLE_NAMES: Sequence[Hashable] = ("a", 1, ("b", 2), 2.5, frozenset("x"), None, object, b"k")
OPTIMIZERS: tuple[Any, ...] = (
    True, False, True, False, None, "auto", "auto", "greedy", "greedy", "optimal", "dp", "branch-1",
    "branch-2", "branch-all", "auto-hq", "random-greedy", "eager", "opportunistic",
    ("greedy", 10_000), ("optimal", 5),
)  # fmt: skip
PROMOTING_WITH_BFLOAT16 = tuple(
    np.dtype(dtype) for dtype in ("bool", "int8", "uint8", BFLOAT16, "float32", "float64", "complex64")
)


@dataclass(frozen=True)
class Case:
    """A call of einsum; `frame` is (base, window) where out is base[window], the rest not to be touched."""

    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    valid: bool
    description: str
    wants_caret: bool = False
    errors: tuple[type[Exception], ...] = (ValueError, TypeError)
    cpu_only: bool = False
    frame: tuple[np.ndarray, tuple[Any, ...]] | None = None


@dataclass
class Skeleton:
    """Terms of numbered labels (and Ellipsis), the shapes to them, and the output (None if implicit)."""

    terms: list[list[Any]]
    shapes: list[tuple[int, ...]]
    output: list[Any] | None
    names: Sequence[Hashable]
    interleaved: bool
    dtypes: list[np.dtype] = field(default_factory=list)


def random_case(rng: Random) -> Case:
    """The next case of a seeded generator."""
    from broken_expressions import broken_case  # which builds on this module

    if rng.random() < 0.15:
        return broken_case(rng)
    return valid_case(rng, random_skeleton(rng))


def valid_case(rng: Random, skeleton: Skeleton) -> Case:
    skeleton.dtypes = random_dtypes(rng, len(skeleton.terms))
    kwargs = random_cast(rng, skeleton.dtypes)
    operands, layouts = random_operands(rng, skeleton, kwargs)
    args = call_arguments(rng, skeleton, operands)
    if rng.random() < 0.4:
        kwargs["order"] = rng.choice("CFAKCFAKcfak")
    if rng.random() < 0.5:
        kwargs["optimize"] = random_optimize(rng, len(operands))
    frame = None
    if rng.random() < 0.15:
        kwargs["out"], frame, kind = random_out(rng, args, operands, kwargs)
        layouts.append(f"out {kind} {kwargs['out'].dtype}{list(kwargs['out'].shape)}")
    cpu_only = any(dtype in CPU_ONLY_DTYPES for dtype in skeleton.dtypes)
    return Case(args, kwargs, True, describe(args, kwargs, layouts), cpu_only=cpu_only, frame=frame)


def describe(args: Sequence[Any], kwargs: dict[str, Any], layouts: list[str]) -> str:
    """The call in one line, arrays as dtype, shape and layout."""
    written = [repr(arg) for arg in args if isinstance(arg, str | list | tuple)]
    options = [f"{key}={value!r}" for key, value in kwargs.items() if key != "out"]
    return "einsum(" + " ".join(written)[:300] + "; " + ", ".join([*layouts, *options]) + ")"


# --- labels and shapes


def random_skeleton(rng: Random) -> Skeleton:
    if rng.random() < 0.01:
        return skeleton_of_many_labels(rng)
    number = rng.choices((1, 2, 3, 4, 5), (25, 40, 20, 10, 5))[0]
    labels = range(rng.choice((0, 1, 2, 3, 3, 4, 4, 5, 6)))
    sizes = {label: rng.choices((0, 1, 2, 3, 4, 5), (2, 10, 30, 30, 18, 10))[0] for label in labels}
    hidden = [rng.choices((0, 1, 2, 3), (3, 20, 40, 37))[0] for _ in range(rng.choice((0, 1, 1, 2, 2)))]
    with_ellipsis = rng.random() < 0.25
    shrink_to_fit(sizes, hidden)

    terms, shapes = [], []
    for _ in range(number):
        term, shape = random_term(rng, sizes)
        if with_ellipsis and rng.random() < 0.7:
            at = rng.randint(0, len(term))
            kept = hidden[len(hidden) - rng.randint(0, len(hidden)) :]
            shape[at:at] = [1 if rng.random() < 0.15 else size for size in kept]
            term.insert(at, Ellipsis)
        terms.append(term)
        shapes.append(tuple(shape))

    interleaved = rng.random() < 0.2
    output = None if rng.random() < 0.3 else random_output(rng, terms)
    names = rng.choice(NAMES if interleaved else ALPHABETS)
    if interleaved and output is not None and rng.random() < 0.2:
        names = UNSORTABLE_NAMES
    return Skeleton(terms, shapes, output, names, interleaved)


def shrink_to_fit(sizes: dict[int, int], hidden: list[int]) -> None:
    while prod(sizes.values()) * prod(hidden) > MOST_POINTS:
        largest = max(sizes, key=lambda label: sizes[label])
        sizes[largest] = max(1, sizes[largest] // 2)


def random_term(rng: Random, sizes: dict[int, int]) -> tuple[list[Any], list[int]]:
    """Labels of one operand, repeats among them, and its shape, in which a label is 1 now and then."""
    labels = list(sizes)
    rank = min(rng.choice((0, 1, 1, 2, 2, 2, 3, 3, 4)), 2 * len(labels))
    if rng.random() < 0.3 or rank > len(labels):
        term = [rng.choice(labels) for _ in range(rank)]
    else:
        term = rng.sample(labels, rank)
    own = {label: 1 if rng.random() < 0.08 else sizes[label] for label in labels}
    return list(term), [own[label] for label in term]


def random_output(rng: Random, terms: list[list[Any]]) -> list[Any]:
    """Some labels in any order; some twice, which embeds on the diagonal; the ellipsis kept or summed."""
    present = list(dict.fromkeys(label for term in terms for label in term if label is not Ellipsis))
    output: list[Any] = rng.sample(present, rng.randint(0, min(len(present), 5)))
    if output and rng.random() < 0.1:
        for _ in range(rng.choice((1, 1, 2))):
            output.insert(rng.randint(0, len(output)), rng.choice(output))
    if any(Ellipsis in term for term in terms) and rng.random() < 0.8:
        output.insert(rng.randint(0, len(output)), Ellipsis)
    return output


def skeleton_of_many_labels(rng: Random) -> Skeleton:
    """Two operands of up to 32 dimensions with more labels than the alphabet has, most of them of size 1."""
    labels = rng.sample(range(80), 64)
    sizes = {label: 2 if rng.random() < 0.1 else 1 for label in labels}
    shrink_to_fit(sizes, [])
    split = rng.randint(20, 32)
    terms = [rng.sample(labels[:split], split), rng.sample(labels[split - 6 : 60], 66 - split)]
    terms[1] = terms[1][:32]
    output = rng.sample(sorted({*terms[0], *terms[1]}), rng.randint(0, 30))
    interleaved = rng.random() < 0.5
    names: Sequence[Hashable] = range(80) if interleaved else [chr(0x4E00 + code) for code in range(80)]
    return Skeleton(terms, [tuple(sizes[x] for x in term) for term in terms], output, names, interleaved)


# --- dtypes, values and memory


def random_dtypes(rng: Random, number: int) -> list[np.dtype]:
    kind = rng.random()
    if kind < 0.5:
        return [rng.choice(DTYPES)] * number
    if kind < 0.56:
        return [rng.choice(CPU_ONLY_DTYPES)] * number
    pool = PROMOTING_WITH_BFLOAT16 if kind < 0.65 else [dtype for dtype in DTYPES if dtype != BFLOAT16]
    return [rng.choice(pool) for _ in range(number)]


def random_cast(rng: Random, dtypes: list[np.dtype]) -> dict[str, Any]:
    """Nothing, or a `dtype=` that `casting=` allows; no cast that loses an imaginary part or a sign."""
    if rng.random() < 0.8 or any(dtype in CPU_ONLY_DTYPES for dtype in dtypes):
        return {}
    casting = rng.choice(("no", "equiv", "safe", "same_kind", "unsafe"))
    for dtype in rng.sample(DTYPES, len(DTYPES)):
        drops_imaginary = dtype.kind not in "cb" and any(given.kind == "c" for given in dtypes)
        drops_sign = dtype.kind == "u" and any(given.kind in "fV" for given in dtypes)
        if not (drops_imaginary or drops_sign) and all(np.can_cast(given, dtype, casting) for given in dtypes):
            named = rng.choice((dtype, dtype.type)) if dtype == BFLOAT16 else rng.choice((dtype, dtype.name))
            return {
                "dtype": named,
                **({} if casting == "safe" and rng.random() < 0.5 else {"casting": casting}),
            }
    return {}


def random_operands(rng: Random, skeleton: Skeleton, kwargs: dict[str, Any]) -> tuple[list[Any], list[str]]:
    """The operands and a word on each one's memory; integers come near their limits where the sum wraps."""
    compute = np.dtype(kwargs["dtype"]) if "dtype" in kwargs else np.result_type(*skeleton.dtypes)
    operands: list[Any] = []
    layouts: list[str] = []
    for shape, dtype in zip(skeleton.shapes, skeleton.dtypes, strict=True):
        twins = [x for x in operands if isinstance(x, np.ndarray) and (x.shape, x.dtype) == (shape, dtype)]
        if twins and rng.random() < 0.15:
            operand, layout = twins[0], "again"
        else:
            pool = VALUES[dtype, compute.kind in "iu"]
            values = pool[rng.choices(range(len(pool)), k=prod(shape))].reshape(shape)
            operand, layout = lay_out(rng, values)
        operands.append(operand)
        layouts.append(f"{dtype}{list(shape)} {layout}")
    return operands, layouts


def value_pools() -> dict[tuple[np.dtype, bool], np.ndarray]:
    """By dtype and whether to come near its limits: values exact in half precision and not far from 1."""
    pools = {}
    for dtype in (*DTYPES, *CPU_ONLY_DTYPES):
        real = [-1.5, -1.25, -0.75, -0.5, 0.25, 0.5, 0.75, 1.0, 1.25, 1.5]
        grid = [complex(re, im) for re in real[::3] for im in real[1::3]]
        small = {"b": [0, 1], "u": [0, 1, 1, 2], "i": [-2, -1, 0, 1, 2], "O": [-3, -1, 2, 5], "c": grid}
        pools[dtype, False] = pools[dtype, True] = np.array(small.get(dtype.kind, real)).astype(dtype)
        if dtype.kind in "iu":
            low, high = int(np.iinfo(dtype).min), int(np.iinfo(dtype).max)
            pools[dtype, True] = np.array([high, high - 1, low, high // 3, 0, 1, 2, 3, 7, 11], dtype)
    return pools


VALUES = value_pools()
LISTABLE = ("bool", "int64", "float64", "complex128")  # what a list of Python's own numbers becomes


def lay_out(rng: Random, values: np.ndarray) -> tuple[Any, str]:
    """The same values (but for broadcast ones) in some memory layout, or as a list or scalar."""
    layout = rng.choice(("C", "C", "C", "F", "strided", "reversed", "permuted", "stride 0", "read-only", "list"))
    if layout == "F":
        return values.copy(order="F"), layout
    if layout == "strided" and values.ndim < 6:
        window = tuple(slice(rng.randint(0, 1), None, 2) for _ in values.shape)
        base = np.zeros([2 * size + 1 for size in values.shape], values.dtype)
        view = base[..., *window][..., *(slice(size) for size in values.shape)]
        view[...] = values
        return view, layout
    if layout == "reversed":
        flip = tuple(slice(None, None, rng.choice((-1, 1))) for _ in values.shape)
        return values[..., *flip].copy()[..., *flip], layout
    if layout == "permuted":
        axes = rng.sample(range(values.ndim), values.ndim)
        return values.transpose(axes).copy().transpose(np.argsort(axes)), layout
    if layout == "stride 0" and values.ndim:
        first = tuple(slice(1 if rng.random() < 0.6 else None) for _ in values.shape)
        return np.broadcast_to(values[first], values.shape) if values.size else values, layout
    if layout == "read-only":
        values.flags.writeable = False
        return values, layout
    if layout == "list" and values.dtype in LISTABLE and values.size:
        return values.tolist(), layout  # of a 0-d array: a Python scalar
    if layout == "list" and values.ndim == 0 and values.dtype != object:
        return values[()], "scalar"
    return values, "C"


# --- keywords and calling forms


def random_out(
    rng: Random, args: tuple[Any, ...], operands: list[Any], kwargs: dict[str, Any]
) -> tuple[np.ndarray, tuple[np.ndarray, tuple[Any, ...]] | None, str]:
    """An array for the result: an operand itself, a view of one, or a window of a larger base."""
    expected = reference(*args, **kwargs)
    shape, dtype = expected.value.shape, expected.dtype
    fitting = [
        x for x in operands
        if isinstance(x, np.ndarray) and x.ndim and x.dtype == dtype and x.flags.writeable
        and 0 not in x.strides
    ]  # fmt: skip
    for operand in fitting:
        if operand.shape == shape and rng.random() < 0.7:
            flip = tuple(slice(None, None, rng.choice((-1, 1, 1))) for _ in shape)
            return operand[..., *flip], None, "aliasing"
        if operand.T.shape == shape:
            return operand.T, None, "aliasing the transpose"
    if rng.random() < 0.25 and dtype != BFLOAT16 and dtype not in CPU_ONLY_DTYPES:
        casting = kwargs.get("casting", "safe")
        if "casting" not in kwargs and rng.random() < 0.5:
            casting = kwargs["casting"] = "same_kind"
        dtype = rng.choice([x for x in DTYPES if x.kind == dtype.kind and np.can_cast(dtype, x, casting)])
    kind = rng.choice(("C-ordered", "F-ordered", "window", "window"))
    if kind != "window" or len(shape) > 5:
        return np.full(shape, 1, dtype, order="F" if kind[0] == "F" else "C"), None, kind
    window = tuple(rng.choice((slice(1, size + 1), slice(size, 0, -1), slice(1, 2 * size + 1, 2))) for size in shape)
    window = tuple(slice(0, 0) if size == 0 else cut for size, cut in zip(shape, window, strict=True))
    base = np.full([2 * size + 2 for size in shape], 1, dtype)
    return base[..., *window], (base, (..., *window)), kind


def random_optimize(rng: Random, operands: int) -> Any:
    if rng.random() < 0.7:
        return rng.choice(OPTIMIZERS)
    path = random_path(rng, operands)
    return ["einsum_path", *path] if rng.random() < 0.3 else path


def random_path(rng: Random, operands: int) -> list[tuple[int, ...]]:
    """Steps over mostly two, at times more, now and then one operand; each result goes to the end."""
    path = []
    while operands > 1:
        number = rng.randint(2, operands) if rng.random() < 0.3 else 2
        if rng.random() < 0.07:
            number = 1
        path.append(tuple(rng.sample(range(operands), number)))
        operands -= number - 1
    return path or [(0,)]


def call_arguments(rng: Random, skeleton: Skeleton, operands: list[Any]) -> tuple[Any, ...]:
    if not skeleton.interleaved:
        return (write_text(rng, skeleton), *operands)
    args: list[Any] = []
    for term, operand in zip(skeleton.terms, operands, strict=True):
        args += [operand, write_sublist(rng, skeleton, term)]
    if skeleton.output is not None:
        args.append(write_sublist(rng, skeleton, skeleton.output))
    return tuple(args)


def write_sublist(rng: Random, skeleton: Skeleton, term: list[Any]) -> Any:
    labels = [label if label is Ellipsis else skeleton.names[label] for label in term]
    if skeleton.names == range(8) and Ellipsis not in labels and rng.random() < 0.1:
        return np.array(labels, int)
    return rng.choice((list, tuple))(labels)


def write_text(rng: Random, skeleton: Skeleton) -> str:
    def write(term: list[Any]) -> list[str]:
        return ["..." if label is Ellipsis else str(skeleton.names[label]) for label in term]

    tokens = [token for term in skeleton.terms for token in [",", *write(term)]][1:]
    if skeleton.output is not None:
        tokens += ["->", *write(skeleton.output)]
    if rng.random() < 0.85:
        return "".join(tokens)
    spaces = rng.choice(("  ", " ", "\t", " \n"))
    return "".join(rng.choice((token, token + spaces, spaces + token)) for token in tokens)
