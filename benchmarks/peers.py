"""Who is measured on a row: gpueinsum, and every library that is installed, each as its users call it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import numpy as np
import opt_einsum

import gpueinsum as ge
from benchmarks import libraries
from benchmarks.check import expected
from benchmarks.devices import Call, Device
from benchmarks.measure import Peer, nothing
from benchmarks.results import OURS
from benchmarks.workloads import Array, Workload

# A loop over all labels forms 10^8 to 10^9 products a second: past this it would take the row's time, and is left out.
_MOST_POINTS = 5 * 10**7
_MOST_OPERATIONS = 3 * 10**9  # likewise, of what numpy makes of several operands
# On a CPU such calls take ten milliseconds, and more than a second: past them a pair is not measured with those that
# hand it to numpy, PyTorch or JAX as it is; these are measured.
_LONG, _LONGEST = 10**9, 10**11
# The letters that numpy, CuPy, PyTorch and cuTensorNet have for labels.
_LETTERS = 52


class LeftOutError(Exception):
    """Why a peer is not tried on a row."""


Builder = Callable[["Job"], Sequence[Call]]  # a call for each set of operands


class Job:
    """One row on one device: its operands in every library, so many sets of them; the peers wanted, None for all."""

    def __init__(
        self,
        workload: Workload,
        place: Device,
        sets: int,
        with_cotangent: bool = False,
        wanted: Sequence[str] | None = None,
    ) -> None:
        self.workload = workload
        self.place = place
        self.wanted = wanted
        self.stored = workload.stored()
        self.extra = [workload.cotangent()] if with_cotangent else []
        self._sets = range(sets)
        self._opened = ExitStack()

    def __enter__(self) -> Job:
        return self

    def __exit__(self, *error: object) -> None:
        self._opened.close()

    def open(self, manager: Any) -> Any:
        """What a peer holds until the row is done."""
        return self._opened.enter_context(manager)

    @property
    def host(self) -> list[Array]:
        """The operands, and the cotangent if there is one, as numpy's."""
        return [*self.workload.operands(self.stored), *self.extra]

    @cached_property
    def sets(self) -> list[list[Array]]:
        """On the device: an array each, in each set, and the cotangent in each."""
        return [self._seen(self.place.put, self.place.as_strided) for _ in self._sets]

    @cached_property
    def torch_sets(self) -> list[list[Array]]:
        """On the CPU the memory of `sets`. PyTorch's precision is the whole process's, so it is set for each row."""
        torch = _installed(libraries.torch())
        torch.backends.cuda.matmul.allow_tf32 = self.workload.precision == "tf32"
        if self.place.kind == "cpu":
            return [[_as_torch(torch, x) for x in arrays] for arrays in self.sets]
        if not torch.cuda.is_available():
            raise LeftOutError("PyTorch finds no GPU")
        return [self._seen(lambda x: _as_torch(torch, x).to("cuda"), torch.as_strided) for _ in self._sets]

    @cached_property
    def jax_sets(self) -> list[list[Array]]:
        """Its arrays have no strides, so patches are written out."""
        jax = _installed(libraries.jax())
        platform = {"cpu": "cpu", "cuda": "gpu"}[self.place.kind]
        try:
            [home, *_] = jax.devices(platform)
        except RuntimeError as error:
            raise LeftOutError(f"JAX finds no GPU: {' '.join(str(error).split()):.120}") from error
        return [[jax.device_put(np.array(x, order="C"), home) for x in self.host] for _ in self._sets]

    def _seen(self, put: Callable[[Array], Array], as_strided: Callable[..., Array]) -> list[Array]:
        stored = [put(array) for array in self.stored]
        return [*self.workload.operands(stored, as_strided), *map(put, self.extra)]


@dataclass(frozen=True, slots=True)
class Peers:
    """Who is measured on a row, why others are not, and the plan that gpueinsum runs; `own` of the peers are ours."""

    peers: Mapping[str, Peer]
    left_out: Mapping[str, str]
    plan: ge.Plan
    own: Sequence[str] = (OURS,)


def peers(job: Job) -> Peers:
    """Everybody on a row of the table of einsums."""
    wanted = [expected(job.workload, job.workload.equation, job.host)]
    found, left_out = build(job, _BUILDERS[job.place.kind])
    waits = {"jax": wait_for_jax(job), "opt_einsum jax": wait_for_jax(job)}
    timed = {name: Peer(calls, wanted, waits.get(name, nothing), compiles(name, job)) for name, calls in found.items()}
    return Peers(timed, left_out, plan_of(job.workload))


def plan_of(workload: Workload) -> ge.Plan:
    """The plan that gpueinsum runs for a row of the table of einsums."""
    return ge.einsum_plan(workload.equation, *workload.shapes, dtype=workload.dtype)


def build(job: Job, builders: Mapping[str, Builder]) -> tuple[dict[str, Sequence[Call]], dict[str, str]]:
    """The calls that each builder makes, and why some make none; where one fails, a call that fails so."""
    found: dict[str, Sequence[Call]] = {}
    left_out = {}
    for name, builder in builders.items():
        try:
            if name in PEERS and job.wanted is not None and name not in job.wanted:
                raise LeftOutError("not asked for")
            found[name] = builder(job)
        except LeftOutError as reason:
            left_out[name] = str(reason)
        except Exception as error:  # which the check of its result will report
            found[name] = [partial(_fail, error.with_traceback(None))]  # whose frames hold the row's arrays
    return found, left_out


def _fail(error: Exception) -> Array:
    raise error


def compiles(name: str, job: Job) -> bool:
    """JAX does, and on a GPU everybody, if only their kernels."""
    return "jax" in name or job.place.kind == "cuda"


def wait_for_jax(job: Job) -> Callable[[Any], Any]:
    """On a GPU its work is in a stream of its own, and waited for at a sample's end; on a CPU each call waits."""
    if job.place.kind == "cpu" or libraries.jax() is None:
        return nothing
    wait: Callable[[Any], Any] = libraries.jax().block_until_ready
    return wait


# ---------------------------------------------------------------- each library, as its users call it


def _ours(job: Job) -> Sequence[Call]:
    """A pair by `einsum`; more operands by an expression, planned ahead as opt_einsum's and cotengra's are."""
    equation, shapes, precision = job.workload.equation, job.workload.shapes, job.workload.precision
    if len(shapes) > 2:
        expression = ge.contract_expression(equation, *shapes, dtype=job.workload.dtype, precision=precision)
        return [partial(expression, *arrays) for arrays in job.sets]
    return [partial(ge.einsum, equation, *arrays, precision=precision) for arrays in job.sets]


def _one_loop(job: Job) -> Sequence[Call]:
    """The library's einsum without an order: numpy's loop over all labels."""
    if job.workload.points > _MOST_POINTS:
        raise LeftOutError(f"more than {_MOST_POINTS:.0e} products in one loop")
    return _einsum(job, optimize=False)


def _optimized(job: Job) -> Sequence[Call]:
    """In the library's own order; numpy's keeps intermediates smaller than the operands, if it takes ever so long."""
    _needs_letters(job)
    if job.place.kind == "cuda":
        return _einsum(job, optimize=True)
    scalars = [np.broadcast_to(np.zeros(()), shape) for shape in job.workload.shapes]
    path = np.einsum_path(job.workload.equation, *scalars, optimize=True)[0][1:]
    operations = float(opt_einsum.contract_path(job.workload.equation, *scalars, optimize=path)[1].opt_cost)
    if len(scalars) > 2 and operations > _MOST_OPERATIONS:
        raise LeftOutError(f"takes {operations:.1e} operations in its own order, most of them in one loop")
    return _einsum(job, optimize=True)


def _einsum(job: Job, optimize: bool) -> Sequence[Call]:
    _needs_letters(job)
    xp = job.place.xp
    return [partial(xp.einsum, job.workload.equation, *arrays, optimize=optimize) for arrays in job.sets]


def _cupy(job: Job) -> Sequence[Call]:
    """In pairs by CuPy's own matmul; in tf32 where the row says so."""
    calls = _optimized(job)
    if job.workload.precision == "tf32":
        return [partial(_with_tf32, call) for call in calls]
    return calls


def _with_tf32(call: Call) -> Array:
    from cupy._core import _routines_linalg as linalg

    before = linalg.get_compute_type(np.float32)
    linalg.set_compute_type(np.float32, linalg.COMPUTE_TYPE_TF32)
    try:
        return call()
    finally:
        linalg.set_compute_type(np.float32, before)


def _cupy_cutensor(job: Job) -> Sequence[Call]:
    accelerator = _installed(libraries.cutensor())
    if job.workload.precision or job.workload.dtype not in ("float32", "float64", "complex64", "complex128"):
        raise LeftOutError(f"CuPy does not hand {job.workload.precision or job.workload.dtype} to cuTENSOR")
    return [partial(_with_cutensor, accelerator, call) for call in _optimized(job)]


def _with_cutensor(accelerator: Any, call: Call) -> Array:
    before = accelerator.get_routine_accelerators()
    accelerator.set_routine_accelerators([*before, "cutensor"])
    try:
        return call()
    finally:
        accelerator.set_routine_accelerators(before)


def _opt_einsum(job: Job) -> Sequence[Call]:
    _is_no_long_pair(job)
    _is_float32(job)
    return _expression(job, job.sets)


def _opt_einsum_torch(job: Job) -> Sequence[Call]:
    _is_no_long_pair(job)
    return _expression(job, job.torch_sets)


def _opt_einsum_jax(job: Job) -> Sequence[Call]:
    _is_no_long_pair(job)
    _is_float32(job)
    return each_waiting(job, _expression(job, job.jax_sets, libraries.jax().jit))


def _expression(
    job: Job, sets: Sequence[Sequence[Array]], compiled: Callable[[Call], Call] = lambda call: call
) -> Sequence[Call]:
    """With the path found before, as opt_einsum advises for repeated calls; JAX's compiled."""
    expression = opt_einsum.contract_expression(job.workload.equation, *job.workload.shapes, optimize="auto")
    call = compiled(expression)
    return [partial(call, *arrays) for arrays in sets]


def _cotengra(job: Job) -> Sequence[Call]:
    _is_no_long_pair(job, _LONGEST)
    _is_float32(job)
    cotengra = _installed(libraries.cotengra())
    # Its own default, but that it starts no processes to search in, which would outlive the search.
    optimizer = cotengra.AutoOptimizer(parallel=False)
    expression = cotengra.einsum_expression(job.workload.equation, *job.workload.shapes, optimize=optimizer)
    return [partial(expression, *arrays) for arrays in job.sets]


def _torch(job: Job) -> Sequence[Call]:
    _needs_letters(job)
    sets = job.torch_sets
    return [partial(libraries.torch().einsum, job.workload.equation, *arrays) for arrays in sets]


def _jax(job: Job) -> Sequence[Call]:
    sets, jax = job.jax_sets, libraries.jax()
    precision = "tensorfloat32" if job.workload.precision == "tf32" else None
    einsum = jax.jit(partial(jax.numpy.einsum, job.workload.equation, precision=precision))
    return each_waiting(job, [partial(einsum, *arrays) for arrays in sets])


def each_waiting(job: Job, calls: Sequence[Call]) -> Sequence[Call]:
    if job.place.kind == "cuda":
        return calls
    wait = libraries.jax().block_until_ready
    return [partial(_then, wait, call) for call in calls]


def _then(wait: Callable[[Array], Array], call: Call) -> Array:
    return wait(call())


def _cutensornet(job: Job) -> Sequence[Call]:
    """A `Network` that is kept, with the path found before; not autotuned."""
    _is_float32(job)
    _needs_letters(job)  # it takes other characters, but not all that opt_einsum's symbols have
    open_network = _installed(libraries.cutensornet()).Network
    networks = [job.open(open_network(job.workload.equation, *arrays)) for arrays in job.sets]
    for network in networks:
        network.contract_path()
    return [network.contract for network in networks]


_ANYWHERE: dict[str, Builder] = {
    "opt_einsum": _opt_einsum,
    "opt_einsum torch": _opt_einsum_torch,
    "opt_einsum jax": _opt_einsum_jax,
    "cotengra": _cotengra,
    "torch": _torch,
    "jax": _jax,
}
_BUILDERS: dict[str, dict[str, Builder]] = {
    "cpu": {OURS: _ours, "numpy": _one_loop, "numpy optimized": _optimized, **_ANYWHERE},
    "cuda": {OURS: _ours, "cupy": _cupy, "cupy cutensor": _cupy_cutensor, **_ANYWHERE, "cutensornet": _cutensornet},
}
PEERS = tuple(sorted({name for builders in _BUILDERS.values() for name in builders} - {OURS}))


def _installed(library: Any) -> Any:
    if library is None:
        raise LeftOutError("not installed")
    return library


def _needs_letters(job: Job) -> None:
    if len(job.workload.size) > _LETTERS:
        raise LeftOutError(f"more than {_LETTERS} labels")


def _is_float32(job: Job) -> None:
    if job.workload.precision:
        raise LeftOutError(f"not told {job.workload.precision}")


def _is_no_long_pair(job: Job, longest: int = _LONG) -> None:
    """opt_einsum and cotengra leave a pair to the library, which is measured as itself."""
    if job.place.kind == "cpu" and len(job.stored) == 2 and 2 * job.workload.points > longest:
        raise LeftOutError("a long call, which for a pair is the library's own")


def _as_torch(torch: Any, array: np.ndarray[Any, Any]) -> Any:
    """The same memory and strides as a tensor; numpy's bfloat16 is unknown to PyTorch."""
    if array.dtype.name == "bfloat16":
        return torch.from_numpy(array.view(np.int16)).view(torch.bfloat16)
    return torch.from_numpy(array)
