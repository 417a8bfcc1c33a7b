"""Functions that autoray looks up on the backend "gpueinsum" for quimb and cotengra, beside the contractions.

They are those of the library that the array comes from, so results stay with the operands.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

# By the name that is looked up: `array` takes an operand, `stack` gathers the slices of a tree, the others keep the
# numbers in range (strip_exponent=True).
ARRAY_FUNCTIONS = {"abs": "abs", "array": "asarray", "log10": "log10", "max": "max", "stack": "stack"}


def array_function(name: str) -> Callable[..., Any]:
    """One of `ARRAY_FUNCTIONS`, of an array or of a list of arrays."""
    import autoray

    def call(x: Any, *args: Any, **kwargs: Any) -> Any:
        library = autoray.infer_backend(x[0] if isinstance(x, list | tuple) else x)
        return autoray.do(ARRAY_FUNCTIONS[name], x, *args, like=library, **kwargs)

    return call
