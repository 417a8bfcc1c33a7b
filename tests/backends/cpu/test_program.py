"""A bound plan: what it calls with what, what it frees when, what it gives back."""

import weakref

import numpy as np
import pytest

import gpueinsum as ge
from gpueinsum.backends.cpu import program as programs
from gpueinsum.costs.profile import profile
from gpueinsum.language.plan import Plan
from gpueinsum.language.steps import Add, Contract, Reduce
from gpueinsum.schedule.schedule import schedule


class Array:
    """What a step of `Recorder` makes."""


class Recorder:
    """Lowers steps to what computes nothing: notes them, and which results are alive when each begins."""

    def __init__(self):
        self.steps, self.alive, self.made = [], [], []
        self.living = {}  # those of `made` that were seen alive: what is gone does not come back

    def lower_step(self, step, sizes, dtype):
        def call(*arrays):
            self.steps.append(step)
            self.living = {number: array for number, array in self.living.items() if array() is not None}
            self.alive.append(list(self.living))
            result = Array()
            self.living[len(self.made)] = weakref.ref(result)
            self.made.append(weakref.ref(result))
            return result

        return call


@pytest.fixture
def recorder(monkeypatch):
    recorder = Recorder()
    monkeypatch.setattr(programs, "lower_step", recorder.lower_step)
    return recorder


def program(plan, is_single=False):
    return programs.program(schedule(plan, profile("cpu")), is_single)


def plan_of(inputs, steps, outputs, sizes=None):
    sizes = sizes or dict.fromkeys(sorted(set("".join(inputs))), 300)  # so large that no products are joined
    return Plan(tuple(inputs), tuple(steps), tuple(outputs), tuple(sizes.items()), "float32")


def test_an_intermediate_is_freed_after_its_last_use(recorder):
    steps = [
        Contract(0, 1, "ij", "jk", "ik"),  # %3
        Contract(3, 2, "ik", "kl", "il"),  # %4, the last use of %3
        Contract(4, 2, "il", "kl", "ik"),  # %5
        Contract(4, 2, "il", "kl", "ik"),  # %6, which nothing needs
        Contract(5, 1, "ik", "jk", "ij"),  # %7, the last use of %5
    ]
    operands = [Array() for _ in range(3)]
    results = program(plan_of(["ij", "jk", "kl"], steps, [7, 4]))(*operands)
    assert [scheduled.step for scheduled in recorder.steps] == steps
    assert recorder.alive == [[], [0], [1], [1, 2], [1, 2]]
    assert results == (recorder.made[4](), recorder.made[1]())
    assert recorder.made[2]() is None


def test_a_step_is_called_with_its_sources(monkeypatch):
    def named(step, *arrays):
        return f"{step}({', '.join(arrays)})"

    monkeypatch.setattr(programs, "lower_step", lambda scheduled, *_: lambda *arrays: named(scheduled.step, *arrays))
    steps = [Add((), "ij"), Reduce(0, "ij", "ji"), Contract(1, 2, "ij", "ji", "i"), Add((3, 3), "i")]
    zeros, transposed = named(steps[0]), named(steps[1], "x")
    plan = plan_of(["ij"], steps, [4, 0, 4, 2])
    order = [(zeros, transposed)[source - 1] for source in schedule(plan, profile("cpu")).steps[2].sources]
    pair = named(steps[2], *order)
    wanted = named(steps[3], pair, pair)
    assert program(plan)("x") == (wanted, "x", wanted, transposed)


def test_one_output_comes_alone(recorder):
    plan = ge.einsum_plan("ij,jk,kl->il", (200, 300), (300, 100), (100, 400))
    operands = [Array() for _ in range(3)]
    assert program(plan, is_single=True)(*operands) is recorder.made[-1]()
    assert program(plan)(*operands) == (recorder.made[-1](),)


def test_a_schedule_of_one_step_that_reads_the_operands_in_turn_is_that_step(monkeypatch):
    monkeypatch.setattr(programs, "lower_step", lambda *_: np.matmul)
    x, y = np.ones((7, 3)), np.ones((3, 5))  # the larger side comes first
    assert program(ge.einsum_plan("ij,jk->ik", x, y), is_single=True) is np.matmul
    swapped = plan_of(["jk", "ij"], [Contract(1, 0, "ij", "jk", "ik")], [2], {"i": 7, "j": 3, "k": 5})
    np.testing.assert_array_equal(program(swapped, is_single=True)(y, x), x @ y)


def test_a_plan_may_have_no_steps_and_no_outputs():
    x = Array()
    assert program(plan_of(["ij"], [], [0, 0]))(x) == (x, x)
    assert program(plan_of(["ij"], [], [0]), is_single=True)(x) is x
    assert program(plan_of(["ij"], [], []))(x) == ()  # of constants that nothing needs


def test_plans_are_run_joined(recorder):
    plan = ge.einsum_plan("i,ij,j->ij", (300,), (300, 500), (500,))
    operands = [Array() for _ in range(3)]
    program(plan)(*operands)
    program(plan, is_single=True)(*operands)
    assert len(recorder.steps) == 2 < 2 * len(plan.steps)


def test_a_long_plan_runs(recorder):
    count = 10_000
    steps = [Contract(count + i - 1 if i else 0, i + 1, "ij", "ij", "ij") for i in range(count - 1)]
    program(plan_of(["ij"] * count, steps, [2 * count - 2]))(*[None] * count)
    assert max(map(len, recorder.alive)) == 1


def test_a_run_that_is_timed_step_by_step_frees_what_another_does(recorder):
    plan = ge.einsum_plan("ij,jk,kl,lm->im", (200, 300), (300, 100), (100, 400), (400, 200))
    operands = [Array() for _ in plan.inputs]
    program(plan)(*operands)
    alive, recorder.alive = recorder.alive, []
    recorder.made.clear()
    seconds = programs.step_seconds(schedule(plan, profile("cpu")), operands)
    assert recorder.alive == alive
    assert len(seconds) == 3
    assert all(0 < each < 1 for each in seconds)


def test_no_text_of_a_caller_becomes_code(recorder):
    shapes = [(200, 300), (300, 100), (100, 400)]
    odd, plain = (ge.einsum_plan(equation, *shapes) for equation in ("éß,ßñ,ñ🐍->é🐍", "ij,jk,kl->il"))
    assert program(odd).__code__ is program(plain).__code__
