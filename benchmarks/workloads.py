"""What one row of the suite is: an equation, sizes, a dtype, where it comes from; its operands and its reference."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

Array = Any  # numpy's, CuPy's, PyTorch's or JAX'
_SEED = 20250817
_DRAWS = 16_777_213  # a prime, so that no axis has this period; a GPU's operands would take seconds to draw
_PRIMES = (2, 3, 5, 7, 11, 13, 17, 19, 23, 29, 31)


@dataclass(frozen=True, slots=True)
class Workload:
    """One row: an equation and the size of each of its labels, `"i=40 j=30"`.

    `large` are the sizes on a GPU, if they are others; `where` is "cpu" or "cuda" for a row of one of them alone. With
    `patches` the first operand is a view of an image: each pair of labels, as `"xi yj"`, shares one axis of it.
    """

    family: str
    name: str
    equation: str
    sizes: str
    source: str
    dtype: str = "float32"
    large: str = ""
    precision: str | None = None
    where: str = ""
    patches: str = ""

    def but(self, **changed: Any) -> Workload:
        """The same row with some fields changed."""
        return replace(self, **changed)

    def on(self, kind: str) -> Workload | None:
        """The row as it is measured on a device of this kind, "cpu" or "cuda"; None if it is not."""
        if self.where not in ("", kind):
            return None
        return replace(self, sizes=self.large) if self.large and kind == "cuda" else self

    def tiny(self) -> Workload:
        """The same row at sizes that are distinct primes, but where it is as small already."""
        sizes = zip(self.size.items(), _PRIMES * 20, strict=False)
        small = " ".join(f"{label}={min(size, prime)}" for (label, size), prime in sizes)
        return replace(self, sizes=small, large="")

    @property
    def size(self) -> Mapping[str, int]:
        return {label: int(size) for label, size in (item.split("=") for item in self.sizes.split())}

    @property
    def terms(self) -> tuple[str, ...]:
        """The labels of each operand, and last those of the result."""
        return tuple(self.equation.replace("->", ",").split(","))

    @property
    def shapes(self) -> tuple[tuple[int, ...], ...]:
        size = self.size
        return tuple(tuple(size[label] for label in term) for term in self.terms[:-1])

    @property
    def result_shape(self) -> tuple[int, ...]:
        return tuple(self.size[label] for label in self.terms[-1])

    @property
    def points(self) -> int:
        """How many index points one loop over all labels visits."""
        return math.prod(self.size.values())

    def transposed(self, position: int) -> str:
        """The equation of one operand's gradient, for a cotangent in its place: it and the result change places."""
        *inputs, output = self.terms
        inputs[position], output = output, inputs[position]
        return f"{','.join(inputs)}->{output}"

    def stored(self) -> list[np.ndarray[Any, Any]]:
        """The arrays that hold the operands, seeded: the operands themselves, but for the image behind patches."""
        rng = np.random.default_rng(_SEED)
        return [random_array(rng, shape, self.dtype) for shape in self.stored_shapes]

    @property
    def stored_shapes(self) -> tuple[tuple[int, ...], ...]:
        """Of the arrays that hold the operands."""
        if not self.patches:
            return self.shapes
        image = tuple(self.size[axis[0]] + sum(self.size[i] - 1 for i in axis[1:]) for axis in self._image_axes)
        return (image, *self.shapes[1:])

    def operands(
        self, stored: Sequence[Array] | None = None, as_strided: Callable[..., Array] | None = None
    ) -> list[Array]:
        """The operands in these arrays, of the library of `as_strided(array, shape, strides in elements)`."""
        arrays = list(self.stored() if stored is None else stored)
        if self.patches:
            arrays[0] = (as_strided or numpy_strided)(arrays[0], self.shapes[0], self.strides[0])
        return arrays

    @property
    def strides(self) -> tuple[tuple[int, ...], ...]:
        """Those of each operand, in elements: of C order, but for patches."""
        first, *others = (_c_strides(shape) for shape in self.stored_shapes)
        if self.patches:
            by_label = {label: stride for axis, stride in zip(self._image_axes, first, strict=True) for label in axis}
            first = tuple([by_label[label] for label in self.terms[0]])
        return (first, *others)

    @property
    def _image_axes(self) -> list[str]:
        """The labels that share each axis of the image behind patches, in the first operand's order."""
        pairs = self.patches.split()
        inner = {label for pair in pairs for label in pair[1:]}
        return [
            next((pair for pair in pairs if pair[0] == label), label) for label in self.terms[0] if label not in inner
        ]

    def cotangent(self) -> np.ndarray[Any, Any]:
        """Seeded, of the result's shape."""
        return random_array(np.random.default_rng(_SEED + 1), self.result_shape, self.dtype)


def _c_strides(shape: Sequence[int]) -> tuple[int, ...]:
    return tuple([math.prod(shape[axis + 1 :]) for axis in range(len(shape))])


def numpy_strided(array: Array, shape: Sequence[int], strides: Sequence[int]) -> Array:
    """numpy's view of other strides, these counted in elements."""
    return np.lib.stride_tricks.as_strided(array, shape, [stride * array.itemsize for stride in strides])


def random_array(rng: np.random.Generator, shape: Sequence[int], dtype: str) -> np.ndarray[Any, Any]:
    """Normally distributed, real and imaginary; integers below 8. After `_DRAWS` elements the draws come again."""
    kind = numpy_dtype(dtype)
    count = min(math.prod(shape), _DRAWS)
    if kind.kind in "iu":
        draws = rng.integers(0, 8, count).astype(kind)
    elif kind.kind == "c":
        draws = (rng.standard_normal(count) + 1j * rng.standard_normal(count)).astype(kind)
    else:
        draws = rng.standard_normal(count, np.float64 if dtype == "float64" else np.float32).astype(kind, copy=False)
    return np.resize(draws, shape)


def numpy_dtype(dtype: str) -> np.dtype[Any]:
    """By its name; numpy has bfloat16 from ml_dtypes."""
    if dtype == "bfloat16":
        import ml_dtypes

        return np.dtype(ml_dtypes.bfloat16)
    return np.dtype(dtype)
