"""Data-parallel training of a layer of ours in two processes on gloo: the gradients are those of one process."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

import gpueinsum as ge

torch = pytest.importorskip("torch", reason="torch is not installed: no processes train in parallel")

WORKER = """
import os, sys, torch, torch.distributed as dist
import gpueinsum as ge

rank, file = int(sys.argv[1]), sys.argv[2]

class Layer(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.w = torch.nn.Parameter(torch.linspace(-1, 1, 35, dtype=torch.float64).reshape(5, 7))
    def forward(self, x):
        return ge.einsum("ij,jk->ik", x, self.w).sin()

x = torch.linspace(0, 1, 40, dtype=torch.float64).reshape(8, 5)
layer = Layer()
layer(x).mean().backward()
dist.init_process_group("gloo", init_method="file://" + file, rank=rank, world_size=2)
parallel = torch.nn.parallel.DistributedDataParallel(Layer())
for _ in range(2):
    parallel.zero_grad()
    parallel(x[4 * rank : 4 * rank + 4]).mean().backward()
assert torch.allclose(parallel.module.w.grad, layer.w.grad), "other gradients"
dist.destroy_process_group()
print("equal", flush=True)
os._exit(0)  # torch 2.13's threads abort one process in ten that exits as usual, with torch.einsum, too
"""


def test_two_processes_have_the_gradients_of_one(tmp_path):
    """DistributedDataParallel on gloo; each process with one thread."""
    if not torch.distributed.is_available():
        pytest.skip("this torch has no torch.distributed")
    path = os.pathsep.join([str(Path(ge.__file__).parents[1]), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
    command = [sys.executable, "-W", "ignore", "-c", WORKER]
    workers = [
        subprocess.Popen(
            [*command, str(rank), str(tmp_path / "meet")], env=environment, stdout=-1, stderr=-2, text=True
        )
        for rank in range(2)
    ]
    for worker in workers:
        text, _ = worker.communicate(timeout=120)
        assert worker.returncode == 0, text
        assert text.strip().endswith("equal")
