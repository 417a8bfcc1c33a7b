"""Numbers as people write and read them: bytes in binary units, counts in thousands."""

from __future__ import annotations

import re
from decimal import Decimal
from fractions import Fraction
from functools import lru_cache

_BYTES = re.compile(r"(?P<number>\d+(\.\d+)?(e\d{1,2})?)\s*((?P<prefix>[kmgtp])(?P<binary>i)?)?b?", re.IGNORECASE)


def bytes_text(number: float) -> str:
    """A number of bytes in the largest binary unit that leaves at least one.

    >>> bytes_text(512), bytes_text(3 * 2**20)
    ('512 B', '3 MiB')
    """
    return _scale(number, 1024, ("B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"))


def count_text(number: float) -> str:
    """A number of operations or elements to three digits, in thousands, millions, ...

    >>> count_text(999), count_text(23_600)
    ('999', '23.6 k')
    """
    return _scale(number, 1000, ("", "k", "M", "G", "T", "P", "E"))


def seconds_text(seconds: float) -> str:
    """A time to three digits.

    >>> seconds_text(0.0012), seconds_text(45.6e-6), seconds_text(9.996e-4), seconds_text(1234.5)
    ('1.20 ms', '45.6 µs', '1.00 ms', '1,234 s')
    """
    scale, unit = next(((s, u) for s, u in _SECONDS if seconds >= 0.9995 * s), _SECONDS[-1])
    number = seconds / scale
    digits = f"{number:#.3g}".rstrip(".") if number < 999.5 else f"{number:,.0f}"
    return f"{digits} {unit}"


_SECONDS = ((1.0, "s"), (1e-3, "ms"), (1e-6, "µs"), (1e-9, "ns"))


@lru_cache(maxsize=64)
def read_bytes(text: str) -> int | None:
    """How many bytes a text means; None if it means none.

    >>> read_bytes("1.5 kB"), read_bytes("4GiB") == 4 * 2**30, read_bytes("4 apples")
    (1500, True, None)
    """
    written = _BYTES.fullmatch(text.strip())
    if written is None:
        return None
    unit = (1024 if written["binary"] else 1000) ** " kmgtp".index((written["prefix"] or " ").lower())
    return int(Fraction(written["number"]) * unit)


def _scale(number: float, base: int, units: tuple[str, ...]) -> str:
    if number >= base ** len(units):
        return f"{Decimal(number):.2e} {units[0]}".rstrip()  # more than a float holds, now and then
    unit = 0
    while unit + 1 < len(units) and number / base**unit >= base * 0.9995:  # what would round to one of the next is one
        unit += 1
    scaled = number / base**unit
    digits = f"{scaled:.3g}" if scaled < 999.5 else f"{scaled:.0f}"
    return f"{digits} {units[unit]}".rstrip()
