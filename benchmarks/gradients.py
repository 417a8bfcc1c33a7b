"""Who is measured on a row of gradients: the value and all gradients, beside PyTorch, JAX and einsums by hand."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import gpueinsum as ge
from benchmarks import libraries
from benchmarks.check import Expected, expected
from benchmarks.devices import Call
from benchmarks.measure import Peer, nothing
from benchmarks.peers import Job, Peers, build, compiles, each_waiting, wait_for_jax
from benchmarks.results import OURS
from benchmarks.workloads import Array

FORWARD, SEPARATE, TENSORS = "forward", "separate", "tensors"
OWN = (OURS, FORWARD, SEPARATE, TENSORS)


def peers(job: Job) -> Peers:
    """Everybody on a row. The job's sets have the cotangent last."""
    wanted = wanted_gradients(job)
    ours = {OURS: _vjp, FORWARD: _forward, SEPARATE: _separate, TENSORS: _tensors}
    found, left_out = build(job, {**ours, "torch": _torch, "jax": _jax})
    is_complex = job.workload.dtype.startswith("complex")
    wants = {FORWARD: wanted[:1], "jax": wanted_gradients(job, is_adjoint=False) if is_complex else wanted}
    waits = {"jax": wait_for_jax(job)}
    timed = {
        name: Peer(calls, wants.get(name, wanted), waits.get(name, nothing), compiles(name, job))
        for name, calls in found.items()
    }
    return Peers(timed, left_out, joint_plan(job), OWN)


def joint_plan(job: Job) -> ge.Plan:
    """What `vjp` and its pullback do together."""
    *operands, _ = job.sets[0]
    return ge.vjp(job.workload.equation, *operands)[1].plan


def wanted_gradients(job: Job, is_adjoint: bool = True) -> list[Expected]:
    """The value, then each operand's gradient: the expression with the cotangent in its place, all others conjugated.

    With `is_adjoint=False` JAX's: nothing is conjugated, where the cotangent was conjugated before.
    """
    *operands, cotangent = job.host
    if not is_adjoint:
        cotangent = cotangent.conj()
    factors = [x.conj() for x in operands] if is_adjoint else operands
    gradients = [
        expected(job.workload, job.workload.transposed(i), [*factors[:i], cotangent, *factors[i + 1 :]])
        for i in range(len(operands))
    ]
    return [expected(job.workload, job.workload.equation, operands), *gradients]


# ---------------------------------------------------------------- each library, as its users call it


def _vjp(job: Job) -> Sequence[Call]:
    equation = job.workload.equation

    def call(*arrays: Array) -> tuple[Array, ...]:
        *operands, cotangent = arrays
        value, pullback = ge.vjp(equation, *operands)
        return (value, *pullback(cotangent))

    return [partial(call, *arrays) for arrays in job.sets]


def _forward(job: Job) -> Sequence[Call]:
    return [partial(ge.einsum, job.workload.equation, *operands) for *operands, _ in job.sets]


def _separate(job: Job) -> Sequence[Call]:
    call = by_hand(job, ge.einsum)
    return [partial(call, *arrays) for arrays in job.sets]


def by_hand(job: Job, einsum: Callable[..., Array]) -> Callable[..., tuple[Array, ...]]:
    """The function of the operands and the cotangent that computes value and gradients, each an einsum of its own."""
    equations = [job.workload.transposed(position) for position in range(len(job.stored))]

    def call(*arrays: Array) -> tuple[Array, ...]:
        *operands, cotangent = arrays
        factors = [operand.conj() for operand in operands]  # real ones as they are
        gradients = [
            einsum(equation, *factors[:position], cotangent, *factors[position + 1 :])
            for position, equation in enumerate(equations)
        ]
        return (einsum(job.workload.equation, *operands), *gradients)

    return call


def _tensors(job: Job) -> Sequence[Call]:
    return _autograd(job, ge.einsum)


def _torch(job: Job) -> Sequence[Call]:
    return _autograd(job)


def _autograd(job: Job, einsum: Callable[..., Array] | None = None) -> Sequence[Call]:
    """An einsum of PyTorch's tensors, its own by default, and their gradients by its autograd."""
    sets, torch = job.torch_sets, libraries.torch()  # the former says so where PyTorch is missing
    einsum = einsum or torch.einsum

    def call(leaves: Sequence[Array], cotangent: Array) -> tuple[Array, ...]:
        value = einsum(job.workload.equation, *leaves)
        return (value, *torch.autograd.grad(value, leaves, cotangent))

    return [partial(call, [x.detach().requires_grad_() for x in operands], cotangent) for *operands, cotangent in sets]


def _jax(job: Job) -> Sequence[Call]:
    sets, jax = job.jax_sets, libraries.jax()
    einsum = partial(jax.numpy.einsum, job.workload.equation)

    @jax.jit
    def joint(*arrays: Array) -> tuple[Array, ...]:
        value, pullback = jax.vjp(einsum, *arrays[:-1])
        return (value, *pullback(arrays[-1]))

    conjugated = [[*operands, cotangent.conj()] for *operands, cotangent in sets]
    return each_waiting(job, [partial(joint, *arrays) for arrays in conjugated])
