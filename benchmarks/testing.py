"""`python -m benchmarks.testing`: the tests, those on a GPU the fastest first; a failure is shown when it comes."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

_TESTERS = 8  # processes that share the GPU: most of a test's time is the host's
# The files with GPU tests by the seconds that one of their tests takes: 0.1 ms to 6 s on the simulated device.
_FASTEST = (
    *("backends/cuda/test_kernel_sums.py", "backends/cuda/test_kernel_texts.py", "backends/cuda/test_kernel_packs.py"),
    *("backends/cuda/test_backend.py", "api/test_gradients_by_hand.py", "api/test_expressions.py"),
    *("backends/cpu/test_backend.py", "tools/test_examples.py", "foreign/test_cupy_and_jax.py"),
    *("backends/cuda/test_gpu_products.py", "backends/cuda/test_gpu.py", "backends/cuda/test_gpu_programs.py"),
    *("backends/cuda/test_gpu_memory.py", "api/test_gradients_random.py", "api/test_random.py"),
)
_OF_BENCHMARKS = "jinja2", "matplotlib", "pandas"  # without which their tests cannot be read
_SHOWN = 3000  # characters of a failure


def main(arguments: Sequence[str] | None = None) -> int:
    """pytest's exit status."""
    import pytest

    parser = argparse.ArgumentParser(prog="python -m benchmarks.testing", description=__doc__)
    parser.add_argument("--backend", choices=["cpu", "cuda"], required=True, help="cuda: the GPU tests alone")
    return int(pytest.main([*_options(parser.parse_args(arguments).backend == "cuda")], plugins=[_Failures()]))


def _options(on_cuda: bool) -> Iterator[str]:
    yield from ("-p", "no:cacheprovider", "-p", "no:hypothesispytest", "--continue-on-collection-errors", "--tb=short")
    # Warnings are errors here: but what other versions of a library deprecate is no fault of ours.
    yield from ("-W", "default::DeprecationWarning", "-W", "default::FutureWarning")
    if find_spec("xdist"):
        yield from ("-n", str(min(_TESTERS, os.cpu_count() or 1)) if on_cuda else "auto", "--dist", "loadgroup")
    else:
        print("left out: other processes for the tests, which need pytest-xdist", flush=True)
    missing = [name for name in _OF_BENCHMARKS if find_spec(name) is None]
    if on_cuda:
        yield from ("-m", "gpu", *files(Path("tests")))
    elif missing:
        print(f"left out: tests/benchmarks, which need {', '.join(missing)}", flush=True)
        yield "--ignore=tests/benchmarks"


def files(folder: Path) -> list[str]:
    """The fastest first; the benchmarks have no GPU tests."""
    known = [folder / name for name in _FASTEST]
    others = [path for path in sorted(folder.rglob("test_*.py")) if path.parent.name != "benchmarks"]
    return [str(path) for path in dict.fromkeys([*known, *others]) if path.exists()]


class _Failures:
    """Shows each when it comes: pytest does so at its end, before which its time may be over."""

    def pytest_configure(self, config: Any) -> None:
        self._plugins = config.pluginmanager

    def pytest_runtest_logreport(self, report: Any) -> None:
        if report.failed:
            terminal = self._plugins.get_plugin("terminalreporter")
            terminal.write_line(f"\n{report.nodeid}, {report.when}: {report.longreprtext[-_SHOWN:]}")


if __name__ == "__main__":
    sys.exit(main())
