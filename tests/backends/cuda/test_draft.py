"""From drafts to programs: lanes race for nothing, take what the program says, and are there where they pay."""

import itertools
from dataclasses import replace
from functools import partial
from random import Random

import numpy as np
import pytest
from gpueinsum.backends.execute import Mode
from random_expressions import random_case
from random_gradients import random_plain_call
from simulated import SimulatedRuntime

import gpueinsum as ge
from gpueinsum.backends.cuda import draft
from gpueinsum.backends.cuda.backend import CudaBackend
from gpueinsum.costs.profile import profile
from tests.api.test_gradients_random import assert_passes, check_jvp, check_vjp
from tests.api.test_random import check, one_of_each, operands
from tests.backends.cuda.test_lower import PLANS, operands_of

SHAPES = [*itertools.pairwise([29, 31, 37, 41, 43, 47, 53, 59, 61])]
TREE = ge.einsum_plan("ab,bc,cd,de,ef,fg,gh,hi->ai", *SHAPES, optimize=[(0, 1)] * 7)
PLANS = PLANS | {
    "a tree": TREE,
    "its gradients, too": TREE.vjp(),
    "gradients of gradients": ge.einsum_plan("ab,bc,cd->ad", *SHAPES[:3]).vjp().vjp(),
    "sums of tensors": ge.einsum_plan("abc,cde,efa->", (31, 7, 41), (41, 11, 47), (47, 5, 31)).vjp(),
}
CHOICES = {
    "last": max,
    "first": min,
    "second": lambda free: 1 if 1 in free else max(free),
    "third": lambda free: 2 if 2 in free else min(free),
    "any": Random(7).choice,
}


def strides_of(plan):
    return [np.empty(plan.shape(number), plan.dtype).strides for number in range(len(plan.inputs))]


def on(device, monkeypatch):
    """A new backend as the one that `backend="cuda"` means."""
    backend = CudaBackend(device)
    monkeypatch.setattr(ge.backends.select, "cuda_backend", lambda: backend)
    return backend


@pytest.mark.parametrize("lane", CHOICES)
@pytest.mark.parametrize("name", PLANS)
def test_lanes_give_what_turns_give_whichever_is_ahead(rng, always_lanes, name, lane):
    plan, device = PLANS[name], SimulatedRuntime(choose_lane=CHOICES[lane])
    hosts = operands_of(rng, plan)
    arrays = [device.to_device(host) for host in hosts]
    for mode in Mode(), Mode(graph=True), Mode(deterministic=True):
        run = CudaBackend(device).bind(plan, mode)
        for _ in range(3):
            for result, expected in zip(run(*arrays), ge.backends.select.HOST.bind(plan)(*hosts), strict=True):
                np.testing.assert_allclose(result, expected, rtol=1e-12, atol=1e-9)


def test_those_plans_have_lanes_that_wait_for_each_other(always_lanes):
    backend = CudaBackend(SimulatedRuntime())
    starts = {name: backend.program(plan, strides_of(plan)).starts for name, plan in PLANS.items()}
    waits = {name: sum(len(start.after) for start in found) for name, found in starts.items()}
    assert waits["a tree"] >= 3
    assert waits["its gradients, too"] >= 9
    assert sum(count > 0 for count in waits.values()) >= 6
    assert starts["a long sum"] == starts["nothing at all"] == ()


@pytest.mark.parametrize("name", ["a tree", "its gradients, too", "gradients of gradients"])
def test_without_any_one_of_its_waits_a_program_goes_wrong(rng, always_lanes, name):
    plan, device = PLANS[name], SimulatedRuntime()
    arrays = [device.to_device(host) for host in operands_of(rng, plan)]
    program = CudaBackend(device).program(plan, [array.strides for array in arrays])
    expected = [result.copy() for result in ge.backends.select.HOST.bind(plan)(*arrays)]

    def is_right(program, choose):
        device.choose_lane = choose
        memories = [device.allocate(nbytes) for nbytes in (*program.results, program.workspace)]
        device.branched(program)([*map(device.pointer, arrays), *[memory.ptr for memory in memories]])
        results = [
            device.array(shape, np.dtype(program.dtype), memories[memory - len(arrays)], strides)
            for memory, shape, strides in program.outputs
        ]
        return all(map(np.allclose, results, expected))

    def late(lane, early):
        """As little of a lane as can be, and as much of the other."""
        return lambda free: max(free, key=lambda other: (other != lane, other == early))

    for number, start in enumerate(program.starts):
        for other in start.after:
            fewer = start._replace(after=tuple(wait for wait in start.after if wait != other))
            starts = (*program.starts[:number], fewer, *program.starts[number + 1 :])
            choose = late(program.starts[other].lane, early=start.lane)
            assert is_right(program, choose)
            assert not is_right(replace(program, starts=starts), choose), f"#{number} need not wait for #{other}"


@pytest.mark.parametrize("name", ["a tree", "its gradients, too"])
def test_memory_that_serves_again_too_early_is_found(rng, always_lanes, monkeypatch, name):
    plan = PLANS[name]
    hosts = operands_of(rng, plan)

    def is_right():
        for choose in CHOICES.values():
            device = SimulatedRuntime(choose_lane=choose)
            results = CudaBackend(device).bind(plan)(*[device.to_device(host) for host in hosts])
            if not all(map(np.allclose, results, ge.backends.select.HOST.bind(plan)(*hosts))):
                return False
        return True

    assert is_right()
    monkeypatch.setattr(draft, "_lane_lifetime", lambda nbytes, turns, *_: draft.Lifetime(nbytes, turns[0], turns[-1]))
    assert is_right()  # since what waits for what is found from the bytes that are touched
    found, starts = [], draft.starts

    def as_if_apart(*arguments):
        """What is found before memory has its place."""
        found.append(starts(*arguments))
        return found[-1] if len(found) % 2 else found[-2]

    monkeypatch.setattr(draft, "starts", as_if_apart)
    assert not is_right()


@pytest.mark.parametrize("name", PLANS)
def test_nothing_waits_for_memory_to_become_free(always_lanes, monkeypatch, name):
    found, starts = [], draft.starts
    monkeypatch.setattr(draft, "starts", lambda *arguments: found.append(starts(*arguments)) or found[-1])
    program = CudaBackend(SimulatedRuntime()).program(PLANS[name], strides_of(PLANS[name]))
    assert len(found) == (2 if program.starts else 0)
    assert found[:1] == found[1:]


def test_a_launch_is_taken_to_touch_all_bytes_of_its_memories(always_lanes, monkeypatch):
    found, uses = [], draft._uses
    monkeypatch.setattr(draft, "_uses", lambda *arguments: found.append(uses(*arguments)) or found[-1])
    program = CudaBackend(SimulatedRuntime()).program(TREE, strides_of(TREE))
    for work, touched in zip(program.work, found[-1], strict=True):
        *read, written = work.addresses
        assert [use[:2] for use in touched] == [address for address in work.addresses if address.memory >= 8]
        assert [use.is_written for use in touched] == [address == written for address in (*read, written)][
            -len(touched) :
        ]
        assert touched[-1].end - touched[-1].start == work.gemm.m * work.gemm.n * 8


@pytest.mark.parametrize("name", PLANS)
def test_a_run_on_lanes_takes_as_much_as_the_program_says_and_no_more(rng, always_lanes, name):
    plan, device = PLANS[name], SimulatedRuntime()
    arrays = [device.to_device(host) for host in operands_of(rng, plan)]
    results = CudaBackend(device).bind(plan)(*arrays)
    program = CudaBackend(device).program(plan, [array.strides for array in arrays])
    assert device.peak == program.bytes
    assert device.used == sum(program.results)
    del results


def test_lanes_take_no_more_memory_than_they_may(always_lanes, monkeypatch):
    backend, plan = CudaBackend(SimulatedRuntime()), PLANS["its gradients, too"]
    beside = backend.program(plan, strides_of(plan))
    monkeypatch.setattr(draft, "MOST_MEMORY", -(1 << 60))
    turns = backend.program(plan, strides_of(plan))
    assert beside.starts
    assert turns.starts == ()
    more = beside.bytes - turns.bytes
    assert more > 0
    monkeypatch.setattr(draft, "MOST_MEMORY", more)
    assert backend.program(plan, strides_of(plan)) == beside
    monkeypatch.setattr(draft, "MOST_MEMORY", more - 1)
    assert backend.program(plan, strides_of(plan)) == turns


def test_a_program_prints_lanes_and_waits_where_there_are_several(always_lanes):
    plan = ge.einsum_plan("ab,bc,cd,de->ae", *SHAPES[:4], optimize=[(0, 1), (0, 1), (0, 1)])
    program = CudaBackend(SimulatedRuntime()).program(plan, strides_of(plan))
    assert str(program).split("\n") == [
        "float64, 3 launches on 2 lanes, 21504 bytes of workspace, 9976 of results",
        "  #0 lane 0: w+0 = gemm NN, 43 x 37 x 41  of %3, %2",
        "  #1 lane 1: w+12800 = gemm NN, 37 x 29 x 31  of %1, %0",
        "  #2 lane 0: r0 = gemm NN, 43 x 29 x 37  of w+0, w+12800, after #1",
    ]


@pytest.fixture
def counted(monkeypatch):
    """How many lanes the programs of a new device have, which `backend="cuda"` means."""
    backend, lanes = CudaBackend(SimulatedRuntime(choose_lane=Random(7).choice)), []
    programs = backend.programs
    monkeypatch.setattr(ge.backends.select, "cuda_backend", lambda: backend)

    def counting(*arguments, **options):
        program_for = programs(*arguments, **options)

        def program(is_graph):
            made = program_for(is_graph)
            lanes.append(len({start.lane for start in made.starts}))
            return made

        return program

    monkeypatch.setattr(backend, "programs", counting)
    return lanes


def test_random_calls_agree_with_the_oracle_on_lanes(always_lanes, counted):
    failures = []
    for seed in range(5000):
        case = random_case(Random(seed))
        if case.valid and not case.cpu_only and len(operands(case)) > 3:  # or there is little to run side by side
            try:
                check(partial(ge.contract, backend="cuda"), case, views=False)
            except AssertionError as error:
                failures.append((str(error), f"seed {seed}: {case.description}"))
    assert not failures, one_of_each(failures)
    assert sum(lanes > 1 for lanes in counted) > 20


def test_random_gradients_and_theirs_are_right_on_lanes(rng, always_lanes, counted):
    def check_first(call):
        if not call.cpu_only:
            check_vjp(partial(ge.vjp, backend="cuda"), call)
            check_jvp(partial(ge.jvp, backend="cuda"), call)

    def check_second(call):
        plan = ge.einsum_plan(*call.args).vjp().vjp()
        hosts = operands_of(rng, plan)
        backend = ge.backends.select.cuda_backend()
        results = backend.bind(plan)(*[backend.asarray(host) for host in hosts])
        for result, expected in zip(results, ge.backends.select.HOST.bind(plan)(*hosts), strict=True):
            np.testing.assert_allclose(result, expected, rtol=1e-9, atol=1e-9)

    assert_passes(check_first, range(150))
    first = sum(lanes > 1 for lanes in counted)
    assert first > 50
    assert_passes(check_second, range(100), random_plain_call)
    assert sum(lanes > 1 for lanes in counted) > first + 50


# ---- Where they pay, by the H200's rates and its number of multiprocessors


@pytest.fixture
def h200(monkeypatch):
    monkeypatch.setattr(CudaBackend, "profile", profile("h200"))
    return CudaBackend(SimulatedRuntime(processors=132))


def lanes_of(backend, plan, graph=False):
    starts = backend.program(plan, strides_of(plan), is_graph=graph).starts
    return len({start.lane for start in starts}) or 1


def priced(monkeypatch, backend, equation, *operands):
    """The launches of an expression, each beside itself, as they are scheduled."""
    seen = []
    monkeypatch.setattr(draft, "side_by_side", lambda items, launch: seen.append(items))
    plan = ge.einsum_plan(equation, *operands)
    twice = replace(plan, steps=plan.steps * 2, outputs=plan.outputs + tuple(1 + out for out in plan.outputs))
    backend.program(twice, strides_of(twice))
    [[item, other]] = seen
    assert item == other
    return item


def test_a_launch_fills_what_its_blocks_take_or_the_rate_at_which_it_runs(h200, monkeypatch):
    def item(equation, *shapes, dtype="float32"):
        return priced(monkeypatch, h200, equation, *[np.empty(shape, dtype) for shape in shapes])

    assert item("ij,jk->ik", (8192, 4096), (4096, 8192)).share == 1
    deep = item("ij,jk->ik", (128, 1 << 16), (1 << 16, 128))  # few tiles, whose sums are shared among processors
    assert 0.55 < deep.share < 0.7
    assert deep.seconds == pytest.approx(2 * 128 * 128 * 2**16 / 53e12 / deep.share, rel=0.1)
    tiny = item("ij,jk->ik", (64, 64), (64, 64))
    assert 1 / 132 <= tiny.share < 0.05
    assert item("bij,bjk->bik", (66, 64, 64), (66, 64, 64)).share == 0.5  # a tile for every product
    assert item("ij,jk->ik", (128, 1 << 16), (1 << 16, 128), dtype="complex64").seconds > 3.9 * deep.seconds
    assert item("ij,ij->ij", (1 << 14, 1 << 14), (1 << 14, 1 << 14)).share > 0.99
    small = item("ij,ij->ij", (256, 256), (256, 256))
    assert small.share == 256 * 256 / 4 / 256 / (132 * 8)


@pytest.mark.parametrize(
    ("size", "summed", "launches", "replayed"),
    [
        (64, 64, 1, 3),  # shorter than the host's part
        (192, 1 << 12, 3, 3),  # each as long as many launches, but small
        (4096, 4096, 1, 1),  # each fills the device
    ],
)
def test_products_go_side_by_side_where_they_leave_room(h200, size, summed, launches, replayed):
    shapes = [(size, summed), (summed, size)] * 3
    plan = ge.einsum_plan("ax,xb,by,yc,cz,zd->ad", *shapes, optimize=[(0, 1)] * 5)
    assert (lanes_of(h200, plan), lanes_of(h200, plan, graph=True)) == (launches, replayed)


def test_a_graph_has_lanes_that_its_launches_one_by_one_have_not(rng, monkeypatch):
    monkeypatch.setattr(CudaBackend, "profile", profile("h200"))
    device = SimulatedRuntime()
    plan = ge.einsum_plan("ab,bc,cd,de,ef,fg,gh,hi->ai", *SHAPES, optimize=[(0, 1)] * 7).vjp()
    hosts = operands_of(rng, plan)
    arrays = [device.to_device(host) for host in hosts]
    launched, captured, branched = [], [], device.branched
    monkeypatch.setattr(device, "branched", lambda *arguments: launched.append(arguments) or branched(*arguments))
    capture = device.capture
    monkeypatch.setattr(device, "capture", lambda *arguments: captured.append(arguments[0]) or capture(*arguments))
    run = CudaBackend(device).bind(plan, Mode(graph=True))
    for _ in range(3):
        for result, expected in zip(run(*arrays), ge.backends.select.HOST.bind(plan)(*hosts), strict=True):
            np.testing.assert_allclose(result, expected)
    assert not launched
    assert [len({start.lane for start in program.starts}) for program in captured] == [4]
