"""The engines themselves: Dask's workers, one of which is killed, mpi4py's on an MPI, the GPUs of a machine."""

import os
import shutil
import signal
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
from batches import BATCHES, PLAN, assert_same_bits, in_batches, operands_of_plan, start
from conftest import REAL, real_runtime
from gradient_checkers import use

import gpueinsum as ge
from gpueinsum.distributed import engines
from gpueinsum.distributed.dask import known


@pytest.fixture(autouse=True)
def _batches(monkeypatch):
    in_batches(monkeypatch)


@pytest.fixture
def wanted():
    return ge.run_plan(PLAN, *operands_of_plan(), executor=engines.Here())


@pytest.fixture
def client():
    pytest.importorskip("distributed.client", reason="distributed is not installed: not run on Dask")
    import distributed

    cluster = {"n_workers": 2, "threads_per_worker": 1, "dashboard_address": None}
    with distributed.LocalCluster(**cluster) as cluster, distributed.Client(cluster) as client:
        yield client


@pytest.mark.parametrize("number", [1, 2])
def test_dask_survives_the_death_of_workers(client, wanted, number):
    """Even of all, and with them of the operands that were sent."""
    processes = client.run(os.getpid)
    assert len(processes) == 2

    def kill(done, total):
        told.append(done)
        if len(told) == 5:
            for process in [*processes.values()][:number]:
                os.kill(process, signal.SIGKILL)

    told = []
    with client.get_executor() as executor:
        assert engines.worker_count(known(executor)) == 2
        found = ge.run_plan(PLAN, *operands_of_plan(), executor=executor, progress=kill)
        assert_same_bits(found, wanted)
        assert len(told) == BATCHES
        assert next(iter(processes.values())) not in client.run(os.getpid).values()
        assert_same_bits(ge.run_plan(PLAN, *operands_of_plan(), executor=executor), wanted)


MPI = """
from mpi4py.futures import MPIPoolExecutor

if __name__ == "__main__":
    with MPIPoolExecutor() as executor:
        found = ge.run_plan(PLAN, *operands_of_plan(), executor=executor)
        print(executor.num_workers, {executor.submit(os.getpid).result() != os.getpid() for _ in range(4)})
    np.savez("found.npz", *found)
"""


def test_mpi_runs_batches(tmp_path, wanted):
    pytest.importorskip("mpi4py", reason="mpi4py is not installed: not run on MPI")
    if shutil.which("mpiexec") is None:
        pytest.skip("there is no mpiexec: not run on MPI")
    allowed = {"OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1", "OMPI_MCA_btl": "self,vader"}
    command = ["mpiexec", "-n", "3", "--oversubscribe", sys.executable, "-m", "mpi4py.futures"]
    with start(tmp_path, "import numpy as np" + MPI, *command, **allowed) as process:
        out, errors = process.communicate(timeout=100)
    assert (process.returncode, out) == (0, "2 {True}\n"), errors
    with np.load(tmp_path / "found.npz") as found:
        assert_same_bits([found[name] for name in found.files], wanted)


@pytest.mark.parametrize("where", ["simulated", REAL])
@pytest.mark.parametrize("dtype", ["float64", "float16"])
def test_workers_compute_on_a_gpu(where, dtype, monkeypatch, tmp_path):
    use(where, monkeypatch)
    plan, operands = replace(PLAN, dtype=dtype), operands_of_plan(dtype)
    with ThreadPoolExecutor(1) as pool:
        found = ge.run_plan(plan, *operands, executor=pool, backend="cuda", checkpoint=tmp_path)
    again = ge.run_plan(plan, *operands, backend="cuda", checkpoint=tmp_path)
    assert_same_bits(again, found)
    for one, other in zip(found, ge.run_plan(plan, *operands), strict=True):
        assert isinstance(one, np.ndarray)
        assert one.dtype == dtype
        np.testing.assert_allclose(one.astype(float), other.astype(float), atol=1e-10 if dtype == "float64" else 0.2)


@pytest.mark.gpu
def test_devices_run_batches(wanted):
    real_runtime()
    import cupy

    count = cupy.cuda.runtime.getDeviceCount()
    for devices in ("all", [count - 1]):
        for one, other in zip(ge.run_plan(PLAN, *operands_of_plan(), devices=devices), wanted, strict=True):
            assert isinstance(one, np.ndarray)
            np.testing.assert_allclose(one, other, atol=1e-10)
    for devices in ([count], [0, 0], [], "most", 0, [True]):
        with pytest.raises(ValueError, match='is neither "all" nor a list of some of the numbers 0 to'):
            ge.run_plan(PLAN, *operands_of_plan(), devices=devices)
