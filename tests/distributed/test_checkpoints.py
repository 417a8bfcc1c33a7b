"""Runs that are killed, interrupted or run out of disk go on where they stopped; folders of others are refused."""

import errno
import json
import os
import signal
import subprocess
from pathlib import Path

import numpy as np
import pytest
from batches import BATCHES, PLAN, assert_same_bits, in_batches, operands_of_plan, start

import gpueinsum as ge
from gpueinsum.distributed import checkpoint, engines, run

# Waits for a signal when half of the slices are done.
RUN = """
def wait(done, total):
    show(done, total)
    time.sleep(60 if 2 * done > total else 0)

ge.run_plan(PLAN, *operands_of_plan(), checkpoint="kept", progress=wait)
"""


@pytest.fixture(autouse=True)
def _batches(monkeypatch):
    in_batches(monkeypatch)
    monkeypatch.setattr(run, "_SAVE_AFTER", 0.0)


@pytest.fixture
def interrupted(tmp_path):
    """A folder in which some of the batches are done."""
    stop_after(9, tmp_path)
    return tmp_path


def stop_after(batches, folder):
    told = []

    def stop(done, total):
        told.append(done)
        if len(told) == batches:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        ge.run_plan(PLAN, *operands_of_plan(), checkpoint=folder, progress=stop)


def resume(folder, **options):
    """The results, and how many batches were run."""
    told = []
    found = ge.run_plan(PLAN, *operands_of_plan(), checkpoint=folder, progress=lambda *x: told.append(x), **options)
    return found, len(told)


def wanted():
    return ge.run_plan(PLAN, *operands_of_plan(), executor=engines.Here())


# ---------------------------------------------------------------- what is survived


def test_an_interrupted_run_goes_on(interrupted):
    assert sorted(path.name for path in interrupted.iterdir()) == ["run.json", "sum-0-8.npz", "sum-3-0.npz"]
    found, batches = resume(interrupted)
    assert batches == BATCHES - 9
    assert_same_bits(found, wanted())
    assert sorted(path.name for path in interrupted.iterdir()) == ["run.json", "sum-5-0.npz"]
    found, batches = resume(interrupted)
    assert batches == 0
    assert_same_bits(found, wanted())


def test_a_run_goes_on_in_its_own_batches(interrupted, monkeypatch):
    """As on a machine that is priced otherwise."""
    in_batches(monkeypatch, 5)
    found, batches = resume(interrupted)
    assert batches == BATCHES - 9
    in_batches(monkeypatch)
    assert_same_bits(found, wanted())


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_a_killed_process_and_one_stopped_by_ctrl_c_leave_a_checkpoint(tmp_path, number):
    with start(tmp_path, RUN) as process:
        seen = [process.stdout.readline() for _ in range(8)]
        process.send_signal(number)
        out, errors = process.communicate(timeout=60)
    assert process.returncode == -number
    assert ("KeyboardInterrupt" in errors) == (number == signal.SIGINT)
    found, batches = resume(tmp_path / "kept")
    done = len(seen) + len(out.splitlines())
    assert BATCHES - done <= batches <= BATCHES - done + (number == signal.SIGKILL)
    assert_same_bits(found, wanted())


@pytest.mark.parametrize("when", range(1, 26, 4))
def test_a_crash_anywhere_while_files_change_loses_nothing_that_was_saved(tmp_path, monkeypatch, when):
    """After any of the steps by which files are written and deleted."""
    steps = []
    replace, unlink = Path.replace, Path.unlink

    def step(call, *arguments, **options):
        steps.append(call)
        if len(steps) >= when:
            raise MemoryError("crash")
        return call(*arguments, **options)

    with monkeypatch.context() as patched:
        patched.setattr(Path, "replace", lambda *given: step(replace, *given))
        patched.setattr(Path, "unlink", lambda *given, **options: step(unlink, *given, **options))
        with pytest.raises(MemoryError):
            ge.run_plan(PLAN, *operands_of_plan(), checkpoint=tmp_path)
    found, batches = resume(tmp_path)
    assert batches <= BATCHES - (when - 2) // 4
    assert_same_bits(found, wanted())
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run.json", "sum-5-0.npz"]


def test_a_full_disk_is_told_and_what_was_saved_is_kept(tmp_path, monkeypatch):
    written = []

    def fsync(number):
        written.append(number)
        if len(written) > 6:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patched:
        patched.setattr(checkpoint.os, "fsync", fsync)
        with pytest.raises(OSError, match=r"cannot be written \(No space left on device\).*kept") as caught:
            ge.run_plan(PLAN, *operands_of_plan(), checkpoint=tmp_path)
    assert caught.value.errno == errno.ENOSPC
    found, batches = resume(tmp_path)
    assert batches == BATCHES - 5
    assert_same_bits(found, wanted())


def test_a_disk_that_is_full_in_fact(tmp_path):
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(tmp_path)], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("no file system can be mounted here: a full disk was simulated only")
    try:
        (tmp_path / "kept").mkdir()
        (tmp_path / "ballast").write_bytes(bytes(40 << 10))
        with pytest.raises(OSError, match="cannot be written"):
            resume(tmp_path / "kept")
        (tmp_path / "ballast").unlink()
        found, batches = resume(tmp_path / "kept")
        assert 0 < batches <= BATCHES
        assert_same_bits(found, wanted())
    finally:
        subprocess.run(["umount", str(tmp_path)], check=True)


# ---------------------------------------------------------------- what is refused


def test_another_plan_other_operands_and_other_options_are_refused(interrupted):
    x, y, z = operands_of_plan()
    with pytest.raises(ge.PlanError, match="is of other operands: operand 1 has changed"):
        ge.run_plan(PLAN, x, y + 1, z, checkpoint=interrupted)
    with pytest.raises(ge.PlanError, match=r"is of another plan$"):
        ge.run_plan(ge.einsum_plan("ij,jk,kl->il", x, y, z), x, y, z, checkpoint=interrupted)
    with pytest.raises(ge.PlanError, match="is of another precision: None, not 'tf32'"):
        ge.run_plan(PLAN, x, y, z, checkpoint=interrupted, precision="tf32")
    assert resume(interrupted)[1] == BATCHES - 9


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '{"version": 1}', "\xff"])
def test_a_run_that_cannot_be_read_is_refused(interrupted, text):
    (interrupted / "run.json").write_text(text, encoding="latin-1")
    with pytest.raises(ge.PlanError, match=r"run.json cannot be read as that of a checkpoint"):
        resume(interrupted)


def test_other_versions_and_numbers_that_are_none_are_refused(interrupted):
    file = interrupted / "run.json"
    data = json.loads(file.read_text())
    for change, words in (({"version": 2}, "is of another version: 2, not 1"), ({"batches": "5"}, "'5' batches")):
        file.write_text(json.dumps(data | change))
        with pytest.raises(ge.PlanError, match=words):
            resume(interrupted)


def test_a_folder_of_something_else_is_refused(tmp_path):
    (tmp_path / "thesis.tex").write_text("")
    with pytest.raises(ge.PlanError, match="is the folder of something else"):
        resume(tmp_path)


def damaged(path):
    content = bytearray(path.read_bytes())
    for at in range(100, len(content) - 400, 97):
        content[at] ^= 0xFF
    path.write_bytes(content)


def with_objects(path):
    np.savez(path, corner0=np.zeros(2, int), values0=np.array([[print]]))


def too_large(path):
    np.savez(path, corner0=np.array([38, 0]), values0=np.ones((3, 11)))


def of_another_dtype(path):
    np.savez(path, corner0=np.array([0, 0]), values0=np.ones((3, 11), "float32"))


DAMAGES = [damaged, with_objects, too_large, of_another_dtype, lambda path: path.write_bytes(b"PK"), lambda path: None]


@pytest.mark.parametrize("damage", DAMAGES[:-1])
def test_a_sum_that_cannot_be_read_is_refused_and_can_be_deleted(interrupted, damage):
    damage(interrupted / "sum-0-8.npz")
    with pytest.raises(ge.PlanError, match=r"sum-0-8.npz is no partial sum of this run .* its batches run again"):
        resume(interrupted)
    (interrupted / "sum-0-8.npz").unlink()
    found, batches = resume(interrupted)
    assert batches == BATCHES - 8
    assert_same_bits(found, wanted())


def test_a_sum_of_batches_that_are_none_is_refused(interrupted):
    (interrupted / "sum-0-8.npz").rename(interrupted / "sum-0-23.npz")
    with pytest.raises(ge.PlanError, match=r"sum-0-23.npz is no partial sum"):
        resume(interrupted)


def test_what_a_killed_process_was_writing_goes(interrupted):
    (interrupted / ".sum-0-9.npz.0a1b2c3d").write_bytes(b"half")
    found, _ = resume(interrupted)
    assert_same_bits(found, wanted())
    assert not any(path.name.startswith(".") for path in interrupted.iterdir())
