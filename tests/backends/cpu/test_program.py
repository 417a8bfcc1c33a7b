"""A bound plan: what it calls with what, what it frees when, what it gives back."""

import weakref

import numpy as np

import gpueinsum as ge
from gpueinsum.backends import execute
from gpueinsum.costs.profile import profile
from gpueinsum.language.plan import Plan
from gpueinsum.language.steps import Add, Contract, Reduce


class Array:
    """What a step of `Recorder` makes."""


class Recorder:
    """A backend that computes nothing: it notes the steps, and which results are alive when each begins."""

    profile = profile("cpu")

    def __init__(self):
        self.steps, self.alive, self.made = [], [], []

    def prepare(self, step, sizes, dtype):
        def call(*arrays):
            self.steps.append(step)
            self.alive.append([number for number, array in enumerate(self.made) if array() is not None])
            result = Array()
            self.made.append(weakref.ref(result))
            return result

        return call


def plan_of(inputs, steps, outputs):
    sizes = tuple((label, 300) for label in sorted(set("".join(inputs))))  # so large that no products are joined
    return Plan(tuple(inputs), tuple(steps), tuple(outputs), sizes, "float32")


def test_an_intermediate_is_freed_after_its_last_use():
    steps = [
        Contract(0, 1, "ij", "jk", "ik"),  # %3
        Contract(3, 2, "ik", "kl", "il"),  # %4, the last use of %3
        Contract(4, 2, "il", "kl", "ik"),  # %5
        Contract(4, 2, "il", "kl", "ik"),  # %6, which nothing needs
        Contract(5, 1, "ik", "jk", "ij"),  # %7, the last use of %5
    ]
    recorder, operands = Recorder(), [Array() for _ in range(3)]
    results = execute.bind(plan_of(["ij", "jk", "kl"], steps, [7, 4]), recorder)(*operands)
    assert recorder.steps == steps
    assert recorder.alive == [[], [0], [1], [1, 2], [1, 2]]
    assert results == (recorder.made[4](), recorder.made[1]())
    assert recorder.made[2]() is None


def test_a_step_is_called_with_its_sources():
    def named(step, *arrays):
        return f"{step}({', '.join(arrays)})"

    class Names(Recorder):
        def prepare(self, step, sizes, dtype):
            return lambda *arrays: named(step, *arrays)

    steps = [Add((), "ij"), Reduce(0, "ij", "ji"), Contract(1, 2, "ij", "ji", "i"), Add((3, 3), "i")]
    zeros, transposed = named(steps[0]), named(steps[1], "x")
    pair = named(steps[2], zeros, transposed)
    wanted = named(steps[3], pair, pair)
    plan = plan_of(["ij"], steps, [4, 0, 4, 2])
    assert execute.bind(plan, Names())("x") == (wanted, "x", wanted, transposed)


def test_one_output_comes_alone():
    plan = ge.einsum_plan("ij,jk,kl->il", (200, 300), (300, 100), (100, 400))
    recorder, operands = Recorder(), [Array() for _ in range(3)]
    assert execute.bind_single(plan, recorder)(*operands) is recorder.made[-1]()
    assert execute.bind(plan, recorder)(*operands) == (recorder.made[-1](),)


def test_a_plan_of_one_step_is_that_step():
    class Once(Recorder):
        def prepare(self, step, sizes, dtype):
            return np.matmul

    assert execute.bind_single(ge.einsum_plan("ij,jk->ik", (2, 3), (3, 5)), Once()) is np.matmul
    swapped = plan_of(["jk", "ij"], [Contract(1, 0, "ij", "jk", "ik")], [2])
    x, y = np.ones((2, 3)), np.ones((3, 5))
    np.testing.assert_array_equal(execute.bind_single(swapped, Once())(y, x), x @ y)


def test_a_plan_may_have_no_steps_and_no_outputs():
    x = Array()
    assert execute.bind(plan_of(["ij"], [], [0, 0]), Recorder())(x) == (x, x)
    assert execute.bind_single(plan_of(["ij"], [], [0]), Recorder())(x) is x
    assert execute.bind(plan_of(["ij"], [], []), Recorder())(x) == ()  # of constants that nothing needs


def test_plans_are_run_joined():
    recorder = Recorder()
    plan = ge.einsum_plan("i,ij,j->ij", (300,), (300, 500), (500,))
    execute.bind(plan, recorder)(*[Array() for _ in range(3)])
    execute.bind_single(plan, recorder)(*[Array() for _ in range(3)])
    assert len(recorder.steps) == 2 < 2 * len(plan.steps)


def test_a_long_plan_runs():
    count = 10_000
    steps = [Contract(count + i - 1 if i else 0, i + 1, "ij", "ij", "ij") for i in range(count - 1)]
    recorder = Recorder()
    execute.bind(plan_of(["ij"] * count, steps, [2 * count - 2]), recorder)(*[None] * count)
    assert max(map(len, recorder.alive)) == 1


def test_no_text_of_a_caller_becomes_code():
    shapes = [(200, 300), (300, 100), (100, 400)]
    odd, plain = (ge.einsum_plan(equation, *shapes) for equation in ("éß,ßñ,ñ🐍->é🐍", "ij,jk,kl->il"))
    assert execute.bind(odd, Recorder()).__code__ is execute.bind(plain, Recorder()).__code__
