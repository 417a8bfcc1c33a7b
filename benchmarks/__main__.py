"""`python -m benchmarks`: how fast gpueinsum is beside all one could use instead, and beside the machine's limits."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from benchmarks import compare, page, plot, results
from benchmarks import run as suite
from benchmarks.devices import THREADS, device
from benchmarks.results import ResultsError, Run
from benchmarks.table import heading, line, summary
from gpueinsum.errors import DeviceError


def main(arguments: Sequence[str] | None = None) -> int:
    """0; 1 if a result of ours was wrong or, compared with an older run, lost; 2 if it cannot be done."""
    options = _parser().parse_args(arguments)
    try:
        old = results.read(options.compare) if options.compare else None  # before anything is measured
        found = results.read(options.read) if options.read else _measured(options)
        print("\n" + summary(found))
        if options.out:
            write(found, options.out)
        moved = compare.compare(old, found) if old else None
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
    parser.add_argument("--backend", choices=["cpu", "cuda"], help="a GPU where one can be used, if not given")
    parser.add_argument("--quick", action="store_true", help="fewer rounds and no large rows: a look, no measurement")
    parser.add_argument(
        "--only",
        nargs="+",
        metavar="NAME",
        type=suite.named,
        help=f"rows or families; of {', '.join(suite.FAMILIES)}",
    )
    parser.add_argument("--out", type=Path, metavar="DIR", help="leave JSON, plots and a page in this folder")
    parser.add_argument("--minutes", type=float, metavar="N", help="begin no further row after so many minutes")
    parser.add_argument("--compare", type=Path, metavar="OLD.json", help="say what moved since, beyond noise")
    parser.add_argument("--read", type=Path, metavar="RUN.json", help="measure nothing: show what this run measured")
    parser.add_argument("--tiny", action="store_true", help="smallest sizes: shows only that everything runs")
    return parser


def _measured(options: argparse.Namespace) -> Run:
    """Everything that is asked for, a line for each row as it comes; with `--out` the JSON is kept up to date."""
    place = device(options.backend)
    rows = suite.rows_of(place, options.only, options.quick, options.tiny)
    print(heading(place.facts()))
    if find_spec("ml_dtypes") is None:
        print("bfloat16 is left out: ml_dtypes is not installed (pip install 'gpueinsum[bench]')")
    with _bar(len(rows)) as bar:
        for found in suite.run(place, rows, options.quick, options.tiny, options.minutes, bar.set_description):
            bar.write(line(found.rows[-1]))
            bar.update()
            if options.out:
                results.write(found, path_in(options.out, found, ".json"))
    return found


def _bar(total: int) -> Any:
    """tqdm's, on the error stream; where it is not installed, lines alone."""
    try:
        from tqdm import tqdm
    except ImportError:
        return _NoBar()
    return tqdm(total=total, unit="row", dynamic_ncols=True, smoothing=0.1, disable=None)  # None: without a terminal


class _NoBar:
    def __enter__(self) -> _NoBar:
        return self

    def __exit__(self, *error: object) -> None:
        pass

    def write(self, text: str) -> None:
        print(text, flush=True)

    def update(self) -> None:
        pass

    def set_description(self, text: str) -> None:
        pass


def write(run: Run, directory: Path) -> None:
    """JSON first; then the plots, if there is matplotlib, and the page."""
    path = path_in(directory, run, ".json")
    results.write(run, path)
    print(f"\nwritten: {path}")
    try:
        plots = plot.write_plots(run, directory, path.stem)
    except ImportError as error:
        print(f"no plots: {error} (pip install 'gpueinsum[bench]')")
        plots = []
    html = path.with_suffix(".html")
    page.write_page(run, {plot.stem: plot.read_text("utf-8") for plot in plots if plot.suffix == ".svg"}, html)
    for written in [*plots, html]:
        print(f"written: {written}")


def path_in(directory: Path, run: Run, suffix: str) -> Path:
    """A file of this run in the folder, which is made: `cpu-2026-11-22.json`."""
    directory.mkdir(parents=True, exist_ok=True)
    return directory / f"{_slug(run)}-{run.date[:10]}{suffix}"


def _slug(run: Run) -> str:
    """ "cpu", or the GPU's name without its maker's: "h200"."""
    if run.device["kind"] == "cpu":
        return "cpu"
    return "-".join(word for word in str(run.device["name"]).lower().split() if word not in ("nvidia", "tesla"))


if __name__ == "__main__":
    sys.exit(main())
