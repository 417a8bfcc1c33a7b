"""From a kernel's name and element types to its CUDA text, its arguments and its machine code."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import numpy as np
import numpy.typing as npt

from gpueinsum.language.plan import HALVES

MAX_LOOPS = 64  # as in kernels/loops.cuh: numpy's 64 axes
_LONGEST_ROW = 1 << 30  # of the terms that kernels/sums.cuh counts in 32 bits
THREADS = 256  # of a block, as MAX_THREADS in kernels/loops.cuh
MAX_OPERANDS = 4  # of one kernel: with more, its loops would not fit the 4 KiB of arguments that every driver takes
_SHARED = "types.cuh", "loops.cuh", "packs.cuh", "sums.cuh", "maps.cuh"  # what every kernel's text begins with

CUDA_TYPES = {  # signed integers are absent: their kernels are the unsigned ones, bit for bit
    "bool": "bool_t",
    "uint8": "unsigned char",
    "uint16": "unsigned short",
    "uint32": "unsigned int",
    "uint64": "unsigned long long",
    "float16": "half_t",
    "bfloat16": "bfloat16_t",
    "float32": "float",
    "float64": "double",
    "complex64": "complex_t<float>",
    "complex128": "complex_t<double>",
}


@dataclass(frozen=True, slots=True)
class Kernel:
    """One specialisation of a file in kernels/: what it reads, how many arrays, and what it writes.

    The types are named as numpy names them. Every kernel takes a struct by value, then the addresses of the arrays that
    it reads, then that of the one it writes.

    >>> Kernel("reduce", "float16", "float32", operands=2).entry
    'gpueinsum_reduce_2_float16_float32'
    """

    name: str
    source: str
    result: str
    operands: int = 1

    @property
    def entry(self) -> str:
        """The extern "C" symbol of this specialisation; signed and unsigned integers share theirs."""
        return f"gpueinsum_{self.name}_{self.operands}_{_unsigned_name(self.source)}_{_unsigned_name(self.result)}"


def _unsigned_name(dtype: str) -> str:
    return "u" + dtype if dtype.startswith("int") else dtype


def accumulator(dtype: str) -> str:
    """The type in which partial sums of `dtype` are kept between launches.

    >>> accumulator("bfloat16"), accumulator("int8")
    ('float32', 'int8')
    """
    return "float32" if dtype in HALVES else dtype


CONTRACTIONS = "contract", "contract_small"
_OF_CONTRACTIONS = "gather.cuh", "contract.cuh"  # what their texts go on with
SUMS = "reduce", "reduce_rows", "reduce_columns"


def _all_kernels() -> Iterator[Kernel]:
    signed = [dtype[1:] for dtype in CUDA_TYPES if dtype.startswith("uint")]
    same = [(dtype, dtype) for dtype in (*CUDA_TYPES, *signed)]
    halves = [(dtype, accumulator(dtype)) for dtype in CUDA_TYPES if accumulator(dtype) != dtype]
    one, pair, several, any_number = (1,), (2,), range(2, MAX_OPERANDS + 1), range(1, MAX_OPERANDS + 1)
    for name, types, counts in (
        *[(name, [*same, *halves], any_number) for name in SUMS],
        *[(name, [(result, source) for source, result in halves], one) for name in SUMS],  # of partial sums
        ("multiply", same, any_number),
        ("transpose", same, one),
        ("permute", same, one),
        ("add", same, several),
        ("expand", same, one),
        *[(name, [*same, *halves], pair) for name in CONTRACTIONS],
        ("pointers", [("uint8", "uint64")], (3,)),  # of matrices of any type, whose strides are in bytes
    ):
        yield from (Kernel(name, *pair, operands) for operands in counts for pair in types)


KERNELS = tuple(_all_kernels())
# Of each file and types the one that reads the most arrays: the others are the same text with fewer.
LARGEST = tuple(kernel for kernel in KERNELS if replace(kernel, operands=kernel.operands + 1) not in KERNELS)


@cache
def kernel_text(kernel: Kernel) -> str:
    """The whole CUDA source of one specialisation; it includes nothing."""
    return program_text((kernel,))


def program_text(kernels: Sequence[Kernel]) -> str:
    """The CUDA source of several specialisations, each in a namespace of its own."""
    for kernel in kernels:
        if kernel not in KERNELS:
            reads = f"{kernel.operands} of {kernel.source}"
            raise ValueError(f"no kernel {kernel.name!r} reads {reads} and writes {kernel.result}")
    specialised = {kernel.entry: _specialise(kernel) for kernel in kernels}
    return "".join([*map(_file_text, _SHARED), *specialised.values()])


def _specialise(kernel: Kernel) -> str:
    sources = [f"src{number}" for number in range(kernel.operands)]
    return f"""
namespace specialised_{kernel.entry} {{
using In = {CUDA_TYPES[_unsigned_name(kernel.source)]};
using Out = {CUDA_TYPES[_unsigned_name(kernel.result)]};
constexpr int OPERANDS = {kernel.operands};
#define ENTRY {kernel.entry}
#define SOURCES {", ".join(f"const In* {source}" for source in sources)}
#define SOURCE_NAMES {", ".join(sources)}
{_file_text(kernel.name + ".cu")}{"".join(map(_file_text, _OF_CONTRACTIONS)) if kernel.name in CONTRACTIONS else ""}
#undef ENTRY
#undef SOURCES
#undef SOURCE_NAMES
}}
"""


@cache
def _file_text(name: str) -> str:
    path = kernel_folder() / name
    return f'#line 1 "{path.name}"\n{path.read_text(encoding="utf-8")}'


def kernel_folder() -> Path:
    """Where the CUDA sources lie: in the package (a wheel), else beside it (checkout, editable install)."""
    package = Path(__file__).resolve().parents[2]
    candidates = package / "kernels", package.parent / "kernels"
    for folder in candidates:
        if (folder / _SHARED[0]).is_file():
            return folder
    raise FileNotFoundError(
        f"gpueinsum's CUDA sources are missing: no {_SHARED[0]} in " + " or ".join(map(str, candidates))
    )


Struct = npt.NDArray[np.void]  # one of them, as CuPy takes what it passes by value


def nest(
    sizes_kept: Sequence[int],
    strides_kept: Sequence[Sequence[int]],
    sizes_summed: Sequence[int],
    strides_summed: Sequence[Sequence[int]],
) -> Struct:
    """`struct Nest<N>`: the loops over the result, then the summed ones, outermost first.

    Strides count elements and are one sequence per operand: N = len(strides_kept) = len(strides_summed).
    """
    sizes = [*sizes_kept, *sizes_summed]
    strides = [[*kept, *summed] for kept, summed in zip(strides_kept, strides_summed, strict=True)]
    loops = _per_loop(sizes), _per_loop([*map(reciprocal, sizes)]), [*map(_per_loop, strides)]
    return np.array([(len(sizes_kept), len(sizes_summed), *loops)], _nest_type(len(strides)))


def walk(sizes: Sequence[int], strides: Sequence[Sequence[int]], lanes: int) -> Struct:
    """`struct Walk<N>`: how so many threads that share a sum go on, given the summed loops as `nest` takes them."""
    plane, row, rest = sizes[-1] if sizes else 1, 1, 0
    step = [lanes * own[-1] if own else 0 for own in strides]
    carried = step
    if len(sizes) > 1 and sizes[-1] < _LONGEST_ROW:
        plane, row = sizes[-2] * sizes[-1], sizes[-1]
        whole, rest = divmod(lanes, row)
        step = [whole * own[-2] + rest * own[-1] for own in strides]
        carried = [one + own[-2] - row * own[-1] for one, own in zip(step, strides, strict=True)]
    per_array = [(name, "i8", len(strides)) for name in ("step", "carried")]
    walk_type = np.dtype([("plane", "i8"), ("row", "i8"), ("rest", "i8"), *per_array])
    return np.array([(plane, row, rest, tuple(step), tuple(carried))], walk_type)


def reciprocal(size: int) -> int:
    """What `quotient_by` of kernels/loops.cuh takes for a size: a shift above, and below it a factor of 32 bits.

    For 0 <= a < 2**31, a // size = (a * factor // 2**32 + a) >> shift, by figure 4.1 of Granlund and Montgomery,
    "Division by invariant integers using multiplication" (1994).

    >>> shift, factor = divmod(reciprocal(7), 2**32)
    >>> [(a * factor // 2**32 + a) >> shift for a in (6, 7, 48, 49, 2**31 - 1)] == [0, 1, 6, 7, (2**31 - 1) // 7]
    True
    """
    if size > 1 << 31:
        return 31 << 32  # 0 of every such a
    shift = max(size - 1, 0).bit_length()
    return (shift << 32) + (((1 << shift) - size) << 32) // max(size, 1) + 1


def job(*fields: Struct | int) -> Struct:
    """A struct of other structs and of 64-bit integers, as kernels take what they are to do."""
    values = [np.asarray(field, np.int64) if isinstance(field, int) else field[0] for field in fields]
    return np.array([tuple(values)], [(f"f{number}", value.dtype) for number, value in enumerate(values)])


@cache
def _nest_type(operands: int) -> np.dtype[np.void]:
    per_loop = [("size", "i8", MAX_LOOPS), ("reciprocal", "i8", MAX_LOOPS), ("stride", "i8", (operands, MAX_LOOPS))]
    return np.dtype([("kept", "i8"), ("summed", "i8"), *per_loop])


def _per_loop(values: Sequence[int]) -> list[int]:
    if len(values) > MAX_LOOPS:
        raise ValueError(f"a kernel runs at most {MAX_LOOPS} nested loops, not {len(values)}")
    return [*values, *[0] * (MAX_LOOPS - len(values))]


# CuPy's own options beside ours. Without the first, NVRTC 12 and 13.0 refuse generic lambdas.
COMPILED_AS = "--device-as-default-execution-space", "-ftz=true", "-std=c++17"


def compile_text(text: str, arch: str, *options: str) -> bytes:
    """Machine code of a CUDA source, compiled as CuPy does; a RuntimeError carries NVRTC's log."""
    from cupy_backends.cuda.libs import nvrtc

    program = nvrtc.createProgram(text, "gpueinsum.cu", (), ())
    try:
        nvrtc.compileProgram(program, (f"-arch={arch}", *COMPILED_AS, *options))
        return bytes(nvrtc.getCUBIN(program))
    except nvrtc.NVRTCError as error:
        raise RuntimeError(f"NVRTC cannot compile for {arch}:\n{nvrtc.getProgramLog(program)}") from error
    finally:
        nvrtc.destroyProgram(program)
