"""A step as a plan of its own, for tests of what a backend does with it."""

from gpueinsum.backends.cuda.backend import CudaBackend
from gpueinsum.language.plan import Plan
from gpueinsum.language.steps import sides


def plan_of(step, sizes, dtype):
    """The plan of nothing but this step, of as many operands as it reads."""
    terms = dict(sides(step))
    inputs = tuple(terms[number] for number in range(len(terms)))
    return Plan(inputs, (step,), (len(inputs),), tuple(sizes.items()), dtype)


def bound(runtime, step, sizes, dtype):
    return CudaBackend(runtime).bind_single(plan_of(step, sizes, dtype))
