"""Arrays on a GPU for its tests, and the pool that they come from."""

import gc
from itertools import pairwise

import numpy as np


def settled_pool(cupy):
    """The memory pool, when what earlier tests left in cycles is given back, and is not so in the midst of this one."""
    gc.collect()
    return cupy.get_default_memory_pool()


def matrices(cupy, *sizes, dtype=np.float32):
    rng = np.random.default_rng(0)
    return [cupy.asarray(rng.standard_normal(shape).astype(dtype)) for shape in pairwise(sizes)]
