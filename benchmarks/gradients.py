"""The table of gradients: the value and all gradients, beside the value alone, PyTorch, JAX and einsums by hand."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from functools import cache, partial
from typing import Any

import numpy as np

import gpueinsum as ge
from benchmarks.measure import THREADS, Array, Call, Peer, Result, Table
from benchmarks.workloads import GRADIENTS, Workload, reference
from gpueinsum.cost import step_costs, total_flops
from gpueinsum.parts import fold_constants

FORWARD, VJP, SEPARATE = "forward", "vjp", "separate"
_OTHERS = (SEPARATE, "torch", "jax")

# A chain of large matrix products takes two products backward for each one forward, so 3 times the forward pass in all.
# Past this something else than the products takes the time.
_LARGEST_RATIO = 3.3
# A row counts as GEMM-bound from so many operations for each byte that its plan's steps move. Rows below have 3.1 at
# the most, rows above 11.8 at the least.
_GEMM_BOUND = 8


# ---------------------------------------------------------------- who is measured


def peers(workload: Workload, xp: Any) -> dict[str, Peer]:
    """gpueinsum's value, all else value and gradients; without those that are not installed."""
    operands, cotangent = workload.operands(), workload.cotangent()
    expected = by_hand(workload, reference)(*operands, cotangent)
    # Without the conjugates of the convention of gpueinsum and PyTorch, which point the way of steepest ascent.
    transposed = (expected[0], *(gradient.conj() for gradient in expected[1:]))
    ours = [*workload.operands(xp), workload.cotangent(xp)]
    found = {
        FORWARD: Peer(partial(ge.einsum, workload.equation, *ours[:-1]), expected[:1]),
        VJP: Peer(partial(_vjp, workload.equation, *ours), expected),
        SEPARATE: Peer(partial(by_hand(workload, ge.einsum), *ours), expected),
    }
    # CuPy's events time PyTorch, too, which works on the same default stream, and JAX, for which the host waits.
    on_gpu = xp is not np
    if (torch := _torch()) and (torch.cuda.is_available() or not on_gpu):
        found["torch"] = Peer(_torch_call(workload, operands, cotangent, "cuda" if on_gpu else "cpu"), expected)
    if (jax := _jax()) and (jax.default_backend() == "gpu" or not on_gpu):
        found["jax"] = Peer(_jax_call(workload, operands, cotangent, "gpu" if on_gpu else "cpu"), transposed)
    return found


def _vjp(equation: str, *arrays: Array) -> tuple[Array, ...]:
    *operands, cotangent = arrays
    value, pullback = ge.vjp(equation, *operands)
    return (value, *pullback(cotangent))


def by_hand(workload: Workload, einsum: Callable[..., Array]) -> Callable[..., tuple[Array, ...]]:
    """The function of the operands and the cotangent that computes value and gradients, each an einsum of its own.

    The gradient of an operand is the expression with the cotangent in the operand's place, and all others conjugated.
    """
    equations = [workload.transposed(position) for position in range(len(workload.shapes))]

    def call(*arrays: Array) -> tuple[Array, ...]:
        *operands, cotangent = arrays
        factors = [operand.conj() for operand in operands]  # real ones as they are
        gradients = [
            einsum(equation, *factors[:position], cotangent, *factors[position + 1 :])
            for position, equation in enumerate(equations)
        ]
        return (einsum(workload.equation, *operands), *gradients)

    return call


def _torch_call(workload: Workload, operands: Sequence[Array], cotangent: Array, device: str) -> Call:
    torch = _torch()
    leaves = [torch.tensor(operand, device=device, requires_grad=True) for operand in operands]
    seed = torch.tensor(cotangent, device=device)

    def call() -> tuple[Array, ...]:
        value = torch.einsum(workload.equation, *leaves)
        return (value, *torch.autograd.grad(value, leaves, seed))

    return call


def _jax_call(workload: Workload, operands: Sequence[Array], cotangent: Array, platform: str) -> Call:
    jax = _jax()
    [device, *_] = jax.devices(platform)
    einsum = partial(jax.numpy.einsum, workload.equation, precision="highest")
    arrays = [jax.device_put(array, device) for array in (*operands, cotangent.conj())]

    @jax.jit
    def joint(*arrays: Array) -> tuple[Array, ...]:
        value, pullback = jax.vjp(einsum, *arrays[:-1])
        return (value, *pullback(arrays[-1]))

    return lambda: jax.block_until_ready(joint(*arrays))


@cache
def _torch() -> Any:
    """PyTorch with as many threads as BLAS, or None. Its einsum takes opt_einsum's path, as opt_einsum is installed."""
    try:
        import torch
    except ImportError:
        return None
    if threads := os.environ.get(THREADS):
        torch.set_num_threads(int(threads))
    return torch


@cache
def _jax() -> Any:
    """JAX with double precision and as many threads as BLAS, or None.

    XLA sizes its pool by NPROC. The flags that are passed from hand to hand, --xla_cpu_multi_thread_eigen=false and
    intra_op_parallelism_threads=1, leave it two threads on two cores; NPROC=1 leaves one (jaxlib 0.10.2).
    """
    if threads := os.environ.get(THREADS):
        os.environ["NPROC"] = threads
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # else it takes most of a GPU's memory for itself
    try:
        import jax
    except ImportError:
        return None
    jax.config.update("jax_enable_x64", True)
    return jax


# ---------------------------------------------------------------- what the plans say


def flops_ratio(workload: Workload) -> float:
    """Operations of the plan and its backward pass over those of the plan; what both compute is counted once."""
    plan = _plan(workload)
    # The backward plan starts from operands; what it computes of them alone `ge.vjp` has from the forward pass.
    _, backward = fold_constants(plan.vjp(), range(len(plan.inputs)))
    return 1 + total_flops(backward) / total_flops(plan)


def flops_per_byte(workload: Workload) -> float:
    """Operations of the forward plan for each byte that its steps read and write."""
    plan = _plan(workload)
    return total_flops(plan) / sum(cost.bytes_moved for cost in step_costs(plan))


def is_gemm_bound(workload: Workload) -> bool:
    """Whether matrix products take the time, rather than memory."""
    return flops_per_byte(workload) >= _GEMM_BOUND


def _plan(workload: Workload) -> ge.Plan:
    return ge.einsum_plan(workload.equation, *workload.shapes, dtype=workload.dtype)


# ---------------------------------------------------------------- the table


def header(xp: Any) -> str:
    """What is counted, how many threads the others have, and the columns' names."""
    return "\n".join(
        [
            f"{FORWARD}: ge.einsum of {xp.__name__} arrays; others: the value and the gradients of all operands",
            f"{VJP}: ge.vjp, pullback; {SEPARATE}: an einsum for each; torch: einsum, grad; jax: jit of value and vjp",
            "flops: those of the plan and its backward pass, intermediates counted once, over the plan's",
            f"*: GEMM-bound, {_GEMM_BOUND} flops or more for each byte that the plan's steps move; {_threads()}",
            f"{'workload':<22}{'dtype':<11}{FORWARD:>13}{VJP:>13}{'vjp/forward':>13}  {'quartiles':<11}{'flops':>7}"
            + "".join(f"{peer:>13}" for peer in _OTHERS),
        ]
    )


def row(result: Result) -> str:
    """One workload: medians, the ratio of ours and what the plan makes one expect."""
    workload = result.workload
    quartiles = result.quartiles(VJP, FORWARD)
    low, middle, high = (f"{ratio:.2f}" for ratio in quartiles) if quartiles else ("", "-", "")
    name = f"{workload.name}{' *' if is_gemm_bound(workload) else ''}"
    line = (
        f"{name:<22}{workload.dtype:<11}{result.cell(FORWARD):>13}{result.cell(VJP):>13}{middle:>13}"
        f"  {f'{low}-{high}' if quartiles else '':<11}{flops_ratio(workload):>7.2f}"
        + "".join(f"{result.cell(peer):>13}" for peer in _OTHERS)
    )
    return "\n".join([line, *(f"  {peer}: {fault}" for peer, fault in result.faults.items())])


def summary(results: Sequence[Result], xp: Any) -> str:
    """The largest ratio where matrix products take the time, and the rows whose ratio is larger than it should be."""
    ratios = {
        result.workload.name: quartiles[1]
        for result in results
        if is_gemm_bound(result.workload) and (quartiles := result.quartiles(VJP, FORWARD))
    }
    if not ratios:
        return "no GEMM-bound row to compare"
    largest = max(ratios, key=ratios.__getitem__)
    above = [name for name, ratio in ratios.items() if ratio > _LARGEST_RATIO]
    return (
        f"GEMM-bound, value and gradients take at most {ratios[largest]:.2f} times as long as the value ({largest}); "
        f"above {_LARGEST_RATIO}: {', '.join(above) or 'none'}"
    )


def facts(result: Result) -> dict[str, Any]:
    """What JSON has of a result, beside its times."""
    return {
        "ratio_quartiles": result.quartiles(VJP, FORWARD),
        "flops_ratio": flops_ratio(result.workload),
        "flops_per_byte": flops_per_byte(result.workload),
        "is_gemm_bound": is_gemm_bound(result.workload),
    }


def _threads() -> str:
    """What was set so that PyTorch and JAX have as many threads as BLAS."""
    threads = os.environ.get(THREADS)
    set_to: Mapping[str, Any] = {f"torch.set_num_threads({threads})": _torch(), f"NPROC={threads} for XLA": _jax()}
    names = [name for name, library in set_to.items() if library and threads]
    return "; ".join(names) or "no threads set for torch and XLA"


TABLE = Table("gradients", GRADIENTS, frozenset({FORWARD, VJP, SEPARATE}), peers, header, row, summary, facts)
