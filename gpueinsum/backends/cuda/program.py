"""A plan made ready for a device: a flat list of launches on memory known by number and offset; holds no array."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from gpueinsum.backends.cuda.source import Kernel, Struct
from gpueinsum.language.subscripts import Shape
from gpueinsum.schedule.gemm import Gemm, reads_packs


class Address(NamedTuple):
    """A place in one of a program's memories: the operands', then the results', then the workspace."""

    memory: int
    offset: int  # bytes


@dataclass(frozen=True, slots=True)
class Launch:
    """One kernel: what it is to do, where it reads and, last, where it writes."""

    kernel: Kernel
    blocks: int
    threads: int
    job: Struct
    addresses: tuple[Address, ...]

    def __str__(self) -> str:
        return f"{self.kernel.name}, {self.blocks} x {self.threads} threads"


@dataclass(frozen=True, slots=True)
class Product:
    """One cuBLAS call, on A, B and C."""

    gemm: Gemm
    dtype: str
    precision: str | None
    addresses: tuple[Address, Address, Address]

    def __str__(self) -> str:
        return _text(self.gemm)


@dataclass(frozen=True, slots=True)
class PointerProduct:
    """One cuBLAS call on arrays of pointers to every A, every B and every C, which a kernel wrote before.

    Its addresses are those three arrays', and those of the memories that A, B and C lie in.
    """

    gemm: Gemm  # without strides
    dtype: str
    precision: str | None
    addresses: tuple[Address, ...]

    @property
    def reads_packs(self) -> bool:
        return reads_packs(self.dtype, self.precision)

    def __str__(self) -> str:
        return f"{_text(self.gemm)}, by pointers"


def _text(gemm: Gemm) -> str:
    a, b = (
        ("T" if transposed else "N") + "*" * conjugated
        for transposed, conjugated in ((gemm.transpose_a, gemm.conjugate_a), (gemm.transpose_b, gemm.conjugate_b))
    )
    batch, adds = f"{gemm.batch} of " if gemm.batch > 1 else "", ", added" if gemm.accumulate else ""
    return f"gemm {a}{b}, {batch}{gemm.m} x {gemm.n} x {gemm.k}{adds}"


Work = Launch | Product | PointerProduct


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

    @property
    def bytes(self) -> int:
        """What a run takes beside its operands."""
        return self.workspace + sum(self.results)

    @property
    def packed_operands(self) -> tuple[int, ...]:
        """The operands that cuBLAS reads in packs through pointers, so that they must begin at one."""
        products = [work for work in self.work if isinstance(work, PointerProduct)]
        memories = {memory for work in products if work.reads_packs for memory, _ in work.addresses}
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
