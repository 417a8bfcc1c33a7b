"""`compute-sanitizer python -m benchmarks.sanitized`: small tests of every kernel, each array in memory of its own."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

_ROOT = Path(__file__).parents[1]
_FILES = [
    *sorted(_ROOT.glob("tests/backends/cuda/test_kernel_*.py")),
    _ROOT / "tests/backends/cuda/test_contraction.py",
]
TESTS = ("-m", "gpu", *map(str, _FILES))
# A type of each width, for a kernel runs tens of times as long under the sanitizer; by turns, should its time be over.
_DTYPES = ("float32", "uint8", "float16", "complex64", "complex128")


class FewOfEach:
    """Of every test the first, the middle and the last with each of these types, and of one without types."""

    @pytest.hookimpl(trylast=True)  # of those that `-m` leaves
    def pytest_collection_modifyitems(self, config: Any, items: list[Any]) -> None:
        found: dict[tuple[int, str], list[Any]] = {}
        for item in items:
            of = item.callspec.id.split("-") if hasattr(item, "callspec") else ()
            types = [dtype for dtype in _DTYPES if dtype in of]
            if types or "dtype" not in item.fixturenames:
                found.setdefault((_DTYPES.index(types[0]) if types else 0, item.originalname), []).append(item)
        each = [found[key] for key in sorted(found)]
        kept = dict.fromkeys(item for one in each for item in (one[0], one[len(one) // 2], one[-1]))
        config.hook.pytest_deselected(items=[item for item in items if item not in kept])
        items[:] = kept


def main() -> int:
    """pytest's exit status."""
    import cupy

    cupy.cuda.set_allocator(None)  # no pool, in whose blocks an array's bounds are not seen
    # Neither pytest nor hypothesis keeps anything, which in the image they may not.
    options = "-v", "-p", "no:cacheprovider", "-p", "no:hypothesispytest"
    return int(pytest.main([*options, *TESTS], plugins=[FewOfEach()]))


if __name__ == "__main__":
    sys.exit(main())
