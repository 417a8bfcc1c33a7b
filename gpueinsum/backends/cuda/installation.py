"""Whether CUDA can be used here: CuPy and cuBLAS out, or an error that says which of its parts is missing."""

from __future__ import annotations

from typing import Any

from gpueinsum.backends.cuda.cublas import load
from gpueinsum.errors import DeviceError


def find_cuda() -> tuple[Any, Any]:
    """CuPy, and the library of cuBLAS that it has loaded.

    Raises DeviceError, saying which of CuPy, driver, device, cuBLAS and headers is missing.
    """
    try:
        import cupy
    except ImportError as error:
        raise DeviceError(
            f"CUDA needs CuPy, which cannot be imported: pip install 'cupy-cuda13x[ctk]' ({error})"
        ) from error
    try:
        devices = cupy.cuda.runtime.getDeviceCount()
    except cupy.cuda.runtime.CUDARuntimeError as error:
        what = "an NVIDIA device" if "NoDevice" in str(error) else "an NVIDIA driver that fits CuPy's CUDA version"
        raise DeviceError(f"CUDA needs {what}, and there is none: {error}") from error
    if devices == 0:
        raise DeviceError("CUDA needs an NVIDIA device, and there is none")
    try:
        from cupy_backends.cuda.libs import cublas  # noqa: F401  # which loads the library

        library = load(cupy.cuda.runtime.runtimeGetVersion() // 1000)
    except (ImportError, OSError) as error:
        raise DeviceError(f"CUDA needs the cuBLAS library: pip install 'cupy-cuda13x[ctk]' ({error})") from error
    if _headers_are_missing():
        raise DeviceError("CUDA needs its headers, with which CuPy compiles: pip install 'cupy-cuda13x[ctk]'")
    return cupy, library


def _headers_are_missing() -> bool:
    """Whether CuPy's search for them, which comes before its first kernel, will fail."""
    try:
        from cuda.pathfinder import find_nvidia_header_directory
    except ImportError:
        return False
    return find_nvidia_header_directory("cudart") is None
