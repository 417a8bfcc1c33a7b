"""The examples in the docstrings, run on the CPU backend."""

import doctest
import importlib
import pkgutil

import pytest

import gpueinsum

MODULES = [name for _, name, _ in pkgutil.walk_packages(gpueinsum.__path__, "gpueinsum.") if "__main__" not in name]


def module(name):
    """The module; skipped where it is for a library that is not there."""
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name not in ("torch", "jax"):
            raise
        pytest.skip(f"{error.name} is not installed")


@pytest.mark.parametrize("name", MODULES)
def test_the_examples_of_a_module_run(name):
    assert doctest.testmod(module(name)).failed == 0


def test_there_are_examples():
    own = [name for name in MODULES if ".interop" not in name and name.count(".") > 1]
    examples = [doctest.DocTestFinder().find(module(name)) for name in own]
    assert sum(len(test.examples) for tests in examples for test in tests) > 10
