"""What the image runs, told from fake stages; how one is run, shown, kept and ended."""

import re
import signal
import sys
import types
from io import BytesIO

import pytest

from benchmarks import container
from benchmarks.peers import PEERS
from benchmarks.run import FAMILIES


class Machine:
    """Stages that only say how they end: `statuses` by stage, 0 for the others; each `takes` seconds of a clock."""

    def __init__(self, monkeypatch, usable, visible):
        self.ran, self.seconds, self.statuses, self.takes, self.now = {}, {}, {}, {}, 0.0
        monkeypatch.setattr(container, "gpu_is_usable", lambda: usable)
        monkeypatch.setattr(container, "gpu_is_visible", lambda: visible)
        monkeypatch.setattr(container, "compute_sanitizer", lambda: "compute-sanitizer")
        monkeypatch.setattr(container, "run", self.run)
        monkeypatch.setattr(container, "perf_counter", lambda: self.now)
        monkeypatch.setenv("JAX_PLATFORMS", "cpu")  # as main leaves it without a GPU: this takes it back

    def run(self, command, report, seconds):
        stage = self.stage(" ".join(command))
        report.write(f"{stage} in full\n".encode())
        self.ran[stage], self.seconds[stage] = " ".join(command).replace(sys.executable, "python"), seconds
        self.now += self.takes.get(stage, 0.0)
        return self.statuses.get(stage, 0)

    @staticmethod
    def stage(command):
        if found := re.search(r"--tool (\w+)", command):
            return found[1]
        module = re.search(r"-m (?:gpueinsum |benchmarks\.)?(\w+)", command)[1]
        return {"compiled": "kernels", "testing": "tests", "benchmarks": "suite"}.get(module, module)


@pytest.fixture
def gpu(monkeypatch):
    return Machine(monkeypatch, usable=True, visible=True)


@pytest.fixture
def no_gpu(monkeypatch):
    return Machine(monkeypatch, usable=False, visible=False)


@pytest.fixture
def broken_gpu(monkeypatch):
    return Machine(monkeypatch, usable=False, visible=True)


@pytest.fixture
def main(tmp_path):
    return lambda *arguments: container.main(["--results", str(tmp_path), *arguments])


# ---------------------------------------------------------------- the stages


CHECKS = list(container.CHECKS)
ON_A_CPU = ["doctor", "tests", "suite", "calibrate", "predictions"]


def outcomes(shown, folder):
    """What each stage is said to have come to, without its seconds."""
    _, _, said = shown.partition(f", and is in {folder}:\n")
    return {stage: text.partition(",")[0] for stage, text in (line.split(maxsplit=1) for line in said.splitlines())}


def test_on_a_gpu_the_most_important_truth_comes_first(gpu, main, tmp_path, capsys):
    assert main() == 0
    assert tuple(gpu.ran) == container.DAY == ("kernels", *ON_A_CPU, "memcheck")
    assert gpu.ran["kernels"] == "python -m benchmarks.compiled"
    assert gpu.ran["doctor"] == "python -m gpueinsum doctor --backend cuda"
    assert gpu.ran["tests"] == "python -m benchmarks.testing --backend cuda"
    assert gpu.ran["suite"].startswith(
        "python -m benchmarks --quick --peers cupy cupy cutensor numpy optimized torch jax --backend cuda --only GEMM "
    )
    assert f"--out {tmp_path}/suite.json --minutes " in gpu.ran["suite"]
    assert gpu.ran["calibrate"] == f"python -m gpueinsum calibrate --backend cuda --out {tmp_path}/profile.json"
    assert f"--out {tmp_path}/predictions.json --minutes " in gpu.ran["predictions"]
    assert gpu.ran["memcheck"] == "compute-sanitizer --tool memcheck --error-exitcode 9 python -m benchmarks.sanitized"
    shown = capsys.readouterr().out
    assert outcomes(shown, tmp_path) == dict.fromkeys(container.DAY, "passed")
    assert container._NO_GPU not in shown


def test_every_family_has_its_place_among_the_doubts():
    assert sorted(container.DOUBTS) == sorted(FAMILIES)
    assert set(container.BESIDE) < set(PEERS)


def test_all_that_is_printed_is_in_one_file_after_what_was_there(gpu, main, tmp_path, capsys):
    main("--stages", "doctor", "tests")
    first = (tmp_path / "report.txt").read_text()
    main("--stages", "suite")
    again = (tmp_path / "report.txt").read_text()
    assert again.startswith(first)
    assert [line for line in again.splitlines() if line.endswith("in full")] == [
        f"{stage} in full" for stage in ("doctor", "tests", "suite")
    ]
    assert [path.name for path in tmp_path.iterdir()] == ["report.txt"]
    assert set(capsys.readouterr().out.splitlines()) < set(again.splitlines())  # the fake stages print nothing


def test_without_a_gpu_it_says_so_and_runs_on_the_cpu(no_gpu, main, tmp_path, capsys):
    assert main() == 0
    assert list(no_gpu.ran) == ON_A_CPU
    assert no_gpu.ran["doctor"] == "python -m gpueinsum doctor"
    for stage in ("tests", "suite", "calibrate", "predictions"):
        assert "--backend cpu" in no_gpu.ran[stage]
    shown = capsys.readouterr().out
    assert "No GPU here: tests and measurements run on the CPU." in shown
    assert "left out: kernels, since there is no GPU\n" in shown
    assert "left out: memcheck, since there is no GPU, or no compute-sanitizer\n" in shown
    assert outcomes(shown, tmp_path).keys() == no_gpu.ran.keys()


def test_the_other_checks_run_if_they_are_asked_for(gpu, main):
    assert main("--stages", *CHECKS) == 0
    assert list(gpu.ran) == CHECKS
    assert gpu.seconds["memcheck"] == 9.5 * 60 / 4


def test_a_gpu_without_compute_sanitizer_is_tested_and_measured(gpu, main, monkeypatch, capsys):
    monkeypatch.setattr(container, "compute_sanitizer", lambda: None)
    assert main() == 0
    assert list(gpu.ran) == ["kernels", *ON_A_CPU]
    assert "left out: memcheck" in capsys.readouterr().out


def test_whatever_is_measured_has_smallest_sizes(gpu, main):
    assert main("--tiny") == 0
    tiny = {stage for stage, command in gpu.ran.items() if " --tiny" in command}
    assert tiny == {"suite", "calibrate", "predictions"}
    assert tuple(gpu.ran) == container.DAY


def test_compute_sanitizer_is_found_on_the_path_in_the_toolkit_or_among_the_wheels(monkeypatch, tmp_path):
    finder = types.ModuleType("cuda.pathfinder")
    finder.find_nvidia_binary_utility = {"compute-sanitizer": "in a wheel"}.get
    monkeypatch.setitem(sys.modules, "cuda.pathfinder", finder)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(container, "_TOOLKIT", str(tmp_path / "cuda"))
    assert container.compute_sanitizer() == "in a wheel"
    (tmp_path / "cuda").mkdir()
    for program in (tmp_path / "cuda" / "compute-sanitizer", tmp_path / "compute-sanitizer"):
        program.touch(0o755)
        assert container.compute_sanitizer() == str(program)
    monkeypatch.setattr(container, "_TOOLKIT", "")
    (tmp_path / "compute-sanitizer").unlink()
    monkeypatch.setitem(sys.modules, "cuda.pathfinder", None)
    assert container.compute_sanitizer() is None


def test_a_broken_gpu_is_said_loudly_and_the_cpu_is_tested_and_measured(broken_gpu, main, tmp_path, capsys):
    broken_gpu.statuses["doctor"] = 1  # as the doctor says of a GPU that is demanded, and cannot be used
    assert main() == 1
    assert list(broken_gpu.ran) == ON_A_CPU
    assert broken_gpu.ran["doctor"] == "python -m gpueinsum doctor --backend cuda"
    assert "--backend cpu" in broken_gpu.ran["suite"]
    shown = capsys.readouterr().out
    assert shown.count("THERE IS A GPU, AND IT CANNOT BE USED") == 2  # at the begin and at the end
    expected = dict.fromkeys(ON_A_CPU, "passed") | {"doctor": "FAILED (exit status 1)"}
    assert outcomes(shown, tmp_path) == expected


@pytest.mark.parametrize(
    ("stage", "status", "said"),
    [
        ("kernels", 1, "FAILED (exit status 1)"),
        ("doctor", 1, "FAILED (exit status 1)"),
        ("tests", None, "OUT OF TIME"),
        ("memcheck", 9, "FAILED (exit status 9)"),
        ("suite", -9, "FAILED (exit status -9)"),
    ],
)
def test_one_failure_keeps_no_other_stage_from_running(gpu, main, tmp_path, capsys, stage, status, said):
    gpu.statuses[stage] = status
    assert main() == 1
    assert tuple(gpu.ran) == container.DAY
    expected = dict.fromkeys(container.DAY, "passed") | {stage: said}
    assert outcomes(capsys.readouterr().out, tmp_path) == expected


def test_each_stage_has_its_share_of_the_time_and_leaves_to_the_others_what_it_does_not_need(gpu, main):
    gpu.takes = {"kernels": 10.0, "doctor": 20.0, "tests": 200.0}
    main()
    assert sum(container.STAGES[stage] for stage in container.DAY) == 630
    assert gpu.seconds["kernels"] == pytest.approx(570 * 30 / 630)
    assert gpu.seconds["doctor"] == pytest.approx(560 * 30 / 600)
    assert gpu.seconds["tests"] == pytest.approx(540 * 150 / 570)
    assert gpu.seconds["suite"] == pytest.approx(340 * 240 / 420)  # the tests took longer, as for their last words
    assert gpu.ran["suite"].endswith(f" --minutes {0.9 * 340 * 240 / 420 / 60:.2f}")  # the last row needs some, too
    gpu.takes = {}
    main("--minutes", "3", "--stages", "tests", "suite")
    assert gpu.seconds["tests"] == pytest.approx(180 * 150 / 390)
    assert gpu.seconds["suite"] == 180


def test_a_place_that_cannot_be_a_folder_is_refused_in_one_line(gpu, tmp_path, capsys):
    (tmp_path / "file").touch()
    assert container.main(["--results", str(tmp_path / "file")]) == 2
    assert gpu.ran == {}
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith(f"cannot write to {tmp_path / 'file'} (File exists): give a folder of your own")
    assert '--user "$(id -u):$(id -g)" -v "$PWD/results:/results"' in line


# ---------------------------------------------------------------- a stage in truth


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Runs a module of this text as a stage."""
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setattr(container, "_GRACE", 2)

    def run_text(text, seconds=60.0):
        (tmp_path / "the_stage.py").write_text(text)
        report = BytesIO()
        return container.run([sys.executable, "-m", "the_stage"], report, seconds), report.getvalue()

    return run_text


def test_what_a_stage_prints_is_shown_and_kept(run, capsysbinary):
    said = b"said\ncomplained\n"
    assert run("import sys; print('said'); print('complained', file=sys.stderr)") == (0, said)
    assert capsysbinary.readouterr().out == said
    assert run("raise SystemExit(7)") == (7, b"")


@pytest.fixture(params=["in front", "in the background"])
def where(request):
    """Where a shell runs the container: in the background interrupts are ignored."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN if request.param == "in the background" else signal.SIG_DFL)
    yield
    signal.signal(signal.SIGINT, before)


def test_a_stage_out_of_time_says_so_far_what_it_can(run, where):
    text = "import time\ntry: time.sleep(60)\nexcept KeyboardInterrupt: print('so far')"
    assert run(text, 3.0) == (None, b"so far\n")


def test_a_stage_out_of_time_is_ended_with_its_workers(run):
    deaf = "import os, signal; signal.signal(signal.SIGINT, signal.SIG_IGN); os.fork(); signal.pause()"
    assert run(deaf, 0.4) == (None, b"")  # which comes only when nobody is left who could print
