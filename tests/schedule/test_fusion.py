"""Steps that are joined: which, by whose price, and that the results stay."""

from dataclasses import replace
from random import Random

import numpy as np
import pytest
from random_expressions import random_case

import gpueinsum as ge
from gpueinsum.backends.select import HOST
from gpueinsum.costs.counts import einsum_cost, most_alive, step_cost
from gpueinsum.costs.profile import profile
from gpueinsum.language.plan import Plan
from gpueinsum.language.steps import Add, Contract, Reduce
from gpueinsum.schedule.fusion import Fused, fuse
from gpueinsum.schedule.predict import plan_seconds, problem_of, step_seconds
from gpueinsum.schedule.schedule import alone
from gpueinsum.schedule.select import cheapest

CPU, H200 = profile("cpu"), profile("h200")
BOTH = pytest.mark.parametrize("device", [CPU, H200], ids=["cpu", "h200"])
# One on which a launch takes so long that whatever can be joined is.
PATIENT = replace(H200, launch=1.0)


def plan_of(inputs, steps, outputs, dtype="float64", size=7):
    labels = sorted(set("".join([*inputs, *(step.out for step in steps)])))
    return Plan(tuple(inputs), tuple(steps), tuple(outputs), tuple((label, size) for label in labels), dtype)


def products(count):
    """One array times another, times the next, and so on."""
    path = [(0, 1), *((0, left) for left in range(count - 2, 0, -1))]
    return ge.einsum_plan(",".join(["ij"] * count) + "->ij", *[(2, 3)] * count, optimize=path)


def equations(plan):
    return [str(step) for step in plan.steps]


def fused(plan, device):
    """A plan whose steps are joined where that is cheaper; the plan itself if none is."""
    size = dict(plan.sizes)
    steps, outputs = fuse(plan, device, lambda step: step_seconds(step, size, plan.dtype, device))
    return plan if steps is plan.steps else replace(plan, steps=steps, outputs=outputs)


def peak_bytes(plan):
    """Of intermediates and results, of plans with fused steps, too."""
    size = dict(plan.sizes)
    nbytes = [
        (
            einsum_cost(step.terms, step.out, size, plan.dtype)
            if isinstance(step, Fused)
            else step_cost(step, size, plan.dtype)
        ).result_bytes
        for step in plan.steps
    ]
    return most_alive(plan.owners(), len(plan.inputs), nbytes, [0] * len(nbytes), plan.last_uses())


def run(plan, operands):
    """The outputs step by step, each by itself."""
    registers, size = list(operands), dict(plan.sizes)
    for step in plan.steps:
        sources = [registers[source] for source in step.sources]
        if isinstance(step, Add):
            registers.append(sum(sources, np.zeros([size[label] for label in step.out])))
            continue
        strides = [tuple(stride // x.itemsize for stride in x.strides) for x in sources]
        problem = problem_of(step, size, plan.dtype, CPU, strides)
        registers += HOST.load(alone(problem, *cheapest(problem)))(*sources)
    return [registers[output] for output in plan.outputs]


# ---------------------------------------------------------------- what is joined


@BOTH
@pytest.mark.parametrize("equation", ["i,ij,j->ij", "ij,ij,j->ij", "ij,ij,ij->ij"])
@pytest.mark.parametrize(("rows", "columns"), [(3, 5), (307, 509), (5003, 4001)])
def test_products_of_elements_are_one_pass(equation, rows, columns, device):
    size = {"i": rows, "j": columns}
    shapes = [tuple(size[label] for label in term) for term in equation.split("->")[0].split(",")]
    [step] = fused(ge.einsum_plan(equation, *shapes), device).steps
    assert isinstance(step, Fused)
    assert sorted(step.terms) == sorted(equation.split("->")[0].split(","))


@BOTH
def test_a_view_of_a_pass_is_written_at_once(device):
    steps = [Contract(0, 1, "i", "ij", "ji"), Contract(3, 2, "ji", "j", "ji"), Reduce(4, "ji", "ij")]
    assert equations(fused(plan_of(["i", "ij", "j"], steps, [5]), device)) == ["i,ij,j->ij"]


@BOTH
def test_matrix_products_stay(device):
    plan = ge.einsum_plan("ij,jk,kl->il", (300, 200), (200, 500), (500, 100))
    assert fused(plan, device) is plan


def test_tiny_matrices_are_one_pass_where_a_launch_is_dear():
    plan = ge.einsum_plan("ij,jk,kl->il", (2, 3), (3, 5), (5, 7))
    [step] = fused(plan, H200).steps
    assert sorted(step.terms) == ["ij", "jk", "kl"]
    assert fused(plan, CPU) is plan  # np.dot is faster than a loop over three


def test_a_pass_takes_four_operands_at_the_most():
    assert [len(step.sources) for step in fused(products(9), H200).steps] == [4, 4, 3]


def test_a_pass_has_no_more_labels_than_an_einsum_has_letters():
    labels = [chr(ord("α") + number) for number in range(60)]
    first, second = "".join(labels[:30]), "".join(labels[30:])
    steps = [Contract(0, 1, first, first, first), Contract(3, 2, first, second, first + second)]
    plan = plan_of([first, first, second], steps, [4], size=1)
    assert fused(plan, PATIENT) is plan
    steps = [Contract(0, 1, first, first, first), Contract(3, 2, first, second[:20], first + second[:20])]
    assert len(fused(plan_of([first, first, second[:20]], steps, [4], size=1), PATIENT).steps) == 1


def test_a_sum_goes_with_the_pair_that_takes_it():
    plan = ge.einsum_plan("ijk,ij->ij", (30, 40, 5), (30, 40))
    assert equations(plan) == ["ijk->ij", "ij,ij->ij"]
    assert equations(fused(plan, H200)) == ["ijk,ij->ij"]


@BOTH
def test_a_pair_goes_with_the_sum_after_it(device):
    plan = plan_of(["ij", "ij"], [Contract(0, 1, "ij", "ij", "ij"), Reduce(2, "ij", "i")], [3], size=1009)
    assert equations(fused(plan, device)) == ["ij,ij->i"]


def test_gradients_are_joined_too():
    plan = ge.einsum_plan("ij,ij,j->ij", (307, 509), (307, 509), (509,)).vjp(wrt=2, optimize=False)
    assert len(fused(plan, H200).steps) < len(plan.steps)


# ---------------------------------------------------------------- what is not


@BOTH
def test_what_is_read_twice_or_kept_stays(device):
    square = [Contract(0, 1, "ij", "ij", "ij"), Contract(2, 2, "ij", "ij", "ij")]
    plan = plan_of(["ij", "ij"], square, [3])
    assert fused(plan, device) is plan
    cube = [Contract(0, 1, "ij", "ij", "ij"), Contract(2, 1, "ij", "ij", "ij")]
    assert len(fused(plan_of(["ij", "ij"], cube, [3]), device).steps) == 1
    kept = plan_of(["ij", "ij"], cube, [3, 2])
    assert fused(kept, device) is kept


@BOTH
def test_views_and_diagonals_and_sums_of_arrays_stay(device):
    diagonal = ge.einsum_plan("ii,ij->j", (50, 50), (50, 60))
    assert fused(diagonal, device) is diagonal
    transposed = plan_of(["ij", "ji"], [Reduce(0, "ij", "ji"), Contract(2, 1, "ji", "ji", "ji")], [3])
    assert fused(transposed, device) is transposed
    steps = [Contract(0, 1, "ij", "ij", "ij"), Add((2, 0), "ij")]
    plan = plan_of(["ij", "ij"], steps, [3])
    assert fused(plan, device) is plan
    trace = plan_of(["iij", "j"], [Reduce(0, "iij", "j"), Contract(2, 1, "j", "j", "j")], [3])
    assert fused(trace, device) is trace  # no term of a pass repeats a label


def test_small_products_of_matrices_and_vectors_stay_where_np_dot_is_fastest():
    steps = [Contract(0, 1, "ij", "j", "i"), Contract(3, 2, "i", "i", "")]
    small = plan_of(["ij", "j", "i"], steps, [4])
    assert fused(small, CPU) is small
    steps = [product(0, 1), Contract(3, 2, "ij", "j", "i")]
    assert len(fused(plan_of(["ij", "ij", "j"], steps, [4], size=5003), CPU).steps) == 1


@BOTH
def test_objects_stay(device):
    plan = replace(ge.einsum_plan("i,ij,j->ij", (3,), (3, 5), (5,)), dtype="object")
    assert fused(plan, device) is plan


def test_a_label_that_means_two_things_stays_two():
    steps = [Contract(0, 1, "ij", "jk", "ik"), Contract(3, 2, "ik", "kj", "ij")]
    plan = plan_of(["ij", "jk", "kj"], steps, [4], size=3)
    assert fused(plan, PATIENT) is plan
    renamed = [steps[0], Contract(3, 2, "ab", "bc", "ac")]  # what wrote it calls it ik
    plan = plan_of(["ij", "jk", "bc"], renamed, [4], size=3)
    assert fused(plan, PATIENT) is plan


def test_work_does_not_grow_beyond_what_a_thread_sums_in_a_launch():
    def chain(size):
        return ge.einsum_plan("ij,jk,kl->il", *[(size, size)] * 3)

    assert len(fused(chain(16), PATIENT).steps) == 1
    assert len(fused(chain(17), PATIENT).steps) == 2
    long = ge.einsum_plan("ij,ij,ij->", *[(4001, 5003)] * 3)
    assert len(fused(long, H200).steps) == 1  # which makes no more products than the pairs


TRACE = Reduce(0, "aaij", "ij")  # is joined with nothing


def product(lhs, rhs):
    return Contract(lhs, rhs, "ij", "ij", "ij")


@pytest.mark.parametrize(
    ("steps", "left"),
    [
        # %4 and %5 would live on while %7 is made; next to each other, the result takes the place between them.
        ([TRACE, TRACE, product(4, 5), TRACE, product(6, 7)], 5),
        ([TRACE, TRACE, TRACE, product(4, 5), product(7, 6)], 4),
        ([TRACE, TRACE, TRACE, TRACE, product(4, 5), product(6, 7), product(8, 9)], 5),
        # A result larger than what lay between them does not.
        ([TRACE, TRACE, Contract(4, 5, "ij", "ij", "i"), Contract(6, 3, "i", "k", "ik")], 4),
        # As a part of %7, %6 needs %4 and %5 as long as that.
        ([TRACE, TRACE, product(4, 5), product(6, 1), TRACE, product(7, 8)], 5),
        # As a part of %9, %8 needs them so long that %6 may, too.
        ([TRACE, TRACE, product(4, 5), TRACE, product(4, 5), product(6, 8)], 4),
        # A view keeps what it is a view of.
        ([TRACE, Reduce(4, "ii", "i"), Contract(5, 2, "i", "i", "i"), TRACE, Contract(6, 7, "i", "ij", "ij")], 5),
    ],
)
def test_no_more_memory_is_alive_at_once(steps, left):
    plan = plan_of(["aaij", "ij", "i", "k"], steps, [3 + len(steps)])
    joined = fused(plan, PATIENT)
    assert len(joined.steps) == left
    assert peak_bytes(joined) <= peak_bytes(plan)


def test_what_is_read_lives_on_as_long_as_a_later_step_reads_it_now():
    # Joined with %9, %6 would read %4 and %5 then, which end with %7.
    steps = [TRACE, TRACE, product(4, 5), product(4, 5), TRACE, product(6, 8)]
    plan = plan_of(["aaij", "ij", "i", "k"], steps, [7, 9])
    assert fused(plan, PATIENT) is plan
    # A view is no array that goes: %5 and %6 become one pass, which would read %4 when %9 is made.
    steps = [TRACE, product(4, 1), Contract(5, 1, "ij", "ij", "ji"), TRACE, TRACE, Reduce(6, "ji", "ij")]
    joined = fused(plan_of(["aaij", "ij", "i", "k"], steps, [7, 8, 9]), PATIENT)
    assert equations(joined) == ["aaij->ij", "ij,ij,ij->ji", "aaij->ij", "aaij->ij", "ji->ij"]


def test_what_stayed_is_asked_again_once_a_pass_is_wider():
    """Two of np.dot's products are faster than a pass over three arrays, but not than one more array in such a pass."""
    dots = [Contract(1, 2, "jk", "k", "j"), Contract(0, 3, "j", "j", "")]
    alone = plan_of(["j", "jk", "k"], dots, [4], size=4)
    assert fused(alone, CPU) is alone
    steps = [Contract(0, 1, "j", "j", "j"), dots[0].with_sources(2, 3), dots[1].with_sources(4, 5)]
    assert equations(fused(plan_of(["j", "j", "jk", "k"], steps, [6], size=4), CPU)) == ["j,j,jk,k->"]


# ---------------------------------------------------------------- what comes out


def test_conjugates_of_products_are_products_of_conjugates(rng):
    steps = [Contract(0, 1, "i", "i", "i", conj_rhs=True), Contract(3, 2, "i", "i", "i", conj_lhs=True)]
    plan = plan_of(["i", "i", "i"], steps, [4], "complex128")
    [step] = fused(plan, H200).steps
    assert str(step) == "i*,i,i->i"
    x, y, z = (rng.random(7) + 1j * rng.random(7) for _ in range(3))
    np.testing.assert_allclose(run(fused(plan, H200), [x, y, z])[0], (x * y.conj()).conj() * z)


@pytest.mark.parametrize("device", [CPU, H200, PATIENT], ids=["cpu", "h200", "patient"])
@pytest.mark.parametrize("batch", range(4))
def test_random_plans_and_their_gradients_give_the_same(device, batch):
    joined = 0
    for seed in range(batch * 100, batch * 100 + 100):
        case = random_case(Random(seed))
        if not case.valid:
            continue
        optimize = case.kwargs.get("optimize", "auto")
        forward = ge.einsum_plan(*case.args, dtype="complex128", optimize=optimize)
        for plan in (forward, forward.vjp(optimize=None)):
            whole = fused(plan, device)
            joined += len(whole.steps) < len(plan.steps)
            assert peak_bytes(whole) <= peak_bytes(plan), f"seed {seed}\n{plan}\n{whole}"
            assert plan_seconds(whole, device) <= plan_seconds(plan, device), f"seed {seed}\n{plan}\n{whole}"
            assert fused(whole, device) is whole, f"seed {seed}\n{plan}\n{whole}"
            rng = np.random.default_rng(seed)
            shapes = [plan.shape(i) for i in range(len(plan.inputs))]
            operands = [rng.standard_normal(shape) + 1j * rng.standard_normal(shape) for shape in shapes]
            for result, expected in zip(run(whole, operands), run(plan, operands), strict=True):
                np.testing.assert_allclose(result, expected, rtol=1e-9, atol=1e-9, err_msg=f"seed {seed}")
    assert joined > 3


def test_a_long_plan_is_joined_throughout():
    assert len(fused(products(10_000), H200).steps) == 3333
