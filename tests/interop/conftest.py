import importlib

import pytest


@pytest.fixture
def contractions(monkeypatch):
    """How many operands each call of our `einsum` had, of those of our `tensordot`, too, since the test began."""
    module = importlib.import_module("gpueinsum.api.einsum")
    array_kinds, seen = module.array_kinds, []

    def count(operands):
        seen.append(len(operands))
        return array_kinds(operands)

    monkeypatch.setattr(module, "array_kinds", count)
    return seen


@pytest.fixture
def chain(rng):
    """Three of JAX's arrays."""
    import jax.numpy as jnp
    from jax_checks import SHAPES

    return [jnp.asarray(rng.standard_normal(shape), jnp.float32) for shape in SHAPES]


@pytest.fixture
def x64():
    """JAX with arrays of float64."""
    import jax

    jax.config.update("jax_enable_x64", True)
    yield
    jax.config.update("jax_enable_x64", False)
