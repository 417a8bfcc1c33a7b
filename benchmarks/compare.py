"""Two runs in, what moved between them beyond noise out: a `Comparison`, which prints itself and knows the losses.

A machine drifts between two runs, by 20 % and more, but all of a row's peers were timed in the same rounds as we were,
and a peer of the same version has not changed. So a row moved by as much as we moved against the peers:

    moved against p = the median of (new ours/p) / (old ours/p), over all pairs of a new and an old round
    movement        = the median of that over the common peers, so that one peer gone astray does not matter

and it would move so far (a standard error of its logarithm) if nothing had changed:

    of rounds  the rounds of one run scatter, by s as their quartiles say: s sqrt(1/old rounds + 1/new rounds)
    of runs    a call that did not change may still be faster throughout one run than throughout the next, for where its
               memory lies; how far, the peers show, as they moved against each other by more than their rounds explain
    error      sqrt(of rounds² + of runs²), with a part of each for ours and one for the median of the peers

Few rounds know their own scatter badly, so every estimate of a row is mixed with that of the whole suite, as if the
suite were ten more observations. A row is beyond noise where its movement is more than 3.3 errors. Simulated, with rows
of 3 to 100 rounds whose samples scatter by 5 %, not one in 20 comparisons of 125 rows then has a loss where nothing
changed.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np

from benchmarks.results import FLOOR, ResultsError, Row, Run, geometric_mean
from gpueinsum.text import seconds_text

LOSS = 0.10  # how much slower, beyond noise, is a loss
ERRORS = 3.3  # how many standard errors are noise: one row in 2000 is further above by chance

# What the whole suite says weighs as much as so many observations of a row.
_SUITE = 10
# How far a call's speed is off for a whole run, and a ratio in one round, where no peer says: four runs of 35 rows on
# two shared cores, nothing changed, gave 0.04 to 0.08 for either.
_RUNS, _ROUNDS = 0.06, 0.06
# The part of absolute times that is the machine's (the same runs: 0.14 to 0.20): only twice as slow is then a loss.
_MACHINE = 0.20

# Peers that compute by themselves, and what else they use; all others compute with the library that ours computes with.
_ENGINES = {"torch": ("opt_einsum",), "jax": (), "cutensornet": ("cutensor", "cuquantum")}
_OUR_ENGINE = {"cpu": ("numpy", "blas"), "cuda": ("cupy", "cuda", "nvidia-cublas")}

_ALWAYS_DIFFERENT = ("seconds_taken",)  # of a run's method


class ComparisonError(ResultsError):
    """The two runs say nothing about each other."""


@dataclass(frozen=True, slots=True)
class Movement:
    """How many times as long a row takes as it did."""

    key: str
    factor: float
    error: float  # the standard error of the factor's logarithm
    peers: Sequence[str]  # against which; none: from absolute times
    old: float  # seconds per call
    new: float

    @property
    def noise(self) -> float:
        """What a factor has to exceed, or its inverse, to be more than noise."""
        return math.exp(ERRORS * self.error)

    @property
    def is_beyond_noise(self) -> bool:
        return abs(math.log(self.factor)) > ERRORS * self.error

    @property
    def is_loss(self) -> bool:
        """Slower by more than 10 %, and beyond noise."""
        return self.is_beyond_noise and self.factor > 1 + LOSS


@dataclass(frozen=True, slots=True)
class Comparison:
    """What differs between two runs of the suite on one device: no row of either is in none of the fields."""

    old: str  # their dates
    new: str
    differences: Sequence[str]  # of what they ran on and how
    replaced: Sequence[str]  # peers of another version, which therefore say nothing
    movements: Sequence[Movement]  # the slowest first
    broken: Mapping[str, str]  # newly wrong or failed, and how
    mended: Mapping[str, str]  # and how they had been wrong
    still_broken: Mapping[str, str]
    added: Sequence[str]
    removed: Sequence[str]
    redefined: Sequence[str]  # the same name for another expression

    @property
    def losses(self) -> Sequence[str]:
        """The rows that are newly wrong, or slower by more than 10 % and beyond noise."""
        return tuple(dict.fromkeys([*self.broken, *(moved.key for moved in self.movements if moved.is_loss)]))

    @property
    def mean(self) -> float | None:
        """The geometric mean of the rows' factors, of those that have a common peer."""
        return geometric_mean(moved.factor for moved in self.movements if moved.peers)

    def text(self) -> str:
        """Losses first, then what else moved, most first; what could not be compared; the whole suite in a line."""
        beyond = [moved for moved in self.movements if moved.is_beyond_noise]
        losses = [moved for moved in beyond if moved.is_loss]
        slower = [moved for moved in beyond if moved.factor > 1 and not moved.is_loss]
        faster = [moved for moved in reversed(beyond) if moved.factor < 1]
        parts = [
            [f"{self.old} -> {self.new}", *(f"  differs: {difference}" for difference in self.differences)],
            _titled("newly wrong:", _faults(self.broken)),
            _titled(f"slower by more than {LOSS:.0%}, beyond noise:", map(_line, losses)),
            _titled("slower beyond noise:", map(_line, slower)),
            _titled("faster beyond noise:", map(_line, faster)),
            _titled("right again:", _faults(self.mended)),
            _titled("wrong in both:", _faults(self.still_broken)),
            _named("of the same name, but not the same", self.redefined),
            _named("only in the new run", self.added),
            _named("only in the old run", self.removed),
            self._summary(len(beyond)),
        ]
        return "\n\n".join("\n".join(part) for part in parts if part)

    def _summary(self, beyond: int) -> list[str]:
        lines = [f"{len(self.movements) - beyond} of {len(self.movements)} rows within noise"]
        doubtful = [moved for moved in self.movements if moved.factor > 1 + LOSS and not moved.is_beyond_noise]
        if doubtful:
            shown = "; ".join(f"{moved.key} {_percent(moved.factor)}" for moved in doubtful)
            lines[0] += f", of which slower by more than {LOSS:.0%}, to be measured again: {shown}"
        if self.replaced:
            lines.append(f"peers of another version, not compared with: {', '.join(self.replaced)}")
        if self.mean is not None:
            number = sum(bool(moved.peers) for moved in self.movements)
            lines.append(f"{self.mean:.3f} times as long as before (geometric mean of {number} rows)")
        return lines


def compare(old: Run, new: Run) -> Comparison:
    """What moved from the old run to the new; ComparisonError if they are of different devices."""
    _check_devices(old, new)
    before, after = _by_key(old), _by_key(new)
    redefined = [key for key in after if key in before and _definition(before[key]) != _definition(after[key])]
    common = [key for key in after if key in before and key not in redefined]
    was, now = ({key: fault for key, row in rows.items() if (fault := _fault(row))} for rows in (before, after))
    timed = [key for key in common if _ours(before[key]) and _ours(after[key])]
    replaced = {name for row in (*old.rows, *new.rows) for name in row.peers if not _is_unchanged(name, old, new)}
    evidence = [_Evidence.of(before[key], after[key], old, new) for key in timed]
    noise = _Noise.of(evidence)
    return Comparison(
        old=old.date,
        new=new.date,
        differences=_differences(old, new),
        replaced=sorted(replaced),
        movements=sorted((item.movement(noise) for item in evidence), key=lambda moved: -moved.factor),
        broken={key: fault for key, fault in now.items() if key not in common or _newly(before[key], after[key])},
        mended={key: was[key] for key in common if key in was and key not in now},
        still_broken={key: now[key] for key in common if key in now and not _newly(before[key], after[key])},
        added=[key for key in after if key not in before],
        removed=[key for key in before if key not in after],
        redefined=redefined,
    )


def _check_devices(old: Run, new: Run) -> None:
    of_old, of_new = (f"{run.device.get('name')} ({run.device.get('kind')})" for run in (old, new))
    if of_old != of_new:
        raise ComparisonError(f"the old run is of {of_old}, the new one of {of_new}: no two devices are compared")


def _by_key(run: Run) -> dict[str, Row]:
    rows = {row.key: row for row in run.rows}
    if len(rows) < len(run.rows):
        keys = [row.key for row in run.rows]
        raise ComparisonError(f"the run of {run.date} has rows of the same name: {statistics.mode(keys)}")
    return rows


def _definition(row: Row) -> tuple[Any, ...]:
    return row.equation, dict(row.sizes), row.dtype, row.own[0]


# ---------------------------------------------------------------- right or wrong


def _fault(row: Row) -> str | None:
    """What is wrong with a row of ours: each call's fault, or that it was not timed."""
    faults = [f"{name} {row.faults[name]}" for name in row.own if name in row.faults]
    if not faults and not _ours(row):
        return f"{row.own[0]} not timed: {row.left_out.get(row.own[0], 'no reason given')}"
    return "; ".join(faults) or None


def _newly(before: Row, after: Row) -> bool:
    """Whether any call of ours is wrong, or not timed, that was right."""
    return any(name in after.faults and name not in before.faults for name in after.own) or (
        _ours(before) and not _ours(after)
    )


def _ours(row: Row) -> bool:
    return row.own[0] in row.seconds and row.own[0] not in row.faults


# ---------------------------------------------------------------- what differs around the rows


def _differences(old: Run, new: Run) -> list[str]:
    """All plain facts of the device, the versions and the method that are not the same."""
    pairs = ((old.device, new.device), (old.versions, new.versions), (old.method, new.method))
    return [
        f"{name} {before.get(name, 'unknown')} -> {after.get(name, 'unknown')}"
        for before, after in pairs
        for name in dict.fromkeys([*before, *after])
        if name not in _ALWAYS_DIFFERENT and before.get(name) != after.get(name)
    ]


def _is_unchanged(name: str, old: Run, new: Run) -> bool:
    """Whether everything that a peer computes with has the same version in both runs."""
    return _versions(name, old) == _versions(name, new)


def _versions(name: str, run: Run) -> dict[str, str]:
    """Those of each word in a peer's name ("opt_einsum torch"), and of our engine if it computes with that."""
    words = name.split()
    engines = [word for word in words if word in _ENGINES]
    used = [other for word in engines for other in _ENGINES[word]]
    used += () if engines else _OUR_ENGINE.get(run.device.get("kind", ""), ())
    return {key: version for key, version in run.versions.items() if key.casefold().startswith((*words, *used))}


# ---------------------------------------------------------------- how far, and how sure


@dataclass(frozen=True, slots=True)
class _Pair:
    """How one's time moved against another's (or alone), in logarithms."""

    moved: float
    variance: float  # of the rounds of a run, from the two runs' quartiles
    rounds: int  # that know of it: those of both runs less two
    weight: float  # the variance of `moved` is so many times that of the rounds

    @classmethod
    def of(cls, old: Row, new: Row, above: str, below: str | None) -> _Pair:
        before, after = _ratios(old, above, below), _ratios(new, above, below)
        rounds = len(before) + len(after) - 2
        squares = sum((len(ratios) - 1) * _variance(ratios) for ratios in (before, after))
        moved = float(np.median(np.subtract.outer(after, before)))
        weight = 1.05**2 * (1 / len(before) + 1 / len(after))  # such a median has 1.05 times the error of a mean
        return cls(moved, squares / max(rounds, 1), rounds, weight)

    def error(self, typical: float) -> float:
        """The variance of `moved` for all that the rounds know, with a typical variance of rounds for the rest."""
        return self.weight * _mixed(self.variance, self.rounds, typical)


def _ratios(row: Row, above: str, below: str | None) -> np.ndarray[Any, Any]:
    return np.log(row.seconds[above]) - (np.log(row.seconds[below]) if below else 0)


def _variance(values: np.ndarray[Any, Any]) -> float:
    """From the quartiles, which lie nearer to each other in samples of 2, 3, 5 than in large ones."""
    if len(values) < 2:
        return 0
    low, high = np.quantile(values, [0.25, 0.75])
    return float((high - low) / 1.349 * (len(values) + 0.4) / (len(values) - 1)) ** 2


def _mixed(own: float, observations: int, typical: float) -> float:
    return (observations * own + _SUITE * typical) / (observations + _SUITE)


@dataclass(frozen=True, slots=True)
class _Evidence:
    """All that is known of one row: how ours moved against each common peer, and the peers against each other."""

    old: Row
    new: Row
    peers: Sequence[str]
    ours: Sequence[_Pair]
    between: Mapping[tuple[str, str], _Pair]

    @classmethod
    def of(cls, old: Row, new: Row, old_run: Run, new_run: Run) -> _Evidence:
        equal_work = (old.flops, old.bytes_moved) == (new.flops, new.bytes_moved)  # else the ceiling is another one
        peers = [
            name
            for name in (*old.peers, FLOOR)
            if name in old.seconds and name in new.seconds and name not in new.own
            if _is_unchanged(name, old_run, new_run) and (name != FLOOR or equal_work)
        ]
        ours = [_Pair.of(old, new, old.own[0], name) for name in peers]
        between = {names: _Pair.of(old, new, *names) for names in combinations(peers, 2)}
        return cls(old, new, peers, ours, between)

    def movement(self, noise: _Noise) -> Movement:
        ours = self.old.own[0]
        if self.peers:
            moved, variance = self._against_peers(noise)
        else:
            alone = _Pair.of(self.old, self.new, ours, None)
            moved, variance = alone.moved, alone.error(noise.rounds) + _MACHINE**2
        seconds = self.old.median(ours), self.new.median(ours)
        return Movement(self.old.key, math.exp(moved), math.sqrt(variance), tuple(self.peers), *seconds)

    def _against_peers(self, noise: _Noise) -> tuple[float, float]:
        """The movement and its variance: our own part, and the peers' part, less for there being several of them."""
        number = len(self.peers)
        shared = min(1, math.pi / 2 / number)  # the variance of a median of so many, to that of one
        moved = statistics.median(pair.moved for pair in self.ours)
        both = statistics.median(pair.error(noise.rounds) for pair in self.ours)
        peer = statistics.median([pair.error(noise.rounds) for pair in self.between.values()] or [both]) / 2
        ours = max(both / 2, both - peer)
        # 1.4826 times the median distance from the median is a standard deviation, whatever one of them does
        apart = (1.4826 * statistics.median(abs(pair.moved - moved) for pair in self.ours)) ** 2 - peer
        runs = _mixed(max(apart, noise.runs), number, noise.runs)
        return moved, ours + (both - ours) * shared + runs * (1 + shared)


@dataclass(frozen=True, slots=True)
class _Noise:
    """What is usual in the whole suite, as variances of logarithms."""

    rounds: float  # of a ratio of two calls, from round to round of a run
    runs: float  # of a call, from run to run, beyond what its rounds explain

    @classmethod
    def of(cls, evidence: Iterable[_Evidence]) -> _Noise:
        """Rounds: the median. Runs: what it takes for nine in ten pairs of peers to be as near as 90 % should be."""
        rows = list(evidence)
        seen = [pair.variance for row in rows for pair in (*row.ours, *row.between.values()) if pair.rounds]
        rounds = statistics.median(seen) if seen else _ROUNDS**2
        pairs = [
            (pair, usual) for name, usual in _usual(rows).items() for row in rows if (pair := row.between.get(name))
        ]
        needed = [(((pair.moved - usual) / 1.645) ** 2 - pair.error(rounds)) / 2 for pair, usual in pairs]
        runs = max(float(np.quantile(needed, 0.9)), 0) if needed else 0
        return cls(rounds, _mixed(runs, len(pairs), _RUNS**2))


def _usual(rows: Sequence[_Evidence]) -> dict[tuple[str, str], float]:
    """How far two peers moved against each other in most rows: a library that was hit in all of them is no scatter."""
    moved: dict[tuple[str, str], list[float]] = {}
    for row in rows:
        for names, pair in row.between.items():
            moved.setdefault(names, []).append(pair.moved)
    return {
        names: statistics.median(all_moved) if len(all_moved) >= _SUITE else 0 for names, all_moved in moved.items()
    }


# ---------------------------------------------------------------- text


def _titled(title: str, lines: Iterable[str]) -> list[str]:
    indented = [f"  {line}" for line in lines]
    return [title, *indented] if indented else []


def _named(title: str, keys: Sequence[str]) -> list[str]:
    """In one line: a run of a few rows leaves out a hundred."""
    return [f"{title} ({len(keys)}): {'; '.join(keys)}"] if keys else []


def _faults(faults: Mapping[str, str]) -> list[str]:
    return [f"{key}: {fault}" for key, fault in faults.items()]


def _line(moved: Movement) -> str:
    against = f"{len(moved.peers)} peers" if len(moved.peers) > 1 else "".join(moved.peers)
    against = f"against {against}" if against else "ABSOLUTE times, for want of a common peer"
    times = f"{seconds_text(moved.old)} -> {seconds_text(moved.new)}"
    noise = f"noise up to {_percent(moved.noise if moved.factor > 1 else 1 / moved.noise)}"
    return f"{moved.key:<44} {_percent(moved.factor):>8}  {noise:<18} {times}, {against}"


def _percent(factor: float) -> str:
    return f"{factor - 1:+.1%}"
