"""Einsum on GPUs: opt_einsum chooses the order, cuBLAS and CUDA kernels do the work, or numpy without a GPU."""

import importlib
import sys
from collections.abc import Callable
from types import ModuleType
from typing import TYPE_CHECKING, Any

from gpueinsum.api.contract import ContractExpression, contract, contract_expression
from gpueinsum.api.derivatives import Pullback, jvp, vjp
from gpueinsum.api.einsum import einsum, einsum_plan, run_plan, tensordot, transpose
from gpueinsum.api.paths import contract_path, einsum_path
from gpueinsum.backends.select import array_module, free_memory
from gpueinsum.errors import (
    DeviceError,
    DtypeError,
    LimitError,
    OperandError,
    OptimizerError,
    OutError,
    PlanError,
    ProfileError,
    SubscriptsError,
)
from gpueinsum.interop.autoray import ARRAY_FUNCTIONS, array_function
from gpueinsum.language.plan import Plan
from gpueinsum.tools.explain import explain

__version__ = "0.1.0"

__all__ = [
    "ContractExpression",
    "DeviceError",
    "DtypeError",
    "LimitError",
    "OperandError",
    "OptimizerError",
    "OutError",
    "Plan",
    "PlanError",
    "ProfileError",
    "Pullback",
    "SubscriptsError",
    "array_module",
    "contract",
    "contract_expression",
    "contract_path",
    "einsum",
    "einsum_path",
    "einsum_plan",
    "explain",
    "free_memory",
    "jvp",
    "run_plan",
    "tensordot",
    "transpose",
    "vjp",
]


def __dir__() -> list[str]:
    """What is public, not the modules that it comes from."""
    return sorted([*__all__, "__all__", "__doc__", "__file__", "__name__", "__path__", "__version__"])


_FRONTS = "torch", "jax", "testing"  # modules for those who have torch, JAX, pytest

if not TYPE_CHECKING:  # a type checker would take every name for one of these

    def __getattr__(name: str) -> ModuleType | Callable[..., Any]:
        """A module of `_FRONTS`, imported when it is asked for; what autoray looks up here, where it is in use."""
        if name in _FRONTS:
            try:
                return importlib.import_module(f"{__name__}.{name}")
            except ModuleNotFoundError as error:
                raise AttributeError(f"{__name__}.{name} cannot be imported: {error}") from error
        if name in ARRAY_FUNCTIONS and "autoray" in sys.modules:
            return array_function(name)
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
