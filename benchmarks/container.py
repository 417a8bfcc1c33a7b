"""`python -m benchmarks.container`: what can be learnt of a GPU in one short day, the most important truth first.

Each stage has its share of the time, and writes as it goes, so that an end at any time loses nothing. What all of them
print is kept in `report.txt`, and what is measured in three more files.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from threading import Thread
from time import perf_counter
from typing import IO

ROOT = Path(__file__).parents[1]  # where tests and benchmarks lie
# compute-sanitizer's tools: accesses out of bounds, races in shared memory, what nobody wrote, barriers not for all.
CHECKS = ("memcheck", "racecheck", "initcheck", "synccheck")
# Seconds of each stage, or its share if there are more or fewer for all. Kernels come first: all else waits for them.
STAGES = {
    **{"kernels": 30, "doctor": 30, "tests": 150, "suite": 240, "calibrate": 60, "predictions": 60},
    **dict.fromkeys(CHECKS, 60),
}
DAY = tuple(stage for stage in STAGES if stage not in CHECKS[1:])  # the stages that run if none are asked for
_MINUTES = 9.5
_UNTIL_THE_LAST_ROW = 0.9  # of the time of a stage that measures row by row
_GRACE = 15  # seconds that pytest has to say what failed so far, when its time is up
_REPORT = "report.txt"
_TOOLKIT = "/usr/local/cuda/bin"  # where the CUDA toolkit lies, unless it was asked to lie elsewhere

# The families of the suite, the worst doubts first.
DOUBTS = (
    *("GEMM", "attention", "matrix-vector", "TCCG: CCSD", "TCCG: TTM", "TCCG: AO2MO", "TCCG: CCSD(T)"),
    *("permuted sums", "batched dots", "diagonals and traces", "circuits", "gradients", "user reports"),
    *("batched GEMM", "small matrices", "outer and Hadamard", "CP and Tucker", "bilinear", "convolution"),
    *("MPS and PEPS", "random pairs", "tiny"),
)
BESIDE = ("cupy", "cupy cutensor", "numpy optimized", "torch", "jax")  # whom the suite measures

_REMEDY = (
    "give a folder of your own, by --results DIR, or to a container: "
    'mkdir -p results && docker run --user "$(id -u):$(id -g)" -v "$PWD/results:/results" ...'
)
_NO_GPU = "No GPU here: tests and measurements run on the CPU."
_BROKEN = (
    "THERE IS A GPU, AND IT CANNOT BE USED: what follows runs on the CPU, and says nothing of the GPU. "
    "The doctor's lines marked WRONG say why."
)
_PASSED = "passed"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the stages; 0 if all passed, 1 if one did not, 2 if what they find cannot be kept."""
    started = perf_counter()
    options = _parser().parse_args(arguments)
    results = options.results.resolve()
    if fault := _fault(results):
        print(f"cannot write to {results} ({fault}): {_REMEDY}", file=sys.stderr)
        return 2
    usable = gpu_is_usable()
    is_broken = gpu_is_visible() and not usable
    if not usable:
        os.environ.setdefault("JAX_PLATFORMS", "cpu")  # with its CUDA installed JAX complains of no driver at length
    commands = _commands(usable, is_broken, results, options.tiny)
    wanted = options.stages or DAY
    with (results / _REPORT).open("ab") as report:
        if not usable:
            _say(_BROKEN if is_broken else _NO_GPU, report)
        for stage in wanted:
            if stage not in commands:
                reason = "no GPU, or no compute-sanitizer" if stage in CHECKS else "no GPU"
                _say(f"left out: {stage}, since there is {reason}", report)
        found = {stage: commands[stage] for stage in wanted if stage in commands}
        outcomes = _run_in_turn(found, started + 60 * options.minutes, report)
        if is_broken:
            _say(f"\n{_BROKEN}", report)
        _say(f"\nAll of it took {perf_counter() - started:.0f} s, and is in {results}:", report)
        for stage, outcome in outcomes.items():
            _say(f"  {stage:<13}{outcome}", report)
    return int(any(not outcome.startswith(_PASSED) for outcome in outcomes.values()))


def _run_in_turn(commands: dict[str, list[str]], end: float, report: IO[bytes]) -> dict[str, str]:
    """What each stage came to; by the clock all of them have until `end`."""
    outcomes, stages = {}, list(commands)
    for number, (stage, command) in enumerate(commands.items()):
        begun = perf_counter()
        seconds = _limit(stages[number:], end - begun)
        if stage in ("predictions", "suite"):
            command = [*command, "--minutes", f"{_UNTIL_THE_LAST_ROW * seconds / 60:.2f}"]
        _say(f"\n== {stage}, at most {seconds:.0f} s: {shlex.join(command)}\n", report)
        status = run(command, report, seconds)
        said = f"FAILED (exit status {status})" if status else "OUT OF TIME" if status is None else _PASSED
        outcomes[stage] = f"{said}, {perf_counter() - begun:.0f} s"
        _say(f"\n== {stage}: {outcomes[stage]}", report)
    return outcomes


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.container", description=(__doc__ or "").partition("\n")[0]
    )
    parser.add_argument("--results", type=Path, default=Path("/results"), metavar="DIR", help="where all of it is kept")
    parser.add_argument("--tiny", action="store_true", help="smallest sizes: shows only that everything runs")
    parser.add_argument(
        "--minutes", type=float, default=_MINUTES, metavar="N", help=f"for all stages together; {_MINUTES} if not given"
    )
    parser.add_argument(
        "--stages",
        nargs="+",
        choices=STAGES,
        metavar="STAGE",
        help=f"only these of {', '.join(STAGES)}; {', '.join(DAY)} if none are given",
    )
    return parser


def _limit(stages: Sequence[str], left: float) -> float:
    """How many seconds the first of these stages may take, of those left for all: what one leaves the others have."""
    return max(left, 0) * STAGES[stages[0]] / sum(STAGES[stage] for stage in stages)


def _commands(usable: bool, is_broken: bool, results: Path, is_tiny: bool) -> dict[str, list[str]]:
    """What each stage that can be run runs, on a usable GPU or else on the CPU."""
    demanded = ["--backend", "cuda"] if usable or is_broken else []  # so that without CUDA something is wrong
    backend, tiny = ["--backend", "cuda" if usable else "cpu"], ["--tiny"] * is_tiny
    measured = [*backend, *tiny, "--only", *DOUBTS, "--out"]
    modules = {
        "doctor": ["gpueinsum", "doctor", *demanded],
        "tests": ["benchmarks.testing", *backend],
        "suite": ["benchmarks", "--quick", "--peers", *BESIDE, *measured, str(results / "suite.json")],
        "calibrate": ["gpueinsum", "calibrate", *backend, *tiny, "--out", str(results / "profile.json")],
        "predictions": ["benchmarks.predictions", *measured, str(results / "predictions.json")],
    }
    if usable:
        modules["kernels"] = ["benchmarks.compiled"]
    commands = {stage: [sys.executable, "-m", *command] for stage, command in modules.items()}
    sanitizer = compute_sanitizer() if usable else None
    if sanitizer is not None:
        checked = [sys.executable, "-m", "benchmarks.sanitized"]
        commands |= {check: [sanitizer, "--tool", check, "--error-exitcode", "9", *checked] for check in CHECKS}
    return commands


def compute_sanitizer() -> str | None:
    """Where NVIDIA's compute-sanitizer is; None where it is not installed."""
    if found := shutil.which("compute-sanitizer") or shutil.which("compute-sanitizer", path=_TOOLKIT):
        return found
    try:
        from cuda.pathfinder import find_nvidia_binary_utility

        return find_nvidia_binary_utility("compute-sanitizer")  # of a wheel, or the CUDA toolkit
    except (ImportError, RuntimeError, ValueError):
        return None


def _fault(results: Path) -> str | None:
    """Make the folder; what forbids to write to it, or None."""
    try:
        results.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=results).close()
    except OSError as error:
        return error.strerror
    return None


def gpu_is_usable() -> bool:
    """Whether gpueinsum computes on CUDA here; asked in a process of its own, so that no GPU memory stays taken."""
    question = "import sys, gpueinsum; sys.exit(gpueinsum.array_module().__name__ != 'cupy')"
    return subprocess.run([sys.executable, "-c", question], cwd=ROOT, check=False).returncode == 0


def gpu_is_visible() -> bool:
    """Whether the machine shows a GPU, be it usable or not: NVIDIA's device files, or that of WSL."""
    return any(any(Path("/dev").glob(name)) for name in ("nvidia[0-9]*", "dxg"))


def run(command: Sequence[str], report: IO[bytes], seconds: float) -> int | None:
    """A command, shown and kept as it prints; its exit status, or None if it had to be ended."""
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    with (
        _heeded_interrupts(),
        subprocess.Popen(
            command,
            cwd=ROOT,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            bufsize=0,
            start_new_session=True,  # its workers end with it
        ) as process,
    ):
        reader = Thread(target=_copy, args=(process.stdout, report))
        reader.start()
        try:
            return process.wait(seconds)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGINT)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(_GRACE)
            return None
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            reader.join()


@contextlib.contextmanager
def _heeded_interrupts() -> Iterator[None]:
    """What a shell runs in the background ignores interrupts, and so would what it starts, which is ended by one."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _copy(source: IO[bytes], report: IO[bytes]) -> None:
    while text := source.read(65536):
        _write(text, report)


def _say(text: str, report: IO[bytes]) -> None:
    _write(f"{text}\n".encode(), report)


def _write(text: bytes, report: IO[bytes]) -> None:
    for out in (sys.stdout.buffer, report):
        out.write(text)
        out.flush()


if __name__ == "__main__":
    sys.exit(main())
