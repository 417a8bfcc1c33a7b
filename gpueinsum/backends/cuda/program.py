"""A plan made ready for a device: a flat list of launches on memories known by number and offset; holds no array."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import NamedTuple

from gpueinsum.backends.cuda.source import THREADS, Kernel, Struct
from gpueinsum.language.subscripts import Shape
from gpueinsum.schedule.gemm import CONJUGATES, FULL_PRECISION, POINTERS, SINGLE, GemmArguments, reads_packs


class Address(NamedTuple):
    """A place in one of a program's memories: the operands', then the results', then the workspace."""

    memory: int
    offset: int  # bytes


# Kernels that others stand in for: `reduce` for sums and products of integers, `multiply` for copies, single calls of
# cuBLAS for those through pointers.
_NOT_PLAIN = {"reduce_columns", "reduce_rows", "transpose", "permute", "contract", "contract_small", "pointers"}


@dataclass(frozen=True, slots=True)
class Launch:
    """One launch of a kernel: its argument, where it reads and, last, where it writes.

    Strides alone decide about the kernel, its blocks and its argument; the addresses come later, by `at`.
    """

    kernel: Kernel
    blocks: int
    job: Struct
    addresses: tuple[Address, ...] = ()
    threads: int = THREADS  # of a block
    reads_packs: bool = False  # so its arrays must begin at multiples of 16 bytes

    def at(self, *addresses: Address) -> Launch:
        """The launch with these addresses."""
        return replace(self, addresses=addresses)

    @property
    def ways(self) -> tuple[str, ...]:
        """The kernel, if there is a plainer one; see those of a product."""
        return (f"kernel {self.kernel.name}",) if self.kernel.name in _NOT_PLAIN else ()

    def __str__(self) -> str:
        return f"{self.kernel.name}, {self.blocks} x {self.threads} threads"


@dataclass(frozen=True, slots=True)
class Product:
    """One cuBLAS call on A, B and C, whose addresses these are.

    A call `by_pointers` takes three arrays of pointers, to every A, every B and every C, which a kernel wrote before.
    Its addresses are those of the three arrays, then those of the memories that hold A, B and C.
    """

    gemm: GemmArguments
    dtype: str
    precision: str | None
    addresses: tuple[Address, ...]
    by_pointers: bool = False
    single: bool = False  # by cublasGemmEx, else a batch

    @property
    def reads_packs(self) -> bool:
        return self.by_pointers and reads_packs(self.dtype, self.precision)

    @property
    def ways(self) -> tuple[str, ...]:
        """What of it a device may refuse and a plainer product does without, as `Profile.lacks` lists it."""
        gemm = self.gemm
        marks = {
            POINTERS: self.by_pointers,
            CONJUGATES: gemm.conjugate_a or gemm.conjugate_b,
            f"precision {self.precision}": self.precision not in FULL_PRECISION,
            SINGLE: self.single,
        }
        return tuple([f"{way} of {self.dtype}" for way, is_used in marks.items() if is_used])

    def __str__(self) -> str:
        gemm = self.gemm
        a, b = (
            ("T" if transposed else "N") + "*" * conjugated
            for transposed, conjugated in ((gemm.transpose_a, gemm.conjugate_a), (gemm.transpose_b, gemm.conjugate_b))
        )
        batch, adds = "" if self.single else f"{gemm.batch} of ", ", added" if gemm.accumulate else ""
        how = ", by pointers" if self.by_pointers else ""
        return f"gemm {a}{b}, {batch}{gemm.m} x {gemm.n} x {gemm.k}{adds}{how}"


Work = Launch | Product


class Span(NamedTuple):
    """The memory of an operand: bytes before its first element, bytes in all, and those that are elements."""

    before: int
    bytes: int
    elements_bytes: int


class Output(NamedTuple):
    """An array that a program gives: where it begins, its shape and its strides in bytes."""

    memory: int
    shape: Shape
    strides: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Program:
    """Work in order, for operands of certain strides; all memory is taken at once, and its bytes are known before.

    All work runs on the caller's stream. An output lies in a result's memory, or in an operand's, of which it is a
    view. Printed, each launch is a line: `%0` is an operand, `r0` a result, `w+512` a place in the workspace.
    """

    work: tuple[Work, ...]
    operands: tuple[Span, ...]
    results: tuple[int, ...]  # bytes of each
    workspace: int  # bytes
    outputs: tuple[Output, ...]
    dtype: str
    ends: tuple[int, ...]  # of each step: how much of the work is done with it

    @property
    def bytes(self) -> int:
        """What a run takes beside its operands."""
        return self.workspace + sum(self.results)

    @property
    def packed_operands(self) -> tuple[int, ...]:
        """The operands that work reads in packs of 16 bytes, so that they must begin at one."""
        memories = {memory for work in self.work if work.reads_packs for memory, _ in work.addresses}
        return tuple([number for number in range(len(self.operands)) if number in memories])

    def __str__(self) -> str:
        first, last = len(self.operands), len(self.operands) + len(self.results)

        def named(address: Address) -> str:
            memory, offset = address
            if memory == last:
                return f"w+{offset}"
            name = f"%{memory}" if memory < first else f"r{memory - first}"
            return f"{name}+{offset}" if offset else name

        taken = f"{self.workspace} bytes of workspace, {sum(self.results)} of results"
        lines = [f"{self.dtype}, {len(self.work)} launches, {taken}"]
        for work in self.work:
            *sources, out = map(named, work.addresses)
            lines.append(f"  {out} = {work}  of {', '.join(sources)}")
        return "\n".join(lines)
