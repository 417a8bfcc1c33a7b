"""`gpueinsum plan --save`, `run --plan`, `run --checkpoint`: plans in files, slices included, and long runs of them."""

import json
from pathlib import Path

import numpy as np
import pytest

import gpueinsum as ge
from gpueinsum.tools.cli import main

CHAIN = ["ij,jk,kl->il", "30x40", "40x50", "50x20"]
LIMIT = ["--memory-limit", "8kB", "--device", "h200"]


@pytest.fixture
def files(tmp_path, monkeypatch, rng):
    monkeypatch.chdir(tmp_path)
    arrays = [rng.standard_normal(tuple(map(int, shape.split("x")))) for shape in CHAIN[1:]]
    for name, array in zip("ABC", arrays, strict=True):
        np.save(f"{name}.npy", array)
    return np.linalg.multi_dot(arrays)


def save(*options: str) -> ge.Plan:
    assert main(["plan", *CHAIN, *options, "--save", "plan.json"]) == 0
    return ge.Plan.from_json(Path("plan.json").read_text("utf-8"))


def test_a_plan_is_kept_with_its_slices_and_run(files, capsys):
    plan = save(*LIMIT)
    shapes = [tuple(map(int, shape.split("x"))) for shape in CHAIN[1:]]
    assert plan == ge.einsum_plan(CHAIN[0], *shapes, memory_limit="8kB", device="h200")
    assert plan.slices.number > 1
    taken = f"in {plan.slices.number} slices, {ge.text.bytes_text(plan.peak_bytes('h200'))}"
    assert capsys.readouterr().out == f"plan.json: the plan of {CHAIN[0]} {taken}\n"
    assert main(["run", "--plan", "plan.json", "A.npy", "B.npy", "C.npy", "--out", "D.npy", "--backend", "cpu"]) == 0
    np.testing.assert_allclose(np.load("D.npy"), files)


@pytest.mark.usefixtures("files")
def test_a_plan_of_gradients_has_a_file_for_each_output(capsys, rng):
    plan = save("--vjp", "--wrt", "0", "2", "--memory-limit", "30kB")
    np.save("G.npy", rng.standard_normal((30, 20)))
    operands = ["A.npy", "B.npy", "C.npy", "G.npy"]
    assert main(["run", "--plan", "plan.json", *operands, "--out", "a.npy", "c.npy", "--backend", "cpu"]) == 0
    expected = ge.run_plan(plan, *map(np.load, operands))
    for name, gradient in zip("ac", expected, strict=True):
        np.testing.assert_allclose(np.load(f"{name}.npy"), gradient)
    assert main(["run", "--plan", "plan.json", *operands, "--out", "a.npy"]) == 2
    assert "--out lists 1 files, which are not as many as there are outputs" in capsys.readouterr().err


def test_a_run_goes_on_from_its_folder(files, capsys):
    save(*LIMIT)
    given = ["A.npy", "B.npy", "C.npy", "--out", "D.npy", "--backend", "cpu", "--checkpoint", "done"]
    for _ in range(2):
        assert main(["run", "--plan", "plan.json", *given]) == 0
        np.testing.assert_allclose(np.load("D.npy"), files)
    np.save("A.npy", np.ones((30, 40)))
    capsys.readouterr()
    assert main(["run", "--plan", "plan.json", *given]) == 2
    assert "checkpoint done is of other operands: operand 0 has changed" in capsys.readouterr().err
    assert main(["run", CHAIN[0], *given]) == 2
    assert "--checkpoint goes with --plan" in capsys.readouterr().err


def test_slices_are_shared_by_devices(files, capsys):
    command = ["run", CHAIN[0], "A.npy", "B.npy", "C.npy", "--out", "D.npy", "--memory-limit", "8kB"]
    assert main([*command, "--devices", "all"]) == 0
    np.testing.assert_allclose(np.load("D.npy"), files)
    assert main([*command, "--devices", "first"]) == 2
    assert "--devices takes all, or numbers of GPUs, not first" in capsys.readouterr().err
    assert main([*command, "--devices", "all", "--backend", "cpu"]) == 2
    assert "--devices are GPUs: leave --backend out" in capsys.readouterr().err


@pytest.mark.usefixtures("files")
@pytest.mark.parametrize(
    ("text", "options", "message"),
    [
        ("{", [], "plan.json: not a plan"),
        (None, ["--dtype", "float32"], "a plan has a dtype and an order"),
        (None, ["--memory-limit", "0"], "in its own slices"),
    ],
)
def test_what_is_wrong_with_a_plan_or_its_options_is_said(text, options, message, capsys):
    save(*LIMIT)
    if text is not None:
        Path("plan.json").write_text(text)
    command = ["run", "--plan", "plan.json", "A.npy", "B.npy", "C.npy", "--out", "D.npy", "--backend", "cpu"]
    assert main([*command, *options]) == 2
    assert message in capsys.readouterr().err
    assert not Path("D.npy").exists()


@pytest.mark.usefixtures("files")
def test_nothing_in_a_file_is_run():
    """A plan that names what is not there, or sums that are none, is refused when it is read."""
    made = json.loads(save(*LIMIT).to_json())
    for change in (
        {"sliced": [["z", 1]]},
        {"outputs": [99]},
        {"dtype": "__import__('os')"},
        {"steps": [{"step": "x"}]},
    ):
        Path("plan.json").write_text(json.dumps(made | change))
        assert main(["run", "--plan", "plan.json", "A.npy", "B.npy", "C.npy", "--out", "D.npy"]) == 2
