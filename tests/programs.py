"""Plans run by programs of a simulated device, for tests of what the programs are."""

from itertools import pairwise

import numpy as np

import gpueinsum as ge
from gpueinsum.backends.cuda.backend import CudaBackend

SIZES = [31, 37, 41, 43, 47, 53, 59, 61, 67, 71, 73]  # too large to be fused into one pass
SHAPES = [*pairwise(SIZES)]
CHAIN = "ab,bc,cd,de,ef,fg,gh,hi,ij,jk->ak"


def run_on(device, plan, *hosts):
    """The outputs of a plan of host arrays, and its program."""
    arrays = [device.to_device(host) for host in hosts]
    backend = CudaBackend(device)
    return backend.bind(plan)(*arrays), backend.program(plan, [array.strides for array in arrays])


def operands_of(rng, plan):
    return [rng.integers(-3, 4, plan.shape(number)).astype(plan.dtype) for number in range(len(plan.inputs))]


def chain(count, dtype="float64"):
    """The plan of a product of so many matrices, one after the other."""
    terms = CHAIN.split("->")[0].split(",")[:count]
    path = [(0, 1), *[(0, count - 1 - done) for done in range(1, count - 1)]]
    equation = f"{','.join(terms)}->a{terms[-1][1]}"
    operands = [np.empty(shape, dtype) for shape in SHAPES[:count]]
    return ge.einsum_plan(equation, *operands, optimize=path)


def matrices(rng, count):
    return [rng.random(shape) for shape in SHAPES[:count]]
