"""Products by tiles: of every type, any strides, any tiles; sums that threads and blocks share; ends within a tile."""

import math
import re
from dataclasses import replace

import numpy as np
import pytest
from kernel_launches import DTYPES, empty, launch, numpy_einsum, values

from gpueinsum.backends.cuda.contraction import contract, multiply
from gpueinsum.backends.cuda.source import kernel_folder
from gpueinsum.costs.profile import profile
from gpueinsum.schedule import tiling
from gpueinsum.schedule.problem import Problem
from gpueinsum.schedule.tiled import COLUMNS, ROWS, SUMMED, Cut, Tiled, units
from gpueinsum.schedule.tiling import choose_tiles

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
@pytest.mark.parametrize(("equation", "size"), PAIRS, ids=[equation for equation, _ in PAIRS])
def test_products_of_every_type_agree_with_numpy(runtime, rng, only, dtype, equation, size):
    terms = equation.split("->")[0].split(",")
    arrays = [values(rng, tuple(size[label] for label in term), dtype) for term in terms]
    problem = problem_of(equation, arrays, dtype=dtype)
    tiled = choose_tiles(problem, problem.out).tiled
    assert tiled.unit.kernel == only
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
            return replace(other, chunks=int(rng.integers(1, min(other.tiles[SUMMED], 4) + 1)))


@pytest.mark.parametrize("seed", range(60))
def test_any_tiles_of_arrays_of_any_strides_give_the_result(runtime, only, seed):
    rng = np.random.default_rng(seed)
    equation, size = PAIRS[seed % len(PAIRS)]
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
    steps = -(-tiled.tiles[SUMMED] // tiled.chunks)
    tiled = replace(tiled, chunks=-(-tiled.tiles[SUMMED] // steps))
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
        assert unit.capacity * max(unit.item, 4) == {"contract": 32 << 10, "contract_small": 16 << 10}[unit.kernel]
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
        condition = re.fullmatch(r"WORDS < (\d) \? (\d) : (\d)", value)
        if condition:
            least, fewer, more = map(int, condition.groups())
            return fewer if words < least else more
        return eval(value.replace("/ WORDS", f"// {words}"), {})

    assert 3 * unit.listed <= constant("MAX_LINES")
    assert unit.blocks == constant("BLOCKS")
    assert unit.loads == (constant("LEFT"), constant("RIGHT"))
    assert unit.capacity * 4 * words == constant("SHARED_BYTES")
    down, across = constant("DOWN"), constant("ACROSS")
    fewer = {(max(1, down // 2), columns) for columns in {across, 2, 1}}  # as `with_results` of kernels/contract.cuh
    assert {(rows // unit.width, columns) for rows, columns in unit.results} <= {(down, across), *fewer}
