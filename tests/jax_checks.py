"""What tests with JAX share; imports JAX."""

import os
import subprocess
import sys
from functools import partial
from typing import Any

import jax
import numpy as np

SHAPES = (2, 3), (3, 5), (5, 7)
CHAIN = "ij,jk,kl->il"


def agree(got: Any, expected: Any, tolerance: float = 1e-5) -> None:
    """AssertionError unless these are trees of JAX's arrays of the same shapes, dtypes and, nearly, values."""
    jax.tree.map(partial(assert_same, tolerance=tolerance), got, expected)


def assert_same(got: Any, expected: Any, tolerance: float) -> None:
    assert isinstance(got, jax.Array)
    assert (got.shape, got.dtype) == (expected.shape, expected.dtype)
    scale = max(1, np.abs(np.asarray(expected, np.complex128)).max(initial=0))
    np.testing.assert_allclose(got, expected, rtol=0, atol=tolerance * scale)


def run_program(text: str, **environment: str) -> None:
    """A Python program in a process of its own, which must end by itself."""
    subprocess.run([sys.executable, "-c", text], check=True, timeout=100, env={**os.environ, **environment})
