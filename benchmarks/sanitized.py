"""`compute-sanitizer python -m benchmarks.sanitized`: the kernels' tests, each array in an allocation of its own."""

from __future__ import annotations

import sys

# Some types stand for others of as many bytes: kernels run tens of times as long under the sanitizer. Words of names.
_OTHERS = ("bool", "int16", "int32", "int64", "bfloat16", "float64")
_FILES = tuple(f"tests/backends/cuda/test_kernel_{part}.py" for part in ("texts", "sums", "packs"))
TESTS = ("-m", "gpu", "-k", f"not ({' or '.join(_OTHERS)})", *_FILES)


def main() -> int:
    """pytest's exit status."""
    import cupy
    import pytest

    cupy.cuda.set_allocator(None)  # no pool, in whose blocks an array's bounds are not seen
    return int(pytest.main(["-p", "no:cacheprovider", *TESTS]))


if __name__ == "__main__":
    sys.exit(main())
