"""A run in, pandas frames out: a line for each row with its figures, and a line for each family with its means."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from benchmarks.results import Row, Run
from benchmarks.units import percent_text, ratio_text

# What one calls without another framework: numpy's (CuPy's) own einsum, and the path optimizers on top of it.
LIBRARY = {
    "cpu": ("numpy", "numpy optimized", "opt_einsum", "cotengra"),
    "cuda": ("cupy", "cupy cutensor", "opt_einsum", "cotengra"),
}
_COLUMNS = ["row", "family", "name", "type", "best", "low", "lead", "high", "library", "share", "outcome"]


def library(run: Run) -> tuple[str, ...]:
    """The peers that use nothing but numpy, or CuPy on CUDA."""
    return LIBRARY[run.device.get("kind", "cpu")]


def rows_frame(run: Run) -> pd.DataFrame:
    """The figures of each row; `lead` and `library` are the best peer's time over gpueinsum's, NaN where there is none.

    `best` is the best peer's name, `low` and `high` are the lead's quartiles, `row` is the `Row`.
    """
    return pd.DataFrame([_figures(row, library(run)) for row in run.rows], columns=_COLUMNS)


def _figures(row: Row, among: tuple[str, ...]) -> tuple[object, ...]:
    lead, beside, share = row.lead(), row.lead(among), row.share
    quartiles = lead or (np.nan, np.nan, np.nan)
    ratios = (*quartiles, beside.median if beside else np.nan, share.median if share else np.nan)
    return (row, row.family, row.name, row.type, row.best(), *ratios, row.outcome)


def families_frame(run: Run) -> pd.DataFrame:
    """The figures of each family, in the order of the rows; the line "all" is last.

    `lead` and `library` are geometric means over the rows that have such a peer, `compared` and `beside` the numbers of
    these rows; `share` is a median.
    """
    rows = rows_frame(run)
    twice = pd.concat([rows, rows.assign(family="all")])
    found = twice.assign(lead=np.log(twice["lead"]), library=np.log(twice["library"])).groupby("family", sort=False)
    families = found.agg(
        rows=("row", "size"),
        lead=("lead", "mean"),
        compared=("lead", "count"),
        library=("library", "mean"),
        beside=("library", "count"),
        share=("share", "median"),
        **{state: ("outcome", lambda states, state=state: (states == state).sum()) for state in _STATES},
    )
    if not len(rows):
        families.loc["all"] = [0, np.nan, 0, np.nan, 0, np.nan, *[0] * len(_STATES)]
    means = {name: np.exp(families[name]) for name in ("lead", "library")}
    return families.assign(**means).astype(dict.fromkeys(("rows", "compared", "beside", *_STATES), int))


_STATES = ("won", "even", "lost", "wrong", "alone")


def family_table(run: Run) -> str:
    """Markdown: a line for each family, and one for all."""
    beside = f"best of {', '.join(library(run))} ÷ gpueinsum"
    titles = ("family", "rows", "best peer ÷ gpueinsum", beside, "lost beyond noise", "share of the ceiling")
    lines = [titles, ("---", *["---:"] * (len(titles) - 1))]
    for found in families_frame(run).itertuples():
        name = "**all**" if found.Index == "all" else found.Index.replace("|", "\\|")
        lines.append((name, *family_figures(found)))
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def family_figures(found: Any) -> tuple[str, str, str, str, str]:
    """A family's figures as texts: rows, both means, rows lost, share of the ceiling."""
    beside = "1 row" if found.beside == 1 else f"{found.beside} rows"
    fewer = f" ({beside})" if 0 < found.beside < found.compared else ""
    lost = f"{found.lost} of {found.won + found.even + found.lost}{f', {found.wrong} wrong' if found.wrong else ''}"
    means = ratio_text(found.lead), ratio_text(found.library) + fewer
    return str(found.rows), *means, lost, percent_text(found.share)
