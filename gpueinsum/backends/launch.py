"""From a kernel's name and element types to its CUDA text, its arguments and its machine code."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import numpy.typing as npt

MAX_LOOPS = 64  # as in kernels/common.cuh: numpy's 64 axes

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
    """One specialisation of a file in kernels/: what it reads and what it writes, as numpy names the types.

    >>> Kernel("reduce", "float16", "float32").entry
    'gpueinsum_reduce_float16_float32'
    """

    name: str
    source: str
    result: str

    @property
    def entry(self) -> str:
        """The extern "C" symbol of this specialisation; signed and unsigned integers share theirs."""
        return f"gpueinsum_{self.name}_{_unsigned(self.source)}_{_unsigned(self.result)}"


def _unsigned(dtype: str) -> str:
    return "u" + dtype if dtype.startswith("int") else dtype


def accumulator(dtype: str) -> str:
    """The type in which partial sums of `dtype` are kept between launches.

    >>> accumulator("bfloat16"), accumulator("int8")
    ('float32', 'int8')
    """
    return "float32" if dtype in ("float16", "bfloat16") else dtype


def _supported() -> tuple[Kernel, ...]:
    signed = [dtype[1:] for dtype in CUDA_TYPES if dtype.startswith("uint")]
    same = [(dtype, dtype) for dtype in (*CUDA_TYPES, *signed)]
    wide = [(dtype, accumulator(dtype)) for dtype in CUDA_TYPES if accumulator(dtype) != dtype]
    sums = [*same, *wide, *((result, source) for source, result in wide)]
    types = {"reduce": sums, "multiply_reduce": sums, "expand": same, "add": same, "integer_gemm": same}
    return tuple(Kernel(name, *pair) for name, pairs in types.items() for pair in pairs)


KERNELS = _supported()


@cache
def kernel_text(kernel: Kernel) -> str:
    """The whole CUDA source of one specialisation; it includes nothing."""
    return program_text((kernel,))


def program_text(kernels: Sequence[Kernel]) -> str:
    """The CUDA source of several specialisations, each in a namespace of its own."""
    for kernel in kernels:
        if kernel not in KERNELS:
            raise ValueError(f"no kernel {kernel.name!r} reads {kernel.source} and writes {kernel.result}")
    return _file_text("common.cuh") + "".join({kernel.entry: _specialise(kernel) for kernel in kernels}.values())


def _specialise(kernel: Kernel) -> str:
    return f"""
namespace specialised_{kernel.entry} {{
using In = {CUDA_TYPES[_unsigned(kernel.source)]};
using Out = {CUDA_TYPES[_unsigned(kernel.result)]};
#define ENTRY {kernel.entry}
{_file_text(kernel.name + ".cu")}
#undef ENTRY
}}
"""


@cache
def _file_text(name: str) -> str:
    path = kernel_folder() / name
    return f'#line 1 "{path.name}"\n{path.read_text(encoding="utf-8")}'


def kernel_folder() -> Path:
    """Where the CUDA sources lie: in the package (a wheel), else beside it (checkout, editable install)."""
    package = Path(__file__).resolve().parents[1]
    candidates = package / "kernels", package.parent / "kernels"
    for folder in candidates:
        if (folder / "common.cuh").is_file():
            return folder
    raise FileNotFoundError(
        "gpueinsum's CUDA sources are missing: no common.cuh in " + " or ".join(map(str, candidates))
    )


def nest(
    sizes_kept: Sequence[int],
    strides_kept: Sequence[Sequence[int]],
    sizes_summed: Sequence[int],
    strides_summed: Sequence[Sequence[int]],
) -> npt.NDArray[np.void]:
    """`struct Nest<N>` by value: the loops over the result, then the summed ones, outermost first.

    Strides count elements and are one sequence per operand: N = len(strides_kept) = len(strides_summed).
    """
    strides = [[*kept, *summed] for kept, summed in zip(strides_kept, strides_summed, strict=True)]
    loops = _per_loop([*sizes_kept, *sizes_summed]), [*map(_per_loop, strides)]
    return np.array([(len(sizes_kept), len(sizes_summed), *loops)], _nest_type(len(strides)))


def expand_nest(sizes: Sequence[int], strides: Sequence[int], same: Sequence[int]) -> npt.NDArray[np.void]:
    """`struct ExpandNest` by value: the loops over the output, outermost first, and which one each repeats.

    `same[d]` is the index of the earlier loop whose coordinate loop d must equal, or d itself.
    """
    return np.array([(len(sizes), _per_loop(sizes), _per_loop(strides), _per_loop(same))], _EXPAND_NEST)


@cache
def _nest_type(operands: int) -> np.dtype[np.void]:
    per_loop = [("size", "i8", MAX_LOOPS), ("stride", "i8", (operands, MAX_LOOPS))]
    return np.dtype([("kept", "i8"), ("summed", "i8"), *per_loop])


_EXPAND_NEST = np.dtype([("loops", "i8"), *((name, "i8", MAX_LOOPS) for name in ("size", "stride", "same"))])


def _per_loop(values: Sequence[int]) -> list[int]:
    if len(values) > MAX_LOOPS:
        raise ValueError(f"a kernel runs at most {MAX_LOOPS} nested loops, not {len(values)}")
    return [*values, *[0] * (MAX_LOOPS - len(values))]


def compile_cubin(kernel: Kernel, arch: str) -> bytes:
    """Machine code of one specialisation for one architecture (`"sm_90"`). Needs CuPy and NVRTC, no GPU."""
    return compile_text(kernel_text(kernel), arch)


def compile_text(text: str, arch: str, *options: str) -> bytes:
    """Machine code of a CUDA source, compiled as CuPy does; a RuntimeError carries NVRTC's log."""
    from cupy_backends.cuda.libs import nvrtc

    program = nvrtc.createProgram(text, "gpueinsum.cu", (), ())
    try:
        nvrtc.compileProgram(program, (f"-arch={arch}", "-std=c++17", "-ftz=true", *options))
        return bytes(nvrtc.getCUBIN(program))
    except nvrtc.NVRTCError as error:
        raise RuntimeError(f"NVRTC cannot compile for {arch}:\n{nvrtc.getProgramLog(program)}") from error
    finally:
        nvrtc.destroyProgram(program)
