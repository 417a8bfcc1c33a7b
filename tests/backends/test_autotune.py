"""What autotuning times, chooses and remembers: of times that are known, on the CPU and on the simulated device."""

import json
from dataclasses import replace

import numpy as np
import pytest
from conftest import simulated_backend

import gpueinsum as ge
from gpueinsum.backends import autotune as tune
from gpueinsum.backends.autotune import Choices, Tuner
from gpueinsum.costs.machine import machine, tuned_path
from gpueinsum.costs.profile import profile
from gpueinsum.schedule.problem import Problem, c_strides
from gpueinsum.schedule.select import candidates

# Sides that fit a product as they lie, and with either of them or both copied.
EQUATION, TERMS = "abc,cbd->abd", ("abc", "cbd")
SIZES = {"a": 130, "b": 40, "c": 50, "d": 170}
STRIDES = tuple([c_strides(term, SIZES) for term in TERMS])
CPU = profile("cpu")
PAIR = Problem(TERMS, "abd", (False, False), STRIDES, tuple(SIZES.items()), "float32", CPU)
NAMES = [way.way.name for way in candidates(PAIR)[1]]


class KnownDevice:
    """Ways take the seconds that are known of them; lists those that were timed."""

    def __init__(self, seconds, memory=True):
        self.known, self.memory, self.timed = seconds, memory, []

    def random(self, shape, strides, dtype):
        if not self.memory:
            raise MemoryError
        return shape, strides, dtype

    def load(self, schedule):
        [step] = schedule.steps
        self.timed.append(step.taken.way.name)
        given = [(schedule.shape(place), own, schedule.dtype) for place, own in enumerate(schedule.strides)]

        def run(*arrays):
            assert [*arrays] == given
            return step.taken.way.name

        return run

    def seconds(self, call, count):
        return count * self.known[call()]


def seconds_of(fastest):
    return {name: 1.0 if name == fastest else 2.0 for name in NAMES}


def choose(tuner, **changes):
    """The way that a tuner takes for the pair; the order of its sides does not matter here."""
    return tuner.choose(replace(PAIR, **changes))[1].way


@pytest.fixture
def path(tmp_path):
    return tmp_path / "cache" / "tuned.json"


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(tune, "_SECONDS", 0.0)
    monkeypatch.setattr(tune, "_HOPELESS", float("inf"))


@pytest.mark.parametrize("name", NAMES)
def test_the_fastest_by_the_clock_is_taken_whatever_its_price(path, name):
    device = KnownDevice(seconds_of(name))
    way = choose(Tuner(device, Choices(path)))
    assert way.name == name
    assert way in [candidate.way for candidate in candidates(PAIR)[1]]
    assert sorted(device.timed) == sorted(NAMES)
    assert len(NAMES) == 5  # one pass, and products with copies of no side, of either and of both


def test_what_was_timed_is_remembered_by_later_processes(path):
    choose(Tuner(KnownDevice(seconds_of(NAMES[-1])), Choices(path)))
    assert set(json.loads(path.read_text()).values()) == {NAMES[-1]}
    later = KnownDevice({})
    assert choose(Tuner(later, Choices(path))).name == NAMES[-1]
    assert later.timed == []
    assert [file.name for file in path.parent.iterdir()] == ["tuned.json"]  # no unfinished one


def test_labels_and_sides_may_have_other_names_and_order_but_sizes_strides_types_and_precision_count(path):
    device = KnownDevice(seconds_of(NAMES[0]))
    choices = Choices(path)
    choose(Tuner(device, choices))
    renamed = {"terms": ("xyw", "zyx"), "out": "zyw", "strides": STRIDES[::-1]}
    choose(Tuner(device, choices), **renamed, sizes=tuple(zip("zyxw", SIZES.values(), strict=True)))
    assert len(device.timed) == len(NAMES)
    for other in (
        {"sizes": tuple((SIZES | {"d": 171}).items())},
        {"strides": (STRIDES[0], (1, 50, 2000))},
        {"dtype": "float64"},
        {"precision": "tf32"},
        {"is_ordered": True},
    ):
        before = len(device.timed)
        choose(Tuner(device, choices), **other)
        assert len(device.timed) > before
    choose(Tuner(KnownDevice({}), choices), precision="highest")  # which is what None means


def test_conjugates_and_where_sides_begin_count_too(path):
    device, choices = KnownDevice(seconds_of(NAMES[0])), Choices(path)
    for other in ({}, {"conjugated": (False, True)}, {"aligned": False}):
        before = len(device.timed)
        choose(Tuner(device, choices), dtype="complex64", **other)
        assert len(device.timed) > before
    assert len(json.loads(path.read_text())) == 3


def test_small_pairs_are_not_timed_on_any_device(path):
    for device in (CPU, profile("h200")):
        sizes = tuple(dict.fromkeys(SIZES, 7).items())
        choose(Tuner(KnownDevice({}), Choices(path)), sizes=sizes, strides=((49, 7, 1),) * 2, profile=device)
    assert not path.exists()


def test_what_other_processes_wrote_meanwhile_is_kept(path):
    mine, others = Choices(path), Choices(path)
    others.put("theirs", "copy nothing")
    mine.put("mine", "copy both sides")
    assert json.loads(path.read_text()) == {"mine": "copy both sides", "theirs": "copy nothing"}
    assert mine.get("theirs") == "copy nothing"


@pytest.mark.parametrize("content", ["half a {", "[1]", '{"key": 1}', "[" * 100_000])
def test_a_broken_file_is_warned_of_and_written_anew(path, content):
    path.parent.mkdir()
    path.write_text(content)
    with pytest.warns(RuntimeWarning, match=r"tuned.json: .*; what was tuned before is not used"):
        choices = Choices(path)
    assert choices.get("key") is None
    with pytest.warns(RuntimeWarning, match="what was tuned before is not used"):
        choices.put("key", "copy nothing")
    assert json.loads(path.read_text()) == {"key": "copy nothing"}


def test_a_name_that_is_no_way_any_more_is_timed_anew(path):
    device = KnownDevice(seconds_of(NAMES[0]))
    choose(Tuner(device, Choices(path)))
    [key] = json.loads(path.read_text())
    Choices(path).put(key, "import os")
    assert choose(Tuner(device, Choices(path))).name == NAMES[0]
    assert len(device.timed) == 2 * len(NAMES)


def test_where_nothing_can_be_written_that_is_warned_of_once(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.warns(RuntimeWarning, match="tuned before is not used"):
        choices = Choices(tmp_path / "file" / "tuned.json")
    with pytest.warns(RuntimeWarning) as caught:
        choices.put("a", "copy nothing")
    assert str(caught[-1].message).startswith("what was tuned is forgotten with this process: ")
    choices.put("b", "copy both sides")  # a warning would be an error
    assert (choices.get("a"), choices.get("b")) == ("copy nothing", "copy both sides")


def test_without_memory_for_it_the_price_decides_and_nothing_is_remembered(path):
    choices = Choices(path)
    assert choose(Tuner(KnownDevice({}, memory=False), choices)).name == NAMES[0]
    assert not path.exists()
    assert choose(Tuner(KnownDevice(seconds_of(NAMES[-1])), choices)).name == NAMES[-1]


def test_what_is_predicted_to_be_hopeless_is_not_timed(path, monkeypatch):
    ways = candidates(PAIR)[1]
    monkeypatch.setattr(tune, "_HOPELESS", ways[1].seconds / ways[0].seconds * (1 + 1e-9))
    device = KnownDevice(seconds_of(NAMES[-1]))
    choose(Tuner(device, Choices(path)))
    assert device.timed == NAMES[:2]
    monkeypatch.setattr(tune, "_HOPELESS", 1 + 1e-9)
    assert choose(Tuner(KnownDevice({}), Choices(path.with_name("other")))).name == NAMES[0]


# ---------------------------------------------------------------- from the door


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("GPUEINSUM_CACHE", str(tmp_path))
    return tmp_path


@pytest.fixture
def arrays(rng):
    return [rng.standard_normal([SIZES[label] for label in term]).astype("f4") for term in TERMS]


def clear():
    """Forget what is bound, not what is on disk."""
    from gpueinsum.api import dispatch as call

    for cached in (call._call, call._plan_call, call.cached_call, call.cached_plan_call, tune._choices):
        cached.cache_clear()


def test_on_the_cpu_each_way_gives_the_result_and_the_fastest_is_kept(cache, arrays):
    clear()
    expected = ge.einsum(EQUATION, *arrays)
    got = ge.einsum(EQUATION, *arrays, autotune=True)
    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-3)
    path = tuned_path(machine("cpu"))
    assert path.parent == cache
    [key] = json.loads(path.read_text())
    for name in NAMES:
        path.write_text(json.dumps({key: name}))
        clear()
        got = ge.einsum(EQUATION, *arrays, autotune=True)
        np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-3)
        assert json.loads(path.read_text()) == {key: name}  # nothing was timed


def test_small_products_and_sums_are_not_tuned(cache):
    clear()
    ge.einsum("ij,jk->ik", np.ones((3, 4)), np.ones((4, 5)), autotune=True)
    ge.einsum("ijk->i", np.ones((30, 40, 50)), autotune=True)
    assert not list(cache.iterdir())


def test_gradients_and_expressions_and_plans_are_tuned(cache, arrays):
    clear()
    y, pullback = ge.vjp(EQUATION, *arrays, autotune=True)
    pullback(y)
    assert len(json.loads(tuned_path(machine("cpu")).read_text())) == 3
    expected = ge.einsum(EQUATION, *arrays)
    plan = ge.einsum_plan(EQUATION, *arrays)
    expression = ge.contract_expression(EQUATION, *[x.shape for x in arrays], autotune=True)
    for got in (
        ge.run_plan(plan, *arrays, autotune=True),
        expression(*arrays),
        ge.contract(EQUATION, *arrays, autotune=True),
    ):
        np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("dtype", ["f4", "c8"])
def test_on_a_device_programs_are_timed_and_each_gives_the_result(cache, rng, monkeypatch, dtype):
    monkeypatch.setattr(ge.backends.select, "cuda_backend", simulated_backend)
    monkeypatch.setattr("gpueinsum.backends.autotune.machine", lambda kind: machine("cpu"))
    equation, shapes = EQUATION, [(60, 4, 50), (50, 4, 70)]
    x, y = (rng.standard_normal(shape).astype(dtype) for shape in shapes)
    expected = ge.einsum(equation, x, y)

    def tuned():
        clear()
        return ge.einsum(equation, x, y, backend="cuda", autotune=True)

    np.testing.assert_allclose(tuned(), expected, rtol=1e-4, atol=1e-4)
    path = tuned_path(machine("cpu"))
    [(key, fastest)] = json.loads(path.read_text()).items()
    launched = {}
    for name in NAMES:
        path.write_text(json.dumps({key: name}))
        simulated_backend().runtime.calls.clear()
        np.testing.assert_allclose(tuned(), expected, rtol=1e-4, atol=1e-4)
        if json.loads(path.read_text()) == {key: name}:  # it is a way
            launched[name] = len(simulated_backend().runtime.calls)
    assert len(launched) > 1
    assert launched[fastest] == min(launched.values())  # whose seconds are its launches


def test_the_clock_and_determinism_exclude_each_other():
    message = "autotune=True chooses by the clock, which differs from run to run: deterministic=True refuses that"
    with pytest.raises(ValueError, match=message):
        ge.einsum("i", np.ones(3), autotune=True, deterministic=True)
    with pytest.raises(ValueError, match="autotune='often' is none of True, False"):
        ge.einsum("i", np.ones(3), autotune="often")
