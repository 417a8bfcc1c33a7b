"""How the image runs the tests, compiles the kernels and has them checked."""

import re
import subprocess
import sys
import types
from pathlib import Path

import pytest

from benchmarks import compiled, sanitized, testing
from benchmarks.container import ROOT
from gpueinsum.backends.cuda.source import KERNELS


def run(*command, site=False):
    """A process's exit status and what it printed; with `site` on the stand-in for CuPy."""
    folders = [str(ROOT / "tests" / "simulated" / "site")] * site + [str(ROOT)]
    environment = {"PYTHONPATH": ":".join(folders), "PATH": "/usr/bin:/bin"}
    found = subprocess.run([sys.executable, *command], cwd=ROOT, env=environment, capture_output=True, text=True)
    return found.returncode, found.stdout + found.stderr


# ---------------------------------------------------------------- tests


def test_the_fastest_files_come_first_and_all_others_but_the_benchmarks_after_them():
    found = testing.files(ROOT / "tests")
    assert [Path(path).name for path in found[:2]] == ["test_kernel_sums.py", "test_kernel_texts.py"]
    assert len(set(found)) == len(found)
    everything = {str(path) for path in (ROOT / "tests").rglob("test_*.py") if path.parent.name != "benchmarks"}
    assert set(found) == everything
    assert all((ROOT / "tests" / name).exists() for name in testing._FASTEST)


def test_no_test_of_the_benchmarks_needs_a_gpu():
    assert not [path for path in (ROOT / "tests" / "benchmarks").glob("*.py") if "mark." + "gpu" in path.read_text()]


@pytest.fixture
def options(monkeypatch):
    """pytest's arguments on a machine that lacks these modules."""

    def of(*lacking, on_cuda=True):
        monkeypatch.setattr(testing, "find_spec", lambda name: None if name in lacking else name)
        return " ".join(testing._options(on_cuda))

    return of


def test_on_a_gpu_its_tests_run_in_eight_processes_at_the_most(options, monkeypatch):
    monkeypatch.setattr("os.cpu_count", lambda: 16)
    assert "-n 8 --dist loadgroup -m gpu tests/backends/cuda/test_kernel_sums.py " in options()
    monkeypatch.setattr("os.cpu_count", lambda: 2)
    assert "-n 2 " in options()
    assert "-n auto --dist loadgroup" in options(on_cuda=False)
    assert "-m gpu" not in options(on_cuda=False)


def test_what_is_not_installed_is_left_out_in_a_sentence(options, capsys):
    assert "-n" not in options("xdist").split()
    assert options("pandas", "jinja2", on_cuda=False).endswith("--ignore=tests/benchmarks")
    assert options("pandas").count("benchmarks") == 0  # none of which is on a GPU
    assert capsys.readouterr().out == (
        "left out: other processes for the tests, which need pytest-xdist\n"
        "left out: tests/benchmarks, which need jinja2, pandas\n"
    )


@pytest.mark.parametrize("workers", ["0", "2"])
def test_a_failure_is_shown_before_the_tests_are_over(tmp_path, workers):
    (tmp_path / "test_some.py").write_text("def test_wrong(): assert 'this' == 'that'")
    text = (
        "import pytest; from benchmarks import testing; "
        f"pytest.main(['-p', 'no:cacheprovider', '-n', '{workers}', '--rootdir', r'{tmp_path}', r'{tmp_path}'], "
        "plugins=[testing._Failures()])"
    )
    _, shown = run("-c", text)
    at_once, _, _ = shown.partition("= FAILURES =")
    assert "test_some.py::test_wrong, call: " in at_once
    assert "AssertionError: assert 'this' == 'that'" in at_once


# ---------------------------------------------------------------- kernels


def test_kernels_are_compiled_once_each_and_timed():
    status, shown = run("-m", "benchmarks.compiled", site=True)
    assert status == 0, shown
    entries = len({kernel.entry for kernel in KERNELS})
    assert re.search(
        rf"{entries} of {entries} kernels compiled by \d+ processes in [\d.]+ s; one after the other", shown
    )


def test_a_kernel_that_does_not_compile_is_a_finding(monkeypatch):
    def refuse(kernel):
        raise RuntimeError("a lambda without execution space")

    monkeypatch.setattr(compiled, "_raw_kernel", refuse)
    _, fault = compiled._compile(KERNELS[0])
    assert fault == "RuntimeError: a lambda without execution space"


# ---------------------------------------------------------------- what compute-sanitizer checks


def test_what_is_checked_lies_in_no_pool(monkeypatch):
    allocators, asked = [], []
    monkeypatch.setitem(sys.modules, "cupy", types.SimpleNamespace(cuda=types.SimpleNamespace()))
    sys.modules["cupy"].cuda.set_allocator = allocators.append
    monkeypatch.setattr(pytest, "main", lambda arguments, plugins: asked.append(arguments) or 7)
    assert sanitized.main() == 7
    assert allocators == [None]
    assert asked[0][-len(sanitized.TESTS) :] == list(sanitized.TESTS)


def test_every_kernel_is_checked_by_few_tests_the_plainest_type_first():
    status, shown = run("-m", "benchmarks.sanitized", site=True)
    assert status == 0, shown
    names = re.findall(r"::(.+) PASSED", shown)
    assert 100 < len(names) < 300
    for words in (
        "sums_agree",
        "packs_are_summed",
        "tiles_are",
        "expand",
        "pointers",
        "are_added",
        "products_of_every_type",
    ):
        assert any(words in name for name in names), words
    words = [re.split(r"[\[\]-]", name) for name in names]
    types = [next((dtype for dtype in sanitized._DTYPES if dtype in each), "float32") for each in words]
    assert types == sorted(types, key=sanitized._DTYPES.index)
    assert set(types) == set(sanitized._DTYPES)  # of 4, 1, 2, 8 and 16 bytes
