"""The `gpueinsum` command: run, explain or time an expression, examine or measure the machine, show demos."""

from __future__ import annotations

import argparse
import io
import os
import sys
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

import gpueinsum as ge
from gpueinsum.costs.machine import keep, profile_for, profile_path
from gpueinsum.costs.profile import Profile
from gpueinsum.errors import DeviceError, DtypeError, OperandError, OutError, PlanError, ProfileError, SubscriptsError
from gpueinsum.files import write_text
from gpueinsum.text import bytes_text, count_text, seconds_text
from gpueinsum.tools import calibrate, doctor
from gpueinsum.tools.demo import demo
from gpueinsum.tools.explain import explain
from gpueinsum.tools.files import UsageError, check_file, load_array, load_plan, store_array
from gpueinsum.tools.picture import html_page, svg
from gpueinsum.tools.profiler import measure
from gpueinsum.tools.results import WRONG

# What a user can put right: printed without a traceback. Any other error is a bug of ours, and its traceback is shown.
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
        status: int = _COMMANDS[arguments.command](arguments)
        sys.stdout.flush()
        return status
    except BrokenPipeError:  # the reader, `head` say, has closed the pipe
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except _USER_ERRORS as error:
        print(f"gpueinsum: {error}", file=sys.stderr)
        return 2


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="gpueinsum", description="Einsum on GPUs, or on the CPU where there is none.")
    parser.add_argument("--version", action="version", version=f"gpueinsum {ge.__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND", dest="command")

    def command(name: str, summary: str, epilog: str = "") -> argparse.ArgumentParser:
        added: argparse.ArgumentParser = commands.add_parser(name, help=summary, description=summary, epilog=epilog)
        return added

    run = command("run", "compute an expression, or a plan, of .npy files", _RUN_EXAMPLE)
    run_help = "the expression, such as 'bij,bjk->bik', unless there is a plan, and an operand's file for each term"
    run.add_argument("given", metavar="EQ | A.npy", nargs="+", help=run_help)
    out_help = "the result's file, replaced if it exists; one for each output of a plan"
    run.add_argument("--out", metavar="C.npy", type=Path, nargs="+", required=True, help=out_help)
    run.add_argument("--plan", metavar="FILE.json", type=Path, help="the plan to run, which `gpueinsum plan` wrote")
    checkpoint_help = "a folder for what is done of a plan: the same command after a crash goes on from there"
    run.add_argument("--checkpoint", metavar="DIR", type=Path, help=checkpoint_help)
    run.add_argument("--devices", metavar="N", nargs="+", help="all, or the numbers of GPUs that share the slices")
    run.add_argument("--backend", choices=_BACKENDS, help="where to compute; by default cuda if it can be used")
    run.add_argument("--precision", choices=("highest", "tf32", "bf16", "emulated"), help="of products on CUDA")

    shown = command("explain", "show the plan of an expression", _EXPLAIN_EXAMPLE)
    shown.add_argument("--json", action="store_true", help="print the plan as JSON, for Plan.from_json")
    shown.add_argument("--html", metavar="FILE", type=Path, help="draw the contraction tree, as a page for a browser")
    shown.add_argument("--svg", metavar="FILE", type=Path, help="draw the contraction tree, as a picture")

    saved = command("plan", "search the plan of an expression, and keep it in a file", _PLAN_EXAMPLE)
    save_help = "the plan's file, for `gpueinsum run --plan` and Plan.from_json"
    saved.add_argument("--save", metavar="FILE.json", type=Path, required=True, help=save_help)

    device_help = "h200, a100, cpu or a profile's FILE.json: as that device runs it"
    for planned in (shown, saved):
        planned.add_argument("--device", metavar="NAME", help=device_help)

    timed = command("profile", "run an expression, and time each of its steps", _PROFILE_EXAMPLE)
    timed.add_argument("--runs", metavar="N", type=_positive, default=10, help="how often; the fastest counts (10)")
    timed.add_argument("--backend", choices=_BACKENDS, help="where to run it; by default cuda if it can be used")
    timed.add_argument("--html", metavar="FILE", type=Path, help="draw the contraction tree, as a page for a browser")

    for derived in (shown, saved, timed):
        derived.add_argument("equation", metavar="EQ", help="the expression, such as 'ij,jk,kl->il'")
        derived.add_argument("shapes", metavar="SHAPE", nargs="+", help="40x30 or 40,30; 'scalar'; or an .npy file")
        derivative = derived.add_mutually_exclusive_group()
        derivative.add_argument("--vjp", action="store_true", help="the plan of its gradients, the backward pass")
        derivative.add_argument("--jvp", action="store_true", help="the plan of its tangent, the forward derivative")
        wrt_help = "the operands (0, 1, ...) of --vjp and --jvp"
        derived.add_argument("--wrt", metavar="N", type=int, nargs="+", help=wrt_help)

    for planned in (run, shown, saved, timed):
        planned.add_argument(
            "--dtype", metavar="D", help="the dtype to compute in; by default numpy's for the operands"
        )
        planned.add_argument("--optimize", metavar="NAME", default="auto", help="the name of an opt_einsum optimizer")
        limit_help = "of intermediates and results: bytes, 4GiB, 80%% of the device's memory, or auto"
        planned.add_argument("--memory-limit", metavar="LIMIT", type=_memory_limit, help=limit_help)
        largest_help = "elements of the largest intermediate, for the search for an order"
        planned.add_argument("--largest-intermediate", metavar="N", type=_elements, help=largest_help)

    examine = command("doctor", "check the installation, the GPU and its results")
    examine.add_argument("--backend", choices=_BACKENDS, help="cuda: fail without a GPU; cpu: look for none")

    measure = command("calibrate", "measure the device, and keep its profile for planning")
    measure.add_argument("--backend", choices=_BACKENDS, help="what to measure; by default cuda if it can be used")
    file_help = "the profile's file; by default in the user's cache"
    measure.add_argument("--out", metavar="FILE.json", type=Path, help=file_help)
    measure.add_argument("--tiny", action="store_true", help="smallest sizes: shows only that everything runs")

    command("demo", "compute the worked examples and check them against numpy")
    return parser


_BACKENDS = ("cpu", "cuda")
_RUN_EXAMPLE = "example: gpueinsum run 'ij,jk->ik' A.npy B.npy --out C.npy"
_EXPLAIN_EXAMPLE = "example: gpueinsum explain 'ij,jk,kl->il' 40x30 30x20 20x10"
_PLAN_EXAMPLE = "example: gpueinsum plan 'ij,jk,kl->il' 40x30 30x20 20x10 --memory-limit 4KiB --save plan.json"
_PROFILE_EXAMPLE = "example: gpueinsum profile 'ij,jk,kl->il' 400x300 300x200 C.npy"


def _planning_options(arguments: argparse.Namespace) -> dict[str, Any]:
    return {name: getattr(arguments, name) for name in ("dtype", "optimize", "memory_limit", "largest_intermediate")}


# ---------------------------------------------------------------- run


def _run(arguments: argparse.Namespace) -> int:
    outs: Sequence[Path] = arguments.out
    if arguments.dtype == "bfloat16":
        raise UsageError("an .npy file cannot hold bfloat16: pass --dtype float32")
    for out in outs:
        check_file("--out", out)
    plan = None
    if arguments.plan is not None:
        if arguments.dtype or arguments.optimize != "auto" or arguments.largest_intermediate:
            raise UsageError("a plan has a dtype and an order: leave --dtype, --optimize, --largest-intermediate out")
        plan = load_plan(arguments.plan)
    if len(outs) != (1 if plan is None else len(plan.outputs)):
        raise UsageError(f"--out lists {len(outs)} files, which are not as many as there are outputs")
    files = arguments.given if plan is not None else arguments.given[1:]
    if arguments.checkpoint and plan is None:
        raise UsageError("--checkpoint goes with --plan: a search for a plan may end with another one after a crash")
    if arguments.devices and arguments.backend:
        raise UsageError("--devices are GPUs: leave --backend out")
    if not files:
        raise UsageError("an expression needs an operand's file for each term")
    operands = [load_array(Path(file)) for file in files]
    backend = arguments.backend or _best_backend()
    options = {"backend": arguments.backend if arguments.devices else backend, "precision": arguments.precision}
    start = time.perf_counter()
    in_batches = {"checkpoint": arguments.checkpoint, "devices": _devices(arguments.devices)}
    if plan is None and arguments.devices:
        planning = _planning_options(arguments) | {"device": profile_for(backend)}
        plan = ge.einsum_plan(arguments.given[0], *operands, **planning)
    if plan is not None:
        results = ge.run_plan(plan, *operands, memory_limit=arguments.memory_limit, **options, **in_batches)
        results = results if isinstance(results, tuple) else (results,)
    else:
        options |= _planning_options(arguments) | {"casting": "same_kind"}
        results = (ge.contract(arguments.given[0], *operands, **options),)
    seconds = time.perf_counter() - start
    for out, result in zip(outs, map(np.asarray, results), strict=True):
        store_array(result, out)
        print(f"{out}: {result.shape} {result.dtype}, computed in {seconds_text(seconds)} on {backend}")
    return 0


def _devices(given: Sequence[str] | None) -> str | list[int] | None:
    if given is None or given == ["all"]:
        return None if given is None else "all"
    if not all(text.isdecimal() for text in given):
        raise UsageError(f"--devices takes all, or numbers of GPUs, not {' '.join(given)}")
    return [*map(int, given)]


def _best_backend() -> str:
    return "cpu" if ge.array_module() is np else "cuda"


# ---------------------------------------------------------------- explain, profile


def _explain(arguments: argparse.Namespace) -> int:
    asked = ("--html", arguments.html, html_page), ("--svg", arguments.svg, svg)
    pictures = [(option, path, draw) for option, path, draw in asked if path is not None]
    if arguments.json and arguments.device is not None:
        raise UsageError("--json is the plan for any device: leave --device out")
    if arguments.json and pictures:
        raise UsageError("--json prints the plan: leave --html and --svg out")
    for option, path, _ in pictures:
        check_file(option, path)
    plan = _plan(arguments, [_shape_or_file(text) for text in arguments.shapes])
    for _, path, draw in pictures:
        _write(path, draw(plan, arguments.device))
    if not pictures:
        print(plan.to_json() if arguments.json else explain(plan, arguments.device))
    return 0


def _profile(arguments: argparse.Namespace) -> int:
    """Random numbers stand for what is given by its shape, and for cotangents and tangents."""
    if arguments.html is not None:
        check_file("--html", arguments.html)
    operands = [_shape_or_file(text) for text in arguments.shapes]
    plan = _plan(arguments, operands)
    operands += [plan.shape(register) for register in range(len(operands), len(plan.inputs))]
    measured = measure(plan, operands, arguments.backend or _best_backend(), arguments.runs)
    print(measured)
    if arguments.html is not None:
        _write(arguments.html, measured.page())
    return 0


def _plan(arguments: argparse.Namespace, operands: Sequence[Any]) -> ge.Plan:
    """The plan that the arguments ask for: of the expression, or of a derivative."""
    if arguments.wrt is not None and not (arguments.vjp or arguments.jvp):
        raise UsageError("--wrt goes with --vjp or --jvp")
    options, device = _planning_options(arguments), getattr(arguments, "device", None)
    if not (arguments.vjp or arguments.jvp):
        return ge.einsum_plan(arguments.equation, *operands, **options, device=device)
    limit = options.pop("memory_limit")
    plan = ge.einsum_plan(arguments.equation, *operands, **options, device=device)
    within: dict[str, Any] = {"memory_limit": limit, "device": device}
    if arguments.vjp:
        return plan.vjp(arguments.wrt, optimize=arguments.optimize, **within)
    return plan.jvp(arguments.wrt, **within)


def _save(arguments: argparse.Namespace) -> int:
    check_file("--save", arguments.save)
    plan = _plan(arguments, [_shape_or_file(text) for text in arguments.shapes])
    write_text(arguments.save.resolve(), plan.to_json() + "\n")
    slices = f" in {plan.slices.number} slices" if plan.sliced else ""
    print(f"{arguments.save}: the plan of {plan.equation:.60}{slices}, {bytes_text(plan.peak_bytes(arguments.device))}")
    return 0


def _write(path: Path, picture: str) -> None:
    write_text(path.resolve(), picture)  # what a link points to is replaced, not the link
    print(f"{path}: a picture of the plan")


def _shape_or_file(text: str) -> Any:
    if text.endswith(".npy"):
        return load_array(Path(text))
    if text == "scalar":
        return ()
    try:
        sizes = [int(size) for size in text.replace("x", ",").split(",")]
    except ValueError as error:
        raise UsageError(f"{text!r} is no shape such as 40x30 or 40,30, nor 'scalar', nor an .npy file") from error
    if min(sizes) < 0:
        raise UsageError(f"shape {text!r} has a negative size")
    return tuple(sizes)


def _positive(text: str) -> int:
    if not text.isdecimal() or not int(text):
        raise argparse.ArgumentTypeError(f"{text!r} is no positive number")
    return int(text)


def _elements(text: str) -> int | str:
    try:
        return text if text == "max_input" else int(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is neither a number of elements nor max_input") from error


def _memory_limit(text: str) -> int | str:
    return int(text) if text.isdecimal() else text


# ---------------------------------------------------------------- doctor, calibrate, demo


def _doctor(arguments: argparse.Namespace) -> int:
    findings = []
    for finding in doctor.examine(arguments.backend):
        print(finding, flush=True)
        findings.append(finding)
    print(doctor.summary(findings))
    return int(any(finding.status == WRONG for finding in findings))


def _calibrate(arguments: argparse.Namespace) -> int:
    bench = calibrate.Bench(arguments.backend or _best_backend())
    path = arguments.out or profile_path(bench.machine)
    if arguments.tiny and not arguments.out:
        raise UsageError("--tiny measures nothing that is worth keeping in the cache: give --out FILE.json")
    size, seconds = (calibrate.TINY, 0.0) if arguments.tiny else (None, 30.0)
    measured = calibrate.calibrate(bench, seconds, size, show=partial(print, flush=True))
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


_COMMANDS = {
    **{"run": _run, "explain": _explain, "plan": _save, "profile": _profile},
    **{"doctor": _doctor, "calibrate": _calibrate, "demo": demo},
}
