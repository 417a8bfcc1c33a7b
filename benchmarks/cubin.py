"""Machine code, an ELF file, to what its kernels use of a multiprocessor: registers, memory, loads under way."""

from __future__ import annotations

import importlib.util
import re
import shutil
import struct
import subprocess
import tempfile
from pathlib import Path
from typing import NamedTuple

_MULTIPROCESSOR_REGISTERS, _MULTIPROCESSOR_THREADS = 65536, 2048  # of compute capability 8.0 and 9.0
_GRAIN = 8  # registers are given to a thread by so many
_MIN_STACK_SIZE, _REGCOUNT = 0x12, 0x2F  # attributes of a symbol in .nv.info, as `cuobjdump --dump-elf` names them
_INSTRUCTION = re.compile(r"/\*[0-9a-f]+\*/ +(?:@!?\w+ +)?([A-Z][\w.]*)")  # its name
_SIZED = 4  # the first byte of an attribute that says how long it is


class Resources(NamedTuple):
    """A thread's registers and bytes of local memory (what is spilled, or indexed at run time); a block's shared."""

    registers: int
    local: int
    shared: int

    def blocks(self, threads: int, shared: int) -> int:
        """How many blocks of so many threads a multiprocessor with so many bytes of shared memory holds."""
        registers = -(-self.registers // _GRAIN) * _GRAIN * threads
        by_shared_memory = shared // max(self.shared, 1)
        return min(_MULTIPROCESSOR_THREADS // threads, _MULTIPROCESSOR_REGISTERS // registers, by_shared_memory)


def resources(cubin: bytes) -> dict[str, Resources]:
    """Of every kernel, by its name."""
    sections = _sections(cubin)
    symbols = _symbols(sections)
    attributes = _attributes(sections[".nv.info"])
    found = {}
    for name in (section.removeprefix(".text.") for section in sections if section.startswith(".text.")):
        registers, local = (attributes[kind, symbols[name]] for kind in (_REGCOUNT, _MIN_STACK_SIZE))
        shared = sections.get(".nv.shared." + name)
        found[name] = Resources(registers, local, shared.size if shared else 0)
    return found


class _Section(NamedTuple):
    size: int
    content: bytes


def _sections(cubin: bytes) -> dict[str, _Section]:
    (table,) = struct.unpack_from("<Q", cubin, 40)
    number, names = struct.unpack_from("<HH", cubin, 60)
    headers = [struct.unpack_from("<IIQQQQ", cubin, table + 64 * n) for n in range(number)]
    start = headers[names][4]
    return {
        _text(cubin, start + name): _Section(size, cubin[offset : offset + size])
        for name, _, _, _, offset, size in headers
    }


def _symbols(sections: dict[str, _Section]) -> dict[str, int]:
    table, names = sections[".symtab"].content, sections[".strtab"].content
    return {_text(names, name): n for n, (name, *_) in enumerate(struct.iter_unpack("<IBBHQQ", table))}


def _attributes(info: _Section) -> dict[tuple[int, int], int]:
    """The number that an attribute gives a symbol, by both."""
    found, place = {}, 0
    while place < info.size:
        form, kind, size = struct.unpack_from("<BBH", info.content, place)
        if form == _SIZED and size == 8:
            symbol, number = struct.unpack_from("<II", info.content, place + 4)
            found[kind, symbol] = number
        place += 4 + (size if form == _SIZED else 0)
    return found


def _text(content: bytes, start: int) -> str:
    return content[start : content.index(b"\0", start)].decode()


def loads_under_way(cubin: bytes, width: int) -> int:
    """The most bytes that a thread loads from global memory, `width` at once, before it needs any of them.

    If no load is as wide, then of the widest that are narrower: of a struct's parts. Code is read in order, from one
    head of a loop to the next. Needs nvdisasm (the wheel `nvidia-cuda-nvdisasm` has it), or raises FileNotFoundError.
    """
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin + b"\0")  # which CuPy cuts off
        file.flush()
        text = subprocess.run([_nvdisasm(), "-c", file.name], check=True, capture_output=True, text=True).stdout
    return next((most for most in (_under_way(text, width >> n) for n in range(5)) if most), 0)


def _under_way(text: str, width: int) -> int:
    lines = text.splitlines()
    labels = {line.rstrip(":"): place for place, line in enumerate(lines) if line.startswith(".L")}
    jumps = [(place, re.search(r"BRA.*`\((\S+)\)", line)) for place, line in enumerate(lines)]
    loops = {labels[jump[1]] for place, jump in jumps if jump and labels[jump[1]] < place}
    most, filled, awaited = 0, dict[int, int](), set[int]()  # bytes by the first register of each load; all registers
    for place, line in enumerate(lines):
        instruction = _INSTRUCTION.search(line)
        name, operands = instruction[1] if instruction else "", [*map(int, re.findall(r"\bR(\d+)", line))]
        is_load = name.startswith("LDG")
        if place in loops or awaited & {*operands[is_load:]}:
            filled, awaited = {}, set()
        if is_load and _loaded_bytes(name) == width:
            filled[operands[0]] = width
            awaited |= {*range(operands[0], operands[0] + max(1, width // 4))}
            most = max(most, sum(filled.values()))
    return most


def _loaded_bytes(name: str) -> int:
    """
    >>> _loaded_bytes("LDG.E"), _loaded_bytes("LDG.E.128"), _loaded_bytes("LDG.E.U8")
    (4, 16, 1)
    """
    return next((int(bits) // 8 for bits in re.findall(r"\.[US]?(8|16|64|128)\b", name)), 4)


def _nvdisasm() -> str:
    """Where it is: on the path, or in the wheel."""
    wheels = importlib.util.find_spec("nvidia")
    folders = wheels.submodule_search_locations or () if wheels else ()
    paths = [None, *(str(Path(folder) / "cu13" / "bin") for folder in folders)]
    return next(filter(None, (shutil.which("nvdisasm", path=path) for path in paths)), "nvdisasm")
