"""Which kernel runs what: copies, products and sums, in packs, by tiles, with their work shared among threads."""

import itertools
import math
import operator

import pytest

from gpueinsum.backends.cuda.copies import _apart, add, expand
from gpueinsum.backends.cuda.geometry import Source
from gpueinsum.backends.cuda.sums import sum_products

PROCESSORS = 132


def strides_of(term, size):
    strides = [1]
    for label in reversed(term[1:]):
        strides.append(strides[-1] * size[label])
    return tuple(reversed(strides[: len(term)]))


def launches_of(equation, dtype="float32", strides=(), **size):
    terms, out = equation.split("->")
    terms = terms.split(",")
    given = [*strides, *[strides_of(term, size) for term in terms[len(strides) :]]]
    sources = tuple(Source(*pair) for pair in zip(terms, given, strict=True))
    return sum_products(sources, out, tuple(size.items()), dtype, PROCESSORS)


def is_wide(launch):
    """Whether it reads packs: the last number but one of its job."""
    return bool(launch.job[0][-2])


@pytest.mark.parametrize(
    ("equation", "size", "kernel", "wide"),
    [
        ("ij,ij->ij", {"i": 67, "j": 64}, "multiply", True),
        ("ij,ij,j->ij", {"i": 67, "j": 64}, "multiply", True),
        ("i,j->ij", {"i": 67, "j": 64}, "multiply", True),
        ("i,j->ij", {"i": 64, "j": 67}, "multiply", False),  # no whole packs in a row
        ("ij,ij->ij", {"i": 4, "j": 67}, "multiply", True),  # but in all rows together
        ("i,j->ji", {"i": 64, "j": 67}, "multiply", True),
        ("ij,ji->ij", {"i": 64, "j": 64}, "multiply", False),  # no neighbours in the second
        ("ij->ji", {"i": 67, "j": 131}, "transpose", None),
        ("ij->ji", {"i": 32, "j": 131}, "transpose", None),
        ("ij->ji", {"i": 31, "j": 131}, "permute", None),
        ("abcd->dbca", {"a": 37, "b": 3, "c": 5, "d": 41}, "transpose", None),
        ("ij->ji", {"i": 7, "j": 131}, "multiply", False),  # so few are in the caches
        ("ij->ji", {"i": 10, "j": 4000}, "multiply", False),  # in lines that a block reads to their ends
        ("ij->ji", {"i": 1310, "j": 7}, "permute", None),
        ("abcd->dbca", {"a": 17, "b": 3, "c": 5, "d": 19}, "permute", None),
        ("abcdefghijkl->lkjihgfedcba", dict.fromkeys("abcdefghijkl", 2), "permute", None),
        ("abc->bac", {"a": 16, "b": 16, "c": 8}, "multiply", True),  # sectors are neighbours
        ("abc->bac", {"a": 64, "b": 64, "c": 2}, "permute", None),
        ("abcd->acbd", {"a": 3, "b": 5, "c": 7, "d": 64}, "multiply", True),
        ("i->ij", {"i": 67, "j": 64}, "multiply", True),
        ("j->ij", {"i": 67, "j": 64}, "multiply", True),
        ("ij->i", {"i": 67, "j": 64}, "reduce", True),
        ("ij->i", {"i": 257, "j": 64}, "reduce_rows", True),  # of 16 packs
        ("ij->i", {"i": 257, "j": 4}, "reduce", True),  # of one pack
        ("ij->i", {"i": 257, "j": 128}, "reduce", True),
        ("ij->i", {"i": 257, "j": 127}, "reduce_rows", False),
        ("ij->i", {"i": 257, "j": 129}, "reduce", False),
        ("ij->j", {"i": 67, "j": 64}, "reduce_columns", True),
        ("ij->j", {"i": 67, "j": 61}, "reduce_columns", False),
        ("bij,bi->bj", {"b": 3, "i": 7, "j": 64}, "reduce_columns", True),
        ("bij,ij->bj", {"b": 3, "i": 7, "j": 64}, "reduce_columns", True),
        ("bc,bc->b", {"b": 67, "c": 64}, "reduce", True),
        ("bc,c->b", {"b": 67, "c": 64}, "reduce", True),
        ("bc,c->b", {"b": 67, "c": 61}, "reduce", False),
        ("ijk,ik,k->i", {"i": 5, "j": 7, "k": 64}, "reduce", True),
        ("i,i,i,i->", {"i": 64}, "reduce", True),
    ],
)
def test_every_expression_has_its_kernel_and_reads_packs_where_it_can(equation, size, kernel, wide):
    launch = launches_of(equation, **size).first
    assert (launch.kernel.name, launch.kernel.operands) == (kernel, equation.count(",") + 1)
    if wide is not None:
        assert is_wide(launch) == wide


def test_sixteen_bytes_are_a_pack_whatever_the_type():
    for dtype, width in {"bool": 16, "float16": 8, "float32": 4, "complex64": 2}.items():
        assert is_wide(launches_of("ij,ij->ij", dtype, i=7, j=width).first)
        assert not is_wide(launches_of("ij,ij->ij", dtype, i=7, j=width // 2).first)


def test_packs_that_would_not_be_aligned_are_not_read():
    rows_apart = [(68, 1), (66, 1), (68, 2)]
    for equation in ("ij->ij", "ij->i"):
        wide = [is_wide(launches_of(equation, strides=[own], i=7, j=64).first) for own in rows_apart]
        assert wide == [True, False, False]


@pytest.mark.parametrize(
    ("equation", "size", "outputs", "loops"),
    [
        ("i->ii", {"i": 64}, 64 * 64 // 4, 2),
        ("i->ii", {"i": 67}, 67 * 67, 2),
        ("i->ii", {"i": 1}, 1, 1),
        ("iab->iiab", {"i": 5, "a": 7, "b": 64}, 5 * 5 * 7 * 64 // 4, 3),  # a and b are one loop
        ("iab->abii", {"i": 8, "a": 7, "b": 67}, 8 * 8 * 7 * 67 // 4, 3),
    ],
)
def test_a_diagonal_is_written_in_packs_where_rows_are_whole_ones(equation, size, outputs, loops):
    term, out = equation.split("->")
    launch = expand(term, out, strides_of(term, size), size, "float32", PROCESSORS)
    nested, given, _, wide, *_ = launch.job[0]
    assert (given, bool(wide), nested["kept"]) == (outputs, outputs < math.prod(size[label] for label in out), loops)


def test_labels_are_apart_unless_every_one_stands_at_one_place():
    size, term = {"i": 2, "j": 3, "k": 1}, "ijkiji"
    strides = _apart(term, size)
    for places in itertools.product(*(range(size[label]) for label in term)):
        agree = len(set(zip(term, places, strict=True))) == len(size)
        assert (sum(map(operator.mul, strides, places)) == 0) == agree


@pytest.mark.parametrize(
    ("equation", "size", "lanes", "beside", "chunks"),
    [
        ("ij->i", {"i": 1 << 20, "j": 1024}, 8, 1, 1),  # that read a line of 128 bytes: outputs fill the device
        ("ij->i", {"i": 1 << 20, "j": 1023}, 8, 1, 1),
        ("ij->i", {"i": 1 << 20, "j": 156}, 8, 1, 1),  # of no fewer than 4 packs each
        ("ij->i", {"i": 1024, "j": 1 << 20}, 128, 1, 1),
        ("ij->i", {"i": 8, "j": 1 << 20}, 256, 1, 32),  # 1024 packs of each lane
        ("ij->i", {"i": 1 << 20, "j": 23}, 1, 1, 1),
        ("bi,bi->b", {"b": 1 << 20, "i": 128}, 8, 1, 1),
        ("bchw->c", {"b": 64, "c": 2048, "h": 7, "w": 7}, 64, 1, 1),
        ("ij->j", {"i": 1 << 20, "j": 4}, 256, 1, 128),
        ("ij->j", {"i": 10_000_000, "j": 4}, 256, 1, 792),
        ("ij->j", {"i": 10_000_000, "j": 3}, 85, 3, 795),
        ("ij->j", {"i": 1 << 20, "j": 128}, 8, 32, 792),
        ("ij->j", {"i": 1024, "j": 1 << 20}, 1, 1, 1),
        ("bij->bj", {"b": 100_000, "i": 8, "j": 4}, 2, 1, 1),
    ],
)
def test_so_many_lanes_share_an_output(equation, size, lanes, beside, chunks):
    """By 6 blocks of 256 threads for each of 132 multiprocessors."""
    launches = launches_of(equation, **size)
    numbers = launches.first.job[0].tolist()
    assert numbers[4:7] == (lanes, beside, chunks)
    assert (launches.second is None) == (chunks == 1)


def test_a_block_has_whole_teams_of_the_threads_that_share_neighbouring_outputs():
    launch = launches_of("ij->j", i=10_000_000, j=3).first  # 85 lanes of 3 outputs, one thread idle
    assert launch.blocks == launch.job[0].tolist()[6]


def test_few_long_sums_are_cut_into_parts_which_a_second_launch_adds_up():
    launches = launches_of("i,i->", "float16", i=1 << 24)
    first, second = launches.first.kernel, launches.second.kernel
    assert (first.result, second.source, second.result) == ("float32", "float32", "float16")
    assert launches.scratch > 4  # bytes, of several parts of float32
    assert launches_of("bc,bc->b", b=1 << 20, c=64).second is None


def test_no_launch_has_more_blocks_than_its_work_or_than_a_device_holds_several_times():
    assert launches_of("ij,ij->ij", i=3, j=4).first.blocks == 1
    assert launches_of("ij,ij->ij", i=1 << 15, j=1 << 15).first.blocks == PROCESSORS * 8 * 4
    assert add((Source("i", (1,)),) * 2, "i", (("i", 1024),), "float32", PROCESSORS).blocks == 1
