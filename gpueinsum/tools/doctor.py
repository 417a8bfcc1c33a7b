"""What is installed, whether the GPU can be used, and whether results are right: findings out, one for each check."""

from __future__ import annotations

import importlib
import importlib.metadata
import platform
from collections.abc import Iterable, Iterator

from gpueinsum.backends import select as backends
from gpueinsum.backends.cuda.source import LARGEST, compile_text, program_text
from gpueinsum.costs.machine import kept_profile, machine, profile_for, profile_path
from gpueinsum.errors import DeviceError, ProfileError
from gpueinsum.text import bytes_text
from gpueinsum.tools.results import MISSING, OK, WRONG, Finding, check_results, first_line

_ARCHITECTURE = "sm_90"  # to compile for where there is no device
_INSTALL_CUDA = "pip install 'cupy-cuda13x[ctk]' (or cuda12x for an older driver)"
_REMEDIES = {
    "numpy": "pip install numpy",
    "opt_einsum": "pip install opt_einsum",
    "ml_dtypes": "bfloat16 needs it: pip install ml_dtypes",
    "cupy": f"CUDA needs it: {_INSTALL_CUDA}",
}


def examine(demanded: str | None = None) -> Iterator[Finding]:
    """Check the installation, then the GPU and its results, or the CPU's results where there is no GPU.

    With "cuda" `demanded`, a GPU that cannot be used is WRONG instead of missing; with "cpu" no GPU is looked for.
    """
    yield from _versions()
    on_cuda = False
    if demanded != "cpu":
        device = list(_device(demanded))
        yield from device
        on_cuda = device[-1].status == OK
        yield from _kernels(_architecture() if on_cuda else _ARCHITECTURE)
    backend = "cuda" if on_cuda else "cpu"
    yield _profile(backend)
    yield from check_results(backend)


def summary(findings: Iterable[Finding]) -> str:
    """The doctor's last line."""
    statuses = [finding.status for finding in findings]
    if WRONG in statuses:
        return f"{statuses.count(WRONG)} of {len(statuses)} checks went wrong"
    missing = statuses.count(MISSING)
    return "nothing wrong" + (f", {missing} missing" if missing else "")


# ---------------------------------------------------------------- the installation


def _versions() -> Iterator[Finding]:
    yield Finding(OK, f"Python {platform.python_version()} on {platform.system()} {platform.machine()}")
    try:
        yield Finding(OK, f"gpueinsum {importlib.metadata.version('gpueinsum')}")
    except importlib.metadata.PackageNotFoundError:
        yield Finding(OK, "gpueinsum, not installed, run from its source folder")
    for module, remedy in _REMEDIES.items():
        try:
            yield Finding(OK, f"{module} {importlib.import_module(module).__version__}")
        except ImportError as error:
            yield Finding(MISSING, f"{module}: {remedy} ({first_line(error)})")


# ---------------------------------------------------------------- the device


def _device(demanded: str | None) -> Iterator[Finding]:
    """The last finding says whether CUDA can be used."""
    try:
        backends.cuda_backend()
        yield from (Finding(OK, line) for line in _device_lines())
    except DeviceError as error:
        is_broken = demanded == "cuda" or _has_device(error)
        remedy = "does nvidia-smi list one?" if is_broken else "einsum computes on the CPU until nvidia-smi lists one"
        yield Finding(WRONG if is_broken else MISSING, f"GPU: {first_line(error)}; {remedy}")
    except (ImportError, RuntimeError) as error:  # what CuPy raises for an error of CUDA or cuBLAS
        yield Finding(WRONG, f"GPU: it does not answer: {first_line(error)}; does nvidia-smi work?")


def _has_device(error: DeviceError) -> bool:
    """Whether there seems to be a GPU that cannot be used: CuPy finds a driver, which does not say "no device"."""
    cause = error.__cause__
    try:
        from cupy.cuda import runtime
    except ImportError:
        return False
    return cause is not None and "NoDevice" not in str(cause) and runtime.driverGetVersion() > 0


def _device_lines() -> list[str]:
    import cupy
    from cupy_backends.cuda.libs import cublas

    runtime, device = cupy.cuda.runtime, cupy.cuda.Device()
    properties = runtime.getDeviceProperties(device.id)
    free, total = device.mem_info
    blas = cublas.getVersion(cupy.cuda.device.get_cublas_handle())
    driver, cuda = (
        f"{version // 1000}.{version % 1000 // 10}"  # CUDA writes 13.2 as 13020
        for version in (runtime.driverGetVersion(), runtime.runtimeGetVersion())
    )
    return [
        f"driver: CUDA {driver}",
        f"CUDA runtime {cuda}",
        f"cuBLAS {blas // 10000}.{blas // 100 % 100}.{blas % 100}",
        f"GPU {device.id} of {runtime.getDeviceCount()}: {properties['name'].decode()}, "
        f"compute capability {properties['major']}.{properties['minor']}, "
        f"{properties['multiProcessorCount']} multiprocessors, {bytes_text(free)} of {bytes_text(total)} free",
    ]


def _architecture() -> str:
    import cupy

    return f"sm_{cupy.cuda.Device().compute_capability}"


def _kernels(architecture: str) -> Iterator[Finding]:
    """Whether NVRTC compiles every kernel for every type; needs no device."""
    try:
        from cupy_backends.cuda.libs import nvrtc

        yield Finding(OK, "NVRTC {}.{}".format(*nvrtc.getVersion()))
    except (ImportError, RuntimeError) as error:  # of CuPy, of the library that it loads at the first call
        yield Finding(MISSING, f"NVRTC: to compile kernels: {_INSTALL_CUDA} ({first_line(error)})")
        return
    for name in dict.fromkeys(kernel.name for kernel in LARGEST):
        kernels = tuple(kernel for kernel in LARGEST if kernel.name == name)
        try:
            compile_text(program_text(kernels), architecture)
            yield Finding(OK, f"kernel {name} compiles for {architecture}, {len(kernels)} type combinations")
        except (OSError, RuntimeError) as error:
            yield Finding(WRONG, f"kernel {name} does not compile for {architecture}: {error}")


def _profile(backend: str) -> Finding:
    """By which rates plans for this device are priced."""
    name = f"profile of {backend}"
    try:
        here = machine(backend)
        if kept_profile(here) is not None:
            return Finding(OK, f"{name}: measured here, {profile_path(here)}")
    except DeviceError as error:
        return Finding(MISSING, f"{name}: {first_line(error)}")
    except ProfileError as error:
        return Finding(WRONG, f"{name}: {first_line(error)}; gpueinsum calibrate writes it anew")
    return Finding(OK, f"{name}: {profile_for(backend).name}, of the package; gpueinsum calibrate measures")
