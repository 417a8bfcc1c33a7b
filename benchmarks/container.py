"""`python -m benchmarks.container`: what the image runs: doctor, tests, measurements, all of it kept in one folder."""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from threading import Thread
from time import monotonic
from typing import IO

ROOT = Path(__file__).parents[1]  # where tests and benchmarks lie
# compute-sanitizer's tools: accesses out of bounds, races in shared memory, what nobody wrote, barriers not for all.
CHECKS = ("memcheck", "racecheck", "initcheck", "synccheck")
# Each stage with its share of the time that there is; None for one that is short, and worth nothing if it is ended.
STAGES = {
    **{"doctor": None, "tests": 3.0, **dict.fromkeys(CHECKS, 1.0)},
    **{"calibrate": None, "predictions": 2.0, "suite": 5.0},
}
_UNTIL_THE_LAST_ROW = 0.9  # of the time of a stage that measures row by row
_GRACE = 15  # seconds that pytest has to say what failed so far, when its time is up
_TESTERS = 8  # processes that share the GPU: most of a test's time is the host's, which compiles kernels

_REMEDY = (
    "give a folder of your own, by --results DIR, or to a container: "
    'mkdir -p results && docker run --user "$(id -u):$(id -g)" -v "$PWD/results:/results" ...'
)
_NO_GPU = "No GPU here: tests and measurements run on the CPU."
_BROKEN = (
    "Something is wrong, and no GPU can be used: nothing is tested or measured on the CPU in its place. "
    "The doctor's lines marked WRONG say why."
)
_NO_CHECK = "since there is no GPU, or no compute-sanitizer"
_NOT_TINY = "which has no smaller sizes"
_PASSED, _NOT_RUN = "passed", "NOT RUN"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the stages; 0 if all passed, 1 if one did not, 2 if what they find cannot be kept."""
    options = _parser().parse_args(arguments)
    results = options.results.resolve()
    if fault := _cleared(results, options.stages or STAGES):
        print(f"cannot write to {results} ({fault}): {_REMEDY}", file=sys.stderr)
        return 2
    usable = gpu_is_usable()
    if not usable:
        os.environ.setdefault("JAX_PLATFORMS", "cpu")  # with its CUDA installed JAX complains of no driver at length
    commands = _commands(usable, results, options)
    stages = [stage for stage in options.stages or STAGES if stage in commands]
    for stage in options.stages or STAGES:
        if stage not in commands:
            print(f"left out: {stage}, {_NO_CHECK if stage in CHECKS else _NOT_TINY}")
    outcomes = dict.fromkeys(stages, _NOT_RUN)
    started = monotonic()
    for number, stage in enumerate(stages):
        seconds = _seconds(stages[number:], options.minutes, monotonic() - started)
        command = commands[stage]
        if stage in ("predictions", "suite") and seconds is not None:
            command += ["--minutes", f"{_UNTIL_THE_LAST_ROW * seconds / 60:.2f}"]
        print(f"\n== {stage}: {' '.join(command)}\n", flush=True)
        status = run(command, results / f"{stage}.txt", seconds)
        outcomes[stage] = f"FAILED (exit status {status})" if status else "OUT OF TIME" if status is None else _PASSED
        if stage == "doctor" and not usable:
            is_fine = outcomes[stage] == _PASSED
            print(f"\n{_NO_GPU if is_fine else _BROKEN}", flush=True)
            if not is_fine:
                break
    print(f"\nEverything is in {results}:")
    for stage, outcome in outcomes.items():
        print(f"  {stage:<13}{outcome}")
    return int(set(outcomes.values()) != {_PASSED})


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.container", description=__doc__)
    parser.add_argument("--results", type=Path, default=Path("/results"), metavar="DIR", help="where all of it is kept")
    parser.add_argument("--quick", action="store_true", help="a look at few rows, not a measurement")
    parser.add_argument("--tiny", action="store_true", help="smallest sizes: shows only that everything runs")
    parser.add_argument("--minutes", type=float, metavar="N", help="for all: what is slow is ended after its share")
    parser.add_argument(
        "--stages", nargs="+", choices=STAGES, metavar="STAGE", help=f"only these of {', '.join(STAGES)}"
    )
    return parser


def _seconds(stages: Sequence[str], minutes: float | None, gone: float) -> float | None:
    """How long the first of these stages may take, of so many minutes for all; None for as long as it likes."""
    share = STAGES[stages[0]]
    if minutes is None or share is None:
        return None
    shares = sum(STAGES[stage] or 0.0 for stage in stages)
    return max(60 * minutes - gone, 0) * share / shares


def _commands(usable: bool, results: Path, options: argparse.Namespace) -> dict[str, list[str]]:
    """What each stage that can be run runs, on a usable GPU or else on the CPU."""
    demanded = ["--backend", "cuda"] if usable or gpu_is_visible() else []  # so that without CUDA something is wrong
    backend = ["--backend", "cuda" if usable else "cpu"]
    few = [f"--{name}" for name in ("quick", "tiny") if getattr(options, name)]
    several = ["-n", str(min(_TESTERS, os.cpu_count() or 1)) if usable else "auto", "--dist", "loadgroup"]
    testers = [*(several if find_spec("xdist") else []), *(["-m", "gpu"] if usable else [])]
    modules = {
        "doctor": ["gpueinsum", "doctor", *demanded],
        "tests": ["pytest", "-p", "no:cacheprovider", *testers],
        "calibrate": ["gpueinsum", "calibrate", *backend, "--out", str(results / "profile.json")],
        "predictions": ["benchmarks.predictions", *backend, *few, "--out", str(results / "predictions.json")],
        "suite": ["benchmarks", *backend, "--out", str(results), *few],
    }
    if options.tiny:
        del modules["calibrate"]
    commands = {stage: [sys.executable, "-m", *command] for stage, command in modules.items()}
    sanitizer = compute_sanitizer() if usable else None
    if sanitizer is not None:
        checked = [sys.executable, "-m", "benchmarks.sanitized"]
        commands |= {check: [sanitizer, "--tool", check, "--error-exitcode", "9", *checked] for check in CHECKS}
    return commands


def compute_sanitizer() -> str | None:
    """Where NVIDIA's compute-sanitizer is; None where it is not installed."""
    if found := shutil.which("compute-sanitizer"):
        return found
    try:
        from cuda.pathfinder import find_nvidia_binary_utility

        return find_nvidia_binary_utility("compute-sanitizer")  # of a wheel, or the CUDA toolkit
    except (ImportError, RuntimeError, ValueError):
        return None


def _cleared(results: Path, stages: Iterable[str]) -> str | None:
    """Make the folder, and remove what these stages printed in an earlier run; what forbids it, or None."""
    try:
        results.mkdir(parents=True, exist_ok=True)
        for stage in stages:
            (results / f"{stage}.txt").unlink(missing_ok=True)
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


def run(command: Sequence[str], log: Path, seconds: float | None) -> int | None:
    """A command, shown and kept as it prints; its exit status, or None if it had to be ended."""
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    with (
        log.open("wb") as kept,
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
        reader = Thread(target=_copy, args=(process.stdout, kept))
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


def _copy(source: IO[bytes], kept: IO[bytes]) -> None:
    while text := source.read(65536):
        for out in (sys.stdout.buffer, kept):
            out.write(text)
            out.flush()


if __name__ == "__main__":
    sys.exit(main())
