"""`python -m benchmarks.predicted`: what a profile predicts for the suite's rows at their own sizes, with no GPU."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import fmean
from typing import NamedTuple

from benchmarks.peers import plan_of
from benchmarks.suite import EINSUMS, FAMILIES, GRADIENTS
from benchmarks.units import percent_text
from benchmarks.workloads import Workload
from gpueinsum.backends.cuda.lower import assemble
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
    parser.add_argument("--contractions", metavar="FILE", help="instead of the suite: lines of an equation and sizes")
    parser.add_argument("--dtype", default="float32", help="of the contractions; by default float32")
    given = parser.parse_args(arguments)
    profile = device_profile(given.device)
    if given.contractions:
        print(*contraction_lines(Path(given.contractions), given.dtype, profile), sep="\n")
        return 0
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


def contraction_lines(path: Path, dtype: str, profile: Profile) -> Iterator[str]:
    """Of each line `ij,jk->ik i=2 j=3 k=4` predicted seconds over their floor, and launches; then of all of them."""
    shares, most = [], 0
    for line in path.read_text(encoding="utf-8").splitlines():
        if line and not line.startswith("#"):
            equation, _, sizes = line.partition(" ")
            row = Workload("", "", equation, sizes, "", dtype)
            made = schedule(plan_of(row), profile)
            shares.append(made.seconds / _least(made, profile))
            launches = len(assemble(made).work)
            most = max(most, launches)
            yield f"{shares[-1]:6.2f}  {launches}  {seconds_text(made.seconds):>8}  {line}"
    shares.sort()
    middle, tenth = shares[len(shares) // 2], shares[len(shares) * 9 // 10]
    yield f"{len(shares)} rows: {middle:.2f} in the median, {tenth:.2f} at the worst tenth, {shares[-1]:.2f} at worst"
    yield f"at most {most} launches"


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
