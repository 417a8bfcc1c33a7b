"""What the tests of the benchmarks share: samples as short as can be, and a machine without other libraries."""

import pytest

from benchmarks import libraries, measure
from benchmarks import run as suite


@pytest.fixture
def _short(monkeypatch):
    """Samples as short as can be."""
    monkeypatch.setattr(measure, "_SAMPLE", 1e-5)
    monkeypatch.setattr(measure, "_SETTLING", 0)
    for name in ("SECONDS", "QUICK_SECONDS", "_CEILING_SECONDS", "_QUICK_CEILING_SECONDS"):
        monkeypatch.setattr(suite, name, 0)


@pytest.fixture
def _alone(monkeypatch):
    """As where neither PyTorch nor JAX nor cotengra is installed; what measures none of them is quicker so."""
    for name in ("torch", "jax", "cotengra"):
        monkeypatch.setattr(libraries, name, lambda: None)
