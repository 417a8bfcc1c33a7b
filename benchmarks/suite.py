"""The rows of the suite: what is measured, at which sizes on a CPU and on a GPU, and where each comes from.

Rows of one, two or three operands are a line each of `rows.csv`, whose columns are the fields of `Workload`; networks,
the 48 contractions of TCCG and the random pairs are made by modules of their own.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path

from benchmarks.networks import NETWORKS
from benchmarks.pairs import PAIRS
from benchmarks.tccg import TCCG
from benchmarks.workloads import Workload

FAMILIES = (
    *("GEMM", "batched GEMM", "attention", "TCCG: TTM", "TCCG: AO2MO", "TCCG: CCSD", "TCCG: CCSD(T)", "matrix-vector"),
    *("CP and Tucker", "bilinear", "convolution", "batched dots", "small matrices", "diagonals and traces"),
    *("permuted sums", "outer and Hadamard", "random pairs", "MPS and PEPS", "circuits", "tiny", "user reports"),
    "gradients",
)


def _read_rows() -> Iterator[Workload]:
    """The rows of `rows.csv` in each of their dtypes; "tf32" is float32 at that precision, on a GPU."""
    with (Path(__file__).parent / "rows.csv").open(newline="", encoding="utf-8") as file:
        for line in csv.DictReader(file, delimiter="|", skipinitialspace=True):
            fields = {name.strip(): text.strip() for name, text in line.items()}
            for dtype in fields.pop("dtypes").split():
                row = Workload(**fields)
                is_tf32 = dtype == "tf32"
                yield row.but(precision="tf32", where="cuda") if is_tf32 else row.but(dtype=dtype)


_ALL = sorted([*NETWORKS, *_read_rows(), *TCCG, *PAIRS], key=lambda row: FAMILIES.index(row.family))
EINSUMS = tuple(row for row in _ALL if row.family != "gradients")
GRADIENTS = tuple(row for row in _ALL if row.family == "gradients")
