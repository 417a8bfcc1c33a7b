"""CuPy: plans as programs of cuBLAS calls and kernels of ours; asynchronous on the current device and stream.

A plan is assembled once for operands of the same strides (`lower.py`), into a flat list of launches on one workspace
and one memory for each result (`program.py`). A call resolves addresses and launches. The GPU is reached through one
small object, `CupyRuntime`, and through nothing else, so that the tests can put a simulated device in its place and run
this whole module on a machine without a GPU.
"""

from __future__ import annotations

import threading
import warnings
from collections.abc import Callable, Collection, Hashable, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from functools import lru_cache
from itertools import islice
from typing import Any, TypeVar

import numpy as np

from gpueinsum.backends.autotune import Tuner, choices_for, random_numbers
from gpueinsum.backends.base import PLAIN, Load, Mode, RefusedError
from gpueinsum.backends.cuda.cublas import WORKSPACE
from gpueinsum.backends.cuda.events import step_seconds
from gpueinsum.backends.cuda.geometry import Source
from gpueinsum.backends.cuda.graph import forget_graphs, is_worth_a_graph, launch_or_replay
from gpueinsum.backends.cuda.lower import assemble
from gpueinsum.backends.cuda.program import Address, Program
from gpueinsum.backends.cuda.runner import Run, launcher, runner
from gpueinsum.backends.cuda.runtime import CupyRuntime
from gpueinsum.backends.cuda.source import KERNELS
from gpueinsum.backends.cuda.streaming import choose_streamed, part_loader
from gpueinsum.backends.cuda.sums import sum_products
from gpueinsum.backends.operands import host_array, on_device
from gpueinsum.backends.slices import bind_slices
from gpueinsum.backends.stopwatch import Call
from gpueinsum.costs.counts import item_bytes
from gpueinsum.costs.machine import profile_for
from gpueinsum.costs.profile import Profile
from gpueinsum.errors import DeviceError, DtypeError, OperandError
from gpueinsum.language.plan import Plan
from gpueinsum.language.strides import contiguous
from gpueinsum.language.subscripts import Shape, alphabet
from gpueinsum.schedule.gemm import PACK_BYTES
from gpueinsum.schedule.problem import Strides
from gpueinsum.schedule.schedule import Schedule, schedule
from gpueinsum.schedule.select import cheapest

Array = Any  # CuPy's, or the simulated device's
_Given = TypeVar("_Given")
_Made = TypeVar("_Made")

_DTYPES = {kernel.source for kernel in KERNELS}
_KEPT = 16  # programs of a bound plan, for the strides and devices it was called with last


class CudaBackend:
    """Runs plans on the current CUDA device."""

    name = "cuda"

    def __init__(self, runtime: CupyRuntime) -> None:
        self.runtime = runtime
        self._lacks: dict[int, tuple[str, ...]] = {}  # by device
        self._lock = threading.Lock()  # of what is refused

    @property
    def profile(self) -> Profile:
        """The measured rates of the device, and what it refused so far."""
        return _profile_without(profile_for("cuda"), self._lacks_here())

    def _lacks_here(self) -> tuple[str, ...]:
        return self._lacks.get(self.runtime.device(), ())

    def refuse(self, refused: RefusedError, known: tuple[str, ...]) -> None:
        """From now on such work is done in a plainer way on this device. Raises DeviceError if there is none.

        What was `known` when the work was prepared is a profile's `lacks`. If more is known by now, nothing is done.
        """
        with self._lock:
            if known != self._lacks_here():
                return
            way = next((way for way in refused.ways if way not in known), None)
            if way is None:
                raise DeviceError(f"this device and its libraries cannot compute {refused}") from refused
            self._lacks[self.runtime.device()] = (*known, way)
        warnings.warn(f"this device refuses {way}, and does without: {refused}", RuntimeWarning, stacklevel=2)

    def _without_refused(self, make: Callable[[], Callable[[_Given], _Made]]) -> Callable[[_Given], _Made]:
        """What `make` gives, made anew where the device refuses something of it."""
        made = self._lacks_here(), make()

        def attempt(given: _Given) -> _Made:
            nonlocal made
            while True:
                known, run = made
                try:
                    return run(given)
                except RefusedError as refused:
                    self.refuse(refused, known)
                    known = self._lacks_here()
                    made = known, make()

        return attempt

    def free_memory(self) -> int:
        """Give back to CuPy's pool what CUDA graphs and cuBLAS hold between calls; how many bytes that is."""
        return forget_graphs() + self.runtime.free_memory()

    def check(self, operand: object) -> Array:
        """The operand as an array on the current device if it is on one, else as numpy's, if CUDA can hold it."""
        if type(operand) is not self.runtime.array_type and not on_device(operand):
            array = host_array(operand)
            self.compute_dtype(array.dtype)
            return array.astype(array.dtype.newbyteorder("="), copy=False)
        array = self.runtime.to_device(operand)
        item = array.dtype.itemsize
        misaligned = self.runtime.pointer(array) % item  # complex ones are read whole, too
        for stride in array.strides:
            misaligned |= stride % item
        if misaligned:
            raise OperandError(f"{array.dtype} elements lie at addresses that are no multiples of {item}")
        return array

    def asarray(self, operand: object) -> Array:
        """The operand on the current device; what CUDA cannot hold is refused before it goes there."""
        return self.runtime.to_device(self.check(operand))

    def kinds(self, arrays: Sequence[Array]) -> list[Any]:
        """Of CuPy's own arrays the shape and the dtype of each in turn, then in a tuple backend, device and strides.

        Nothing if `asarray` would refuse one of them, as it says why.
        """
        device = self.runtime.device()
        kinds: list[Any] = []
        place: list[Any] = [self, device]
        for array in arrays:
            dtype, memory, strides = array.dtype, array.data, array.strides
            item = dtype.itemsize
            if memory.device_id != device or memory.ptr % item:
                return []
            for stride in strides:
                if stride % item:
                    return []
            kinds.append(array.shape)
            kinds.append(dtype)
            place.append(strides)
        kinds.append(tuple(place))
        return kinds

    def compute_dtype(self, dtype: np.dtype[Any]) -> np.dtype[Any]:
        """The dtype itself; half precision accumulates in float32 inside each step. Raises DtypeError."""
        if dtype.name not in _DTYPES:
            raise DtypeError(f"{dtype} cannot be computed with on CUDA: convert it first, or compute on the CPU")
        return dtype

    def context(self) -> Hashable:
        return self.runtime.context()

    def memory_bytes(self) -> int:
        """What the current device has."""
        return self.runtime.memory()

    def streamed(self, plan: Plan, operands: Sequence[Array], memory: int | None) -> Collection[int]:
        runtime = self.runtime
        on_host = [number for number, operand in enumerate(operands) if runtime.on_host(operand)]
        if not on_host:
            return ()
        room = runtime.free_bytes() - WORKSPACE if memory is None else memory
        return choose_streamed(plan, self.profile, operands, on_host, room)

    def loader(self, dtype: np.dtype[Any], nbytes: Sequence[int]) -> AbstractContextManager[Load]:
        return part_loader(self.runtime, dtype, nbytes)

    def arrange(self, result: Array, order: str) -> Array:
        """In C or F order, copied only if it is not: by a kernel of ours, since CuPy's copy of a transpose is slow."""
        flags = result.flags
        if flags.c_contiguous if order == "C" else flags.f_contiguous:
            return result
        ordered = self._without_refused(lambda: self._c_ordered)
        return ordered(result) if order == "C" else ordered(result.T).T

    def _c_ordered(self, array: Array) -> Array:
        runtime, dtype, item = self.runtime, array.dtype, array.dtype.itemsize
        term = "".join(islice(alphabet(), array.ndim))
        sizes = tuple(zip(term, array.shape, strict=True))
        source = Source(term, tuple([stride // item for stride in array.strides]))
        copy = sum_products((source,), term, sizes, dtype.name, runtime.processors, self.profile.lacks).first
        memory = runtime.allocate(array.size * item)
        runtime.prepare(copy.at(Address(0, 0), Address(1, 0)))([runtime.pointer(array), memory.ptr])
        strides = contiguous(term, dict(sizes))
        return runtime.array(array.shape, dtype, memory, [strides[label] * item for label in term])

    def store(self, result: Array, out: Array) -> None:
        self.runtime.store(result, out)

    def add(self, part: Array, out: Array) -> None:
        self.runtime.add(part, out)

    def hand_back(self, result: Array, stays: bool) -> Any:
        """The result as the caller gets it: on the host again unless it `stays` on the device."""
        if stays:
            return result
        host = self.runtime.to_host(result)
        return host[()] if host.ndim == 0 else host

    def bind(self, plan: Plan, mode: Mode = PLAIN) -> Callable[..., tuple[Array, ...]]:
        """A plan as a function of its operands, scheduled anew for operands of other strides and on other devices.

        A graph is replayed from the second call on (`graph.py`). Launched one by one, the same work gives the same bits
        from run to run. cuBLAS may choose other kernels for the products of a graph: so a graph is refused by
        ValueError if `deterministic`, and None means none.
        """
        loaded, device = self._load(plan, mode), self.runtime.device
        return lambda *operands: loaded(device(), *[operand.strides for operand in operands])(operands)

    def bind_single(
        self, plan: Plan, mode: Mode = PLAIN, strides: Sequence[tuple[int, ...]] | None = None
    ) -> Callable[..., Array]:
        """`bind` for a plan of one output: that output itself; made now for operands of these strides, if given."""
        loaded, device = self._load(plan, mode), self.runtime.device
        if strides is not None:
            run = loaded(device(), *strides)
            return lambda *operands: run(operands)[0]
        return lambda *operands: loaded(device(), *[operand.strides for operand in operands])(operands)[0]

    def program(
        self,
        plan: Plan,
        strides: Sequence[tuple[int, ...]],
        precision: str | None = None,
        autotune: bool = False,
        aligned: bool = True,
    ) -> Program:
        """What runs the plan for operands of these strides (in bytes) on the current device.

        If `aligned`, it counts on `Program.packed_operands` beginning at multiples of 16 bytes. With `autotune` the
        way of each product is chosen by the clock.
        """
        item = item_bytes(plan.dtype)
        elements = [tuple([stride // item for stride in own]) for own in strides]
        choose = Tuner(self, choices_for("cuda")).choose if autotune else cheapest
        profile = self.profile
        if not profile.has(f"precision {precision}", plan.dtype):
            precision = None
        made = schedule(plan, profile, elements, precision, aligned, choose)
        return assemble(made, self.runtime.processors)

    def load(self, schedule: Schedule) -> Callable[..., tuple[Array, ...]]:
        """A schedule as a function of operands that lie as it says, each at a multiple of 16 bytes."""
        program = assemble(schedule, self.runtime.processors)
        run = runner(program, self.runtime, launcher(program, self.runtime))
        return lambda *operands: run(operands)

    def step_seconds(self, schedule: Schedule, operands: Sequence[Array]) -> list[float]:
        return step_seconds(schedule, self.runtime, operands)

    def random(self, shape: Shape, strides: Strides, dtype: str) -> Array:
        """An array of random numbers with these strides, in elements. Raises MemoryError.

        What is uploaded is copied behind itself until the memory is full.
        """
        runtime, some = self.runtime, random_numbers(dtype)
        ends = [(size - 1) * stride for size, stride in zip(shape, strides, strict=True)]
        before, item = -sum(end for end in ends if end < 0), some.itemsize
        elements = before + sum(end for end in ends if end > 0) + 1
        memory, full = runtime.allocate(elements * item), min(some.size, elements) * item
        source = runtime.to_device(some)  # which must live until it is copied
        runtime.copy(memory.ptr, runtime.pointer(source), full)
        while full < elements * item:
            more = min(full, elements * item - full)
            runtime.copy(memory.ptr + full, memory.ptr, more)
            full += more
        flat = runtime.array((elements,), some.dtype, memory, (item,))
        return runtime.strided(flat[before:], shape, [stride * item for stride in strides])

    def seconds(self, call: Call, count: int) -> float:
        """Seconds that the device takes for so many calls, one after the other."""
        return self.runtime.seconds(call, count)

    def _load(self, plan: Plan, mode: Mode) -> Callable[..., Run]:
        """A function of the device and the operands' strides, which keeps what it loaded last."""
        precision, graph, deterministic, autotune, _ = mode
        if graph and deterministic:
            raise ValueError("graph=True may give other bits than the first call, and deterministic=True refuses that")
        if plan.sliced:
            in_slices = bind_slices(plan, self, mode)
            return lambda *_: lambda operands: in_slices(*operands)

        def load(_: Hashable, *strides: tuple[int, ...]) -> Run:
            return self._without_refused(lambda: ways(strides))

        def ways(strides: Sequence[tuple[int, ...]]) -> Run:
            """For operands that begin at a pack, and for others."""
            program, run = ready(strides, aligned=True)
            packed, pointer = program.packed_operands, self.runtime.pointer
            if not packed:
                return run
            anywhere = lru_cache(maxsize=1)(lambda: ready(strides, aligned=False)[1])
            if any(program.operands[number].before % PACK_BYTES for number in packed):  # a graph would not align them
                return anywhere()
            return lambda operands: (
                anywhere() if any(pointer(operands[number]) % PACK_BYTES for number in packed) else run
            )(operands)

        def ready(strides: Sequence[tuple[int, ...]], aligned: bool) -> tuple[Program, Run]:
            program = self.program(plan, strides, precision, autotune, aligned)
            launched = launcher(program, self.runtime)
            if program.work and (graph or (graph is None and not deterministic and is_worth_a_graph(program))):
                launched = launch_or_replay(program, self.runtime, launched, warns=bool(graph))
            return program, runner(program, self.runtime, launched)

        return lru_cache(maxsize=_KEPT)(load)


@lru_cache(maxsize=8)
def _profile_without(profile: Profile, lacks: tuple[str, ...]) -> Profile:
    return replace(profile, lacks=lacks) if lacks else profile
