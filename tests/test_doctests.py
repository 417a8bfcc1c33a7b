"""The examples in the docstrings, run on the CPU backend."""

import doctest
import importlib
import pkgutil

import pytest

import gpueinsum

MODULES = [name for _, name, _ in pkgutil.walk_packages(gpueinsum.__path__, "gpueinsum.") if "__main__" not in name]


@pytest.mark.parametrize("name", MODULES)
def test_the_examples_of_a_module_run(name):
    assert doctest.testmod(importlib.import_module(name)).failed == 0


def test_there_are_examples():
    examples = [doctest.DocTestFinder().find(importlib.import_module(name)) for name in MODULES]
    assert sum(len(test.examples) for tests in examples for test in tests) > 10
