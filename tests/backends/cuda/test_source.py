"""Kernel texts: complete, found wherever the package lies, and accepted by NVRTC for every GPU that it knows."""

import inspect
import re
import shutil
import struct
import subprocess
import sys
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing import get_context

import numpy as np
import pytest
from long_runs import LONG

from benchmarks.cubin import resources
from gpueinsum.backends.cuda import source as launch
from gpueinsum.backends.cuda.source import (
    COMPILED_AS,
    CONTRACTIONS,
    KERNELS,
    LARGEST,
    MAX_OPERANDS,
    SUMS,
    THREADS,
    Kernel,
    accumulator,
    compile_text,
    job,
    kernel_folder,
    kernel_text,
    nest,
    program_text,
    reciprocal,
)

TYPED = *SUMS, "multiply", "transpose", "permute", "expand", "add", *CONTRACTIONS
NAMES = *TYPED, "pointers"


def architectures():
    """Every architecture that NVRTC compiles for, or one skip that says why there is none."""
    try:
        return [f"sm_{number}" for number in nvrtc().getSupportedArchs()]
    except (ImportError, RuntimeError) as error:
        return [pytest.param("none", marks=pytest.mark.skip(f"no kernel was compiled, for want of NVRTC: {error}"))]


def nvrtc():
    from cupy_backends.cuda.libs import nvrtc

    return nvrtc


ARCHITECTURES = architectures()
SHARED_MEMORY = {"sm_80": 164 << 10, "sm_90": 228 << 10}  # bytes of a multiprocessor: A100, H100 and H200
RATED = [arch for arch in ARCHITECTURES if arch in SHARED_MEMORY or not isinstance(arch, str)]
# No text asks which architecture it is made for. So a kernel that compiles for Hopper, where its registers are
# counted, fails for another only if this one lacks an instruction: those named in `asm` are of
# halves, the widest are of complex128.
COMPILED_WHOLE = ARCHITECTURES if LONG else []
SPECIAL = "float16", "complex128"
# How many blocks of each file's kernels a multiprocessor holds at the least: of any type, of float32 and float64. Eight
# are all its threads; where it holds fewer, several loads of a thread, or the 16 numbers of a pack, are in registers.
BLOCKS = {
    "add": (3, 6),
    "multiply": (3, 6),
    "expand": (6, 8),
    "transpose": (8, 8),
    "permute": (3, 4),
    "reduce": (2, 3),
    "reduce_rows": (2, 4),
    "reduce_columns": (2, 3),
    "contract": (2, 2),
    "contract_small": (2, 3),
    "pointers": (8, 8),
}


@pytest.fixture(scope="module")
def another():
    """A process for what is compiled sooner: in one that has done so NVRTC 13.5 compiles all that follows worse.

    There reduce of four arrays of float32 (sm_90) no longer has 77 registers, but 80, and 16 bytes that are spilled.
    CuPy would keep such kernels on disk.
    """
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        yield pool


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_every_kernel_compiles_for_the_most_arrays_that_it_reads(arch, another):
    """Of the special types, or of every type in a long run."""
    sooner = ["--Ofast-compile=max"] if nvrtc().getVersion() >= (13, 0) else []  # a quarter of the time
    kernels = [kernel for kernel in LARGEST if arch in COMPILED_WHOLE or kernel.source in (*SPECIAL, "uint8")]
    assert {kernel.name for kernel in kernels} == set(NAMES)
    cubin = another.submit(compile_text, program_text(kernels), arch, *sooner).result()  # one program saves time
    for kernel in kernels:
        assert kernel.entry.encode() in cubin


def test_a_text_is_compiled_with_the_options_that_cupy_passes(monkeypatch):
    compiler = pytest.importorskip("cupy.cuda.compiler", reason="CuPy's own options cannot be read without it")
    from cupy_backends.cuda.libs import nvrtc

    cupys = set(re.findall(r"'(-[a-z-]+(?:=true)?)',\)", inspect.getsource(compiler)))
    given = []
    monkeypatch.setattr(nvrtc, "createProgram", lambda *arguments: 0)
    monkeypatch.setattr(nvrtc, "destroyProgram", lambda program: None)
    monkeypatch.setattr(nvrtc, "getCUBIN", lambda program: b"")
    monkeypatch.setattr(nvrtc, "compileProgram", lambda program, options: given.extend(options))
    compile_text("", "sm_90")
    assert {"--device-as-default-execution-space", "-ftz=true"} <= cupys & set(given)


@pytest.mark.parametrize("arch", RATED)
def test_no_kernel_uses_local_memory_and_a_multiprocessor_holds_some_blocks_of_each(arch):
    """Of every kernel in a long run, otherwise of the largest, which hold the most in registers."""
    largest = [kernel for kernel in LARGEST if arch != "sm_80" or kernel.source in ("float32", *SPECIAL)]
    kernels = {kernel.entry: kernel for kernel in (KERNELS if LONG else largest)}
    with ThreadPoolExecutor(2) as pool:  # each by itself, as CuPy compiles it
        cubins = pool.map(lambda kernel: compile_text(kernel_text(kernel), arch), kernels.values())
        used = {entry: resources(cubin)[entry] for entry, cubin in zip(kernels, cubins, strict=True)}
    assert {entry: own for entry, own in used.items() if own.local} == {}
    for kernel in kernels.values():
        blocks = used[kernel.entry].blocks(THREADS, SHARED_MEMORY[arch])
        of_any_type, of_floats = BLOCKS[kernel.name]
        fewest = of_floats if kernel.source in ("float32", "float64") else of_any_type
        assert blocks >= fewest, f"{kernel}: {blocks} blocks, for {used[kernel.entry]}"


INDEXED_AT_RUN_TIME = """
extern "C" __global__ void indexed(const int* src, int* out) {
  int held[32] = {};
  for (int n = 0; n < 1000; ++n) held[src[n] & 31] += n;
  out[threadIdx.x] = held[threadIdx.x & 31];
}
"""


@pytest.mark.parametrize("arch", RATED)
def test_an_array_that_is_indexed_at_run_time_is_seen_in_local_memory(arch):
    (own,) = resources(compile_text(INDEXED_AT_RUN_TIME, arch)).values()
    assert own.local >= 32 * 4


@pytest.mark.parametrize("arch", RATED)
def test_registers_that_are_spilled_are_seen_and_so_is_shared_memory_that_grows(arch):
    sum_of_products, transpose = Kernel("reduce", "float32", "float32", 4), Kernel("transpose", "float32", "float32")
    kept, spilled = changed(
        sum_of_products, arch, "__launch_bounds__(MAX_THREADS, ", "__launch_bounds__(MAX_THREADS, 2 * "
    )
    assert (kept.local, spilled.local > 0, spilled.registers < kept.registers) == (0, True, True)
    tile, tiles = changed(transpose, arch, "In tile[TILE]", "In tile[2 * TILE]")
    assert tiles.shared - tile.shared == 64 * 65 * 4
    assert tiles.blocks(THREADS, 128 << 10) < tile.blocks(THREADS, 128 << 10)


def changed(kernel, arch, before, after):
    """What the kernel uses, and what it uses with one piece of its text replaced."""
    text = kernel_text(kernel)
    assert before in text
    return [resources(compile_text(text, arch))[kernel.entry] for text in (text, text.replace(before, after))]


@pytest.mark.parametrize("arch", ARCHITECTURES[-1:])
def test_a_kernels_own_text_compiles(arch):
    kernels = {kernel.name: kernel for kernel in LARGEST if kernel.source in ("bfloat16", "uint8")}
    assert set(kernels) == set(NAMES)
    for kernel in kernels.values():
        assert kernel.entry.encode() in compile_text(kernel_text(kernel), arch)


@pytest.mark.skipif(not isinstance(ARCHITECTURES[0], str), reason="no kernel was compiled, for want of NVRTC")
@pytest.mark.parametrize(
    ("name", "dtype"),
    [
        *(
            ("multiply", dtype)
            for dtype in ("bool", "uint16", "float16", "bfloat16", "float32", "float64", "complex64")
        ),
        *((name, "float32") for name in ("add", *SUMS)),
    ],
)
def test_a_pack_is_loaded_and_stored_by_one_instruction(name, dtype):
    program = nvrtc().createProgram(kernel_text(Kernel(name, dtype, dtype, 2)), "gpueinsum.cu", (), ())
    nvrtc().compileProgram(program, ("-arch=compute_90", *COMPILED_AS))
    whole = r"\.global\.(v4\.[bfu]32|v2\.[bfu]64)"
    text = nvrtc().getPTX(program)
    text = text if isinstance(text, str) else text.decode()
    nvrtc().destroyProgram(program)
    assert len(re.findall("ld" + whole, text)) >= 2  # of each array
    assert name in ("reduce", "reduce_rows") or re.search("st" + whole, text)


@pytest.mark.parametrize("arch", ARCHITECTURES[-1:])
def test_a_broken_kernel_does_not_compile_and_the_error_names_the_line(arch):
    sound = kernel_text(Kernel("reduce", "int32", "int32"))
    broken = sound.replace("sum_nest<Sum,", "sun_nest<Sum,")
    assert broken != sound
    with pytest.raises(RuntimeError, match=r'reduce\.cu\(\d+\): error: identifier "sun_nest" is undefined'):
        compile_text(broken, arch)


def test_texts_include_nothing():
    assert "#include" not in program_text(KERNELS)


def test_every_dtype_has_every_kernel_and_halves_have_float32_partial_sums():
    dtypes = ["bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"]
    dtypes += ["float16", "bfloat16", "float32", "float64", "complex64", "complex128"]
    for name in TYPED:
        assert {kernel.source for kernel in KERNELS if kernel.name == name} == set(dtypes)
    for dtype in dtypes:
        assert Kernel("reduce", accumulator(dtype), dtype) in KERNELS
        for operands in range(1, MAX_OPERANDS + 1):
            assert Kernel("reduce", dtype, accumulator(dtype), operands) in KERNELS
            assert Kernel("multiply", dtype, dtype, operands) in KERNELS
            assert operands == 1 or Kernel("add", dtype, dtype, operands) in KERNELS


def test_the_largest_kernels_are_one_for_each_file_and_types():
    assert {(kernel.name, kernel.operands) for kernel in LARGEST} == {
        *((name, MAX_OPERANDS) for name in (*SUMS, "multiply", "add")),
        *((name, 1) for name in SUMS),  # of halves' parts in float32
        *((name, 1) for name in ("transpose", "permute", "expand")),
        *((name, 2) for name in CONTRACTIONS),
        ("pointers", 3),
    }
    types = [(kernel.name, kernel.source, kernel.result) for kernel in LARGEST]
    assert len(set(types)) == len(types)
    assert set(types) == {(kernel.name, kernel.source, kernel.result) for kernel in KERNELS}


def test_a_kernel_that_does_not_exist_is_refused():
    with pytest.raises(ValueError, match="no kernel 'expand' reads 1 of float16 and writes float32"):
        kernel_text(Kernel("expand", "float16", "float32"))


def test_integers_of_either_sign_share_a_kernel():
    signed, unsigned = Kernel("reduce", "int8", "int8"), Kernel("reduce", "uint8", "uint8")
    assert kernel_text(signed) == kernel_text(unsigned)
    assert program_text((signed, unsigned)) == kernel_text(signed)


def test_entries_are_distinct_otherwise():
    unsigned = [kernel for kernel in KERNELS if not kernel.source.startswith("int")]
    assert len({kernel.entry for kernel in unsigned}) == len(unsigned)


def test_kernels_are_found_beside_the_package_and_in_it_first(tmp_path, monkeypatch):
    sources = kernel_folder()
    package = tmp_path / "gpueinsum"
    monkeypatch.setattr(launch, "__file__", str(package / "backends" / "cuda" / "source.py"))
    shutil.copytree(sources, tmp_path / "kernels")  # a checkout, an editable install
    assert kernel_folder() == tmp_path / "kernels"
    shutil.copytree(sources, package / "kernels")  # a wheel
    assert kernel_folder() == package / "kernels"


def test_missing_kernels_are_an_error_that_names_both_places(tmp_path, monkeypatch):
    monkeypatch.setattr(launch, "__file__", str(tmp_path / "gpueinsum" / "backends" / "cuda" / "source.py"))
    with pytest.raises(FileNotFoundError, match=r"no types\.cuh in .*gpueinsum/kernels or .*/kernels"):
        kernel_folder()


def test_the_module_needs_no_cuda_to_be_imported():
    code = (
        "import sys, gpueinsum.backends.cuda.source; print([name for name in sys.modules if name.startswith('cupy')])"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


def test_a_nest_is_laid_out_as_the_struct():
    loops = nest([5, 7], [[1, -10], [0, 3]], [11], [[2], [0]])
    assert loops.size == 1
    numbers = struct.unpack(f"={2 + 4 * 64}q", loops.tobytes())
    assert numbers[:2] == (2, 1)
    assert numbers[2:6] == (5, 7, 11, 0)
    assert numbers[2 + 64 : 2 + 68] == (*map(reciprocal, (5, 7, 11)), 0)
    assert numbers[2 + 128 : 2 + 132] == (1, -10, 2, 0)
    assert numbers[2 + 192 : 2 + 196] == (0, 3, 0, 0)


def test_a_reciprocal_divides_every_number_of_31_bits(rng):
    powers = [2**bits for bits in range(33)]
    sizes = {*powers, *[power - 1 for power in powers[1:]], *[power + 1 for power in powers], *range(1, 100)}
    for size in {*sizes, *rng.integers(1, 2**31, 1000).tolist()}:
        shift, factor = divmod(reciprocal(size), 2**32)
        multiples = range(size, 2**31, max(size, 2**31 // 50 // size * size))
        for a in {0, 1, 2**31 - 1, *multiples, *[multiple - 1 for multiple in multiples]}:
            assert a * factor // 2**32 + a < 2**32  # as the kernels add them
            assert (a * factor // 2**32 + a) >> shift == a // size, (a, size)


def test_a_job_is_laid_out_as_the_struct():
    loops = nest([5], [[1], [7]], [], [[], []])
    fields = job(loops, 3, -1)
    assert fields.shape == (1,)
    assert fields.tobytes() == loops.tobytes() + struct.pack("=2q", 3, -1)


def test_a_nest_of_no_loops_is_one_output_and_one_term():
    assert not np.frombuffer(nest([], [[]], [], [[]]).tobytes(), np.int64).any()


def test_more_loops_than_numpy_has_axes_are_refused():
    nest([1] * 60, [[0] * 60], [1] * 4, [[0] * 4])
    with pytest.raises(ValueError, match="at most 64 nested loops, not 65"):
        nest([1] * 60, [[0] * 60], [1] * 5, [[0] * 5])
