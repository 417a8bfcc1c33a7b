"""`python -m benchmarks`: how fast gpueinsum is, beside its peers and beside the machine's limits."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

from benchmarks import results
from benchmarks import run as suite
from benchmarks.devices import THREADS, device
from benchmarks.peers import PEERS
from benchmarks.results import ResultsError, Run
from benchmarks.table import heading, line, summary
from gpueinsum.errors import DeviceError
from gpueinsum.files import write_text

_NEEDED = "jinja2", "matplotlib", "pandas"  # by what is made of a run; a run itself needs none of them


def main(arguments: Sequence[str] | None = None) -> int:
    """0; 1 if a result of gpueinsum is wrong or, compared with an older run, a loss; 2 if it cannot be done."""
    options = _parser().parse_args(arguments)
    draws = options.out is not None and not _is_file(options.out)
    if missing := [name for name in _NEEDED if find_spec(name) is None]:
        without = f"without {', '.join(missing)} (pip install 'gpueinsum[bench]')"
        if options.read or options.compare or draws:
            print(f"python -m benchmarks: no page, plots or comparison {without}", file=sys.stderr)
            return 2
    try:
        old = results.read(options.compare) if options.compare else None  # before anything is measured
        found = results.read(options.read) if options.read else _measured(options)
        print(f"\nno summary {without}" if missing else "\n" + summary(found))
        if draws:
            write(found, options.out)
        moved = None
        if old:
            from benchmarks.compare import compare  # which needs pandas

            moved = compare(old, found)
    except (DeviceError, ResultsError) as error:
        print(f"python -m benchmarks: {error}", file=sys.stderr)
        return 2
    if moved:
        print("\n" + moved.text())
    return int(found.is_wrong or bool(moved and moved.losses))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description=__doc__,
        epilog=f"Threads: {THREADS} in the environment, for every library alike; without it all cores.",
    )
    parser.add_argument("--backend", choices=["cpu", "cuda"], help="without it a GPU where one can be used")
    parser.add_argument("--quick", action="store_true", help="fewer rounds and no large rows: a look, no measurement")
    parser.add_argument(
        "--only",
        nargs="+",
        metavar="NAME",
        type=suite.named,
        help=f"rows or families, in this order; of {', '.join(suite.FAMILIES)}",
    )
    parser.add_argument(
        "--peers", nargs="+", metavar="NAME", choices=PEERS, help=f"beside these alone, not all of {', '.join(PEERS)}"
    )
    parser.add_argument(
        "--out", type=Path, metavar="PATH", help="leave JSON, plots and a page in this folder; of FILE.json only that"
    )
    parser.add_argument("--minutes", type=float, metavar="N", help="begin no further row after so many minutes")
    parser.add_argument("--compare", type=Path, metavar="OLD.json", help="what moved since; exit status 1 for a loss")
    parser.add_argument("--read", type=Path, metavar="RUN.json", help="measure nothing: show what this run measured")
    parser.add_argument("--tiny", action="store_true", help="smallest sizes: shows only that everything runs")
    return parser


def _measured(options: argparse.Namespace) -> Run:
    """Everything that is asked for, a line for each row as it comes; with `--out` the JSON is kept up to date."""
    place = device(options.backend)
    rows = suite.rows_of(place, options.only, options.quick, options.tiny)
    print(heading(place.facts()), flush=True)
    for found in suite.run(place, rows, options.quick, options.tiny, options.minutes, options.peers):
        print(line(found.rows[-1]), flush=True)
        if options.out:
            results.write(found, options.out if _is_file(options.out) else options.out / f"{stem(found)}.json")
    return found


def _is_file(path: Path) -> bool:
    return path.suffix == ".json"


def write(run: Run, directory: Path) -> None:
    """Write a run's JSON, then its plots and its page."""
    from benchmarks.page import page
    from benchmarks.plot import write_plots

    path = directory / f"{stem(run)}.json"
    results.write(run, path)
    plots = write_plots(run, directory, path.stem)
    svgs = {plot.stem: plot.read_text("utf-8") for plot in plots if plot.suffix == ".svg"}
    write_text(path.with_suffix(".html"), page(run, svgs))
    for written in [path, *plots, path.with_suffix(".html")]:
        print(f"written: {written}")


def stem(run: Run) -> str:
    """The name of a run's files: `cpu-2026-11-30`, or the GPU's name without its maker's, `h200-2026-11-30`."""
    name = "cpu" if run.device["kind"] == "cpu" else str(run.device["name"]).lower()
    words = [word for word in name.split() if word not in ("nvidia", "tesla")]
    return "-".join([*words, run.date[:10]])


if __name__ == "__main__":
    sys.exit(main())
