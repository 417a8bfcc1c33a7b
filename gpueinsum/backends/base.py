"""What a backend is: it binds plans, and does for arrays what a call needs before and after."""

from __future__ import annotations

from collections.abc import Callable, Collection, Hashable, Sequence
from contextlib import AbstractContextManager
from typing import Any, NamedTuple, Protocol

import numpy as np

from gpueinsum.backends.stopwatch import Call
from gpueinsum.costs.profile import Profile
from gpueinsum.errors import DeviceError
from gpueinsum.language.plan import Plan
from gpueinsum.language.subscripts import Shape
from gpueinsum.schedule.problem import Strides
from gpueinsum.schedule.schedule import Schedule

Array = Any  # numpy's or CuPy's


class Mode(NamedTuple):
    """How a plan is to be run, where a device leaves a choice; on the CPU `autotune` alone.

    `precision` of products, as in `einsum`. With `graph` the plan is replayed as a CUDA graph, with None where that is
    worth it. `deterministic` refuses whatever may give other bits when it is done again. With `autotune` ways to run a
    step are chosen by the clock. `memory` is how many bytes of a GPU a run in slices may take, with the operands that
    it brings there; None means all that are free.
    """

    precision: str | None = None
    graph: bool | None = False
    deterministic: bool = False
    autotune: bool = False
    memory: int | None = None


PLAIN = Mode()

# From the number of an operand and a view of it to this part as an array of the backend's, in the loader's dtype. The
# array may be used until the operand's next part is loaded.
Load = Callable[[int, Array], Array]


class RefusedError(DeviceError):
    """A device, or a library of its own, refuses some work as it is, which may be done in another way.

    `ways` name what a plainer way does without, the first of them at first; nothing if there is no plainer way.
    """

    def __init__(self, work: object, ways: tuple[str, ...], error: Exception) -> None:
        super().__init__(f"{work}: {error}")
        self.ways = ways


class Backend(Protocol):
    """Runs plans on one kind of device."""

    name: str

    @property
    def profile(self) -> Profile:
        """The measured rates of the device."""

    def __hash__(self) -> int: ...

    def check(self, operand: object) -> Array:
        """The operand as an array of numpy's or of the backend's, where it is. Raises OperandError and DtypeError."""

    def asarray(self, operand: object) -> Array:
        """The operand as an array of the backend's. Raises OperandError and DtypeError."""

    def compute_dtype(self, dtype: np.dtype[Any]) -> np.dtype[Any]:
        """The dtype to run a plan in when the result is to have this one. Raises DtypeError."""

    def context(self) -> Hashable:
        """What an array that is kept can be used with only: a device and a stream."""

    def bind(self, plan: Plan, mode: Mode = PLAIN) -> Callable[..., tuple[Array, ...]]:
        """A function of operands of the plan's shapes and dtype, which gives the plan's outputs.

        For a plan with sliced labels operands are of any dtype, and may be on the host. An output that is an operand is
        returned as it is.
        """

    def bind_single(
        self, plan: Plan, mode: Mode = PLAIN, strides: Sequence[tuple[int, ...]] | None = None
    ) -> Callable[..., Array]:
        """`bind` for a plan of one output: that output itself.

        With `strides` (in bytes) operands must have these, and the device must be the one that is current now.
        """

    def load(self, schedule: Schedule) -> Callable[..., tuple[Array, ...]]:
        """A function of operands that lie as the schedule says."""

    def step_seconds(self, schedule: Schedule, operands: Sequence[Array]) -> list[float]:
        """Seconds of each step in one run, on operands that lie as the schedule says; the results are dropped.

        On CUDA each step is an NVTX range with its einsum as the name.
        """

    def seconds(self, call: Call, count: int) -> float:
        """Seconds of so many calls, one after the other."""

    def random(self, shape: Shape, strides: Strides, dtype: str) -> Array:
        """An array of random numbers with these strides, in elements. Raises MemoryError."""

    def streamed(self, plan: Plan, operands: Sequence[Array], memory: int | None) -> Collection[int]:
        """The operands of a plan with sliced labels that stay on the host; `memory` is a `Mode`'s."""

    def loader(self, dtype: np.dtype[Any], nbytes: Sequence[int]) -> AbstractContextManager[Load]:
        """What loads parts of operands, each of at most so many bytes in this dtype, until the context ends."""

    def arrange(self, result: Array, order: str) -> Array:
        """The result in C or F order, copied only if it is not."""

    def store(self, result: Array, out: Array) -> None:
        """Write the result into `out`; the cast was checked before."""

    def add(self, part: Array, out: Array) -> None:
        """Add an array to `out`, in the dtype of `out`."""

    def hand_back(self, result: Array, stays: bool) -> Any:
        """The result as the caller gets it; on a GPU if it `stays` there."""

    def memory_bytes(self) -> int:
        """Bytes of memory of the device."""
