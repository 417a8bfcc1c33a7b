"""`gpueinsum doctor`: what it finds on machines with a GPU and without, well and ill."""

import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
from command_line import no_gpu as _no_gpu
from simulated import SimulatedRuntime

import gpueinsum as ge
from gpueinsum.backends.cuda.backend import CudaBackend
from gpueinsum.backends.cuda.source import CONTRACTIONS, SUMS
from gpueinsum.costs.machine import keep, machine, profile_path
from gpueinsum.costs.profile import profile
from gpueinsum.errors import DeviceError
from gpueinsum.tools import doctor, results
from gpueinsum.tools.cli import main
from gpueinsum.tools.results import MISSING, OK, WRONG, Finding


@pytest.fixture
def no_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    """Compiling every kernel takes seconds; tests/backends/cuda/test_source.py does it."""
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
    assert "ok       float16 on cpu: 19 results equal numpy's" in out
    assert all(line.split()[0] in (OK, MISSING) for line in out.splitlines()[:-1])
    assert out.splitlines()[-1].startswith("nothing wrong")


def test_the_doctor_tells_which_profile_prices_plans(
    cache: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(results, "DTYPES", ())
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
    assert out.count("results equal numpy's") == len(results.DTYPES)
    assert out.count(" on cuda: ") == len(results.DTYPES) + 1
    calls = simulated_backend().runtime.calls
    launched = {call[1].name for call in calls if call[0] == "launch"}
    others = {"multiply", "transpose", "permute", "expand", "add", "pointers"}
    assert launched == {*SUMS, *CONTRACTIONS, *others}
    assert {"gemm", "pointer gemm"} <= {call[0] for call in calls}
    assert "85 ways to run products on CUDA give numpy's results" in out


@pytest.mark.usefixtures("no_compiler")
def test_the_doctor_lists_what_the_device_refuses(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    device = SimulatedRuntime()
    device.refuses = ("pointers of float32", "single products of float64", "precision bf16")
    backend = CudaBackend(device)
    monkeypatch.setattr("gpueinsum.backends.select.cuda_backend", lambda: backend)
    monkeypatch.setattr(doctor, "_device_lines", lambda: ["GPU 0 of 1: simulated"])
    monkeypatch.setattr(doctor, "_architecture", lambda: "sm_90")
    with pytest.warns(RuntimeWarning, match="this device refuses") as warned:
        assert main(["doctor"]) == 0
    out = capsys.readouterr().out
    for way in ("pointers of float32", "single products of float64", "precision bf16 of float32"):
        assert f"missing  {way}: this device refuses them, and computes in another way" in out
    assert out.count("this device refuses") == len(warned) == 3


@pytest.mark.usefixtures("no_compiler")
@pytest.mark.filterwarnings("ignore:this device refuses:RuntimeWarning")
@pytest.mark.parametrize(("refused", "status"), [("gemm", 1), ("multiply,", 1)])
def test_the_doctor_survives_what_cannot_be_computed_at_all(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, refused: str, status: int
) -> None:
    device = SimulatedRuntime()
    device.refuses = (refused, "single products")
    backend = CudaBackend(device)
    monkeypatch.setattr("gpueinsum.backends.select.cuda_backend", lambda: backend)
    monkeypatch.setattr(doctor, "_device_lines", lambda: ["GPU 0 of 1: simulated"])
    monkeypatch.setattr(doctor, "_architecture", lambda: "sm_90")
    monkeypatch.setattr(results, "DTYPES", ("float32",))
    assert main(["doctor"]) == status
    out = capsys.readouterr().out
    assert "this device and its libraries cannot compute" in out
    assert "checks went wrong" in out


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
    assert sum("embedding ij->iji" in line for line in wrong) == len(results.DTYPES)
    assert sum("gradient of a trace ii->" in line for line in wrong) == len(wrong) - len(results.DTYPES) == 6


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
    assert out.count("RuntimeError: cudaErrorLaunchFailure: unspecified launch failure") > len(results.DTYPES)
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
