"""`gpueinsum.testing` as users have it: the fixture in a pytest of its own, and every way in which arrays differ."""

import os
import re
import subprocess
import sys
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest

from gpueinsum.interop.testing import TOLERANCES, to_host
from gpueinsum.testing import assert_allclose

TESTS = Path(__file__).parents[1]
BFLOAT16 = np.dtype(ml_dtypes.bfloat16)

# ---------------------------------------------------------------- the fixture

MODULE = """
import numpy as np
import pytest
import gpueinsum as ge
from gpueinsum.testing import assert_allclose

@pytest.fixture(scope="module")  # a fixture of any scope may ask for xp
def ones(xp):
    return xp.ones((2, 3), xp.float32)

def test_row_sums(xp, ones):
    sums = ge.einsum("ij->i", ones)
    assert type(sums) is xp.ndarray
    assert_allclose(sums, np.float32([3, 3]))
"""
WRONG = "\ndef test_wrong(ones):\n    assert_allclose(ge.einsum('ij->i', ones), np.float32([3, 4]))\n"


def pytest_in(folder, module, conftest='pytest_plugins = ["gpueinsum.testing"]', site=()):
    """What a pytest with all warnings as errors prints of a module in this folder."""
    (folder / "test_users.py").write_text(module, encoding="utf-8")
    (folder / "conftest.py").write_text(conftest, encoding="utf-8")
    options = ["-v", "-rs", "--tb=short", "-W", "error", "-p", "no:cacheprovider"]
    path = os.pathsep.join([*map(str, site), *filter(None, sys.path)])
    run = subprocess.run(
        [sys.executable, "-m", "pytest", *options],
        cwd=folder, env=os.environ | {"PYTHONPATH": path}, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    return run.stdout + run.stderr


@pytest.mark.parametrize(
    "conftest",
    [
        'pytest_plugins = ["gpueinsum.testing"]',
        "from gpueinsum.testing import xp",
        'import gpueinsum.testing\npytest_plugins = ["gpueinsum.testing"]',
    ],
)
def test_without_a_gpu_cupy_is_skipped_with_the_reason(tmp_path, conftest):
    (tmp_path / "cupy.py").write_text("raise ImportError('none here')", encoding="utf-8")
    shown = pytest_in(tmp_path, MODULE, conftest, site=[tmp_path])
    assert "test_row_sums[numpy] PASSED" in shown
    assert re.search(r"SKIPPED \[1\] .*: no GPU: CUDA needs CuPy", shown)
    assert "1 passed, 1 skipped" in shown


def test_a_test_runs_on_both_where_cupy_has_a_device(tmp_path):
    site = [TESTS / "simulated" / "site", TESTS.parent]
    shown = pytest_in(tmp_path, MODULE + WRONG, site=site)
    for module in ("numpy", "cupy"):
        assert f"test_row_sums[{module}] PASSED" in shown
        assert f"test_wrong[{module}] FAILED" in shown
    assert shown.count("E   AssertionError: element [1] is 3.0, not 4.0: off by 1, but only 8e-05 is allowed") == 2
    assert "test_users.py:17: in test_wrong" in shown


# ---------------------------------------------------------------- arrays that agree

ALIKE = [
    ([1.0, 2.0], [1.0, 2.0 + 1e-13]),
    (np.float32([1, 1e-7]), np.float32([1, 0])),  # beside the largest element
    (np.float32([1, 2]), [1, 2.00001]),  # a list has no dtype
    (np.float32(2), 2),
    (3.0, np.float64(3)),
    (np.float16([1000]), np.float16([1003])),
    (np.array([1, 1.5], BFLOAT16), np.array([1.03, 1.5], BFLOAT16)),
    (np.array([1 + 1j], "c8"), np.array([1.000003 + 1j], "c8")),
    ([np.inf, -np.inf, np.nan], [np.inf, -np.inf, np.nan]),
    (np.array([complex(np.nan, 1)]), np.array([complex(2, np.nan)])),
    (np.ones((0, 3)), np.ones((0, 3))),
    ([True, False], [True, False]),
    (np.array([2**62 + 1]), np.array([2**62 + 1])),
    (np.array([1.0], ">f8"), np.array([1.0], "<f8")),
    (np.longdouble([1]), np.longdouble([1])),
    (np.array([1, 2], object), np.array([1, 2], object)),
]


@pytest.mark.parametrize(("actual", "expected"), ALIKE)
def test_arrays_that_agree(actual, expected):
    assert_allclose(actual, expected)


# ---------------------------------------------------------------- arrays that differ

UNLIKE = [
    (np.ones((2, 3)), np.ones((3, 2)), "shape (2, 3), not (3, 2)"),
    (np.ones(1), 1.0, "shape (1,), not ()"),
    (np.ones(2, "f4"), np.ones(2), "dtype float32, not float64"),
    (np.ones(2, BFLOAT16), np.ones(2, "f2"), "dtype bfloat16, not float16"),
    (np.ones(2, bool), np.ones(2, int), "dtype bool, not int64"),
    ([1.0, 2.0], [1.0, 2.0 + 1e-11], "element [1] is 2.0, not 2.00000000001: off by 1e-11, but only 4e-12 is allowed"),
    (3.0, 4.0, "the value is 3.0, not 4.0: off by 1, but only 8e-12 is allowed; 1 of 1 elements differ"),
    (np.float32([[1, 2], [3, 4]]), np.float32([[1, 2.5], [4, 4]]), "element [1, 0] is 3.0, not 4.0: off by 1,"),
    (np.float16([1000]), np.float16([1020]), "element [0] is 1000.0, not 1020.0: off by 20, but only 10.2 is allowed"),
    (np.ones(1, BFLOAT16), np.array([1.25], BFLOAT16), "off by 0.25, but only 0.1 is allowed"),
    (np.array([1j], "c8"), np.array([-1j], "c8"), "element [0] is 1j, not (-0-1j): off by 2"),
    ([1.0, np.nan], [1.0, 2.0], "element [1] is nan, not 2.0: off by nan, but only 4e-12"),
    ([1.0, 2.0], [1.0, np.inf], "element [1] is 2.0, not inf: off by inf, but they must be equal"),
    ([np.inf, 5.0], [-np.inf, 4.0], "element [0] is inf, not -inf: off by inf"),
    (np.float32([3e38]), np.float32([-3e38]), "off by 6e+38, but only 6e+33"),
    ([1, 2, 3], [1, 2, 5], "element [2] is 3, not 5: off by 2, but they must be equal; 1 of 3 elements differ"),
    (np.array([2**62 + 1]), np.array([2**62]), f"element [0] is {2**62 + 1}, not {2**62}: off by"),
    ([True], [False], "element [0] is True, not False: off by 1, but they must be equal"),
    (np.float64([1]), [1.0 + 1e-9], "element [0] is 1.0, not 1.000000001: off by 1e-09"),
]


@pytest.mark.parametrize(("actual", "expected", "text"), UNLIKE)
def test_arrays_that_differ(actual, expected, text):
    with pytest.raises(AssertionError) as caught:
        assert_allclose(actual, expected)
    assert text in str(caught.value)


@pytest.mark.parametrize("name", TOLERANCES)
def test_a_tolerance_is_met_and_exceeded(name):
    expected = np.array([1, 0], name)
    step = TOLERANCES[name]
    assert_allclose(np.array([1, step / 1.5], name), expected)
    with pytest.raises(AssertionError, match="element"):
        assert_allclose(np.array([1, step * 1.5], name), expected)


def test_tolerances_of_the_callers_own():
    x, y = np.array([1.0, 1e-6]), np.array([1.0, 2e-6])
    assert_allclose(x, y, rtol=1e-5)
    assert_allclose(x, y, rtol=0, atol=2e-6)
    assert_allclose(np.array([10]), np.array([12]), atol=2)
    for options in ({"rtol": 1e-5, "atol": 0}, {"atol": 1e-7}):
        with pytest.raises(AssertionError, match="element \\[1\\]"):
            assert_allclose(x, y, **options)


# ---------------------------------------------------------------- arrays of other libraries


class DLPackOnly:
    """An array of a library that offers DLPack and nothing else."""

    def __init__(self, array):
        self.array, self.dtype = array, array.dtype
        self.__dlpack_device__ = array.__dlpack_device__

    def __dlpack__(self, **options):
        return self.array.__dlpack__(**options)


def test_whatever_offers_dlpack_is_compared():
    assert_allclose(DLPackOnly(np.ones(3)), [1, 1, 1])
    with pytest.raises(AssertionError, match="dtype float64, not float32"):
        assert_allclose(DLPackOnly(np.ones(3)), np.ones(3, "f4"))


def test_tensors_of_pytorch():
    torch = pytest.importorskip("torch", reason="torch is not installed: none of its tensors are compared")
    assert_allclose(torch.ones(2, requires_grad=True) * 3, np.float32([3, 3]))
    assert_allclose(torch.tensor([1 + 2j]).conj(), np.complex64([1 - 2j]))
    assert_allclose(torch.tensor([1 + 2j]).conj().imag, np.float32([-2]))  # negated when it is read
    halves = torch.tensor([[1.5, 2.0], [3.0, 4.0]], dtype=torch.bfloat16)
    assert to_host(halves.T).dtype == BFLOAT16
    assert_allclose(halves.T, np.array([[1.5, 3], [2, 4]], BFLOAT16))
    with pytest.raises(AssertionError, match=re.escape("element [0, 0] is")):
        assert_allclose(halves, np.array([[2.5, 2], [3, 4]], BFLOAT16))


def test_arrays_of_jax():
    jnp = pytest.importorskip("jax.numpy", reason="jax is not installed: none of its arrays are compared")
    assert_allclose(jnp.ones(3), np.ones(3, "f4"))
    assert_allclose(jnp.ones(3, jnp.bfloat16), np.ones(3, BFLOAT16))
    with pytest.raises(AssertionError, match="element"):
        assert_allclose(jnp.ones(3), np.zeros(3, "f4"))
