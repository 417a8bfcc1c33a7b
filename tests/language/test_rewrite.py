from itertools import combinations

import numpy as np
import pytest

from gpueinsum import einsum_plan
from gpueinsum.backends.cpu.backend import CpuBackend
from gpueinsum.language.check import check_plan
from gpueinsum.language.rewrite import fold_constants

PLAN = einsum_plan("ii,ij,jk,kl,l->il", (3, 3), (3, 5), (5, 7), (7, 2), (2,), optimize=[(0, 1), (0, 1), (0, 2), (0, 1)])


@pytest.mark.parametrize("constants", [c for n in range(1, 6) for c in combinations(range(5), n)])
def test_a_folded_plan_computes_the_same(constants, rng):
    operands = [rng.random(PLAN.shape(i)) for i in range(5)]
    first, rest = fold_constants(PLAN, constants)
    check_plan(first)
    check_plan(rest)
    assert len(first.steps) + len(rest.steps) == len(PLAN.steps)
    kept = CpuBackend().bind(first)(*[operands[i] for i in constants])
    [result] = CpuBackend().bind(rest)(*(x for i, x in enumerate(operands) if i not in constants), *kept)
    np.testing.assert_allclose(result, np.einsum("ii,ij,jk,kl,l->il", *operands))


def test_only_what_the_rest_needs_is_kept():
    first, rest = fold_constants(PLAN, (0, 1))
    assert [step.equation for step in first.steps] == ["ii->i", "i,ij->ij"]
    assert first.outputs == (3,)
    assert rest.inputs == ("jk", "kl", "l", "ij")
