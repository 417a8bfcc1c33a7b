"""`python -m benchmarks`: it measures, keeps, shows and compares; on the CPU, and on a simulated GPU."""

import json
import os
import platform
import re
import sys
import types
from dataclasses import replace

import numpy as np
import opt_einsum
import pytest
from long_runs import LONG, one_of_each
from simulated.cupy import stand_in

from benchmarks import __main__ as command
from benchmarks import ceilings as limits
from benchmarks import devices, libraries, peers, results
from benchmarks import run as suite
from benchmarks.check import expected
from benchmarks.devices import Host, device
from benchmarks.measure import Times
from benchmarks.peers import Job
from benchmarks.results import FLOOR, OURS, Ceilings
from benchmarks.suite import EINSUMS, GRADIENTS
from gpueinsum.costs.counts import total_flops
from gpueinsum.errors import DeviceError

PLACE = Host()
NONE = Ceilings((), (), ())


def tiny(name):
    return next(row.tiny() for row in (*EINSUMS, *GRADIENTS) if row.name == name)


def tiny_run(*arguments):
    return command.main(["--tiny", "--quick", *arguments])


@pytest.mark.usefixtures("_short", "_alone")
def test_a_run_prints_a_line_for_each_row_and_leaves_all_files(tmp_path, capsys):
    assert tiny_run("--backend", "cpu", "--only", "MPS overlap", "GEMM", "--out", str(tmp_path / "new")) == 0
    printed = capsys.readouterr().out
    assert "matmul                     complex128" in printed
    assert printed.count("MPS overlap ") == 2  # a row of each table
    assert "∇ MPS overlap" in printed
    assert "best peer ÷ ours" in printed
    names = sorted(re.sub(r"\d{4}-\d\d-\d\d", "DATE", path.name) for path in (tmp_path / "new").iterdir())
    assert names == [
        f"cpu-DATE{end}" for end in ("-ratios.png", "-ratios.svg", "-roofline.png", "-roofline.svg", ".html", ".json")
    ]
    [path] = (tmp_path / "new").glob("*.json")
    run = results.read(path)
    assert run.device["kind"] == "cpu"
    assert run.versions["numpy"] == np.__version__
    assert {row.table for row in run.rows} == {"einsum", "gradients"}
    assert run.method["rows_planned"] == run.method["rows_measured"] == len(run.rows) == 12
    assert {gemm.dtype for gemm in run.ceilings.gemm} >= {"float32", "complex128"}


def test_a_run_can_be_read_again_and_compared_with_an_older_one(tmp_path, capsys):
    slow, fast = (measured(ours=time) for time in (2.0, 1.0))
    for name, run in (("slow", slow), ("fast", fast)):
        results.write(run, tmp_path / f"{name}.json")
    assert command.main(["--read", str(tmp_path / "fast.json"), "--compare", str(tmp_path / "slow.json")]) == 0
    assert command.main(["--read", str(tmp_path / "slow.json"), "--compare", str(tmp_path / "fast.json")]) == 1
    assert "matmul" in capsys.readouterr().out


def measured(ours):
    """A run of one row, in which ours takes so many seconds, and numpy's three."""
    times = {OURS: (ours,) * 9, "numpy": (3.0,) * 9, FLOOR: (0.5,) * 9}
    workload = tiny("matmul")
    row = suite._as_row("einsum", workload, peers.Peers({}, {}, peers.plan_of(workload)), NONE, 1, Times(times, {}))
    return results.Run(
        "2026-11-22T00:00:00+00:00", PLACE.facts(), libraries.versions(PLACE), {"quick": False}, NONE, (row,)
    )


@pytest.mark.usefixtures("_short", "_alone")
def test_a_wrong_result_of_ours_is_an_exit_status(monkeypatch, capsys):
    monkeypatch.setattr(peers.ge, "einsum", lambda equation, *operands, **options: operands[0])
    monkeypatch.setattr(limits, "_calls", lambda place: {})
    assert tiny_run("--backend", "cpu", "--only", "integer matmul") == 1
    assert "wrong: einsum: integer matmul, int64" in capsys.readouterr().out


@pytest.mark.usefixtures("_short", "_alone")
def test_a_row_that_cannot_begin_is_shown_and_the_next_is_measured(monkeypatch, capsys):
    def no_memory(workload, equation, operands):
        if workload.name == "matmul":
            raise MemoryError("of 3 TB")
        return expected(workload, equation, operands)

    monkeypatch.setattr(peers, "expected", no_memory)
    assert tiny_run("--backend", "cpu", "--only", "matmul", "integer matmul") == 1
    printed = capsys.readouterr().out
    assert "gpueinsum: FAILED: MemoryError: of 3 TB" in printed
    assert "wrong: einsum: matmul, float32" in printed
    assert "wrong: einsum: integer matmul" not in printed


@pytest.mark.usefixtures("_short", "_alone")
def test_a_peer_that_breaks_before_its_first_call_is_shown(monkeypatch):
    monkeypatch.setattr(libraries, "cotengra", lambda: types.SimpleNamespace())
    row = suite.measure_row("einsum", tiny("matmul"), PLACE, NONE, 0)
    assert row.faults["cotengra"].startswith("FAILED: AttributeError")
    assert row.left_out["torch"] == "not installed"
    assert OURS in row.seconds


@pytest.mark.usefixtures("_short", "_alone")
def test_when_its_minutes_are_over_what_there_is_is_kept(tmp_path):
    assert tiny_run("--backend", "cpu", "--only", "GEMM", "--minutes", "1e-9", "--out", str(tmp_path)) == 0
    [path] = tmp_path.glob("*.json")
    assert results.read(path).method["rows_measured"] == 1
    [page] = tmp_path.glob("*.html")
    assert "The run ended after 1 of 10 rows" in page.read_text("utf-8")
    place = Host()
    runs = list(suite.run(place, suite.rows_of(place, ["GEMM"], tiny=True), quick=True, tiny=True))
    assert [run.method["rows_measured"] for run in runs] == [1, 2, 3, 4, 5, 6, 7, 8, 9, 10]


def test_with_minutes_every_family_has_its_turn():
    rows = suite.rows_of(PLACE)
    turned = suite.families_in_turn(rows)
    assert sorted(map(id, turned)) == sorted(map(id, rows))
    families = list(dict.fromkeys(row.family for _, row in rows))
    assert [row.family for _, row in turned[: len(families)]] == families


@pytest.mark.usefixtures("_short", "_alone")
def test_without_any_ceiling_rows_are_measured_all_the_same():
    row = suite._row("einsum", tiny("matmul"), PLACE, Ceilings((), (), ()), 0)
    assert OURS in row.seconds
    assert row.bound == "copy"


def test_a_quick_look_has_a_row_of_every_family_and_no_long_ones():
    rows = suite.rows_of(PLACE, quick=True)
    assert {row.family for _, row in rows} == {row.family for row in (*EINSUMS, *GRADIENTS)}
    assert max(total_flops(peers.plan_of(row)) for _, row in rows) <= 4e9
    assert len(rows) < len(suite.rows_of(PLACE))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--only", "nothing of the kind"], "'nothing of the kind' is none of GEMM"),
        (["--read", "missing.json"], "missing.json"),
        (["--compare", "missing.json"], "missing.json"),
        (["--backend", "cuda"], "CUDA needs"),
    ],
)
def test_what_cannot_be_done_is_said(monkeypatch, capsys, arguments, words):
    def no_gpu():
        raise DeviceError("CUDA needs a GPU")

    monkeypatch.setattr(devices.backends, "cuda_backend", no_gpu)
    try:
        status = command.main(arguments)
    except SystemExit as end:
        status = end.code
    assert status == 2
    assert words in capsys.readouterr().err


def test_rows_that_the_device_has_not_are_refused(monkeypatch):
    elsewhere = [replace(row, where="cuda") for row in EINSUMS]
    monkeypatch.setattr(suite, "EINSUMS", elsewhere)
    monkeypatch.setattr(suite, "GRADIENTS", [])
    with pytest.raises(results.ResultsError, match="matmul: not measured on this kind of device, 'cpu'"):
        suite.rows_of(PLACE, ["matmul"])


def test_a_run_names_no_host_and_no_path():
    text = json.dumps([PLACE.facts(), libraries.versions(PLACE)])
    assert platform.node() not in text
    assert os.sep not in text


# ---------------------------------------------------------------- on a GPU, simulated


@pytest.fixture
def gpu(monkeypatch, _short):
    """The simulated device, as the one that `device()` finds."""
    with stand_in(monkeypatch) as cupy:
        yield cupy


@pytest.fixture
def _nvidia(monkeypatch):
    """cuTENSOR, cuTensorNet and TF32 by what CuPy and cuQuantum call them, and what we ask of them on record."""
    settings = {"accelerators": [1], np.float32: 0}
    accelerator = types.ModuleType("cupy._core._accelerator")
    accelerator.get_routine_accelerators = lambda: list(settings["accelerators"])
    accelerator.set_routine_accelerators = lambda names: settings.update(accelerators=names)
    linalg = types.ModuleType("cupy._core._routines_linalg")
    linalg.COMPUTE_TYPE_TF32 = 4
    linalg.get_compute_type = settings.get
    linalg.set_compute_type = settings.__setitem__
    core = types.ModuleType("cupy._core")
    core._accelerator, core._routines_linalg = accelerator, linalg
    cupyx = types.ModuleType("cupyx")
    cupyx.cutensor = types.ModuleType("cupyx.cutensor")
    quantum = types.ModuleType("cuquantum")
    quantum.tensornet = types.ModuleType("cuquantum.tensornet")
    quantum.tensornet.Network = Network
    for module in (core, accelerator, linalg, cupyx, cupyx.cutensor, quantum, quantum.tensornet):
        monkeypatch.setitem(sys.modules, module.__name__, module)
    caches = libraries.cutensor, libraries.cutensornet
    for cached in caches:
        cached.cache_clear()
    yield settings
    for cached in caches:
        cached.cache_clear()


def on_the_gpu(rows):
    return [row for row in rows if row.on("cuda")]


class Network:
    """cuQuantum's, as far as it is used."""

    living = 0

    def __init__(self, equation, *operands):
        self.arguments = equation, *operands

    def __enter__(self):
        Network.living += 1
        return self

    def __exit__(self, *error):
        Network.living -= 1

    def contract_path(self):
        self.is_planned = True

    def contract(self):
        assert self.is_planned
        return opt_einsum.contract(*self.arguments)


@pytest.mark.usefixtures("_alone")
def test_the_suite_runs_on_the_simulated_device(gpu, _nvidia, monkeypatch, tmp_path, capsys):  # noqa: PT019  # it set
    """A row of each family and dtype; all of them in a long run."""
    assert device().kind == "cuda"
    for name in ("EINSUMS", "GRADIENTS"):
        rows = one_of_each(lambda row: (row.family, row.precision or row.dtype), on_the_gpu(getattr(suite, name)))
        monkeypatch.setattr(suite, name, rows)
    assert command.main(["--tiny", "--out", str(tmp_path)]) == 0, capsys.readouterr().out
    [path] = tmp_path.glob("*.json")
    assert path.name.startswith("simulated-")
    run = results.read(path)
    assert run.device["name"] == "Simulated"
    assert run.device["driver_cuda"] == "13.1"
    assert run.versions["cuda"] == "13.0"
    assert len(run.rows) == len(suite.rows_of(device())) > (100 if LONG else 40)
    for row in run.rows:
        assert not row.is_wrong, (row.key, row.faults)
        assert FLOOR in row.seconds, (row.key, row.faults)
        if row.table == "einsum" and row.dtype not in ("float16", "bfloat16", "int64"):  # numpy stands in for CuPy
            wanted = {"cupy"} if row.precision else {"cupy", "cupy cutensor", "opt_einsum", "cutensornet"}
            assert set(row.peers) >= wanted - row.left_out.keys(), (row.key, row.faults)
    assert {gemm.dtype for gemm in run.ceilings.gemm} >= {"tf32", "bfloat16", "float64"}
    assert {call.name for call in run.ceilings.overhead} >= {
        "launch of an empty kernel",
        "launch and wait",
        "cupy.einsum",
    }
    assert Network.living == 0
    assert _nvidia == {"accelerators": [1], np.float32: 0}  # as it was


@pytest.mark.usefixtures("_alone")
def test_precision_and_accelerators_are_set_for_their_own_calls_alone(gpu, _nvidia):  # noqa: PT019  # what it set
    place = device("cuda")
    row = next(row.tiny() for row in EINSUMS if row.precision)
    seen = []
    gpu.einsum = lambda *arguments, **options: seen.append(dict(_nvidia))
    with Job(row, place, 1) as job:
        peers._cupy(job)[0]()
        peers._cupy(Job(row.but(precision=None), place, 1))[0]()
        peers._cupy_cutensor(Job(row.but(precision=None), place, 1))[0]()
    assert [each[np.float32] for each in seen] == [4, 0, 0]
    assert [each["accelerators"] for each in seen] == [[1], [1], [1, "cutensor"]]


@pytest.mark.parametrize("table_name", ["einsum", "gradients"])
def test_torch_and_jax_are_measured_on_the_device(gpu, monkeypatch, table_name):
    torch, jax = pytest.importorskip("torch"), pytest.importorskip("jax")
    cpu = jax.devices("cpu")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.Tensor, "to", lambda self, place: self.clone() if place == "cuda" else 1 / 0)
    monkeypatch.setattr(jax, "devices", {"gpu": cpu}.get)
    rows = [row.tiny() for row in (GRADIENTS if table_name == "gradients" else EINSUMS)]
    for workload in rows:
        if workload.family in ("gradients", "GEMM", "convolution", "attention"):
            row = suite.measure_row(table_name, workload, device("cuda"), NONE, 0)
            assert set(row.seconds) >= {"torch", "jax"}, (row.key, row.faults, row.left_out)
            assert not row.is_wrong


def test_without_cuda_of_their_own_torch_and_jax_are_left_out(gpu):
    pytest.importorskip("torch")
    pytest.importorskip("jax")
    row = suite.measure_row("einsum", tiny("MTTKRP"), device("cuda"), NONE, 0)
    assert row.left_out["torch"] == "PyTorch finds no GPU"
    assert row.left_out["jax"].startswith("JAX finds no GPU: Unknown backend: 'gpu' requested")


def test_the_clock_is_that_of_events(gpu):
    times = iter([0.25, 0.75])

    class Event:
        def record(self, stream):
            self.time = next(times)

        def synchronize(self):
            pass

    gpu.cuda.Event = Event
    waited = []
    assert device("cuda").time(iter([int, str]), 2, waited.append) == 0.5
    assert waited == [""]  # for the last result


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64", "complex64", "complex128", "int64"])
def test_a_plain_product_on_the_device_is_one_gemm_of_row_major_matrices(gpu, dtype):
    place = device("cuda")
    place.gemm(dtype, "tf32" if dtype == "float32" else None, 2, 3, 5, 7)()
    [(name, compute, _)] = gpu.cublas.calls
    assert name == ("float64" if dtype == "int64" else dtype)
    assert (compute == 77) == (dtype == "float32")
