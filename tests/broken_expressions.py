"""Calls that einsum must reject: a valid random call, broken in one place; the other part of `random_case`.

Four families: the structure of labels and shapes, the text, the sublists, and all that stands beside them.
"""

from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import Any

import numpy as np
from oracle import reference
from random_expressions import (
    Case,
    Skeleton,
    call_arguments,
    describe,
    random_operands,
    random_skeleton,
    write_text,
)

PATH_ERRORS = (ValueError, TypeError, RuntimeError, KeyError)  # numpy: RuntimeError, opt_einsum: KeyError


def broken_case(rng: Random) -> Case:
    """One invalid case; a breakage that does not apply to the skeleton at hand is tried on another."""
    while True:
        family = rng.choice((broken_structure, broken_structure, broken_text, broken_sublists, broken_surroundings))
        case = family(rng)
        if case is not None:
            return case


def plain_skeleton(rng: Random) -> Skeleton:
    """A random skeleton of float64 operands, which no promotion or cast can spoil."""
    skeleton = random_skeleton(rng)
    skeleton.dtypes = [np.dtype("float64")] * len(skeleton.terms)
    return skeleton


# --- labels that do not fit shapes


def broken_structure(rng: Random) -> Case | None:
    skeleton = plain_skeleton(rng)
    breakage = rng.choice(STRUCTURAL)
    if not breakage(rng, skeleton):
        return None
    operands, layouts = random_operands(rng, skeleton, {})
    args = call_arguments(rng, skeleton, operands)
    caret = not skeleton.interleaved
    return Case(args, {}, False, f"{breakage.__name__}: {describe(args, {}, layouts)}", wants_caret=caret)


def sizes_disagree(rng: Random, skeleton: Skeleton) -> bool:
    """Two operands share a label of different sizes, neither of them 1."""
    for label in {label for term in skeleton.terms for label in term} - {Ellipsis}:
        holders = [i for i, term in enumerate(skeleton.terms) if label in term]
        if len(holders) > 1:
            for size, holder in zip((2, 3), rng.sample(holders, 2), strict=True):
                resize(skeleton, holder, label, size)
            return True
    return False


def resize(skeleton: Skeleton, operand: int, label: int, size: int) -> None:
    term, shape = skeleton.terms[operand], list(skeleton.shapes[operand])
    for axis, other in enumerate(term):
        if other == label:
            shape[axis if Ellipsis not in term[:axis] else axis - len(term)] = size
    skeleton.shapes[operand] = tuple(shape)


def a_diagonal_is_not_square(rng: Random, skeleton: Skeleton) -> bool:
    """A label stands twice in one operand with two sizes; 1 and n is no broadcast there."""
    operand = rng.randrange(len(skeleton.terms))
    term, shape = skeleton.terms[operand], skeleton.shapes[operand]
    labels = [label for label in term if label is not Ellipsis]
    if not labels or len(term) > 6:
        return False
    first, second = rng.choice(((1, 3), (3, 1), (2, 3), (4, 2)))
    skeleton.terms[operand] = [labels[0], *term, labels[0]]
    skeleton.shapes[operand] = (first, *shape, second)
    return True


def a_rank_is_wrong(rng: Random, skeleton: Skeleton) -> bool:
    operand = rng.randrange(len(skeleton.terms))
    term, shape = skeleton.terms[operand], skeleton.shapes[operand]
    if Ellipsis in term:
        skeleton.shapes[operand] = shape[: len(term) - 2]
        return len(term) > 1
    if shape and rng.random() < 0.5:
        skeleton.shapes[operand] = shape[1:]
    else:
        skeleton.shapes[operand] = (*shape, rng.choice((1, 2)))
    return True


def hidden_sizes_disagree(rng: Random, skeleton: Skeleton) -> bool:
    """Two ellipses stand for dimensions that do not broadcast."""
    holders = [i for i, term in enumerate(skeleton.terms) if Ellipsis in term]
    if len(holders) < 2:
        return False
    for size, holder in zip((2, 3), rng.sample(holders, 2), strict=True):
        term, shape = skeleton.terms[holder], skeleton.shapes[holder]
        at = term.index(Ellipsis)
        skeleton.shapes[holder] = (*shape[:at], size, *shape[len(shape) - (len(term) - 1 - at) :])
    return True


def an_output_label_is_nowhere(rng: Random, skeleton: Skeleton) -> bool:
    present = {label for term in skeleton.terms for label in term}
    absent = [label for label in range(8) if label not in present]
    if skeleton.output is None or not absent or len(skeleton.names) > 8:
        return False
    skeleton.output.insert(rng.randint(0, len(skeleton.output)), rng.choice(absent))
    return True


def a_term_has_two_ellipses(rng: Random, skeleton: Skeleton) -> bool:
    terms = [*skeleton.terms, *([skeleton.output] if skeleton.output is not None else [])]
    term = rng.choice(terms)
    if term and term[0] is not Ellipsis:
        term.insert(0, Ellipsis)
        term.append(Ellipsis)
        return True
    return False


STRUCTURAL: tuple[Callable[[Random, Skeleton], bool], ...] = (
    sizes_disagree, sizes_disagree, a_diagonal_is_not_square, a_rank_is_wrong, hidden_sizes_disagree,
    an_output_label_is_nowhere, a_term_has_two_ellipses,
)  # fmt: skip


# --- text that is no einsum


def broken_text(rng: Random) -> Case | None:
    skeleton = plain_skeleton(rng)
    skeleton.interleaved = False
    if not all(isinstance(name, str) and len(name) == 1 for name in skeleton.names):
        skeleton.names = "abcdefgh" if len(skeleton.names) <= 8 else [chr(0x4E00 + code) for code in range(80)]
    operands, layouts = random_operands(rng, skeleton, {})
    text = write_text(rng, skeleton)
    kind = rng.choice(("character", "character", "arrow", "dots", "comma", "too few", "too many"))
    before, *after = text.split("->")
    if kind == "character":
        at = rng.choice([i for i in range(len(text) + 1) if text[max(i - 1, 0) : i + 1] not in ("->",)])
        at = at if text[at - 1 : at + 1] != ".." else 0
        text = text[:at] + rng.choice("%$&0123456789_*+;:!?()[]{}'\"/\\|=~^@#`") + text[at:]
    elif kind == "arrow":
        joined = before + "-" + "".join(after)
        endings = ("->" + "->".join([*after, ""]) + "->", "-", ">", "<-", "->->", "=>" + "".join(after))
        text = rng.choice((*(before + ending for ending in endings), "->" + before + "->", joined))
    elif kind == "dots":
        text = rng.choice((before + "..", before + ".", "." + text, ".." + text, before.rstrip() + "....", text + ".."))
    elif kind == "comma":
        if not after:
            return None
        text = before + "->" + rng.choice((after[0] + ",", "," + after[0], after[0] + ",."))
    elif kind == "too few":
        operands = operands[:-1]
    else:
        operands = [*operands, np.ones(())]
    args = (text, *operands)
    return Case(args, {}, False, f"{kind}: {describe(args, {}, layouts)}", wants_caret=bool(operands))


# --- sublists that are no labels


def broken_sublists(rng: Random) -> Case | None:
    array = np.ones((2, 3))
    args, reason = rng.choice(SUBLISTS)(array)
    return Case(args, {}, False, f"{reason}: {args!r}")


SUBLISTS: tuple[Callable[[np.ndarray], tuple[tuple[Any, ...], str]], ...] = (
    lambda a: ((a,), "an operand without its sublist"),
    lambda a: ((a, 0), "a number for a sublist"),
    lambda a: ((a, None), "nothing for a sublist"),
    lambda a: ((a, [0, {}]), "a label that has no hash"),
    lambda a: ((a, [0, [1]], [0]), "a label that has no hash"),
    lambda a: ((a, [0, 1], [0, ["a"]]), "an output label that has no hash"),
    lambda a: ((a, [0, 1], a, [1, 0], 5), "a number for the output"),
    lambda a: ((), "no arguments"),
    lambda a: (("",), "no operands"),
    lambda a: (("ij->ij",), "no operands"),
    lambda a: ((0, 0), "a number for a sublist"),
)


# --- what stands beside the subscripts


def broken_surroundings(rng: Random) -> Case | None:
    skeleton = plain_skeleton(rng)
    operands, layouts = random_operands(rng, skeleton, {})
    args = call_arguments(rng, skeleton, operands)
    expected = reference(*args)
    breakage = rng.choice(SURROUNDINGS)
    change = breakage(rng, Surroundings(expected.value.shape, len(operands), expected.is_view))
    if change is None:
        return None
    kwargs, errors = change
    description = f"{breakage.__name__}: {describe(args, kwargs, layouts)}"
    return Case(args, kwargs, False, description, errors=errors)


@dataclass(frozen=True)
class Surroundings:
    shape: tuple[int, ...]
    operands: int
    is_view: bool


FORBIDDEN_CASTS = (  # of float64
    ("float32", "safe"),
    ("int64", "safe"),
    ("int64", "same_kind"),
    ("bool", "same_kind"),
    ("float32", "no"),
    ("complex128", "no"),
    ("float16", "equiv"),
)
Change = tuple[dict[str, Any], tuple[type[Exception], ...]] | None


def out_has_a_wrong_shape(rng: Random, call: Surroundings) -> Change:
    shapes = [(*call.shape, 1), (1, *call.shape), (*call.shape, 3)]
    if call.shape and min(call.shape) > 1:
        shapes += [call.shape[1:], tuple(size + 1 for size in call.shape), (1,) * len(call.shape)]
    return {"out": np.zeros(rng.choice(shapes))}, (ValueError, TypeError)


def out_is_read_only(rng: Random, call: Surroundings) -> Change:
    out = np.zeros(call.shape)
    out.flags.writeable = False
    return {"out": out}, (ValueError, TypeError)


def out_is_no_array(rng: Random, call: Surroundings) -> Change:
    return {"out": rng.choice((np.zeros(call.shape).tolist(), "test", 0, ()))}, (TypeError,)


def out_has_a_narrow_dtype(rng: Random, call: Surroundings) -> Change:
    name, casting = rng.choice(FORBIDDEN_CASTS)
    return {"out": np.zeros(call.shape, name), "casting": casting}, (ValueError, TypeError)


def dtype_forbids_the_cast(rng: Random, call: Surroundings) -> Change:
    if call.is_view:  # numpy then looks at neither dtype nor casting
        return None
    name, casting = rng.choice(FORBIDDEN_CASTS)
    return {"dtype": name, "casting": casting}, (TypeError,)


def dtype_is_none_that_einsum_knows(rng: Random, call: Surroundings) -> Change:
    if call.is_view:
        return None
    return {"dtype": rng.choice(("bad_data_type", "f3", 7.5, "U3", "M8[s]"))}, (TypeError,)


def casting_is_unknown(rng: Random, call: Surroundings) -> Change:
    return {"casting": rng.choice(("blah", "", 3))}, (ValueError, TypeError)


def order_is_unknown(rng: Random, call: Surroundings) -> Change:
    return {"order": rng.choice(("W", "d", "", "CF", 3))}, (ValueError, TypeError)


def a_keyword_is_unknown(rng: Random, call: Surroundings) -> Change:
    return {rng.choice(("bad_arg", "axis", "Out")): 0}, (TypeError,)


def the_optimizer_is_unknown(rng: Random, call: Surroundings) -> Change:
    if call.operands < 3:  # numpy and opt_einsum do not look: there is nothing to optimize
        return None
    return {"optimize": rng.choice(("optimall", "nonsense", ""))}, PATH_ERRORS


def the_path_does_not_fit(rng: Random, call: Surroundings) -> Change:
    last = call.operands - 1
    paths: list[Any] = [
        [(0, last + 1)],
        [(last + 5,)],
        [(0, 0)],
        ["einsum_path", (0, last + 2)],
        7,
        [0, 1],
        [(0.5, 1)],
    ]
    if last:
        paths += [[(*range(last + 1), last)], [tuple(range(last + 1)), (0, 1)], [("a", "b")]]
    if last > 1:
        paths += [[(0, 1)], [(0, 1)] * (last - 1), [(0, 1), (0, last)]]
    return {"optimize": rng.choice(paths)}, PATH_ERRORS


SURROUNDINGS: tuple[Callable[[Random, Surroundings], Change], ...] = (
    out_has_a_wrong_shape, out_is_read_only, out_is_no_array, out_has_a_narrow_dtype, dtype_forbids_the_cast,
    dtype_is_none_that_einsum_knows, casting_is_unknown, order_is_unknown, a_keyword_is_unknown,
    the_optimizer_is_unknown, the_path_does_not_fit,
)  # fmt: skip
