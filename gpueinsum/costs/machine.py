"""This machine: what its profile holds for, and where measured facts are kept in the user's cache."""

from __future__ import annotations

import contextlib
import os
import platform
import re
import warnings
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np

from gpueinsum.costs.profile import Profile, profile, read_profile
from gpueinsum.errors import DeviceError, ProfileError
from gpueinsum.files import write_text


@cache
def profile_for(kind: str) -> Profile:
    """The profile of this machine's processor ("cpu") or current GPU ("cuda"): the one that `gpueinsum calibrate` kept.

    Where it kept none, that of the package which fits best; an H200's for another GPU, and where there is none. A file
    that holds no profile is warned of, and not used. Read once per process.
    """
    try:
        here = machine(kind)
    except DeviceError:
        return profile("h200")
    try:
        return kept_profile(here) or _package_profile(here)
    except ProfileError as error:
        warnings.warn(f"{error}; it is not used, gpueinsum calibrate writes it anew", stacklevel=2)
        return _package_profile(here)


def _package_profile(here: Machine) -> Profile:
    if here.kind == "cpu":
        return profile("cpu")
    return profile("a100" if "A100" in here.name else "h200")


@dataclass(frozen=True, slots=True)
class Machine:
    """What a measured profile holds for: a device, and the libraries that compute on it."""

    kind: str
    name: str
    versions: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.name}; {', '.join(self.versions)}"


@cache
def machine(kind: str) -> Machine:
    """The processor and numpy ("cpu"), or the current GPU and CuPy ("cuda"). Raises DeviceError where there is none."""
    if kind == "cpu":
        blas = np.show_config(mode="dicts")["Build Dependencies"]["blas"]
        versions = (f"numpy {np.__version__}", f"{blas['name']} {blas['version']}")
        return Machine(kind, f"{_processor()}, {usable_threads()} threads", versions)
    try:
        import cupy

        runtime = cupy.cuda.runtime
        name = runtime.getDeviceProperties(runtime.getDevice())["name"].decode()
        number = runtime.runtimeGetVersion()
    except (ImportError, RuntimeError) as error:  # CuPy's errors are RuntimeErrors
        raise DeviceError(f"CUDA needs CuPy and a device: {error}") from error
    return Machine(kind, name, (f"cupy {cupy.__version__}", f"CUDA {number // 1000}.{number % 1000 // 10}"))


def _processor() -> str:
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def usable_threads() -> int:
    """How many threads numpy's products and our loops run on: the cores of this process, or fewer if it is told so.

    GPUEINSUM_THREADS tells it, else OMP_NUM_THREADS, else OPENBLAS_NUM_THREADS.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    for name in ("GPUEINSUM_THREADS", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        told = os.environ.get(name, "").split(",")[0].strip()  # OpenMP's may be a list, one for each level
        if told.isdecimal() and int(told):
            return min(cores, int(told))
    return cores


def kept_profile(here: Machine) -> Profile | None:
    """What was kept for this machine; None if nothing. Raises ProfileError for a file that holds no profile of it."""
    path = profile_path(here)
    if not path.exists():
        return None
    found = read_profile(path)
    if found.kind != here.kind:
        raise ProfileError(f"{path}: the profile of a {found.kind} device")
    return found


def keep(measured: Profile, path: Path) -> None:
    """Write a profile."""
    write_text(path, measured.to_json() + "\n")


def profile_path(here: Machine) -> Path:
    """The file in the user's cache for the profile of a machine with these versions of its libraries."""
    return cache_folder() / f"{_words(here)}.json"


def tuned_path(here: Machine) -> Path:
    """The file in the user's cache for what was fastest there."""
    return cache_folder() / f"tuned-{_words(here)}.json"


def _words(here: Machine) -> str:
    return re.sub(r"[^a-z0-9.]+", "-", f"{here.kind} {here}".lower())


def cache_folder() -> Path:
    """Where measured facts are kept: GPUEINSUM_CACHE, else `gpueinsum` in XDG_CACHE_HOME, else in ~/.cache."""
    own, base = os.environ.get("GPUEINSUM_CACHE"), os.environ.get("XDG_CACHE_HOME")
    return Path(own) if own else Path(base or os.path.expanduser("~/.cache")) / "gpueinsum"
