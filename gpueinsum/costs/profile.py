"""What a device can do, measured once: the rates by which steps are priced, read from and written to JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

from gpueinsum.errors import ProfileError


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
    # Ways to compute that a GPU refused in this process, as "pointers of float16", or "kernel permute" for all dtypes.
    lacks: tuple[str, ...] = ()

    def __hash__(self) -> int:
        return hash((self.name, self.device))  # profiles are keys of caches that small calls ask

    def rate(self, dtype: str, precision: str | None = None) -> Rate | None:
        """The products of a dtype, in a precision if that was measured; None if the device has no library for them."""
        for wanted in (precision, dtype) if precision and dtype in ("float32", "complex64") else (dtype,):
            for name, rate in self.rates:
                if name == wanted:
                    return rate
        return None

    def has(self, way: str, dtype: str) -> bool:
        """Whether the device may compute a dtype in this way, as far as is known."""
        return f"{way} of {dtype}" not in self.lacks

    def to_json(self) -> str:
        """The profile as JSON text, to be read back by `Profile.from_json`; what the device lacks is not in it."""
        fields = asdict(self) | {"rates": {name: asdict(rate) for name, rate in self.rates}}
        del fields["lacks"]
        return json.dumps(fields, indent=2)

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


@cache
def profile(name: str) -> Profile:
    """The profile of this name that comes with the package. Raises ProfileError, listing those there are."""
    folder = Path(__file__).parent / "profiles"
    known = sorted(path.stem for path in folder.glob("*.json"))
    if name not in known:
        raise ProfileError(f"there is no device profile {name!r}: there are {', '.join(known)}, or a file NAME.json")
    return read_profile(folder / f"{name}.json")


def device_profile(name_or_path: str) -> Profile:
    """A profile of the package by its name, or one in a file, NAME.json. Raises ProfileError, naming the file."""
    return read_profile(Path(name_or_path)) if name_or_path.endswith(".json") else profile(name_or_path)


def read_profile(path: Path) -> Profile:
    """The profile in a file. Raises ProfileError, naming the file, if there is none."""
    try:
        return Profile.from_json(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:  # ProfileError, or no UTF-8
        raise ProfileError(f"{path}: {error}") from error
