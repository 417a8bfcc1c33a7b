"""What `from importlib.util import find_spec

import pytest

import gpueinsum` offers."""

from importlib.util import find_spec

import pytest

import gpueinsum as ge


def test_only_public_names_are_listed():
    listed = [name for name in dir(ge) if not name.startswith("__")]
    assert listed == sorted(ge.__all__)
    assert all(hasattr(ge, name) for name in dir(ge))


def test_what_needs_a_library_is_there_with_it():
    assert ge.testing.assert_allclose
    if find_spec("torch") is None:
        with pytest.raises(AttributeError, match=r"gpueinsum\.torch cannot be imported: No module named 'torch'"):
            _ = ge.torch
    else:
        assert ge.torch.einsum
