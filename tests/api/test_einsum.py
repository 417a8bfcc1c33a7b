"""The door: what einsum accepts beyond plain arrays, what it returns, what it refuses and how."""

import dataclasses
import gc
import itertools
import subprocess
import sys
import threading
import weakref

import numpy as np
import pytest

import gpueinsum as ge
from gpueinsum.api import dispatch as call


def test_a_batched_product_is_numpys(rng):
    a, b = rng.random((7, 2, 3)), rng.random((7, 3, 5))
    np.testing.assert_allclose(ge.einsum("bij,bjk->bik", a, b), a @ b)


@pytest.mark.parametrize("lhs", ["ij", "ji", "j"])
@pytest.mark.parametrize("rhs", ["jk", "kj", "j"])
def test_small_products_are_numpys_in_every_order_and_layout(lhs, rhs, rng):
    size = {"i": 2, "j": 3, "k": 5}
    kept = (set(lhs) | set(rhs)) - {"j"}
    x, y = (rng.random([2 * size[label] for label in term]) for term in (lhs, rhs))
    x = x[tuple(slice(None, None, -2) for _ in lhs)]
    y = np.broadcast_to(y[..., :1], y.shape)[tuple(slice(size[label]) for label in rhs)]
    for output in map("".join, itertools.permutations(sorted(kept))):
        expression = f"{lhs},{rhs}->{output}"
        np.testing.assert_allclose(ge.einsum(expression, x, y), np.einsum(expression, x, y))


# ---------------------------------------------------------------- views


@pytest.mark.parametrize("expression", ["ij->ji", "ij->ij", "ij", "ii->i", "...j->j...", "iji->ji"])
@pytest.mark.parametrize("dtype", [float, np.float16, int])
@pytest.mark.parametrize("writeable", [True, False])
def test_where_numpy_returns_a_view_so_do_we_writeable_alike(expression, dtype, writeable):
    x = np.arange(27).reshape(3, 3, 3)[: 3 if "iji" in expression else 1].astype(dtype)
    x = x if "iji" in expression else x[0]
    x.flags.writeable = writeable
    ours, numpys = ge.einsum(expression, x), np.einsum(expression, x)
    np.testing.assert_array_equal(ours, numpys)
    assert np.shares_memory(ours, x)
    assert ours is not x
    assert ours.flags.writeable == numpys.flags.writeable == writeable
    assert ours.strides == numpys.strides


@pytest.mark.parametrize(
    ("expression", "shape"), [("ij->i", (3, 1)), ("ij->", (1, 1)), ("i->ii", (3,)), ("ij->j", (3, 5))]
)
def test_where_numpy_returns_a_copy_so_do_we(expression, shape):
    x = np.ones(shape)
    assert not np.shares_memory(ge.einsum(expression, x), x)


def test_a_cast_is_a_copy():
    x = np.ones((2, 3), np.float32)
    result = ge.einsum("ij->ji", x, dtype=np.float64)
    assert result.dtype == np.float64
    assert not np.shares_memory(result, x)


def test_a_view_of_foreign_byte_order_is_a_view():
    x = np.zeros((3, 3), ">f8")
    ge.einsum("ii->i", x)[...] = 1
    assert np.trace(x) == 3
    assert ge.einsum("ij->i", x).dtype.isnative


# ---------------------------------------------------------------- out=


def test_out_receives_the_result_and_is_returned(rng):
    a, out = rng.random((3, 5)), np.empty((5, 3))
    assert ge.einsum("ij->ji", a, out=out) is out
    np.testing.assert_array_equal(out, a.T)


def test_out_may_be_an_operand(rng):
    a, b = rng.random((3, 3)), rng.random((3, 3))
    expected = a @ b
    ge.einsum("ij,jk->ik", a, b, out=a)
    np.testing.assert_allclose(a, expected)
    expected = b.T.copy()
    ge.einsum("ij->ji", b, out=b)
    np.testing.assert_array_equal(b, expected)


def test_out_may_have_any_strides_and_takes_part_in_the_dtype(rng):
    memory = np.zeros((6, 5))
    ge.einsum("i,j->ij", np.arange(3, dtype=np.int32), np.arange(5, dtype=np.int32), out=memory[::-2])
    np.testing.assert_array_equal(memory[::-2], np.outer(np.arange(3), np.arange(5)))
    assert ge.einsum("i,i->", *[np.full(3, 2**30, np.int32)] * 2, out=np.zeros(())) == 3 * 2.0**60


# ---------------------------------------------------------------- dtypes


def test_a_float16_sum_does_not_stop_at_2048():
    x = np.ones(5000, np.float16)
    assert ge.einsum("i->", x) == 5000
    assert ge.einsum("i,i->", x, x) == 5000
    assert ge.einsum("i,i->", x, x).dtype == np.float16


def test_bfloat16_is_known_by_name():
    bfloat16 = pytest.importorskip("ml_dtypes").bfloat16
    x = np.ones((3, 5), bfloat16)
    result = ge.einsum("ij,kj->ik", x, x)
    assert result.dtype == bfloat16
    assert ge.einsum_plan("ij,jk", (2, 3), (3, 5), dtype="bfloat16").dtype == "bfloat16"


def test_objects_and_long_doubles_are_summed_on_the_cpu():
    from fractions import Fraction

    thirds = np.full((2, 2), Fraction(1, 3), object)
    assert ge.einsum("ij,ij->", thirds, thirds) == Fraction(4, 9)
    assert ge.einsum("ij,jk->ik", thirds, thirds)[0, 0] == Fraction(2, 9)
    assert ge.einsum("ii->", thirds) == Fraction(2, 3)
    x = np.ones((2, 3), np.longdouble)
    assert ge.einsum("ij,kj->ik", x, x).dtype == np.longdouble


def test_a_scalar_result_is_a_scalar_as_numpys():
    assert type(ge.einsum("i->", np.ones(3))) is np.float64
    assert type(ge.einsum(",->", 2, 3)) is np.int64
    assert ge.einsum("i->", np.ones(3), out=np.zeros(())).shape == ()


# ---------------------------------------------------------------- order=


@pytest.mark.parametrize("order", ["C", "F", "A", "K"])
def test_the_layout_is_the_one_asked_for(order, rng):
    a, b = rng.random((3, 5)), np.asfortranarray(rng.random((5, 7)))
    result = ge.einsum("ij,jk->ki", a, b, order=order)
    np.testing.assert_allclose(result, (a @ b).T)
    assert result.flags.c_contiguous or order not in "CA"
    assert result.flags.f_contiguous or order != "F"
    a = np.asfortranarray(a)
    assert ge.einsum("ij,jk->ik", a, b, order="A").flags.f_contiguous


# ---------------------------------------------------------------- operands from elsewhere


class FromElsewhere:
    """An array of another library that offers nothing but DLPack."""

    def __init__(self, array):
        self._array = array

    def __dlpack__(self, **options):
        return self._array.__dlpack__(**options)

    def __dlpack_device__(self):
        return self._array.__dlpack_device__()


class OnGpu:
    """An array of which only its whereabouts are known."""

    shape, dtype, ndim = (3,), np.dtype(float), 1
    __cuda_array_interface__ = {"shape": (3,), "typestr": "<f8", "data": (0, False), "version": 3}  # noqa: RUF012


def test_arrays_come_in_by_dlpack():
    np.testing.assert_array_equal(ge.einsum("ij->ji", FromElsewhere(np.ones((2, 3)))), np.ones((3, 2)))


def test_lists_and_numbers_are_operands():
    assert ge.einsum("i,i->", [1, 2, 3], [1, 1, 1]) == 6
    assert ge.einsum("i,->i", [1, 2], 2.5).tolist() == [2.5, 5.0]
    assert ge.einsum([[1, 2], [3, 4]], [0, 1], [1, 0]).tolist() == [[1, 3], [2, 4]]


def test_operands_in_two_places_are_refused_with_advice():
    with pytest.raises(ge.OperandError, match=r"operand 1 is a numpy array but operand 0 is on a GPU: move one"):
        ge.einsum("i,i->", OnGpu(), np.ones(3))
    with pytest.raises(ge.OperandError, match=r"operand 0 is on a GPU: bring it back first"):
        ge.einsum("i->", OnGpu(), backend="cpu")


def test_the_plan_of_an_array_on_a_gpu_needs_no_gpu():
    assert ge.einsum_plan("i,i->", OnGpu(), OnGpu()).dtype == "float64"


def test_a_plan_takes_the_dtype_of_whatever_is_an_operand():
    assert ge.einsum_plan("i,i->", [1, 2], FromElsewhere(np.ones(2, np.float32))).dtype == "float64"
    assert ge.einsum_plan("i,i->", (2,), FromElsewhere(np.ones(2, "c8"))).dtype == "complex64"


def test_a_plan_is_run_on_operands_of_its_shapes(rng):
    a, b = rng.random((2, 3)), rng.random((3, 5))
    plan = ge.Plan.from_json(ge.einsum_plan("ij,jk->ki", a, b).to_json())
    np.testing.assert_allclose(ge.run_plan(plan, a, b), (a @ b).T)
    assert ge.run_plan(ge.einsum_plan("ij,jk->ki", a, b, dtype="f4"), a, b).dtype == np.float32
    view = ge.run_plan(ge.einsum_plan("ij->ji", a), a)
    assert not np.shares_memory(view, a)
    with pytest.raises(ge.PlanError, match=r"takes operands of shapes \(\(2, 3\), \(3, 5\)\), not \(\(3, 5\),\)"):
        ge.run_plan(plan, b)
    with pytest.raises(ge.DtypeError, match="operand 0 is complex128"):
        ge.run_plan(plan, a + 0j, b)
    wide = ge.einsum_plan((1,) * 40, range(40), (1,) * 40, range(40, 80), range(80))
    with pytest.raises(ge.SubscriptsError, match="needs an array of 80 dimensions"):
        ge.run_plan(wide, np.ones((1,) * 40), np.ones((1,) * 40))
    operand, product, again = ge.run_plan(dataclasses.replace(plan, outputs=(0, 2, 2)), a, b)
    np.testing.assert_array_equal(operand, a)
    np.testing.assert_array_equal(product, again)
    assert not np.shares_memory(operand, a)
    assert not np.shares_memory(product, again)


def test_a_list_counts_for_order_a_as_the_array_that_it_becomes():
    other = np.asfortranarray(np.ones((4, 5, 3)))
    assert ge.einsum("be,edc->edcb", [[1.0, 2, 3, 4]], other, order="A").flags.f_contiguous
    assert not ge.einsum("be,edc->edcb", [[1.0, 2, 3, 4], [5, 6, 7, 8]], other, order="A").flags.f_contiguous


# ---------------------------------------------------------------- no GPU


def in_a_fresh_process(code):
    return subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True)


def test_importing_and_running_never_imports_cupy():
    code = "import sys, gpueinsum as ge; ge.einsum('i,i->', [1.], [2.]); assert 'cupy' not in sys.modules"
    assert in_a_fresh_process(code).returncode == 0


def test_cuda_without_cupy_says_so_in_one_sentence():
    code = "import sys; sys.modules['cupy'] = None; import gpueinsum as ge; print(ge.array_module().__name__)\n"
    code += "try: ge.einsum('i->', [1.], backend='cuda')\nexcept ge.DeviceError as error: print(error)"
    lines = in_a_fresh_process(code).stdout.splitlines()
    assert lines[0] == "numpy"
    assert lines[1].startswith("CUDA needs CuPy, which cannot be imported: pip install 'cupy-cuda13x[ctk]'")


def test_cuda_without_a_driver_says_so():
    cupy = pytest.importorskip("cupy")
    if ge.array_module() is cupy:
        pytest.skip("there is a GPU here")
    for _ in range(2):
        with pytest.raises(ge.DeviceError, match=r"CUDA needs an NVIDIA (driver|device)"):
            ge.einsum("i->", [1.0], backend="cuda")


# ---------------------------------------------------------------- refusals


class Sparse:
    """As SciPy's: a shape and arithmetic, but no array."""

    shape = (2, 3)
    __mul__ = __add__ = toarray = lambda self, *other: self


REFUSED = [
    (lambda: ge.einsum("ij,jk", np.ones((2, 3)), np.ones((5, 2))), ValueError, "label 'j' is 3 in operand 0 but 5"),
    (
        lambda: ge.einsum("i", np.ones(3), out=np.ones(2)),
        ValueError,
        r"out has shape \(2,\), but the result has \(3,\)",
    ),
    (lambda: ge.einsum("i", np.ones(3), out=[1, 2, 3]), TypeError, "out is of type list, not an array"),
    (lambda: ge.einsum("i", np.ones(3), out=np.broadcast_to(0.0, 3)), ValueError, "out is read-only"),
    (lambda: ge.einsum("i", np.ones(3), out=np.ones(3, int)), TypeError, "the result is float64, which casting='safe'"),
    (
        lambda: ge.einsum("i", np.ones(3), dtype="f4"),
        TypeError,
        "operand 0 is float64, which casting='safe' does not cast",
    ),
    (lambda: ge.einsum("i", np.ones(3), dtype="apple"), TypeError, "dtype='apple' is no dtype"),
    (lambda: ge.einsum("i", np.array(["a"])), TypeError, "operand 0: elements of dtype <U1 cannot be multiplied"),
    (lambda: ge.einsum("i", np.array(["2026-11-22"], "M8[D]")), TypeError, "cannot be multiplied"),
    (lambda: ge.einsum("i", np.ones(3), order="Z"), ValueError, "order='Z' is none of"),
    (lambda: ge.einsum("i", np.ones(3), backend="tpu"), ValueError, "backend='tpu' is none of"),
    (lambda: ge.einsum("i", np.ones(3), precision="low"), ValueError, "precision='low' is none of"),
    (lambda: ge.einsum("i", np.ones(3), deterministic="yes"), ValueError, "deterministic='yes' is none of"),
    (lambda: ge.contract_expression("i", (3,), graph="yes"), ValueError, "graph='yes' is none of"),
    (lambda: ge.contract_expression("i", (3,), graph=True, deterministic=True), ValueError, "graph=True may give"),
    (lambda: ge.einsum("i", np.ones(3), optimize="fastest"), KeyError, "optimize='fastest'"),
    (lambda: ge.einsum("i,i,i", *[np.ones(3)] * 3, optimize=[(0, 3), (0, 1)]), RuntimeError, "path step 0"),
    (lambda: ge.einsum(np.ones((1,) * 40), range(40), np.ones((1,) * 40), range(40, 80)), ValueError, "80 dimensions"),
    (lambda: ge.einsum("i\n,i", np.ones(2), np.ones(3)), ValueError, r"i ,i\n    \^  \^"),
    (lambda: ge.einsum("i"), ValueError, "at least one operand"),
    (lambda: ge.einsum("i", np.ones(3), optimize={}), ValueError, "optimize={} is no path, no optimizer"),
    (lambda: ge.einsum_plan("i", (-3,)), TypeError, r"shape \(-3,\) has a negative size"),
    (lambda: ge.einsum_plan("i", (3,), dtype="M8[s]"), TypeError, "cannot be multiplied and added"),
    (lambda: ge.tensordot(np.ones((2, 2)), np.ones((2, 2)), ([0, 0], [0, 0])), ValueError, "name an axis twice"),
    (lambda: ge.einsum("i,i", np.ones(2), None), TypeError, "operand 1: a NoneType is no array of numbers"),
    (lambda: ge.einsum("ij", {1: 2}), TypeError, "operand 0: a dict is no array of numbers"),
    (lambda: ge.einsum("ij->ji", Sparse()), TypeError, r"a Sparse is no array .* convert it first \(x.toarray\(\)\)"),
    (lambda: ge.einsum("ij", [[1, 2], [3]]), ValueError, "operand 0 is no array: setting an array element"),
    (lambda: ge.einsum("ij,j", [np.ones((2, 3)), np.ones(3)]), TypeError, r"passed one by one: \*operands"),
    (lambda: ge.einsum("i,i", np.ones(2), ["a", "b"]), TypeError, "operand 1: elements of dtype <U1"),
    (lambda: ge.einsum(np.ones(2), [0], np.ones(2)), TypeError, "the last argument, needs a list of hashable|1 labels"),
    (lambda: ge.einsum(np.ones((2, 2)), [0, 1], np.ones((2, 2))), TypeError, "each operand is followed by its labels"),
    (lambda: ge.einsum(np.ones((2, 2)), np.array([0.0, 1.0])), TypeError, "operand 0 needs a list of hashable labels"),
    (lambda: ge.einsum(None, np.ones((2, 2)), [0, 1]), TypeError, "operand 0 needs a list of hashable labels"),
    (lambda: ge.einsum("i,i,i", *[np.ones(2)] * 3, optimize=1), ValueError, "optimize=1 is no path"),
    (lambda: ge.einsum("i", np.ones(3), order=["C"]), ValueError, r"order=\['C'\] is none of"),
    (lambda: ge.contract("i", np.ones(3), memory_limit=[1]), ValueError, r"memory_limit=\[1\] is not a number"),
    (lambda: ge.contract("i,i", np.ones(3), np.ones(3), memory_limit="10GB"), ValueError, "memory_limit='10GB'"),
    (lambda: ge.contract("i,i", np.ones(3), np.ones(3), memory_limit=float("nan")), ValueError, "memory_limit=nan"),
    (lambda: ge.einsum("i", np.ones(3), dtype="f4,("), TypeError, r"dtype='f4,\(' is no dtype"),
    (lambda: ge.einsum("i", np.ones(3), dtype="float8_e5m2"), TypeError, "is no dtype|cannot be multiplied"),
    (lambda: ge.einsum("\ud83dj", np.ones((2, 3))), ValueError, "cannot be a label"),
    (lambda: ge.run_plan("ij->ji", np.ones((2, 3))), ValueError, "'ij->ji' is no Plan: einsum_plan makes one"),
    (lambda: ge.explain("ij->ji"), ValueError, "'ij->ji' is no Plan"),
    (lambda: ge.tensordot(np.ones(2), np.ones(2), "ij"), ValueError, "axes='ij' is neither"),
    (lambda: ge.tensordot(np.ones(2), np.ones(2), [1]), ValueError, r"axes=\[1\] is neither"),
    (lambda: ge.contract_path("i,i", 2, 3, shapes=True), TypeError, "2 is no shape, a tuple of integers"),
    (lambda: ge.contract_expression("i,i", (2,), (-2,)), TypeError, r"shape \(-2,\) has a negative size"),
    (lambda: ge.einsum(np.ones(3)), ValueError, "the first argument is neither subscripts nor an operand"),
    (lambda: ge.einsum(np.ones(3), 0), TypeError, "operand 0 needs a list of hashable labels, not 0"),
    (lambda: ge.einsum(np.ones(3), [[]]), TypeError, "operand 0 needs a list of hashable labels"),
    (lambda: ge.tensordot(np.ones((2, 3)), np.ones((2, 3)), 1), ValueError, "axis -1 of x is 3 but axis 0 of y is 2"),
    (lambda: ge.tensordot(np.ones(2), np.ones(2), ([0], [3])), ValueError, "name an axis twice|out of range"),
]


@pytest.mark.parametrize(("call", "error", "message"), REFUSED)
def test_a_bad_call_is_refused_at_the_door(call, error, message):
    with pytest.raises(error, match=message):
        call()


def test_an_error_in_a_long_expression_shows_its_surroundings():
    labels = [chr(0x1200 + i) for i in range(300)]
    text = ",".join(a + b for a, b in itertools.pairwise(labels))
    shapes = [(2, 2)] * 298 + [(3, 2)]
    with pytest.raises(ge.SubscriptsError) as caught:
        ge.einsum_plan(text, *shapes)
    message, excerpt, carets = str(caught.value).splitlines()
    assert message == f"label {labels[298]!r} is 2 in operand 297 but 3 in operand 298"
    assert len(excerpt) < 120
    assert excerpt.startswith("     … ")
    assert [excerpt[at] for at, mark in enumerate(carets) if mark == "^"] == [labels[298]] * 2


def test_an_error_at_a_term_without_labels_is_shown_in_a_long_expression_too():
    with pytest.raises(ge.SubscriptsError, match="operand 0 has 1 dimension, but its term has 0 labels"):
        ge.einsum_plan("," * 200, (2,), *[()] * 200)


def test_unicode_white_space_may_be_a_label():
    assert ge.einsum("a\u1680,\u1680b->ab", np.ones((2, 3)), np.ones((3, 5))).shape == (2, 5)
    assert ge.einsum(b"ij->ji", np.ones((2, 3))).shape == (3, 2)  # and numpy takes bytes


def test_nothing_is_written_when_a_call_is_refused():
    out = np.zeros((2, 2))
    with pytest.raises(ge.SubscriptsError):
        ge.einsum("ij,jk->ik", np.ones((2, 3)), np.ones((5, 2)), out=out)
    assert not out.any()


# ---------------------------------------------------------------- drop-ins, caches, threads


@pytest.mark.parametrize(
    ("x_shape", "y_shape", "axes"),
    [
        ((2, 3), (5, 7), 0),
        ((2, 3), (3, 5), 1),
        ((2, 3, 5), (3, 5, 7), 2),
        ((2, 3, 5), (5, 2, 7), ([0, 2], [1, 0])),
        ((2, 3), (5, 3), (-1, -1)),
        ((2,), (3,), ([], [])),
        ((2, 3), (2, 3), ([0, 1], [0, 1])),
        ((2, 3), (2, 3), (np.array([0, 1]), (0, 1))),
        ((2, 3), (3, 5), np.array(1)),
        ((2, 3), (5, 3), ({1}, {-1})),
    ],
)
def test_tensordot_is_numpys(x_shape, y_shape, axes, rng):
    x, y = rng.random(x_shape), rng.random(y_shape)
    expected = np.tensordot(x, y, axes)
    result = ge.tensordot(x, y, axes)
    assert type(result) is np.ndarray
    np.testing.assert_allclose(result, expected)


def test_transpose_is_numpys(rng):
    x = rng.random((2, 3, 5))
    assert ge.transpose(x).shape == (5, 3, 2)
    assert np.shares_memory(ge.transpose(x, (1, 0, 2)), x)


def test_a_second_call_plans_nothing(rng, monkeypatch):
    a, b = rng.random((2, 3)), rng.random((3, 5))
    ge.einsum("pq,qr->pr", a, b)
    monkeypatch.setattr(call, "cheapest_plan", None)
    ge.einsum("pq,qr->pr", a, b)
    with pytest.raises(TypeError):
        ge.einsum("pq,qr->pr", a.astype(np.float32), b.astype(np.float32))  # another dtype is another plan


def test_the_caches_do_not_keep_an_optimizer_alive():
    class Search:
        __hash__ = None
        calls = 0

        def __call__(self, inputs, output, sizes, memory_limit=None):
            self.calls += 1
            return [(0, 1), (0, 1)]

    search = Search()
    for _ in range(3):
        ge.einsum("pq,qr,rs->ps", *[np.eye(2)] * 3, optimize=search)
    assert search.calls == 1  # and it is asked once
    other = Search()
    ge.einsum("pq,qr,rs->ps", *[np.eye(2)] * 3, optimize=other)
    assert other.calls == 1
    watched = weakref.ref(search)
    del search
    gc.collect()
    assert watched() is None


def test_half_precision_overflows_in_silence_as_numpys_does():
    h = np.full((4, 4), 60_000, np.float16)
    np.testing.assert_array_equal(ge.einsum("ij,jk->ik", h, h), np.einsum("ij,jk->ik", h, h))


def test_the_caches_may_be_used_from_many_threads(rng):
    a, b = rng.random((2, 3)), rng.random((3, 5))
    failures = []

    def work(seed):
        for i in range(200):
            text = f"{chr(192 + (i * seed) % 97)}j,jk"
            if not np.allclose(ge.einsum(text, a, b), a @ b if text[0] < "k" else (a @ b).T):
                failures.append(text)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(1, 9)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
