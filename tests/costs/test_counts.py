from gpueinsum import einsum_plan
from gpueinsum.costs.counts import peak_bytes, step_costs
from gpueinsum.language.plan import Plan
from gpueinsum.language.steps import Contract, Reduce


def costs(*args, **options):
    return step_costs(einsum_plan(*args, **options))


def test_a_matrix_product_takes_a_product_and_a_sum_per_point():
    [cost] = costs("ij,jk->ik", (2, 3), (3, 5))
    assert cost.flops == 2 * 3 * 5 + (2 * 3 * 5 - 2 * 5)
    assert cost.bytes_moved == 8 * (2 * 3 + 3 * 5 + 2 * 5)
    assert cost.result_bytes == 8 * 2 * 5


def test_complex_products_take_six_real_operations_and_sums_two():
    [cost] = costs("ij,jk->ik", (2, 3), (3, 5), dtype="complex64")
    assert cost.flops == 6 * 30 + 2 * 20
    assert cost.result_bytes == 8 * 10


def test_an_outer_product_sums_nothing():
    [cost] = costs("i,j->ij", (3,), (5,), dtype="bfloat16")
    assert (cost.flops, cost.bytes_moved) == (15, 2 * (3 + 5 + 15))


def test_views_cost_nothing_and_sums_read_each_point_once():
    assert [cost.bytes_moved for cost in costs("iij->ji", (3, 3, 5))] == [0]
    [cost] = costs("iij->j", (3, 3, 5))
    assert (cost.flops, cost.bytes_moved) == (15 - 5, 8 * (15 + 5))


def test_embedding_writes_the_whole_result():
    [cost] = costs("i->ii", (3,))
    assert (cost.flops, cost.bytes_moved) == (0, 8 * (3 + 9))


def test_the_peak_counts_what_is_alive_together():
    plan = einsum_plan("ij,jk,kl,lm->im", (2, 3), (3, 5), (5, 7), (7, 11), optimize=[(0, 1), (0, 1), (0, 1)])
    assert [step.equation for step in plan.steps] == ["ij,jk->ik", "kl,lm->km", "ik,km->im"]
    assert peak_bytes(plan) == 8 * (2 * 5 + 5 * 11 + 2 * 11)


def test_a_view_keeps_the_memory_that_it_looks_at():
    diagonal = Plan(
        ("ij", "k", "i"),
        (
            Contract(0, 1, "ij", "k", "ijk"),
            Reduce(3, "ijk", "jik"),
            Reduce(4, "jik", "j"),
            Contract(5, 2, "j", "i", "ji"),
        ),
        (6,),
        (("i", 3), ("j", 5), ("k", 7)),
        "float64",
    )
    assert peak_bytes(diagonal) == 8 * (3 * 5 * 7 + 5)
