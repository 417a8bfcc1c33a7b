"""numpy's and opt_einsum's own einsum tests, as they lie in their wheels, run on our functions.

Each module runs in a pytest of its own, with the plugin `stand_in`. Exactly the tests named here may fail, each
for a difference that we mean.
"""

import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import gpueinsum as ge

HERE = Path(__file__).parent

# Tests that fail, as they must, and the difference that we defend.
EMBEDS = "ij->jij embeds on the diagonal here; the test's other lines are in test_cupy_and_jax"
EXECUTOR = "it reads what opt_einsum's executor keeps"
SHARES = "shared_intermediates() keeps what opt_einsum's own executor computes; ours keeps nothing between calls"
NUMPY_DIFFERENCES: dict[str, str] = {
    **{
        f"TestEinsum::test_einsum_errors[{function}-{optimize}]": EMBEDS
        for function in ("einsum", "einsum_path")
        for optimize in (True, False)
    },
    "TestEinsum::test_einsum_0d_out": "casting='safe' forbids float64 into an int64 out for every `optimize`",
    "TestEinsum::test_subscript_range": "labels of the interleaved form may be any integers, not only 0 to 51",
}
OPT_EINSUM_DIFFERENCES: dict[str, str] = {
    "input::test_value_errors[contract]": EMBEDS,
    "input::test_value_errors[contract_path]": EMBEDS,
    **{
        f"sharing::{name}": SHARES
        for library in ("numpy", "cupy")
        for name in (
            f"test_sharing_nesting[{library}]",
            f"test_partial_sharing[{library}]",
            *(f"test_chain_sharing[{library}-{length}]" for length in (3, 4, 5)),
        )
    },
    **{f"backends::test_cupy_with_constants[constants{number}]": EXECUTOR for number in range(3)},
    "paths::test_bad_path_option": "it passes contract() a shapes= that means nothing there, and ours refuses",
    "backends::test_object_arrays_backend[ijk,ikj]": "a scalar of dtype object is the bare object, as np.einsum's is",
    "edge_cases::test_contract_expression_checks": "a bad call gets einsum's own pointing error, not 'Internal error'",
    "edge_cases::test_can_blas_on_healed_broadcast_dimensions": EXECUTOR,
}

# Other frameworks' arrays stay theirs: their backends are not asked of us, whether they are installed or not.
OURS = "not cupy and not torch and not jax and not tensorflow and not theano"
# Module and part of it; the parts share the work among processes.
OPT_EINSUM_TESTS = [
    ("blas", ""),
    ("contract", "test_contract_expressions and True"),
    ("contract", "test_contract_expressions and not True"),
    ("contract", "test_compare"),
    ("contract", "not test_contract_expressions and not test_compare"),
    ("edge_cases", ""),
    ("input", ""),
    ("paths", ""),
    ("sharing", OURS),
    ("backends", OURS),
    pytest.param("sharing", "cupy", marks=pytest.mark.gpu),
    pytest.param("backends", "cupy", marks=pytest.mark.gpu),
]


def test_numpys_own_tests(tmp_path: Path) -> None:
    outcomes = run("numpy", "numpy._core.tests.test_einsum", "", tmp_path)
    assert failures(outcomes) == set(NUMPY_DIFFERENCES)


@pytest.mark.parametrize(("module", "part"), OPT_EINSUM_TESTS)
def test_opt_einsums_own_tests(module: str, part: str, tmp_path: Path) -> None:
    if part == "cupy" and ge.array_module() is np:
        pytest.skip("not run on a GPU: there is none")
    outcomes = run("opt_einsum", f"opt_einsum.tests.test_{module}", part, tmp_path)
    named = {f"{module}::{name}": outcome for name, outcome in outcomes.items()}
    assert failures(named) == {name for name in OPT_EINSUM_DIFFERENCES if name in named}


def test_a_wrong_einsum_fails_these_tests(tmp_path: Path) -> None:
    outcomes = run("numpy", "numpy._core.tests.test_einsum", "test_einsum_misc", tmp_path, "--wrong")
    assert outcomes == {"TestEinsum::test_einsum_misc": "failed"}
    outcomes = run("opt_einsum", "opt_einsum.tests.test_contract", "test_drop_in_replacement", tmp_path, "--wrong")
    assert "passed" not in outcomes.values()


def run(package: str, module: str, part: str, tmp_path: Path, *options: str) -> dict[str, str]:
    """Runs a test module with ours in the place of the package's; the outcome of each test by its name."""
    if find_spec(module) is None:
        pytest.skip(f"this {package} has no {module}")
    report = tmp_path / "outcomes.json"
    command = [sys.executable, "-m", "pytest", "-q", "-c", os.devnull, "-p", "no:cacheprovider", "-p", "stand_in"]
    command += ["--import-mode=append"]  # or the folder that all packages lie in came before PYTHONPATH's
    command += ["--tb=short", "--ours-in", package, "--outcomes", str(report), *options]
    command += ["-k", part, "--pyargs", module]
    checkout = Path(ge.__file__).parents[1]  # where nothing is installed
    path = os.pathsep.join([str(HERE), *filter(None, [os.environ.get("PYTHONPATH")]), str(checkout)])
    # Plugins that happen to be installed stay out: pytest-benchmark takes any argument called `benchmark` for its own.
    environment = {**os.environ, "PYTHONPATH": path, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    process = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True)
    assert process.returncode in (0, 1), process.stdout[-5_000:] + process.stderr[-5_000:]
    print(process.stdout[-20_000:])  # what failed and why, should the assertion that follows fail
    answered: dict[str, Any] = json.loads(report.read_text())
    assert answered["calls"] > 0, "gpueinsum was never called"
    return answered["outcomes"]


def failures(outcomes: dict[str, str]) -> set[str]:
    assert "passed" in outcomes.values()
    return {name for name, outcome in outcomes.items() if outcome == "failed"}
