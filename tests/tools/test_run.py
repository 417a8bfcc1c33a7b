"""`gpueinsum run`: arrays from files, their result into a file, and refusals that leave nothing behind."""

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command_line import no_gpu as _no_gpu

import gpueinsum as ge
from gpueinsum.tools.cli import main


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


def test_run_needs_cuda_where_cuda_is_asked_for(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gpueinsum.backends.select.cuda_backend", _no_gpu)
    assert main(["run", "ij->ji", "A.npy", "--out", "C.npy", "--backend", "cuda"]) == 2
    assert capsys.readouterr().err == "gpueinsum: CUDA needs a driver\n"
    assert sorted(path.name for path in folder.iterdir()) == ["A.npy", "B.npy"]


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
