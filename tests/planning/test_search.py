"""Plans by price: another order where it pays, opt_einsum's where it does not, and no search that takes too long."""

import itertools

import numpy as np
import pytest

from gpueinsum.backends.select import HOST
from gpueinsum.costs.profile import profile
from gpueinsum.language.check import check_plan
from gpueinsum.language.subscripts import alphabet, parse
from gpueinsum.planning import orders, refine, search
from gpueinsum.planning.lower import lower
from gpueinsum.planning.path import find_path
from gpueinsum.schedule.schedule import schedule


def grid(rows, columns, bond):
    """A closed network: an array at each site, a label on each edge."""
    labels = alphabet()
    terms = dict.fromkeys(itertools.product(range(rows), range(columns)), "")
    for y, x in terms:
        for other in ((y, x + 1), (y + 1, x)):
            if other in terms:
                label = next(labels)
                terms[y, x] += label
                terms[other] += label
    return parse(f"{','.join(terms.values())}->", [(bond,) * len(term) for term in terms.values()])


def overlap(sites):
    """Of two matrix product states, two levels at each site, bonds of up to 64 in the middle."""
    labels = alphabet()
    physical, *states = [[next(labels) for _ in range(sites - (number > 0))] for number in range(3)]
    sizes = dict.fromkeys(physical, 2)
    for bonds in states:
        sizes |= {label: min(2 ** (site + 1), 2 ** (sites - site - 1), 64) for site, label in enumerate(bonds)}
    terms = [
        "".join([*bonds[max(site - 1, 0) : site], physical[site], *bonds[site : site + 1]])
        for bonds in states
        for site in range(sites)
    ]
    return parse(f"{','.join(terms)}->", [tuple(sizes[label] for label in term) for term in terms])


def usual_plan(subscripts):
    sizes = dict(subscripts.sizes)
    return lower(subscripts, lambda inputs, output: find_path(inputs, output, sizes), "float64")


def seconds(plan, kind):
    return schedule(plan, profile(kind)).seconds


@pytest.fixture(autouse=True)
def clock(monkeypatch):
    """One that stands still, so that what is found does not depend on how busy the machine is."""
    for module in (search, orders, refine):
        monkeypatch.setattr(module, "perf_counter", lambda: 0.0)


def cheapest_plan(subscripts, dtype, device):
    """As einsum asks for it."""
    return search.cheapest_plan(subscripts, dtype, device, lambda plan: schedule(plan, device).seconds)


@pytest.mark.parametrize("subscripts", [grid(4, 4, 8), overlap(12)], ids=["PEPS", "MPS"])
def test_a_network_is_contracted_in_the_order_that_is_cheaper(subscripts):
    chosen, usual = cheapest_plan(subscripts, "float64", profile("cpu")), usual_plan(subscripts)
    check_plan(chosen)
    assert seconds(chosen, "cpu") < 0.75 * seconds(usual, "cpu")  # the MPS took 73 us and 128 us on one core


@pytest.mark.parametrize("kind", ["cpu", "h200"])
@pytest.mark.parametrize("bond", [2, 5, 11, 24])
def test_no_plan_is_worse_than_opt_einsums(bond, kind):
    chain = parse("ij,jk,kl->il", [(9 * bond, 8 * bond), (8 * bond, 7 * bond), (7 * bond, 300 * bond)])
    for subscripts in (grid(2, 3, bond), grid(3, 3, bond), overlap(5), chain):
        chosen = cheapest_plan(subscripts, "float64", profile(kind))
        assert seconds(chosen, kind) <= seconds(usual_plan(subscripts), kind)


def test_all_orders_of_few_operands_are_weighed():
    """The outer product of the last two modes has them side by side, as the tensor has them: no greedy search's way."""
    subscripts = parse("ijkl,jr,kr,lr->ir", [(48, 40, 36, 32), (40, 24), (36, 24), (32, 24)])
    chosen = cheapest_plan(subscripts, "float32", profile("cpu"))
    assert chosen.steps[0].sources == (2, 3)
    assert seconds(chosen, "cpu") < 0.8 * seconds(usual_plan(subscripts), "cpu")


def test_the_order_that_is_chosen_gives_the_same_result(rng):
    subscripts = grid(3, 4, 7)
    sizes = dict(subscripts.sizes)
    operands = [rng.random([sizes[label] for label in term]) for term in subscripts.inputs]
    chosen, usual = cheapest_plan(subscripts, "float64", profile("cpu")), usual_plan(subscripts)
    assert chosen != usual
    np.testing.assert_allclose(HOST.bind_single(chosen)(*operands), HOST.bind_single(usual)(*operands))


def test_the_order_depends_on_the_device():
    subscripts = grid(4, 4, 8)
    plans = {kind: cheapest_plan(subscripts, "float64", profile(kind)) for kind in ("cpu", "h200")}
    assert seconds(plans["cpu"], "cpu") < seconds(plans["h200"], "cpu")
    assert seconds(plans["h200"], "h200") < seconds(plans["cpu"], "h200")


def test_nothing_is_searched_for_where_nothing_could_be_saved(monkeypatch):
    def never(*args, **options):
        raise AssertionError("searched")

    monkeypatch.setattr(search, "orders", never)
    monkeypatch.setattr(search, "all_paths", never)
    small = grid(3, 3, 2)
    assert cheapest_plan(small, "float64", profile("cpu")) == usual_plan(small)
    pair = parse("ij,jk->ik", [(3000, 3000), (3000, 3000)])
    assert cheapest_plan(pair, "float32", profile("cpu")) == usual_plan_of_pair(pair)
    chain = parse("ij,jk,kl->il", [(2, 3), (3, 4), (4, 5)])
    assert cheapest_plan(chain, "float64", profile("cpu")) == usual_plan(chain)
    many = parse(",".join(alphabet_pairs(2000)), [(2 + k % 3, 2 + (k + 1) % 3) for k in range(2000)])
    assert cheapest_plan(many, "float64", profile("cpu")) == usual_plan(many)


def alphabet_pairs(number):
    return map("".join, itertools.pairwise(itertools.islice(alphabet(), number + 1)))


def usual_plan_of_pair(subscripts):
    return lower(subscripts, lambda inputs, output: ((0, 1),), "float32")


@pytest.fixture
def ticks(monkeypatch):
    """The number of times that the clock was asked; it is a millisecond further each time."""
    asked = [0]

    def tick():
        asked[0] += 1
        return 1e-3 * asked[0]

    for module in (search, orders, refine):
        monkeypatch.setattr(module, "perf_counter", tick)
    return asked


@pytest.mark.parametrize("runs", [1, 10, 100])
def test_a_search_takes_no_longer_than_runs_could_save(runs, ticks):
    subscripts, device = grid(4, 4, 24), profile("cpu")
    usual = seconds(usual_plan(subscripts), "cpu")
    search.cheapest_plan(subscripts, "float64", device, lambda plan: schedule(plan, device).seconds, runs)
    assert 1e-3 * ticks[0] <= min(0.1 * runs * usual, 10.0) + 0.01


@pytest.mark.parametrize("wanted", [0.0, 0.5, 2.0])
def test_a_search_takes_the_seconds_that_it_is_given(wanted, ticks):
    subscripts, device = grid(4, 4, 24), profile("cpu")
    plan = search.cheapest_plan(subscripts, "float64", device, lambda plan: schedule(plan, device).seconds, 1, wanted)
    assert 0.8 * wanted <= 1e-3 * ticks[0] <= wanted + 0.01
    assert (plan == usual_plan(subscripts)) == (wanted == 0)


@pytest.mark.parametrize("shapes", [[(2, 0), (0, 3), (3, 5)], [(0, 3), (3, 4), (4, 5)]])
def test_empty_arrays_have_plans(shapes):
    plan = cheapest_plan(parse("ij,jk,kl->il", shapes), "float64", profile("cpu"))
    assert plan.shape(plan.outputs[0]) == (shapes[0][0], 5)


def test_a_plan_that_no_memory_holds_is_a_plan():
    rows = 70  # whose product has more elements than a float can tell
    labels = alphabet()
    legs, hubs = [next(labels) for _ in range(rows)], [next(labels) for _ in range(2)]
    text = (
        ",".join(leg + hub for leg, hub in zip(legs, hubs * rows, strict=False)) + f",{''.join(hubs)}->{''.join(legs)}"
    )
    subscripts = parse(text, [(10**5, 2)] * rows + [(2, 2)])
    plan = cheapest_plan(subscripts, "float64", profile("cpu"))
    assert plan.term(plan.outputs[0]) == "".join(legs)
