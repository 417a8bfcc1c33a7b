"""Products by tiles: of every type, any strides, any tiles; sums that threads and blocks share; ends within a tile."""

import math
import re
from dataclasses import replace

import numpy as np
import pytest
from kernel_launches import DTYPES, empty, launch, numpy_einsum, values
from simulated import SimulatedRuntime

from gpueinsum import einsum_plan
from gpueinsum.backends.base import PLAIN
from gpueinsum.backends.cuda.backend import CudaBackend
from gpueinsum.backends.cuda.contraction import contract, multiply
from gpueinsum.backends.cuda.source import kernel_folder
from gpueinsum.costs.counts import item_bytes
from gpueinsum.costs.profile import profile
from gpueinsum.language.strides import Axis
from gpueinsum.schedule import tiling
from gpueinsum.schedule.orders import Lies, Order, best_order, pack_parts
from gpueinsum.schedule.problem import Problem
from gpueinsum.schedule.tiled import COLUMNS, ROWS, SUMMED, Cut, Tiled
from gpueinsum.schedule.tiling import choose_tiles
from gpueinsum.schedule.units import units

PROCESSORS = 3
PAIRS = [  # equation, sizes
    ("ij,jk->ik", {"i": 67, "j": 19, "k": 13}),
    ("ji,kj->ki", {"i": 3, "j": 131, "k": 17}),
    ("bij,bkj->bik", {"b": 7, "i": 5, "j": 11, "k": 3}),
    ("abf,eadcb->cfde", {"a": 2, "b": 5, "c": 37, "d": 2, "e": 3, "f": 2}),  # a gate whose qubits lie anywhere
    ("ab,ac->bc", {"a": 1009, "b": 2, "c": 3}),  # a long sum
    ("gbac,cgd->dgba", {"a": 3, "b": 2, "c": 7, "d": 5, "g": 31}),
    ("i,i->", {"i": 523}),
]
PACKED = [  # whose tiles consist of packs of 16 bytes
    ("ij,jk->ik", {"i": 64, "j": 48, "k": 32}),
    ("ji,kj->ki", {"i": 4, "j": 132, "k": 16}),
    ("bij,bkj->bik", {"b": 12, "i": 4, "j": 8, "k": 20}),
    ("abf,eadcb->cfde", {"a": 2, "b": 4, "c": 36, "d": 2, "e": 3, "f": 2}),
    ("ab,ac->bc", {"a": 1024, "b": 2, "c": 6}),
    ("dcfe,eab->dcafb", {"a": 2, "b": 2, "c": 4, "d": 3, "e": 4, "f": 36}),
]


def problem_of(equation, arrays, conjugated=(False, False), processors=PROCESSORS, dtype=None):
    terms, out = equation.split("->")
    terms = tuple(terms.split(","))
    size = {
        label: size for term, x in zip(terms, arrays, strict=True) for label, size in zip(term, x.shape, strict=True)
    }
    strides = tuple([tuple([stride // x.dtype.itemsize for stride in x.strides]) for x in arrays])
    device = replace(profile("h200"), processors=processors)
    return Problem(terms, out, conjugated, strides, tuple(size.items()), dtype or arrays[0].dtype.name, device)


def run(runtime, tiled, problem, arrays):
    """The tiled product of device arrays, its chunks added up by numpy."""
    sides, marks = (arrays[::-1], problem.conjugated[::-1]) if tiled.swapped else (arrays, problem.conjugated)
    shape = tuple(problem.size[label] for label in problem.out)
    made = contract(tiled, sum(mark << side for side, mark in enumerate(marks)), math.prod(shape), PROCESSORS)
    out = empty(runtime, (tiled.chunks, *shape), np.dtype(made.kernel.result))
    launch(runtime, made.kernel, made.blocks, made.threads, made.job, *sides, out)
    return runtime.to_host(out).sum(axis=0).astype(arrays[0].dtype)


@pytest.fixture(params=["contract", "contract_small"])
def only(request, monkeypatch):
    """Tiles of one of the two kernels."""
    own = {dtype: [unit for unit in units(dtype) if unit.kernel == request.param] * 2 for dtype in DTYPES}
    monkeypatch.setattr(tiling, "units", own.__getitem__)
    return request.param


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("equation", "size", "is_packed"),
    [(*pair, False) for pair in PAIRS] + [(*pair, True) for pair in PACKED],
    ids=[equation for equation, _ in PAIRS] + [f"{equation} in packs" for equation, _ in PACKED],
)
def test_products_of_every_type_agree_with_numpy(runtime, rng, only, dtype, equation, size, is_packed):
    terms = equation.split("->")[0].split(",")
    arrays = [values(rng, tuple(size[label] for label in term), dtype) for term in terms]
    problem = problem_of(equation, arrays, dtype=dtype)
    tiled = choose_tiles(problem, problem.out).tiled
    assert tiled.unit.kernel == only
    assert tiled.reads_packs or not is_packed or tiled.unit.width == 1
    result = run(runtime, tiled, problem, [runtime.to_device(x) for x in arrays])
    if np.dtype(result.dtype).kind == "b":
        result = result != 0
    np.testing.assert_array_equal(result, numpy_einsum(equation, *arrays, dtype=dtype))


def random_tiles(rng, tiled):
    """Other tiles that the kernel holds, of any extents; of the summed axes one at the most is ragged."""
    while True:
        axes = []
        for role, cuts in enumerate(tiled.axes):
            extents = [int(rng.integers(1, min(cut.size, 300) + 1)) for cut in cuts]
            if role == SUMMED:
                ragged = int(rng.integers(len(cuts)))
                whole = [rng.choice([n for n in range(1, cut.size + 1) if cut.size % n == 0]) for cut in cuts]
                extents = [extents[n] if n == ragged else int(whole[n]) for n in range(len(cuts))]
            axes.append(tuple([Cut(cut.size, extent, cut.strides) for cut, extent in zip(cuts, extents, strict=True)]))
        other = replace(tiled, axes=tuple(axes))
        if other.fits():
            steps = other.tiles[SUMMED]
            run = -(-steps // int(rng.integers(1, min(steps, 4) + 1)))
            return replace(other, chunks=-(-steps // run))


@pytest.mark.parametrize("seed", range(60))
def test_any_tiles_of_arrays_of_any_strides_give_the_result(runtime, only, seed):
    rng = np.random.default_rng(seed)
    equation, size = (PAIRS + PACKED)[seed % len(PAIRS + PACKED)]
    dtype = str(rng.choice(["float32", "float64", "complex64", "complex128", "int16"]))
    terms, arrays, on_device = equation.split("->")[0].split(","), [], []
    for term in terms:
        host = values(rng, tuple(size[label] * 2 for label in term), dtype)
        order = rng.permutation(len(term)).tolist()
        steps = tuple([slice(None, None, 2) if rng.random() < 0.7 else slice(None, None, -2) for _ in term])
        back = np.argsort(order).tolist()
        arrays.append(host.transpose(order)[steps].transpose(back))
        on_device.append(runtime.to_device(host).transpose(order)[steps].transpose(back))
    marks = (True, False) if dtype.startswith("complex") else (False, False)
    problem = problem_of(equation, arrays, marks)
    chosen = choose_tiles(problem, problem.out).tiled
    tiled = random_tiles(rng, chosen)
    result = run(runtime, tiled, problem, on_device)
    factors = [x.conj() if mark else x for x, mark in zip(arrays, marks, strict=True)]
    np.testing.assert_array_equal(result, numpy_einsum(equation, *factors, dtype=dtype))


def test_any_grid_gives_the_same_bits(runtime, rng):
    arrays = [rng.standard_normal(shape).astype(np.float32) for shape in ((67, 190), (190, 45))]
    problem = problem_of("ij,jk->ik", arrays)
    tiled = choose_tiles(problem, "ik").tiled
    made, results = contract(tiled, 0, 67 * 45, PROCESSORS), []
    sides = [runtime.to_device(x) for x in (arrays[::-1] if tiled.swapped else arrays)]
    for blocks in (1, 2, 7):
        out = empty(runtime, (tiled.chunks, 67, 45), np.dtype(np.float32))
        launch(runtime, made.kernel, blocks, made.threads, made.job, *sides, out)
        results.append(runtime.to_host(out).tobytes())
    assert len(set(results)) == 1


def test_one_value_that_is_no_number_reaches_its_own_results_alone(runtime, rng):
    arrays = [values(rng, shape, "float32") for shape in ((45, 37), (37, 23))]
    arrays[0][5, 36] = np.nan  # in the last summed element, beside what the tile has no elements for
    problem = problem_of("ij,jk->ik", arrays)
    result = run(runtime, choose_tiles(problem, "ik").tiled, problem, [runtime.to_device(x) for x in arrays])
    np.testing.assert_array_equal(np.isnan(result), np.arange(45)[:, None] == np.full((1, 23), 5))


def test_a_long_sum_is_shared_by_all_blocks_and_added_up():
    arrays = [np.lib.stride_tricks.as_strided(np.zeros(1, np.float16), (1 << 22, 3), (6, 2)) for _ in "ab"]
    problem = problem_of("ab,ac->bc", arrays, processors=132)
    chosen = choose_tiles(problem, "bc")
    launches = multiply(chosen.tiled, 0, 9, 132)
    assert chosen.tiled.chunks == launches.first.blocks > 132
    assert launches.first.kernel.result == launches.second.kernel.source == "float32"
    assert launches.second.kernel.result == "float16"
    assert chosen.scratch == launches.scratch == chosen.tiled.chunks * 9 * 4


def test_a_small_side_stays_in_shared_memory():
    arrays = np.zeros((2, 2), np.float32), np.zeros((64, 2, 4096), np.float32)
    chosen = choose_tiles(problem_of("ij,ajb->aib", arrays, processors=132), "aib").tiled
    assert chosen.keeps
    assert chosen.swapped
    assert (chosen.tile[COLUMNS], chosen.tile[SUMMED]) == (2, 2)
    assert chosen.tile[ROWS] >= 512


@pytest.mark.parametrize("dtype", DTYPES)
def test_units_are_what_the_kernels_say(dtype):
    for unit in units(dtype):
        assert unit.capacity * max(unit.item, 4) == {"contract": 32 << 10, "contract_small": 20 << 10}[unit.kernel]
        assert all(rows % unit.width == 0 for rows, _ in unit.results)


def test_tiles_that_no_thread_has_room_for_do_not_fit():
    [many, _] = units("float32")
    axis = Cut(1 << 12, 1 << 12, (1, 0, 1))
    assert not Tiled("i", ((), (axis,), (Cut(1 << 12, 1 << 12, (0, 1, 1)),), ()), many).fits()
    assert not Tiled("i", ((), (axis,), (), (Cut(64, 64, (1 << 12, 1, 0)),)), many).fits()
    assert Tiled("i", ((), (replace_extent(axis, 256),), (), (Cut(64, 8, (1 << 12, 1, 0)),)), many).fits()


def test_arrays_of_more_than_32_bits_are_counted_in_tiles():
    size, far = {"a": 1 << 16, "b": 1 << 16, "c": 4, "d": 4}, 1 << 33
    device = profile("h200")

    def tiles(strides):
        problem = Problem(("abc", "cd"), "abd", (False,) * 2, (strides, (4, 1)), tuple(size.items()), "int8", device)
        return choose_tiles(problem, "abd").tiled

    assert math.prod(tiles((4 << 16, 4, 1)).tiles) < 1 << 31
    apart = tiles((1 << 18, 4, far))  # no tile spans two summed elements
    assert apart.tile[SUMMED] == 1
    assert apart.fits()


def replace_extent(cut, extent):
    return cut._replace(extent=extent)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("number", range(2))
def test_every_share_that_is_offered_gives_the_result(runtime, rng, monkeypatch, dtype, number):
    for results in units(dtype)[number].results:
        own = units(dtype)[number]._replace(results=(results,))
        monkeypatch.setattr(tiling, "units", lambda _, own=own: (own, own))
        for equation, size in (("bij,bkj->bik", {"b": 7, "i": 3, "j": 5, "k": 2}), ("bi,bi->b", {"b": 40, "i": 9})):
            terms = equation.split("->")[0].split(",")
            arrays = [values(rng, tuple(size[label] for label in term), dtype) for term in terms]
            problem = problem_of(equation, arrays, dtype=dtype)
            tiled = choose_tiles(problem, problem.out).tiled
            assert (tiled.share.rows, tiled.share.columns) == results
            result = run(runtime, tiled, problem, [runtime.to_device(x) for x in arrays])
            result = result != 0 if np.dtype(result.dtype).kind == "b" else result
            np.testing.assert_array_equal(result, numpy_einsum(equation, *arrays, dtype=dtype), err_msg=str(results))


@pytest.mark.parametrize("dtype", ["uint8", "float32", "float64", "complex128"])
@pytest.mark.parametrize("number", range(2))
def test_a_unit_has_the_room_that_its_kernel_has(dtype, number):
    unit = units(dtype)[number]
    text = (kernel_folder() / f"{unit.kernel}.cu").read_text(encoding="utf-8")
    words = max(1, unit.item // 4)

    def constant(name):
        value = re.search(rf"{name} = (.+?)(?:, [A-Z]|;)", text)[1]
        condition = re.fullmatch(r"(WORDS|sizeof\(In\)) < (\d) \? (\d) : (.+)", value)
        if condition:
            size = words if condition[1] == "WORDS" else item_bytes(dtype)
            value = condition[3 if size < int(condition[2]) else 4]
        return eval(value.replace("/ WORDS", f"// {words}"), {})

    assert 3 * unit.listed <= constant("MAX_LINES")
    assert unit.blocks == constant("BLOCKS")
    assert unit.loads == (constant("LEFT"), constant("RIGHT"))
    assert unit.capacity * 4 * words == constant("SHARED_BYTES")
    down, across = constant("DOWN"), constant("ACROSS")
    fewer = {(max(1, down // 2), columns) for columns in {across, 2, 1}}  # as `with_results` of kernels/contract.cuh
    assert {(rows // unit.width, columns) for rows, columns in unit.results} <= {(down, across), *fewer}


@pytest.mark.parametrize("seed", range(40))
def test_any_tiles_of_packs_give_the_result(runtime, only, seed):
    rng = np.random.default_rng(seed)
    equation, size = PACKED[seed % len(PACKED)]
    dtype = str(rng.choice(["float16", "float32", "float64", "complex64", "int8"]))
    arrays = [values(rng, tuple(size[label] for label in term), dtype) for term in equation.split("->")[0].split(",")]
    problem = problem_of(equation, arrays, dtype=dtype)
    chosen = choose_tiles(problem, problem.out).tiled
    tiled = next(tiled for _ in range(1000) if (tiled := random_tiles(rng, chosen)).reads_packs)
    result = run(runtime, tiled, problem, [runtime.to_device(x) for x in arrays])
    np.testing.assert_array_equal(result, numpy_einsum(equation, *arrays, dtype=dtype))


@pytest.mark.parametrize("begins", [0, 1])
def test_operands_that_begin_within_a_pack_are_read_by_elements(begins):
    runtime = SimulatedRuntime()
    shapes = (1 << 16, 2), (1 << 16, 4)
    memory = [runtime.to_device(np.arange(math.prod(shape) + begins, dtype=np.float32) % 7) for shape in shapes]
    operands = [own[begins:].reshape(shape) for own, shape in zip(memory, shapes, strict=True)]
    backend, plan = CudaBackend(runtime), einsum_plan("ab,ac->bc", *[x.shape for x in operands], dtype="float32")
    aligned, anywhere = (
        backend.program(plan, [x.strides for x in operands], aligned=aligned) for aligned in (True, False)
    )
    assert {program.work[0].kernel.name for program in (aligned, anywhere)} == {"contract_small"}
    assert aligned.packed_operands == (0, 1)
    assert anywhere.packed_operands == ()
    result = runtime.to_host(backend.bind_single(plan, PLAIN)(*operands))
    np.testing.assert_array_equal(result, np.einsum("ab,ac->bc", *[runtime.to_host(x) for x in operands]))


@pytest.mark.parametrize(
    ("axes", "parts"),
    [  # nearest first: size, elements of a tile, stride, whether summed
        ([(8, 8, 1, False), (5, 5, 8, False)], [4, 1]),
        ([(2, 2, 1, True), (9, 4, 2, True)], None),  # the last tile has one pair
        ([(2, 2, 1, True), (10, 4, 2, True)], [2, 2]),
        ([(6, 6, 1, False), (5, 5, 6, False)], None),  # a pack would end in the next line, whose places are others
        ([(8, 8, 1, False), (5, 5, 10, False)], None),  # lines begin within a pack
        ([(8, 8, 2, False)], None),  # no neighbours
        ([(8, 8, -1, False)], None),
        ([(12, 8, 1, False)], [4]),  # the last tile begins at 4
        ([(10, 8, 1, False)], None),  # it begins at 2
        ([(10, 8, 1, True)], None),  # it has 2
        ([(12, 8, 1, True)], [4]),
        ([(12, 6, 1, False)], None),  # the second tile begins at 6
        ([(8, 8, 0, False), (8, 8, 1, False)], [1, 4]),
    ],
)
def test_a_tile_consists_of_packs_if_every_one_begins_at_a_pack(axes, parts):
    assert pack_parts([Lies(*axis) for axis in axes], 4) == parts


def test_neighbouring_threads_meet_different_banks():
    [unit, _] = units("float32")
    pitch = 132
    lines = Axis(16, (512, 1, 0))  # rows of a matrix, neighbours in shared memory
    along = Axis(16, (4, 4 * pitch, 0))  # packs of the sum, neighbours in the matrix
    pack = [Axis(4, (1, pitch, 0))]
    found = best_order([lines, along], pack, unit)
    [of_lines, of_packs] = found.loops[-2:]
    assert of_packs.size <= 4
    assert of_packs.strides[0] == 4
    assert of_lines.strides[1] == 1
    assert found.cycles(unit) < Order([lines, along], 2, pack).cycles(unit)


@pytest.mark.parametrize("equation", ["ij,jk->ik", "dcfe,eab->dcafb"])
def test_tiles_are_priced_as_packs_where_they_are_read_so(equation):
    sizes = dict(PACKED)[equation]
    shapes = [tuple(sizes[label] for label in term) for term in equation.split("->")[0].split(",")]
    problem = problem_of(equation, [np.zeros(shape, np.float32) for shape in shapes])
    aligned, anywhere = (choose_tiles(replace(problem, aligned=aligned), problem.out) for aligned in (True, False))
    assert aligned.tiled.reads_packs
    assert not anywhere.tiled.reads_packs
    assert aligned.seconds < anywhere.seconds
