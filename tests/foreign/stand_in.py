"""A pytest plugin: test modules that import numpy or opt_einsum find gpueinsum's functions in it.

`--ours-in numpy` puts a stand-in module in the place of numpy while test modules are imported, and only then: it has
our einsum and einsum_path, and everything else of numpy's. So what we call ourselves stays numpy's own.
`--outcomes FILE` writes as JSON which tests passed, failed or were skipped, and how often we were called.
`--wrong` doubles every result, to prove that these tests can fail.
"""

import functools
import json
import sys
from collections.abc import Callable, Generator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy.testing  # so that importing it never goes through the stand-in
import opt_einsum
import pytest

import gpueinsum as ge

OURS = {
    "numpy": ("einsum", "einsum_path"),
    "opt_einsum": ("contract", "contract_path", "contract_expression"),
}
CALLS = {"calls": 0}
OUTCOMES: dict[str, str] = {}


class StandIn(ModuleType):
    """The named module with some of its functions ours."""

    def __init__(self, original: ModuleType, wrong: bool) -> None:
        super().__init__(original.__name__)
        self._original = original
        for name in OURS[original.__name__]:
            setattr(self, name, counted(getattr(ge, name), wrong))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._original, name)


def counted(function: Callable[..., Any], wrong: bool) -> Callable[..., Any]:
    """opt_einsum's limit of elements, `memory_limit`, has another name here."""

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        CALLS["calls"] += 1
        if "memory_limit" in kwargs:
            kwargs["largest_intermediate"] = kwargs.pop("memory_limit")
        result = function(*args, **kwargs)
        return result + result if wrong else result

    return call


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--ours-in", choices=list(OURS), required=True)
    parser.addoption("--outcomes", type=Path, required=True)
    parser.addoption("--wrong", action="store_true")


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(collector: pytest.Collector) -> Generator[None, Any, Any]:
    original = {"numpy": numpy, "opt_einsum": opt_einsum}[collector.config.getoption("--ours-in")]
    sys.modules[original.__name__] = StandIn(original, collector.config.getoption("--wrong"))
    try:
        return (yield)
    finally:
        sys.modules[original.__name__] = original


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    name = report.nodeid.split("::", 1)[1]
    if report.when == "call" or report.outcome != "passed":
        OUTCOMES[name] = report.outcome


def pytest_sessionfinish(session: pytest.Session) -> None:
    session.config.getoption("--outcomes").write_text(json.dumps({**CALLS, "outcomes": OUTCOMES}))
