"""Einsum on GPUs: opt_einsum chooses the order, cuBLAS and CUDA kernels do the work, or numpy without a GPU."""

from gpueinsum.api import einsum, einsum_plan, run_plan, tensordot, transpose
from gpueinsum.backends import array_module
from gpueinsum.backends.memory import free_memory
from gpueinsum.contract import ContractExpression, contract, contract_expression, contract_path, einsum_path
from gpueinsum.derivatives import Pullback, jvp, vjp
from gpueinsum.errors import (
    DeviceError,
    DtypeError,
    OperandError,
    OptimizerError,
    OutError,
    PlanError,
    ProfileError,
    SubscriptsError,
)
from gpueinsum.plan import Plan
from gpueinsum.report import explain

__version__ = "0.1.0"

__all__ = [
    "ContractExpression",
    "DeviceError",
    "DtypeError",
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
