"""Rows of measurements as tables of Markdown, and as JSON with the device and the versions that they are of."""

from __future__ import annotations

import json
import platform
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any, TypeVar

import gpueinsum as ge
from benchmarks.devices import device
from gpueinsum.files import write_text

Row = TypeVar("Row")
Columns = Mapping[str, Callable[[Row], str]]  # each column's title, and its cell of a row

_LIBRARIES = "opt_einsum", "cotengra", "kahypar"


def show(columns: Columns[Row], rows: Iterable[Row]) -> list[Row]:
    """The rows; the table is printed line by line as they come."""
    found: list[Row] = []

    def keep() -> Iterator[Row]:
        for row in rows:
            found.append(row)
            yield row

    for line in table(columns, keep()):
        print(line, flush=True)
    print()
    return found


def table(columns: Columns[Row], rows: Iterable[Row]) -> Iterator[str]:
    """The lines."""
    yield f"| {' | '.join(columns)} |"
    yield f"| --- |{' ---: |' * (len(columns) - 1)}"
    for row in rows:
        yield f"| {' | '.join(cell(row) for cell in columns.values())} |"


def write(path: Path, schema: str, tables: Mapping[str, Sequence[Any]]) -> None:
    """Keep the rows of some tables, which are dataclasses."""
    place = device("cpu")
    versions = {"python": platform.python_version(), "gpueinsum": ge.__version__} | place.versions()
    versions |= {name: version(name) for name in _LIBRARIES if find_spec(name)}
    facts = {"schema": schema, "date": time.strftime("%Y-%m-%d"), "device": place.facts(), "versions": versions}
    rows = {name: [asdict(row) for row in table] for name, table in tables.items()}
    write_text(path, json.dumps(facts | rows, indent=1, ensure_ascii=False) + "\n")
