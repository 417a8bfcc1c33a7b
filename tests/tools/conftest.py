"""What the tests of the command line share: a folder with arrays, and a cache of its own."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from gpueinsum.costs.machine import profile_for


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rng: np.random.Generator) -> Path:
    """The current folder, with A.npy (3, 5) and B.npy (5, 7)."""
    monkeypatch.chdir(tmp_path)
    np.save("A.npy", rng.standard_normal((3, 5)))
    np.save("B.npy", rng.standard_normal((5, 7)))
    return tmp_path


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty cache folder, and no profile read before."""
    monkeypatch.setenv("GPUEINSUM_CACHE", str(tmp_path / "cache"))
    profile_for.cache_clear()
    yield tmp_path / "cache"
    profile_for.cache_clear()
