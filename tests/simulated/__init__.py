"""A CUDA device made of numpy memory: `SimulatedRuntime` takes the calls of backends/cuda and checks each of them.

Its kernels are the very `.cu` texts, compiled for the host (`host.py`, `shim.h`); its GEMM is cuBLAS' definition on
raw memory (`cublas.py`).
"""

import ctypes
import weakref

import numpy as np

from gpueinsum.backends.base import RefusedError
from gpueinsum.backends.cuda.program import Launch

from . import cublas, host

GUARD = 256  # bytes on either side of an allocation, which starts at a multiple of it, as CUDA's do
GUARD_BYTE, UNWRITTEN_BYTE = 0xA5, 0xFF  # unwritten floats are NaN, integers -1, booleans a true of 255


class SimulatedRuntime:
    """The runtime protocol of backends/cuda/runtime.py; `calls` lists what was launched since it was last cleared."""

    xp = np
    array_type = type(None)  # numpy's arrays are the host's, too

    def __init__(self, processors=4, last_thread_first=False):
        self.processors = processors  # few, so that grids are small
        self.last_thread_first = last_thread_first  # the order in which the threads of a block take turns
        self.calls = []
        self.refuses = ()  # how the names begin of ways to compute, as "pointers", or of work that has no other way
        self.entry = host.entry  # how a kernel is run; `sectors.count` puts one that counts in its place
        self._allocations = weakref.WeakValueDictionary()  # address -> Allocation
        self.used = self.peak = 0  # bytes of `allocate`, now and at the most
        self.size, self.held = 1 << 30, 0  # bytes of memory, and of all arrays in it
        self.allocations = 0
        self._owners = {}  # address given out by `pointer` -> weak reference to the array that owns the memory
        self._latest = lambda: None  # the latest owner that was searched for, or nothing

    def memory(self):
        return self.size

    def free_bytes(self):
        return self.size - self.held

    def is_capturing(self):
        return False

    def free_memory(self):
        return 0

    def device(self):
        return 0

    def allocate(self, nbytes):
        memory = self._take(nbytes)
        self._owners[memory.first] = weakref.ref(memory)
        self.allocations += 1
        self.used += nbytes
        self.peak = max(self.peak, self.used)
        weakref.finalize(memory, self._release, nbytes)
        return memory

    def _release(self, nbytes):
        self.used -= nbytes

    def _take(self, nbytes):
        """Memory for `allocate` and for arrays of operands."""
        if self.held + nbytes > self.size:
            raise MemoryError(f"{nbytes} bytes of {self.size}, where {self.held} are taken")
        memory = Allocation.of(nbytes)
        self._allocations[memory.first] = memory
        self.held += nbytes
        weakref.finalize(memory, self._give_back, nbytes)
        return memory

    def _give_back(self, nbytes):
        self.held -= nbytes

    def array(self, shape, dtype, memory, strides):
        return np.ndarray(shape, dtype, memory, memory.first - host.address(memory), strides)

    def prepare(self, work):
        return lambda addresses: self._run(work, [addresses[memory] + offset for memory, offset in work.addresses])

    def capture(self, program, addresses):
        """A graph keeps the addresses, not the memory: freed memory is found when it is replayed."""
        launches, addresses = [self.prepare(work) for work in program.work], tuple(addresses)

        def replay():
            self.calls.append(("replay", len(launches)))
            for launch in launches:
                launch(addresses)

        return replay

    def add(self, part, out):
        with np.errstate(all="ignore"):  # a GPU overflows in silence
            out += part.astype(out.dtype)

    def copy(self, out, source, nbytes):
        self.calls.append(("copy", nbytes))
        for address in (out, source):
            first, end = self.extent(address)
            assert first <= address <= address + nbytes <= end, f"{nbytes} bytes from {address:#x} on leave its memory"
        ctypes.memmove(out, source, nbytes)

    def seconds(self, call, count):
        """By the number of launches: a millisecond each."""
        before = len(self.calls)
        for _ in range(count):
            call()
        return (len(self.calls) - before) * 1e-3

    work_seconds = seconds

    def parts_seconds(self, parts):
        return [self.seconds(call, 1) for _, call in parts]

    def _run(self, work, addresses):
        for way in work.ways or (str(work),):
            if way.startswith(self.refuses):
                self.calls.append(("refused", way))
                raise RefusedError(work, work.ways, RuntimeError("status 15"))
        if isinstance(work, Launch):
            self.launch(work.kernel, work.blocks, work.threads, work.job, *addresses)
        else:
            multiply = self.pointer_gemm if work.by_pointers else self.gemm
            multiply(work.gemm, work.dtype, *addresses[:3], work.precision)

    def empty(self, shape, dtype):
        """An array full of NaN, -1 or true, between guards."""
        dtype = np.dtype(dtype)
        memory = self._take(int(np.prod(shape, dtype=np.int64)) * dtype.itemsize)
        return np.ndarray(shape, dtype, memory, memory.first - host.address(memory))

    def to_device(self, operand):
        """A copy with the operand's strides, as arrays made on a GPU have them, and garbage between its elements."""
        array = np.asarray(operand)
        if array.dtype.kind not in "biufc" and array.dtype.name != "bfloat16":
            raise ValueError(f"Unsupported dtype {array.dtype}")  # CuPy's words
        if not array.flags.aligned or any(stride % array.itemsize for stride in array.strides):
            array = array.copy()  # as CuPy does
        first, end = np.lib.array_utils.byte_bounds(array)
        shift = first % GUARD
        memory = self.empty(shift + end - first, np.uint8)
        copy = np.ndarray(array.shape, array.dtype, memory, shift + host.address(array) - first, array.strides)
        copy[...] = array
        return copy

    def on_host(self, array):
        return not isinstance(self.owner_of(array), Allocation)

    def pinned(self, nbytes):
        return np.full(nbytes, UNWRITTEN_BYTE, np.uint8)

    def copy_stream(self):
        return CopyStream(self.calls)

    def context(self):
        return None

    def to_host(self, array):
        return array.copy(order="A")  # as cupy.asnumpy with this order

    def store(self, array, out):
        np.copyto(out, array, casting="unsafe")

    def strided(self, array, shape, strides):
        """A view with these strides in bytes that starts at the same element."""
        return np.lib.stride_tricks.as_strided(array, shape, strides, writeable=array.flags.writeable)

    def pointer(self, array):
        """The address of the first element, for `launch` and `gemm`."""
        address = host.address(array)
        self._owners[address] = weakref.ref(self.owner_of(array))
        return address

    def owner_of(self, array):
        """The array that owns the memory of this one."""
        owner = base = array
        while base is not None and not isinstance(owner, Allocation):
            owner = base if isinstance(base, np.ndarray) else owner
            base = getattr(base, "base", None)
        return owner

    def launch(self, kernel, blocks, threads, *args):
        """Runs a kernel as a launch on a GPU would: ints go as 64-bit integers or addresses, structs by value."""
        self.calls.append(("launch", kernel, blocks, threads))
        assert 1 <= blocks < 2**31, f"{blocks} blocks"
        assert 1 <= threads <= 1024, f"{threads} threads in a block"
        run, parameters = self.entry(kernel)
        assert len(args) == len(parameters), f"{kernel} takes {len(parameters)} arguments, not {len(args)}"
        for arg, (kind, size) in zip(args, parameters, strict=True):
            host.check_argument(arg, kind, size)
        owners = [self._owner(arg) for arg, (kind, _) in zip(args, parameters, strict=True) if kind == "pointer"]
        run(blocks, threads, args, self.last_thread_first)
        for owner in owners:
            if isinstance(owner, Allocation):
                owner.check_guards()

    def gemm(self, gemm, dtype, a, b, c, precision):
        """One strided-batched product, with cuBLAS' own demands on its arguments checked."""
        self.calls.append(("gemm", gemm))
        cublas.gemm(gemm, dtype, *((address, *bounds(self._owner(address))) for address in (a, b, c)), precision)

    def pointer_gemm(self, gemm, dtype, a, b, c, precision):
        """One batched product on arrays of pointers that lie on the device, as what they point to does."""
        self.calls.append(("pointer gemm", gemm))
        arrays = []
        for name, address in zip("ABC", (a, b, c), strict=True):
            pointers = cublas.pointers(name, (address, *bounds(self._owner(address))), gemm.batch)
            arrays.append([(pointer, *bounds(self._owner(pointer))) for pointer in pointers])
        cublas.pointer_gemm(gemm, dtype, *arrays, precision)

    def check_guards(self):
        """Fails if anything was written just outside of an allocation that is still alive."""
        for allocation in list(self._allocations.values()):
            allocation.check_guards()

    def living_bytes(self):
        """How many bytes each allocation has that is still alive."""
        return [allocation.end - allocation.first for allocation in list(self._allocations.values())]

    def extent(self, address):
        """The memory that an address lies in: its first byte, and the one after its last."""
        return bounds(self._owner(address))

    def owners(self, *addresses):
        """The arrays that own the memory at these addresses."""
        return [self._owner(address) for address in addresses]

    def _owner(self, address):
        """The array that owns the memory at an address, which is a pointer or lies in the memory of one.

        Nothing lies at 0, where CuPy's arrays of no bytes begin.
        """
        if address == 0:
            return NOTHING
        owner = self._owners.get(address, lambda: None)()
        if owner is not None:
            return owner
        owner = self._latest()  # pointers into the same memory come one after the other
        if owner is not None and bounds(owner)[0] <= address < bounds(owner)[1]:
            return owner
        self._owners = {given: reference for given, reference in self._owners.items() if reference() is not None}
        for reference in [*self._owners.values()]:
            owner = reference()
            if owner is not None and bounds(owner)[0] <= address < bounds(owner)[1]:
                self._latest = reference
                return owner
        raise AssertionError(f"no living array whose pointer was asked for holds {address:#x}")


class CopyStream:
    """Copies at once; `calls` shows when each is launched. The stand-in for CuPy has late ones."""

    def __init__(self, calls):
        self.calls = calls

    def mark(self):
        return len(self.calls)

    def upload(self, out, source, after):
        assert source.flags.c_contiguous
        self.calls.append(("upload", source.nbytes, after))
        ctypes.memmove(out, host.address(source), source.nbytes)
        return self

    def synchronize(self):
        self.calls.append(("wait", "copies"))


def bounds(owner):
    """The addresses of the first byte of an allocation and of the byte after the last."""
    if isinstance(owner, Allocation | _Nothing):
        return owner.first, owner.end
    return np.lib.array_utils.byte_bounds(owner)


class _Nothing:
    """No memory."""

    first = end = 0


NOTHING = _Nothing()


class Allocation(np.ndarray):
    """The bytes of one allocation and its guards, alive as long as an array that lies in it."""

    @property
    def ptr(self):
        return self.first

    @classmethod
    def of(cls, nbytes):
        memory = cls(nbytes + 3 * GUARD, np.uint8)  # owns its bytes, so that arrays in it have it as their base
        memory.fill(GUARD_BYTE)
        start = GUARD + -host.address(memory) % GUARD
        memory[start : start + nbytes] = UNWRITTEN_BYTE
        memory.first = host.address(memory) + start
        memory.end = memory.first + nbytes
        return memory

    def check_guards(self):
        start = host.address(self)
        for side, guard in ("before", self[: self.first - start]), ("after", self[self.end - start :]):
            assert guard.tobytes().count(GUARD_BYTE) == guard.size, (
                f"bytes {side} an allocation of {self.end - self.first} bytes were written"
            )
