"""The stand-in for CuPy: it has no more names and manners than CuPy, and is as late."""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest
from simulated.cupy import VERSION, stand_in

import gpueinsum as ge


@pytest.fixture
def cupy(monkeypatch):
    with stand_in(monkeypatch) as fake:
        yield fake


def test_the_stand_in_has_no_names_that_cupy_lacks(cupy):
    assert hasattr(cupy, "tensordot")
    assert not hasattr(cupy, "matvec")  # numpy's
    assert not hasattr(cupy.linalg, "multi_dot")
    assert not hasattr(cupy.ones(3), "setflags")


@pytest.mark.parametrize(
    "mixed",
    [
        lambda here, there: np.asarray(there),
        lambda here, there: np.testing.assert_allclose(there, here),
        lambda here, there: there + here,
        lambda here, there: here + there,
        lambda here, there: np.add(here, there),
        lambda here, there: np.allclose(here, there),
    ],
)
def test_an_array_there_becomes_none_here_by_itself(cupy, mixed):
    here = np.ones(3)
    with pytest.raises(TypeError, match=r"Implicit conversion to a NumPy array|Unsupported type <class 'numpy"):
        mixed(here, cupy.asarray(here))


def test_an_array_here_is_not_written_there_by_itself(cupy):
    with pytest.raises(ValueError, match=r"non-scalar numpy\.ndarray cannot be used for fill"):
        cupy.ones(3)[...] = np.zeros(3)


def test_an_array_there_is_dense_whatever_it_was_here(cupy):
    cube = np.arange(30.0).reshape(2, 3, 5)
    known = (cube, (120, 40, 8)), (cube.T, (8, 40, 120)), (cube[:, ::2], (80, 40, 8)), (cube.mT, (120, 24, 8))
    for x, strides in known:
        there = cupy.asarray(x)
        assert there.strides == strides
        np.testing.assert_array_equal(there.get(), x)


def test_results_there_stay_there_scalars_and_elements_too(cupy):
    x = cupy.asarray(np.arange(6.0).reshape(2, 3))
    for result in (x.sum(), x[1, 2], np.sqrt(x), cupy.einsum("ij->i", x), x > 2):
        assert isinstance(result, cupy.ndarray)
    x[0, 1:][...] = 7  # a view
    np.testing.assert_array_equal(x.T.get(), [[0, 3], [7, 4], [7, 5]])
    assert float(cupy.matmul(x, x.T, out=(out := cupy.empty((2, 2))))[0, 0]) == float(out[0, 0]) == 98


def test_arrays_of_no_bytes_begin_at_0(cupy):
    x = cupy.ones((3, 0))
    assert x.data.ptr == 0
    np.testing.assert_array_equal(ge.einsum("ij->i", x).get(), np.zeros(3))


def test_what_is_read_there_is_late_on_another_stream(cupy):
    x, stream = cupy.ones((3, 3)), cupy.cuda.Stream(non_blocking=True)
    with stream:
        result = ge.einsum("ij,jk->ik", x, x)
    assert np.isnan(result.get()).all()  # of the null stream, which waits for no other
    stream.synchronize()
    np.testing.assert_array_equal(result.get(), np.full((3, 3), 3))


def test_the_device_waits_for_streams_that_nobody_knows_any_more(cupy):
    with cupy.cuda.Stream(non_blocking=True):
        result = ge.einsum("ij,jk->ik", cupy.ones((3, 3)), cupy.ones((3, 3)))
    cupy.cuda.Device().synchronize()
    assert float(result[0, 0]) == 3


def test_the_pool_counts_what_is_in_use_and_tells_its_hooks(cupy):
    pool, told = cupy.get_default_memory_pool(), []

    class Hook(cupy.cuda.MemoryHook):
        def malloc_postprocess(self, size, mem_size, **_):
            told.append((size, mem_size, pool.used_bytes()))

    with Hook():
        x = cupy.empty((100,))
        view = x[::2]
    assert told == [(800, 1024, 1024)]
    del x
    assert pool.used_bytes() == 1024
    del view
    assert pool.used_bytes() == 0


def test_a_process_and_those_that_it_starts_find_the_stand_in_on_their_path():
    code = (
        "import subprocess, sys, gpueinsum as ge; xp = ge.array_module()\n"
        "x = xp.ones((2, 3)); print(xp.__version__, type(x).__module__, float(ge.einsum('ij,ij->', x, x)))\n"
        "if len(sys.argv) == 1: subprocess.run([sys.executable, __file__, 'again'], check=True)"
    )
    site = Path(__file__).parents[2] / "simulated" / "site"
    path = os.pathsep.join([str(site), *sys.path])
    with tempfile.NamedTemporaryFile("w", suffix=".py") as script:
        script.write(code)
        script.flush()
        done = subprocess.run(
            [sys.executable, script.name], env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True
        )
    assert done.stdout.split("\n") == [f"{VERSION} cupy 6.0"] * 2 + [""], done.stderr
