"""What a device can do, measured once: the rates by which steps are priced, read from and written to JSON."""

from __future__ import annotations

import contextlib
import json
import os
import platform
import re
import secrets
import warnings
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np

from gpueinsum.errors import DeviceError, ProfileError


@dataclass(frozen=True, slots=True)
class Rate:
    """Matrix products of one dtype.

    A product of m x k and k x n runs at flops_per_second * m / (m + rows) * n / (n + columns) * k / (k + summed):
    `rows`, `columns` and `summed` are the sizes at which that is half the rate.
    """

    flops_per_second: float  # real operations, of a large product: 2 per product and sum, 8 of complex numbers
    rows: float
    columns: float
    summed: float


@dataclass(frozen=True, slots=True)
class Profile:
    """Measured rates of one device. Times in seconds, rates per second.

    >>> profile("h200").kind
    'cuda'
    """

    name: str
    kind: str  # "cpu" or "cuda"
    device: str  # what was measured, and with which versions
    rates: tuple[tuple[str, Rate], ...]  # by dtype; "tf32" and other precisions by their names
    bytes_per_second: float  # read and written by a large copy
    permuted: float  # the share of that rate at which a copy runs that reads along another axis than it writes
    cache_bytes: int  # of the last cache: what is smaller runs `cached` times as fast
    cached: float
    loop_flops_per_second: float  # real operations of a multiply-reduce whose operands are at hand
    launch: float  # seconds that any step takes
    each: float  # seconds that each product of a batch takes
    memory_bytes: int
    processors: int  # multiprocessors of a GPU, cores of a CPU

    def __hash__(self) -> int:
        return hash((self.name, self.device))  # profiles are keys of caches that small calls ask

    def rate(self, dtype: str) -> Rate | None:
        """The products of a dtype; None if the device has no library for them."""
        for name, rate in self.rates:
            if name == dtype:
                return rate
        return None

    def to_json(self) -> str:
        """The profile as JSON text, to be read back by `Profile.from_json`."""
        return json.dumps(asdict(self) | {"rates": {name: asdict(rate) for name, rate in self.rates}}, indent=2)

    @staticmethod
    def from_json(text: str) -> Profile:
        """The profile that `to_json` wrote. Raises ProfileError if the text is none."""
        try:
            data: dict[str, Any] = json.loads(text)
            rates = tuple((str(name), Rate(**_positive(rate))) for name, rate in data.pop("rates").items())
            name, kind, device = (str(data.pop(field)) for field in ("name", "kind", "device"))
            if kind not in ("cpu", "cuda"):
                raise ValueError(f"kind {kind!r} is neither 'cpu' nor 'cuda'")
            return Profile(name, kind, device, rates, **_positive(data))
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            raise ProfileError(f"not a device profile: {error!r}") from error


def _positive(numbers: Mapping[str, Any]) -> dict[str, Any]:
    for name, number in numbers.items():
        is_number = isinstance(number, int | float) and not isinstance(number, bool)
        if not is_number or not 0 <= number < float("inf") or (number == 0 and name not in _MAY_BE_ZERO):
            raise ValueError(f"{name} is {number!r}, no number {'of at least' if name in _MAY_BE_ZERO else 'above'} 0")
    return dict(numbers)


_MAY_BE_ZERO = {"rows", "columns", "summed", "launch", "each"}  # by the others is divided


# ---------------------------------------------------------------- profiles that are there


@cache
def profile(name: str) -> Profile:
    """The profile of this name that comes with the package. Raises ProfileError, listing those there are."""
    folder = files("gpueinsum.costs") / "profiles"
    known = sorted(entry.name.removesuffix(".json") for entry in folder.iterdir() if entry.name.endswith(".json"))
    if name not in known:
        raise ProfileError(f"there is no device profile {name!r}: there are {', '.join(known)}, or a file NAME.json")
    return Profile.from_json((folder / f"{name}.json").read_text(encoding="utf-8"))


def device_profile(name_or_path: str) -> Profile:
    """A profile of the package by its name, or one in a file, NAME.json. Raises ProfileError, naming the file."""
    return read_profile(Path(name_or_path)) if name_or_path.endswith(".json") else profile(name_or_path)


def read_profile(path: Path) -> Profile:
    """The profile in a file. Raises ProfileError, naming the file, if there is none."""
    try:
        return Profile.from_json(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:  # ProfileError, or no UTF-8
        raise ProfileError(f"{path}: {error}") from error


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
        return kept_profile(here) or _packaged(here)
    except ProfileError as error:
        warnings.warn(f"{error}; it is not used, gpueinsum calibrate writes it anew", stacklevel=2)
        return _packaged(here)


def _packaged(here: Machine) -> Profile:
    if here.kind == "cpu":
        return profile("cpu")
    return profile("a100" if "A100" in here.name else "h200")


# ---------------------------------------------------------------- this machine's, kept in the user's cache


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
        return Machine(kind, f"{_processor()}, {_threads()} threads", versions)
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


def _threads() -> int:
    """How many threads BLAS may use: as many as it is told at its start, or one for each core of this process."""
    told = os.environ.get("OPENBLAS_NUM_THREADS") or os.environ.get("OMP_NUM_THREADS") or ""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return int(told) if told.isdecimal() else cores


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


def write_text(path: Path, text: str) -> None:
    """Write a whole file or none: under another name first."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        unfinished.write_text(text, encoding="utf-8")
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)


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
