"""`python -m benchmarks.predictions`: the seconds and bytes that plans are predicted to take, beside those they take.

It ends with a judgement of the price model: how far the predicted seconds are off, as a factor in either direction.
"""

from __future__ import annotations

import argparse
import math
import statistics
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from benchmarks import results
from benchmarks import run as suite
from benchmarks.devices import device
from benchmarks.results import ResultsError, Spread
from benchmarks.suite import EINSUMS, GRADIENTS
from benchmarks.timed import TimedPlan, TimedStep, Timings, check, timings
from benchmarks.units import range_text, ratio_text
from gpueinsum.costs.profile import Profile, device_profile
from gpueinsum.errors import DeviceError, ProfileError
from gpueinsum.text import bytes_text, seconds_text

SCHEMA = "gpueinsum-predictions/1"
# Bytes beyond what was predicted: what a pool rounds up, and numpy and Python keep beside arrays. On the CPU a pass may
# have scratch, by `Plan.peak_bytes` at most a quarter of its result.
_SLACK, _SCRATCH = 1 << 20, 1 / 4


def main(arguments: Sequence[str] | None = None) -> int:
    """0; 1 if a plan took more bytes than predicted, or could not be measured; 2 if it cannot be done."""
    options = _parser().parse_args(arguments)
    try:
        others = [device_profile(name) for name in options.profile]
        found = results.read_as(Timings, SCHEMA, options.read, check) if options.read else _measured(options)
        print("\n".join(text for profile in others or [found.profile_in_use()] for text in report(found, profile)))
    except (DeviceError, ProfileError, ResultsError, OSError) as error:
        print(f"python -m benchmarks.predictions: {error}", file=sys.stderr)
        return 2
    return int(any(plan.fault or _takes_more(plan, found) for plan in found.plans))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.predictions", description=__doc__)
    parser.add_argument("--backend", choices=["cpu", "cuda"], help="a GPU where one can be used, if not given")
    parser.add_argument("--only", nargs="+", metavar="NAME", type=suite.named, help="rows or families of the suite")
    parser.add_argument("--quick", action="store_true", help="the first short rows of each family")
    parser.add_argument("--minutes", type=float, metavar="N", help="begin no further row after so many minutes")
    parser.add_argument("--out", type=Path, metavar="FILE.json", help="keep what was measured")
    parser.add_argument("--read", type=Path, metavar="FILE.json", help="measure nothing: take what was kept")
    parser.add_argument(
        "--profile",
        nargs="+",
        default=[],
        metavar="NAME",
        help="predict by these (h200, a FILE.json, ...), not by the one that the plans were made by",
    )
    parser.add_argument("--tiny", action="store_true", help="smallest sizes: shows only that everything runs")
    return parser


def _measured(options: argparse.Namespace) -> Timings:
    """What is asked for, a line for each plan as it comes; with `--out` the file is kept up to date."""
    if options.out:
        options.out.parent.mkdir(parents=True, exist_ok=True)
    place = device(options.backend)
    rows = suite.rows_of(place, options.only, options.quick, options.tiny)
    for found in timings(place, place.backend.profile, rows, options.minutes):
        print(_plan_line(found.plans[-1], place.backend.profile), flush=True)
        if options.out:
            results.write_as(SCHEMA, found, "plans", options.out)
    return found


# ---------------------------------------------------------------- the report


def report(found: Timings, profile: Profile) -> Iterator[str]:
    """A line for each plan and each of its measured steps, then what all of them come to."""
    yield f"\nmeasured on {found.device['name']}, predicted by {profile.name} ({profile.device})\n"
    yield _line("row or step", "predicted", "measured", "ratio", "bytes", "taken")
    for plan in found.plans:
        yield _plan_line(plan, profile)
        for step in _measured_steps(plan):
            times = f"{step.times} x " if step.times > 1 else ""
            sizes = " ".join(f"{label}={size}" for label, size in step.sizes.items())
            predicted, ratio = step.predicted(plan.dtype, profile), step.ratio(plan.dtype, profile)
            text = f"  {times}{step.kind.lower()} {step.equation} {sizes}"
            yield _line(text, *_times(predicted, step.seconds, ratio), "", "")
    yield ""
    steps = [
        (step.ratio(plan.dtype, profile), f"{step.equation} of {plan.row}")
        for plan in found.plans
        for step in _measured_steps(plan)
    ]
    plans = [(plan.ratio(profile), plan.row) for plan in found.plans if not plan.fault]
    yield from (_summary(what, ratios) for what, ratios in (("steps", steps), ("plans", plans)) if ratios)
    more = [plan.row for plan in found.plans if _takes_more(plan, found)]
    but = f": all but {'; '.join(more)}" if more else ""
    yield f"{len(plans) - len(more)} of {len(plans)} plans took no more bytes than predicted{but}"
    failed = [plan.row for plan in found.plans if plan.fault]
    if failed:
        yield f"{len(failed)} plans could not be measured: {'; '.join(failed)}"
    yield from judgement(found, profile)


def judgement(found: Timings, profile: Profile) -> Iterator[str]:
    """For each family the median of |log(measured / predicted)|, its worst tenth and its worst, as factors."""
    errors: dict[str, list[float]] = {}
    for plan in found.plans:
        if not plan.fault:
            family = _FAMILIES.get(plan.row.rpartition(", ")[0], "other")
            errors.setdefault(family, []).append(abs(math.log(plan.ratio(profile))))
    yield f"\n{'seconds are off by a factor of':<32}{'plans':>7}{'median':>9}{'worst tenth':>13}{'worst':>9}"
    for family, logs in [*errors.items(), ("all", [error for each in errors.values() for error in each])]:
        if logs:
            median, tenth, worst = (ratio_text(float(factor)) for factor in np.exp(np.quantile(logs, (0.5, 0.9, 1))))
            yield f"{family:<32}{len(logs):>7}{median:>9}{tenth:>13}{worst:>9}"


_FAMILIES = {f"einsum: {row.name}": row.family for row in EINSUMS}
_FAMILIES |= {f"gradients: {row.name}": row.family for row in GRADIENTS}


def _measured_steps(plan: TimedPlan) -> list[TimedStep]:
    return [step for step in plan.steps if step.seconds]


def _takes_more(plan: TimedPlan, found: Timings) -> bool:
    scratch = _SCRATCH * plan.bytes_predicted if found.device["kind"] == "cpu" else 0
    return plan.bytes_taken > plan.bytes_predicted + scratch + _SLACK


def _times(predicted: float, seconds: Sequence[float], ratio: float) -> tuple[str, str, str]:
    return seconds_text(predicted), seconds_text(statistics.median(seconds)), ratio_text(ratio)


def _plan_line(plan: TimedPlan, profile: Profile) -> str:
    if plan.fault:
        return f"{plan.row}  {plan.fault}"
    memory = bytes_text(plan.bytes_predicted), bytes_text(plan.bytes_taken)
    return _line(plan.row, *_times(plan.predicted(profile), plan.seconds, plan.ratio(profile)), *memory)


def _line(what: str, predicted: str, measured: str, ratio: str, nbytes: str, taken: str) -> str:
    return f"{what:<64} {predicted:>9} {measured:>9} {ratio:>6} {nbytes:>9} {taken:>9}".rstrip()


def _summary(what: str, ratios: Sequence[tuple[float, str]]) -> str:
    """The median, and the worst on either side."""
    spread, (least, fastest), (most, slowest) = Spread.of([ratio for ratio, _ in ratios]), min(ratios), max(ratios)
    return (
        f"{len(ratios)} {what} took {ratio_text(spread.median)} times as long as predicted (median; "
        f"quartiles {range_text(spread)}), at the most {ratio_text(most)} ({slowest}), "
        f"at the least {ratio_text(least)} ({fastest})"
    )


if __name__ == "__main__":
    sys.exit(main())
