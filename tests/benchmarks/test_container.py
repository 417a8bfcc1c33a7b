"""What the image runs, told from fake stages; and that the Dockerfile and its pins fit the project."""

import re
import shlex
import signal
import subprocess
import sys
import tomllib
import types

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from benchmarks import container, sanitized

ROOT = container.ROOT
DOCKERFILE = ROOT / "Dockerfile"
in_the_source = pytest.mark.skipif(not DOCKERFILE.exists(), reason="the image does not hold what it was made of")


class Machine:
    """Stages that only say how they end: `statuses` by stage, 0 for the others."""

    def __init__(self, monkeypatch, usable, visible):
        self.ran, self.seconds, self.statuses = {}, {}, {}
        monkeypatch.setattr(container, "gpu_is_usable", lambda: usable)
        monkeypatch.setattr(container, "gpu_is_visible", lambda: visible)
        monkeypatch.setattr(container, "compute_sanitizer", lambda: "compute-sanitizer")
        monkeypatch.setattr(container, "run", self.run)
        monkeypatch.setenv("JAX_PLATFORMS", "cpu")  # as main leaves it without a GPU: this takes it back

    def run(self, command, log, seconds):
        self.ran[log.stem], self.seconds[log.stem] = " ".join(command).replace(sys.executable, "python"), seconds
        return self.statuses.get(log.stem, 0)


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


def outcomes(shown, folder):
    """What each stage is said to have come to."""
    _, _, said = shown.partition(f"Everything is in {folder}:\n")
    return dict(line.split(maxsplit=1) for line in said.splitlines())


def test_on_a_gpu_all_stages_run_there(gpu, main, tmp_path, capsys):
    assert main() == 0
    assert list(gpu.ran) == ["doctor", "tests", *CHECKS, "calibrate", "predictions", "suite"] == list(container.STAGES)
    assert set(gpu.seconds.values()) == {None}  # without --minutes
    assert gpu.ran["doctor"] == "python -m gpueinsum doctor --backend cuda"
    assert gpu.ran["tests"].endswith("-m gpu")
    assert gpu.ran["memcheck"].startswith("compute-sanitizer --tool memcheck --error-exitcode 9 python -m benchmarks.")
    assert gpu.ran["calibrate"] == f"python -m gpueinsum calibrate --backend cuda --out {tmp_path}/profile.json"
    where = f"--backend cuda --out {tmp_path}"
    assert gpu.ran["predictions"] == f"python -m benchmarks.predictions {where}/predictions.json"
    assert gpu.ran["suite"] == f"python -m benchmarks {where}"
    shown = capsys.readouterr().out
    assert outcomes(shown, tmp_path) == dict.fromkeys(container.STAGES, "passed")
    assert container._NO_GPU not in shown


def test_without_a_gpu_it_says_so_and_runs_on_the_cpu(no_gpu, main, tmp_path, capsys):
    assert main("--quick") == 0
    assert list(no_gpu.ran) == ["doctor", "tests", "calibrate", "predictions", "suite"]
    assert no_gpu.ran["doctor"] == "python -m gpueinsum doctor"
    assert "-m gpu" not in no_gpu.ran["tests"]
    assert no_gpu.ran["suite"] == f"python -m benchmarks --backend cpu --out {tmp_path} --quick"
    assert "--backend cpu --quick" in no_gpu.ran["predictions"]
    shown = capsys.readouterr().out
    assert "No GPU here: tests and measurements run on the CPU." in shown
    assert "left out: racecheck, since there is no GPU, or no compute-sanitizer\n" in shown
    assert outcomes(shown, tmp_path).keys() == no_gpu.ran.keys()


def test_only_the_stages_that_are_asked_for_run(gpu, main, tmp_path, capsys):
    for stage in ("tests", "memcheck", "suite"):
        (tmp_path / f"{stage}.txt").write_text("of an earlier run")
    assert main("--stages", "memcheck", "suite", "--minutes", "6") == 0
    assert outcomes(capsys.readouterr().out, tmp_path) == {"memcheck": "passed", "suite": "passed"}
    assert gpu.seconds["memcheck"] == pytest.approx(60, abs=1)
    assert gpu.seconds["suite"] == pytest.approx(360, abs=1)
    assert [path.name for path in tmp_path.iterdir()] == ["tests.txt"]


def test_a_gpu_without_compute_sanitizer_is_tested_and_measured(gpu, main, monkeypatch, capsys):
    monkeypatch.setattr(container, "compute_sanitizer", lambda: None)
    assert main() == 0
    assert not gpu.ran.keys() & set(CHECKS)
    assert "left out" in capsys.readouterr().out


def test_all_but_calibration_has_smallest_sizes(gpu, main, capsys):
    assert main("--tiny") == 0
    assert "calibrate" not in gpu.ran
    assert gpu.ran["suite"].endswith(" --tiny")
    assert " --tiny" in gpu.ran["predictions"]
    assert "left out: calibrate, which has no smaller sizes\n" in capsys.readouterr().out


def test_compute_sanitizer_is_found_on_the_path_or_among_the_wheels(monkeypatch, tmp_path):
    finder = types.ModuleType("cuda.pathfinder")
    finder.find_nvidia_binary_utility = {"compute-sanitizer": "in a wheel"}.get
    monkeypatch.setitem(sys.modules, "cuda.pathfinder", finder)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert container.compute_sanitizer() == "in a wheel"
    program = tmp_path / "compute-sanitizer"
    program.touch(0o755)
    assert container.compute_sanitizer() == str(program)
    program.unlink()
    monkeypatch.setitem(sys.modules, "cuda.pathfinder", None)
    assert container.compute_sanitizer() is None


def test_a_broken_gpu_never_becomes_a_run_on_the_cpu(broken_gpu, main, tmp_path, capsys):
    broken_gpu.statuses["doctor"] = 1  # as the doctor says of a GPU that is demanded, and cannot be used
    assert main() == 1
    assert broken_gpu.ran == {"doctor": "python -m gpueinsum doctor --backend cuda"}
    shown = capsys.readouterr().out
    assert container._BROKEN in shown
    said = outcomes(shown, tmp_path)
    assert said.pop("doctor") == "FAILED (exit status 1)"
    assert set(said.values()) == {"NOT RUN"}


def test_a_gpu_that_only_the_doctor_sees_never_becomes_a_run_on_the_cpu(no_gpu, main):
    no_gpu.statuses["doctor"] = 1
    assert main() == 1
    assert list(no_gpu.ran) == ["doctor"]


@pytest.mark.parametrize(
    ("stage", "status", "said"),
    [
        ("doctor", 1, "FAILED (exit status 1)"),
        ("tests", 1, "FAILED (exit status 1)"),
        ("tests", None, "OUT OF TIME"),
        ("racecheck", 9, "FAILED (exit status 9)"),
        ("suite", -9, "FAILED (exit status -9)"),
    ],
)
def test_on_a_gpu_one_failure_keeps_no_other_stage_from_running(gpu, main, tmp_path, capsys, stage, status, said):
    gpu.statuses[stage] = status
    assert main() == 1
    assert list(gpu.ran) == list(container.STAGES)
    expected = dict.fromkeys(container.STAGES, "passed") | {stage: said}
    assert outcomes(capsys.readouterr().out, tmp_path) == expected


def test_the_minutes_are_for_all_stages_together(gpu, main, monkeypatch):
    now = iter([0, 0, 20, *[230] * 4, 290, 310, 400])
    monkeypatch.setattr(container, "monotonic", lambda: next(now))
    main("--minutes", "10")
    shares = 3 + 4 + 2 + 5
    assert gpu.seconds["doctor"] is gpu.seconds["calibrate"] is None  # short, and worth nothing if they are ended
    assert gpu.seconds["tests"] == 580 * 3 / shares
    assert gpu.seconds["memcheck"] == 370 / (shares - 3)  # of what is left
    assert gpu.seconds["predictions"] == 290 * 2 / 7
    assert gpu.seconds["suite"] == 200
    assert gpu.ran["suite"].endswith(" --minutes 3.00")  # the last row, the plots and the page need some, too
    assert gpu.ran["predictions"].endswith(f" --minutes {0.9 * 290 * 2 / 7 / 60:.2f}")


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

    def run_text(text, seconds=None):
        (tmp_path / "the_stage.py").write_text(text)
        return container.run([sys.executable, "-m", "the_stage"], tmp_path / "log", seconds)

    return run_text


def test_what_a_stage_prints_is_shown_and_kept(run, tmp_path, capsysbinary):
    assert run("import sys; print('said'); print('complained', file=sys.stderr)") == 0
    assert (tmp_path / "log").read_bytes() == capsysbinary.readouterr().out == b"said\ncomplained\n"
    assert run("raise SystemExit(7)") == 7


@pytest.fixture(params=["in front", "in the background"])
def where(request):
    """Where a shell runs the container: in the background interrupts are ignored."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN if request.param == "in the background" else signal.SIG_DFL)
    yield
    signal.signal(signal.SIGINT, before)


def test_a_stage_out_of_time_says_so_far_what_it_can(run, tmp_path, where):
    text = "import time\ntry: time.sleep(60)\nexcept KeyboardInterrupt: print('so far')"
    assert run(text, 3.0) is None
    assert (tmp_path / "log").read_text() == "so far\n"


def test_a_stage_out_of_time_is_ended_with_its_workers(run):
    deaf = "import os, signal; signal.signal(signal.SIGINT, signal.SIG_IGN); os.fork(); signal.pause()"
    assert run(deaf, 0.4) is None  # which comes only when nobody is left who could print


# ---------------------------------------------------------------- what compute-sanitizer checks


def test_what_is_checked_lies_in_no_pool(monkeypatch):
    allocators, asked = [], []
    monkeypatch.setitem(sys.modules, "cupy", types.SimpleNamespace(cuda=types.SimpleNamespace()))
    sys.modules["cupy"].cuda.set_allocator = allocators.append
    monkeypatch.setattr(pytest, "main", lambda arguments: asked.append(arguments) or 7)
    assert sanitized.main() == 7
    assert allocators == [None]
    assert asked[0][-len(sanitized.TESTS) :] == list(sanitized.TESTS)


@in_the_source
def test_every_kind_of_kernel_is_checked_once_for_each_width():
    command = [sys.executable, "-m", "pytest", "-q", "--collect-only", *sanitized.TESTS]
    found = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for words in ("sums_agree", "packs_are_summed", "tiles_are", "expand", "pointers", "are_added", "matrix_products"):
        assert words in found
    of = ("int8", "uint8", "float16", "float32", "complex64", "complex128")  # of 1, 2, 4, 8 and 16 bytes
    assert all(f"[{dtype}" in found or f"-{dtype}" in found for dtype in of)
    assert "float64" not in found


# ---------------------------------------------------------------- the Dockerfile and its pins


def instructions(kind):
    """What follows that word in the Dockerfile, continued lines joined."""
    lines = "".join(line for line in DOCKERFILE.read_text().splitlines(keepends=True) if line[0] != "#")
    return [line.removeprefix(kind + " ") for line in lines.replace("\\\n", "").splitlines() if line.startswith(kind)]


def pins():
    """Versions by canonical name."""
    lines = (ROOT / "benchmarks" / "constraints.txt").read_text().splitlines()
    pairs = [line.split("==") for line in lines if not line.startswith("#")]
    return {canonicalize_name(name): Version(version) for name, version in pairs}


def extras():
    return tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]


def installed_extras():
    """The extras that the Dockerfile's lines ask for."""
    [names] = [found for line in instructions("RUN") for found in re.findall(r"/tmp/source\[([\w,-]+)\]", line)]
    return names.split(",")


def requirements(extra):
    """All that an extra asks for, by way of other extras, too."""
    for text in extras()[extra]:
        requirement = Requirement(text)
        if requirement.name == "gpueinsum":
            for other in requirement.extras:
                yield from requirements(other)
        else:
            yield requirement


@in_the_source
def test_the_base_is_pinned_to_a_full_version():
    [base] = instructions("FROM")
    assert re.fullmatch(r"python:\d+\.\d+\.\d+-slim-[a-z]+", base)


@in_the_source
def test_everything_that_the_dockerfile_copies_is_there():
    sources = [source for line in instructions("COPY") for source in shlex.split(line)[:-1]]
    assert {"gpueinsum", "kernels", "tests", "benchmarks", "benchmarks/constraints.txt"} <= set(sources)
    assert [source for source in sources if not (ROOT / source).exists()] == []


@in_the_source
def test_every_shell_line_of_the_dockerfile_parses():
    for line in instructions("RUN"):
        subprocess.run(["sh", "-n", "-c", line], check=True)


@in_the_source
@pytest.mark.parametrize("extra", ["test", "peers-cuda13"])
def test_the_pins_satisfy_all_that_the_image_installs(extra):
    assert extra in installed_extras()
    found = pins()
    for requirement in requirements(extra):
        name = canonicalize_name(requirement.name)
        assert name in found, name
        assert requirement.specifier.contains(found[name]), requirement


def test_the_pins_are_exact_and_name_no_address():
    lines = (ROOT / "benchmarks" / "constraints.txt").read_text().splitlines()
    pinned = [line for line in lines if not line.startswith("#")]
    assert len(pinned) > 50
    assert [line for line in pinned if not re.fullmatch(r"[A-Za-z0-9._-]+==[0-9][0-9A-Za-z.]*", line)] == []
    assert not any(word in line for line in lines for word in ("://", "@", "file:"))


@in_the_source
def test_the_versions_that_the_dockerfile_states_are_the_pinned_ones():
    head = " ".join(line.removeprefix("#") for line in DOCKERFILE.read_text().split("FROM")[0].splitlines())
    stated = re.findall(r"([\w-]+) (\d[\d.]*\d)[,;.]", head.partition("Pinned")[2].partition("Size")[0])
    assert len(stated) > 8
    found = pins()
    assert {name: Version(version) for name, version in stated} == {
        name: found[canonicalize_name(name)] for name, _ in stated
    }
