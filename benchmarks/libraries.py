"""The other libraries: each imported once, with as many threads as OpenBLAS; None where it is not installed."""

from __future__ import annotations

import contextlib
import os
import platform
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import gpueinsum as ge
from benchmarks.devices import Device, threads

_DISTRIBUTIONS = (
    *("torch", "jax", "jaxlib", "cotengra", "ml_dtypes", "nvidia-cublas", "cutensor-cu13", "cutensor-cu12"),
    *("cutensornet-cu13", "cutensornet-cu12", "cuquantum-python-cu13", "cuquantum-python-cu12"),
)


@cache
def torch() -> Any:
    """PyTorch. Its einsum takes opt_einsum's path, as opt_einsum is installed."""
    try:
        import torch
    except ImportError:
        return None
    torch.set_num_threads(threads())
    return torch


@cache
def jax() -> Any:
    """JAX with double precision, and with true float32, which is not its own choice on a GPU.

    XLA sizes its pool by NPROC. The flags that are passed from hand to hand, --xla_cpu_multi_thread_eigen=false and
    intra_op_parallelism_threads=1, leave it two threads on two cores; NPROC=1 leaves one (jaxlib 0.10.2).
    """
    os.environ["NPROC"] = str(threads())
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # else it takes most of a GPU's memory for itself
    try:
        import jax
    except ImportError:
        return None
    jax.config.update("jax_enable_x64", True)
    jax.config.update("jax_default_matmul_precision", "highest")
    return jax


@cache
def cotengra() -> Any:
    try:
        import cotengra
    except ImportError:
        return None
    return cotengra


@cache
def cutensor() -> Any:
    """The setting of CuPy by which its einsum uses cuTENSOR, or None where that cannot be loaded."""
    with contextlib.suppress(Exception):  # CuPy 14.2 finds one of cuTENSOR's two libraries among the wheels, not this
        from cuda.pathfinder import load_nvidia_dynamic_lib

        load_nvidia_dynamic_lib("cutensorMg")
    try:
        from cupy._core import _accelerator
        from cupyx import cutensor  # noqa: F401  # without it CuPy's einsum would go on without a word
    except Exception:  # a library that is half there fails in many ways
        return None
    return _accelerator


@cache
def cutensornet() -> Any:
    """cuQuantum's module with `contract`: `cuquantum.tensornet`, in older versions `cuquantum` itself."""
    try:
        from cuquantum import tensornet
    except Exception:  # a library that is half there fails in many ways
        with contextlib.suppress(Exception):
            import cuquantum

            return cuquantum if hasattr(cuquantum, "contract") else None
        return None
    return tensornet


def versions(place: Device) -> dict[str, str]:
    """The versions of all that may take part."""
    found = {"python": platform.python_version(), "gpueinsum": ge.__version__} | place.versions()
    for name in ("opt_einsum", *_DISTRIBUTIONS):
        with contextlib.suppress(PackageNotFoundError):
            found[name] = version(name)
    return found
