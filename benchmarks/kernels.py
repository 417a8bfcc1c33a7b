"""`python -m benchmarks.kernels`: what each class of kernel should reach on an H200, by counts and not by a clock.

Three limits are set against a copy's bytes a cycle, each by what the machine code or the kernel itself shows:

- latency: bytes that resident threads load before they need any, or come to a barrier, over the cycles that this takes;
- sectors of 32 bytes that are fetched, against those that the bytes fill (`tests/simulated/sectors.py`);
- sectors that warps touch, at most two a cycle.

Instructions are not counted, so embedded diagonals, which they bind, are not here; they bind products by tiles, too.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.cubin import loads_under_way, resources
from benchmarks.units import DASH, percent_text
from benchmarks.workloads import Workload, numpy_dtype
from gpueinsum.api.arguments import Options
from gpueinsum.api.plans import plan_for
from gpueinsum.backends.cuda.geometry import Source
from gpueinsum.backends.cuda.lower import assemble
from gpueinsum.backends.cuda.program import Address, Program, Span
from gpueinsum.backends.cuda.source import THREADS, compile_text, kernel_text
from gpueinsum.backends.cuda.sums import sum_products
from gpueinsum.costs.profile import profile
from gpueinsum.schedule.problem import c_strides
from gpueinsum.schedule.schedule import schedule

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from simulated import sectors  # the counter of sectors belongs to the tests

_COPY = 16.5  # bytes a cycle and multiprocessor: 4.3 TB/s, 132 multiprocessors at 1.98 GHz
_LATENCY = 1000  # cycles from a load to its data while memory is busy; a guess
# Cycles from the last load before a barrier to the next: trees of sums, and finding the next row. By simulated rates of
# sums of 1024 and 256 and of dots of 128 floats, 0.37, 0.43 and 0.60 of a copy: 1700, 1300 and 1500.
_BETWEEN = 1500
_TOUCHES = 64  # bytes a cycle: two sectors that the first cache serves or asks for
_SHARED_MEMORY = 228 << 10  # bytes of a multiprocessor
_SMALL = 0.02  # of a program's sectors: launches that touch fewer are left out

CLASSES = (  # name, equation, sizes, dtypes
    ("strided copy", "ijk->jik", "i=512 j=256 k=1024", "float32 float16 uint8"),
    ("transpose", "ij->ji", "i=16384 j=16384", "float32 float16 uint8 complex64"),
    ("copy of short axes", "abcdefgh->hgfedcba", "a=8 b=8 c=8 d=8 e=8 f=8 g=8 h=8", "complex64"),
    ("Hadamard product", "ij,ij->ij", "i=16384 j=8192", "float32 float16 uint8"),
    ("map without packs", "ij,j->ij", "i=16384 j=8191", "float32"),
    ("outer product", "i,j->ij", "i=16384 j=16384", "float64"),
    ("across", "ij,ji->ij", "i=8192 j=7168", "float32"),
    ("across, to rows", "ij,ji->i", "i=16384 j=14336", "float32"),
    ("across, to a number", "ij,ji->", "i=8192 j=7168", "float64"),
    ("sum of long rows", "ij->i", "i=4096 j=65536", "float32 float16"),
    ("sum of rows", "ij->i", "i=262144 j=1024", "float32 float16"),
    ("sum of short rows", "ij->i", "i=8388608 j=23", "float32"),
    ("dots of rows", "bi,bi->b", "b=2097152 i=128", "float32"),
    ("dots of three", "bc,bc->b", "b=67108864 c=3", "float32"),
    ("sum and transpose", "ijkl->lj", "i=160 j=144 k=128 l=112", "float64"),
    ("sum of two axes", "bchw->c", "b=2048 c=2048 h=7 w=7", "float32"),
    ("exchange matrix", "prqs,rs->pq", "p=112 q=112 r=112 s=112", "float64"),
    ("sum of leading axes", "ijk->k", "i=1024 j=1024 k=512", "float32"),
    ("few narrow columns", "ij->j", "i=10000000 j=4", "float32"),
    ("gate", "ij,ajb->aib", "i=4 j=4 a=4096 b=8192", "float32 complex64"),
    ("gate, any order", "abf,eadcb->cfde", "a=2 b=5 c=16777216 d=2 e=3 f=2", "float32"),
    ("long sum of products", "ab,ac->bc", "a=335544320 b=2 c=3", "float32"),
)


class Reach(NamedTuple):
    """One launch of a class: what it uses, and the share of a copy's rate that its limits leave."""

    registers: int
    threads: int  # resident on a multiprocessor
    under_way: int  # bytes of loads on a multiprocessor
    counted: Any

    @property
    def share(self) -> float:
        loads, stores = self.counted.loads, self.counted.stores
        needed, touched = loads.needed + stores.needed, loads.touched + stores.touched
        return min(
            1.0,
            self.loaded / (_COPY * loads.needed / needed) if loads.needed else 1.0,
            (loads.distinct + stores.distinct) / (loads.fetched + stores.fetched),
            _TOUCHES / _COPY * needed / touched,
        )

    @property
    def loaded(self) -> float:
        """Bytes a cycle that a multiprocessor loads, by what its threads wait for."""
        bytes_loaded = self.threads * self.counted.stretch
        return bytes_loaded / (bytes_loaded / self.under_way * _LATENCY + _BETWEEN)


def main() -> int:
    """Prints the table as Markdown."""
    titles = "class", "type", "kernel", "registers, blocks", "under way", "stretch", "loads", "stores", "share"
    print(f"| {' | '.join(titles)} |\n|{'---|' * len(titles)}")
    for name, equation, sizes, dtypes in CLASSES:
        for dtype in dtypes.split():
            for reach in reaches(Workload("", name, equation, sizes, "", dtype)):
                print(_line(name, equation, dtype, reach), flush=True)
    return 0


def _line(name: str, equation: str, dtype: str, reach: Reach) -> str:
    counted = reach.counted
    sectors_of = (
        f"{percent_text(found.efficiency)}, {percent_text(found.efficiency_behind_cache)}" if found.touched else DASH
        for found in (counted.loads, counted.stores)
    )
    kernel, used = counted.entry.removeprefix("gpueinsum_"), f"{reach.registers}, {reach.threads // THREADS}"
    under_way, stretch = f"{reach.under_way >> 10} KB", f"{counted.stretch:.0f}"
    cells = f"{name}, `{equation}`", dtype, kernel, used, under_way, stretch, *sectors_of, percent_text(reach.share)
    return f"| {' | '.join(cells)} |"


def reaches(row: Workload) -> Iterator[Reach]:
    """The launches of a row that move what counts."""
    found = sectors.count_program(_program(row), blocks=1)
    touched = [launch.blocks * (counted.loads.touched + counted.stores.touched) for launch, counted in found]
    for (launch, counted), own in zip(found, touched, strict=True):
        if own > _SMALL * sum(touched):
            cubin = compile_text(kernel_text(launch.kernel), "sm_90")
            [used] = resources(cubin).values()
            threads = used.blocks(launch.threads, _SHARED_MEMORY) * launch.threads
            under_way = threads * min(loads_under_way(cubin, counted.loads.widest), counted.stretch)
            yield Reach(used.registers, threads, int(under_way), counted)


def _program(row: Workload) -> Program:
    """What an H200 runs for a row; for a permutation, which is a view to a plan, the copy."""
    device, dtype = profile("h200"), numpy_dtype(row.dtype)
    *terms, out = row.terms
    if [sorted(term) for term in terms] != [sorted(out)]:
        return assemble(schedule(plan_for(row.equation, row.shapes, dtype, Options(dtype), device), device))
    [term], size = terms, row.size
    nbytes = row.points * dtype.itemsize
    source = Source(term, c_strides(term, size))
    copy = sum_products((source,), out, tuple(sorted(size.items())), row.dtype, device.processors).first
    places = Address(0, 0), Address(1, 0)
    return Program((copy.at(*places),), (Span(0, nbytes, nbytes),), (nbytes,), 0, (), row.dtype, (1,))


if __name__ == "__main__":
    sys.exit(main())
