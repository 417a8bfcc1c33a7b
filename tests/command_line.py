"""A machine without a GPU, as the command line meets it."""

from typing import Any

from gpueinsum.errors import DeviceError


def no_gpu() -> Any:
    raise DeviceError("CUDA needs a driver")
