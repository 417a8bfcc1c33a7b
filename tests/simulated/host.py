"""From a Kernel to a function on the host: the `.cu` text, compiled by g++ in front of nothing but shim.h."""

import ctypes
import hashlib
import os
import platform
import subprocess
import tempfile
from functools import cache
from pathlib import Path

import numpy as np

from gpueinsum.backends.cuda.source import KERNELS, program_text

COMPILER = "g++", "-O1", "-std=c++17", "-fPIC", "-shared", "-x", "c++", "-"
# Fortified longjmp refuses to change stacks; unique symbols would join the shared memory of two libraries.
COMPILER += "-U_FORTIFY_SOURCE", "-fno-gnu-unique", "-Wl,-Bsymbolic"
# A GPU cannot load or store what is not aligned to its size; here such an access is an illegal instruction (SIGILL).
CHECKED = "-fsanitize=alignment", "-fsanitize-undefined-trap-on-error"


@cache
def entry(kernel):
    """(run, parameters) of a kernel, as `bind` gives them."""
    return bind(_library(kernel.name), kernel.entry)


def bind(library, symbol):
    """(run, parameters): how to run the kernel of this name, and its parameters as (kind, bytes).

    The kinds are "pointer" (and the alignment it needs), "integer" and "struct" (and their sizes).
    """
    signature = getattr(library, symbol + "_signature")
    signature.restype = ctypes.c_char_p
    launch = getattr(library, symbol + "_launch")
    launch.restype = ctypes.c_char_p
    launch.argtypes = ctypes.c_uint, ctypes.c_uint, ctypes.c_void_p, ctypes.c_bool
    parameters = [(kind, int(size)) for kind, size in (word.split(":") for word in signature().decode().split())]
    count = len(parameters)

    def run(blocks, threads, args, last_thread_first=False):
        integers = (ctypes.c_int64 * count)(*(arg if isinstance(arg, int) else 0 for arg in args))
        first = ctypes.addressof(integers)
        places = (first + 8 * i if isinstance(arg, int) else address(arg) for i, arg in enumerate(args))
        message = launch(blocks, threads, (ctypes.c_void_p * count)(*places), last_thread_first)
        assert message is None, f"{symbol}: {message.decode()}"

    return run, parameters


def check_argument(arg, kind, size):
    """Whether CuPy would pass `arg` as such a parameter, and the GPU could use it."""
    if kind == "struct":
        assert isinstance(arg, np.ndarray), f"{arg!r} is no struct"
        assert arg.size == 1, f"a struct goes by value, but here are {arg.size}"
        assert arg.nbytes == size, f"a struct of {arg.nbytes} bytes where one of {size} is expected"
    else:
        assert type(arg) is int, f"{arg!r} is no int"
        assert -(2**63) <= arg < 2**63, f"{arg} has more than 64 bits"
        assert kind == "integer" or arg % size == 0, f"{arg:#x} is not aligned to {size} bytes"


def address(array):
    return array.__array_interface__["data"][0]


@cache
def _library(name):
    """All specialisations of one file in kernels/."""
    kernels = {kernel.entry: kernel for kernel in KERNELS if kernel.name == name}
    return compile_kernels(program_text(tuple(kernels.values())), {f"specialised_{entry}": entry for entry in kernels})


def compile_kernels(text, exports, headers=("shim.h",), options=CHECKED):
    """The library made from a CUDA text behind these headers, whose kernels are named as {namespace: kernel}."""
    before = [Path(__file__).with_name(header).read_text(encoding="utf-8") for header in headers]
    exported = [f"EXPORT({space}, {symbol})\n" for space, symbol in exports.items()]
    return ctypes.PyDLL(str(_build("".join([*before, text, "\n", *exported]), (*COMPILER, *options))))


def _build(text, compiler):
    """Compiled once per text, and shared between processes."""
    key = hashlib.sha256("\0".join((*compiler, platform.machine(), text)).encode()).hexdigest()[:32]
    folder = Path(tempfile.gettempdir()) / f"gpueinsum-kernels-on-the-host-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    library = folder / f"{key}.so"
    if not library.exists():
        with tempfile.NamedTemporaryFile(dir=folder, delete=False) as unfinished:
            compiled = subprocess.run([*compiler, "-o", unfinished.name], input=text, text=True, capture_output=True)
        assert compiled.returncode == 0, f"g++ cannot compile a kernel:\n{compiled.stderr}"
        os.replace(unfinished.name, library)  # at once and whole, whoever else builds it at this moment
    return library
