"""The `gpueinsum` command: run an expression on files, explain its plan, examine or measure the machine, show demos."""

from __future__ import annotations

import argparse
import io
import os
import sys
import time
import tokenize
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

import gpueinsum as ge
from gpueinsum.costs.machine import keep, profile_path
from gpueinsum.costs.profile import Profile
from gpueinsum.errors import DeviceError, DtypeError, OperandError, OutError, PlanError, ProfileError, SubscriptsError
from gpueinsum.files import unfinished
from gpueinsum.text import bytes_text, count_text
from gpueinsum.tools import calibrate, doctor
from gpueinsum.tools.examples import EXAMPLES, relative_error, tolerance
from gpueinsum.tools.explain import explain


class UsageError(ValueError):
    """A file or an argument that the command cannot use."""


# What a user can put right: printed without a traceback. Anything else is a bug of ours, and shows where it is.
_USER_ERRORS = (
    *(UsageError, SubscriptsError, PlanError, OutError, DtypeError, OperandError, DeviceError, ProfileError),
    *(OSError, MemoryError),
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; 0 if all is well, 1 if a check failed, 2 for an error of the caller's."""
    given = sys.argv[1:] if argv is None else argv
    arguments = _parser().parse_args([f" {text}" if text.startswith("->") else text for text in given])  # no option
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # labels may be letters that the terminal lacks
    try:
        status: int = arguments.command(arguments)
        sys.stdout.flush()
        return status
    except BrokenPipeError:  # the reader, `head` say, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except _USER_ERRORS as error:
        print(f"gpueinsum: {error}", file=sys.stderr)
        return 2


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="gpueinsum", description="Einsum on GPUs, or on the CPU where there is none.")
    parser.add_argument("--version", action="version", version=f"gpueinsum {ge.__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    run = _command(commands, "run", _run, "compute an expression of .npy files", _RUN_EXAMPLE)
    run.add_argument("equation", metavar="EQ", help="the expression, such as 'bij,bjk->bik'")
    run.add_argument("operands", metavar="A.npy", type=Path, nargs="+", help="an operand's file, a term each")
    run.add_argument(
        "--out", metavar="C.npy", type=Path, required=True, help="the result's file, replaced if it exists"
    )
    run.add_argument("--backend", choices=("cpu", "cuda"), help="where to compute; by default cuda if it can be used")
    run.add_argument("--precision", choices=("highest", "tf32", "bf16", "emulated"), help="of products on CUDA")
    _add_planning(run)

    plan = _command(commands, "explain", _explain, "show the plan of an expression", _EXPLAIN_EXAMPLE)
    plan.add_argument("equation", metavar="EQ", help="the expression, such as 'ij,jk,kl->il'")
    plan.add_argument("shapes", metavar="SHAPE", nargs="+", help="40x30 or 40,30; 'scalar'; or an .npy file")
    plan.add_argument(
        "--device", metavar="NAME", help="h200, a100, cpu or a profile's FILE.json: as that device runs it"
    )
    plan.add_argument("--json", action="store_true", help="print the plan as JSON, for Plan.from_json")
    derivative = plan.add_mutually_exclusive_group()
    derivative.add_argument("--vjp", action="store_true", help="the plan of its gradients, the backward pass")
    derivative.add_argument("--jvp", action="store_true", help="the plan of its tangent, the forward derivative")
    plan.add_argument("--wrt", metavar="N", type=int, nargs="+", help="the operands (0, 1, ...) of --vjp and --jvp")
    plan.add_argument("--bytes", metavar="LIMIT", help="of memory for --vjp, such as 4GiB")
    _add_planning(plan)

    examine = _command(commands, "doctor", _doctor, "check the installation, the GPU and its results")
    examine.add_argument("--backend", choices=("cpu", "cuda"), help="cuda: fail without a GPU; cpu: look for none")

    measure = _command(commands, "calibrate", _calibrate, "measure the device, and keep its profile for planning")
    measure.add_argument(
        "--backend", choices=("cpu", "cuda"), help="what to measure; by default cuda if it can be used"
    )
    measure.add_argument(
        "--out", metavar="FILE.json", type=Path, help="the profile's file; by default in the user's cache"
    )

    _command(commands, "demo", _demo, "compute the worked examples and check them against numpy")
    return parser


_RUN_EXAMPLE = "example: gpueinsum run 'ij,jk->ik' A.npy B.npy --out C.npy"
_EXPLAIN_EXAMPLE = "example: gpueinsum explain 'ij,jk,kl->il' 40x30 30x20 20x10"


def _command(
    commands: Any, name: str, run: Callable[[argparse.Namespace], int], summary: str, epilog: str = ""
) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = commands.add_parser(name, help=summary, description=summary, epilog=epilog)
    parser.set_defaults(command=run)
    return parser


def _add_planning(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--dtype", metavar="D", help="the dtype to compute in; by default numpy's for the operands")
    parser.add_argument("--optimize", metavar="NAME", default="auto", help="the name of an opt_einsum optimizer")
    parser.add_argument("--memory-limit", metavar="N", type=_memory_limit, help="elements of the largest intermediate")


def _planning(arguments: argparse.Namespace) -> dict[str, Any]:
    return {name: getattr(arguments, name) for name in ("dtype", "optimize", "memory_limit")}


# ---------------------------------------------------------------- run


def _run(arguments: argparse.Namespace) -> int:
    if arguments.dtype == "bfloat16":
        raise UsageError("an .npy file cannot hold bfloat16: pass --dtype float32")
    _check_out(arguments.out)
    operands = [_load(path) for path in arguments.operands]
    backend = arguments.backend or _best_backend()
    options = _planning(arguments) | {"casting": "same_kind", "precision": arguments.precision}
    start = time.perf_counter()
    result = np.asarray(ge.contract(arguments.equation, *operands, backend=backend, **options))
    seconds = time.perf_counter() - start
    _save(arguments.out, result)
    print(f"{arguments.out}: {result.shape} {result.dtype}, computed in {_time_text(seconds)} on {backend}")
    return 0


def _best_backend() -> str:
    return "cpu" if ge.array_module() is np else "cuda"


def _load(path: Path) -> np.ndarray[Any, Any]:
    """The array in a file, mapped rather than read where that can be."""
    try:
        with path.open("rb") as file:
            version = np.lib.format.read_magic(file)
            header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
            shape, _, dtype = header(file)
        is_mappable = 0 not in shape and not dtype.hasobject
        array = np.load(path, mmap_mode="r" if is_mappable else None, allow_pickle=False)
    except (ValueError, EOFError, SyntaxError, tokenize.TokenError) as error:  # a header is parsed as a literal
        raise UsageError(f"{path} is no .npy file that can be read: {error}") from error
    return np.asarray(array)


def _check_out(path: Path) -> None:
    """Fail before the work rather than after it."""
    if not path.parent.is_dir():
        raise UsageError(f"--out {path}: there is no folder {path.parent}")
    if path.exists() and not path.is_file():
        raise UsageError(f"--out {path} is {'a folder' if path.is_dir() else 'no file that can be replaced'}")


def _save(path: Path, array: np.ndarray[Any, Any]) -> None:
    """Write a whole file or none; what a link points to is replaced, not the link."""
    try:
        with unfinished(path.resolve()) as beside, beside.open("xb") as file:
            np.save(file, array, allow_pickle=False)
    except ValueError as error:
        raise UsageError(f"an .npy file cannot hold {array.dtype}: {error}") from error


# ---------------------------------------------------------------- explain


def _explain(arguments: argparse.Namespace) -> int:
    operands = [_shape_or_file(text) for text in arguments.shapes]
    if arguments.wrt is not None and not (arguments.vjp or arguments.jvp):
        raise UsageError("--wrt goes with --vjp or --jvp")
    if arguments.bytes is not None and not arguments.vjp:
        raise UsageError("--bytes goes with --vjp")
    if arguments.json and arguments.device is not None:
        raise UsageError("--json is the plan for any device: leave --device out")
    plan = ge.einsum_plan(arguments.equation, *operands, **_planning(arguments))
    if arguments.vjp:
        plan = plan.vjp(arguments.wrt, optimize=arguments.optimize, memory_limit=arguments.bytes)
    elif arguments.jvp:
        plan = plan.jvp(arguments.wrt)
    print(plan.to_json() if arguments.json else explain(plan, arguments.device))
    return 0


def _shape_or_file(text: str) -> Any:
    if text.endswith(".npy"):
        return _load(Path(text))
    if text == "scalar":
        return ()
    try:
        sizes = [int(size) for size in text.replace("x", ",").split(",")]
    except ValueError as error:
        raise UsageError(f"{text!r} is no shape such as 40x30 or 40,30, nor 'scalar', nor an .npy file") from error
    if min(sizes) < 0:
        raise UsageError(f"shape {text!r} has a negative size")
    return tuple(sizes)


def _memory_limit(text: str) -> int | str:
    try:
        return text if text == "max_input" else int(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is neither a number of elements nor max_input") from error


# ---------------------------------------------------------------- doctor, calibrate, demo


def _doctor(arguments: argparse.Namespace) -> int:
    findings = []
    for finding in doctor.examine(arguments.backend):
        print(finding, flush=True)
        findings.append(finding)
    print(doctor.summary(findings))
    return 1 if any(finding.status == doctor.WRONG for finding in findings) else 0


def _calibrate(arguments: argparse.Namespace) -> int:
    bench = calibrate.bench(arguments.backend or _best_backend())
    path = arguments.out or profile_path(bench.machine)
    measured = calibrate.calibrate(bench)
    keep(measured, path)
    print("\n".join([*_profile_lines(measured), f"kept in {path}"]))
    return 0


def _profile_lines(profile: Profile) -> list[str]:
    products = [
        f"  {dtype:<10}  {count_text(rate.flops_per_second)}flop/s; "
        f"half of that with {rate.rows:.0f} rows, {rate.columns:.0f} columns or {rate.summed:.0f} summed"
        for dtype, rate in profile.rates
    ]
    return [
        profile.device,
        "(within 1.4 times on an idle CPU: if that is more, calibrate again when nothing else runs)",
        "products, large:",
        *products,
        f"copies: {bytes_text(profile.bytes_per_second)}/s, permuting ones {profile.permuted:.0%} of that, "
        f"within {bytes_text(profile.cache_bytes)} of cache {profile.cached:.1f} times that",
        f"a loop: {count_text(profile.loop_flops_per_second)}flop/s; a step: {profile.launch * 1e6:.1f} us, "
        f"and {profile.each * 1e9:.0f} ns for each product of a batch",
    ]


def _demo(arguments: argparse.Namespace) -> int:
    xp = ge.array_module()
    print(f"on {'cpu' if xp is np else 'cuda'}, with {xp.__name__} {xp.__version__}; times are of a second call")
    failures = 0
    for name, example in EXAMPLES.items():
        watch = _Stopwatch(xp)
        example(xp, watch)  # plans, and on CUDA compiles
        watch.seconds = 0.0
        result, expected = example(xp, watch)
        error = relative_error(result, expected)
        is_right = error <= tolerance(result)
        failures += not is_right
        verdict = "ok" if is_right else "WRONG"
        equations = " ; ".join(dict.fromkeys(watch.equations))
        shown = equations if len(equations) <= 50 else equations[:49] + "…"
        print(f"{name:<30}  {shown:<50}  {_time_text(watch.seconds):>8}  max error {error:7.1e}  {verdict}")
    print(f"{len(EXAMPLES) - failures} of {len(EXAMPLES)} agree with numpy")
    return 1 if failures else 0


class _Stopwatch:
    """`einsum` that adds up its time and keeps the equations it was given."""

    def __init__(self, xp: Any) -> None:
        self.seconds = 0.0
        self.equations: list[str] = []
        self._wait = (lambda: None) if xp is np else xp.cuda.get_current_stream().synchronize

    def __call__(self, equation: str, *operands: Any) -> Any:
        self.equations.append(equation)
        self._wait()
        start = time.perf_counter()
        result = ge.einsum(equation, *operands)
        self._wait()
        self.seconds += time.perf_counter() - start
        return result


def _time_text(seconds: float) -> str:
    return f"{seconds:.2f} s" if seconds >= 1 else f"{seconds * 1e3:.3g} ms"
