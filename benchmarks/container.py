"""`python -m benchmarks.container`: what the image runs: the doctor, the tests and the suite, kept in one folder."""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from threading import Thread
from time import monotonic
from typing import IO

ROOT = Path(__file__).parents[1]  # where tests and benchmarks lie
STAGES = ("doctor", "tests", "suite")
_FOR_TESTS, _UNTIL_THE_LAST_ROW = 1 / 3, 0.9  # of the time that there is
_GRACE = 15  # seconds that pytest has to say what failed so far, when its time is up

_REMEDY = (
    "give a folder of your own, by --results DIR, or to a container: "
    'mkdir -p results && docker run --user "$(id -u):$(id -g)" -v "$PWD/results:/results" ...'
)
_NO_GPU = "No GPU here: tests and suite run on the CPU."
_BROKEN = (
    "Something is wrong, and no GPU can be used: nothing is tested or measured on the CPU in its place. "
    "The doctor's lines marked WRONG say why."
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the stages; 0 if all passed, 1 if one did not, 2 if what they find cannot be kept."""
    options = _parser().parse_args(arguments)
    results = options.results.resolve()
    if fault := _cleared(results):
        print(f"cannot write to {results} ({fault}): {_REMEDY}", file=sys.stderr)
        return 2
    usable = gpu_is_usable()
    if not usable:
        os.environ.setdefault("JAX_PLATFORMS", "cpu")  # with its CUDA installed JAX complains of no driver at length
    outcomes = dict.fromkeys(STAGES, "NOT RUN")
    started = monotonic()
    for stage, command in _commands(usable, results, options.quick).items():
        seconds = _seconds(stage, options.minutes, monotonic() - started)
        if stage == "suite" and seconds is not None:
            command += ["--minutes", f"{_UNTIL_THE_LAST_ROW * seconds / 60:.2f}"]
        print(f"\n== {stage}: python -m {' '.join(command)}\n", flush=True)
        outcomes[stage] = _outcome(run(command, results / f"{stage}.txt", seconds))
        if stage == "doctor" and not usable:
            is_fine = outcomes[stage] == "passed"
            print(f"\n{_NO_GPU if is_fine else _BROKEN}", flush=True)
            if not is_fine:
                break
    print(f"\nEverything is in {results}:")
    for stage, outcome in outcomes.items():
        print(f"  {stage:<8}{outcome}")
    return int(set(outcomes.values()) != {"passed"})


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.container", description=__doc__)
    parser.add_argument("--results", type=Path, default=Path("/results"), metavar="DIR", help="where all of it is kept")
    parser.add_argument("--quick", action="store_true", help="the suite takes a look, not a measurement")
    parser.add_argument("--minutes", type=float, metavar="N", help="for all: tests are ended after a third of it")
    return parser


def _seconds(stage: str, minutes: float | None, gone: float) -> float | None:
    """How long a stage may take, of so many minutes for all of them; None for as long as it likes."""
    if minutes is None or stage == "doctor":
        return None
    return 60 * minutes * _FOR_TESTS if stage == "tests" else max(60 * minutes - gone, 0)


def _commands(usable: bool, results: Path, quick: bool) -> dict[str, list[str]]:
    """What each stage runs with `python -m`, on a usable GPU or else on the CPU."""
    demanded = ["--backend", "cuda"] if usable or gpu_is_visible() else []  # so that without CUDA something is wrong
    return {
        "doctor": ["gpueinsum", "doctor", *demanded],
        "tests": ["pytest", "-p", "no:cacheprovider", *(["-m", "gpu"] if usable else ["-n", "auto"])],
        "suite": [
            *("benchmarks", "--backend", "cuda" if usable else "cpu", "--out", str(results)),
            *(["--quick"] if quick else []),
        ],
    }


def _cleared(results: Path) -> str | None:
    """Make the folder, and remove what an earlier run printed; what forbids it, or None."""
    try:
        results.mkdir(parents=True, exist_ok=True)
        for stage in STAGES:
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


def _outcome(status: int | None) -> str:
    return "OUT OF TIME" if status is None else f"FAILED (exit status {status})" if status else "passed"


def run(command: Sequence[str], log: Path, seconds: float | None) -> int | None:
    """`python -m command`, shown and kept as it prints; its exit status, or None if it had to be ended."""
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    with (
        log.open("wb") as kept,
        subprocess.Popen(
            [sys.executable, "-m", *command],
            cwd=ROOT,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            bufsize=0,
            start_new_session=True,  # its workers end with it
            preexec_fn=_heed_interrupts,
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


def _heed_interrupts() -> None:
    """What a shell runs in the background ignores interrupts, and so would the stage, with which it is asked to end."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def _copy(source: IO[bytes], kept: IO[bytes]) -> None:
    while text := source.read(65536):
        for out in (sys.stdout.buffer, kept):
            out.write(text)
            out.flush()


if __name__ == "__main__":
    sys.exit(main())
