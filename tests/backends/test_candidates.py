"""Every way that a step is offered gives the same result, on the CPU and on the simulated device."""

import numpy as np
import pytest
from expressions import EXPRESSIONS, arguments, random_operands
from oracle import assert_agrees, reference
from simulated import SimulatedRuntime

import gpueinsum as ge
from gpueinsum.backends.cuda.backend import CudaBackend
from gpueinsum.backends.select import HOST
from gpueinsum.costs import seconds
from gpueinsum.costs.profile import profile
from gpueinsum.schedule import cpu, cuda
from gpueinsum.schedule import select as ways
from gpueinsum.schedule.candidate import Pass
from gpueinsum.schedule.mapping import Gemm
from gpueinsum.schedule.problem import Problem, c_strides
from gpueinsum.schedule.schedule import alone, schedule
from gpueinsum.schedule.select import candidates


@pytest.fixture(autouse=True)
def offers(monkeypatch):
    """Small arrays are offered all that large ones are."""
    for module in (cpu, cuda, seconds):
        monkeypatch.setattr(module, "SMALL", 0)
    for name in ("_WIDE_EXACT", "_LARGEST_EXACT"):
        monkeypatch.setattr(cpu, name, 0)
    monkeypatch.setattr(cpu, "IN_CACHE", 256)
    monkeypatch.setattr(cpu, "_BLOCKS_MUST_SAVE", float("inf"))
    ways._cheapest.cache_clear()
    yield
    ways._cheapest.cache_clear()


class Turns:
    """Chooses the candidate of each step whose turn it is."""

    def __init__(self, turn):
        self.turn, self.most = turn, 1

    def __call__(self, problem):
        order, found = candidates(problem)
        self.most = max(self.most, len(found))
        return order, found[self.turn % len(found)]


def schedules(plan, kind, strides=None):
    """One for each candidate of the step that has the most."""
    turn = most = 0
    while turn <= most:
        choose = Turns(turn)
        yield schedule(plan, kind, strides, choose=choose)
        turn, most = turn + 1, choose.most - 1


def device(name):
    return HOST if name == "cpu" else CudaBackend(SimulatedRuntime())


def there(backend, array):
    return array if backend is HOST else backend.runtime.to_device(array)


PROFILES = {"cpu": profile("cpu"), "simulated": profile("h200")}


@pytest.mark.parametrize("dtype", ["float64", "complex64", "int32", "bool"])
@pytest.mark.parametrize("kind", PROFILES)
@pytest.mark.parametrize("name", EXPRESSIONS)
def test_every_candidate_of_every_step_gives_the_result(name, kind, dtype):
    subscripts, shapes = EXPRESSIONS[name]
    operands = random_operands(shapes, np.dtype(dtype))
    given = arguments(subscripts, operands)
    plan, expected, backend = ge.einsum_plan(*given), reference(*given), device(kind)
    arrays = [there(backend, x) for x in operands]
    for made in schedules(plan, PROFILES[kind]):
        [result] = backend.load(made)(*arrays)
        assert_agrees(result, expected)


def random_layout(rng, array):
    """The same array with its axes in any order in memory, some with gaps, from back to front, or broadcast."""
    order = rng.permutation(array.ndim)
    x = np.ascontiguousarray(array.transpose(order)).transpose(np.argsort(order))
    if x.ndim and rng.random() < 0.2:
        x = np.repeat(x, 2, axis=-1)[..., ::2]
    if x.ndim and rng.random() < 0.2:
        x = x[::-1].copy()[::-1]
    return np.broadcast_to(x[:1], x.shape) if x.ndim and rng.random() < 0.1 else x


def random_pair(seed):
    """A pair whose labels have any role, or lie in one array alone, and its arrays of small whole numbers."""
    rng = np.random.default_rng(seed)
    size = dict(zip("abcdefg", rng.choice([1, 2, 3, 5, 8], 7).tolist(), strict=True))
    roles = {label: rng.integers(0, 5 if rng.random() < 0.8 else 7) for label in size}
    lhs, rhs, out = (
        "".join(label for label in rng.permutation([*size]) if roles[label] in inside)
        for inside in ((0, 1, 2, 3, 5), (0, 1, 2, 4, 6), (0, 3, 4))
    )
    dtype = str(rng.choice(["float32", "float64", "complex64", "complex128", "int16", "int64", "bool"]))
    numbers = [rng.integers(-3, 4, (2, *[size[label] for label in term])) for term in (lhs, rhs)]
    values = [real + 1j * imag if dtype.startswith("complex") else real for real, imag in numbers]
    arrays = [random_layout(rng, np.asarray(value).astype(dtype)) for value in values]
    marks = tuple(map(bool, rng.integers(0, 2, 2))) if dtype.startswith("complex") else (False, False)
    is_ordered = bool(rng.random() < 0.3)
    strides = [tuple([stride // x.itemsize for stride in x.strides]) for x in arrays]
    sizes = tuple([(label, size[label]) for label in dict.fromkeys(lhs + rhs)])
    pair = (lhs, rhs), out, marks, tuple(strides), sizes, dtype
    return pair, is_ordered, arrays


@pytest.mark.parametrize("kind", PROFILES)
@pytest.mark.parametrize("batch", range(20))
def test_every_candidate_of_random_pairs_gives_the_result(batch, kind):
    offered = set()
    for seed in range(10 * batch, 10 * batch + 10):
        pair, is_ordered, arrays = random_pair(seed)
        problem = Problem(*pair, PROFILES[kind], is_ordered=is_ordered)
        factors = [x.conj() if mark else x for x, mark in zip(arrays, problem.conjugated, strict=True)]
        expected = np.einsum(f"{','.join(problem.terms)}->{problem.out}", *factors)
        backend = device(kind)
        order, found = candidates(problem)
        for way in found:
            [result] = backend.load(alone(problem, order, way))(*[there(backend, x) for x in arrays])
            offered.add(way.way.name)
            assert result.dtype == problem.dtype
            np.testing.assert_array_equal(result, expected, err_msg=f"seed {seed}: {problem} {way}")
            if is_ordered and isinstance(way.way, Gemm | Pass):
                assert way.strides == c_strides(problem.out, problem.size)
    assert len(offered) > 2
