"""`python -m benchmarks.orders`: how good the orders are that searches find in so many seconds; needs no GPU.

An order's price is the seconds that a profile predicts for its pairs. Each search runs on one core; gpueinsum's runs
once for each profile, since it searches by price, the others once, since they search by flops.
"""

from __future__ import annotations

import argparse
import json
import math
import platform
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path as File

import opt_einsum

from benchmarks.devices import device
from benchmarks.instances import Instance, circuit, lattice, peps, regular_graph
from gpueinsum.costs.counts import total_flops
from gpueinsum.costs.profile import Profile, profile
from gpueinsum.costs.seconds import pair_seconds
from gpueinsum.files import write_text
from gpueinsum.language.plan import Plan
from gpueinsum.language.steps import Contract
from gpueinsum.language.strides import points
from gpueinsum.language.subscripts import Subscripts, parse
from gpueinsum.planning.lower import lower
from gpueinsum.planning.path import Path
from gpueinsum.planning.search import cheapest_plan
from gpueinsum.text import count_text, seconds_text

SCHEMA = "gpueinsum-orders/1"
INSTANCES: tuple[Callable[[], Instance], ...] = (
    lambda: circuit(5, 6, 12),
    lambda: circuit(6, 6, 12),
    lambda: lattice(12, 12),
    lambda: regular_graph(120, 2),
    lambda: peps(8, 8, 4),
)
PROFILES, SECONDS = ("cpu", "h200"), (1.0, 3.0, 10.0, 30.0)
OURS, PEER = "gpueinsum", "cotengra"


@dataclass(frozen=True, slots=True)
class Found:
    """What a search found for an instance: its price on a device, and what the search itself took."""

    instance: str
    operands: int
    profile: str
    search: str
    wanted: float | None  # seconds that the search was given
    taken: float  # seconds
    predicted: float  # seconds of one run
    flops: int


def main(arguments: Sequence[str] | None = None) -> int:
    """A line for each search, then a table of means. 0."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.orders", description=__doc__)
    parser.add_argument("--seconds", nargs="+", type=float, default=SECONDS, metavar="N", help="of each search")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="instances whose names begin so")
    parser.add_argument("--out", type=File, metavar="FILE.json", help="keep what was found")
    parser.add_argument("--read", type=File, metavar="FILE.json", help="search for nothing: take what was kept")
    options = parser.parse_args(arguments)
    if options.read:
        kept = json.loads(options.read.read_text(encoding="utf-8"))["found"]
        print(means([Found(**each) for each in kept]))
        return 0
    found = []
    for make in INSTANCES:
        instance = make()
        if not options.only or instance.name.startswith(tuple(options.only)):
            for each in search(instance, options.seconds):
                print(line(each), flush=True)
                found.append(each)
    print("\n" + means(found))
    if options.out:
        place = device("cpu")
        versions = {name: version(name) for name in ("opt_einsum", PEER, "kahypar", "cotengrust") if find_spec(name)}
        facts = {"schema": SCHEMA, "date": time.strftime("%Y-%m-%d"), "device": place.facts()}
        facts["versions"] = {"python": platform.python_version()} | versions
        write_text(options.out, json.dumps(facts | {"found": [asdict(each) for each in found]}, indent=1) + "\n")
    return 0


def search(instance: Instance, seconds: Sequence[float]) -> Iterator[Found]:
    """What all searches find: opt_einsum's that need no time to be given, and the others in these seconds."""
    dtype = instance.operands[0].dtype.name
    subscripts = parse(instance.equation, instance.shapes)
    size = dict(subscripts.sizes)

    def report(name: str, wanted: float | None, find: Callable[[], Plan], profiles: Sequence[str]) -> Iterator[Found]:
        begin = time.perf_counter()
        plan = find()
        taken = time.perf_counter() - begin
        for each in profiles:
            price, network = predicted(plan, profile(each)), (instance.name, len(instance.operands))
            yield Found(*network, each, name, wanted, taken, price, total_flops(plan))

    def by_path(find: Callable[..., Path]) -> Callable[[], Plan]:
        return lambda: lower(subscripts, lambda inputs, output: find(inputs, output, size), dtype)

    for name in ("greedy", "random-greedy-128"):
        optimizer = opt_einsum.paths.get_path_fn(name)
        yield from report(name, None, by_path(lambda x, y, z, found=optimizer: found(*_sets(x, y), z)), PROFILES)
    for wanted in seconds:
        for each in PROFILES:
            yield from report(OURS, wanted, lambda: _ours(subscripts, dtype, profile(each), wanted), [each])  # noqa: B023
        if find_spec(PEER):
            yield from report(PEER, wanted, by_path(lambda x, y, z: _cotengra(x, y, z, wanted)), PROFILES)  # noqa: B023


def _sets(inputs: Sequence[str], output: str) -> tuple[list[frozenset[str]], frozenset[str]]:
    return [frozenset(term) for term in inputs], frozenset(output)


def _ours(subscripts: Subscripts, dtype: str, on: Profile, wanted: float) -> Plan:
    return cheapest_plan(subscripts, dtype, on, lambda plan: predicted(plan, on), search_seconds=wanted)


def _cotengra(inputs: Sequence[str], output: str, size: dict[str, int], wanted: float) -> Path:
    """By its default `HyperOptimizer`, as long as that is given the time."""
    import cotengra

    optimizer = cotengra.HyperOptimizer(max_time=wanted, max_repeats=10**6, parallel=False)
    return tuple(optimizer.search([*map(tuple, inputs)], tuple(output), size).get_path())


def predicted(plan: Plan, on: Profile) -> float:
    """Seconds of the plan's pairs, of sides that lie as they want them."""
    size = dict(plan.sizes)
    pairs = [step for step in plan.steps if isinstance(step, Contract)]
    roles = [(step.batch, step.left, step.right, step.summed) for step in pairs]
    return sum(pair_seconds(on, plan.dtype, *[points(labels, size) for labels in each]) for each in roles)


def line(found: Found) -> str:
    """One search, for the terminal."""
    given = "" if found.wanted is None else f"{found.wanted:g} s"
    figures = f"{found.taken:.1f} s", seconds_text(found.predicted), count_text(found.flops)
    return "{:<26} {:>4}  {:<5} {:<18}{:>5} {:>8} {:>9} {:>8}".format(
        found.instance, found.operands, found.profile, found.search, given, *figures
    )


def means(found: Sequence[Found]) -> str:
    """Markdown: geometric means over the instances of each search's price over gpueinsum's, by profile and time.

    A search that is given a time counts with the best that it found in that or less.
    """
    names = [name for name in ("greedy", "random-greedy-128", PEER) if any(each.search == name for each in found)]
    lines = [f"| profile | seconds | {' | '.join(f'{name} ÷ {OURS}' for name in names)} |"]
    lines.append("| --- | ---: |" + " ---: |" * len(names))
    for on, wanted in dict.fromkeys((each.profile, each.wanted) for each in found if each.wanted):
        best: dict[tuple[str, str], float] = {}
        for each in found:
            if each.profile == on and (each.wanted or 0.0) <= wanted:
                key = each.search, each.instance
                best[key] = min(best.get(key, math.inf), each.predicted)
        own = {instance: price for (name, instance), price in best.items() if name == OURS}
        ratios = ([math.log(best[name, instance] / price) for instance, price in own.items()] for name in names)
        cells = [f"{math.exp(statistics.fmean(logs)):,.3g}" for logs in ratios]
        lines.append(f"| {on} | {wanted:g} | {' | '.join(cells)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
