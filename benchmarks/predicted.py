"""`python -m benchmarks.predicted`: what a profile predicts for the suite's rows at their own sizes, with no GPU."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from statistics import fmean
from typing import NamedTuple

from benchmarks.peers import plan_of
from benchmarks.suite import EINSUMS, FAMILIES, GRADIENTS
from benchmarks.units import percent_text
from benchmarks.workloads import Workload
from gpueinsum.costs.counts import einsum_cost
from gpueinsum.costs.profile import Profile, device_profile
from gpueinsum.costs.seconds import floor_seconds
from gpueinsum.schedule.schedule import Schedule, schedule
from gpueinsum.text import bytes_text, seconds_text


class Predicted(NamedTuple):
    """A row, what the device would run for it, and the seconds that the profile's rates alone would take."""

    row: Workload
    schedule: Schedule
    least: float

    @property
    def share(self) -> float:
        return self.least / self.schedule.seconds


def main(arguments: Sequence[str] | None = None) -> int:
    """A line for each row and each of its steps, then Markdown: a line for each family. 0."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.predicted", description=__doc__)
    parser.add_argument("--device", default="h200", metavar="NAME", help="a profile's name or file; by default h200")
    profile = device_profile(parser.parse_args(arguments).device)
    found = list(predict(profile))
    for each in found:
        made = each.schedule
        times = seconds_text(made.seconds), percent_text(each.share), bytes_text(made.peak_bytes)
        print(f"{each.row.name}, {each.row.precision or each.row.dtype}: {', '.join(times)}")
        for step in made.steps:
            if not step.is_view:
                print(f"    {seconds_text(step.seconds):>8}  {step.taken.way.name}: {step.step}")
    print("\n" + family_table(found))
    return 0


def predict(profile: Profile) -> Iterator[Predicted]:
    """Every row that is measured on such a device."""
    for row in filter(None, (row.on(profile.kind) for row in (*EINSUMS, *GRADIENTS))):
        plan, is_pullback = plan_of(row), row.family == "gradients"
        given = (plan.vjp(), profile) if is_pullback else (plan, profile, row.strides)
        made = schedule(*given, precision=row.precision)
        yield Predicted(row, made, _least(made, profile))


def _least(made: Schedule, profile: Profile) -> float:
    """Seconds of the steps in turn, each its operations or bytes by the full rate, or a launch."""
    size, steps = dict(made.sizes), [step for step in made.steps if not step.is_view]
    costs = [einsum_cost(step.terms, step.out, size, made.dtype) for step in steps]
    return sum(floor_seconds(profile, made.dtype, c.bytes_moved, c.flops, made.precision) for c in costs)


def family_table(found: Sequence[Predicted]) -> str:
    """Of each family the range of the seconds, the mean of the shares, the row with the least."""
    lines = ["| family | rows | predicted | share of the rates | the least |", "| --- | ---: | ---: | ---: | --- |"]
    for family in FAMILIES:
        if rows := [each for each in found if each.row.family == family]:
            seconds = [each.schedule.seconds for each in rows]
            worst = min(rows, key=lambda each: each.share)
            cells = (
                *(family, str(len(rows)), f"{min(seconds) * 1e6:.0f}–{max(seconds) * 1e6:.0f} µs"),
                percent_text(fmean(each.share for each in rows)),
                f"{worst.row.name}, {worst.row.dtype}: {percent_text(worst.share)}",
            )
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
