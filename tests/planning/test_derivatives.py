"""Derivatives as plans: which steps the gradients are, what they cost, and that they can be differentiated again."""

import numpy as np
import opt_einsum
import pytest

import gpueinsum as ge
from gpueinsum import Plan, einsum_plan
from gpueinsum.costs.counts import peak_bytes, total_flops
from gpueinsum.costs.profile import profile
from gpueinsum.language.check import check_plan
from gpueinsum.language.steps import Add, Contract, Reduce
from gpueinsum.language.strides import contiguous
from gpueinsum.planning.derivatives import as_expression, vjp
from gpueinsum.schedule.mapping import gemms
from gpueinsum.schedule.predict import problem_of

SIZES = dict(zip("abcdefghijklmnopq", (2, 3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37, 41, 43, 47, 53, 59), strict=True))


def plan_of(expression, dtype="float64", **options):
    terms = expression.split("->")[0].split(",")
    return einsum_plan(expression, *[tuple(SIZES[x] for x in term) for term in terms], dtype=dtype, **options)


BACKWARD = [
    ("ij->ij", []),  # the cotangent itself
    ("ij->ji", ["ji->ij"]),
    ("ij->", ["->ij"]),
    ("ii->", ["->ii"]),
    ("ii->i", ["i->ii"]),
    ("iij->j", ["j->iij"]),
    ("i->ii", ["ii->i"]),
    ("ij->jji", ["jji->ij"]),
    ("ij,jk->ik", ["ik,jk->ij", "ik,ij->jk"]),
    ("ijk,ip->jkp", ["jkp,ip->ijk", "jkp,ijk->ip"]),
    ("ijkm,ijkn->imn", ["imn,ijkn->ijkm", "imn,ijkm->ijkn"]),
    ("i,j->ij", ["ij,j->i", "ij,i->j"]),
    ("i,i->", [",i->i", ",i->i"]),
    ("ii,ij->j", ["ii->i", "j,ij->i", "i->ii", "j,i->ij"]),
    ("ij,j->i", ["i,j->ij", "i,ij->j"]),
    ("ab,b->", ["ab->b", ",b->b", "b->ab", ",b->b"]),
]


@pytest.mark.parametrize(("expression", "steps"), BACKWARD)
def test_each_step_has_a_step_for_its_gradient(expression, steps):
    plan = plan_of(expression).vjp()
    check_plan(plan)
    assert sorted(step.equation for step in plan.steps) == sorted(steps)
    inputs, output = expression.split("->")
    assert plan.equation == f"{inputs},{output}->{inputs}"


def test_the_other_side_is_conjugated_if_the_plan_is_complex():
    assert [str(step) for step in plan_of("ij,jk->ik").vjp().steps] == ["ik,jk->ij", "ik,ij->jk"]
    assert [str(step) for step in plan_of("ij,jk->ik", "complex64").vjp().steps] == ["ik,jk*->ij", "ik,ij*->jk"]


@pytest.mark.parametrize("n", [3, 10, 20, 60])
def test_all_gradients_of_a_chain_cost_twice_the_forward_pass_whatever_its_length(n):
    arguments = [x for i in range(n) for x in ((40, 40), (i, i + 1))]
    plan = einsum_plan(*arguments, (0, n))
    both = vjp(plan, range(n))
    assert len(both.steps) == 3 * len(plan.steps)
    assert total_flops(both) == 3 * total_flops(plan)


def test_a_subset_computes_what_it_needs():
    chain = plan_of("ij,jk,kl,lm->im", optimize=[(0, 1), (0, 1), (0, 1)])  # (ij jk) (kl lm)
    steps = ["kl,lm->km", "im,km->ik", "ik,jk->ij", "ik,ij->jk"]
    assert [step.equation for step in chain.vjp(wrt=[1, 0]).steps] == steps
    assert chain.vjp(wrt=[3, 0]).equation == "ij,jk,kl,lm,im->lm,ij"


def test_one_gradient_alone_is_planned_anew_where_that_is_cheaper():
    sizes = {"a": 10, "b": 3, "c": 10, "d": 10}
    expression = "d,cad,d,bc,acd,b->ab"
    shapes = [tuple(sizes[x] for x in term) for term in expression.split("->")[0].split(",")]
    plan = einsum_plan(expression, *shapes, optimize="optimal")
    alone, all_of_them = vjp(plan, [3]), vjp(plan, range(6))
    assert total_flops(alone) < 0.8 * total_flops(all_of_them)
    rng = np.random.default_rng(0)
    operands = [rng.random(shape) for shape in [*shapes, (10, 3)]]
    np.testing.assert_allclose(ge.run_plan(alone, *operands)[1], ge.run_plan(all_of_them, *operands)[4])


def test_a_plan_knows_which_expression_it_is():
    for expression in ("ij,jk,kl->il", "ii,ij->j", "ab,b->", "i->ii", "ij,j->jji", "ij,ij,j->ij"):
        assert str(as_expression(plan_of(expression))) == expression
    i_twice = Plan(("ij", "j"), (*plan_of("ij->i").steps,), (2,), (("i", 2), ("j", 3)), "float64")
    assert as_expression(i_twice) is None  # an operand that nothing reads
    assert as_expression(plan_of("ij,jk->ik").vjp()) is None  # two outputs
    summed_twice = '{"inputs": ["ij", "j"], "steps": [{"step": "Reduce", "source": 0, "term": "ij", "out": "i"}, '
    summed_twice += '{"step": "Contract", "lhs": 2, "rhs": 1, "lhs_term": "i", "rhs_term": "j", "out": "ij"}], '
    summed_twice += '"outputs": [3], "sizes": [["i", 2], ["j", 3]], "dtype": "float64"}'
    assert as_expression(Plan.from_json(summed_twice)) is None  # its j means two things


@pytest.mark.parametrize("dtype", ["float64", "complex128"])
@pytest.mark.parametrize("expression", ["ij,jk,kl->il", "ii,ij->j", "i->ii", "ij,ij,j->ij", "a,ab->"])
def test_derivatives_are_plans_that_can_be_differentiated(expression, dtype):
    plan = plan_of(expression, dtype)
    for derivative in (plan.vjp(), plan.jvp(), plan.vjp().vjp(), plan.jvp().vjp(), plan.vjp().jvp(), plan.jvp().jvp()):
        check_plan(derivative)
        assert Plan.from_json(derivative.to_json()) == derivative
    inputs, output = expression.split("->")
    assert plan.vjp().vjp().equation == f"{inputs},{output},{inputs}->{inputs},{output}"
    assert plan.jvp().jvp().equation == f"{inputs},{inputs},{inputs},{inputs}->{output}"


def test_what_is_used_twice_adds_up():
    plan = plan_of("ij,jk->ik").vjp().vjp()
    assert [step.equation for step in plan.steps] == ["jk,ij->ik", "jk,ik->ij", "ij,jk->ik", "ik+ik->ik", "ij,ik->jk"]


def test_what_does_not_depend_on_an_operand_has_the_gradient_zero():
    plan = plan_of("ij->j").vjp().vjp()  # the gradient of a sum does not depend on its operand
    assert [step.equation for step in plan.steps] == ["ij->j", "0->ij"]
    zero, back = ge.run_plan(plan, np.ones((23, 29)), np.ones(29), np.ones((23, 29)))
    assert zero.shape == (23, 29)
    assert not zero.any()
    assert (back == 23).all()


def plan_from(inputs, steps, outputs, sizes, dtype="float64"):
    """One written by hand, as a file might hold it."""
    plan = Plan(tuple(inputs), tuple(steps), tuple(outputs), tuple(sizes.items()), dtype)
    return Plan.from_json(plan.to_json())


def test_a_plan_that_computes_something_twice_can_be_differentiated(rng):
    twin = Contract(0, 1, "ij", "jk", "ik")
    plan = plan_from(("ij", "jk"), (twin, twin, Add((2, 3), "ik")), (4,), {"i": 2, "j": 3, "k": 5})
    a, b, g = rng.random((2, 3)), rng.random((3, 5)), rng.random((2, 5))
    for limit in (None, "1GiB"):
        value, pullback = ge.vjp(plan, a, b, memory_limit=limit)
        np.testing.assert_allclose(value, 2 * (a @ b))
        np.testing.assert_allclose(pullback(g)[0], 2 * (g @ b.T))
    np.testing.assert_allclose(ge.run_plan(plan.vjp(), a, b, g)[1], 2 * (a.T @ g))
    np.testing.assert_allclose(ge.jvp(plan, (a, b), (a, None))[1], 2 * (a @ b))


def test_what_is_read_many_times_adds_up_as_it_comes(rng):
    steps = [Contract(0, 1, "ij", "jk", "ik"), *(Contract(k, 1, "ij", "jk", "ik") for k in range(2, 30))]
    plan = plan_from(("ij", "jk"), steps, (30,), {"i": 3, "j": 3, "k": 3})
    gradients = plan.vjp(wrt=1)
    # A cotangent, a power and two sums, and the powers of the forward pass: not all contributions.
    assert peak_bytes(gradients) <= 8 * 9 * (29 + 4)
    x, w, g = rng.random((3, 3)), rng.random((3, 3)), rng.random((3, 3))
    step = 1e-6 * rng.random((3, 3))
    change = ge.run_plan(plan, x, w + step) - ge.run_plan(plan, x, w - step)
    np.testing.assert_allclose(np.sum(ge.run_plan(gradients, x, w, g) * 2 * step), np.sum(g * change), rtol=1e-6)


def test_a_label_that_nothing_has_does_not_matter():
    plan = plan_from(("ij", "jk", "kl"), plan_of("ij,jk,kl->il").steps, (4,), {"i": 2, "j": 3, "k": 5, "l": 7, "z": 0})
    assert len(plan.vjp(wrt=0).steps) == 2


def test_a_sum_over_nothing_has_a_gradient_of_no_elements():
    sizes = {"i": 2, "x": 0, "j": 3, "k": 5}
    steps = Reduce(0, "ix", "i"), Contract(3, 1, "i", "ij", "ij"), Contract(4, 2, "ij", "jk", "ik")
    plan = plan_from(("ix", "ij", "jk"), steps, (5,), sizes)
    for operand in range(3):
        gradient = ge.run_plan(plan.vjp(wrt=operand), *(np.ones(plan.shape(k)) for k in range(3)), np.ones((2, 5)))
        assert gradient.shape == plan.shape(operand)
        assert not gradient.any()


@pytest.mark.parametrize("optimize", ["dp", False, [(0, 1), (0, 1)], opt_einsum.RandomGreedy(max_repeats=4)])
def test_every_optimizer_that_einsum_takes_will_do(optimize, rng):
    check_gradient(optimize, rng)


def test_an_optimizer_of_cotengra_will_do(rng):
    check_gradient(pytest.importorskip("cotengra").GreedyOptimizer(), rng)


def check_gradient(optimize, rng):
    operands = [rng.random(shape) for shape in ((2, 3), (3, 5), (5, 7))]
    y, pullback = ge.vjp("ij,jk,kl->il", *operands, wrt=1, optimize=optimize)
    np.testing.assert_allclose(pullback(y)[0], operands[0].T @ y @ operands[2].T)


GEMMS = [
    "ij,jk->ik", "ji,jk->ik", "ij,kj->ik", "ji,kj->ki", "bij,bjk->bik", "abij,abjk->abik", "ijk,ip->jkp",
    "ijkm,ijkn->imn", "bqhd,bkhd->bhqk", "bhqk,bkhd->bqhd", "ij,jk,kl->il", "ij,jk,kl,lm,mn,no,op->ip",
    "abcd,cdij->abij", "abcd,ijcd->abij", "ijk,kl,lm->ijm",
]  # fmt: skip


@pytest.mark.parametrize("dtype", ["float32", "complex64"])
@pytest.mark.parametrize("expression", GEMMS)
def test_gradients_of_matrix_products_are_matrix_products_without_a_copy(expression, dtype):
    plan = plan_of(expression, dtype)
    both = vjp(plan, range(len(plan.inputs)))
    assert copies(both) == []


def copies(plan):
    """The steps of a plan that must copy an operand first on CUDA, for inputs in C order; all are products or views."""
    sizes = dict(plan.sizes)
    strides = [tuple(contiguous(term, sizes)[label] for label in term) for term in plan.inputs]
    found = []
    for step in plan.steps:
        if isinstance(step, Reduce):
            assert step.is_view(sizes), step
            walked = dict(zip(step.term, strides[step.source], strict=True))
            strides.append(tuple(walked[label] for label in step.out))
            continue
        assert isinstance(step, Contract), step
        lies = [strides[source] for source in step.sources]
        ways = gemms(problem_of(step, sizes, plan.dtype, profile("h200"), lies), every=True)
        way = min((way for way, _ in ways), key=lambda way: sum(term is not None for term in way.copies))
        if way.copies != (None, None):
            found.append(str(step))
        written = contiguous(way.out, sizes)
        strides.append(tuple(written[label] for label in step.out))
    return found


def test_the_check_for_copies_finds_one():
    assert copies(plan_of("ijb,jkb->bik")) == ["ijb,jkb->bik"]  # no side is contiguous along rows, columns or the sum


@pytest.mark.parametrize("dtype", ["int64", "bool"])
def test_integers_have_no_derivative(dtype):
    plan = plan_of("ij,jk->ik", dtype)
    for derive in (plan.vjp, plan.jvp):
        with pytest.raises(ge.DtypeError, match="which has no derivative"):
            derive()
