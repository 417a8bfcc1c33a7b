"""What is installed, whether the GPU can be used, and whether results are right: findings out, one for each check."""

from __future__ import annotations

import importlib
import importlib.metadata
import platform
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import numpy as np

import gpueinsum as ge
from gpueinsum.api.arguments import dtype_of
from gpueinsum.backends import select as backends
from gpueinsum.backends.cuda.source import LARGEST, compile_text, program_text
from gpueinsum.costs.machine import kept_profile, machine, profile_for, profile_path
from gpueinsum.errors import DeviceError, DtypeError, ProfileError
from gpueinsum.text import bytes_text

OK, MISSING, WRONG = "ok", "missing", "WRONG"

_ARCHITECTURE = "sm_90"  # to compile for where there is no device
_INSTALL_CUDA = "pip install 'cupy-cuda13x[ctk]' (or cuda12x for an older driver)"
_REMEDIES = {
    "numpy": "pip install numpy",
    "opt_einsum": "pip install opt_einsum",
    "ml_dtypes": "bfloat16 needs it: pip install ml_dtypes",
    "cupy": f"CUDA needs it: {_INSTALL_CUDA}",
}
_DTYPES = (
    *("bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"),
    *("float16", "bfloat16", "float32", "float64", "complex64", "complex128"),
)


class Finding(NamedTuple):
    """The result of one check: `ok`, `missing` (and what to install) or `WRONG`."""

    status: str
    text: str

    def __str__(self) -> str:
        return f"{self.status:<7}  {self.text}"


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
    for dtype in _DTYPES:
        yield from _results(dtype, backend)
    yield _true_float32(backend)


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
            yield Finding(MISSING, f"{module}: {remedy} ({_first_line(error)})")


# ---------------------------------------------------------------- the device


def _device(demanded: str | None) -> Iterator[Finding]:
    """The last finding says whether CUDA can be used."""
    try:
        backends.cuda_backend()
        yield from (Finding(OK, line) for line in _device_lines())
    except DeviceError as error:
        is_broken = demanded == "cuda" or _has_device(error)
        remedy = "does nvidia-smi list one?" if is_broken else "einsum computes on the CPU until nvidia-smi lists one"
        yield Finding(WRONG if is_broken else MISSING, f"GPU: {_first_line(error)}; {remedy}")
    except (ImportError, RuntimeError) as error:  # what CuPy raises for an error of CUDA or cuBLAS
        yield Finding(WRONG, f"GPU: it does not answer: {_first_line(error)}; does nvidia-smi work?")


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
        yield Finding(MISSING, f"NVRTC: to compile kernels: {_INSTALL_CUDA} ({_first_line(error)})")
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
        return Finding(MISSING, f"{name}: {_first_line(error)}")
    except ProfileError as error:
        return Finding(WRONG, f"{name}: {_first_line(error)}; gpueinsum calibrate writes it anew")
    return Finding(OK, f"{name}: {profile_for(backend).name}, of the package; gpueinsum calibrate measures")


# ---------------------------------------------------------------- results


def _einsum(equation: str, *operands: Any, backend: str) -> Any:
    return ge.einsum(equation, *operands, backend=backend)


def _gradients(equation: str, *arrays: Any, backend: str) -> Any:
    """The gradients of all arrays but the last, which is the cotangent, in one row."""
    *operands, cotangent = arrays
    _, pullback = ge.vjp(equation, *operands, backend=backend)
    return np.concatenate([gradient.ravel() for gradient in pullback(cotangent)])


def _tangent(equation: str, *operands: Any, backend: str) -> Any:
    """The tangent for operands that change by themselves."""
    return ge.jvp(equation, operands, operands, backend=backend)[1]


class Check(NamedTuple):
    """A call whose result is known: `compute(equation, *operands)`, and `expect` of the operands, or numpy's einsum."""

    what: str
    equation: str
    shapes: tuple[tuple[int, ...], ...]
    compute: Callable[..., Any] = _einsum
    expect: Callable[..., Any] | None = None


CHECKS = (
    Check("matrix product", "ij,jk->ik", ((67, 71), (71, 73))),
    Check("batched, transposed", "bji,kjb->bik", ((5, 31, 37), (41, 31, 5))),
    Check("batch of two axes", "bqhd,bkhd->bhqk", ((5, 17, 3, 24), (5, 29, 3, 24))),
    Check("matrix times vector", "ij,j->i", ((211, 197), (197,))),
    Check("batched dot", "bi,bi->b", ((53, 101), (53, 101))),
    Check("long dot", "i,i->", ((70_001,), (70_001,))),
    Check("many short sums", "ij->i", ((509, 23),)),
    Check("outer product", "i,j->ji", ((61,), (59,))),
    Check("sum over a permutation", "ijk->ki", ((17, 43, 13),)),
    Check("trace and sum", "iij->j", ((29, 29, 11),)),
    Check("long sum", "ij->", ((251, 283),)),
    Check("embedding", "ij->iji", ((19, 7),), expect=lambda x: x[:, :, None] * np.eye(19, dtype=x.dtype)[:, None, :]),
)
# For floating dtypes.
DERIVATIVE_CHECKS = (
    Check(
        "gradients",
        "ij,jk->ik",
        ((31, 37), (37, 41), (31, 41)),
        _gradients,
        lambda x, y, g: np.concatenate([(g @ y.conj().T).ravel(), (x.conj().T @ g).ravel()]),
    ),
    Check("gradient of a trace", "ii->", ((43, 43), ()), _gradients, lambda x, g: (g * np.eye(43)).ravel()),
    Check("tangent", "ij,jk->ik", ((31, 37), (37, 41)), _tangent, lambda x, y: 2 * (x @ y)),
)


def _results(dtype_name: str, backend: str) -> Iterator[Finding]:
    """Compare every check with numpy, on integers so small that all sums are exact: results equal to the last bit."""
    try:
        dtype = dtype_of(dtype_name)
    except DtypeError as error:  # bfloat16 without ml_dtypes
        yield Finding(MISSING, f"{dtype_name}: {_first_line(error)}")
        return
    checks = CHECKS if dtype.kind in "biu" else CHECKS + DERIVATIVE_CHECKS
    faults = [(check, fault) for check in checks if (fault := _fault(check, dtype, backend))]
    for check, fault in faults:
        line = f"{dtype} on {backend}: {check.what} {check.equation}: {fault}"
        yield Finding(WRONG, f"{line}; please report it with this whole output")
    if not faults:
        yield Finding(OK, f"{dtype} on {backend}: {len(checks)} results equal numpy's")


def _fault(check: Check, dtype: np.dtype[Any], backend: str) -> str:
    """What is wrong with a result; nothing if it is right."""
    rng = np.random.default_rng(20261122)
    operands = [_integers(rng, shape, dtype) for shape in check.shapes]
    wide = np.int64 if dtype.kind in "biu" else np.complex128 if dtype.kind == "c" else np.float64
    exact = [operand.astype(wide) for operand in operands]
    expected = np.asarray(check.expect(*exact) if check.expect else np.einsum(check.equation, *exact)).astype(dtype)
    try:
        result = np.asarray(check.compute(check.equation, *operands, backend=backend))
    except Exception as error:  # whatever a broken device raises is the finding
        return f"{type(error).__name__}: {_first_line(error)}"
    if result.shape != expected.shape or result.dtype != expected.dtype:
        return f"{result.dtype} {result.shape} instead of {expected.dtype} {expected.shape}"
    differ = int((result != expected).sum())
    return f"{differ} of {result.size} elements differ from numpy's" if differ else ""


def _integers(rng: np.random.Generator, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Any:
    """Small integers of any dtype; Gaussian ones for complex types, and -1 wraps to the largest unsigned one."""
    numbers = rng.integers(-1, 2, shape)
    if dtype.kind == "c":
        return (numbers + 1j * rng.integers(-1, 2, shape)).astype(dtype)
    return (numbers > 0 if dtype.kind == "b" else numbers).astype(dtype)


def _true_float32(backend: str) -> Finding:
    """Whether float32 products keep their 24 bits, where TF32 would keep 11."""
    rng, what = np.random.default_rng(20261122), f"precision of float32 on {backend}"
    x, y = (rng.standard_normal((256, 256)).astype(np.float32) for _ in range(2))
    exact = x.astype(float) @ y.astype(float)
    try:
        result = np.asarray(ge.einsum("ij,jk->ik", x, y, backend=backend))
    except Exception as error:  # whatever a broken device raises is the finding
        return Finding(WRONG, f"{what}: {type(error).__name__}: {_first_line(error)}")
    error_norm = float(np.linalg.norm(result - exact) / np.linalg.norm(exact))
    if error_norm < 3e-6:  # about 2e-7 in true float32, 3e-4 in TF32; false for a norm that is no number
        return Finding(OK, f"{what}: relative error {error_norm:.1e}")
    return Finding(WRONG, f"{what}: relative error {error_norm:.1e}; is TF32 forced?")


def _first_line(error: BaseException) -> str:
    return str(error).strip().split("\n")[0] or type(error).__name__
