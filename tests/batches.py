"""A plan in 60 slices, some results of which are sums, and programs that run it in processes of their own."""

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np

import gpueinsum as ge
from gpueinsum.distributed import run

ROOT = Path(__file__).parents[1]
CHAIN = ge.einsum_plan("ij,jk,kl->il", (40, 30), (30, 21), (21, 11), optimize=[(1, 2), (0, 1)])
SLICED = (("i", 11), ("j", 2))
PLAN = replace(CHAIN, outputs=(*CHAIN.outputs, 3), sliced=SLICED)  # jl, too, which is the same for all i
BATCHES = 23


def operands_of_plan(dtype=float, seed=20261130):
    """Whose sums depend on their order, in the last bits."""
    rng = np.random.default_rng(seed)
    return [rng.standard_normal(PLAN.shape(number)).astype(dtype) for number in range(3)]


def in_batches(monkeypatch, batches=BATCHES):
    """Runs have so many batches, however short they are."""
    monkeypatch.setattr(run, "batch_count", lambda plan, profile: batches)


def assert_same_bits(found, wanted):
    for one, other in zip(found, wanted, strict=True):
        assert (one.dtype, one.shape) == (other.dtype, other.shape)
        np.testing.assert_array_equal(one, other)


# What a program begins with: each batch takes a twentieth of a second, and the results are saved after each.
SLOW = f"""
import os, sys, time
sys.path[:0] = {[str(ROOT), str(ROOT / "tests")]}
import gpueinsum as ge
from batches import BATCHES, PLAN, operands_of_plan
from gpueinsum.distributed import checkpoint, run

run.batch_count, run._SAVE_AFTER = (lambda plan, profile: BATCHES), 0.0

def show(done, total):
    print(done, total, flush=True)
    time.sleep(0.05)
"""


def start(folder, program, *command, **environment):
    """A process that runs a program, and heeds interrupts where these tests run in a shell's background, too."""
    path = folder / "program.py"
    heeds = "import signal\nsignal.signal(signal.SIGINT, signal.default_int_handler)\n"
    path.write_text(heeds + SLOW + program, encoding="utf-8")
    command = [*command, str(path)] if command else [sys.executable, str(path)]
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen(command, **streams, text=True, env={**os.environ, **environment}, cwd=folder)
