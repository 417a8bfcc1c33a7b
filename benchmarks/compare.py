"""Two runs of one device in, what moved between them out: a line for each row, a mean for each family.

A row's ratio is gpueinsum's old median over its new one: above 1 where the new run is faster. A ratio is beyond noise
if the quartiles of the old and the new times do not overlap. A row is a loss if it takes more than 10 % longer beyond
noise, or is newly wrong. No change of gpueinsum moves the peers: the ratio of their times says whether the machine
itself was faster or slower.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd

from benchmarks.results import ResultsError, Row, Run, Spread
from benchmarks.units import ratio_text
from gpueinsum.text import seconds_text

LOSS = 0.10  # a row that takes so much longer, beyond noise, is a loss


@dataclass(frozen=True, slots=True)
class Comparison:
    """What moved between two runs.

    `rows` has a line for each row that both runs timed: `family`, `old` and `new` (seconds), `ratio`, `is_beyond_noise`
    and `machine` (the geometric mean of its peers' ratios).
    """

    rows: pd.DataFrame
    broken: dict[str, str]  # rows that are newly wrong, and how
    notes: list[str]  # what else differs between the runs

    @property
    def losses(self) -> list[str]:
        """The rows that are newly wrong, and those that take more than 10 % longer beyond noise."""
        return [*self.broken, *self.rows.index[self.rows["is_beyond_noise"] & (self.rows["ratio"] < 1 / (1 + LOSS))]]

    def text(self) -> str:
        """What differs, each row from the largest loss to the largest gain, each family's mean, the losses."""
        return "\n".join(self._lines())

    def _lines(self) -> Iterator[str]:
        yield from self.notes
        yield f"\n{'row':<44} {'old':>9} {'new':>9} {'old ÷ new':>10}   (* beyond noise)"
        for key, found in self.rows.sort_values("ratio").iterrows():
            mark = " loss" if key in self.losses else ""
            times = f"{seconds_text(found['old']):>9} {seconds_text(found['new']):>9}"
            moved = f"{ratio_text(found['ratio']):>10} {'*' if found['is_beyond_noise'] else ''}{mark}"
            yield f"{key:<44} {times} {moved}".rstrip()
        yield f"\n{'family':<44} {'rows':>9} {'peers':>9} {'old ÷ new':>10}   (geometric means)"
        everything = pd.concat([self.rows, self.rows.assign(family="all")])
        for family, found in everything.groupby("family", sort=False):
            ours, machine = (ratio_text(float(np.exp(np.log(found[name]).mean()))) for name in ("ratio", "machine"))
            yield f"{family:<44} {len(found):>9} {machine:>9} {ours:>10}"
        yield ""
        yield from (f"newly wrong: {key}: {fault}" for key, fault in self.broken.items())
        yield f"{len(self.losses)} losses: wrong, or more than {LOSS:.0%} slower beyond noise"


def compare(old: Run, new: Run) -> Comparison:
    """What moved from the old run to the new. Raises ResultsError if they are of different devices."""
    devices = [f"{run.device.get('name')} ({run.device.get('kind')})" for run in (old, new)]
    if devices[0] != devices[1]:
        raise ResultsError(f"the old run is of {devices[0]}, the new one of {devices[1]}: they cannot be compared")
    before, after = ({row.key: row for row in run.rows} for run in (old, new))
    same = [key for key in after if key in before and _definition(before[key]) == _definition(after[key])]
    timed = [key for key in same if _is_timed(before[key]) and _is_timed(after[key])]
    lines = [_movement(before[key], after[key]) for key in timed]
    columns = ["family", "old", "new", "ratio", "is_beyond_noise", "machine"]
    broken = {
        key: "; ".join(f"{name} {row.faults[name]}" for name in row.own if name in row.faults) or "not timed"
        for key, row in after.items()
        if _is_broken(row) and not (key in same and _is_broken(before[key]))
    }
    names = {
        "only in the old run": before.keys() - after.keys(),
        "only in the new run": after.keys() - before.keys(),
        "of the same name, but another expression": (before.keys() & after.keys()) - set(same),
    }
    notes = [f"{old.date} -> {new.date}", *_differences(old, new)]
    notes += [f"{title} ({len(keys)}): {'; '.join(sorted(keys))}" for title, keys in names.items() if keys]
    return Comparison(pd.DataFrame(lines, timed, columns).astype({"is_beyond_noise": bool}), broken, notes)


def _definition(row: Row) -> tuple[object, ...]:
    return row.equation, dict(row.sizes), row.own[0]


def _is_timed(row: Row) -> bool:
    return row.own[0] in row.seconds


def _is_broken(row: Row) -> bool:
    return row.is_wrong or not _is_timed(row)


def _movement(old: Row, new: Row) -> tuple[str, float, float, float, bool, float]:
    before, after = (Spread.of(row.seconds[row.own[0]]) for row in (old, new))
    peers = [old.median(name) / new.median(name) for name in old.peers if name in new.peers]
    is_beyond_noise = before.high < after.low or after.high < before.low
    machine = float(np.exp(np.mean(np.log(peers)))) if peers else np.nan
    return new.family, before.median, after.median, before.median / after.median, is_beyond_noise, machine


def _differences(old: Run, new: Run) -> Iterator[str]:
    """All facts of the device, the versions and the method that are not the same."""
    for before, after in ((old.device, new.device), (old.versions, new.versions), (old.method, new.method)):
        for name in dict.fromkeys([*before, *after]):
            if name != "seconds_taken" and before.get(name) != after.get(name):
                yield f"  differs: {name} {before.get(name, 'unknown')} -> {after.get(name, 'unknown')}"
