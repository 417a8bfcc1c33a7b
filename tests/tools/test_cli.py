"""The command line, through `main`, and once through a process of its own: explain, calibrate, demo, arguments."""

import dataclasses
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from command_line import no_gpu as _no_gpu

import gpueinsum as ge
from gpueinsum.costs.machine import keep, machine, profile_for, profile_path
from gpueinsum.costs.profile import Profile, device_profile, profile
from gpueinsum.tools import calibrate, picture
from gpueinsum.tools.cli import main
from gpueinsum.tools.examples import EXAMPLES

_EINSUM = ge.einsum


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


def test_explain_shows_derivatives(capsys: pytest.CaptureFixture[str]) -> None:
    expression = ["explain", "ij,jk->ik", "3x5", "5x7"]
    assert main([*expression, "--vjp", "--wrt", "1", "0"]) == 0
    assert capsys.readouterr().out.startswith("ij,jk,ik->jk,ij  float64")
    assert main([*expression, "--jvp", "--json"]) == 0
    assert ge.Plan.from_json(capsys.readouterr().out) == ge.einsum_plan("ij,jk->ik", (3, 5), (5, 7)).jvp()
    assert main([*expression, "--vjp", "--memory-limit", "1kB", "--optimize", "dp"]) == 0
    capsys.readouterr()
    assert main([*expression, "--vjp", "--memory-limit", "1B"]) == 2
    assert "a memory_limit of 1 B is too small" in capsys.readouterr().err
    assert main([*expression, "--wrt", "1"]) == 2
    assert "--wrt goes with --vjp or --jvp" in capsys.readouterr().err
    assert main([*expression, "--vjp", "--wrt", "2"]) == 2
    assert "the positions are 0 to 1" in capsys.readouterr().err


@pytest.mark.usefixtures("folder")
def test_explain_draws_pictures(capsys: pytest.CaptureFixture[str]) -> None:
    expression = ["explain", "ij,jk,kl->il", "40x30", "30x20", "20x10"]
    plan = ge.einsum_plan("ij,jk,kl->il", (40, 30), (30, 20), (20, 10))
    Path("link.html").symlink_to("page.html")
    assert main([*expression, "--html", "link.html", "--svg", "tree.svg"]) == 0
    assert capsys.readouterr().out == "link.html: a picture of the plan\ntree.svg: a picture of the plan\n"
    assert Path("page.html").read_text("utf-8") == picture.html_page(plan)
    assert Path("tree.svg").read_text("utf-8") == picture.svg(plan)
    assert main([*expression, "--svg", "tree.svg", "--vjp", "--device", "h200"]) == 0
    assert Path("tree.svg").read_text("utf-8") == picture.svg(plan.vjp(), "h200")
    capsys.readouterr()
    for wrong, message in (
        (["--svg", "none/tree.svg"], "--svg none/tree.svg: there is no folder none"),
        (["--html", "."], "--html . is a folder"),
        (["--html", "page.html", "--json"], "--json prints the plan: leave --html and --svg out"),
    ):
        assert main([*expression, *wrong]) == 2
        assert message in capsys.readouterr().err
    assert {path.name for path in Path().iterdir()} == {"A.npy", "B.npy", "link.html", "page.html", "tree.svg"}


def test_a_limit_that_cannot_be_kept_to_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    expression = ["ij,jk,kl->il", "20x30", "30x40", "40x50"]
    assert main(["explain", *expression, "--optimize", "dp", "--largest-intermediate", "1"]) == 2
    assert capsys.readouterr().err.startswith("gpueinsum: optimize='dp' finds no path: No contraction found")


def test_explain_obeys_the_limit_of_elements(capsys: pytest.CaptureFixture[str]) -> None:
    expression = ["explain", "ab,bc,cd,da->", "50x50", "50x50", "50x50", "50x50"]
    for limit in ("max_input", "2500", "-1"):
        assert main([*expression, "--largest-intermediate", limit]) == 0
    assert main([*expression, "--largest-intermediate", "0"]) == 2
    assert "largest_intermediate=0 is not a positive number" in capsys.readouterr().err


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


# ---------------------------------------------------------------- profile


@pytest.mark.usefixtures("folder")
def test_profile_runs_files_and_random_numbers(capsys: pytest.CaptureFixture[str]) -> None:
    expression = ["profile", "ij,jk,kl->il", "A.npy", "5x7", "7x2", "--backend", "cpu", "--runs", "2"]
    assert main([*expression, "--html", "page.html"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("ij,jk,kl->il  float64\n\nstep  flops")
    assert out.endswith("each is the fastest of 2 runs\npage.html: a picture of the plan\n")
    assert "measured" in Path("page.html").read_text("utf-8")
    once = ["--backend", "cpu", "--runs", "1"]
    assert main(["profile", "ij,jk->ik", "A.npy", "B.npy", "--vjp", "--wrt", "1", *once]) == 0
    assert capsys.readouterr().out.startswith("ij,jk,ik->jk  float64\n")
    assert main(["profile", "ij,jk->ik", "A.npy", "7x2", *once]) == 2
    assert "label 'j' is 5 in operand 0 but 7 in operand 1" in capsys.readouterr().err
    assert main(["profile", "i->", "3", "--html", "none/page.html"]) == 2
    assert "there is no folder none" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["profile", "i->", "3", "--runs", "0"])
    assert "'0' is no positive number" in capsys.readouterr().err


# ---------------------------------------------------------------- the process and its arguments


def test_the_version_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["--version"])
    assert stopped.value.code == 0
    assert capsys.readouterr().out == f"gpueinsum {ge.__version__}\n"


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


# ---------------------------------------------------------------- calibrate


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> Profile:
    """What calibration finds, at once."""
    found = dataclasses.replace(profile("cpu"), device="as the test says")
    monkeypatch.setattr(calibrate, "calibrate", lambda bench, *sizes, show: show("one by one") or found)
    return found


def test_calibrate_keeps_a_profile_for_this_machine(
    cache: Path, measured: Profile, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["calibrate", "--backend", "cpu"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("one by one\nas the test says\n")
    assert out.endswith(f"kept in {profile_path(machine('cpu'))}\n")
    assert "float64" in out
    assert profile_for("cpu") == measured


@pytest.mark.usefixtures("cache", "folder")
def test_calibrate_writes_where_it_is_told_to(measured: Profile) -> None:
    assert main(["calibrate", "--backend", "cpu", "--out", "mine.json"]) == 0
    assert device_profile("mine.json") == measured
    assert profile_for("cpu") == profile("cpu")


@pytest.mark.usefixtures("cache", "folder")
def test_a_tiny_calibration_measures_next_to_nothing_and_is_kept_only_where_it_is_told_to(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["calibrate", "--backend", "cpu", "--tiny"]) == 2
    assert "give --out FILE.json" in capsys.readouterr().err
    assert main(["calibrate", "--backend", "cpu", "--tiny", "--out", "tiny.json"]) == 0
    assert "float32 1 x 64 x 64 x 64 " in capsys.readouterr().out
    assert device_profile("tiny.json").kind == "cpu"


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
    assert len(lines) == len(EXAMPLES) + 2
    assert all(line.endswith("  ok") for line in lines[1:-1])
    assert "klcd,acik,dblj->abij" in "".join(lines)


def test_the_demo_fails_on_a_wrong_result(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ge, "einsum", lambda equation, *operands: _EINSUM(equation, *operands) * 1.001)
    assert main(["demo"]) == 1
    out = capsys.readouterr().out
    assert out.count("WRONG") == len(EXAMPLES)
    assert out.endswith(f"0 of {len(EXAMPLES)} agree with numpy\n")
