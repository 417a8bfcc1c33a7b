"""Machine code, an ELF file, to what its kernels use of a multiprocessor: registers, local and shared memory."""

import struct
from typing import NamedTuple

_MULTIPROCESSOR_REGISTERS, _MULTIPROCESSOR_THREADS = 65536, 2048  # of compute capability 8.0 and 9.0
_GRAIN = 8  # registers are given to a thread by so many
_MIN_STACK_SIZE, _REGCOUNT = 0x12, 0x2F  # attributes of a symbol in .nv.info, as `cuobjdump --dump-elf` names them
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
