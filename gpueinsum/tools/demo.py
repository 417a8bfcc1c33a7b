"""`gpueinsum demo`: the worked examples, timed and compared with numpy."""

from __future__ import annotations

import time
from typing import Any

import numpy as np

import gpueinsum as ge
from gpueinsum.text import seconds_text
from gpueinsum.tools.examples import EXAMPLES, relative_error, tolerance


def demo(_: object) -> int:
    """Run the examples, print a line for each, and return 1 if one differs from numpy."""
    xp = ge.array_module()
    wait = (lambda: None) if xp is np else xp.cuda.get_current_stream().synchronize
    print(f"on {'cpu' if xp is np else 'cuda'}, with {xp.__name__} {xp.__version__}; times are of a second call")
    failures = 0
    for name, example in EXAMPLES.items():
        seconds: dict[str, float] = {}  # of each equation's last call

        def timed(equation: str, *operands: Any, seconds: dict[str, float] = seconds) -> Any:
            wait()
            start = time.perf_counter()
            result = ge.einsum(equation, *operands)
            wait()
            seconds[equation] = time.perf_counter() - start
            return result

        example(xp, timed)  # plans, and on CUDA compiles
        result, expected = example(xp, timed)
        error = relative_error(result, expected)
        is_right = error <= tolerance(result)
        failures += not is_right
        verdict = "ok" if is_right else "WRONG"
        equations = " ; ".join(seconds)
        shown = equations if len(equations) <= 50 else equations[:49] + "…"
        taken = seconds_text(sum(seconds.values()))
        print(f"{name:<20}  {shown:<50}  {taken:>8}  max error {error:7.1e}  {verdict}")
    print(f"{len(EXAMPLES) - failures} of {len(EXAMPLES)} agree with numpy")
    return 1 if failures else 0
