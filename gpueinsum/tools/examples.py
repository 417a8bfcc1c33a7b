"""Worked examples: each a small function that computes with `einsum` on numpy or CuPy and, independently, with numpy.

`gpueinsum demo` runs them, the tests check them, and the README shows them. An example takes the array module and,
so that the demo can hold a stopwatch, the einsum to use; it returns the result and what plain numpy makes of it.
"""

from __future__ import annotations

import itertools
import string
from collections.abc import Callable
from typing import Any

import numpy as np

from gpueinsum.api.einsum import einsum as _einsum

Array = Any  # numpy's or CuPy's
Example = Callable[..., tuple[Array, np.ndarray[Any, Any]]]


def convolution(xp: Any, einsum: Any = _einsum) -> tuple[Array, Any]:
    """A filter slides over an image: the patches are a view of the image, of which nothing is copied."""
    image, kernel = _random((211, 307)), _random((5, 3))
    result = einsum("xyij,ij->xy", _patches(xp, xp.asarray(image), kernel.shape), xp.asarray(kernel))

    height, width = result.shape
    expected = np.zeros(result.shape)
    for i, j in np.ndindex(kernel.shape):
        expected += kernel[i, j] * image[i : i + height, j : j + width]
    return result, expected


def convolution_weight_gradient(xp: Any, einsum: Any = _einsum) -> tuple[Array, Any]:
    """Patches of a batch of images (nijkde: offsets i, j, channel k, place d, e) against the cotangent (node)."""
    images, cotangent = _random((3, 19, 23, 7)), _random((3, 5, 17, 19))
    channels_last = _patches(xp, xp.asarray(images), (3, 5), first_axis=1)  # n, d, e, k, i, j
    result = einsum("nijkde,node->oijk", channels_last.transpose(0, 4, 5, 3, 1, 2), xp.asarray(cotangent))

    expected = np.empty((5, 3, 5, 7))
    for i, j in np.ndindex(3, 5):
        expected[:, i, j] = np.tensordot(cotangent, images[:, i : i + 17, j : j + 19], axes=([0, 2, 3], [0, 1, 2]))
    return result, expected


def softmax_jacobian(xp: Any, einsum: Any = _einsum) -> tuple[Array, Any]:
    """The gradient of cross-entropy through the softmax's full Jacobian is A - Y; each column is a sample."""
    probabilities = np.array([[0.2, 0.5], [0.5, 0.1], [0.3, 0.4]])
    truth = np.array([[1.0, 0.0], [0.0, 0.0], [0.0, 1.0]])
    a, eye = xp.asarray(probabilities), xp.eye(3)
    jacobian = einsum("jk,jk,ji->ijk", a, 1 - a, eye) + einsum("jk,ik,ji->ijk", -a, a, 1 - eye)
    cotangent = -xp.asarray(truth) / a
    return einsum("ikj,kj->ij", jacobian, cotangent), probabilities - truth


def chain_rule(xp: Any, einsum: Any = _einsum) -> tuple[Array, Any]:
    """Derivatives of matrices by matrices have rank 4, and the chain rule contracts two axes at once."""
    outer, inner = _random((11, 13, 17, 19)), _random((17, 19, 7, 5))
    result = einsum("nmkd,kdpq->nmpq", xp.asarray(outer), xp.asarray(inner))
    return result, (outer.reshape(143, 323) @ inner.reshape(323, 35)).reshape(11, 13, 7, 5)


def feature_product(xp: Any, einsum: Any = _einsum) -> tuple[Array, Any]:
    """Products of all pairs of features, summed over the places of each image of a batch (style's Gram matrix)."""
    x, y = _random((7, 29, 31, 13)), _random((7, 29, 31, 17))
    result = einsum("ijkm,ijkn->imn", xp.asarray(x), xp.asarray(y))
    return result, np.stack([a.reshape(-1, 13).T @ b.reshape(-1, 17) for a, b in zip(x, y, strict=True)])


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


def mps_transfer(xp: Any, einsum: Any = _einsum) -> tuple[Array, Any]:
    """An environment moves one site on through a matrix product operator: ket, operator and bra at once."""
    environment, site, operator = _random((23, 5, 23)), _random((23, 3, 29)), _random((5, 3, 3, 7))
    arrays = map(xp.asarray, (environment, site, operator, site))
    result = einsum("awb,asx,wstv,bty->xvy", *arrays)

    expected = np.zeros((29, 7, 29))
    for s, t, w, v in np.ndindex(3, 3, 5, 7):
        expected[:, v] += operator[w, s, t, v] * (site[:, s].T @ environment[:, w] @ site[:, t])
    return result, expected


def coupled_cluster_term(xp: Any, einsum: Any = _einsum) -> tuple[Array, Any]:
    """A ring term of coupled cluster with doubles: amplitudes, integrals, amplitudes."""
    integrals, amplitudes = _random((5, 5, 17, 17)), _random((17, 17, 5, 5))
    arrays = map(xp.asarray, (integrals, amplitudes, amplitudes))
    result = einsum("klcd,acik,dblj->abij", *arrays)

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


def batched_diagonal(xp: Any, einsum: Any = _einsum) -> tuple[Array, Any]:
    """Beyond numpy: a label repeated in the output embeds on the diagonal, here a scaled vector for each of a batch."""
    vectors, scales = _random((31, 43)), _random((31,))
    result = einsum("bi,b->bii", xp.asarray(vectors), xp.asarray(scales))
    return result, np.stack([np.diag(scale * vector) for scale, vector in zip(scales, vectors, strict=True)])


EXAMPLES: dict[str, Example] = {
    "convolution": convolution,
    "convolution's weight gradient": convolution_weight_gradient,
    "softmax Jacobian": softmax_jacobian,
    "chain rule": chain_rule,
    "batched feature product": feature_product,
    "matrix chain": matrix_chain,
    "norm of an MPS": mps_norm,
    "MPS transfer": mps_transfer,
    "coupled-cluster ring": coupled_cluster_term,
    "attention": attention,
    "batched diagonal": batched_diagonal,
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


# ---------------------------------------------------------------- inputs


def _random(shape: tuple[int, ...], seed: int = 1) -> np.ndarray[Any, np.dtype[np.float64]]:
    return np.random.default_rng(seed).standard_normal(shape)


def _patches(xp: Any, images: Array, kernel: tuple[int, int], first_axis: int = 0) -> Array:
    """All patches of a kernel's size, as a view: the two axes to slide along stay, their offsets come last."""
    shape, strides = list(images.shape), images.strides
    for axis, length in enumerate(kernel, first_axis):
        shape[axis] -= length - 1
    sliding = strides[first_axis : first_axis + 2]
    return xp.lib.stride_tricks.as_strided(images, (*shape, *kernel), (*strides, *sliding))
