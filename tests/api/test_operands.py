"""Operands beyond plain arrays: lists, DLPack, arrays on a GPU, plans run on them; and machines without a GPU."""

import dataclasses
import subprocess
import sys

import numpy as np
import pytest

import gpueinsum as ge

# ---------------------------------------------------------------- operands from elsewhere


class FromElsewhere:
    """An array of another library that offers nothing but DLPack."""

    def __init__(self, array):
        self._array = array

    def __dlpack__(self, **options):
        return self._array.__dlpack__(**options)

    def __dlpack_device__(self):
        return self._array.__dlpack_device__()


class OnGpu:
    """An array of which only its whereabouts are known."""

    shape, dtype, ndim = (3,), np.dtype(float), 1
    __cuda_array_interface__ = {"shape": (3,), "typestr": "<f8", "data": (0, False), "version": 3}  # noqa: RUF012


def test_arrays_come_in_by_dlpack():
    np.testing.assert_array_equal(ge.einsum("ij->ji", FromElsewhere(np.ones((2, 3)))), np.ones((3, 2)))


def test_lists_and_numbers_are_operands():
    assert ge.einsum("i,i->", [1, 2, 3], [1, 1, 1]) == 6
    assert ge.einsum("i,->i", [1, 2], 2.5).tolist() == [2.5, 5.0]
    assert ge.einsum([[1, 2], [3, 4]], [0, 1], [1, 0]).tolist() == [[1, 3], [2, 4]]


def test_operands_in_two_places_are_refused_with_advice():
    with pytest.raises(ge.OperandError, match=r"operand 1 is a numpy array but operand 0 is on a GPU: move one"):
        ge.einsum("i,i->", OnGpu(), np.ones(3))
    with pytest.raises(ge.OperandError, match=r"operand 0 is on a GPU: bring it back first"):
        ge.einsum("i->", OnGpu(), backend="cpu")


def test_the_plan_of_an_array_on_a_gpu_needs_no_gpu():
    assert ge.einsum_plan("i,i->", OnGpu(), OnGpu()).dtype == "float64"


def test_a_plan_takes_the_dtype_of_whatever_is_an_operand():
    assert ge.einsum_plan("i,i->", [1, 2], FromElsewhere(np.ones(2, np.float32))).dtype == "float64"
    assert ge.einsum_plan("i,i->", (2,), FromElsewhere(np.ones(2, "c8"))).dtype == "complex64"


def test_a_plan_is_run_on_operands_of_its_shapes(rng):
    a, b = rng.random((2, 3)), rng.random((3, 5))
    plan = ge.Plan.from_json(ge.einsum_plan("ij,jk->ki", a, b).to_json())
    np.testing.assert_allclose(ge.run_plan(plan, a, b), (a @ b).T)
    assert ge.run_plan(ge.einsum_plan("ij,jk->ki", a, b, dtype="f4"), a, b).dtype == np.float32
    view = ge.run_plan(ge.einsum_plan("ij->ji", a), a)
    assert not np.shares_memory(view, a)
    with pytest.raises(ge.PlanError, match=r"takes operands of shapes \(\(2, 3\), \(3, 5\)\), not \(\(3, 5\),\)"):
        ge.run_plan(plan, b)
    with pytest.raises(ge.DtypeError, match="operand 0 is complex128"):
        ge.run_plan(plan, a + 0j, b)
    wide = ge.einsum_plan((1,) * 40, range(40), (1,) * 40, range(40, 80), range(80))
    with pytest.raises(ge.SubscriptsError, match="needs an array of 80 dimensions"):
        ge.run_plan(wide, np.ones((1,) * 40), np.ones((1,) * 40))
    operand, product, again = ge.run_plan(dataclasses.replace(plan, outputs=(0, 2, 2)), a, b)
    np.testing.assert_array_equal(operand, a)
    np.testing.assert_array_equal(product, again)
    assert not np.shares_memory(operand, a)
    assert not np.shares_memory(product, again)


def test_a_list_counts_for_order_a_as_the_array_that_it_becomes():
    other = np.asfortranarray(np.ones((4, 5, 3)))
    assert ge.einsum("be,edc->edcb", [[1.0, 2, 3, 4]], other, order="A").flags.f_contiguous
    assert not ge.einsum("be,edc->edcb", [[1.0, 2, 3, 4], [5, 6, 7, 8]], other, order="A").flags.f_contiguous


# ---------------------------------------------------------------- no GPU


def in_a_fresh_process(code):
    return subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True)


def test_importing_and_running_never_imports_cupy():
    code = "import sys, gpueinsum as ge; ge.einsum('i,i->', [1.], [2.]); assert 'cupy' not in sys.modules"
    assert in_a_fresh_process(code).returncode == 0


def test_cuda_without_cupy_says_so_in_one_sentence():
    code = "import sys; sys.modules['cupy'] = None; import gpueinsum as ge; print(ge.array_module().__name__)\n"
    code += "try: ge.einsum('i->', [1.], backend='cuda')\nexcept ge.DeviceError as error: print(error)"
    lines = in_a_fresh_process(code).stdout.splitlines()
    assert lines[0] == "numpy"
    assert lines[1].startswith("CUDA needs CuPy, which cannot be imported: pip install 'cupy-cuda13x[ctk]'")


def test_cuda_without_a_driver_says_so():
    cupy = pytest.importorskip("cupy")
    if ge.array_module() is cupy:
        pytest.skip("there is a GPU here")
    for _ in range(2):
        with pytest.raises(ge.DeviceError, match=r"CUDA needs an NVIDIA (driver|device)"):
            ge.einsum("i->", [1.0], backend="cuda")
