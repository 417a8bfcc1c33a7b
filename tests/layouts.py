"""The same array in several memory layouts."""

import numpy as np


def strided(array):
    """The same numbers along negative and wide strides, and in Fortran's order."""
    yield array
    yield np.asfortranarray(array)
    yield array[::-1].copy()[::-1]
    yield np.repeat(array, 2, axis=-1)[..., ::2]
