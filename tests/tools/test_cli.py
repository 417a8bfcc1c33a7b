"""The command line, through `main`, and once through a process of its own."""

import dataclasses
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest

import gpueinsum as ge
from gpueinsum.costs.machine import keep, machine, profile_for, profile_path
from gpueinsum.costs.profile import Profile, device_profile, profile
from gpueinsum.errors import DeviceError
from gpueinsum.tools import calibrate, cli, doctor
from gpueinsum.tools.cli import main
from gpueinsum.tools.doctor import MISSING, OK, WRONG, Finding


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


# ---------------------------------------------------------------- run


def test_run_computes_files(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "ij,jk->ki", "A.npy", "B.npy", "--out", "C.npy", "--backend", "cpu"]) == 0
    np.testing.assert_allclose(np.load("C.npy"), (np.load("A.npy") @ np.load("B.npy")).T)
    out = capsys.readouterr().out
    assert out.startswith("C.npy: (7, 3) float64, computed in ")
    assert out.endswith("s on cpu\n")


@pytest.mark.usefixtures("folder")
def test_run_chooses_a_place_by_itself() -> None:
    assert main(["run", "ij,jk->ik", "A.npy", "B.npy", "--out", "C.npy", "--optimize", "greedy"]) == 0
    np.testing.assert_allclose(np.load("C.npy"), np.load("A.npy") @ np.load("B.npy"))


@pytest.mark.usefixtures("folder")
def test_run_computes_in_the_dtype_asked_for() -> None:
    np.save("N.npy", np.full((3, 5), 100, np.int8))
    assert main(["run", "ij->i", "N.npy", "--out", "C.npy", "--dtype", "int64", "--backend", "cpu"]) == 0
    assert np.load("C.npy").tolist() == [500, 500, 500]


@pytest.mark.parametrize(
    "array",
    [np.array(2.5), np.zeros((0, 3)), np.asfortranarray(np.ones((2, 3))), np.arange(6, dtype=">i4").reshape(2, 3)],
    ids=["scalar", "empty", "fortran", "big-endian"],
)
def test_run_takes_any_layout_of_file(folder: Path, array: np.ndarray[Any, Any]) -> None:
    np.save("X.npy", array)
    assert main(["run", "...->", "X.npy", "--out", "C.npy", "--backend", "cpu"]) == 0
    assert np.load("C.npy") == array.sum()


@pytest.mark.usefixtures("folder")
def test_run_may_overwrite_an_operand() -> None:
    expected = np.load("A.npy").T
    assert main(["run", "ij->ji", "A.npy", "--out", "A.npy", "--backend", "cpu"]) == 0
    np.testing.assert_array_equal(np.load("A.npy"), expected)


@pytest.mark.usefixtures("folder")
def test_run_writes_through_a_link() -> None:
    Path("real.npy").write_bytes(b"old")
    Path("link.npy").symlink_to("real.npy")
    assert main(["run", "ij->ji", "A.npy", "--out", "link.npy", "--backend", "cpu"]) == 0
    assert Path("link.npy").is_symlink()
    np.testing.assert_array_equal(np.load("real.npy"), np.load("A.npy").T)


@pytest.mark.usefixtures("folder")
def test_run_may_lose_precision_where_that_is_asked_for() -> None:
    assert main(["run", "ij->ij", "A.npy", "--out", "C.npy", "--backend", "cpu", "--dtype", "float32"]) == 0
    assert np.load("C.npy").dtype == np.float32


@pytest.mark.usefixtures("folder")
def test_an_equation_without_operand_labels_is_no_option() -> None:
    np.save("x.npy", np.array(3.0))
    assert main(["run", "->", "x.npy", "--out", "C.npy", "--backend", "cpu"]) == 0
    assert np.load("C.npy") == 3


def test_a_limit_that_cannot_be_kept_to_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    expression = ["ij,jk,kl->il", "20x30", "30x40", "40x50"]
    assert main(["explain", *expression, "--optimize", "dp", "--memory-limit", "1"]) == 2
    assert capsys.readouterr().err.startswith("gpueinsum: optimize='dp' finds no path: No contraction found")


def test_run_needs_cuda_where_cuda_is_asked_for(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gpueinsum.backends.select.cuda_backend", _no_gpu)
    assert main(["run", "ij->ji", "A.npy", "--out", "C.npy", "--backend", "cuda"]) == 2
    assert capsys.readouterr().err == "gpueinsum: CUDA needs a driver\n"
    assert sorted(path.name for path in folder.iterdir()) == ["A.npy", "B.npy"]


def _no_gpu() -> Any:
    raise DeviceError("CUDA needs a driver")


def test_run_points_at_the_label_that_does_not_fit(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "ij,kj->ik", "A.npy", "B.npy", "--out", "C.npy"]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err == ("gpueinsum: label 'j' is 5 in operand 0 but 7 in operand 1\n    ij,kj->ik\n     ^  ^\n")
    assert not (folder / "C.npy").exists()


@pytest.mark.usefixtures("folder")
def test_pickles_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    np.save("P.npy", np.array([1, "two"], dtype=object), allow_pickle=True)
    assert main(["run", "i->i", "P.npy", "--out", "C.npy"]) == 2
    assert "P.npy is no .npy file that can be read: Object arrays cannot be loaded" in capsys.readouterr().err


@pytest.mark.parametrize(
    "content",
    [b"", b"not an array", b"\x93NUMPY\x01\x00", b"\x93NUMPY\x01\x00\x04\x00spam", b"\x93NUMPY\x01\x00\x04\x00(2, "],
)
def test_broken_files_are_refused(folder: Path, capsys: pytest.CaptureFixture[str], content: bytes) -> None:
    (folder / "X.npy").write_bytes(content)
    assert main(["run", "i->i", "X.npy", "--out", "C.npy"]) == 2
    assert capsys.readouterr().err.startswith("gpueinsum: X.npy is no .npy file that can be read: ")


@pytest.mark.usefixtures("folder")
def test_a_cut_off_file_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    whole = Path("A.npy").read_bytes()
    Path("A.npy").write_bytes(whole[:-8])
    assert main(["run", "ij->i", "A.npy", "--out", "C.npy"]) == 2
    assert capsys.readouterr().err.startswith("gpueinsum: A.npy is no .npy file that can be read: ")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["missing.npy", "--out", "C.npy"], "No such file or directory: 'missing.npy'"),
        (["A.npy", "--out", "nowhere/C.npy"], "--out nowhere/C.npy: there is no folder nowhere"),
        (["A.npy", "--out", "."], "--out . is a folder"),
        (["A.npy", "--out", os.devnull], "is no file that can be replaced"),
        (["A.npy", "--out", "C.npy", "--dtype", "spam"], "dtype='spam' is no dtype"),
        (["A.npy", "--out", "C.npy", "--dtype", "int8"], "which casting='same_kind' does not cast to int8"),
        (["A.npy", "--out", "C.npy", "--dtype", "bfloat16"], "an .npy file cannot hold bfloat16"),
        (["A.npy", "--out", "C.npy", "--optimize", "spam"], "optimize='spam' is no path"),
    ],
)
def test_users_errors_are_one_message(
    folder: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    assert main(["run", "ij->ji", *arguments]) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith("gpueinsum: ")
    assert message in captured.err
    assert "Traceback" not in captured.err
    assert sorted(path.name for path in folder.iterdir()) == ["A.npy", "B.npy"]


def test_a_failing_write_leaves_nothing_behind(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "C.npy").write_bytes(b"precious")

    def full_disk(file: Any, *args: Any, **kwargs: Any) -> None:
        file.write(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "save", full_disk)
    assert main(["run", "ij->ji", "A.npy", "--out", "C.npy", "--backend", "cpu"]) == 2
    assert "No space left on device" in capsys.readouterr().err
    assert (folder / "C.npy").read_bytes() == b"precious"
    assert sorted(path.name for path in folder.iterdir()) == ["A.npy", "B.npy", "C.npy"]


def test_an_interrupted_write_leaves_nothing_behind(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*args: Any, **kwargs: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(np, "save", interrupted)
    with pytest.raises(KeyboardInterrupt):
        main(["run", "ij->ji", "A.npy", "--out", "C.npy", "--backend", "cpu"])
    assert sorted(path.name for path in folder.iterdir()) == ["A.npy", "B.npy"]


@pytest.mark.usefixtures("folder")
def test_a_bug_of_ours_is_not_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    def bug(*args: Any, **kwargs: Any) -> None:
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr(ge, "contract", bug)
    with pytest.raises(ZeroDivisionError):
        main(["run", "ij->ji", "A.npy", "--out", "C.npy"])


# ---------------------------------------------------------------- explain


def test_explain_shows_the_plan(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explain", "ij,jk,kl->il", "40x30", "30,20", "20x10"]) == 0
    out = capsys.readouterr().out
    assert "jk,kl->jl" in out
    assert "ij,jl->il" in out
    assert "peak memory" in out


def test_explain_knows_scalars_vectors_and_files(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    np.save("F.npy", np.ones((3, 5), np.float32))
    assert main(["explain", ",i,ij->j", "scalar", "3", "F.npy"]) == 0
    assert capsys.readouterr().out.startswith(",i,ij->j  float32\nsizes: i=3 j=5\n")


def test_explain_prints_json_that_can_be_read_back(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explain", "ij,jk->ik", "3x5", "5x7", "--json", "--dtype", "float16"]) == 0
    plan = ge.Plan.from_json(capsys.readouterr().out)
    assert plan == ge.einsum_plan("ij,jk->ik", (3, 5), (5, 7), dtype="float16")


@pytest.mark.usefixtures("folder")
def test_explain_shows_what_a_device_makes_of_it(capsys: pytest.CaptureFixture[str]) -> None:
    expression = ["explain", "ij,jk,kl->il", "300x500", "500x700", "700x110"]
    shown = []
    keep(profile("a100"), Path("mine.json"))
    for device in ("h200", "a100", "cpu", "mine.json"):
        assert main([*expression, "--device", device]) == 0
        shown.append(capsys.readouterr().out)
    assert len(set(shown)) == 3
    assert shown[1] == shown[3]
    for device in ("h999", "missing.json"):
        assert main([*expression, "--device", device]) == 2
        assert capsys.readouterr().err.startswith("gpueinsum: ")
    assert main([*expression, "--device", "cpu", "--json"]) == 2
    assert "leave --device out" in capsys.readouterr().err


def test_the_version_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["--version"])
    assert stopped.value.code == 0
    assert capsys.readouterr().out == f"gpueinsum {ge.__version__}\n"


def test_explain_shows_derivatives(capsys: pytest.CaptureFixture[str]) -> None:
    expression = ["explain", "ij,jk->ik", "3x5", "5x7"]
    assert main([*expression, "--vjp", "--wrt", "1", "0"]) == 0
    assert capsys.readouterr().out.startswith("ij,jk,ik->jk,ij  float64")
    assert main([*expression, "--jvp", "--json"]) == 0
    assert ge.Plan.from_json(capsys.readouterr().out) == ge.einsum_plan("ij,jk->ik", (3, 5), (5, 7)).jvp()
    assert main([*expression, "--vjp", "--bytes", "1kB", "--optimize", "dp"]) == 0
    capsys.readouterr()
    assert main([*expression, "--vjp", "--bytes", "1B"]) == 2
    assert "a memory_limit of 1 B is too small" in capsys.readouterr().err
    assert main([*expression, "--bytes", "1B"]) == 2
    assert "--bytes goes with --vjp" in capsys.readouterr().err
    assert main([*expression, "--wrt", "1"]) == 2
    assert "--wrt goes with --vjp or --jvp" in capsys.readouterr().err
    assert main([*expression, "--vjp", "--wrt", "2"]) == 2
    assert "the positions are 0 to 1" in capsys.readouterr().err


def test_explain_obeys_the_memory_limit(capsys: pytest.CaptureFixture[str]) -> None:
    expression = ["explain", "ab,bc,cd,da->", "50x50", "50x50", "50x50", "50x50"]
    for limit in ("max_input", "2500", "-1"):
        assert main([*expression, "--memory-limit", limit]) == 0
    assert main([*expression, "--memory-limit", "0"]) == 2
    assert "memory_limit=0 is not a positive number" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("shape", "message"),
    [("3y5", "'3y5' is no shape such as 40x30"), ("", "'' is no shape"), ("3x,5", "is no shape"), ("3,-5", "negative")],
)
def test_bad_shapes_are_users_errors(capsys: pytest.CaptureFixture[str], shape: str, message: str) -> None:
    assert main(["explain", "ij->i", shape]) == 2
    assert message in capsys.readouterr().err


def test_explain_points_at_mistakes(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explain", "ij,jk->iz", "3x5", "5x7"]) == 2
    assert capsys.readouterr().err.splitlines()[-2:] == ["    ij,jk->iz", "            ^"]


def test_unknown_arguments_exit_with_2(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in ([], ["spam"], ["run", "ij"], ["explain", "ij"], ["run", "i", "A.npy"]):
        with pytest.raises(SystemExit) as exit_:
            main(arguments)
        assert exit_.value.code == 2
    assert "usage: gpueinsum" in capsys.readouterr().err


def test_the_package_runs_as_a_module() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "gpueinsum", "explain", "ij,jk->ik", "3x5", "5x7"], capture_output=True, text=True
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "ij,jk->ik" in done.stdout


def test_a_process_reports_users_errors_without_a_traceback_or_cupy() -> None:
    code = (
        "import sys; from gpueinsum.tools.cli import main; "
        "r = main(['explain', 'ij->k', '3x5']); sys.exit(r + ('cupy' in sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr == "gpueinsum: output label 'k' is in no operand\n    ij->k\n        ^\n"


def test_a_label_that_the_terminal_lacks_is_escaped() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "gpueinsum", "explain", "iλ->λ", "3x5"],
        capture_output=True,
        env=os.environ | {"PYTHONIOENCODING": "ascii"},
    )
    assert done.returncode == 0
    assert b"i\\u03bb->\\u03bb" in done.stdout


@pytest.mark.skipif(sys.platform == "win32", reason="needs a POSIX shell")
def test_a_reader_that_leaves_early_is_no_error() -> None:
    many = " ".join(["7"] * 3000)
    equation = ",".join(chr(0x4E00 + n) for n in range(3000))
    command = f"{sys.executable} -m gpueinsum explain '{equation}->' {many} --optimize false | head -c 1 >/dev/null"
    done = subprocess.run(["sh", "-c", command], capture_output=True, text=True)
    assert "Traceback" not in done.stderr
    assert "Broken" not in done.stderr


# ---------------------------------------------------------------- doctor


@pytest.fixture
def no_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    """Compiling every kernel takes seconds; tests/backends/cuda/test_kernel_texts.py does it."""
    monkeypatch.setattr(doctor, "compile_text", lambda text, architecture: b"")


@pytest.fixture
def no_gpu(no_compiler: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gpueinsum.backends.select.cuda_backend", _no_gpu)


@pytest.fixture
def simulated_gpu(no_compiler: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """CUDA is the simulated device; what only CuPy can say of a real one is made up."""
    from conftest import simulated_backend

    monkeypatch.setattr("gpueinsum.backends.select.cuda_backend", simulated_backend)
    monkeypatch.setattr(doctor, "_device_lines", lambda: ["GPU 0 of 1: simulated"])
    monkeypatch.setattr(doctor, "_architecture", lambda: "sm_90")


@pytest.mark.usefixtures("no_gpu")
def test_the_doctor_finds_a_machine_without_a_gpu_well(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor"]) == 0
    out = capsys.readouterr().out
    assert "missing  GPU: CUDA needs a driver; einsum computes on the CPU" in out
    assert "ok       float16 on cpu: 14 results equal numpy's" in out
    assert all(line.split()[0] in (OK, MISSING) for line in out.splitlines()[:-1])
    assert out.splitlines()[-1].startswith("nothing wrong")


def test_the_doctor_tells_which_profile_prices_plans(
    cache: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor, "_DTYPES", ())
    path = profile_path(machine("cpu"))
    assert main(["doctor", "--backend", "cpu"]) == 0
    assert "ok       profile of cpu: cpu, of the package; gpueinsum calibrate measures" in capsys.readouterr().out
    keep(profile("cpu"), path)
    assert main(["doctor", "--backend", "cpu"]) == 0
    assert f"ok       profile of cpu: measured here, {path}" in capsys.readouterr().out
    path.write_text("spam")
    assert main(["doctor", "--backend", "cpu"]) == 1
    assert f"WRONG    profile of cpu: {path}: not a device profile" in capsys.readouterr().out


@pytest.mark.usefixtures("no_gpu")
def test_the_doctor_fails_without_a_gpu_that_is_demanded(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "--backend", "cuda"]) == 1
    assert "WRONG    GPU: CUDA needs a driver" in capsys.readouterr().out


def test_the_doctor_looks_for_no_gpu_if_told_so(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr("gpueinsum.backends.select.cuda_backend")
    assert main(["doctor", "--backend", "cpu"]) == 0
    assert "GPU" not in capsys.readouterr().out


@pytest.mark.usefixtures("simulated_gpu")
def test_the_doctor_checks_every_dtype_on_cuda(capsys: pytest.CaptureFixture[str]) -> None:
    from conftest import simulated_backend

    simulated_backend().runtime.calls.clear()
    assert main(["doctor"]) == 0
    out = capsys.readouterr().out
    assert out.count("results equal numpy's") == len(doctor._DTYPES)
    assert out.count(" on cuda: ") == len(doctor._DTYPES) + 1
    calls = simulated_backend().runtime.calls
    launched = {call[1].name for call in calls if call[0] == "launch"}
    assert launched == {"reduce", "reduce_columns", "multiply", "expand", "add", "integer_gemm", "pointers"}
    assert {"gemm", "pointer gemm"} <= {call[0] for call in calls}


def _one_element_wrong(*args: Any, **kwargs: Any) -> Any:
    result = np.array(_EINSUM(*args, **kwargs))
    if result.ndim and result.dtype == np.float16:
        result.flat[-1] += 1
    return result


_EINSUM = ge.einsum


@pytest.mark.usefixtures("no_gpu")
def test_the_doctor_detects_a_wrong_element(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ge, "einsum", _one_element_wrong)
    assert main(["doctor"]) == 1
    out = capsys.readouterr().out
    assert "WRONG    float16 on cpu: matrix product ij,jk->ik: 1 of 4891 elements differ from numpy's" in out
    assert "WRONG    float32" not in out
    assert "checks went wrong" in out.splitlines()[-1]


@pytest.mark.usefixtures("simulated_gpu")
def test_the_doctor_detects_a_kernel_that_is_wrong(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from simulated import SimulatedRuntime

    launch = SimulatedRuntime.launch

    def skips_expand(self: Any, kernel: Any, *args: Any) -> None:
        if kernel.name != "expand":
            launch(self, kernel, *args)

    monkeypatch.setattr(SimulatedRuntime, "launch", skips_expand)
    assert main(["doctor"]) == 1
    wrong = [line for line in capsys.readouterr().out.splitlines() if line.startswith(WRONG)]
    assert sum("embedding ij->iji" in line for line in wrong) == len(doctor._DTYPES)
    assert sum("gradient of a trace ii->" in line for line in wrong) == len(wrong) - len(doctor._DTYPES) == 6


@pytest.mark.usefixtures("simulated_gpu")
def test_the_doctor_detects_tf32(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ge, "einsum", lambda *args, **kwargs: _EINSUM(*args, **kwargs, precision="tf32"))
    assert main(["doctor"]) == 1
    wrong = [line for line in capsys.readouterr().out.splitlines() if line.startswith(WRONG)]
    assert len(wrong) == 1
    assert wrong[0].endswith("is TF32 forced?")


@pytest.mark.usefixtures("simulated_gpu")
def test_a_device_that_raises_is_a_finding(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def lost(*args: Any, **kwargs: Any) -> Any:
        raise RuntimeError("cudaErrorLaunchFailure: unspecified launch failure\nmore")

    monkeypatch.setattr(ge, "einsum", lost)
    assert main(["doctor"]) == 1
    out = capsys.readouterr().out
    assert out.count("RuntimeError: cudaErrorLaunchFailure: unspecified launch failure") > len(doctor._DTYPES)
    assert "Traceback" not in out


@pytest.mark.usefixtures("simulated_gpu")
def test_a_device_that_does_not_answer_is_wrong(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def silent() -> list[str]:
        raise RuntimeError("cudaErrorECCUncorrectable")

    monkeypatch.setattr(doctor, "_device_lines", silent)
    assert main(["doctor"]) == 1
    assert "WRONG    GPU: it does not answer: cudaErrorECCUncorrectable" in capsys.readouterr().out


@pytest.mark.usefixtures("no_gpu")
def test_a_kernel_that_does_not_compile_is_wrong(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    _pretend_cupy(monkeypatch, driver=0)

    def refuse(text: str, architecture: str) -> bytes:
        raise RuntimeError("NVRTC cannot compile for sm_90:\nreduce.cu(3): error")

    monkeypatch.setattr(doctor, "compile_text", refuse)
    assert main(["doctor"]) == 1
    assert "WRONG    kernel reduce does not compile for sm_90: NVRTC cannot compile" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("driver", "cause", "status"),
    [
        (0, RuntimeError("cudaErrorInsufficientDriver: ..."), MISSING),
        (12080, RuntimeError("cudaErrorInsufficientDriver: ..."), WRONG),
        (13000, RuntimeError("cudaErrorNoDevice: no CUDA-capable device"), MISSING),
        (13000, ImportError("libcublas.so.13: cannot open shared object file"), WRONG),
        (13000, None, MISSING),
    ],
    ids=["no driver", "old driver", "no device", "no cuBLAS", "none visible"],
)
def test_a_gpu_that_cannot_be_used_is_wrong_and_a_missing_one_is_not(
    monkeypatch: pytest.MonkeyPatch, driver: int, cause: Exception | None, status: str
) -> None:
    _pretend_cupy(monkeypatch, driver)

    def unusable() -> Any:
        raise DeviceError("CUDA needs something") from cause

    monkeypatch.setattr("gpueinsum.backends.select.cuda_backend", unusable)
    assert [finding.status for finding in doctor._device(None)] == [status]


def test_the_doctor_says_what_the_device_is(monkeypatch: pytest.MonkeyPatch) -> None:
    _pretend_cupy(monkeypatch, driver=13000)
    monkeypatch.setattr("gpueinsum.backends.select.cuda_backend", lambda: None)
    assert [str(finding) for finding in doctor._device(None)] == [
        "ok       driver: CUDA 13.0",
        "ok       CUDA runtime 13.2",
        "ok       cuBLAS 13.1.2",
        "ok       GPU 1 of 2: NVIDIA H200, compute capability 9.0, 132 multiprocessors, 100 GiB of 140 GiB free",
    ]
    assert doctor._architecture() == "sm_90"


def _pretend_cupy(monkeypatch: pytest.MonkeyPatch, driver: int) -> None:
    """CuPy as it is on a GPU machine, as far as the doctor asks it; cupyx.show_config makes the same calls."""
    properties = {"name": b"NVIDIA H200", "major": 9, "minor": 0, "multiProcessorCount": 132}
    runtime = SimpleNamespace(
        driverGetVersion=lambda: driver,
        runtimeGetVersion=lambda: 13020,
        getDeviceCount=lambda: 2,
        getDeviceProperties={1: properties}.__getitem__,
    )
    device = SimpleNamespace(id=1, mem_info=(100 * 2**30, 140 * 2**30), compute_capability="90")
    cuda = ModuleType("cupy.cuda")
    vars(cuda).update(
        runtime=runtime, Device=lambda: device, device=SimpleNamespace(get_cublas_handle=lambda: "handle")
    )
    cupy = ModuleType("cupy")
    vars(cupy).update(cuda=cuda, __version__="14.2.0")
    libs = ModuleType("cupy_backends.cuda.libs")
    vars(libs).update(cublas=SimpleNamespace(getVersion={"handle": 130102}.__getitem__))
    vars(libs).update(nvrtc=SimpleNamespace(getVersion=lambda: (13, 5)))
    for module in (cupy, cuda, libs):
        monkeypatch.setitem(sys.modules, module.__name__, module)


def test_cupy_has_the_calls_that_the_doctor_makes() -> None:
    cupy = pytest.importorskip("cupy")
    for name in ("driverGetVersion", "runtimeGetVersion", "getDeviceCount", "getDeviceProperties"):
        assert callable(getattr(cupy.cuda.runtime, name))
    assert {"mem_info", "compute_capability"} <= set(dir(cupy.cuda.Device))
    assert callable(cupy.cuda.device.get_cublas_handle)
    assert cupy.cuda.runtime.driverGetVersion() >= 0  # 0 without a driver, and no error


@pytest.mark.gpu
def test_the_doctor_finds_this_gpu_well(capsys: pytest.CaptureFixture[str]) -> None:
    from conftest import real_runtime

    real_runtime()
    assert main(["doctor", "--backend", "cuda"]) == 0
    assert "bfloat16 on cuda" in capsys.readouterr().out


def test_the_summary_counts() -> None:
    findings = [Finding(OK, ""), Finding(MISSING, ""), Finding(WRONG, "")]
    assert doctor.summary(findings) == "1 of 3 checks went wrong"
    assert doctor.summary(findings[:2]) == "nothing wrong, 1 missing"
    assert doctor.summary(findings[:1]) == "nothing wrong"


# ---------------------------------------------------------------- calibrate


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> Profile:
    """What calibration finds, at once."""
    found = dataclasses.replace(profile("cpu"), device="as the test says")
    monkeypatch.setattr(calibrate, "calibrate", lambda bench: found)
    return found


def test_calibrate_keeps_a_profile_for_this_machine(
    cache: Path, measured: Profile, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["calibrate", "--backend", "cpu"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("as the test says\n")
    assert out.endswith(f"kept in {profile_path(machine('cpu'))}\n")
    assert "float64" in out
    assert profile_for("cpu") == measured


@pytest.mark.usefixtures("cache", "folder")
def test_calibrate_writes_where_it_is_told_to(measured: Profile) -> None:
    assert main(["calibrate", "--backend", "cpu", "--out", "mine.json"]) == 0
    assert device_profile("mine.json") == measured
    assert profile_for("cpu") == profile("cpu")


@pytest.mark.usefixtures("cache")
def test_calibrate_needs_the_device_that_it_is_to_measure(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gpueinsum.costs.machine.machine", _no_gpu)
    monkeypatch.setattr("gpueinsum.tools.calibrate.machine", _no_gpu)
    assert main(["calibrate", "--backend", "cuda"]) == 2
    assert capsys.readouterr().err.startswith("gpueinsum: CUDA needs")


# ---------------------------------------------------------------- demo


def test_the_demo_agrees_with_numpy(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["demo"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == len(cli.EXAMPLES) + 2
    assert all(line.endswith("  ok") for line in lines[1:-1])
    assert "klcd,acik,dblj->abij" in "".join(lines)


def test_the_demo_fails_on_a_wrong_result(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ge, "einsum", lambda equation, *operands: _EINSUM(equation, *operands) * 1.001)
    assert main(["demo"]) == 1
    out = capsys.readouterr().out
    assert out.count("WRONG") == len(cli.EXAMPLES)
    assert out.endswith(f"0 of {len(cli.EXAMPLES)} agree with numpy\n")
