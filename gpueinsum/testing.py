"""For tests of code that calls gpueinsum (PYTEST_DONT_REWRITE): the fixture `xp`, and `assert_allclose`.

# conftest.py
pytest_plugins = ["gpueinsum.testing"]

# test_layer.py
from gpueinsum.testing import assert_allclose

def test_layer(xp):  # once with numpy, once with CuPy if a GPU can be used
    assert_allclose(layer(xp.ones((2, 3))), [5.0, 5.0])
"""

from gpueinsum.interop.testing import assert_allclose, xp

__all__ = ["assert_allclose", "xp"]
