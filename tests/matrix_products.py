"""The functions that take arrays, each as a product of two matrices."""

from collections.abc import Callable
from typing import Any

import gpueinsum as ge

PRODUCTS: dict[str, Callable[..., Any]] = {
    "einsum": lambda a, b: ge.einsum("ij,jk->ik", a, b),
    "interleaved": lambda a, b: ge.einsum(a, [0, 1], b, [1, 2], [0, 2]),
    "contract": lambda a, b: ge.contract("ij,jk->ik", a, b),
    "expression": lambda a, b: ge.contract_expression("ij,jk->ik", a.shape, b.shape)(a, b),
    "constant": lambda a, b: ge.contract_expression("ij,jk->ik", a, b.shape, constants=[0])(b),
    "run_plan": lambda a, b: ge.run_plan(ge.einsum_plan("ij,jk->ik", a, b), a, b),
    "tensordot": lambda a, b: ge.tensordot(a, b, 1),
    "transpose": lambda a, b: ge.transpose(ge.einsum("ij,jk->ki", a, b)),
    "transpose of axes": lambda a, b: ge.transpose(ge.einsum("ij,jk->ki", a, b), (1, 0)),
    "vjp": lambda a, b: ge.vjp("ij,jk->ik", a, b)[0],
    "jvp": lambda a, b: ge.jvp("ij,jk->ik", (a, b), (a, None))[1],
}
