"""Worked examples: each function computes one with `einsum` on numpy or CuPy arrays, and once more with plain numpy.

`gpueinsum demo` runs the examples and the tests check them. An example takes the array module, and the einsum to use so
that the demo can time it; it returns the result and the result expected.
"""

from __future__ import annotations

import itertools
import string
from collections.abc import Callable
from typing import Any

import numpy as np

from gpueinsum.api.einsum import einsum as _einsum

Array = Any  # numpy's or CuPy's
Example = Callable[..., tuple[Array, Any]]


def convolution(xp: Any, einsum: Any = _einsum) -> tuple[Array, Any]:
    """A filter slides over an image: the patches are a view of the image, and no patch is copied."""
    image, kernel = _random((211, 307)), _random((5, 3))
    on_device, shape = xp.asarray(image), (207, 305)
    patches = xp.lib.stride_tricks.as_strided(on_device, (*shape, *kernel.shape), on_device.strides * 2)
    result = einsum("xyij,ij->xy", patches, xp.asarray(kernel))

    expected = np.zeros(shape)
    for i, j in np.ndindex(kernel.shape):
        expected += kernel[i, j] * image[i : i + shape[0], j : j + shape[1]]
    return result, expected


def softmax_jacobian(xp: Any, einsum: Any = _einsum) -> tuple[Array, Any]:
    """The gradient of cross-entropy through the softmax's full Jacobian is A - Y; each column is a sample."""
    probabilities = np.array([[0.2, 0.5], [0.5, 0.1], [0.3, 0.4]])
    truth = np.array([[1.0, 0.0], [0.0, 0.0], [0.0, 1.0]])
    a, eye = xp.asarray(probabilities), xp.eye(3)
    jacobian = einsum("jk,jk,ji->ijk", a, 1 - a, eye) + einsum("jk,ik,ji->ijk", -a, a, 1 - eye)
    cotangent = -xp.asarray(truth) / a
    return einsum("ikj,kj->ij", jacobian, cotangent), probabilities - truth


def matrix_chain(xp: Any, einsum: Any = _einsum) -> tuple[Array, Any]:
    """The order decides: from its narrow end this chain takes a 24th of the work."""
    a, b, c, d = _random((401, 307)), _random((307, 211)), _random((211, 103)), _random((103, 7))
    result = einsum("ij,jk,kl,lm->im", *map(xp.asarray, (a, b, c, d)))
    return result, a @ (b @ (c @ d))


def mps_norm(xp: Any, einsum: Any = _einsum) -> tuple[Array, Any]:
    """The norm of a matrix product state: 16 complex tensors in one expression, against site by site."""
    bonds = [1, 2, 5, 11, 13, 11, 5, 2, 1]
    sites = [
        (_random((left, 3, right)) + 1j * _random((left, 3, right), seed=2)) / left
        for left, right in itertools.pairwise(bonds)
    ]
    ket, bra, physical = (string.ascii_letters[start : start + len(bonds)] for start in (0, 26, 13))
    terms = [row[n] + physical[n] + row[n + 1] for row in (ket, bra) for n in range(len(sites))]
    tensors = [*sites, *(site.conj() for site in sites)]
    result = einsum(",".join(terms) + "->", *map(xp.asarray, tensors))

    environment = np.ones((1, 1), complex)
    for site in sites:
        environment = np.sum([site[:, s].T @ environment @ site[:, s].conj() for s in range(3)], axis=0)
    return result, environment[0, 0]


def coupled_cluster_term(xp: Any, einsum: Any = _einsum) -> tuple[Array, Any]:
    """A ring term of coupled cluster with doubles: amplitudes, integrals, amplitudes."""
    integrals, amplitudes = _random((5, 5, 17, 17)), _random((17, 17, 5, 5))
    result = einsum("klcd,acik,dblj->abij", *map(xp.asarray, (integrals, amplitudes, amplitudes)))

    ring = np.tensordot(amplitudes, integrals, axes=([1, 3], [2, 0]))  # a, i, l, d
    return result, np.tensordot(ring, amplitudes, axes=([2, 3], [2, 0])).transpose(0, 2, 1, 3)


def attention(xp: Any, einsum: Any = _einsum) -> tuple[Array, Any]:
    """Attention in float32: scores, softmax, average, on arrays whose heads lie between position and feature."""
    q, k, v = (_random((3, length, 5, 32), seed).astype(np.float32) for length, seed in ((61, 1), (67, 2), (67, 3)))
    scores = einsum("bqhd,bkhd->bhqk", xp.asarray(q), xp.asarray(k)) / np.float32(32) ** np.float32(0.5)
    weights = xp.exp(scores - scores.max(axis=-1, keepdims=True))
    weights /= weights.sum(axis=-1, keepdims=True)
    result = einsum("bhqk,bkhd->bqhd", weights, xp.asarray(v))

    expected = np.empty((3, 61, 5, 32))
    for b, h in np.ndindex(3, 5):
        exact = np.exp(q[b, :, h].astype(float) @ k[b, :, h].T.astype(float) / 32**0.5)
        expected[b, :, h] = exact / exact.sum(axis=1, keepdims=True) @ v[b, :, h].astype(float)
    return result, expected


EXAMPLES: dict[str, Example] = {
    "convolution": convolution,
    "softmax Jacobian": softmax_jacobian,
    "matrix chain": matrix_chain,
    "norm of an MPS": mps_norm,
    "coupled-cluster ring": coupled_cluster_term,
    "attention": attention,
}


def relative_error(result: Array, expected: Any) -> float:
    """The largest difference of two arrays, in units of the largest element expected; infinite if shapes differ."""
    on_host = np.asarray(result.get() if hasattr(result, "get") else result)
    if on_host.shape != np.shape(expected):
        return float("inf")
    return float(np.max(np.abs(on_host - expected)) / np.max(np.abs(expected)))


def tolerance(result: Array) -> float:
    """The error up to which a result of this dtype counts as right: 200 roundings, less than one of TF32's."""
    return 200 * float(np.finfo(result.dtype).eps)


def _random(shape: tuple[int, ...], seed: int = 1) -> np.ndarray[Any, np.dtype[np.float64]]:
    return np.random.default_rng(seed).standard_normal(shape)
